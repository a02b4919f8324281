//! TLS to backends and secrets in files: what is trusted, what is told when it is not, what happens when
//! files change, and that no secret shows in anything that a gateway prints or serves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use ringtail_tests::certificates::{Authority, Presented};
use ringtail_tests::exporting::{self, SPANS, logged, manifest, send, trace};
use ringtail_tests::http_backend::{HttpBackend, Manner};
use ringtail_tests::process::{PATIENCE, Process, wait_until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

const NAME: &str = "tempo.test";

/// What a backend shows, and whose clients it takes.
fn server(presented: &Presented, clients: Option<&Authority>) -> Arc<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(presented.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(presented.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(authority.pem().as_bytes()) {
                roots.add(certificate.unwrap()).unwrap();
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

async fn backend(presented: &Presented, clients: Option<&Authority>) -> HttpBackend {
    HttpBackend::start_at("127.0.0.1:0".parse().unwrap(), Some(server(presented, clients))).await
}

fn otlp(name: &str, protocol: &str, backend: &HttpBackend, more: &str) -> String {
    let exporter = exporting::otlp(name, protocol, &format!("https://{}", backend.address), more);
    // A handshake takes longer on a machine that is busy.
    exporter.replace("timeout: 500ms", "timeout: 2s")
}

/// Puts files of a Secret in place, as the kubelet does: others never see half of one.
fn put(directory: &Path, secret: &str, files: &[(&str, &str)]) {
    let target = directory.join("secrets").join(secret);
    std::fs::create_dir_all(&target).unwrap();
    for (key, text) in files {
        let fresh = target.join(format!("{key}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(&fresh, target.join(key)).unwrap();
    }
}

async fn send_some(gateway: &Process, numbers: std::ops::Range<u64>) {
    send(gateway, numbers.map(|number| trace(number).part(0, 1))).await;
}

fn wait_for_log(log: &Path, what: &str) {
    wait_until(what, || std::fs::read_to_string(log).unwrap().contains(what));
}

fn sent(gateway: &Process, exporter: &str) -> u64 {
    gateway.stats().ledger.exporters[exporter].sent
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_tls_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::generate(), Authority::generate());
    put(directory.path(), "ours", &[("ca.crt", &ours.pem())]);
    let backend = backend(&ours.sign(NAME), Some(&ours)).await;
    let plain = HttpBackend::start().await;
    let own = other.sign("client");
    put(directory.path(), "other", &[("tls.crt", &own.certificate), ("tls.key", &own.key)]);
    let named = format!("caRef: {{name: ours}}, serverName: {NAME}");
    let cases = [
        ("unknown", &backend, "serverName: tempo.test".to_owned(), "name it in tls.caRef"),
        ("elsewhere", &backend, "caRef: {name: ours}".to_owned(), "set tls.serverName"),
        ("nameless", &backend, named.clone(), "see tls.clientCertificateRef"),
        (
            "stranger",
            &backend,
            format!("{named}, clientCertificateRef: {{name: other}}"),
            "see tls.clientCertificateRef",
        ),
        ("clear", &plain, named, "does not speak TLS"),
    ];
    for protocol in ["GRPC", "HTTPProtobuf"] {
        let exporters: String = cases
            .iter()
            .map(|(name, backend, tls, _)| {
                otlp(name, protocol, backend, &format!("        tls: {{{tls}}}\n"))
            })
            .collect();
        let (gateway, log) = logged(directory.path(), &manifest(&exporters), "info");
        send_some(&gateway, 0..1).await;
        for (name, _, _, told) in &cases {
            wait_until(&format!("{protocol} {name}: {told}"), || {
                let text = std::fs::read_to_string(&log).unwrap();
                text.lines().any(|line| {
                    line.contains(&format!("exporter=\"{name}\"")) && line.contains(told)
                })
            });
        }
        // Nobody takes anything: the ledger says so at the end.
        gateway.signal("KILL");
    }
    assert_eq!(backend.spans() + plain.spans(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_tokens_change_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::generate(), Authority::generate());
    let own = first.sign("client");
    put(
        directory.path(),
        "tempo",
        &[
            ("ca.crt", &first.pem()),
            ("tls.crt", &own.certificate),
            ("tls.key", &own.key),
            ("token", "token-one\n"),
            ("org", "shop"),
        ],
    );
    let old = backend(&first.sign(NAME), Some(&first)).await;
    let more = format!(
        "        tls: {{caRef: {{name: tempo}}, clientCertificateRef: {{name: tempo}}, serverName: {NAME}}}
        bearerTokenSecretRef: {{name: tempo, key: token}}
        headers: [{{name: x-org, secretKeyRef: {{name: tempo, key: org}}}}]\n"
    );
    let exporters = otlp("tempo", "HTTPProtobuf", &old, &more);
    let (gateway, log) = logged(directory.path(), &manifest(&exporters), "info");
    send_some(&gateway, 0..4).await;
    wait_until("the spans", || sent(&gateway, "tempo") == 4 * SPANS);
    let heads = old.heads();
    assert!(
        heads.iter().all(|(head, _)| {
            head["authorization"] == "Bearer token-one" && head["x-org"] == "shop"
        }),
        "{heads:?}"
    );

    // A new authority, a new certificate there and here, a new token; a key that fits nothing first.
    let address = old.address;
    drop(old);
    let own = second.sign("client");
    put(directory.path(), "tempo", &[("tls.key", &own.key)]);
    wait_for_log(&log, "cannot be used; the old ones stay");
    put(
        directory.path(),
        "tempo",
        &[("tls.crt", &own.certificate), ("ca.crt", &second.pem()), ("token", "token-two")],
    );
    let started = std::time::Instant::now();
    while gateway.metric("ringtail_exporter_credentials_total", "applied") == 0.0 {
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let tls = server(&second.sign(NAME), Some(&second));
    let new = HttpBackend::start_at(address, Some(tls)).await;
    send_some(&gateway, 4..8).await;
    wait_until("the rest", || sent(&gateway, "tempo") == 8 * SPANS);
    assert!(new.heads().iter().any(|(head, _)| head["authorization"] == "Bearer token-two"));
    gateway.stop_balanced();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_shows_in_anything_that_a_gateway_prints_or_serves() {
    const TOKEN: &str = "canary-token-51c1";
    const HEADER: &str = "canary-header-9e07";
    const NEWER: &str = "canary-newer-3d3d";
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::generate();
    let own = authority.sign("client");
    // A line of the key is a canary by itself.
    let key_line = own.key.lines().nth(1).unwrap().to_owned();
    put(
        directory.path(),
        "tempo",
        &[
            ("ca.crt", &authority.pem()),
            ("tls.crt", &own.certificate),
            ("tls.key", &own.key),
            ("token", TOKEN),
            ("org", HEADER),
        ],
    );
    let more = format!(
        "        tls: {{caRef: {{name: tempo}}, clientCertificateRef: {{name: tempo}}, serverName: {NAME}}}
        bearerTokenSecretRef: {{name: tempo, key: token}}
        headers: [{{name: x-org, secretKeyRef: {{name: tempo, key: org}}}}]\n"
    );
    let backend = backend(&authority.sign(NAME), Some(&authority)).await;
    let plain = HttpBackend::start().await;
    let grpc = ringtail_tests::backend::Backend::start().await;
    let clear = |name: &str, protocol: &str, address: std::net::SocketAddr| {
        otlp(name, protocol, &plain, &more.replace("tls:", "#"))
            .replace(&format!("https://{}", plain.address), &format!("http://{address}"))
    };
    let exporters = otlp("secure", "HTTPProtobuf", &backend, &more)
        + &otlp("broken", "GRPC", &plain, &more)
        + &clear("echo", "HTTPJSON", plain.address)
        + &clear("echo-grpc", "GRPC", grpc.address);
    // These repeat every header that they get.
    plain.behave(Manner::Refusing);
    grpc.behave(Manner::Refusing);
    let (gateway, log) = logged(directory.path(), &manifest(&exporters), "debug");
    send_some(&gateway, 0..4).await;
    let refused = |name: &str| {
        gateway.stats().ledger.exporters[name].dropped.get("refused_for_good").copied()
    };
    wait_until("the spans", || {
        sent(&gateway, "secure") == 4 * SPANS
            && [refused("echo"), refused("echo-grpc")] == [Some(4 * SPANS); 2]
    });
    // Newer files, of which one cannot be a header and one no key.
    let bad = format!("{NEWER}\nmore");
    put(directory.path(), "tempo", &[("token", &bad), ("tls.key", NEWER)]);
    wait_for_log(&log, "cannot be used; the old ones stay");
    put(directory.path(), "tempo", &[("token", NEWER), ("tls.key", &own.key)]);
    wait_until("new secrets", || {
        let labels = "exporter=\"secure\",outcome=\"applied\"";
        gateway.metric("ringtail_exporter_credentials_total", labels) >= 1.0
    });
    send_some(&gateway, 4..6).await;
    wait_until("the rest", || sent(&gateway, "secure") == 6 * SPANS);
    assert!(
        backend
            .heads()
            .iter()
            .any(|(head, _)| head["authorization"].to_str().unwrap().contains(NEWER))
    );
    assert!(backend.heads().iter().any(|(head, _)| head["x-org"] == HEADER));
    let mut shown: String =
        ["/stats", "/metrics", "/livez", "/readyz", "/"].map(|page| gateway.admin(page)).join("\n");
    gateway.signal("QUIT");
    drop(gateway);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("[secret]"), "the backends' words were told:\n{text}");
    assert!(text.contains("DEBUG"), "{text}");
    shown.push_str(&text);
    for canary in [TOKEN, HEADER, NEWER, &key_line] {
        let leaks: Vec<&str> = shown.lines().filter(|line| line.contains(canary)).collect();
        assert!(leaks.is_empty(), "{canary}: {leaks:#?}");
    }
}
