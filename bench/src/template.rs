//! Requests encoded once: for each send only IDs, times, customer and status are written over.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;

use crate::failure::{Failure, Result};
use crate::shop::{self, mark};
use crate::truth::{SPANS, Trace, World, parent_of};

/// A gRPC message starts with a flag and its length.
pub const PREFIX_LEN: usize = 5;

/// The encoded span of one service, and where its bytes differ from trace to trace.
#[derive(Clone, Debug)]
pub struct SpanTemplate {
    number: usize,
    bytes: Vec<u8>,
    trace_id: usize,
    span_id: usize,
    parent_id: Option<usize>,
    start: usize,
    end: usize,
    customer: usize,
    http_status: usize,
    status: usize,
}

/// One request: for each service of its fragment, the spans of `traces` consecutive traces.
#[derive(Clone, Debug)]
pub struct RequestTemplate {
    bytes: Vec<u8>,
    traces: usize,
    rows: Vec<Row>,
}

/// The spans of one service in a request: equally long, side by side.
#[derive(Clone, Debug)]
struct Row {
    template: SpanTemplate,
    first: usize,
    stride: usize,
}

// === impl SpanTemplate ===

impl SpanTemplate {
    /// The template of span `number` of any trace.
    pub fn new(number: usize) -> Result<Self> {
        let bytes = shop::span(number).encode_to_vec();
        let status_key = find(&bytes, mark::HTTP_STATUS.as_bytes())?;
        let status = find(&bytes, &[0x7a, 2, 0x18, 1])?;
        Ok(Self {
            number,
            trace_id: find(&bytes, &mark::TRACE_ID)?,
            span_id: find(&bytes, &mark::SPAN_ID)?,
            parent_id: parent_of(number).map(|_| find(&bytes, &mark::PARENT_ID)).transpose()?,
            start: find(&bytes, &mark::START)?,
            end: find(&bytes, &mark::END)?,
            // The digits at the end of the mark.
            customer: find(&bytes, mark::CUSTOMER.as_bytes())? + mark::CUSTOMER.len() - 4,
            // After the key: tag and length of AnyValue, tag of its integer, then the varint.
            http_status: status_key + mark::HTTP_STATUS.len() + 3,
            // Tag and length of Status, tag of its code, then the code.
            status: status + 3,
            bytes,
        })
    }

    /// One template a service.
    pub fn all() -> Result<Vec<Self>> {
        (0..SPANS).map(Self::new).collect()
    }

    /// The length of the span's message.
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// The span of `trace` in full, in `body`.
    pub fn render(&self, world: &World, trace: &Trace, body: &mut Vec<u8>) {
        body.clear();
        body.extend_from_slice(&self.bytes);
        self.patch(world, trace, body);
    }

    /// Writes what differs over an earlier rendering.
    pub fn patch(&self, world: &World, trace: &Trace, body: &mut [u8]) {
        let (start_ns, end_ns) = trace.times_ns(self.number);
        put(body, self.trace_id, trace.id);
        put(body, self.span_id, world.span_id(trace.index, self.number));
        if let (Some(at), Some(parent)) = (self.parent_id, parent_of(self.number)) {
            put(body, at, world.span_id(trace.index, parent));
        }
        put(body, self.start, start_ns.to_le_bytes());
        put(body, self.end, end_ns.to_le_bytes());
        put(body, self.customer, customer(trace));
        let failed = trace.error_span == Some(self.number);
        let (well, ill) = shop::HTTP_STATUS;
        put(body, self.http_status, varint2(if failed { ill } else { well }));
        put(body, self.status, [if failed { 2 } else { 1 }]);
    }
}

/// Four digits that vary: real spans do not compress into nothing either.
fn customer(trace: &Trace) -> [u8; 4] {
    let number = u16::from_be_bytes([trace.id[0], trace.id[1]]);
    [1000, 100, 10, 1].map(|scale| b'0' + (number / scale % 10) as u8)
}

fn varint2(value: i64) -> [u8; 2] {
    [value as u8 | 0x80, (value >> 7) as u8]
}

fn put<const N: usize>(body: &mut [u8], at: usize, value: [u8; N]) {
    body[at..at + N].copy_from_slice(&value);
}

// === impl RequestTemplate ===

impl RequestTemplate {
    /// Fragment `fragment` of `fragments` of `traces` traces: the whole traces if there is only one fragment.
    pub fn new(traces: usize, fragment: usize, fragments: usize) -> Result<Self> {
        let width = SPANS / fragments;
        let numbers = fragment * width..(fragment + 1) * width;
        let request = ExportTraceServiceRequest {
            resource_spans: numbers.clone().map(|number| group(number, traces)).collect(),
        };
        let mut bytes = vec![0; PREFIX_LEN];
        request.encode(&mut bytes).map_err(|error| Failure::new(error.to_string()))?;
        let length = u32::try_from(bytes.len() - PREFIX_LEN)
            .map_err(|_| Failure::new("a request of more than 4 GiB: fewer spans a request"))?;
        put(&mut bytes, 1, length.to_be_bytes());
        let rows = numbers.map(|number| Row::find(number, &bytes)).collect::<Result<_>>()?;
        Ok(Self { bytes, traces, rows })
    }

    /// How many traces one request touches.
    pub fn traces(&self) -> usize {
        self.traces
    }

    /// How many spans one request holds.
    pub fn spans(&self) -> usize {
        self.traces * self.rows.len()
    }

    /// The gRPC message as it was encoded, with marks: a buffer to patch.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes `message`, an earlier copy of [`Self::bytes`], the request of the traces from `first` on.
    pub fn patch(&self, world: &World, first: u64, message: &mut [u8]) {
        let traces: Vec<Trace> =
            (first..first + self.traces as u64).map(|index| world.trace(index)).collect();
        for row in &self.rows {
            for (position, trace) in traces.iter().enumerate() {
                let at = row.first + position * row.stride;
                let body = &mut message[at..at + row.template.encoded_len()];
                row.template.patch(world, trace, body);
            }
        }
    }
}

impl Row {
    /// Finds the first span of a service in an encoded request: the others follow it directly.
    fn find(number: usize, message: &[u8]) -> Result<Self> {
        let template = SpanTemplate::new(number)?;
        let first = find(message, &template.bytes)?;
        // ScopeSpans.spans: a tag of one byte and the length.
        let stride =
            template.encoded_len() + 1 + prost::length_delimiter_len(template.encoded_len());
        Ok(Self { template, first, stride })
    }
}

fn group(number: usize, traces: usize) -> ResourceSpans {
    ResourceSpans {
        resource: Some(shop::resource(number)),
        scope_spans: vec![ScopeSpans {
            scope: Some(shop::scope(number)),
            spans: vec![shop::span(number); traces],
            schema_url: shop::schema_url(),
        }],
        schema_url: shop::schema_url(),
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Result<usize> {
    bytes
        .windows(mark.len())
        .position(|window| window == mark)
        .ok_or_else(|| Failure::new(format!("the mark {mark:?} is not in the encoded span")))
}

#[cfg(test)]
mod tests;
