//! A record of a queue on disk: a head that proves itself, and a request that the head proves.
//!
//! `magic (4) | state (1), 3 zeros | length (4) | spans (4) | CRC of the request (4) | CRC of the head (4)`,
//! numbers in little endian. The state is what is written over when the request was delivered, so it is
//! under no CRC.

/// Bytes of a head.
pub(super) const HEAD_BYTES: usize = 24;
/// Where in it the state is.
pub(super) const STATE_AT: u64 = 4;
/// The state of a record that was delivered or given up.
pub(super) const DONE: u8 = 0xff;

pub(super) const MAGIC: [u8; 4] = *b"RTq1";

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) is_done: bool,
    pub(super) length: u32,
    pub(super) spans: u32,
    crc: u32,
}

/// A record of a request.
pub(super) fn encode(spans: u32, request: &[u8]) -> Vec<u8> {
    let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
    let mut record = Vec::with_capacity(HEAD_BYTES + request.len());
    record.extend_from_slice(&MAGIC);
    record.extend_from_slice(&[0; 4]);
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&spans.to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(request).to_le_bytes());
    let proof = prove(&record);
    record.extend_from_slice(&proof.to_le_bytes());
    record.extend_from_slice(request);
    record
}

fn prove(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head.get(..4).unwrap_or_default());
    hasher.update(head.get(8..20).unwrap_or_default());
    hasher.finalize()
}

// === impl Head ===

impl Head {
    /// Reads a head, if there is one at the beginning of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let number = |at: usize| {
            let digits = head.get(at..at + 4)?;
            Some(u32::from_le_bytes(digits.try_into().ok()?))
        };
        let is_one = head.starts_with(&MAGIC) && number(20)? == prove(head);
        is_one.then_some(())?;
        let is_done = head.get(4) == Some(&DONE);
        Some(Self { is_done, length: number(8)?, spans: number(12)?, crc: number(16)? })
    }

    /// Whether this is the request.
    pub(super) fn proves(&self, request: &[u8]) -> bool {
        request.len() == self.length as usize && crc32fast::hash(request) == self.crc
    }
}
