//! Percentages as a manifest writes them: `25`, `"0.1"`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::pattern;

// "100." or two digits and a point, and ten digits after it.
const LENGTH_MAX: u32 = 14;

/// A percentage as it was written: a whole number, or a string when it has a fraction. Kubernetes resources
/// hold no floating-point numbers, because their text does not survive every tool that passes them on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percentage(IntOrString);

impl Percentage {
    /// The value, or `None` when the text is not a number.
    pub fn parse(&self) -> Option<f64> {
        match &self.0 {
            IntOrString::Int(value) => Some(f64::from(*value)),
            IntOrString::String(text) => text.parse().ok(),
        }
    }
}

impl JsonSchema for Percentage {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Percentage".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maximum": 100,
            "maxLength": LENGTH_MAX,
            "pattern": pattern::PERCENTAGE.regex,
        })
    }
}
