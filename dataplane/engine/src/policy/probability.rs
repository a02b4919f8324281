//! Keeping a fixed share of traces by their ID, with exactly the OpenTelemetry Collector's verdicts.
//!
//! The verdict is a function of trace ID, salt and percentage alone, so that a Collector and Ringtail side
//! by side, or two fleets one after the other, keep the same traces.

use crate::facts::TraceFacts;
use crate::rewrite::sampling::{self, RANDOMNESS_MAX};

/// The salt that stands for an empty one, as in the Collector.
const DEFAULT_SALT: &str = "default-hash-seed";

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// A salt and a threshold, ready to judge trace IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probability {
    /// The hash after the salt.
    state: u64,
    /// The highest hash that is kept.
    threshold: u64,
    /// How many levels of the program a randomness must pass.
    pub(super) rank: u8,
}

impl Probability {
    pub(super) fn new(percentage: f64, salt: &str) -> Self {
        let salt = if salt.is_empty() { DEFAULT_SALT } else { salt };
        let state = fnv1a(FNV_OFFSET, salt.as_bytes());
        Self { state, threshold: threshold(percentage), rank: 0 }
    }

    /// The hash of a trace ID and the highest that is kept.
    pub(super) fn weigh(&self, id: &[u8; 16]) -> (u64, u64) {
        (fnv1a(self.state, id), self.threshold)
    }

    /// Whether a trace is kept: by its ID, or by the randomness that its spans agreed on, where the program
    /// asks for that.
    #[inline]
    pub(super) fn keeps(&self, facts: &TraceFacts) -> bool {
        match facts.drawn {
            0 => fnv1a(self.state, &facts.id) <= self.threshold,
            1 => sampling::of_id(&facts.id) >= self.level(),
            passed => passed - 2 >= self.rank,
        }
    }

    /// The least randomness of 56 bits that is kept: OpenTelemetry's rejection threshold.
    pub(super) fn level(&self) -> u64 {
        RANDOMNESS_MAX - (self.threshold >> 8)
    }

    /// The hash of an empty ID: salts that differ nearly always differ in it.
    pub(super) fn state(&self) -> u64 {
        self.state
    }
}

/// The randomness of 56 bits that a trace's hash stands for: it is at least the [`Probability::level`] when
/// the hash is at most the threshold.
pub(crate) fn hashed_randomness(state: u64, id: &[u8; 16]) -> u64 {
    RANDOMNESS_MAX - (fnv1a(state, id) >> 8)
}

/// FNV-1a with 64 bits, continued from `state`.
#[inline]
fn fnv1a(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// `(2^64 - 1) * (percentage / 100)` as the Collector computes it: the quotient as a double, the product in
/// binary floating point with a significand of 64 bits (to nearest, ties to even), its fraction cut off.
fn threshold(percentage: f64) -> u64 {
    let ratio = percentage / 100.0;
    if ratio >= 1.0 {
        return u64::MAX;
    }
    if ratio.is_nan() || ratio <= 0.0 {
        return 0;
    }
    let (significand, exponent) = decompose(ratio);
    // At most 64 + 53 bits, exact.
    let product = u128::from(u64::MAX) * u128::from(significand);
    let (rounded, dropped_bits) = round_to_64_bits(product);
    // The ratio is below one, so the product is below 2^64 and this shifts to the right.
    let shift = -(exponent + dropped_bits as i32);
    let whole = u32::try_from(shift).ok().and_then(|bits| rounded.checked_shr(bits)).unwrap_or(0);
    u64::try_from(whole).unwrap_or(u64::MAX)
}

/// A positive finite double as `significand * 2^exponent`.
const fn decompose(value: f64) -> (u64, i32) {
    const FRACTION_BITS: u32 = 52;
    let bits = value.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    match (bits >> FRACTION_BITS) as i32 {
        0 => (fraction, -1074),
        exponent => (fraction | 1 << FRACTION_BITS, exponent - 1075),
    }
}

/// The 64 leading bits of `value`, rounded to nearest with ties to even (which may give 2^64), and how many
/// bits below them were dropped.
const fn round_to_64_bits(value: u128) -> (u128, u32) {
    let length = u128::BITS - value.leading_zeros();
    if length <= 64 {
        return (value, 0);
    }
    let dropped = length - 64;
    let quotient = value >> dropped;
    let remainder = value & ((1 << dropped) - 1);
    let half = 1 << (dropped - 1);
    let up = remainder > half || (remainder == half && quotient & 1 == 1);
    (quotient + up as u128, dropped)
}

#[cfg(test)]
mod tests;
