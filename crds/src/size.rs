//! Sizes as a manifest writes them: `512Ki`, `64Mi`, `1Gi`.

use std::borrow::Cow;

use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::pattern;

// Twelve digits and two letters.
const LENGTH_MAX: u32 = 14;

// The suffixes of Kubernetes quantities that make sense for bytes, largest binary one first.
const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// A number of bytes as it was written; [`SizeText::parse`] gives its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SizeText(String);

/// Parses a size of a command line in the manifest's own spelling.
///
/// # Errors
/// Says which forms are understood.
pub fn parse_size(text: &str) -> Result<u64, String> {
    SizeText::parse_str(text).ok_or_else(|| {
        format!("`{text}` is not a size; write bytes or a quantity like 512Mi or 2Gi")
    })
}

impl SizeText {
    /// The value, or `None` when the text is not a size or does not fit 64 bits.
    pub fn parse(&self) -> Option<u64> {
        Self::parse_str(&self.0)
    }

    pub(crate) fn parse_str(text: &str) -> Option<u64> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let suffix = &text[digits.len()..];
        let unit = match suffix {
            "" => 1,
            _ => UNITS.iter().find(|(name, _)| *name == suffix)?.1,
        };
        let starts_with_digit = digits.starts_with(|c: char| c.is_ascii_digit());
        starts_with_digit.then(|| digits.parse::<u64>().ok()?.checked_mul(unit)).flatten()
    }
}

impl From<u64> for SizeText {
    fn from(bytes: u64) -> Self {
        let binary =
            UNITS.iter().take(4).find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
        Self(match binary {
            Some((name, unit)) => format!("{}{name}", bytes / unit),
            None => bytes.to_string(),
        })
    }
}

impl std::fmt::Display for SizeText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for SizeText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LENGTH_MAX,
            "pattern": pattern::SIZE.regex,
        })
    }
}

/// The smallest and the largest size that a field takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeBounds {
    pub(crate) least: u64,
    pub(crate) most: u64,
}

impl SizeBounds {
    /// The same bounds for the API server.
    pub(crate) fn rule(&self) -> Rule {
        let (least, most) = self.texts();
        Rule::new(format!(
            "!quantity(self).isLessThan(quantity('{least}')) && \
             !quantity(self).isGreaterThan(quantity('{most}'))"
        ))
        .message(self.demand().as_str())
    }

    /// Whether a value lies within; `None` is a value beyond 64 bits.
    pub(crate) fn contain(&self, value: Option<u64>) -> bool {
        value.is_some_and(|value| (self.least..=self.most).contains(&value))
    }

    /// What is wrong with a value outside.
    pub(crate) fn demand(&self) -> String {
        let (least, most) = self.texts();
        format!("must be from {least} to {most}")
    }

    fn texts(&self) -> (SizeText, SizeText) {
        (self.least.into(), self.most.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_quantities() {
        let cases = [("512Mi", 512 << 20), ("2Gi", 2 << 30), ("64k", 64_000), ("7", 7)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "Mi", "-1Mi", "1.5Gi", "99999999999Ti", "12 Mi"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
