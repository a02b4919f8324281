//! What an exporter shows of itself and whom it trusts: headers, tokens and certificates, from the manifest
//! and from the files of Secrets, which are read again when they change.
//!
//! What a file holds is never told: not when it cannot be used, and not when a backend repeats it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ringtail_crds::resolved::{self, Endpoint, Otlp, SecretKey};
use sha2::{Digest, Sha256};

use crate::renewal::{self, Renewals};
use crate::transport::{Alpn, Material, Trust};

/// A header's value is read up to this size: four times what a manifest may write.
const SECRET_BYTES_MAX: u64 = 16_384;
/// A file of certificates is read up to this size: 100 of some 1.3 KiB.
const CERTIFICATES_BYTES_MAX: u64 = 128 << 10;
/// A secret shorter than this is a word like any other, and would make holes into every message.
const MASKED_BYTES_MIN: usize = 4;
/// Secrets that are struck out: those of all headers there can be, new and old.
const SECRETS_MAX: usize = 2 * 33;
const MASK: &str = "[secret]";

/// The credentials of one exporter.
#[derive(Debug)]
pub(crate) struct Credentials {
    sources: Sources,
    headers: ArcSwap<Headers>,
    trust: Option<Arc<Trust>>,
    pub(crate) renewals: Renewals,
}

/// Where they come from.
#[derive(Debug)]
struct Sources {
    /// As messages call it.
    who: String,
    directory: PathBuf,
    headers: Vec<(String, resolved::HeaderValue)>,
    token: Option<SecretKey>,
    tls: Option<resolved::Tls>,
}

/// What is sent with every request.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) map: HeaderMap,
    secrets: Vec<Secret>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

/// What the files hold now.
struct Read {
    headers: Headers,
    material: Material,
    fingerprint: [u8; 32],
}

// === impl Credentials ===

impl Credentials {
    /// Reads everything once.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub(super) fn open(
        exporter: &str,
        otlp: &Otlp,
        directory: PathBuf,
        alpn: Alpn,
    ) -> Result<Self, String> {
        let sources = Sources {
            who: format!("exporter {exporter}"),
            directory,
            headers: otlp.headers.clone(),
            token: otlp.bearer_token.clone(),
            tls: otlp.endpoint.tls.clone(),
        };
        Self::read(sources, &otlp.endpoint, alpn)
    }

    /// The same of somebody who shows a certificate at most, and speaks gRPC.
    pub(crate) fn of_endpoint(
        who: &str,
        endpoint: &Endpoint,
        directory: PathBuf,
    ) -> Result<Self, String> {
        let (who, tls) = (who.to_owned(), endpoint.tls.clone());
        let sources = Sources { who, directory, headers: Vec::new(), token: None, tls };
        Self::read(sources, endpoint, Alpn::Http2)
    }

    fn read(sources: Sources, endpoint: &Endpoint, alpn: Alpn) -> Result<Self, String> {
        let Read { headers, material, .. } = sources.read()?;
        let trust = sources.tls.as_ref().map(|tls| {
            let (address, name) = (&endpoint.address, tls.server_name.as_deref());
            Trust::new(address, name, alpn, tls.skip_verify, &material).map(Arc::new)
        });
        let trust = trust.transpose().map_err(|why| sources.tls_trouble(&why))?;
        Ok(Self {
            sources,
            headers: ArcSwap::from_pointee(headers),
            trust,
            renewals: Renewals::default(),
        })
    }

    /// Sent with the next request.
    pub(super) fn headers(&self) -> Arc<Headers> {
        self.headers.load_full()
    }

    /// Whom connections trust, if they are in TLS.
    pub(crate) fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.clone()
    }

    /// The text with every secret in it struck out: backends like to repeat what they refuse.
    pub(super) fn mask(&self, text: &str) -> String {
        let headers = self.headers.load();
        let secrets = headers.secrets.iter().filter(|secret| secret.0.len() >= MASKED_BYTES_MIN);
        secrets.fold(text.to_owned(), |text, secret| secret.strike_out(&text))
    }

    /// Reads the files again and again; never ends.
    pub(crate) async fn follow(&self) {
        if !self.sources.are_files() {
            return std::future::pending().await;
        }
        let judged = self.sources.read().map(|read| read.fingerprint).ok();
        let complained = AtomicBool::new(false);
        let told = |outcome: Result<(), String>| {
            complained.store(outcome.is_err(), Relaxed);
            self.renewals.count(&format!("secrets of {}", self.sources.who), outcome);
        };
        let read = || match self.sources.read() {
            Ok(read) => Some((read.fingerprint, read)),
            Err(why) => {
                // The next turn may find what is away; one complaint about what stays away is enough.
                if !complained.load(Relaxed) {
                    told(Err(why));
                }
                None
            }
        };
        renewal::follow(judged, read, |read| told(self.adopt(read))).await;
    }

    fn adopt(&self, mut read: Read) -> Result<(), String> {
        if let Some(trust) = &self.trust {
            trust.replace(&read.material).map_err(|why| self.sources.tls_trouble(&why))?;
        }
        // Answers to requests that are under way may repeat the old ones still.
        let old = self.headers.load();
        let old = old.secrets.iter().filter(|secret| !read.headers.secrets.contains(secret));
        let old: Vec<Secret> = old.cloned().collect();
        read.headers.secrets.extend(old);
        read.headers.secrets.truncate(SECRETS_MAX);
        self.headers.store(Arc::new(read.headers));
        Ok(())
    }
}

// === impl Sources ===

impl Sources {
    fn are_files(&self) -> bool {
        let is_secret = |(_, value): &(String, resolved::HeaderValue)| {
            matches!(value, resolved::HeaderValue::Secret(_))
        };
        let of_tls = self
            .tls
            .as_ref()
            .is_some_and(|tls| tls.authorities.is_some() || tls.client_certificate.is_some());
        of_tls || self.token.is_some() || self.headers.iter().any(is_secret)
    }

    fn read(&self) -> Result<Read, String> {
        let mut digest = Sha256::new();
        let mut headers = Headers { map: HeaderMap::new(), secrets: Vec::new() };
        for (name, value) in &self.headers {
            let text = match value {
                resolved::HeaderValue::Text(text) => text.clone(),
                resolved::HeaderValue::Secret(key) => {
                    let what = format!("header {name:?}");
                    headers.hide(self.text(&what, key, &mut digest)?)
                }
            };
            // The value may be a secret and is not repeated.
            let wrong = || format!("{}: header {name:?}: not a header name or value", self.who);
            let name = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
            headers.insert(name, &text).ok_or_else(wrong)?;
        }
        if let Some(key) = &self.token {
            let token = headers.hide(self.text("bearerTokenSecretRef", key, &mut digest)?);
            let bearer = format!("Bearer {token}");
            headers.insert(header::AUTHORIZATION, &bearer).ok_or_else(|| {
                format!("{}: bearerTokenSecretRef: not the value of a header", self.who)
            })?;
        }
        let material = self.material(&mut digest)?;
        Ok(Read { headers, material, fingerprint: digest.finalize().into() })
    }

    fn material(&self, digest: &mut Sha256) -> Result<Material, String> {
        let Some(tls) = &self.tls else { return Ok(Material::default()) };
        let limit = CERTIFICATES_BYTES_MAX;
        let authorities = tls.authorities.as_ref();
        let authorities = authorities.map(|key| self.bytes("tls.caRef", key, limit, digest));
        let mut file = |name: &String, key: &str| {
            let key = SecretKey { name: name.clone(), key: key.to_owned() };
            self.bytes("tls.clientCertificateRef", &key, limit, digest)
        };
        let identity = match &tls.client_certificate {
            Some(name) => Some((file(name, "tls.crt")?, file(name, "tls.key")?)),
            None => None,
        };
        Ok(Material { authorities: authorities.transpose()?, identity })
    }

    /// The text of a file, without the line break that many editors put at its end.
    fn text(&self, what: &str, key: &SecretKey, digest: &mut Sha256) -> Result<String, String> {
        let bytes = self.bytes(what, key, SECRET_BYTES_MAX, digest)?;
        let text = String::from_utf8(bytes).map_err(|_| self.trouble(what, key, "is not text"))?;
        Ok(text.strip_suffix('\n').map_or(text.as_str(), |l| l.trim_end_matches('\r')).to_owned())
    }

    fn bytes(
        &self,
        what: &str,
        key: &SecretKey,
        limit: u64,
        digest: &mut Sha256,
    ) -> Result<Vec<u8>, String> {
        let path = self.directory.join(&key.name).join(&key.key);
        let wrong = |error: std::io::Error| self.trouble(what, key, &error.to_string());
        let size = std::fs::metadata(&path).map_err(wrong)?.len();
        if size > limit {
            let why = format!("has {size} bytes, and at most {limit} are read");
            return Err(self.trouble(what, key, &why));
        }
        let bytes = std::fs::read(&path).map_err(wrong)?;
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
        Ok(bytes)
    }

    fn trouble(&self, what: &str, key: &SecretKey, why: &str) -> String {
        let path = self.directory.join(&key.name).join(&key.key);
        format!("{}: {what}: {}: {why}", self.who, path.display())
    }

    /// With the files that may be meant.
    fn tls_trouble(&self, why: &str) -> String {
        let tls = self.tls.clone().unwrap_or_default();
        let authorities = tls.authorities.map(|key| format!("{}/{}", key.name, key.key));
        let shown = tls.client_certificate.map(|name| format!("{name}/tls.crt and tls.key"));
        let files: Vec<String> = authorities.into_iter().chain(shown).collect();
        let (who, directory) = (&self.who, self.directory.display());
        format!("{who}: tls: {why} (in {directory}: {})", files.join(", "))
    }
}

// === impl Headers ===

impl Headers {
    fn insert(&mut self, name: HeaderName, text: &str) -> Option<()> {
        let mut value = HeaderValue::from_str(text).ok()?;
        // Neither a log nor the table of a compressed connection shows it.
        value.set_sensitive(true);
        self.map.insert(name, value);
        Some(())
    }

    /// Remembers a secret, to know it when it is repeated.
    fn hide(&mut self, text: String) -> String {
        self.secrets.push(Secret(text.clone()));
        text
    }
}

// === impl Secret ===

impl Secret {
    /// The text without this; long texts of backends are cut, so that a part of it may stand at the end.
    fn strike_out(&self, text: &str) -> String {
        let mut text = text.replace(&self.0, MASK);
        let parts = (MASKED_BYTES_MIN..self.0.len()).rev().filter_map(|end| self.0.get(..end));
        let cut = parts.into_iter().find(|part| text.ends_with(part));
        if let Some(part) = cut {
            text.truncate(text.len() - part.len());
            text.push_str(MASK);
        }
        text
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests;
