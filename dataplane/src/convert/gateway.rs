//! The gateways' part: memory, sampling, span metrics, exporters.

use super::bounded;
use super::conversion::Conversion;
use super::exporters::{Backend, Token};
use super::pipelines::{Config, Pipeline, Tier, type_of};
use super::policies::Policies;
use super::source::{Entry, Fields, Reader};
use super::tree::Tree;

/// The bounds of maxTraceBytes.
const TRACE_BYTES_MIN: u64 = 64 << 10;
const TRACE_BYTES_MAX: u64 = 12 << 20;
/// What the name of an exporter may be long.
const NAME_BYTES_MAX: usize = 63;

impl Conversion<'_> {
    /// The gateways' part of a configuration.
    pub(super) fn gateway(&mut self, config: &Config<'_>) {
        for (id, place) in config.used(Tier::Gateway, |pipeline| &pipeline.receivers) {
            match (type_of(&id), config.component("receivers", &id)) {
                ("otlp", Some(entry)) => self.receiver(&entry, Tier::Gateway),
                (_, None) if config.component("connectors", &id).is_some() => {}
                (_, None) => self.missing("receiver", &id, &place),
                (_, Some(entry)) => self.report.lost(&entry.place, "Ringtail takes OTLP only"),
            }
        }
        for (id, place) in config.used(Tier::Gateway, |pipeline| &pipeline.processors) {
            match config.component("processors", &id) {
                Some(entry) => self.gateway_processor(type_of(&id), &entry),
                None => self.missing("processor", &id, &place),
            }
        }
        for pipeline in config.of(Tier::Gateway) {
            self.gateway_exporters(config, pipeline);
        }
    }

    fn gateway_processor(&mut self, type_: &str, entry: &Entry<'_>) {
        match type_ {
            "memory_limiter" => self.memory_limiter("gateway", entry),
            "tail_sampling" => self.sampling(entry),
            "batch" => {
                let why = "what is kept within a moment goes out together";
                self.report.built_in(&entry.place, why);
            }
            "redaction" => self.redaction(entry),
            "attributes" => self.kept_attributes(entry, "actions"),
            "resource" => self.kept_attributes(entry, "attributes"),
            "groupbytrace" => {
                self.report.built_in(&entry.place, "traces are gathered before they are decided");
            }
            "spanmetrics" => {
                let why = "is a connector, and no processor for some years: it is converted as one";
                self.report.differs(&entry.place, why);
                self.span_metrics(entry);
            }
            other => {
                let why = format!("gateways have no processor {other}");
                self.report.lost(&entry.place, why);
            }
        }
    }

    fn sampling(&mut self, entry: &Entry<'_>) {
        if self.sampled {
            self.report.lost(&entry.place, "a pipeline has one set of policies: the first is used");
            return;
        }
        self.sampled = true;
        let mut fields = Fields::of(entry, &mut self.report);
        let policies = fields.take("policies");
        let (wait, root) =
            (fields.take("decision_wait"), fields.take("decision_wait_after_root_received"));
        let bytes = fields.take("maximum_trace_size_bytes");
        self.built_in_sampling(&mut fields);
        fields.finish(&mut self.report);
        self.waits(entry, wait.as_ref(), root.as_ref());
        if let Some(bytes) = bytes {
            self.trace_bytes(&bytes);
        }
        let Some(policies) = policies else { return };
        let mut reader = Reader { report: &mut self.report, environment: self.environment };
        self.policies = Policies::read(&mut reader, &policies);
    }

    fn waits(&mut self, entry: &Entry<'_>, wait: Option<&Entry<'_>>, root: Option<&Entry<'_>>) {
        // The default of both.
        let mut tree = Tree::text("30s");
        if let Some(wait) = wait {
            tree = bounded(&mut self.reader(), wait, 1_000, 3_600_000).unwrap_or(tree);
        }
        let place = wait.map_or(&entry.place, |wait| &wait.place);
        self.draft.set(&mut self.report, "sampling.decisionWait", tree, place);
        let Some(root) = root else { return };
        let micros = self.reader().micros(root).unwrap_or_default();
        let all = wait.and_then(|wait| self.reader().micros(wait)).unwrap_or(30_000_000);
        if micros == 0 {
            return;
        }
        if micros >= all {
            let why = "is not shorter than decision_wait and has no effect; it is left out";
            self.report.differs(&root.place, why);
            return;
        }
        if let Some(tree) = bounded(&mut self.reader(), root, 500, 3_600_000) {
            let path = "sampling.decisionWaitAfterRootReceived";
            self.draft.set(&mut self.report, path, tree, &root.place);
        }
    }

    fn trace_bytes(&mut self, entry: &Entry<'_>) {
        let bytes = self.reader().number(entry).unwrap_or_default().unsigned_abs();
        if bytes == 0 {
            return;
        }
        let why =
            "a trace that reaches it is decided at once, on what is there; the Collector drops it";
        self.report.differs(&entry.place, why);
        let within = bytes.clamp(TRACE_BYTES_MIN, TRACE_BYTES_MAX);
        if within != bytes {
            self.report.differs(&entry.place, "it is from 64Ki to 12Mi");
        }
        let tree = Tree::Text(super::size(within));
        self.draft.set(&mut self.report, "sampling.maxTraceBytes", tree, &entry.place);
    }

    fn built_in_sampling(&mut self, fields: &mut Fields<'_>) {
        const BUILT_IN: [(&str, &str); 8] = [
            (
                "num_traces",
                "the buffer is bounded in bytes, by the memory limit, and not in traces",
            ),
            ("expected_new_traces_per_sec", "nothing is allocated ahead for a rate"),
            (
                "block_on_overflow",
                "a gateway without room decides early, then refuses with a wait to try again",
            ),
            (
                "decision_cache",
                "decisions are remembered for kept and dropped traces, always, within the memory limit",
            ),
            (
                "sample_on_first_match",
                "a policy that needs a budget is asked only when nothing else keeps the trace",
            ),
            (
                "drop_pending_traces_on_shutdown",
                "a gateway that stops hands its traces over to the others",
            ),
            (
                "num_shards",
                "a gateway has a shard a processor, and budgets are not divided among them",
            ),
            ("sampling_strategy", "whole traces are decided"),
        ];
        for (name, why) in BUILT_IN {
            fields.built_in(name, &mut self.report, why);
        }
        fields.lost("tail_storage", &mut self.report, "undecided traces are kept in memory");
    }

    /// What a connector is used for.
    pub(super) fn connector(&mut self, config: &Config<'_>, id: &str, tier: Tier) {
        let Some(entry) = config.component("connectors", id) else { return };
        match (type_of(id), tier) {
            ("spanmetrics", Tier::Agent) => {
                let why = "span metrics are counted at the gateways, once for each span";
                self.report.differs(&entry.place, why);
                self.span_metrics(&entry);
            }
            ("spanmetrics", _) => self.span_metrics(&entry),
            ("forward", _) => self.report.built_in(&entry.place, "one pipeline is all there is"),
            (other, _) => {
                self.report.lost(&entry.place, format!("Ringtail has no connector {other}"));
            }
        }
    }

    fn gateway_exporters(&mut self, config: &Config<'_>, pipeline: &Pipeline) {
        for (id, place) in &pipeline.exporters {
            if config.component("connectors", id).is_some() {
                self.connector(config, id, Tier::Gateway);
                continue;
            }
            let Some(entry) = config.component("exporters", id) else {
                self.missing("exporter", id, place);
                continue;
            };
            if self.exported.contains_key(id) {
                continue;
            }
            let samples = pipeline.processors.iter().any(|(id, _)| type_of(id) == "tail_sampling");
            if !samples && config.of(Tier::Gateway).count() > 1 {
                let why = "gets all spans there, and only those of kept traces here";
                self.report.differs(place, why);
            }
            self.exporter_of(config, id, &entry);
        }
    }

    /// Where the exporter with this ID is in the manifest, if something is like it.
    pub(super) fn exporter_of(
        &mut self,
        config: &Config<'_>,
        id: &str,
        entry: &Entry<'_>,
    ) -> Option<usize> {
        if let Some(known) = self.exported.get(id) {
            return *known;
        }
        let before = self.exporters.len();
        self.exporter(config, id, entry);
        let place = (self.exporters.len() > before).then_some(before);
        self.exported.insert(id.to_owned(), place);
        place
    }

    fn exporter(&mut self, config: &Config<'_>, id: &str, entry: &Entry<'_>) {
        let name = self.exporter_name(id);
        let token = self.token(config, entry);
        let mut backend = Backend {
            reader: &mut Reader { report: &mut self.report, environment: self.environment },
            secrets: self.secrets,
            name,
        };
        if let Some(tree) = backend.convert(type_of(id), entry, token) {
            let path = format!("spec.exporters[{}]", self.exporters.len());
            self.draft.note_origin(path, &entry.place);
            self.exporters.push(tree);
        }
    }

    /// What an authenticator sends, as it is written.
    fn token(&mut self, config: &Config<'_>, entry: &Entry<'_>) -> Option<Token> {
        let auth = entry.field("auth")?.field("authenticator")?;
        let id = self.reader().text(&auth)?;
        let extension = config.component("extensions", &id);
        let token = extension.as_ref().and_then(|extension| extension.field("token"));
        match (type_of(&id), token.and_then(|token| token.raw())) {
            ("bearertokenauth", Some(token)) => {
                let scheme = extension.and_then(|extension| extension.field("scheme")?.raw());
                let scheme = scheme.unwrap_or_else(|| "Bearer".to_owned());
                Some(Token { scheme, raw: token, place: auth.place })
            }
            _ => {
                let why =
                    format!("put what {id} sends into the headers of the exporter, from a Secret");
                self.report.yours_to_do(&auth.place, why);
                None
            }
        }
    }

    fn exporter_name(&self, id: &str) -> String {
        let own = id.split_once('/').map_or(id, |(_, name)| name);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let lower = own.to_ascii_lowercase();
        let text: String = lower.chars().map(|c| if plain(c) { c } else { '-' }).collect();
        let text = text.trim_matches('-');
        let text = &text[..text.len().min(NAME_BYTES_MAX - 3)];
        let base = if text.is_empty() { "backend" } else { text }.to_owned();
        let named = |name: &str| {
            self.exporters.iter().any(|exporter| match exporter {
                Tree::Map(fields) => fields.iter().any(|(_, value)| *value == Tree::text(name)),
                _ => false,
            })
        };
        let mut name = base.clone();
        let mut number = 2;
        while named(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        name
    }
}
