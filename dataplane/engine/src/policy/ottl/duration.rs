//! Durations as Go writes them: `1s`, `1h30m`, `-1.5ms`.

/// Nanoseconds a unit; longer names first, so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

/// Digits of a fraction that are looked at: more than a nanosecond of an hour has.
const FRACTION_DIGITS_MAX: usize = 15;

/// The nanoseconds of a duration; none when it is not written like one, or longer than 292 years.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_u64;
    loop {
        let (nanoseconds, after) = part(rest)?;
        total = total.checked_add(nanoseconds)?;
        if after.is_empty() {
            break;
        }
        rest = after;
    }
    let total = i64::try_from(total).ok()?;
    Some(if negative { -total } else { total })
}

/// One number with its unit, and what follows.
fn part(text: &str) -> Option<(u64, &str)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let found = |(name, _): &&(&str, u64)| rest.starts_with(name);
    let (name, unit) = UNITS.iter().find(found)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanoseconds = whole.checked_mul(*unit)?;
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    for digit in fraction.bytes().take(FRACTION_DIGITS_MAX) {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    let fraction = numerator * u128::from(*unit) / denominator;
    nanoseconds = nanoseconds.checked_add(u64::try_from(fraction).ok()?)?;
    Some((nanoseconds, rest.get(name.len()..)?))
}
