//! The certificate that clients see, from files that are read again when they change, and whom of them is
//! believed.
//!
//! A connection that stands goes on with what it began with. Sessions are not resumed: that would carry trust
//! over the end of a certificate.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::call::Protocol;
use super::keyring::{KeyringError, Outcome, certificates, fingerprint_of, read_file, unusable};
use super::wire::Wire;
use crate::renewal::{self, Renewals};

/// The certificate of the receivers.
pub struct Certificate {
    directory: PathBuf,
    authority: Option<PathBuf>,
    keys: ArcSwap<Keys>,
    /// Certificates after the first.
    pub renewals: Renewals,
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
            renewals: Renewals::default(),
        }))
    }

    /// Reads the files again and again, and uses what is new, until the task is aborted.
    pub async fn follow(self: Arc<Self>) {
        let judged = self.keys.load().fingerprint;
        let read = || {
            let files = Files::read(&self.directory, self.authority.as_deref()).ok()?;
            Some((files.fingerprint(), files))
        };
        let judge = |files: Files| {
            let outcome = files.keys().map(|keys| self.keys.store(Arc::new(keys)));
            self.renewals.count("certificates of the receivers", outcome);
        };
        renewal::follow(Some(judged), read, judge).await;
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
