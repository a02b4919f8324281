//! What is compared: loads, and who carries them.

/// Which tier a case is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tier {
    /// Spans by trace ID to ten sinks.
    Agent,
    /// Buffer, decide, export to one sink.
    Gateway,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Measure {
    /// CPU a span.
    Speed,
    /// Memory a span that is held.
    Memory,
}

/// Who carries the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Contender {
    /// The raw limit: the same transport, no look at the bytes once they are inflated.
    Relay,
    /// The product.
    Ringtail {
        /// Of the hop.
        compression: &'static str,
    },
    /// The OpenTelemetry Collector.
    Collector {
        /// The `batch` processor before the exporter.
        batch: bool,
        /// Of the exporter.
        compression: &'static str,
    },
}

/// What the manifest of ours has beside three plain policies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Extra {
    #[default]
    Nothing,
    /// Seven more policies, of which four ask in OTTL. None of them says yes to anything.
    Policies,
    /// Span metrics with three dimensions beside the fixed ones.
    SpanMetrics,
    /// Kept spans are redacted: a key removed, one hashed, one masked.
    Redaction,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) tier: Tier,
    pub(super) measure: Measure,
    pub(super) spans_per_request: usize,
    pub(super) fragments: usize,
    pub(super) gzip: Option<u32>,
    pub(super) contenders: Vec<Contender>,
    pub(super) extra: Extra,
}

/// Upstreams of an agent.
pub(super) const UPSTREAMS: usize = 10;

impl Case {
    /// Whether the sink can hold every span against the truth: a load that repeats itself, and spans that are
    /// meant to come out otherwise, it only counts.
    pub(super) fn is_checked(&self) -> bool {
        self.gzip.is_none() && self.extra != Extra::Redaction
    }
}

impl Contender {
    /// As the JSON and the log files name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Ringtail { .. } => "ringtail",
            Self::Collector { .. } => "collector",
        }
    }

    /// Its settings, in a few words.
    pub(super) fn settings(self) -> String {
        match self {
            Self::Relay => "out plain".into(),
            Self::Ringtail { compression } => format!("out {compression}"),
            Self::Collector { batch: true, compression } => format!("batch, out {compression}"),
            Self::Collector { batch: false, compression } => format!("out {compression}"),
        }
    }
}

/// All cases. The Collector runs in the setting that suits it best for the load (measured: without `batch` at
/// 1,000 spans a request, with it at 96).
pub(super) fn cases() -> Vec<Case> {
    let agent = |name, title, spans, gzip, contenders| Case {
        name,
        title,
        tier: Tier::Agent,
        measure: Measure::Speed,
        spans_per_request: spans,
        fragments: 1,
        gzip,
        contenders,
        extra: Extra::Nothing,
    };
    let gateway = |name, title, spans, fragments| Case {
        name,
        title,
        tier: Tier::Gateway,
        measure: Measure::Speed,
        spans_per_request: spans,
        fragments,
        gzip: None,
        contenders: trio("None", true, "none"),
        extra: Extra::Nothing,
    };
    // Beside the plain row: what the Collector takes for these is another question.
    let with = |name, title, extra| Case {
        extra,
        contenders: vec![Contender::Relay, Contender::Ringtail { compression: "None" }],
        ..gateway(name, title, 1000, 1)
    };
    vec![
        agent(
            "agent-1000",
            "agent, 1,000 spans a request, plain",
            1000,
            None,
            trio("None", false, "none"),
        ),
        agent("agent-96", "agent, 96 spans a request, plain", 96, None, trio("None", true, "none")),
        agent(
            "agent-gzip",
            "agent, 1,000 spans a request, gzip in",
            1000,
            Some(6),
            trio("Zstd", true, "gzip"),
        ),
        gateway("gateway-1000", "gateway, whole traces, 1,000 spans a request", 1000, 1),
        gateway("gateway-fragments", "gateway, traces in 8 fragments, 200 spans a request", 200, 8),
        with(
            "gateway-policies",
            "gateway, whole traces, 10 policies of which 4 in OTTL",
            Extra::Policies,
        ),
        with(
            "gateway-span-metrics",
            "gateway, whole traces, span metrics with three dimensions",
            Extra::SpanMetrics,
        ),
        with("gateway-redaction", "gateway, whole traces, kept spans redacted", Extra::Redaction),
        Case {
            measure: Measure::Memory,
            contenders: trio("None", true, "none").split_off(1),
            ..gateway("memory", "gateway memory, traces held undecided", 1000, 1)
        },
    ]
}

fn trio(hop: &'static str, batch: bool, compression: &'static str) -> Vec<Contender> {
    vec![
        Contender::Relay,
        Contender::Ringtail { compression: hop },
        Contender::Collector { batch, compression },
    ]
}
