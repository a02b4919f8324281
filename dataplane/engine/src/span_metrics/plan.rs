//! What is counted, by what: the settings of a manifest, ready to be looked at for every span.

use super::DIMENSIONS_MAX;
use crate::Millis;

/// The unit of durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// Thousandths of a second, as the connector has it by default.
    #[default]
    Milliseconds,
    /// Seconds.
    Seconds,
}

/// How durations are spread over buckets.
#[derive(Debug, Clone, PartialEq)]
pub enum Buckets {
    /// Up to each of these, in the unit; ascending.
    Explicit(Vec<f64>),
    /// By powers of a base that follows from the range of the values.
    Exponential {
        /// Buckets of a series, at most.
        max_size: u32,
    },
}

/// An attribute by which spans are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// The attribute.
    pub name: String,
    /// Its value where there is none.
    pub default: Option<String>,
}

/// The settings.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanConfig {
    /// Attributes of spans, else of their resources.
    pub dimensions: Vec<Dimension>,
    /// If events are counted: by these attributes too, of spans, else of events, else of resources.
    pub event_dimensions: Option<Vec<Dimension>>,
    /// Dimensions that every series has, but these.
    pub excluded: Vec<String>,
    /// Buckets of durations.
    pub buckets: Buckets,
    /// Unit of durations.
    pub unit: Unit,
    /// Exemplars of a series, at most; 0: none.
    pub exemplars: usize,
    /// Series that are idle for so long are forgotten.
    pub expiry: Option<Millis>,
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    config: PlanConfig,
    /// Names and defaults: those of spans, then those of events.
    pub(super) names: Vec<Box<[u8]>>,
    pub(super) defaults: Vec<Option<Box<[u8]>>>,
    /// How many of them are those of spans.
    pub(super) of_spans: usize,
    /// Bit n: a name has n bytes; the last one: it has that many or more.
    lengths: u64,
    pub(super) no_name: bool,
    pub(super) no_kind: bool,
    pub(super) no_status: bool,
    no_service: bool,
    no_instance: bool,
}

/// The dimensions that every series has.
const SERVICE: &str = "service.name";
const NAME: &str = "span.name";
const KIND: &str = "span.kind";
const STATUS: &str = "status.code";
const INSTANCE: &str = "collector.instance.id";

// === impl Plan ===

impl Plan {
    /// The dimensions that every series has, unless they are excluded.
    pub const BUILT_IN: [&str; 5] = [SERVICE, NAME, KIND, STATUS, INSTANCE];

    /// Of these settings. Dimensions past [`DIMENSIONS_MAX`] are left out; manifests cannot have so many.
    pub fn new(config: PlanConfig) -> Self {
        let excludes = |name| config.excluded.iter().any(|excluded| excluded == name);
        let listed = config.dimensions.iter().chain(config.event_dimensions.iter().flatten());
        let listed: Vec<&Dimension> = listed.take(DIMENSIONS_MAX).collect();
        let bytes = |text: &String| -> Box<[u8]> { text.as_bytes().into() };
        let names: Vec<Box<[u8]>> = listed.iter().map(|dimension| bytes(&dimension.name)).collect();
        Self {
            defaults: listed.iter().map(|one| one.default.as_ref().map(bytes)).collect(),
            of_spans: config.dimensions.len().min(DIMENSIONS_MAX),
            lengths: names.iter().fold(0, |set, name| set | 1 << bucket(name)),
            names,
            no_name: excludes(NAME),
            no_kind: excludes(KIND),
            no_status: excludes(STATUS),
            no_service: excludes(SERVICE),
            no_instance: excludes(INSTANCE),
            config,
        }
    }

    /// Buckets of durations.
    pub fn buckets(&self) -> &Buckets {
        &self.config.buckets
    }

    /// Unit of durations.
    pub fn unit(&self) -> Unit {
        self.config.unit
    }

    /// Exemplars of a series, at most.
    pub fn exemplars(&self) -> usize {
        self.config.exemplars
    }

    /// Whether events are counted.
    pub fn counts_events(&self) -> bool {
        self.config.event_dimensions.is_some()
    }

    /// Whether series name the service.
    pub fn names_service(&self) -> bool {
        !self.no_service
    }

    /// Whether series name the process that counted.
    pub fn names_instance(&self) -> bool {
        !self.no_instance
    }

    /// The names of the dimensions of spans, or of those of events too, in the order of the manifest.
    pub fn dimensions(&self, of_events: bool) -> impl Iterator<Item = &str> {
        let events = self.config.event_dimensions.iter().flatten().filter(move |_| of_events);
        self.config.dimensions.iter().chain(events).map(|dimension| dimension.name.as_str())
    }

    pub(super) fn expiry(&self) -> Option<Millis> {
        self.config.expiry
    }

    /// Calls `found` with the place of each dimension that has this name.
    #[inline]
    pub(super) fn look_up(&self, name: &[u8], mut found: impl FnMut(usize)) {
        // Nearly every attribute costs one look at this.
        if self.lengths >> bucket(name) & 1 == 0 {
            return;
        }
        for (place, wanted) in self.names.iter().enumerate() {
            if **wanted == *name {
                found(place);
            }
        }
    }
}

#[inline]
fn bucket(name: &[u8]) -> usize {
    name.len().min(63)
}
