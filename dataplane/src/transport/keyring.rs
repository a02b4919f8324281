//! Mutual TLS between the tiers: one certificate a tier, from files that are read again when they change.
//!
//! Whoever has a certificate of the pipeline's CA with the name of a tier is of that tier. A connection that
//! stands goes on with the certificate it began with; every new one uses the newest. Sessions are not
//! resumed: that would carry trust over the end of a certificate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use rustls::client::{Resumption, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::wire::Wire;
use crate::renewal::{self, Renewals};
use crate::stats::Role;

/// A file larger than this holds no certificates: 100 of some 1.3 KiB.
const FILE_BYTES_MAX: u64 = 128 << 10;
/// HTTP/2 is all that is spoken here.
const ALPN: &[u8] = b"h2";

/// The certificates of this process, and whom it trusts.
pub struct Keyring {
    directory: PathBuf,
    tier: Role,
    agent: ServerName<'static>,
    gateway: ServerName<'static>,
    keys: ArcSwap<Keys>,
    /// Handshakes that others began, by outcome.
    handshakes: [AtomicU64; Outcome::ALL.len()],
    /// Certificates after the first.
    pub renewals: Renewals,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A certificate of ours.
    Accepted,
    /// No certificate was shown.
    NoCertificate,
    /// The certificate is not of our CA, has ended, or is not for this use.
    BadCertificate,
    /// The certificate is of our CA, but names no tier of this pipeline.
    WrongName,
    /// What came was no TLS, or broke off.
    Broken,
    /// It took too long.
    TooSlow,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file cannot be read.
    #[error("{path}: {why}; certificates are tls.crt, tls.key and ca.crt in PEM")]
    File {
        /// Which one.
        path: String,
        /// Why.
        why: String,
    },
    /// They do not fit together.
    #[error("what is in {directory} cannot be used: {why}")]
    Unusable {
        /// Where they are.
        directory: String,
        /// Why.
        why: String,
    },
}

struct Keys {
    /// Of the three files' bytes.
    fingerprint: [u8; 32],
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The bytes of the three files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

// === impl Outcome ===

impl Outcome {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::WrongName,
        Self::Broken,
        Self::TooSlow,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::WrongName => "wrong_name",
            Self::Broken => "broken",
            Self::TooSlow => "too_slow",
        }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::InvalidCertificate(_)) => Self::BadCertificate,
            _ => Self::Broken,
        }
    }
}

// === impl Keyring ===

impl Keyring {
    /// Reads the certificates of a process of this tier: `tls.crt`, `tls.key` and `ca.crt`.
    ///
    /// # Errors
    /// When they cannot be read, do not fit together, or are another tier's or pipeline's.
    pub fn open(directory: &Path, pipeline: &str, tier: Role) -> Result<Arc<Self>, KeyringError> {
        let name = |tier: Role| {
            let name = format!("{}.{pipeline}.ringtail", tier.name());
            ServerName::try_from(name).map_err(|error| unusable(directory, error))
        };
        let (agent, gateway) = (name(Role::Agent)?, name(Role::Gateway)?);
        let own = if tier == Role::Agent { &agent } else { &gateway };
        let keys = Files::read(directory)?.keys(own).map_err(|why| unusable(directory, why))?;
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            tier,
            agent,
            gateway,
            keys: ArcSwap::from_pointee(keys),
            handshakes: Default::default(),
            renewals: Renewals::default(),
        }))
    }

    /// Reads the files again and again, and uses what is new, until the task is aborted.
    pub async fn follow(self: Arc<Self>) {
        let judged = self.keys.load().fingerprint;
        let read = || Files::read(&self.directory).ok().map(|files| (files.fingerprint(), files));
        let judge = |files: Files| {
            let keys = files.keys(self.own_name());
            let outcome = keys.map(|keys| self.keys.store(Arc::new(keys)));
            self.renewals.count("certificates of the tiers", outcome);
        };
        renewal::follow(Some(judged), read, judge).await;
    }

    /// Handshakes that ended so.
    pub fn handshakes(&self, outcome: Outcome) -> u64 {
        self.handshakes[outcome as usize].load(Relaxed)
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.handshakes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// The server's side of a handshake, and the tier of whoever is at the other end.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(Wire, Role), Outcome> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.keys.load().server));
        let stream = acceptor.accept(stream).await.map_err(|error| Outcome::of(&error))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let tier = shown.and_then(|shown| self.tier_of(shown)).ok_or(Outcome::WrongName)?;
        Ok((Wire::Tls(Box::new(TlsStream::Server(stream))), tier))
    }

    /// The client's side of a handshake with a gateway.
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<Wire> {
        let connector = TlsConnector::from(Arc::clone(&self.keys.load().client));
        let stream = connector.connect(self.gateway.clone(), stream).await?;
        Ok(Wire::Tls(Box::new(TlsStream::Client(stream))))
    }

    fn tier_of(&self, certificate: &CertificateDer<'_>) -> Option<Role> {
        let certificate = ParsedCertificate::try_from(certificate).ok()?;
        let named = |name: &ServerName<'_>| verify_server_name(&certificate, name).is_ok();
        match (named(&self.agent), named(&self.gateway)) {
            (true, false) => Some(Role::Agent),
            (false, true) => Some(Role::Gateway),
            // One that names both tiers would let an agent call itself a gateway.
            _ => None,
        }
    }

    fn own_name(&self) -> &ServerName<'static> {
        if self.tier == Role::Agent { &self.agent } else { &self.gateway }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("directory", &self.directory).finish_non_exhaustive()
    }
}

pub(super) fn unusable(directory: &Path, why: impl fmt::Display) -> KeyringError {
    KeyringError::Unusable { directory: directory.display().to_string(), why: why.to_string() }
}

// === impl Files ===

impl Files {
    fn read(directory: &Path) -> Result<Self, KeyringError> {
        let read = |name: &str| read_file(&directory.join(name));
        Ok(Self {
            certificate: read("tls.crt")?,
            key: read("tls.key")?,
            authority: read("ca.crt")?,
        })
    }

    fn fingerprint(&self) -> [u8; 32] {
        fingerprint_of([&self.certificate, &self.key, &self.authority])
    }

    /// Both sides' settings. The error does not show the key.
    fn keys(&self, own_name: &ServerName<'_>) -> Result<Keys, String> {
        let chain = certificates(&self.certificate).map_err(|why| format!("tls.crt: {why}"))?;
        let trusted = certificates(&self.authority).map_err(|why| format!("ca.crt: {why}"))?;
        let key = || {
            PrivateKeyDer::from_pem_slice(&self.key)
                .map_err(|_| "tls.key: no private key in PEM".to_owned())
        };
        let own = chain.first().ok_or("tls.crt: no certificate in it")?;
        let parsed = ParsedCertificate::try_from(own).map_err(|error| error.to_string())?;
        verify_server_name(&parsed, own_name)
            .map_err(|_| format!("tls.crt: it has no DNS name {}", own_name.to_str()))?;
        let mut roots = RootCertStore::empty();
        for certificate in trusted {
            roots.add(certificate).map_err(|error| format!("ca.crt: {error}"))?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let text = |error: rustls::Error| error.to_string();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| format!("ca.crt: {error}"))?;
        let versions = &[&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(text)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(text)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(text)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(text)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        let fingerprint = self.fingerprint();
        Ok(Keys { fingerprint, server: Arc::new(server), client: Arc::new(client) })
    }
}

/// A file of a Secret, if it is not too large to be one.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, KeyringError> {
    let wrong = |why: String| KeyringError::File { path: path.display().to_string(), why };
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("has {size} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    std::fs::read(path).map_err(|error| wrong(error.to_string()))
}

/// Of the bytes of all files.
pub(super) fn fingerprint_of<const N: usize>(files: [&[u8]; N]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        digest.update((file.len() as u64).to_le_bytes());
        digest.update(file);
    }
    digest.finalize().into()
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    list.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
