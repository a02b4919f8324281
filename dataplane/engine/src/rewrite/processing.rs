//! What an agent does to the spans of a request before it splits them, in this order: facts about where it
//! runs are added to resources, spans are dropped by conditions, attributes are changed.
//!
//! It stands between [`crate::scan::walk`] and whoever takes the spans, so that no copy of a request is made.

use super::attributes::Actions;
use crate::policy::Filter;
use crate::scan::{Group, Headers, TraceId, Visit};

/// What is done to every request.
#[derive(Debug, Default)]
pub struct Processing {
    /// Facts for resources that do not have them.
    pub detected: Actions,
    /// Which spans to drop.
    pub filter: Option<Filter>,
    /// What is done to attributes.
    pub attributes: Actions,
}

/// What was done to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Spans that were dropped.
    pub filtered: u64,
    /// Conditions that could not be answered.
    pub failures: u64,
}

/// Changes what it is shown and shows it to another.
pub struct Processor<'a, V> {
    processing: &'a Processing,
    next: &'a mut V,
    done: Done,
    /// The resource of the last group as it came, and as it goes on: with the facts, and with attributes
    /// changed too.
    resource: Option<(u64, usize)>,
    detected: Vec<u8>,
    changed: Vec<u8>,
    span: Vec<u8>,
    /// Whether the group was shown.
    announced: bool,
}

// === impl Processing ===

impl Processing {
    /// Whether nothing is ever changed.
    pub fn is_idle(&self) -> bool {
        self.leaves_resources() && self.filter.is_none() && self.attributes.leaves_spans()
    }

    /// At most how many bytes a span grows by.
    pub fn span_growth(&self) -> u64 {
        self.attributes.span_growth()
    }

    /// At most how many bytes the headers of a group grow by.
    pub fn resource_growth(&self) -> u64 {
        self.detected.resource_growth() + self.attributes.resource_growth()
    }

    fn leaves_resources(&self) -> bool {
        self.detected.leaves_resources() && self.attributes.leaves_resources()
    }
}

// === impl Processor ===

impl<'a, V: Visit> Processor<'a, V> {
    /// One for a request.
    pub fn new(processing: &'a Processing, next: &'a mut V) -> Self {
        Self {
            processing,
            next,
            done: Done::default(),
            resource: None,
            detected: Vec::new(),
            changed: Vec::new(),
            span: Vec::new(),
            announced: false,
        }
    }

    /// What was done.
    pub fn done(&self) -> Done {
        self.done
    }

    fn enter(&mut self, resource: &Headers<'_>) {
        let identity = (resource.hash(), resource.bytes().len());
        if self.resource == Some(identity) {
            return;
        }
        self.resource = Some(identity);
        let Processing { detected, attributes, .. } = self.processing;
        self.detected.clear();
        match detected.leaves_resources() {
            true => self.detected.extend_from_slice(resource.bytes()),
            false => detected.resource(resource.bytes(), &mut self.detected),
        }
        self.changed.clear();
        match attributes.leaves_resources() {
            true => self.changed.extend_from_slice(&self.detected),
            false => attributes.resource(&self.detected, &mut self.changed),
        }
    }
}

impl<V: Visit> Visit for Processor<'_, V> {
    fn group(&mut self, group: &Group<'_>) {
        self.announced = false;
        if !self.processing.leaves_resources() {
            self.enter(&group.resource);
        }
    }

    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let Self { processing, next, done, detected, changed, announced, .. } = self;
        let plain = processing.leaves_resources();
        if let Some(filter) = &processing.filter {
            let seen = match plain {
                true => *group,
                false => Group { resource: Headers::whole(detected), scope: group.scope },
            };
            let (drops, failures) = filter.holds(&seen, span);
            done.failures += u64::from(failures);
            if drops {
                done.filtered += 1;
                return;
            }
        }
        let group = match plain {
            true => *group,
            false => Group { resource: Headers::whole(changed), scope: group.scope },
        };
        if !*announced {
            next.group(&group);
            *announced = true;
        }
        if processing.attributes.leaves_spans() {
            return next.span(&group, id, span);
        }
        self.span.clear();
        processing.attributes.span(span, &mut self.span);
        next.span(&group, id, &self.span);
    }

    fn invalid_span(&mut self, span: &[u8]) {
        self.next.invalid_span(span);
    }

    fn loose(&mut self, raw: &[u8]) {
        self.next.loose(raw);
    }
}
