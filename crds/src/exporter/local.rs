//! Exporters that need no backend: the log and a file.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    pattern,
    size::{SizeBounds, SizeText},
};

/// From a file that holds one large request or two to what fits a volume.
pub(crate) static ROTATION_BYTES: SizeBounds = SizeBounds { least: 1 << 20, most: 1 << 40 };
const PATH_LENGTH_MAX: u32 = 1_024;
const BACKUPS_MAX: u32 = 1_000;
/// More requests than anybody reads in a second.
const SAMPLES_MAX: u32 = 1_000_000;

/// How spans are printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DebugExporter {
    /// Basic: a line for each request with how many spans it has. Normal: a line for each span. Detailed:
    /// everything that OTLP says of resources, scopes, spans, events and links.
    #[serde(default)]
    pub verbosity: Verbosity,

    /// How many requests are printed in full in each second before only some are. From 1 to 1000000.
    #[serde(default = "sampling_initial")]
    #[schemars(range(min = 1, max = SAMPLES_MAX))]
    pub sampling_initial: u32,

    /// Of the further requests of that second every so many is printed: 1 prints all. What is not printed is
    /// counted. From 1 to 1000000.
    #[serde(default = "sampling_thereafter")]
    #[schemars(range(min = 1, max = SAMPLES_MAX))]
    pub sampling_thereafter: u32,
}

/// How much is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field documents the values; the schema has no place for more")]
pub enum Verbosity {
    #[default]
    Basic,
    Normal,
    Detailed,
}

fn sampling_initial() -> u32 {
    2
}

fn sampling_thereafter() -> u32 {
    1
}

/// Where spans are written: a line of OTLP JSON for each request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileExporter {
    /// The file, which is appended to. Its directory must exist: in a cluster, mount a volume with
    /// `gateway.volumes` and `gateway.volumeMounts`. Processes that share a directory need files of their
    /// own: {identity} stands for what the process calls itself.
    #[schemars(length(max = PATH_LENGTH_MAX), regex(pattern = pattern::FILE_PATH.regex))]
    pub path: String,

    /// When a new file is begun.
    #[serde(default)]
    pub rotation: Rotation,
}

/// When a new file is begun, and how many old ones are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// The file is renamed to PATH.1, and PATH.1 to PATH.2 and so on, before it would grow beyond this. From
    /// 1Mi to 1Ti.
    #[serde(default = "max_bytes")]
    #[x_kube(validation = ROTATION_BYTES.rule())]
    pub max_bytes: SizeText,

    /// How many renamed files are kept. From 0 to 1000.
    #[serde(default = "max_backups")]
    #[schemars(range(min = 0, max = BACKUPS_MAX))]
    pub max_backups: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_bytes: max_bytes(), max_backups: max_backups() }
    }
}

fn max_bytes() -> SizeText {
    (100 << 20).into()
}

fn max_backups() -> u32 {
    9
}
