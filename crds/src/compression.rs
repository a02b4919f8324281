//! How requests are compressed, on the hop to gateways and on the way to backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the fields document the values; the schema has no place for more")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}
