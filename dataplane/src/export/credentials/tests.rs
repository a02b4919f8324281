//! Secrets come from files, are followed, and are never told.

use std::path::Path;
use std::time::Duration;

use ringtail_crds::Compression;
use ringtail_crds::exporter::OtlpProtocol;
use ringtail_crds::resolved::{Endpoint, HeaderValue as Written, Retry, Tls};

use super::*;
use crate::renewal::READ_EVERY;

const CANARY: &str = "canary-7f3a";

fn key(name: &str, key: &str) -> SecretKey {
    SecretKey { name: name.to_owned(), key: key.to_owned() }
}

fn otlp() -> Otlp {
    let wait = Duration::from_secs(1);
    Otlp {
        protocol: OtlpProtocol::Grpc,
        endpoint: Endpoint { address: "tempo:4317".to_owned(), path: String::new(), tls: None },
        headers: vec![
            ("x-org".to_owned(), Written::Secret(key("tempo", "org"))),
            ("x-plain".to_owned(), Written::Text("shop".to_owned())),
        ],
        bearer_token: Some(key("tempo", "token")),
        disk_max_bytes: None,
        compression: Compression::None,
        timeout: wait,
        retry: Retry { max_elapsed: wait, initial_interval: wait, max_interval: wait },
    }
}

fn open(directory: &Path, otlp: &Otlp) -> Result<Credentials, String> {
    Credentials::open("tempo", otlp, directory.to_owned(), Alpn::Http2)
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("tempo")).unwrap();
    directory
}

fn put(directory: &Path, key: &str, text: &str) {
    std::fs::write(directory.join("tempo").join(key), text).unwrap();
}

#[test]
fn headers_and_tokens_are_read_from_secrets_and_struck_out_of_what_is_told() {
    let directory = directory();
    put(directory.path(), "token", CANARY);
    for text in ["shop-org", "shop-org\n", "shop-org\r\n"] {
        put(directory.path(), "org", text);
        let credentials = open(directory.path(), &otlp()).unwrap();
        let headers = credentials.headers();
        assert_eq!(headers.map["x-org"], "shop-org");
        assert_eq!(headers.map["x-plain"], "shop");
        assert_eq!(headers.map["authorization"], format!("Bearer {CANARY}"));
        assert!(headers.map.values().all(HeaderValue::is_sensitive));
        let told = credentials.mask(&format!("bad token {CANARY} of shop-org"));
        assert_eq!(told, "bad token [secret] of [secret]");
        assert_eq!(credentials.mask("cut off: Bearer canary-7"), "cut off: Bearer [secret]");
        let shown = format!("{credentials:?}");
        assert!(!shown.contains(CANARY) && !shown.contains("shop-org"), "{shown}");
    }
}

#[test]
fn what_cannot_be_used_is_told_without_its_value() {
    let directory = directory();
    put(directory.path(), "token", "a");
    let told = |otlp: &Otlp| open(directory.path(), otlp).unwrap_err();
    assert!(told(&otlp()).contains("tempo/org"), "{}", told(&otlp()));
    for (text, wanted) in
        [(format!("{CANARY}\nmore"), "not a header"), ("x".repeat(20_000), "20000 bytes")]
    {
        put(directory.path(), "org", &text);
        let told = told(&otlp());
        assert!(told.contains(wanted) && !told.contains(CANARY), "{told}");
    }
    put(directory.path(), "org", "a");
    put(directory.path(), "token", &format!("{CANARY}\nmore"));
    let why = told(&otlp());
    assert!(why.contains("bearerTokenSecretRef") && !why.contains(CANARY), "{why}");
}

#[test]
fn files_of_tls_that_cannot_be_used_are_named_and_not_shown() {
    let directory = directory();
    let mut otlp = Otlp { headers: Vec::new(), bearer_token: None, ..otlp() };
    put(directory.path(), "ca.crt", CANARY);
    let tls = Tls { authorities: Some(key("tempo", "ca.crt")), ..Tls::default() };
    otlp.endpoint.tls = Some(tls);
    let why = open(directory.path(), &otlp).unwrap_err();
    assert!(why.contains("no certificate in PEM") && why.contains("tempo/ca.crt"), "{why}");
    assert!(!why.contains(CANARY), "{why}");
    let tls = Tls { client_certificate: Some("tempo".to_owned()), ..Tls::default() };
    otlp.endpoint.tls = Some(tls);
    let certified = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
    put(directory.path(), "tls.crt", &certified.cert.pem());
    put(directory.path(), "tls.key", CANARY);
    let why = open(directory.path(), &otlp).unwrap_err();
    assert!(why.contains("no private key in PEM") && !why.contains(CANARY), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_new_file_is_used_and_a_wrong_one_is_not() {
    let directory = directory();
    put(directory.path(), "token", "first");
    put(directory.path(), "org", "shop");
    let credentials = Arc::new(open(directory.path(), &otlp()).unwrap());
    let following = tokio::spawn({
        let credentials = Arc::clone(&credentials);
        async move { credentials.follow().await }
    });
    let counts = || {
        let renewals = &credentials.renewals;
        (renewals.applied.load(Relaxed), renewals.refused.load(Relaxed))
    };
    let token = || credentials.headers().map["authorization"].clone();
    let turns = || tokio::time::sleep(READ_EVERY * 3);
    turns().await;
    assert_eq!((counts(), token()), ((0, 0), HeaderValue::from_static("Bearer first")));
    put(directory.path(), "token", "second");
    turns().await;
    assert_eq!((counts(), token()), ((1, 0), HeaderValue::from_static("Bearer second")));
    assert_eq!(credentials.mask("first and second"), "[secret] and [secret]");
    std::fs::remove_file(directory.path().join("tempo/token")).unwrap();
    turns().await;
    // One complaint, and the old one stays.
    assert_eq!((counts(), token()), ((1, 1), HeaderValue::from_static("Bearer second")));
    put(directory.path(), "token", "third");
    turns().await;
    assert_eq!((counts(), token()), ((2, 1), HeaderValue::from_static("Bearer third")));
    following.abort();
}
