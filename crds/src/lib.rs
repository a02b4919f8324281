//! The `TracePipeline` resource.
//!
//! The types are the contract: their doc comments, bounds and defaults become the schema that is installed
//! in clusters, and [`validate`] checks a manifest against that same schema without one. What comes out is
//! a [`ValidPipeline`]: plain data, every default in place, which is all that the data plane knows of a
//! manifest.

#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each of its types into a function, with its visibility"
)]

pub mod agent; //       the tier that takes spans in
pub mod autoscaling; // how many gateways
pub mod compression; // of the hop, and to backends
pub mod conditions; //  what status says, and why
pub mod duration; //    30s, 500ms, 1m30s
pub mod exporter; //    where kept traces go
pub mod gateway; //     the tier that decides
pub mod generated; //   the files that are made from the types
pub mod logs; //        log records beside the spans
pub mod manifest; //    the text that pods read
pub mod percentage; //  25, "0.1"
pub mod pipeline; //    the resource itself
pub mod pod; //         settings of pods, for both tiers
pub mod pod_guard; //   what pods must not reach for
pub mod problem; //     what is wrong with a manifest
pub mod processing; //  what agents do to spans
pub mod receivers; //   where agents take spans in
pub mod redaction; //   what must not leave with kept spans
pub mod resolved; //    a manifest with every default in place
pub mod routing; //     how agents find gateways
pub mod sampling; //    which traces to keep
pub mod schema; //      the definition that is installed
pub mod security; //    how agents and gateways trust each other
pub mod size; //        512Ki, 64Mi, 1Gi
pub mod span_metrics; // requests, errors and durations of all spans
pub mod status; //      what the operator knows of the fleet
pub mod validate; //    the check without a cluster

mod embedded; // types of Kubernetes inside ours
mod path; //     spec.sampling.policies[2]
mod pattern; //  the patterns of strings, with words for them
mod rules; //    what goes beyond types and patterns, in CEL and offline
mod union; //    `type` and its members

pub use compression::Compression;
pub use duration::parse_duration;
pub use manifest::resolved_manifest;
pub use pipeline::{TracePipeline, TracePipelineSpec};
pub use problem::Problem;
pub use resolved::ValidPipeline;
pub use size::parse_size;
pub use status::TracePipelineStatus;
pub use validate::{validate, validate_object, validate_pipeline};
