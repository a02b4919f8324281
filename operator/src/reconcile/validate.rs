//! The stage that checks the resource, by the same functions as `ringtail validate`.

use ringtail_crds::{
    Problem as Found, TracePipeline, ValidPipeline, conditions::reason, pod_guard,
    validate::validate_pipeline,
};

use crate::{conditions::Problem, settings::Settings};

/// The pipeline as meant, or everything that is wrong with it. What pods must not reach for is waived when
/// the operator was started so.
pub fn validate(
    pipeline: &TracePipeline,
    settings: &Settings,
) -> Result<ValidPipeline, Vec<Problem>> {
    let checked = validate_pipeline(pipeline);
    let refused = match settings.allow_unsafe_pod_template {
        true => Vec::new(),
        false => pod_guard::check(pipeline),
    };
    match (checked, refused.is_empty()) {
        (Ok(valid), true) => Ok(valid),
        (checked, _) => {
            let invalid = checked.err().unwrap_or_default().into_iter();
            let mut problems: Vec<_> =
                invalid.map(|found| problem(reason::INVALID_SPEC, found)).collect();
            problems.extend(refused.into_iter().map(|found| problem(reason::UNSAFE_POD, found)));
            Err(problems)
        }
    }
}

fn problem(reason: &'static str, found: Found) -> Problem {
    let message = match found.path.is_empty() {
        true => found.message,
        false => format!("{}: {}", found.path, found.message),
    };
    Problem { reason, message }
}
