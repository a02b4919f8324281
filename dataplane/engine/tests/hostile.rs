//! Requests made to be expensive: what they cost stays a small multiple of their bytes.
#![expect(clippy::unwrap_used, reason = "a failing test should say where")]

use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::scan::{Group, ScanLimits, TraceId, Visit, check, walk};
use ringtail_engine::wire::put_varint;

const REQUEST_BYTES: usize = 4 << 20;
/// No limit on headers, which bounds most of this already: the splitter alone must not multiply.
const LIMITS: ScanLimits =
    ScanLimits { max_depth: 32, max_spans: u32::MAX, max_header_bytes: u32::MAX };

fn field(number: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    put_varint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

/// The least span that has a trace ID of its own.
fn span(index: usize) -> Vec<u8> {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&index.to_be_bytes());
    field(2, &field(1, &id))
}

/// Spans by the last bit of their ID.
#[derive(Default)]
struct Halves {
    batches: [Batch; 2],
    groups: [Option<GroupRef>; 2],
}

impl Visit for Halves {
    fn group(&mut self, _: &Group<'_>) {
        self.groups = [None; 2];
    }
    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let half = usize::from(id[7] & 1);
        let batch = &mut self.batches[half];
        let place =
            *self.groups[half].get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(place, span);
    }
}

/// Splits a request; gives its spans, and the bytes held and written for each of its own.
fn split(request: &[u8]) -> (u32, usize, usize) {
    let shape = check(request, &LIMITS).unwrap();
    let mut halves = Halves::default();
    walk(request, &shape, &mut halves).unwrap();
    let mut out = Vec::new();
    halves.batches.iter().for_each(|batch| batch.encode(&mut out));
    let spans = halves.batches.iter().map(Batch::spans).sum();
    let held: usize = halves.batches.iter().map(Batch::held_bytes).sum();
    (spans, held.div_ceil(request.len()), out.len().div_ceil(request.len()))
}

#[test]
fn empty_spans() {
    let request = field(1, &field(2, &[0x12, 0].repeat(REQUEST_BYTES / 2)));
    let shape = check(&request, &LIMITS).unwrap();
    assert_eq!(shape.invalid_ids as usize, REQUEST_BYTES / 2);
    assert_eq!(split(&request), (0, 0, 0));
}

#[test]
fn minimal_spans_of_distinct_traces() {
    let spans: Vec<u8> = (0..200_000).flat_map(span).collect();
    let (spans, held, written) = split(&field(1, &field(2, &spans)));
    assert_eq!(spans, 200_000);
    assert!(held <= 4 && written <= 2, "{held}, {written}");
}

#[test]
fn a_scope_for_every_span_of_one_large_resource() {
    let resource = field(3, &vec![b'r'; REQUEST_BYTES / 2]);
    let scopes: Vec<u8> =
        (0..REQUEST_BYTES / 44).flat_map(|index| field(2, &span(index))).collect();
    let (_, held, written) = split(&field(1, &[resource, scopes].concat()));
    assert!(held <= 5 && written <= 2, "{held}, {written}");
}

#[test]
fn a_distinct_scope_for_every_span_of_one_large_resource() {
    let resource = field(3, &vec![b'r'; REQUEST_BYTES / 2]);
    let scope = |index: usize| {
        let header = field(3, format!("{index:x}").as_bytes());
        field(2, &[span(index), header].concat())
    };
    let scopes: Vec<u8> = (0..REQUEST_BYTES / 54).flat_map(scope).collect();
    let (_, held, written) = split(&field(1, &[resource, scopes].concat()));
    assert!(held <= 8 && written <= 2, "{held}, {written}");
}

#[test]
fn a_distinct_resource_for_every_span() {
    let resource = |index: usize| {
        let header = field(3, format!("{index:x}").as_bytes());
        field(1, &[field(2, &span(index)), header].concat())
    };
    let request: Vec<u8> = (0..200_000).flat_map(resource).collect();
    let (spans, held, written) = split(&request);
    assert_eq!(spans, 200_000);
    assert!(held <= 10 && written <= 2, "{held}, {written}");
}

#[test]
fn headers_in_as_many_pieces_as_there_are_scopes() {
    let piece = |index: usize| [field(2, &span(index)), field(1, &[0x10, 1])].concat();
    let pieces: Vec<u8> = (0..REQUEST_BYTES / 26).flat_map(piece).collect();
    let (_, held, written) = split(&field(1, &pieces));
    assert!(held <= 5 && written <= 2, "{held}, {written}");
}
