//! The keyed 64-bit hash of a trace ID, from which ring, shards and decision memory work.
//!
//! The seed is a secret of the fleet: whoever can choose trace IDs but does not know the seed cannot aim
//! them at one gateway or at one bucket of a table.

use siphasher::sip::SipHasher13;

/// What is hashed, under the seed, into [`KeySeed::id`]. Its length differs from a trace ID's 16 bytes, so
/// the id equals no key of a trace.
const SEED_ID_LABEL: &[u8] = b"ringtail.dev/seed-id";

/// Separates the choice of a shard from the choice of a member, which mixes the same key with hashes of
/// member ids.
const SHARD_SALT: u64 = 0xa076_1d64_78bd_642f;

/// The secret of the fleet under which trace IDs are hashed.
///
/// It has no `Display`, and its `Debug` shows only [`KeySeed::id`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySeed([u8; 16]);

/// The text of a seed file is not a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seed is 32 hexadecimal digits (16 bytes), this has {length} characters or other digits")]
pub struct SeedError {
    /// Bytes of the text, white space around it left out.
    pub length: usize,
}

/// The place of a trace in everything that hashes: 64 bits that look random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceKey(pub u64);

impl KeySeed {
    /// A seed from its 16 bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A seed from 32 hexadecimal digits, as a seed file holds them; white space around them is ignored.
    ///
    /// The text is a secret, so the error does not repeat it.
    pub fn from_hex(text: &str) -> Result<Self, SeedError> {
        let text = text.trim();
        let error = SeedError { length: text.len() };
        if text.len() != 32 {
            return Err(error);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or(error)?;
            let low = hex_digit(pair[1]).ok_or(error)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }

    /// The key of a trace: SipHash-1-3 of the ID's 16 bytes under the seed.
    #[inline]
    pub fn key(&self, id: &[u8; 16]) -> TraceKey {
        TraceKey(self.hash(id))
    }

    /// The key of a service, for fleets that route by service: the same hash of its name's bytes.
    #[inline]
    pub fn service_key(&self, name: &[u8]) -> TraceKey {
        TraceKey(self.hash(name))
    }

    /// A hash that tells seeds apart and may be shown: it does not reveal the seed.
    pub fn id(&self) -> u64 {
        self.hash(SEED_ID_LABEL)
    }

    /// SipHash-1-3 of any bytes under the seed.
    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_key(&self.0).hash(bytes)
    }
}

impl std::fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySeed(id {:016x})", self.id())
    }
}

/// Which of a process's shards holds the trace, below `shards` (0 when there are none).
///
/// It does not follow the choice of the member: else the keys of one gateway would gather in few of its
/// shards.
#[inline]
pub const fn shard_of(key: TraceKey, shards: u32) -> u32 {
    let high = mix(key.0 ^ SHARD_SALT) >> 32;
    // The high 32 bits as a fraction of one, times the number of shards; the result is below `shards`.
    ((high * shards as u64) >> 32) as u32
}

/// Spreads every bit of `z` over all bits of the result: a bijection with good avalanche (two rounds of
/// multiply and xor-shift). Changing it changes every owner, so it is part of the ring's version.
#[inline]
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const fn hex_digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        b'A'..=b'F' => Some(c - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
