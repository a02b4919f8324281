//! The agents' part: receivers, memory, batches, detection, filters, attributes, the way to the gateways.

use ringtail_crds::schema;

use super::bounded;
use super::conversion::Conversion;
use super::pipelines::{Config, Pipeline, Tier, type_of};
use super::report::Place;
use super::source::{Entry, Fields};
use super::tree::Tree;

/// What Ringtail listens on itself.
const OWN_PORTS: [i64; 2] = [4_319, 8_888];
/// Lower ports need a capability that pods do not have.
const PORT_MIN: i64 = 1_024;
const PORT_MAX: i64 = 65_535;
/// The most spans of a batch in the schema.
const BATCH_SPANS_MAX: i64 = 100_000;
/// A Collector's default for both tiers of OTLP.
const GRPC_PORT: i64 = 4_317;
const HTTP_PORT: i64 = 4_318;

impl Conversion<'_> {
    /// The agents' part of a configuration.
    pub(super) fn agent(&mut self, config: &Config<'_>) {
        for (id, place) in config.used(Tier::Agent, |pipeline| &pipeline.receivers) {
            match (type_of(&id), config.component("receivers", &id)) {
                ("otlp", Some(entry)) => self.receiver(&entry, Tier::Agent),
                (_, None) if config.component("connectors", &id).is_some() => {}
                (_, None) => self.missing("receiver", &id, &place),
                (_, Some(entry)) => {
                    self.report.lost(&entry.place, "Ringtail takes OTLP only");
                }
            }
        }
        for (id, place) in config.used(Tier::Agent, |pipeline| &pipeline.processors) {
            match config.component("processors", &id) {
                Some(entry) => self.agent_processor(type_of(&id), &entry),
                None => self.missing("processor", &id, &place),
            }
        }
        for pipeline in config.of(Tier::Agent) {
            self.agent_exporters(config, pipeline);
        }
    }

    /// A component that is used and not there.
    pub(super) fn missing(&mut self, kind: &str, id: &str, place: &Place) {
        self.report.error(place, format!("there is no {kind} {id}"));
    }

    /// An OTLP receiver: its ports are all that can be chosen.
    pub(super) fn receiver(&mut self, entry: &Entry<'_>, tier: Tier) {
        let mut fields = Fields::of(entry, &mut self.report);
        let protocols = fields.take("protocols");
        fields.finish(&mut self.report);
        let Some(protocols) = protocols else { return };
        let mut protocols = Fields::of(&protocols, &mut self.report);
        let mut ports = Vec::new();
        for (name, default) in [("grpc", GRPC_PORT), ("http", HTTP_PORT)] {
            let Some(protocol) = protocols.take_bare(name) else {
                let why =
                    format!("{name} is off there; Ringtail takes OTLP over gRPC and over HTTP");
                self.report.differs(&protocols.place, why);
                continue;
            };
            let mut fields = Fields::of(&protocol, &mut self.report);
            if let Some(endpoint) = fields.take("endpoint") {
                ports.extend(self.port(&endpoint, name, default, tier));
            }
            if let Some(tls) = fields.take("tls") {
                self.receiver_tls(&tls);
            }
            fields.built_in(
                "max_recv_msg_size_mib",
                &mut self.report,
                "a request has at most 16 MiB, and all requests together a share of the memory limit",
            );
            fields.built_in(
                "include_metadata",
                &mut self.report,
                "headers of clients are not used",
            );
            fields.built_in(
                "keepalive",
                &mut self.report,
                "idle connections are closed without settings",
            );
            fields.finish(&mut self.report);
        }
        protocols.finish(&mut self.report);
        // One port for both is a mistake of the schema; the Collector would not start either.
        for (name, port, place) in ports {
            let path = format!("agent.receivers.otlp.{name}.port");
            self.draft.set(&mut self.report, &path, Tree::Number(port), &place);
        }
    }

    fn receiver_tls(&mut self, entry: &Entry<'_>) {
        if schema::knows("spec.agent.receivers.otlp.tls") {
            let why = "put the files into a Secret and name it in agent.receivers.otlp.tls.certificateRef";
            self.report.yours_to_do(&entry.place, why);
        } else {
            let why = "this version of Ringtail has no spec.agent.receivers.otlp.tls";
            self.report.lost(&entry.place, why);
        }
    }

    fn port(
        &mut self,
        endpoint: &Entry<'_>,
        name: &'static str,
        default: i64,
        tier: Tier,
    ) -> Option<(&'static str, i64, Place)> {
        // Only the port is of interest, so the host may be a variable.
        let text = self.environment.expand_loosely(&endpoint.raw()?);
        let port = text.rsplit(':').next().and_then(|port| port.parse::<i64>().ok());
        let place = endpoint.place.clone();
        let Some(port) = port else {
            self.report.differs(&place, "has no port that can be read: the usual one is used");
            return None;
        };
        if tier == Tier::Gateway {
            if port != default {
                let why = format!("gateways listen on {default}, which only agents need to know");
                self.report.differs(&place, why);
            }
            return None;
        }
        if !(PORT_MIN..=PORT_MAX).contains(&port) || OWN_PORTS.contains(&port) {
            let why = format!("the port {port} is not free for Ringtail: {default} is used");
            self.report.differs(&place, why);
            return None;
        }
        (port != default).then_some((name, port, place))
    }

    fn agent_processor(&mut self, type_: &str, entry: &Entry<'_>) {
        match type_ {
            "memory_limiter" => self.memory_limiter("agent", entry),
            "batch" => self.batch(entry),
            "resourcedetection" => self.detection(entry),
            "filter" => self.filter(entry),
            "attributes" => self.attributes(entry, "Span"),
            "resource" => self.attributes(entry, "Resource"),
            "tail_sampling" => {
                let why = "an agent sees parts of traces only: sampling belongs to the gateways";
                self.report.lost(&entry.place, why);
            }
            "probabilistic_sampler" => {
                let why = "agents sample nothing; a Probabilistic policy at the gateways does";
                self.report.lost(&entry.place, why);
            }
            other => {
                let why = format!("agents have no processor {other}");
                self.report.lost(&entry.place, why);
            }
        }
    }

    /// The limit of a Collector becomes that of its container: three quarters of it are shared out.
    pub(super) fn memory_limiter(&mut self, tier: &str, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let limit = fields.take("limit_mib");
        for name in ["check_interval", "spike_limit_mib", "spike_limit_percentage"] {
            let why = "memory is reserved before it is used, so nothing is checked now and then";
            fields.built_in(name, &mut self.report, why);
        }
        let why = "three quarters of the container's memory limit are used, which it reads itself";
        fields.built_in("limit_percentage", &mut self.report, why);
        fields.built_in(
            "min_gc_interval_when_hard_limited",
            &mut self.report,
            "nothing is collected",
        );
        fields.built_in(
            "min_gc_interval_when_soft_limited",
            &mut self.report,
            "nothing is collected",
        );
        fields.finish(&mut self.report);
        let Some(limit) = limit else { return };
        let mib = self.reader().number(&limit).unwrap_or_default();
        if mib < 1 {
            self.report.error(&limit.place, "must be more than 0");
            return;
        }
        let container = mib.unsigned_abs().saturating_mul(4).div_ceil(3);
        let quantity = super::size(container.saturating_mul(1 << 20));
        let why = format!(
            "the container gets {quantity}, of which Ringtail uses three quarters; requests and CPU are \
             yours to choose"
        );
        self.report.differs(&limit.place, why);
        let path = format!("{tier}.resources");
        let memory = Tree::map([("memory", Tree::Text(quantity))]);
        let tree = Tree::map([("limits", memory)]);
        // Fields of Kubernetes' own types are not in the paths of the schema.
        self.draft.set(&mut self.report, &path, tree, &limit.place);
    }

    fn batch(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let (timeout, size) = (fields.take("timeout"), fields.take("send_batch_size"));
        let why = "a batch is never above agent.batch.maxBytes";
        fields.built_in("send_batch_max_size", &mut self.report, why);
        for name in ["metadata_keys", "metadata_cardinality_limit"] {
            fields.lost(name, &mut self.report, "spans of all clients share batches");
        }
        fields.finish(&mut self.report);
        if let Some(timeout) = timeout {
            let tree = bounded(&mut self.reader(), &timeout, 1, 10_000);
            if let Some(tree) = tree {
                self.draft.set(&mut self.report, "agent.batch.timeout", tree, &timeout.place);
                let why =
                    "every span waits that long before it is sent; 200ms is Ringtail's own choice";
                self.report.differs(&timeout.place, why);
            }
        }
        if let Some(size) = size {
            let spans = self.reader().number(&size).unwrap_or_default();
            if spans > 0 {
                let tree = Tree::Number(spans.min(BATCH_SPANS_MAX));
                self.draft.set(&mut self.report, "agent.batch.maxSpans", tree, &size.place);
            }
        }
    }

    fn detection(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let detectors = fields.take("detectors");
        let overrides = fields.take("override");
        let why = "what is detected is the same for the life of a process";
        fields.built_in("timeout", &mut self.report, why);
        fields.finish(&mut self.report);
        let truth = overrides.as_ref().map(|entry| self.reader().truth(entry).unwrap_or(true));
        if truth != Some(false) {
            let place = overrides.map_or_else(|| entry.place.clone(), |entry| entry.place);
            self.report
                .differs(&place, "what a resource says itself stays, as with override: false");
        }
        let mut names: Vec<String> = Vec::new();
        let detectors = detectors.map(|list| list.words()).unwrap_or_default();
        for (detector, place) in &detectors {
            let name = match detector.as_str() {
                "env" => "Environment",
                "system" => "Host",
                "k8snode" | "kubernetes" | "k8s_api" => "Kubernetes",
                other => {
                    self.report.lost(place, format!("there is no detector {other}"));
                    continue;
                }
            };
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        if !names.is_empty() {
            let tree = Tree::texts(names);
            self.draft.set(&mut self.report, "agent.resourceDetection", tree, &entry.place);
        }
    }

    /// Conditions of filter processors; those of several are one list.
    fn filter(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let mode = fields.take("error_mode").and_then(|mode| self.reader().text(&mode));
        if mode.as_deref().unwrap_or("propagate") == "propagate" {
            let why = "a condition that cannot be answered does not hold; there the whole batch is refused";
            self.report.differs(&entry.place, why);
        }
        let traces = fields.take("traces");
        let conditions = fields.take("trace_conditions");
        for name in ["metrics", "logs", "metric_conditions", "log_conditions", "profiles"] {
            fields.lost(name, &mut self.report, "only spans are filtered");
        }
        let why = "write it as a condition under traces.span";
        for name in ["spans", "spanevents"] {
            fields.lost(name, &mut self.report, why);
        }
        fields.finish(&mut self.report);
        let mut place = conditions.as_ref().map(|entry| entry.place.clone());
        let mut list = conditions.map(|entry| self.reader().texts(&entry)).unwrap_or_default();
        if let Some(traces) = traces {
            let mut fields = Fields::of(&traces, &mut self.report);
            if let Some(span) = fields.take("span") {
                list.extend(self.reader().texts(&span));
                place = Some(span.place);
            }
            fields.lost(
                "spanevent",
                &mut self.report,
                "events of spans are not dropped by themselves",
            );
            fields.lost("resource", &mut self.report, "write it as a condition on spans");
            fields.finish(&mut self.report);
        }
        if let Some(place) = place.filter(|_| !list.is_empty()) {
            self.filters.extend(list);
            let tree = Tree::texts(self.filters.clone());
            self.draft.set(&mut self.report, "agent.filter", tree, &place);
        }
    }

    /// Actions of attributes and resource processors, in order.
    fn attributes(&mut self, entry: &Entry<'_>, target: &'static str) {
        let mut fields = Fields::of(entry, &mut self.report);
        let list = if target == "Span" { "actions" } else { "attributes" };
        let actions = fields.take(list);
        for name in ["include", "exclude"] {
            fields.lost(name, &mut self.report, "actions apply to all spans");
        }
        fields.finish(&mut self.report);
        for action in actions.iter().flat_map(Entry::items) {
            if let Some(tree) = self.action(&action, target) {
                self.actions.push(tree);
                let list = Tree::List(self.actions.clone());
                self.draft.set(&mut self.report, "agent.attributes", list, &action.place);
            }
        }
    }

    fn action(&mut self, entry: &Entry<'_>, target: &str) -> Option<Tree> {
        let mut fields = Fields::of(entry, &mut self.report);
        let key = fields.take("key").and_then(|key| self.reader().text(&key));
        let action = fields.take("action").and_then(|action| self.reader().text(&action))?;
        let name = match action.as_str() {
            "insert" => "Insert",
            "update" => "Update",
            "upsert" => "Upsert",
            "delete" => "Delete",
            "hash" => "Hash",
            other => {
                let why = format!("agents have no action {other} on attributes");
                self.report.lost(&entry.place, why);
                return None;
            }
        };
        let value = fields.take("value");
        let type_ = value.as_ref().and_then(type_of_value);
        let value = value.and_then(|value| self.reader().text(&value));
        let fetched = matches!(name, "Insert" | "Update" | "Upsert") && value.is_none();
        fields.take("converted_type");
        let odd = ["from_attribute", "from_context", "pattern"];
        let found = odd.iter().find_map(|name| fields.take(name).map(|entry| (name, entry)));
        fields.finish(&mut self.report);
        if let Some((option, place)) = found.map(|(name, entry)| (name, entry.place)) {
            self.report.lost(&place, format!("actions of agents have no {option}"));
            return None;
        }
        let (Some(key), false) = (key, fetched) else {
            self.report.error(&entry.place, "needs a key and a value");
            return None;
        };
        let tree = Tree::map([("action", Tree::text(name)), ("key", Tree::Text(key))]);
        let tree = tree.with_some("value", value.map(Tree::Text));
        let tree = tree.with_some("valueType", type_.map(Tree::text));
        let takes = schema::takes("spec.agent.attributes[].context", target);
        Some(tree.with_some("context", takes.then(|| Tree::text(target))))
    }

    fn agent_exporters(&mut self, config: &Config<'_>, pipeline: &Pipeline) {
        for (id, place) in &pipeline.exporters {
            let entry = config.component("exporters", id);
            match (type_of(id), entry) {
                ("loadbalancing", Some(entry)) => self.balancing(&entry),
                (_, None) if config.component("connectors", id).is_some() => {
                    self.connector(config, id, Tier::Agent);
                }
                (_, None) => self.missing("exporter", id, place),
                ("otlp" | "otlp_grpc" | "otlphttp" | "otlp_http", Some(entry)) => {
                    let why = "agents send to the pipeline's gateways, which they find themselves";
                    self.report.built_in(&entry.place, why);
                }
                (_, Some(entry)) => {
                    self.report.lost(&entry.place, "agents send to gateways only");
                }
            }
        }
    }
}

/// What a value is, where it is no text.
fn type_of_value(entry: &Entry<'_>) -> Option<&'static str> {
    match entry.node.scalar()? {
        serde_json::Value::Bool(_) => Some("Bool"),
        serde_json::Value::Number(number) if number.is_f64() => Some("Double"),
        serde_json::Value::Number(_) => Some("Int"),
        _ => None,
    }
}
