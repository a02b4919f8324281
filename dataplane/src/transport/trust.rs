//! TLS to a server that is not of the fleet: whom we trust, what we show, and errors that say what to do.
//!
//! Without an authority of its own a server needs a certificate of one of the public authorities. Mozilla's
//! list of those is compiled in: images hold no file but the binary, and what a fleet trusts should not
//! depend on the node. New certificates are used for new connections; those that stand go on.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::wire::Wire;

/// What is spoken in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2, for gRPC.
    Http2,
    /// HTTP/1.1.
    Http1,
}

/// The certificates that a client goes by, in PEM.
#[derive(Clone, Default)]
pub struct Material {
    /// Authorities to trust; none: the public ones.
    pub authorities: Option<Vec<u8>>,
    /// A certificate to show, and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// What a client trusts and shows.
pub struct Trust {
    server: ServerName<'static>,
    alpn: Alpn,
    skip_verify: bool,
    config: ArcSwap<ClientConfig>,
}

/// Takes any certificate, but only from whoever has its key.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

// === impl Trust ===

impl Trust {
    /// Of a server at `address` (`host:port`), which must call itself `server_name` or as its host.
    ///
    /// # Errors
    /// What is wrong with the name or the certificates. Keys are not shown.
    pub fn new(
        address: &str,
        server_name: Option<&str>,
        alpn: Alpn,
        skip_verify: bool,
        material: &Material,
    ) -> Result<Self, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let name = server_name.unwrap_or(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let server = ServerName::try_from(bare.to_owned())
            .map_err(|_| format!("{name:?} is no name that a certificate can have"))?;
        let config = ArcSwap::from_pointee(config(alpn, skip_verify, material)?);
        Ok(Self { server, alpn, skip_verify, config })
    }

    /// Uses other certificates for new connections.
    ///
    /// # Errors
    /// What is wrong with them; then nothing has changed.
    pub fn replace(&self, material: &Material) -> Result<(), String> {
        self.config.store(Arc::new(config(self.alpn, self.skip_verify, material)?));
        Ok(())
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<Wire> {
        let connector = TlsConnector::from(self.config.load_full());
        let connected = connector.connect(self.server.clone(), stream).await;
        let stream = connected.map_err(|error| self.explain(&error))?;
        Ok(Wire::Tls(Box::new(TlsStream::Client(stream))))
    }

    /// The error in words that say what to do.
    fn explain(&self, error: &io::Error) -> io::Error {
        let name = self.server.to_str();
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let told = match tls {
            Some(rustls::Error::InvalidCertificate(wrong)) => certificate_trouble(wrong, &name),
            Some(rustls::Error::AlertReceived(alert)) => alert_trouble(&format!("{alert:?}")),
            Some(rustls::Error::InvalidMessage(_)) => {
                "what answers there does not speak TLS: use its port for TLS, or write http://"
                    .to_owned()
            }
            Some(other) => other.to_string(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "it closed the connection during the handshake; does it speak TLS at this port?"
                    .to_owned()
            }
            None => error.to_string(),
        };
        io::Error::new(error.kind(), format!("no TLS with {name}: {told}"))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("server", &self.server).finish_non_exhaustive()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material")
    }
}

fn config(alpn: Alpn, skip_verify: bool, material: &Material) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TakeAny(provider)))
    } else {
        builder.with_root_certificates(roots(material.authorities.as_deref())?)
    };
    let mut config = match &material.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain).map_err(|why| format!("tls.crt: {why}"))?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|_| "tls.key: no private key in PEM".to_owned())?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("tls.crt and tls.key do not fit together: {error}"))?
        }
    };
    config.alpn_protocols = vec![match alpn {
        Alpn::Http2 => b"h2".to_vec(),
        Alpn::Http1 => b"http/1.1".to_vec(),
    }];
    Ok(config)
}

fn roots(authorities: Option<&[u8]>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match authorities {
        None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in certificates(pem)? {
                store.add(certificate).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(store)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let list = list.map_err(|_| "what it holds is not PEM".to_owned())?;
    if list.is_empty() { Err("no certificate in PEM in it".to_owned()) } else { Ok(list) }
}

fn certificate_trouble(wrong: &CertificateError, name: &str) -> String {
    match wrong {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by an authority that is not trusted here: put that \
             authority's certificate into a Secret and name it in tls.caRef"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is not for {name}: set tls.serverName to a name that it has")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has ended: renew it there".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: look at the clocks".to_owned()
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}

/// What an alert of the server asks us to do.
fn alert_trouble(alert: &str) -> String {
    match alert {
        "CertificateRequired"
        | "BadCertificate"
        | "UnknownCA"
        | "CertificateUnknown"
        | "CertificateExpired"
        | "CertificateRevoked"
        | "UnsupportedCertificate"
        | "AccessDenied"
        | "DecryptError" => {
            format!("it wants another certificate of ours ({alert}): see tls.clientCertificateRef")
        }
        "NoApplicationProtocol" => {
            "it does not speak this version of HTTP there: gRPC needs HTTP/2, HTTPProtobuf and \
             HTTPJSON need HTTP/1.1; see protocol"
                .to_owned()
        }
        "UnrecognisedName" => "it has no such name: see tls.serverName".to_owned(),
        other => format!("it broke the connection off ({other})"),
    }
}

/// What to do about an error of a connection that stood already, if TLS is behind it: with TLS 1.3 a server
/// judges our certificate after its own handshake has ended. Of such an error HTTP/2 keeps only the words.
pub(super) fn hint(told: &str) -> Option<String> {
    let (_, alert) = told.split_once("received fatal alert: ")?;
    let end = alert.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(alert.len());
    Some(alert_trouble(&alert[..end]))
}

// === impl TakeAny ===

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
