//! The certificate that clients see, from files that are read again when they change, and whom of them is
//! believed.
//!
//! A connection that stands goes on with what it began with. Sessions are not resumed: that would carry trust
//! over the end of a certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::call::Protocol;
use super::keyring::{
    KeyringError, Outcome, READ_EVERY, certificates, fingerprint_of, read_file, unusable,
};
use super::wire::Wire;

/// The certificate of the receivers.
pub struct Certificate {
    directory: PathBuf,
    authority: Option<PathBuf>,
    keys: ArcSwap<Keys>,
    /// Certificates taken into use after the first.
    pub reloads: AtomicU64,
    /// Files that were read and not taken into use.
    pub refusals: AtomicU64,
}

struct Keys {
    fingerprint: [u8; 32],
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

/// The bytes of the files.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Option<Vec<u8>>,
}

// === impl Certificate ===

impl Certificate {
    /// Reads `tls.crt` and `tls.key` in `directory`. With `authority`, a directory with `ca.crt`, only
    /// clients with a certificate of it are let in.
    ///
    /// # Errors
    /// When they cannot be read or do not fit together.
    pub fn open(directory: &Path, authority: Option<&Path>) -> Result<Arc<Self>, KeyringError> {
        let keys = Files::read(directory, authority)?.keys();
        let keys = keys.map_err(|why| unusable(directory, why))?;
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            authority: authority.map(Path::to_owned),
            keys: ArcSwap::from_pointee(keys),
            reloads: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }))
    }

    /// Reads the files again and again, and uses what is new, until the task is aborted.
    pub async fn follow(self: Arc<Self>) {
        let mut every = interval(READ_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut judged = self.keys.load().fingerprint;
        loop {
            every.tick().await;
            // Files that are being replaced may be away, or not fit together, for a moment.
            let read = Files::read(&self.directory, self.authority.as_deref());
            let Ok(files) = read else { continue };
            let fingerprint = files.fingerprint();
            if std::mem::replace(&mut judged, fingerprint) == fingerprint {
                continue;
            }
            match files.keys() {
                Ok(keys) => {
                    self.keys.store(Arc::new(keys));
                    self.reloads.fetch_add(1, Relaxed);
                    tracing::info!("new certificates of the receivers are in use");
                }
                Err(why) => {
                    self.refusals.fetch_add(1, Relaxed);
                    tracing::warn!(%why, "new certificates of the receivers cannot be used");
                }
            }
        }
    }

    /// The server's side of a handshake.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        protocol: Protocol,
    ) -> Result<Wire, Outcome> {
        let keys = self.keys.load();
        let config = if protocol == Protocol::Grpc { &keys.grpc } else { &keys.http };
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        let stream = acceptor.accept(stream).await.map_err(|error| Outcome::of(&error))?;
        Ok(Wire::Tls(Box::new(TlsStream::Server(stream))))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("directory", &self.directory).finish_non_exhaustive()
    }
}

// === impl Files ===

impl Files {
    fn read(directory: &Path, authority: Option<&Path>) -> Result<Self, KeyringError> {
        Ok(Self {
            certificate: read_file(&directory.join("tls.crt"))?,
            key: read_file(&directory.join("tls.key"))?,
            authority: authority
                .map(|directory| read_file(&directory.join("ca.crt")))
                .transpose()?,
        })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let authority = self.authority.as_deref().unwrap_or_default();
        fingerprint_of([&self.certificate, &self.key, authority])
    }

    /// The error does not show the key.
    fn keys(&self) -> Result<Keys, String> {
        let chain = certificates(&self.certificate).map_err(|why| format!("tls.crt: {why}"))?;
        if chain.is_empty() {
            return Err("tls.crt: no certificate in it".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| "tls.key: no private key in PEM".to_owned())?;
        let text = |error: rustls::Error| error.to_string();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // SDKs of older languages speak TLS 1.2 at most.
        let versions = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(text)?;
        let builder = match &self.authority {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let trusted = certificates(pem).map_err(|why| format!("ca.crt: {why}"))?;
                let mut roots = RootCertStore::empty();
                for certificate in trusted {
                    roots.add(certificate).map_err(|error| format!("ca.crt: {error}"))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|error| format!("ca.crt: {error}"))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut http = builder.with_single_cert(chain, key).map_err(text)?;
        http.session_storage = Arc::new(NoServerSessionStorage {});
        http.send_tls13_tickets = 0;
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut grpc = http.clone();
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        let fingerprint = self.fingerprint();
        Ok(Keys { fingerprint, grpc: Arc::new(grpc), http: Arc::new(http) })
    }
}
