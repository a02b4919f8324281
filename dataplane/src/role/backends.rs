//! From the exporters of a manifest, the flags and the files of Secrets to the settings of exporter tasks.

use std::path::Path;

use ringtail_crds::ValidPipeline;
use ringtail_crds::resolved::HeaderValue;

use super::{RoleError, encoding};
use crate::export;

/// A header's value is read up to this size: four times what a manifest may write.
const SECRET_BYTES_MAX: u64 = 16_384;

/// The exporters with the endpoints that flags replace, their queues scaled down together when the budget
/// is smaller.
pub(super) fn configs(
    pipeline: &ValidPipeline,
    exports: &[String],
    secrets_dir: &Path,
    budget: u64,
) -> Result<Vec<export::Config>, RoleError> {
    let replaced = parse_exports(exports, pipeline)?;
    let wanted: u64 = pipeline.exporters.iter().map(|exporter| exporter.queue_max_bytes).sum();
    let configs = pipeline.exporters.iter().map(|exporter| {
        let share =
            u128::from(exporter.queue_max_bytes) * u128::from(budget) / u128::from(wanted.max(1));
        let queue_bytes = exporter.queue_max_bytes.min(u64::try_from(share).unwrap_or(u64::MAX));
        let endpoint = replaced.iter().find(|(name, _)| *name == exporter.name);
        Ok(export::Config {
            name: exporter.name.clone(),
            endpoint: endpoint.map_or(&exporter.endpoint, |(_, endpoint)| endpoint).clone(),
            encoding: encoding(exporter.compression),
            timeout: exporter.timeout,
            headers: headers(&exporter.headers, secrets_dir)?,
            queue_bytes,
            retry_first: exporter.retry.initial_interval,
            retry_max: exporter.retry.max_interval,
            retry_for: exporter.retry.max_elapsed,
        })
    });
    configs.collect()
}

fn headers(
    pairs: &[(String, HeaderValue)],
    secrets_dir: &Path,
) -> Result<http::HeaderMap, RoleError> {
    let parse = |(name, value): &(String, HeaderValue)| {
        // The value may be a secret and is not repeated.
        let wrong = || RoleError::Usage(format!("header {name:?}: not a header name or value"));
        let parsed = http::HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        let text = match value {
            HeaderValue::Text(text) => text.clone(),
            HeaderValue::Secret { name: secret, key } => {
                let path = secrets_dir.join(secret).join(key);
                secret_text(&format!("header {name:?}"), &path)?
            }
        };
        let mut value = http::HeaderValue::try_from(text).map_err(|_| wrong())?;
        // Neither a log nor the table of a compressed connection shows it.
        value.set_sensitive(true);
        Ok((parsed, value))
    };
    pairs.iter().map(parse).collect()
}

/// The text of a file, without the line break that many editors put at its end.
pub(super) fn secret_text(owner: &str, path: &Path) -> Result<String, RoleError> {
    let shown = path.display();
    let usage = |why: String| RoleError::Usage(format!("{owner}: {shown}: {why}"));
    let size = std::fs::metadata(path).map_err(|error| usage(error.to_string()))?.len();
    if size > SECRET_BYTES_MAX {
        return Err(usage(format!("has {size} bytes, and at most {SECRET_BYTES_MAX} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |line| line.trim_end_matches('\r')).to_owned())
}

fn parse_exports(
    exports: &[String],
    pipeline: &ValidPipeline,
) -> Result<Vec<(String, String)>, RoleError> {
    let parse = |text: &String| {
        let (name, endpoint) = text
            .split_once('=')
            .ok_or_else(|| RoleError::Usage(format!("--export {text}: write NAME=HOST:PORT")))?;
        if !pipeline.exporters.iter().any(|exporter| exporter.name == name) {
            let known: Vec<&str> = pipeline.exporters.iter().map(|e| e.name.as_str()).collect();
            let known = known.join(", ");
            let why =
                format!("--export {text}: the manifest has no exporter {name}; it has {known}");
            return Err(RoleError::Usage(why));
        }
        Ok((name.to_owned(), endpoint.trim_start_matches("http://").to_owned()))
    };
    exports.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Vec<(String, HeaderValue)> {
        let value = HeaderValue::Secret { name: "tempo".to_owned(), key: "org".to_owned() };
        vec![("x-org".to_owned(), value)]
    }

    #[test]
    fn a_header_is_read_from_its_secret() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tempo")).unwrap();
        let file = dir.path().join("tempo/org");
        for text in ["shop", "shop\n", "shop\r\n"] {
            std::fs::write(&file, text).unwrap();
            let headers = headers(&secret(), dir.path()).unwrap();
            assert_eq!(headers["x-org"], "shop");
            assert!(headers["x-org"].is_sensitive());
        }
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_told_without_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let told = || headers(&secret(), dir.path()).unwrap_err().to_string();
        assert!(told().contains("tempo/org"), "{}", told());
        std::fs::create_dir(dir.path().join("tempo")).unwrap();
        for (text, wanted) in [("two\nlines", "not a header"), (&"x".repeat(20_000), "20000 bytes")]
        {
            std::fs::write(dir.path().join("tempo/org"), text).unwrap();
            assert!(told().contains(wanted) && !told().contains("two"), "{}", told());
        }
    }
}
