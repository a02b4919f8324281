//! `service.pipelines`: what of a configuration is in use, and in which tier.

use std::collections::BTreeSet;

use super::report::{Place, Report};
use super::source::{Entry, File};

/// Which tier a pipeline is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Agent,
    Gateway,
    /// Not of traces.
    Other,
}

/// A pipeline and the IDs of its components.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) place: Place,
    pub(super) signal: String,
    pub(super) receivers: Vec<(String, Place)>,
    pub(super) processors: Vec<(String, Place)>,
    pub(super) exporters: Vec<(String, Place)>,
    pub(super) tier: Tier,
}

/// One configuration.
#[derive(Debug)]
pub(super) struct Config<'a> {
    pub(super) entry: Entry<'a>,
    pub(super) pipelines: Vec<Pipeline>,
}

/// The type of a component: its ID up to the slash, under the name that is in use longest.
pub(super) fn type_of(id: &str) -> &str {
    match id.split('/').next().unwrap_or(id).trim() {
        "load_balancing" => "loadbalancing",
        "span_metrics" => "spanmetrics",
        "resource_detection" => "resourcedetection",
        "k8s_attributes" => "k8sattributes",
        "logging" => "debug",
        other => other,
    }
}

// === impl Config ===

impl<'a> Config<'a> {
    /// Reads the pipelines of every file and says of which tier each is.
    pub(super) fn read_all(files: &'a [File], report: &mut Report) -> Vec<Self> {
        let mut configs: Vec<_> = files.iter().map(|file| Self::read(file, report)).collect();
        let anybody_samples = configs.iter().any(|config| config.any(Pipeline::samples));
        for config in &mut configs {
            config.assign(anybody_samples, report);
        }
        configs
    }

    fn read(file: &'a File, report: &mut Report) -> Self {
        let entry = file.entry();
        let service = entry.field("service").and_then(|service| service.field("pipelines"));
        let Some(service) = service else {
            report
                .error(&entry.place, "is no Collector configuration: it has no service.pipelines");
            return Self { entry, pipelines: Vec::new() };
        };
        let pipelines = service.fields().into_iter().map(|(id, pipeline)| {
            let list = |name| pipeline.field(name).map(|list| list.words()).unwrap_or_default();
            Pipeline {
                signal: type_of(id).to_owned(),
                receivers: list("receivers"),
                processors: list("processors"),
                exporters: list("exporters"),
                tier: Tier::Other,
                place: pipeline.place,
            }
        });
        Self { pipelines: pipelines.collect(), entry }
    }

    fn any(&self, is: fn(&Pipeline) -> bool) -> bool {
        self.pipelines.iter().any(is)
    }

    fn assign(&mut self, anybody_samples: bool, report: &mut Report) {
        let (samples, balances) = (self.any(Pipeline::samples), self.any(Pipeline::balances));
        for pipeline in self.pipelines.iter_mut().filter(|pipeline| pipeline.signal == "traces") {
            pipeline.tier = match (pipeline.balances(), pipeline.samples()) {
                (true, true) => {
                    let why = "samples before it spreads traces, which sees parts of traces: Ringtail \
                               samples at the gateways only";
                    report.differs(&pipeline.place, why);
                    Tier::Agent
                }
                (true, false) => Tier::Agent,
                (false, true) => Tier::Gateway,
                (false, false) if samples => Tier::Gateway,
                (false, false) if balances || anybody_samples => Tier::Agent,
                (false, false) => Tier::Gateway,
            };
        }
    }

    /// A component by its section and ID.
    pub(super) fn component(&self, section: &str, id: &str) -> Option<Entry<'a>> {
        self.entry.field(section)?.field(id)
    }

    /// Pipelines of a tier.
    pub(super) fn of(&self, tier: Tier) -> impl Iterator<Item = &Pipeline> {
        self.pipelines.iter().filter(move |pipeline| pipeline.tier == tier)
    }

    /// The IDs of a kind that pipelines of a tier use, each once, in order.
    pub(super) fn used(
        &self,
        tier: Tier,
        list: fn(&Pipeline) -> &[(String, Place)],
    ) -> Vec<(String, Place)> {
        let mut seen = BTreeSet::new();
        let all = self.of(tier).flat_map(|pipeline| list(pipeline).iter().cloned());
        all.filter(|(id, _)| seen.insert(id.clone())).collect()
    }

    /// Says which components are defined and used by no pipeline.
    pub(super) fn report_unused(&self, report: &mut Report) {
        let uses = |section: &str, id: &str| {
            self.pipelines.iter().any(|pipeline| {
                let lists: [&[(String, Place)]; 2] = match section {
                    "receivers" => [&pipeline.receivers, &[]],
                    "processors" => [&pipeline.processors, &[]],
                    "exporters" => [&pipeline.exporters, &[]],
                    _ => [&pipeline.receivers, &pipeline.exporters],
                };
                lists.iter().any(|list| list.iter().any(|(used, _)| used == id))
            })
        };
        for section in ["receivers", "processors", "exporters", "connectors"] {
            let Some(entry) = self.entry.field(section) else { continue };
            for (id, component) in entry.fields() {
                if !uses(section, id) {
                    report.built_in(&component.place, "no pipeline uses it; it is left out");
                }
            }
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    fn samples(&self) -> bool {
        self.processors.iter().any(|(id, _)| type_of(id) == "tail_sampling")
    }

    pub(super) fn balances(&self) -> bool {
        self.exporters.iter().any(|(id, _)| type_of(id) == "loadbalancing")
    }
}
