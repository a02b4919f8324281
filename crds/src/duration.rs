//! Durations as a manifest writes them: `30s`, `500ms`, `1m30s`.

use std::{borrow::Cow, time::Duration};

use kube::core::Rule;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::pattern;

// Four units of five digits and two letters: 4 x 7 characters.
const LENGTH_MAX: u32 = 28;

/// A duration as it was written; [`DurationText::parse`] gives its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(String);

/// Parses a duration of a command line in the manifest's own spelling.
///
/// # Errors
/// Says which forms are understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    DurationText::parse_str(text)
        .filter(|_| !text.is_empty())
        .ok_or_else(|| format!("`{text}` is not a duration; write one like 30s, 500ms or 1m30s"))
}

impl DurationText {
    /// The value, or `None` when the text is not a duration.
    pub fn parse(&self) -> Option<Duration> {
        Self::parse_str(&self.0)
    }

    pub(crate) fn parse_str(text: &str) -> Option<Duration> {
        let mut rest = text;
        let mut total_ms = 0u64;
        while !rest.is_empty() {
            let (count, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            let unit = &tail[..tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len())];
            let unit_ms = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                _ => return None,
            };
            total_ms = total_ms.checked_add(count.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
            rest = &tail[unit.len()..];
        }
        (!text.is_empty()).then_some(Duration::from_millis(total_ms))
    }
}

impl From<Duration> for DurationText {
    fn from(value: Duration) -> Self {
        let mut rest_ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        let mut text = String::new();
        for (unit_ms, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if rest_ms >= unit_ms {
                text.push_str(&format!("{}{unit}", rest_ms / unit_ms));
                rest_ms %= unit_ms;
            }
        }
        Self(if text.is_empty() { "0s".to_owned() } else { text })
    }
}

impl std::fmt::Display for DurationText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": LENGTH_MAX,
            "pattern": pattern::DURATION.regex,
        })
    }
}

/// The shortest and the longest duration that a field takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DurationBounds {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl DurationBounds {
    /// Bounds in milliseconds, both included.
    pub(crate) const fn ms(least: u64, most: u64) -> Self {
        Self { least: Duration::from_millis(least), most: Duration::from_millis(most) }
    }

    /// The same bounds for the API server.
    pub(crate) fn rule(&self) -> Rule {
        let (least, most) = self.texts();
        Rule::new(format!(
            "duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
        ))
        .message(self.demand().as_str())
    }

    pub(crate) fn contain(&self, value: Duration) -> bool {
        (self.least..=self.most).contains(&value)
    }

    /// What is wrong with a value outside.
    pub(crate) fn demand(&self) -> String {
        let (least, most) = self.texts();
        format!("must be from {least} to {most}")
    }

    fn texts(&self) -> (DurationText, DurationText) {
        (self.least.into(), self.most.into())
    }
}
