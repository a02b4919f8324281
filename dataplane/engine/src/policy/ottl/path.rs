//! The fields of spans, events, resources and scopes that conditions may name.

use super::Context;

/// A field, and what of its value is meant.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Path {
    pub(super) field: Field,
    /// Attributes: the key, then places in lists and maps. A trace state: the key of a member.
    pub(super) keys: Vec<Key>,
}

/// A place in a map or a list.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Key {
    Text(String),
    Index(i64),
}

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Field {
    SpanAttributes,
    SpanName,
    SpanKind,
    SpanKindText,
    SpanKindOldText,
    SpanStart,
    SpanStartTime,
    SpanEnd,
    SpanEndTime,
    SpanStatusCode,
    SpanStatusMessage,
    SpanTraceState,
    SpanTraceId,
    SpanTraceIdText,
    SpanId,
    SpanIdText,
    SpanParentId,
    SpanParentIdText,
    SpanDroppedAttributes,
    SpanDroppedEvents,
    SpanDroppedLinks,
    SpanFlags,
    EventAttributes,
    EventName,
    EventTime,
    EventTimeNano,
    EventDroppedAttributes,
    ResourceAttributes,
    ScopeAttributes,
    ScopeName,
    ScopeVersion,
}

use Field::{
    EventAttributes, EventDroppedAttributes, EventName, EventTime, EventTimeNano,
    ResourceAttributes, ScopeAttributes, ScopeName, ScopeVersion, SpanAttributes,
    SpanDroppedAttributes, SpanDroppedEvents, SpanDroppedLinks, SpanEnd, SpanEndTime, SpanIdText,
    SpanKind, SpanKindOldText, SpanKindText, SpanName, SpanParentId, SpanParentIdText, SpanStart,
    SpanStartTime, SpanStatusCode, SpanStatusMessage, SpanTraceId, SpanTraceIdText, SpanTraceState,
};

/// The fields by their owner and name. Without an owner the context's own is meant.
const FIELDS: [(&str, &str, Field); 34] = [
    ("span", "attributes", SpanAttributes),
    ("span", "name", SpanName),
    ("span", "kind", SpanKind),
    ("span", "kind.string", SpanKindText),
    ("span", "kind.deprecated_string", SpanKindOldText),
    ("span", "start_time", SpanStartTime),
    ("span", "start_time_unix_nano", SpanStart),
    ("span", "end_time", SpanEndTime),
    ("span", "end_time_unix_nano", SpanEnd),
    ("span", "status.code", SpanStatusCode),
    ("span", "status.message", SpanStatusMessage),
    ("span", "trace_state", SpanTraceState),
    ("span", "trace_id", SpanTraceId),
    ("span", "trace_id.string", SpanTraceIdText),
    ("span", "span_id", Field::SpanId),
    ("span", "span_id.string", SpanIdText),
    ("span", "parent_span_id", SpanParentId),
    ("span", "parent_span_id.string", SpanParentIdText),
    ("span", "dropped_attributes_count", SpanDroppedAttributes),
    ("span", "dropped_events_count", SpanDroppedEvents),
    ("span", "dropped_links_count", SpanDroppedLinks),
    ("span", "flags", Field::SpanFlags),
    ("spanevent", "attributes", EventAttributes),
    ("spanevent", "name", EventName),
    ("spanevent", "time", EventTime),
    ("spanevent", "time_unix_nano", EventTimeNano),
    ("spanevent", "dropped_attributes_count", EventDroppedAttributes),
    ("resource", "attributes", ResourceAttributes),
    ("instrumentation_scope", "attributes", ScopeAttributes),
    ("instrumentation_scope", "name", ScopeName),
    ("instrumentation_scope", "version", ScopeVersion),
    ("scope", "attributes", ScopeAttributes),
    ("scope", "name", ScopeName),
    ("scope", "version", ScopeVersion),
];

impl Path {
    /// The path with these names, separated by dots, and keys; else what is wrong with it.
    pub(super) fn new(name: &str, keys: Vec<Key>, context: Context) -> Result<Self, String> {
        let owner = match context {
            Context::Span => "span",
            Context::SpanEvent => "spanevent",
        };
        let (given, rest) = name.split_once('.').unwrap_or(("", name));
        let found = |owner: &str, name: &str| {
            FIELDS.iter().find(|(whose, field, _)| *whose == owner && *field == name)
        };
        let Some((whose, _, field)) = found(given, rest).or_else(|| found(owner, name)) else {
            return Err(unknown(name, given, owner));
        };
        if *whose == "spanevent" && context == Context::Span {
            return Err("events are asked by the conditions under spanEvent".to_owned());
        }
        check_keys(name, *field, &keys)?;
        Ok(Self { field: *field, keys })
    }
}

fn unknown(name: &str, given: &str, owner: &str) -> String {
    let is_owner = FIELDS.iter().any(|(whose, _, _)| *whose == given);
    let whose = if is_owner { given } else { owner };
    let fields = FIELDS.iter().filter(|(candidate, _, _)| *candidate == whose);
    let fields: Vec<_> = fields.map(|(_, field, _)| *field).collect();
    let others = if is_owner { "" } else { "; others: resource, instrumentation_scope, span" };
    format!("the path {name} is not supported; fields of {whose}: {}{others}", fields.join(", "))
}

fn check_keys(name: &str, field: Field, keys: &[Key]) -> Result<(), String> {
    let attributes =
        matches!(field, SpanAttributes | EventAttributes | ResourceAttributes | ScopeAttributes);
    match (attributes, field, keys) {
        (true, _, [Key::Text(_), ..]) | (_, SpanTraceState, [] | [Key::Text(_)]) => Ok(()),
        (true, _, _) => Err(format!("{name} needs a key: {name}[\"key\"]")),
        (_, _, []) => Ok(()),
        _ => Err(format!("{name} has no parts that a key could pick")),
    }
}
