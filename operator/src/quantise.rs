//! Numbers with two digits that mean something: enough to see a change, too few to see noise.

/// Rounds to two significant digits.
pub fn two_digits(number: u64) -> i64 {
    let mut scale = 1_u64;
    while number / scale >= 100 {
        scale *= 10;
    }
    let rounded = (number + scale / 2) / scale * scale;
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_two_significant_digits() {
        let cases = [
            (0, 0),
            (7, 7),
            (99, 99),
            (100, 100),
            (104, 100),
            (105, 110),
            (994, 990),
            (995, 1_000),
            (12_345, 12_000),
            (12_500, 13_000),
            (u64::MAX / 4, 4_600_000_000_000_000_000),
        ];
        for (number, rounded) in cases {
            assert_eq!(two_digits(number), rounded, "{number}");
        }
    }
}
