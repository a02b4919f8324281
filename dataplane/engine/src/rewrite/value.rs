//! Attribute values on the wire: read as far as they must be, hashed, written.

use sha2::{Digest, Sha256};

use super::copy::{put_bytes, put_nested};
use crate::wire::{Reader, Value as Wire, put_varint};

/// Key and value of `KeyValue`.
pub(super) const KEY: u32 = 1;
pub(super) const VALUE: u32 = 2;

/// The members of `AnyValue`.
pub(super) mod member {
    pub(in super::super) const STRING: u32 = 1;
    pub(in super::super) const BOOL: u32 = 2;
    pub(in super::super) const INT: u32 = 3;
    pub(in super::super) const DOUBLE: u32 = 4;
    pub(in super::super) const ARRAY: u32 = 5;
    pub(in super::super) const MAP: u32 = 6;
    pub(in super::super) const BYTES: u32 = 7;
}

/// The only field of `ArrayValue` and of `KeyValueList`.
pub(super) const ELEMENT: u32 = 1;

/// The block of SHA-256, which HMAC is made of.
const BLOCK: usize = 64;

/// A value that an attribute is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// A string.
    Text(String),
    /// A bool.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a fraction.
    Double(f64),
}

/// Turns values into text that tells nothing of them but whether two are the same.
#[derive(Clone, Default)]
pub struct Hasher {
    /// Whoever does not know it cannot try values out.
    secret: Option<Vec<u8>>,
}

// === impl Given ===

impl Given {
    /// The `AnyValue`.
    pub(super) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let tag = |number: u32, wire: u64| u64::from(number) << 3 | wire;
        match self {
            Self::Text(text) => put_bytes(&mut out, member::STRING, text.as_bytes()),
            Self::Bool(value) => {
                put_varint(&mut out, tag(member::BOOL, 0));
                put_varint(&mut out, u64::from(*value));
            }
            Self::Int(value) => {
                put_varint(&mut out, tag(member::INT, 0));
                // Two's complement: what the varint holds is the integer's bits.
                put_varint(&mut out, *value as u64);
            }
            Self::Double(value) => {
                put_varint(&mut out, tag(member::DOUBLE, 1));
                out.extend_from_slice(&value.to_bits().to_le_bytes());
            }
        }
        out
    }
}

// === impl Hasher ===

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.secret.is_some() { "HMAC-SHA-256" } else { "SHA-256" })
    }
}

impl Hasher {
    /// HMAC-SHA-256 with a secret, or SHA-256 without one.
    pub fn new(secret: Option<&[u8]>) -> Self {
        Self { secret: secret.map(<[u8]>::to_vec) }
    }

    /// 64 hexadecimal digits in lower case for an `AnyValue`. What is hashed: the bytes of a string or of
    /// bytes; one byte 0 or 1 for a bool; 8 bytes, the lowest first, for an integer or a double; the encoded
    /// `AnyValue` for lists and maps.
    pub(super) fn hash(&self, any: &[u8]) -> String {
        let mut last = None;
        let mut reader = Reader::new(any);
        while let Ok(Some(field)) = reader.next_field() {
            if (member::STRING..=member::BYTES).contains(&field.number) {
                last = Some(field);
            }
        }
        let digest = match last.map(|field| (field.number, field.value)) {
            Some((member::STRING | member::BYTES, Wire::Bytes(bytes))) => self.digest(bytes),
            Some((member::BOOL, Wire::Varint(value))) => self.digest(&[u8::from(value != 0)]),
            Some((member::INT, Wire::Varint(value)) | (member::DOUBLE, Wire::Fixed64(value))) => {
                self.digest(&value.to_le_bytes())
            }
            _ => self.digest(any),
        };
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        let Some(secret) = &self.secret else {
            return Sha256::digest(bytes).into();
        };
        let mut block = [0; BLOCK];
        let short = match secret.len() {
            0..=BLOCK => secret.clone(),
            _ => Sha256::digest(secret).to_vec(),
        };
        block.iter_mut().zip(&short).for_each(|(place, byte)| *place = *byte);
        let pad = |with: u8| block.map(|byte| byte ^ with);
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(bytes).finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

/// The key of a `KeyValue`; of several the last counts.
#[inline]
pub(super) fn key_of(pair: &[u8]) -> &[u8] {
    // Nearly every pair begins with its only key, and what follows is a value to its end.
    if let [0x0a, length @ ..0x80, rest @ ..] = pair
        && let Some((key, [0x12, ..])) = rest.split_at_checked(usize::from(*length))
        && let Some(value) = rest.get(key.len() + 1..)
        && Reader::new(value).delimited().is_ok_and(|body| {
            value.ends_with(body) && {
                // Nothing follows: the value is the rest but its length.
                value.len() == body.len() + crate::wire::varint_len(body.len() as u64)
            }
        })
    {
        return key;
    }
    let (mut key, mut reader) = (&[][..], Reader::new(pair));
    while let Ok(Some(field)) = reader.next_field() {
        if let (KEY, Wire::Bytes(bytes)) = (field.number, field.value) {
            key = bytes;
        }
    }
    key
}

/// The `AnyValue` of a `KeyValue`: several merge, which for messages means one after the other.
pub(super) fn value_of(pair: &[u8]) -> Vec<u8> {
    let (mut value, mut reader) = (Vec::new(), Reader::new(pair));
    while let Ok(Some(field)) = reader.next_field() {
        if let (VALUE, Wire::Bytes(bytes)) = (field.number, field.value) {
            value.extend_from_slice(bytes);
        }
    }
    value
}

/// Appends the fields of a `KeyValue` with a string.
pub(super) fn put_text_pair(out: &mut Vec<u8>, key: &[u8], text: &[u8]) {
    put_bytes(out, KEY, key);
    put_nested(out, VALUE, text.len() + 2, |out| put_bytes(out, member::STRING, text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        // NIST's "abc", and RFC 4231, cases 1, 2 and 6.
        let text = |text: &[u8]| {
            let mut any = Vec::new();
            put_bytes(&mut any, member::STRING, text);
            any
        };
        let long = [0xaa; 131];
        type Case<'a> = (Option<&'a [u8]>, &'a [u8], &'a str);
        let cases: [Case<'_>; 4] = [
            (None, b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                Some(&[0x0b; 20]),
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                Some(b"Jefe"),
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Some(&long),
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (secret, message, expected) in cases {
            assert_eq!(Hasher::new(secret).hash(&text(message)), expected);
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Hasher::new(Some(b"hush"))), "HMAC-SHA-256");
    }

    #[test]
    fn a_key_is_found_however_it_is_written() {
        let cases: [(&[u8], &[u8]); 5] = [
            (&[0x0a, 1, b'k', 0x12, 2, 0x10, 1], b"k"),
            (&[0x0a, 1, b'k'], b"k"),
            (&[0x12, 2, 0x10, 1, 0x0a, 1, b'k'], b"k"),
            (&[0x0a, 1, b'k', 0x12, 2, 0x10, 1, 0x0a, 1, b'l'], b"l"),
            (&[0x12, 2, 0x10, 1], b""),
        ];
        for (pair, key) in cases {
            assert_eq!(key_of(pair), key, "{pair:x?}");
        }
    }
}
