//! The stage that checks the resource, by the same function as `ringtail validate`.

use ringtail_crds::{TracePipeline, ValidPipeline, conditions::reason};

use crate::{conditions::Problem, settings::Settings};

/// The pipeline as meant, or everything that is wrong with it.
pub fn validate(
    pipeline: &TracePipeline,
    _settings: &Settings,
) -> Result<ValidPipeline, Vec<Problem>> {
    let invalid = |message: String| Problem { reason: reason::INVALID_SPEC, message };
    // JSON is YAML. Lines of it mean nothing to whoever wrote the resource.
    let text = serde_json::to_string(pipeline).map_err(|error| vec![invalid(error.to_string())])?;
    ringtail_crds::validate(&text).map_err(|problems| {
        let told = problems.into_iter().map(|problem| match problem.path.is_empty() {
            true => problem.message,
            false => format!("{}: {}", problem.path, problem.message),
        });
        told.map(invalid).collect()
    })
}
