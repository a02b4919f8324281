//! From a manifest's settings, the files of Secrets and the environment to what is done to spans.

use std::path::Path;
use std::sync::Arc;

use ringtail_crds::ValidPipeline;
use ringtail_engine::policy::{self, Filter, Program};
use ringtail_engine::rewrite::attributes::Actions;
use ringtail_engine::rewrite::processing::Processing;
use ringtail_engine::rewrite::redaction::{Hasher, Redaction};
use ringtail_engine::scan::ScanLimits;

use super::RoleError;
use super::detection::{self, Place};

/// A key is read up to this size: far more than any hash makes use of.
const SECRET_BYTES_MAX: u64 = 16_384;

/// The policies, ready to judge traces.
pub(super) fn program(pipeline: &ValidPipeline) -> Result<Program, RoleError> {
    let program = policy::compile(&pipeline.policies).map_err(|problems| {
        RoleError::Usage(format!("the policies do not compile: {problems:?}"))
    })?;
    Ok(program.recording(pipeline.records))
}

/// What must not leave a gateway.
pub(super) fn redaction(
    pipeline: &ValidPipeline,
    secrets_dir: &Path,
) -> Result<Option<Arc<Redaction>>, RoleError> {
    let Some(redaction) = &pipeline.redaction else { return Ok(None) };
    let secret = match &redaction.hash_secret {
        Some((name, key)) => {
            let text = secret_text("redaction.hashSecretRef", &secrets_dir.join(name).join(key))?;
            if text.is_empty() {
                let why = format!("redaction.hashSecretRef: {name}/{key} is empty: write a key");
                return Err(RoleError::Usage(why));
            }
            Some(text)
        }
        None => None,
    };
    let hasher = Hasher::new(secret.as_ref().map(String::as_bytes));
    let compiled = Redaction::new(&redaction.plan, hasher).map_err(|problems| wrong(&problems))?;
    Ok(Some(Arc::new(compiled)))
}

/// The text of a file, without the line break that many editors put at its end.
fn secret_text(owner: &str, path: &Path) -> Result<String, RoleError> {
    let shown = path.display();
    let usage = |why: String| RoleError::Usage(format!("{owner}: {shown}: {why}"));
    let size = std::fs::metadata(path).map_err(|error| usage(error.to_string()))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(usage(format!("has {size} bytes, and at most {SECRET_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |line| line.trim_end_matches('\r')).to_owned())
}

/// What an agent does to spans; `None` when that is nothing.
pub(super) fn of_agent(
    pipeline: &ValidPipeline,
    thin: bool,
) -> Result<Option<Processing>, RoleError> {
    let settings = &pipeline.processing;
    let place = if thin { Place::Pod } else { Place::Node };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let facts = detection::detect(&settings.detection, place, &variable, host.trim());
    for (key, value) in &facts {
        tracing::info!(%key, %value, "detected");
    }
    let filter = match settings.filter.is_empty() {
        true => None,
        false => Some(Filter::new(&settings.filter).map_err(|problems| wrong(&problems))?),
    };
    let attributes = Actions::new(&settings.attributes, Hasher::default());
    let processing = Processing {
        detected: Actions::detected(&facts),
        filter,
        attributes: attributes.map_err(|problems| wrong(&problems))?,
    };
    Ok((!processing.is_idle()).then_some(processing))
}

/// What an agent takes in: what resources grow by must leave room under the limit of the gateways.
pub(super) fn scan_limits(processing: Option<&Processing>) -> ScanLimits {
    let limits = ScanLimits::default();
    let growth = processing.map_or(0, Processing::resource_growth);
    let growth = u32::try_from(growth).unwrap_or(u32::MAX);
    ScanLimits { max_header_bytes: limits.max_header_bytes.saturating_sub(growth), ..limits }
}

fn wrong(problems: &[impl std::fmt::Display]) -> RoleError {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    RoleError::Usage(lines.join("\n"))
}
