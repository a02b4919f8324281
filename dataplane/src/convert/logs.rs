//! Pipelines of log records: who takes them, and which backends get them.

use std::collections::BTreeSet;

use super::Gateways;
use super::conversion::Conversion;
use super::pipelines::{Config, Pipeline, Tier, type_of};
use super::tree::Tree;

impl Conversion<'_> {
    /// What pipelines of log records become, once all exporters of traces are known.
    pub(super) fn logs(&mut self, configs: &[Config<'_>]) {
        let of_traces = self.exporters.len();
        let (mut place, mut given) = (None, BTreeSet::new());
        for config in configs {
            for pipeline in config.of(Tier::Other).filter(|pipeline| pipeline.signal == "logs") {
                if self.takes_records(config, pipeline) {
                    place.get_or_insert_with(|| pipeline.place.clone());
                    self.record_processors(config, pipeline);
                    given.extend(self.record_exporters(config, pipeline));
                }
            }
        }
        let Some(place) = place else { return };
        if given.is_empty() && self.gateways == Gateways::Managed {
            let why = "no exporter of the gateways takes log records: leave a Collector for them";
            return self.report.lost(&place, why);
        }
        self.draft.set(&mut self.report, "logs.keep", Tree::text("All"), &place);
        for (index, exporter) in self.exporters.iter_mut().enumerate() {
            let signal = match (index < of_traces, given.contains(&index)) {
                (true, true) => continue,
                (true, false) => "Traces",
                (false, _) => "Logs",
            };
            if signal == "Logs" {
                lead_to_logs(exporter);
            }
            *exporter = exporter.clone().with("signals", Tree::texts([signal.to_owned()]));
        }
    }

    /// Whether a pipeline of log records is one that Ringtail can stand for; else that is told.
    fn takes_records(&mut self, config: &Config<'_>, pipeline: &Pipeline) -> bool {
        if !pipeline.receivers.iter().any(|(id, _)| type_of(id) == "otlp") {
            let why = "Ringtail takes OTLP only: leave a Collector for these log records";
            self.report.lost(&pipeline.place, why);
            return false;
        }
        if !pipeline.balances() && config.of(Tier::Gateway).next().is_none() {
            let why = "agents bring log records to gateways, and to no backend: leave a Collector for these, \
                       or give the gateways' configuration a pipeline of logs";
            self.report.lost(&pipeline.place, why);
            return false;
        }
        for (id, place) in pipeline.receivers.iter().filter(|(id, _)| type_of(id) != "otlp") {
            self.report.lost(place, format!("log records come in as OTLP only, and not from {id}"));
        }
        true
    }

    fn record_processors(&mut self, config: &Config<'_>, pipeline: &Pipeline) {
        for (id, place) in &pipeline.processors {
            match (type_of(id), config.component("processors", id)) {
                (_, None) => self.missing("processor", id, place),
                ("memory_limiter" | "batch", _) => {
                    self.report.built_in(place, "log records have bounds and batches of their own");
                }
                ("redaction", _) => {
                    let why = "spec.redaction, which comes of pipelines of traces, is about log records too";
                    self.report.differs(place, why);
                }
                (other, _) => {
                    self.report.lost(place, format!("{other} is not done to log records"));
                }
            }
        }
    }

    /// The places of the exporters that a pipeline gives log records to.
    fn record_exporters(&mut self, config: &Config<'_>, pipeline: &Pipeline) -> Vec<usize> {
        let gateways = config.of(Tier::Gateway).next().is_some();
        let mut given = Vec::new();
        for (id, place) in &pipeline.exporters {
            match (type_of(id), config.component("exporters", id)) {
                ("loadbalancing", Some(_)) => {
                    let why = "agents spread log records over gateways as they do with spans";
                    self.report.built_in(place, why);
                }
                (_, Some(_)) if !gateways => {
                    self.report.lost(place, "agents send to gateways only")
                }
                (_, Some(entry)) => given.extend(self.exporter_of(config, id, &entry)),
                (_, None) if config.component("connectors", id).is_some() => {
                    self.report.lost(place, "no connector is given log records");
                }
                (_, None) => self.missing("exporter", id, place),
            }
        }
        given
    }
}

/// The path of what gets log records alone, where one was made for traces.
fn lead_to_logs(tree: &mut Tree) {
    let Tree::Map(fields) = tree else { return };
    for (name, tree) in fields {
        match (name.as_str(), tree) {
            ("otlp", otlp) => lead_to_logs(otlp),
            ("endpoint", Tree::Text(text)) => {
                if let Some(base) = text.strip_suffix("/v1/traces") {
                    *text = format!("{base}/v1/logs");
                }
            }
            _ => {}
        }
    }
}
