//! A conversion on its way: what was read so far, and the manifest that comes of it.

use std::collections::BTreeMap;

use super::environment::Environment;
use super::metrics::Push;
use super::pipelines::{Config, Tier};
use super::policies::Written;
use super::redaction::Redacted;
use super::report::{Place, Report};
use super::source::Reader;
use super::tree::{Draft, Tree};
use super::{Gateways, Secrets};

/// Policies in a manifest, and the attempts to find those that cannot be: each attempt leaves one out.
const ATTEMPTS_MAX: usize = 65;

/// What was read so far.
#[derive(Debug)]
pub(super) struct Conversion<'a> {
    pub(super) environment: &'a Environment,
    pub(super) secrets: &'a Secrets,
    pub(super) gateways: Gateways,
    pub(super) report: Report,
    pub(super) draft: Draft,
    pub(super) policies: Vec<Written>,
    pub(super) exporters: Vec<Tree>,
    /// The IDs of exporters that were looked at, and where they are in `exporters`.
    pub(super) exported: BTreeMap<String, Option<usize>>,
    /// Conditions of filters and actions on attributes, of all processors together.
    pub(super) filters: Vec<String>,
    pub(super) actions: Vec<Tree>,
    pub(super) redacted: Redacted,
    /// Whether a tail_sampling processor was read, and a spanmetrics connector.
    pub(super) sampled: bool,
    /// The first configuration as a whole.
    whole: Option<Place>,
    pub(super) measured: bool,
    pub(super) push: Push,
}

// === impl Conversion ===

impl<'a> Conversion<'a> {
    pub(super) fn new(
        environment: &'a Environment,
        secrets: &'a Secrets,
        gateways: Gateways,
    ) -> Self {
        Self {
            environment,
            secrets,
            gateways,
            report: Report::default(),
            draft: Draft::default(),
            policies: Vec::new(),
            exporters: Vec::new(),
            exported: BTreeMap::new(),
            filters: Vec::new(),
            actions: Vec::new(),
            redacted: Redacted::default(),
            sampled: false,
            whole: None,
            measured: false,
            push: Push::default(),
        }
    }

    /// Reads options of the configuration.
    pub(super) fn reader(&mut self) -> Reader<'_> {
        Reader { report: &mut self.report, environment: self.environment }
    }

    /// Reads all configurations.
    pub(super) fn read(&mut self, configs: &[Config<'_>]) {
        for config in configs {
            self.agent(config);
            self.gateway(config);
            self.others(config);
            config.report_unused(&mut self.report);
        }
        self.logs(configs);
        let Some(place) = configs.first().map(|config| config.entry.place.clone()) else { return };
        self.whole = Some(place.clone());
        let has = |tier| configs.iter().any(|config| config.of(tier).next().is_some());
        if !has(Tier::Gateway) && has(Tier::Agent) {
            let why = "is the agents' part: give the gateways' configuration too, which has the policies and \
                       the backends";
            self.report.error(&place, why);
        }
        if !has(Tier::Agent) && has(Tier::Gateway) {
            let why = "no configuration of agents was given: Ringtail's have their defaults";
            self.report.differs(&place, why);
        }
        if self.gateways == Gateways::External {
            self.draft.set(&mut self.report, "gateway.type", Tree::text("External"), &place);
        }
        self.fit_batch();
        if self.exporters.is_empty() && self.report.errors().is_empty() {
            self.report.error(&place, "no exporter can be converted; the report says why");
        }
    }

    // A span that waits as long as its trace would come after the decision.
    fn fit_batch(&mut self) {
        let (Some(batch), Some(wait)) =
            (self.draft.text("agent.batch.timeout"), self.draft.text("sampling.decisionWait"))
        else {
            return;
        };
        let read = |text: &str| ringtail_crds::parse_duration(text).unwrap_or_default();
        let half = read(&wait) / 2;
        if read(&batch) < read(&wait) {
            return;
        }
        let shown = super::duration(u64::try_from(half.as_micros()).unwrap_or(u64::MAX));
        if let Some(place) = self.draft.origin("spec.agent.batch.timeout").cloned() {
            let why = format!(
                "is as long as decision_wait, so that spans would come too late: {shown} is used"
            );
            self.report.differs(&place, why);
            let path = "agent.batch.timeout";
            self.draft.set(&mut self.report, path, Tree::Text(shown), &place);
        }
    }

    /// The manifest's text. Policies that the engine refuses are left out, and told.
    pub(super) fn write(&mut self, name: &str) -> Option<String> {
        for _ in 0..ATTEMPTS_MAX {
            if self.policies.is_empty() {
                self.keep_everything();
            }
            let policies: Vec<_> = self.policies.iter().map(|policy| policy.tree.clone()).collect();
            let manifest = self.draft.manifest(name, &policies, &self.exporters);
            let text = match serde_saphyr::to_string(&manifest) {
                Ok(text) => text,
                Err(error) => {
                    self.report.error(&nowhere(), format!("cannot be written: {error}"));
                    return None;
                }
            };
            let problems = match ringtail_crds::validate(&text) {
                Ok(_) => return Some(text),
                Err(problems) => problems,
            };
            let wrong = problems.iter().find_map(|problem| {
                Some((policy_of(&problem.path)?, format!("{}: {}", problem.path, problem.message)))
            });
            match wrong {
                Some((index, told)) if index < self.policies.len() => self.leave_out(index, &told),
                _ => {
                    self.blame(&problems);
                    return None;
                }
            }
        }
        None
    }

    // Without a tail_sampling processor, or a policy in it that Ringtail has.
    fn keep_everything(&mut self) {
        let place =
            self.draft.origin("spec.sampling.decisionWait").or(self.whole.as_ref()).cloned();
        let place = place.unwrap_or_else(nowhere);
        let why = match self.sampled {
            true => {
                "no policy is left: a manifest needs one, and keeps everything until you write it"
            }
            false => "nothing is sampled there: the policy `everything` keeps every trace",
        };
        self.report.differs(&place, why);
        let tree =
            Tree::map([("name", Tree::text("everything")), ("type", Tree::text("AlwaysSample"))]);
        let name = "everything".to_owned();
        self.policies.push(Written { name, place, tree, names: Vec::new() });
    }

    fn leave_out(&mut self, index: usize, told: &str) {
        let policy = self.policies.remove(index);
        let why = format!("the policy {} is left out: {told}", policy.name);
        self.report.lost(&policy.place, why);
        let mut gone = vec![policy.name];
        while let Some(name) = gone.pop() {
            let (naming, rest): (Vec<_>, Vec<_>) =
                self.policies.drain(..).partition(|policy| policy.names.contains(&name));
            self.policies = rest;
            for policy in naming {
                let why = format!("the policy {} is left out, since it needs {name}", policy.name);
                self.report.lost(&policy.place, why);
                gone.push(policy.name);
            }
        }
    }

    fn blame(&mut self, problems: &[ringtail_crds::Problem]) {
        for problem in problems {
            let place = self.draft.origin(&problem.path).cloned().unwrap_or_else(nowhere);
            let why = format!("would become {}, which {}", problem.path, problem.message);
            self.report.error(&place, why);
        }
    }
}

fn nowhere() -> Place {
    Place { order: 0, line: 0, file: "the configuration".to_owned(), path: String::new() }
}

/// The index in a path such as `spec.sampling.policies[3].latency`.
fn policy_of(path: &str) -> Option<usize> {
    path.strip_prefix("spec.sampling.policies[")?.split(']').next()?.parse().ok()
}
