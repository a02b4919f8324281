//! The loadbalancing exporter: how agents find gateways, and the hop to them.

use ringtail_crds::schema;

use super::conversion::Conversion;
use super::source::{Entry, Fields};
use super::tree::Tree;
use super::{Gateways, bounded};

/// Where gateways listen when nothing else is said.
const GRPC_PORT: i64 = 4_317;

impl Conversion<'_> {
    /// A loadbalancing exporter of the agents.
    pub(super) fn balancing(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let key = fields.take("routing_key");
        let resolver = fields.take("resolver");
        let protocol = fields.take("protocol");
        if let Some(attributes) = fields.take("routing_attributes") {
            let why = "Ringtail routes by trace or by service";
            self.report.lost(&attributes.place, why);
        }
        for name in ["timeout", "retry_on_failure", "sending_queue"] {
            let why = "what a gateway does not take is kept within the memory limit, tried again, and goes \
                       to the next one when it is gone";
            fields.built_in(name, &mut self.report, why);
        }
        fields.finish(&mut self.report);
        if let Some(key) = key {
            self.routing_key(&key);
        }
        if let Some(resolver) = resolver {
            self.resolver(&resolver);
        }
        if let Some(otlp) = protocol.and_then(|protocol| protocol.field("otlp")) {
            self.hop(&otlp);
        }
    }

    fn routing_key(&mut self, key: &Entry<'_>) {
        match self.reader().text(key).as_deref() {
            Some("traceID" | "trace_id") | None => {}
            Some("service") => {
                let tree = Tree::text("Service");
                self.draft.set(&mut self.report, "routing.key", tree, &key.place);
                let why =
                    "gateways then see only parts of traces, so that tail sampling is partial";
                self.report.differs(&key.place, why);
            }
            Some(other) => {
                let why = format!("traces are not routed by {other}: the trace ID is the key");
                self.report.lost(&key.place, why);
            }
        }
    }

    fn resolver(&mut self, entry: &Entry<'_>) {
        if self.gateways == Gateways::Managed {
            let why = "the operator makes the Services of the gateways, and agents watch them; --gateways \
                       external keeps gateways that run already";
            self.report.built_in(&entry.place, why);
            return;
        }
        for (name, settings) in entry.fields() {
            match name {
                "static" => self.fixed(&settings),
                "dns" => self.dns(&settings),
                other => {
                    let why = format!(
                        "external gateways are found by a list or by DNS, not by {other}: name their \
                         headless Service under routing.resolver.dns.hostname"
                    );
                    self.report.error(&settings.place, why);
                }
            }
        }
    }

    fn fixed(&mut self, entry: &Entry<'_>) {
        let names = entry.field("hostnames").map(|names| self.reader().texts(&names));
        let port = |name: String| match name.contains(':') {
            true => name,
            false => format!("{name}:{GRPC_PORT}"),
        };
        let endpoints = Tree::texts(names.unwrap_or_default().into_iter().map(port));
        let place = &entry.place;
        self.draft.set(&mut self.report, "routing.resolver.type", Tree::text("Static"), place);
        self.draft.set(&mut self.report, "routing.resolver.static.endpoints", endpoints, place);
    }

    fn dns(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let hostname = fields.take("hostname").and_then(|name| self.reader().text(&name));
        let port = fields.take("port").and_then(|port| self.reader().number(&port));
        let (interval, timeout) = (fields.take("interval"), fields.take("timeout"));
        fields.finish(&mut self.report);
        let Some(hostname) = hostname else {
            self.report.error(&entry.place, "needs a hostname");
            return;
        };
        if !schema::takes("spec.routing.resolver.type", "DNS") {
            let why = "this version of Ringtail finds external gateways by a list: name them under static";
            self.report.error(&entry.place, why);
            return;
        }
        let interval =
            interval.and_then(|entry| bounded(&mut self.reader(), &entry, 1_000, 3_600_000));
        let timeout = timeout.and_then(|entry| bounded(&mut self.reader(), &entry, 100, 60_000));
        let dns = Tree::map([("hostname", Tree::Text(hostname))])
            .with_some("port", port.map(Tree::Number))
            .with_some("interval", interval)
            .with_some("timeout", timeout);
        let place = &entry.place;
        self.draft.set(&mut self.report, "routing.resolver.type", Tree::text("DNS"), place);
        self.draft.set(&mut self.report, "routing.resolver.dns", dns, place);
    }

    /// Encryption between the tiers. Without a word of it a Collector encrypts.
    fn hop_tls(&mut self, hop: &Entry<'_>, tls: Option<&Entry<'_>>) {
        let plain = tls.and_then(|tls| tls.field("insecure"));
        let plain = plain.and_then(|plain| self.reader().truth(&plain)).unwrap_or_default();
        let place = &tls.unwrap_or(hop).place;
        match (self.gateways, plain) {
            // Nothing is written there.
            (Gateways::Managed, _) if tls.is_none() => {}
            (Gateways::Managed, _) => {
                let why = "a certificate for each tier, which the operator makes and renews \
                           (spec.security.peerTLS)";
                self.report.built_in(place, why);
            }
            (Gateways::External, true) => {
                self.report.built_in(place, "agents speak to external gateways in the clear");
            }
            (Gateways::External, false) => {
                let why = "agents speak to external gateways in the clear: those must listen without TLS, \
                           in a network that is trusted";
                self.report.lost(place, why);
            }
        }
    }

    /// The hop from agents to gateways.
    fn hop(&mut self, entry: &Entry<'_>) {
        let mut fields = Fields::of(entry, &mut self.report);
        let compression = fields.take("compression");
        for name in ["timeout", "sending_queue", "retry_on_failure", "keepalive", "balancer_name"] {
            let why = "the hop has its own waits and queues, in bytes and within the memory limit";
            fields.built_in(name, &mut self.report, why);
        }
        let tls = fields.take("tls");
        self.hop_tls(entry, tls.as_ref());
        fields.built_in("endpoint", &mut self.report, "the Collector does not use it either");
        fields.finish(&mut self.report);
        if let Some(entry) = compression {
            let word = match self.reader().text(&entry).as_deref() {
                Some("none" | "") => "None",
                Some("zstd") => "Zstd",
                _ => "Gzip",
            };
            let tree = Tree::text(word);
            self.draft.set(&mut self.report, "agent.compression", tree, &entry.place);
        }
    }
}
