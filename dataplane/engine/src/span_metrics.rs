//! Requests, errors and durations of all spans, before any sampling: what the OpenTelemetry Collector's
//! spanmetrics connector counts, read from byte ranges.
//!
//! Each shard has a [`Tally`], which counts what its thread sees and nobody else touches. Whoever shows the
//! metrics drains the tallies into one [`Totals`]: only there series are cumulative and expire, so that a
//! series never shrinks because one shard has forgotten its part of it.
//!
//! | file | what it holds |
//! |---|---|
//! | `plan` | what is counted by what, compiled from the manifest |
//! | `span`, `resource`, `weight` | what is read of a span, of its resource, of its `tracestate` |
//! | `text` | attribute values as the Collector writes them |
//! | `key` | the labels of a series, as bytes |
//! | `series`, `histogram` | the counts, explicit and exponential buckets |

mod histogram;
mod key;
mod plan;
mod resource;
mod series;
mod span;
mod text;
mod weight;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::histogram::{Exponential, Histogram};
pub use self::key::{Labels, Owner};
pub use self::plan::{Buckets, Dimension, Plan, PlanConfig, Unit};
use self::resource::Resources;
pub use self::series::{Exemplar, Limits, SERIES_BYTES, Series};
use self::series::{Sample, Table};
use self::span::Reading;
use crate::Millis;
use crate::scan::Group;

/// Dimensions of spans and of events together, at most: one look-up table in the processor's nearest cache.
pub const DIMENSIONS_MAX: usize = 32;

/// Bytes of a label's value; what is longer is cut off, so that a series has a size.
pub const VALUE_BYTES_MAX: usize = 256;

/// What was counted beside the series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Spans in series.
    pub spans: u64,
    /// Spans of these that are in the overflow series, for lack of room for one of their own.
    pub overflowed: u64,
    /// Spans whose resource has no `service.name`: as in the connector, no series has them.
    pub nameless: u64,
}

/// What one shard has counted since it was drained last. See the module.
#[derive(Debug)]
pub struct Tally {
    plan: Arc<Plan>,
    resources: Resources,
    spans: Table,
    events: Table,
    counts: Counts,
    /// Used again for each span, so that nothing is allocated for one.
    key: Vec<u8>,
}

/// A span that is to be counted when it is known that somebody has stored it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    key: Option<Box<[u8]>>,
    events: Vec<Box<[u8]>>,
    sample: Sample,
}

/// What a tally hands over: counts since the last time.
#[derive(Debug, Clone, Default)]
pub struct Drained {
    spans: Vec<Series>,
    events: Vec<Series>,
    counts: Counts,
}

/// The sums of all tallies of a process, since its start or since they were last idle for too long.
#[derive(Debug)]
pub struct Totals {
    plan: Arc<Plan>,
    spans: Table,
    events: Table,
    counts: Counts,
}

/// The series of a process at a moment.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Calls and durations.
    pub spans: Vec<Series>,
    /// Events of spans.
    pub events: Vec<Series>,
    /// What was counted beside them.
    pub counts: Counts,
    /// Which moment.
    pub at: Millis,
}

// === impl Tally ===

impl Tally {
    /// Counts nothing yet.
    pub fn new(plan: Arc<Plan>, limits: Limits) -> Self {
        let [spans, events] = tables(&plan, limits);
        let resources = Resources::default();
        Self { plan, resources, spans, events, counts: Counts::default(), key: Vec::new() }
    }

    /// Counts a span of a group.
    pub fn observe(&mut self, group: &Group<'_>, span: &[u8], now: Millis) {
        let Self { plan, resources, spans, events, counts, key } = self;
        let Some(resource) = resources.of(&group.resource, plan) else {
            counts.nameless += 1;
            return;
        };
        let reading = Reading::of(span, plan);
        let sample = reading.sample(plan);
        key.clear();
        reading.write_key(resource, plan, key);
        counts.spans += 1;
        counts.overflowed += u64::from(!spans.count(key, &sample, plan, now));
        if plan.counts_events() {
            reading.for_each_event(resource, plan, key, |key| {
                events.count(key, &sample, plan, now);
            });
        }
    }

    /// What [`Self::count`] takes to count this span later.
    pub fn sight(&mut self, group: &Group<'_>, span: &[u8]) -> Sighting {
        let Self { plan, resources, key, .. } = self;
        let Some(resource) = resources.of(&group.resource, plan) else {
            return Sighting { key: None, events: Vec::new(), sample: Sample::default() };
        };
        let reading = Reading::of(span, plan);
        let sample = reading.sample(plan);
        key.clear();
        reading.write_key(resource, plan, key);
        let of_span: Box<[u8]> = key.as_slice().into();
        let mut events = Vec::new();
        if plan.counts_events() {
            reading.for_each_event(resource, plan, key, |key| events.push(key.into()));
        }
        Sighting { key: Some(of_span), events, sample }
    }

    /// Counts a span that was sighted before.
    pub fn count(&mut self, sighting: &Sighting, now: Millis) {
        let Some(key) = &sighting.key else {
            self.counts.nameless += 1;
            return;
        };
        self.counts.spans += 1;
        let own = self.spans.count(key, &sighting.sample, &self.plan, now);
        self.counts.overflowed += u64::from(!own);
        for key in &sighting.events {
            self.events.count(key, &sighting.sample, &self.plan, now);
        }
    }

    /// Hands over what was counted since the last time, and forgets series that are not in use.
    pub fn drain(&mut self, now: Millis) -> Drained {
        let spans = self.spans.drain(&self.plan, now);
        let events = self.events.drain(&self.plan, now);
        Drained { spans, events, counts: std::mem::take(&mut self.counts) }
    }

    /// Bytes that it occupies.
    pub fn footprint(&self) -> u64 {
        self.spans.bytes() + self.events.bytes() + self.resources.bytes()
    }
}

impl Sighting {
    /// Bytes that it occupies.
    pub fn bytes(&self) -> u64 {
        let events: usize = self.events.iter().map(|key| key.len() + size_of::<Box<[u8]>>()).sum();
        (size_of::<Self>() + self.key.as_ref().map_or(0, |key| key.len()) + events) as u64
    }
}

// === impl Totals ===

impl Totals {
    /// The sums of nothing.
    pub fn new(plan: Arc<Plan>, limits: Limits) -> Self {
        let [spans, events] = tables(&plan, limits);
        Self { plan, spans, events, counts: Counts::default() }
    }

    /// Adds what a tally has handed over.
    pub fn add(&mut self, drained: Drained) {
        drained.spans.into_iter().for_each(|series| self.spans.merge(series, &self.plan));
        drained.events.into_iter().for_each(|series| self.events.merge(series, &self.plan));
        self.counts.spans += drained.counts.spans;
        self.counts.overflowed += drained.counts.overflowed;
        self.counts.nameless += drained.counts.nameless;
    }

    /// The series as of now, without those that were idle for too long, which are forgotten. All tallies
    /// must have been drained before.
    pub fn show(&mut self, now: Millis) -> Shown {
        if let Some(expiry) = self.plan.expiry() {
            self.spans.expire(expiry, &self.plan, now);
            self.events.expire(expiry, &self.plan, now);
        }
        let (spans, events) = (self.spans.rows(), self.events.rows());
        Shown { spans, events, counts: self.counts, at: now }
    }
}

/// What was not shown yet is a [`Totals`] of its own, which is emptied each time.
impl Totals {
    /// The series that were counted in since the last time, and their counts since then.
    pub fn take(&mut self, now: Millis) -> Shown {
        let spans = self.spans.drain(&self.plan, now);
        let events = self.events.drain(&self.plan, now);
        Shown { spans, events, counts: std::mem::take(&mut self.counts), at: now }
    }

    /// Takes back what was taken and came to nobody.
    pub fn put_back(&mut self, shown: Shown) {
        let Shown { spans, events, counts, .. } = shown;
        self.add(Drained { spans, events, counts });
    }
}

impl Shown {
    /// The rest after so many series of either kind.
    pub fn after(&self, spans: usize, events: usize) -> Self {
        let rest = |list: &[Series], first: usize| list.get(first..).unwrap_or_default().to_vec();
        Self {
            spans: rest(&self.spans, spans),
            events: rest(&self.events, events),
            counts: Counts::default(),
            at: self.at,
        }
    }
}

fn tables(plan: &Plan, limits: Limits) -> [Table; 2] {
    // Both share the bytes. Events have no histogram, so theirs are the smaller ones.
    let (spans, events) = match plan.counts_events() {
        true => (limits.bytes / 4 * 3, limits.bytes / 4),
        false => (limits.bytes, 0),
    };
    let table = |bytes, timed| Table::new(Limits { bytes, ..limits }, timed);
    [table(spans, true), table(events, false)]
}
