//! Bearer tokens that clients must show, from a file that is read again when it changes.
//!
//! Every line of the file is a valid token, so that an old and a new one are taken together while clients
//! change over. What is compared are digests, all of them and to their ends: how long that takes says nothing
//! about how much of a token was right.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use super::answer::Refusal;
use super::keyring::{KeyringError, read_file, unusable};
use crate::renewal::{self, Renewals};

/// Tokens at a time. Two are a rotation; every one more costs each request a comparison of 32 bytes.
const TOKENS_MAX: usize = 32;
/// Shorter ones are guessed: 16 characters of base64 are 96 bits.
const TOKEN_BYTES_MIN: usize = 16;

type Digest = [u8; 32];

/// The tokens of the receivers.
pub struct Tokens {
    path: PathBuf,
    digests: ArcSwap<Vec<Digest>>,
    /// Lists after the first.
    pub renewals: Renewals,
}

// === impl Tokens ===

impl Tokens {
    /// Reads a file of tokens, one a line.
    ///
    /// # Errors
    /// When it cannot be read, or holds no token, too many, or one that is too short.
    pub fn open(path: &Path) -> Result<Arc<Self>, KeyringError> {
        let digests = read(&read_file(path)?).map_err(|why| unusable(path, why))?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            digests: ArcSwap::from_pointee(digests),
            renewals: Renewals::default(),
        }))
    }

    /// Reads the file again and again, and uses what is new, until the task is aborted.
    pub async fn follow(self: Arc<Self>) {
        let judged = read_file(&self.path).ok();
        let bytes = || read_file(&self.path).ok().map(|bytes| (bytes.clone(), bytes));
        let judge = |bytes: Vec<u8>| {
            let outcome = read(&bytes).map(|digests| self.digests.store(Arc::new(digests)));
            self.renewals.count("bearer tokens", outcome);
        };
        renewal::follow(judged, bytes, judge).await;
    }

    /// Whether the headers of a request show a valid token.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::Unauthenticated(text.to_owned()));
        let Some(value) = headers.get(AUTHORIZATION) else {
            return refuse("a bearer token is needed; send `authorization: Bearer TOKEN`");
        };
        let Some(token) = bearer(value.as_bytes()) else {
            return refuse("the authorization is no bearer token; send `Bearer TOKEN`");
        };
        if self.knows(token) {
            return Ok(());
        }
        refuse("the bearer token is not valid, or not any more")
    }

    fn knows(&self, token: &[u8]) -> bool {
        let shown: Digest = Sha256::digest(token).into();
        let differs = |digest: &Digest| {
            let bits =
                digest.iter().zip(&shown).fold(0, |bits, (ours, theirs)| bits | (ours ^ theirs));
            u32::from(std::hint::black_box(bits) != 0)
        };
        let digests = self.digests.load();
        let different: u32 = digests.iter().map(differs).sum();
        different as usize != digests.len()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The token behind `Bearer`, which is written in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer".len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    scheme.eq_ignore_ascii_case(b"bearer").then_some(token)
}

/// The digests of a file's tokens. The error shows none of them.
fn read(bytes: &[u8]) -> Result<Vec<Digest>, &'static str> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let tokens: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
    if tokens.is_empty() {
        return Err("it has no token; every line that is not empty is one");
    }
    if tokens.len() > TOKENS_MAX {
        return Err("it has more than 32 tokens");
    }
    if tokens.iter().any(|token| token.len() < TOKEN_BYTES_MIN) {
        return Err("a token in it has less than 16 characters");
    }
    Ok(tokens.into_iter().map(|token| Sha256::digest(token).into()).collect())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn tokens(text: &str) -> Arc<Tokens> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, text).unwrap();
        Tokens::open(&path).unwrap()
    }

    #[test]
    fn every_line_is_a_token_and_nothing_else_is() {
        let tokens = tokens("first-token-of-16\n\n  second-token-of-16 \r\n");
        let cases = [
            (Some("Bearer first-token-of-16"), None),
            (Some("bearer second-token-of-16"), None),
            (Some("BEARER  first-token-of-16"), None),
            (Some("Bearer first-token-of-1"), Some("not valid")),
            (Some("Bearer first-token-of-166"), Some("not valid")),
            (Some("Bearer "), Some("not valid")),
            (Some("Bearer"), Some("no bearer")),
            (Some("Basic first-token-of-16"), Some("no bearer")),
            (Some("Bearerfirst-token-of-16"), Some("no bearer")),
            (None, Some("is needed")),
        ];
        for (value, words) in cases {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            }
            let checked = tokens.check(&headers).map_err(|refusal| refusal.to_string());
            match words {
                None => assert_eq!(checked, Ok(()), "{value:?}"),
                Some(words) => assert!(checked.unwrap_err().contains(words), "{value:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_is_no_list_of_tokens_is_refused_and_not_shown() {
        let many = "0123456789abcdef\n".repeat(33);
        for (text, words) in [("\n \n", "no token"), ("short-secret\n", "16"), (&many, "32")] {
            let why = read(text.as_bytes()).unwrap_err();
            assert!(why.contains(words) && !why.contains("short-secret"), "{why}");
        }
        let missing = Tokens::open(Path::new("nowhere/token")).unwrap_err().to_string();
        assert!(missing.contains("nowhere/token"), "{missing}");
    }
}
