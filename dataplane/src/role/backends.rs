//! From the exporters of a manifest and the flags to the settings of exporter tasks.

use std::path::PathBuf;

use ringtail_crds::ValidPipeline;
use ringtail_crds::exporter::OtlpProtocol;
use ringtail_crds::logs::Signal;
use ringtail_crds::resolved::{Destination, Endpoint, Exporter, Logs};
use tokio::task::JoinSet;

use super::RoleError;
use crate::export::{self, ExporterHandle};
use crate::gateway::logs;

/// What exporters need to know of the process.
pub(super) struct Local {
    /// Where the files of Secrets are.
    pub(super) secrets_dir: PathBuf,
    /// What it calls itself.
    pub(super) identity: String,
    /// Where queues on disk are.
    pub(super) data_dir: Option<PathBuf>,
}

/// The exporters, once for each signal, with the endpoints that flags replace. Their queues are scaled down
/// together when the budget is smaller.
pub(super) fn configs(
    pipeline: &ValidPipeline,
    exports: &[String],
    local: &Local,
    budget: u64,
) -> Result<Vec<export::Config>, RoleError> {
    let mut exporters = pipeline.exporters.clone();
    for text in exports {
        replace(text, &mut exporters)?;
    }
    let wanted: u64 = exporters.iter().map(|exporter| exporter.queue_max_bytes).sum();
    let config = |(exporter, signal): (Exporter, Signal)| {
        let share =
            u128::from(exporter.queue_max_bytes) * u128::from(budget) / u128::from(wanted.max(1));
        // Each signal has a queue of its own, so that neither starves the other.
        let signals = exporter.signals.len().max(1) as u64;
        let whole = exporter.queue_max_bytes.min(u64::try_from(share).unwrap_or(u64::MAX));
        let queue_bytes = whole / signals;
        let Local { secrets_dir, identity, data_dir } = local;
        export::Config {
            exporter,
            signal,
            queue_bytes,
            secrets_dir: secrets_dir.clone(),
            identity: identity.clone(),
            data_dir: data_dir.clone(),
        }
    };
    let each = exporters.into_iter().flat_map(|exporter| {
        let signals = exporter.signals.clone();
        signals.into_iter().map(move |signal| (exporter.clone(), signal))
    });
    Ok(each.map(config).collect())
}

/// Starts the exporters: those of spans, and those of log records.
pub(super) fn start(
    configs: Vec<export::Config>,
    tasks: &mut JoinSet<()>,
) -> Result<(Vec<ExporterHandle>, Vec<ExporterHandle>), RoleError> {
    let (mut of_traces, mut of_logs) = (Vec::<ExporterHandle>::new(), Vec::new());
    for config in configs {
        let twin = of_traces.iter().find(|twin| twin.name() == config.exporter.name);
        let (handle, task) = ExporterHandle::new(&config, twin)?;
        tasks.spawn(task.run());
        match config.signal {
            Signal::Traces => of_traces.push(handle),
            Signal::Logs => of_logs.push(handle),
        }
    }
    Ok((of_traces, of_logs))
}

/// What becomes of log records, if any are taken; so many bytes of them may wait.
pub(super) fn of_logs(
    pipeline: &ValidPipeline,
    exporters: Vec<ExporterHandle>,
    hold_bytes: u64,
) -> Option<logs::Config> {
    let undecided = match pipeline.logs? {
        Logs::All => None,
        Logs::OfKeptTraces(undecided) => Some(undecided),
    };
    Some(logs::Config { exporters, undecided, hold_bytes })
}

/// Carries out one `--export NAME=[SCHEME://]HOST:PORT`.
fn replace(text: &str, exporters: &mut [Exporter]) -> Result<(), RoleError> {
    let usage = |why: String| RoleError::Usage(format!("--export {text}: {why}"));
    let (name, place) =
        text.split_once('=').ok_or_else(|| usage("write NAME=HOST:PORT".to_owned()))?;
    let names: Vec<String> = exporters.iter().map(|exporter| exporter.name.clone()).collect();
    let Some(exporter) = exporters.iter_mut().find(|exporter| exporter.name == name) else {
        let known = names.join(", ");
        return Err(usage(format!("the manifest has no exporter {name}; it has {known}")));
    };
    let Destination::Otlp(otlp) = &mut exporter.destination else {
        return Err(usage(format!("exporter {name} has no endpoint: its type is not OTLP")));
    };
    let (scheme, rest) = place.split_once("://").unwrap_or(("http", place));
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let tls = match scheme {
        "https" => Some(otlp.endpoint.tls.take().unwrap_or_default()),
        "http" => None,
        "grpc" => {
            otlp.protocol = OtlpProtocol::Grpc;
            None
        }
        other => {
            return Err(usage(format!("{other}:// is not known: write http, https or grpc")));
        }
    };
    // A path of the manifest stays unless there is another: a sink on a laptop stands in for the backend.
    let path = if path.is_empty() { otlp.endpoint.path.clone() } else { path.to_owned() };
    otlp.endpoint = Endpoint { address: address.to_owned(), path, tls };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: test}
spec:
  sampling: {policies: [{name: all, type: AlwaysSample}]}
  exporters:
    - name: vendor
      type: OTLP
      otlp: {endpoint: "https://otlp.example.com/x", protocol: HTTPProtobuf, tls: {serverName: a.b}}
    - {name: print, type: Debug, debug: {}}
"#;

    fn local() -> Local {
        Local { secrets_dir: PathBuf::new(), identity: "gw".to_owned(), data_dir: None }
    }

    fn read(export: &str) -> Result<(String, String, bool, OtlpProtocol), String> {
        let pipeline = ringtail_crds::validate(MANIFEST).unwrap();
        let local = local();
        let configs = configs(&pipeline, &[export.to_owned()], &local, 1 << 20);
        let configs = configs.map_err(|error| error.to_string())?;
        let Destination::Otlp(otlp) = &configs[0].exporter.destination else { panic!("OTLP") };
        let Endpoint { address, path, tls } = otlp.endpoint.clone();
        Ok((address, path, tls.is_some(), otlp.protocol))
    }

    #[test]
    fn flags_replace_endpoints() {
        use OtlpProtocol::{Grpc, HttpProtobuf};
        let cases = [
            ("vendor=127.0.0.1:1", "127.0.0.1:1", "/x", false, HttpProtobuf),
            ("vendor=http://a:1/y", "a:1", "/y", false, HttpProtobuf),
            ("vendor=https://a:1", "a:1", "/x", true, HttpProtobuf),
            ("vendor=grpc://a:1", "a:1", "/x", false, Grpc),
        ];
        for (export, address, path, tls, protocol) in cases {
            let expected = (address.to_owned(), path.to_owned(), tls, protocol);
            assert_eq!(read(export), Ok(expected), "{export}");
        }
        for (export, told) in [
            ("vendor", "write NAME=HOST:PORT"),
            ("tempo=a:1", "it has vendor, print"),
            ("print=a:1", "has no endpoint"),
            ("vendor=ftp://a:1", "ftp:// is not known"),
        ] {
            let why = read(export).unwrap_err();
            assert!(why.contains(told), "{export}: {why}");
        }
    }

    #[test]
    fn queues_share_a_budget_that_is_too_small() {
        let pipeline = ringtail_crds::validate(MANIFEST).unwrap();
        let local = local();
        // 64 MiB and 16 MiB are wanted.
        let configs = configs(&pipeline, &[], &local, 40 << 20).unwrap();
        let bytes: Vec<u64> = configs.iter().map(|config| config.queue_bytes).collect();
        assert_eq!(bytes, [32 << 20, 8 << 20]);
    }

    #[test]
    fn an_exporter_of_both_signals_has_a_queue_for_each() {
        let text = MANIFEST.replace("spec:\n", "spec:\n  logs: {}\n");
        let pipeline = ringtail_crds::validate(&text).unwrap();
        let configs = configs(&pipeline, &[], &local(), 1 << 30).unwrap();
        let queues: Vec<_> = configs.iter().map(|one| (one.signal, one.queue_bytes)).collect();
        let each = |bytes| Signal::ALL.map(|signal| (signal, bytes));
        assert_eq!(queues, [each(32 << 20), each(8 << 20)].concat());
    }
}
