//! From the tree to a [`ValidPipeline`], with the rules that hold across fields.
//!
//! Each part is read by itself, without the pieces that the walk found broken: so a bad header does not hide that the
//! timeout beside it is out of bounds.

use std::time::Duration;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    findings::Findings,
    path::{Path, Step},
    policies,
};
use crate::{
    agent::{self, Agent},
    compression::Compression,
    duration::{DurationBounds, DurationText},
    exporter::{self, Exporter, OtlpExporter},
    gateway::Gateway,
    pipeline,
    resolved::{self, ValidPipeline},
    routing::Routing,
    sampling,
    size::{SizeBounds, SizeText},
};

/// The document as plain data. `None` when a part could not be read, for which there is a finding then.
pub(crate) fn resolve(document: &Value, findings: &mut Findings) -> Option<ValidPipeline> {
    let mut reader = Reader { document, findings };
    let spec = Path::default().key("spec");
    let name = reader
        .value(&Path::default().key("metadata").key("name"))
        .and_then(Value::as_str);
    let sampling = reader.sampling(&spec.key("sampling"));
    let policies = policies::resolve(&mut reader, &spec.key("sampling").key("policies"));
    let exporters = reader.exporters(&spec.key("exporters"));
    let gateways = reader.gateways(&spec.key("routing"));
    let agent = reader.agent(
        &spec.key("agent"),
        sampling.as_ref().map(|sampling| sampling.0),
    );
    let gateway: Option<Gateway> = reader.part(&spec.key("gateway"));
    let (decision_wait, max_trace_spans) = sampling?;
    let (batch, hop_compression) = agent?;
    Some(ValidPipeline {
        name: name?.to_owned(),
        decision_wait,
        max_trace_spans,
        policies: policies?,
        exporters: exporters?,
        gateways: gateways?,
        batch,
        hop_compression,
        replicas: gateway?.replicas,
    })
}

// `sampling` without its policies, which are read one by one elsewhere.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SamplingNumbers {
    #[serde(default = "sampling::decision_wait")]
    decision_wait: DurationText,
    #[serde(default = "sampling::max_trace_spans")]
    max_trace_spans: u32,
}

/// Reads parts of a document and adds what is wrong with them.
pub(crate) struct Reader<'a> {
    document: &'a Value,
    pub(crate) findings: &'a mut Findings,
}

impl<'a> Reader<'a> {
    /// The value at `at` as it was written.
    pub(crate) fn value(&self, at: &Path) -> Option<&'a Value> {
        at.steps()
            .iter()
            .try_fold(self.document, |value, step| match step {
                Step::Key(key) => value.get(key),
                Step::Index(index) => value.get(index),
            })
    }

    /// The part at `at`, with defaults in place of what is absent or broken. `None` when a required piece is broken.
    pub(crate) fn part<T: DeserializeOwned>(&mut self, at: &Path) -> Option<T> {
        if self.findings.is_broken(at) {
            return None;
        }
        let mut value = self.value(at).cloned().unwrap_or_else(|| Map::new().into());
        remove_broken(&mut value, at, self.findings);
        match serde_json::from_value(value) {
            Ok(part) => Some(part),
            Err(_) if self.findings.touches(at) => None,
            // The walk let pass what the types do not take. A test looks for this in vain; it is told all the same.
            Err(error) => {
                self.findings.add(at.clone(), error.to_string());
                None
            }
        }
    }

    /// Each entry of the list at `at`.
    pub(crate) fn entries(&self, at: &Path) -> Vec<Path> {
        let count = self.value(at).and_then(Value::as_array).map_or(0, Vec::len);
        (0..count).map(|index| at.index(index)).collect()
    }

    fn sampling(&mut self, at: &Path) -> Option<(Duration, u32)> {
        let numbers: SamplingNumbers = self.part(at)?;
        let here = at.key("decisionWait");
        let wait = self.duration(&numbers.decision_wait, sampling::DECISION_WAIT, here)?;
        Some((wait, numbers.max_trace_spans))
    }

    fn exporters(&mut self, at: &Path) -> Option<Vec<resolved::Exporter>> {
        // Every exporter is checked before one that failed ends the list.
        let exporters: Vec<_> = self
            .entries(at)
            .iter()
            .map(|entry| self.exporter(entry))
            .collect();
        exporters.into_iter().collect()
    }

    fn exporter(&mut self, at: &Path) -> Option<resolved::Exporter> {
        let exporter: Exporter = self.part(at)?;
        let otlp = exporter.otlp?;
        let at = at.key("otlp");
        let timeout = self.duration(&otlp.timeout, exporter::TIMEOUT, at.key("timeout"));
        let queue = at.key("queue").key("maxBytes");
        let queue_max_bytes = self.size(&otlp.queue.max_bytes, exporter::QUEUE_BYTES, queue);
        let retry = self.retry(&otlp.retry, &at.key("retry"));
        let headers = self.headers(&otlp, &at.key("headers"));
        Some(resolved::Exporter {
            name: exporter.name,
            endpoint: otlp.endpoint.trim_start_matches("http://").to_owned(),
            compression: otlp.compression,
            timeout: timeout?,
            headers,
            queue_max_bytes: queue_max_bytes?,
            retry: retry?,
        })
    }

    fn retry(&mut self, retry: &exporter::Retry, at: &Path) -> Option<resolved::Retry> {
        let bounds = (exporter::RETRY_ELAPSED, exporter::RETRY_INTERVAL);
        let max_elapsed = self.duration(&retry.max_elapsed, bounds.0, at.key("maxElapsed"));
        let initial = self.duration(&retry.initial_interval, bounds.1, at.key("initialInterval"));
        let longest = self.duration(&retry.max_interval, bounds.1, at.key("maxInterval"));
        let retry = resolved::Retry {
            max_elapsed: max_elapsed?,
            initial_interval: initial?,
            max_interval: longest?,
        };
        if retry.max_interval < retry.initial_interval {
            self.findings
                .add(at.key("maxInterval"), exporter::INTERVALS_REVERSED);
        }
        Some(retry)
    }

    fn headers(&mut self, otlp: &OtlpExporter, at: &Path) -> Vec<(String, String)> {
        for (index, header) in otlp.headers.iter().enumerate() {
            if !exporter::is_free(&header.name) {
                self.findings
                    .add(at.index(index).key("name"), exporter::HEADER_RESERVED);
            }
        }
        otlp.headers
            .iter()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect()
    }

    fn gateways(&mut self, at: &Path) -> Option<Vec<String>> {
        if self.value(at).is_none() {
            return Some(Vec::new());
        }
        let routing: Routing = self.part(at)?;
        Some(routing.resolver.static_?.endpoints)
    }

    fn agent(
        &mut self,
        at: &Path,
        decision_wait: Option<Duration>,
    ) -> Option<(resolved::Batch, Compression)> {
        let agent: Agent = self.part(at)?;
        let at = at.key("batch");
        let max_bytes = self.size(
            &agent.batch.max_bytes,
            agent::BATCH_BYTES,
            at.key("maxBytes"),
        );
        let timeout = self.duration(
            &agent.batch.timeout,
            agent::BATCH_TIMEOUT,
            at.key("timeout"),
        )?;
        if decision_wait.is_some_and(|wait| timeout >= wait) {
            self.findings
                .add_unless_known(at.key("timeout"), pipeline::BATCH_AFTER_DECISION);
        }
        let max_spans = agent.batch.max_spans;
        let batch = resolved::Batch {
            max_bytes: max_bytes?,
            max_spans,
            timeout,
        };
        Some((batch, agent.compression))
    }

    /// The value of `text`, if it lies within `bounds`.
    pub(crate) fn duration(
        &mut self,
        text: &DurationText,
        bounds: DurationBounds,
        at: Path,
    ) -> Option<Duration> {
        bounds
            .read(text)
            .map_err(|message| self.findings.add_unless_known(at, message))
            .ok()
    }

    fn size(&mut self, text: &SizeText, bounds: SizeBounds, at: Path) -> Option<u64> {
        bounds
            .read(text)
            .map_err(|message| self.findings.add_unless_known(at, message))
            .ok()
    }
}

// A list with a broken entry goes as a whole: without the entry its other places would shift.
fn remove_broken(value: &mut Value, at: &Path, findings: &Findings) {
    let Value::Object(map) = value else { return };
    map.retain(|key, member| {
        let here = at.key(key);
        !findings.is_broken(&here) && !(member.is_array() && findings.touches(&here))
    });
    map.iter_mut()
        .for_each(|(key, member)| remove_broken(member, &at.key(key), findings));
}
