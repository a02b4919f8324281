//! Handshakes between all kinds of certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tokio::net::TcpListener;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// The three files of a process with these names.
    fn write(&self, directory: &Path, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(directory.join("ca.crt"), self.0.pem()).unwrap();
    }

    fn keyring(&self, names: &[&str], tier: Role) -> Arc<Keyring> {
        let directory = tempfile::tempdir().unwrap();
        self.write(directory.path(), names);
        Keyring::open(directory.path(), "shop", tier).unwrap()
    }
}

const AGENT: &[&str] = &["agent.shop.ringtail"];
const GATEWAY: &[&str] = &["gateway.shop.ringtail"];

/// What a gateway says of whoever connects.
async fn shake(gateway: &Keyring, client: &Keyring) -> (Result<Role, Outcome>, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connect = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut wire = client.connect(stream).await.ok()?;
        // In TLS 1.3 a client learns that it is refused by its first reading.
        let mut byte = [0];
        tokio::io::AsyncReadExt::read_exact(&mut wire, &mut byte).await.ok()
    };
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut wire, tier) = gateway.accept(stream).await?;
        tokio::io::AsyncWriteExt::write_all(&mut wire, &[1]).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut wire).await.unwrap();
        Ok(tier)
    };
    let (connected, accepted) = tokio::join!(connect, accept);
    (accepted, connected.is_some())
}

#[tokio::test]
async fn a_certificate_says_which_tier_its_holder_is() {
    let authority = Authority::new();
    let gateway = authority.keyring(GATEWAY, Role::Gateway);
    let agent = authority.keyring(AGENT, Role::Agent);
    assert_eq!(shake(&gateway, &agent).await, (Ok(Role::Agent), true));
    let other = authority.keyring(GATEWAY, Role::Gateway);
    assert_eq!(shake(&gateway, &other).await, (Ok(Role::Gateway), true));
}

#[tokio::test]
async fn strangers_are_refused_each_for_its_reason() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let gateway = authority.keyring(GATEWAY, Role::Gateway);
    // Of another authority: neither side trusts the other. The client ends first.
    let foreign = stranger.keyring(AGENT, Role::Agent);
    assert_eq!(shake(&gateway, &foreign).await, (Err(Outcome::Broken), false));
    // A client that trusts anybody and shows what it has.
    let mut keys = Files::read(&own(&stranger, AGENT)).unwrap();
    keys.authority = Files::read(&own(&authority, AGENT)).unwrap().authority;
    let name = ServerName::try_from("agent.shop.ringtail").unwrap();
    agent_with(&foreign, keys.keys(&name).unwrap());
    assert_eq!(shake(&gateway, &foreign).await, (Err(Outcome::BadCertificate), false));
    // Of ours, but of no tier of this pipeline, or of both.
    let both = authority.keyring(&[AGENT[0], GATEWAY[0]], Role::Agent);
    assert_eq!(shake(&gateway, &both).await, (Err(Outcome::WrongName), false));
    let elsewhere = authority.keyring(&["agent.shop.ringtail"], Role::Agent);
    let keys = Files::read(&own(&authority, &["agent.other.ringtail"])).unwrap();
    let name = ServerName::try_from("agent.other.ringtail").unwrap();
    agent_with(&elsewhere, keys.keys(&name).unwrap());
    assert_eq!(shake(&gateway, &elsewhere).await, (Err(Outcome::WrongName), false));
    // A gateway that is an agent in truth is no gateway to a client.
    let posing = authority.keyring(AGENT, Role::Agent);
    let agent = authority.keyring(AGENT, Role::Agent);
    assert!(!shake(&posing, &agent).await.1);
}

/// A directory with certificates, left behind for the test's process to forget.
fn own(authority: &Authority, names: &[&str]) -> PathBuf {
    let directory = tempfile::tempdir().unwrap().keep();
    authority.write(&directory, names);
    directory
}

fn agent_with(keyring: &Keyring, keys: Keys) {
    keyring.keys.store(Arc::new(keys));
}

#[tokio::test]
async fn who_shows_nothing_or_speaks_no_tls_is_refused() {
    let authority = Authority::new();
    let gateway = authority.keyring(GATEWAY, Role::Gateway);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let anonymous = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connect = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("gateway.shop.ringtail").unwrap();
        let _ = TlsConnector::from(Arc::new(anonymous)).connect(name, stream).await;
        let mut plain = TcpStream::connect(address).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut plain, preface).await.unwrap();
        plain
    };
    let accept = async {
        let mut ends = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            ends.push(gateway.accept(stream).await.err());
        }
        ends
    };
    let (_plain, ends) = tokio::join!(connect, accept);
    assert_eq!(ends, [Some(Outcome::NoCertificate), Some(Outcome::Broken)]);
}

#[test]
fn files_that_do_not_fit_are_told_without_the_key() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let open = |tier| Keyring::open(directory.path(), "shop", tier).map(drop);
    let told = |tier| open(tier).unwrap_err().to_string();
    assert!(told(Role::Agent).contains("tls.crt"));
    authority.write(directory.path(), AGENT);
    open(Role::Agent).unwrap();
    assert!(told(Role::Gateway).contains("no DNS name gateway.shop.ringtail"));
    let key = std::fs::read(directory.path().join("tls.key")).unwrap();
    authority.write(directory.path(), AGENT);
    std::fs::write(directory.path().join("tls.key"), &key).unwrap();
    assert!(told(Role::Agent).contains("cannot be used"));
    std::fs::write(directory.path().join("tls.key"), "-----BEGIN SECRET-----").unwrap();
    assert!(!told(Role::Agent).contains("SECRET"));
}

#[tokio::test]
async fn new_files_are_used_for_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    old.write(directory.path(), GATEWAY);
    let gateway = Keyring::open(directory.path(), "shop", Role::Gateway).unwrap();
    let [before, after] = [&old, &new].map(|authority| authority.keyring(AGENT, Role::Agent));
    assert_eq!(shake(&gateway, &before).await.0, Ok(Role::Agent));
    let following = tokio::spawn(Arc::clone(&gateway).follow());
    new.write(directory.path(), GATEWAY);
    let started = std::time::Instant::now();
    while gateway.renewals.applied.load(Relaxed) == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "the files are read again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shake(&gateway, &after).await, (Ok(Role::Agent), true));
    assert!(!shake(&gateway, &before).await.1);
    following.abort();
}
