//! What is read of a span: one walk over its fields, which stay where they are.

use super::DIMENSIONS_MAX;
use super::key::{UNKNOWN, UNTOLD, cut, put_absent, put_text};
use super::plan::{Plan, Unit};
use super::resource::Resource;
use super::series::Sample;
use super::text::{Any, pair};
use super::weight::weight;
use crate::policy::attributes::plain;
use crate::wire::{Reader, Value as Wire};

/// Kinds and statuses that OTLP knows.
const KINDS: u64 = 6;
const STATUSES: u64 = 3;

/// Field 9 of a span, length-delimited.
const ATTRIBUTE_TAG: u8 = 9 << 3 | 2;

/// Values by the place of their dimension, each the bytes of an `AnyValue`.
type Values<'a> = [Option<&'a [u8]>; DIMENSIONS_MAX];

/// See the module.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    span: &'a [u8],
    trace_id: &'a [u8],
    span_id: &'a [u8],
    state: &'a [u8],
    name: &'a [u8],
    kind: u64,
    status: u64,
    start: u64,
    end: u64,
    values: Values<'a>,
    events: bool,
}

// === impl Reading ===

impl<'a> Reading<'a> {
    #[inline]
    pub(super) fn of(span: &'a [u8], plan: &Plan) -> Self {
        let mut reading = Self {
            span,
            trace_id: &[],
            span_id: &[],
            state: &[],
            name: &[],
            kind: 0,
            status: 0,
            start: 0,
            end: 0,
            values: [None; DIMENSIONS_MAX],
            events: false,
        };
        let mut reader = Reader::new(span);
        loop {
            // More than half of the fields are attributes.
            while reader.first() == Some(ATTRIBUTE_TAG) {
                reader.skip_byte();
                let Ok(attribute) = reader.delimited() else { return reading };
                note(attribute, plan, &mut reading.values);
            }
            let Ok(Some(field)) = reader.next_field() else { return reading };
            match (field.number, field.value) {
                (1, Wire::Bytes(id)) => reading.trace_id = id,
                (2, Wire::Bytes(id)) => reading.span_id = id,
                (3, Wire::Bytes(state)) => reading.state = state,
                (5, Wire::Bytes(name)) => reading.name = name,
                (6, Wire::Varint(kind)) => reading.kind = kind,
                (7, Wire::Fixed64(start)) => reading.start = start,
                (8, Wire::Fixed64(end)) => reading.end = end,
                (11, Wire::Bytes(_)) => reading.events = true,
                (15, Wire::Bytes(status)) => reading.read_status(status),
                // A tag that is longer than it need be.
                (9, Wire::Bytes(attribute)) => note(attribute, plan, &mut reading.values),
                _ => {}
            }
        }
    }

    fn read_status(&mut self, status: &[u8]) {
        let mut reader = Reader::new(status);
        while let Ok(Some(field)) = reader.next_field() {
            if let (3, Wire::Varint(code)) = (field.number, field.value) {
                self.status = code;
            }
        }
    }

    /// What is added to the series.
    #[expect(clippy::cast_precision_loss, reason = "as the connector: durations are floats")]
    pub(super) fn sample(&self, plan: &Plan) -> Sample {
        // An end before the start means that a clock was set; it took no time then.
        let nanos = self.end.saturating_sub(self.start) as f64;
        let duration = match plan.unit() {
            Unit::Milliseconds => nanos / 1e6,
            Unit::Seconds => nanos / 1e9,
        };
        let trace_id: [u8; 16] = self.trace_id.try_into().unwrap_or_default();
        let span_id: [u8; 8] = self.span_id.try_into().unwrap_or_default();
        let weight = match self.state {
            [] => 1,
            state => {
                let half =
                    |bytes: &[u8]| bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
                let [_, low] = [&trace_id[..8], &trace_id[8..]];
                weight(state, half(low) ^ u64::from_le_bytes(span_id))
            }
        };
        Sample { duration, weight, trace_id, span_id }
    }

    /// Appends the key of its series.
    pub(super) fn write_key(&self, resource: &Resource, plan: &Plan, key: &mut Vec<u8>) {
        self.write_head(resource, plan, key);
        self.write_dimensions(0..plan.of_spans, (resource, None), plan, key);
    }

    fn write_head(&self, resource: &Resource, plan: &Plan, key: &mut Vec<u8>) {
        key.extend_from_slice(&resource.prefix);
        match plan.no_name {
            true => put_absent(key),
            false => put_text(key, self.name),
        }
        let number = |untold: bool, number: u64, known: u64| match (untold, number < known) {
            (true, _) => UNTOLD,
            (_, true) => number as u8,
            (_, false) => UNKNOWN,
        };
        key.push(number(plan.no_kind, self.kind, KINDS));
        key.push(number(plan.no_status, self.status, STATUSES));
    }

    fn write_dimensions(
        &self,
        places: std::ops::Range<usize>,
        (resource, event): (&Resource, Option<&Values<'_>>),
        plan: &Plan,
        key: &mut Vec<u8>,
    ) {
        for place in places {
            let of_event = || event.and_then(|values| values.get(place).copied().flatten());
            if let Some(any) = self.values.get(place).copied().flatten().or_else(of_event) {
                put_any(key, any);
                continue;
            }
            let of_resource = resource.values.get(place).and_then(Option::as_deref);
            let default = || plan.defaults.get(place).and_then(Option::as_deref);
            match of_resource.or_else(default) {
                Some(text) => put_text(key, text),
                None => put_absent(key),
            }
        }
    }

    /// Calls `count` with the key of the series of each event; `key` is used to put it together.
    pub(super) fn for_each_event(
        &self,
        resource: &Resource,
        plan: &Plan,
        key: &mut Vec<u8>,
        mut count: impl FnMut(&[u8]),
    ) {
        if !self.events {
            return;
        }
        key.clear();
        self.write_head(resource, plan, key);
        let head = key.len();
        let mut reader = Reader::new(self.span);
        while let Ok(Some(field)) = reader.next_field() {
            let (11, Wire::Bytes(event)) = (field.number, field.value) else { continue };
            let mut values: Values<'_> = [None; DIMENSIONS_MAX];
            let mut inner = Reader::new(event);
            while let Ok(Some(field)) = inner.next_field() {
                if let (3, Wire::Bytes(attribute)) = (field.number, field.value) {
                    note_last(attribute, plan, &mut values);
                }
            }
            key.truncate(head);
            let around = (resource, Some(&values));
            self.write_dimensions(0..plan.names.len(), around, plan, key);
            count(key);
        }
    }
}

/// Notes an attribute if it is a dimension: of equal keys the first counts.
#[inline]
fn note<'a>(attribute: &'a [u8], plan: &Plan, values: &mut Values<'a>) {
    let (name, value) = plain(attribute).unwrap_or_else(|| pair(attribute));
    plan.look_up(name, |place| {
        if let Some(slot) = values.get_mut(place) {
            slot.get_or_insert(value);
        }
    });
}

/// The same of an event: the connector puts its attributes into a map one by one, so the last counts.
fn note_last<'a>(attribute: &'a [u8], plan: &Plan, values: &mut Values<'a>) {
    let (name, value) = pair(attribute);
    plan.look_up(name, |place| {
        if let Some(slot) = values.get_mut(place) {
            *slot = Some(value);
        }
    });
}

/// Appends a value as labels have it.
#[inline]
fn put_any(key: &mut Vec<u8>, any: &[u8]) {
    match Any::of(any) {
        Any::Text(text) => put_text(key, text),
        other => {
            let length_at = key.len();
            put_text(key, &[]);
            let start = key.len();
            other.write(key);
            let length = cut(key.get(start..).unwrap_or_default()).len();
            key.truncate(start + length);
            if let Some(place) = key.get_mut(length_at..start) {
                place.copy_from_slice(&(length as u16).to_le_bytes());
            }
        }
    }
}
