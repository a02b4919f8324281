//! How many spans a span stands for: more than one, if a sampler before us has let others go and has written
//! down its threshold (`ot=th:…` in the `tracestate`).

use crate::policy::trace_state;

/// Thresholds have 56 bits.
const MOST: u64 = 1 << 56;
/// Hexadecimal digits of 56 bits.
const DIGITS_MAX: usize = 14;

/// The count of a span with this `tracestate`. Where it is no whole number, the spans with the larger part
/// are chosen by `ids`, so that the sum is right on average.
pub(super) fn weight(state: &[u8], ids: u64) -> u64 {
    let Some(threshold) = threshold(state) else { return 1 };
    let kept = MOST - threshold;
    let (whole, rest) = (MOST / kept, MOST % kept);
    whole + u64::from(mix(ids) % kept < rest)
}

fn threshold(state: &[u8]) -> Option<u64> {
    // Only one span in many has a state at all, and fewer have this one.
    if !state.windows(3).any(|three| three == b"ot=") {
        return None;
    }
    let value = trace_state::value(state, b"ot")?;
    let fields = value.split(|byte| *byte == b';');
    let digits = fields.filter_map(|field| field.strip_prefix(b"th:")).next()?;
    let plain = digits.iter().all(u8::is_ascii_hexdigit);
    if digits.is_empty() || digits.len() > DIGITS_MAX || !plain {
        return None;
    }
    let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    // Trailing zeros are not written.
    Some(number << (4 * (DIGITS_MAX - digits.len())))
}

/// A step of splitmix64.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_turned_into_counts() {
        let cases = [
            ("", 1),
            ("a=b", 1),
            ("ot=th:0", 1),
            ("ot=th:8", 2),
            ("ot=rv:12345678901234;th:8", 2),
            ("a=b,ot=th:c", 4),
            ("ot=th:ff", 256),
            ("ot=th:ffffffffffffff", 1 << 56),
            ("ot=th:", 1),
            ("ot=th:g", 1),
            ("ot=th:+8", 1),
            ("ot=th:000000000000000", 1),
            ("ot=th:8,ot=th:8", 1),
            ("foot=th:8", 1),
        ];
        for (state, expected) in cases {
            assert_eq!(weight(state.as_bytes(), 7), expected, "{state:?}");
        }
    }

    #[test]
    fn parts_of_spans_are_right_on_average() {
        // A third is kept: 2^56 * 2 / 3.
        let sum: u64 = (0..30_000).map(|ids| weight(b"ot=th:aaaaaaaaaaaaaa", ids)).sum();
        assert!((89_990..=90_010).contains(&sum), "{sum}");
        // 40 %: each counts for 2.5.
        let sum: u64 = (0..30_000).map(|ids| weight(b"ot=th:99999999999999", ids)).sum();
        assert!((74_000..=76_000).contains(&sum), "{sum}");
    }
}
