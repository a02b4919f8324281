//! Wild requests, written byte by byte from a stream of dice, and what must hold for every one of them.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::scan::{Group, ScanError, ScanLimits, Shape, TraceId, Visit, check, walk};
use ringtail_engine::wire::{Reader, Value, WireError, put_varint};

// === what OTLP allows, written down a second time ===

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Text,
    Message(&'static Fields),
    /// A message that often comes again with the same bytes.
    Shared(&'static Fields),
    Span,
}

/// Fields of a message; listed several times, they are drawn more often.
struct Fields(&'static [(u32, Kind)]);

static REQUEST: Fields = Fields(&[(1, Kind::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Fields = Fields(&[
    (1, Kind::Shared(&RESOURCE)),
    (2, Kind::Message(&SCOPE_SPANS)),
    (2, Kind::Message(&SCOPE_SPANS)),
    (2, Kind::Message(&SCOPE_SPANS)),
    (3, Kind::Text),
]);
static RESOURCE: Fields = Fields(&[
    (1, Kind::Message(&KEY_VALUE)),
    (2, Kind::Varint),
    (
        3,
        Kind::Message(&Fields(&[
            (1, Kind::Text),
            (2, Kind::Text),
            (3, Kind::Text),
            (4, Kind::Text),
        ])),
    ),
]);
static SCOPE_SPANS: Fields = Fields(&[
    (1, Kind::Shared(&SCOPE)),
    (2, Kind::Span),
    (2, Kind::Span),
    (2, Kind::Span),
    (2, Kind::Span),
    (3, Kind::Text),
]);
static SCOPE: Fields =
    Fields(&[(1, Kind::Text), (2, Kind::Text), (3, Kind::Message(&KEY_VALUE)), (4, Kind::Varint)]);
static SPAN: Fields = Fields(&[
    (2, Kind::Bytes),
    (3, Kind::Text),
    (4, Kind::Bytes),
    (5, Kind::Text),
    (6, Kind::Varint),
    (7, Kind::Fixed64),
    (8, Kind::Fixed64),
    (9, Kind::Message(&KEY_VALUE)),
    (10, Kind::Varint),
    (11, Kind::Message(&EVENT)),
    (12, Kind::Varint),
    (13, Kind::Message(&LINK)),
    (14, Kind::Varint),
    (15, Kind::Message(&Fields(&[(2, Kind::Text), (3, Kind::Varint)]))),
    (16, Kind::Fixed32),
]);
static EVENT: Fields = Fields(&[
    (1, Kind::Fixed64),
    (2, Kind::Text),
    (3, Kind::Message(&KEY_VALUE)),
    (4, Kind::Varint),
]);
static LINK: Fields = Fields(&[
    (1, Kind::Bytes),
    (2, Kind::Bytes),
    (3, Kind::Text),
    (4, Kind::Message(&KEY_VALUE)),
    (5, Kind::Varint),
    (6, Kind::Fixed32),
]);
static KEY_VALUE: Fields =
    Fields(&[(1, Kind::Text), (2, Kind::Message(&ANY_VALUE)), (3, Kind::Varint)]);
static ANY_VALUE: Fields = Fields(&[
    (1, Kind::Text),
    (2, Kind::Varint),
    (3, Kind::Varint),
    (4, Kind::Fixed64),
    (5, Kind::Message(&Fields(&[(1, Kind::Message(&ANY_VALUE))]))),
    (6, Kind::Message(&Fields(&[(1, Kind::Message(&KEY_VALUE))]))),
    (7, Kind::Bytes),
    (8, Kind::Varint),
]);

/// Messages inside messages that are written; more than the scanner accepts, less than what overflows a
/// stack.
const DEPTH_MAX: u32 = 48;

// === the generator ===

/// An `ArrayValue` that holds a value that holds an array, `floors` times.
fn tower(floors: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..floors {
        for number in [5, 1] {
            let mut outer = vec![number << 3 | 2];
            put_varint(&mut outer, out.len() as u64);
            outer.append(&mut out);
            out = outer;
        }
    }
    out
}

/// What is wrong with a request.
#[derive(Clone, Copy, PartialEq)]
enum Vice {
    None,
    WrongType,
    BadText,
    CutOff,
    Flipped,
}

/// A stream of dice. When it has run dry every throw is zero, and zero ends every list.
struct Dice<'a> {
    bytes: &'a [u8],
    vice: Vice,
    shared: Vec<(&'static Fields, Vec<u8>)>,
}

/// The request that these throws make.
pub(crate) fn request(entropy: &[u8]) -> Vec<u8> {
    let mut dice = Dice { bytes: entropy, vice: Vice::None, shared: Vec::new() };
    dice.vice = match dice.below(9) {
        0..=4 => Vice::None,
        5 => Vice::WrongType,
        6 => Vice::BadText,
        7 => Vice::CutOff,
        _ => Vice::Flipped,
    };
    let mut bytes = dice.message(&REQUEST, 1);
    if dice.vice == Vice::CutOff {
        let len = dice.index(bytes.len() + 1);
        bytes.truncate(len);
    }
    if dice.vice == Vice::Flipped {
        for _ in 0..=dice.below(3) {
            let place = dice.index(bytes.len());
            let flip = dice.byte();
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= flip;
            }
        }
    }
    bytes
}

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        *first
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn index(&mut self, end: usize) -> usize {
        let place = usize::from(self.byte()) << 8 | usize::from(self.byte());
        place % end.max(1)
    }

    /// True once in `times`, and never when dry.
    fn once_in(&mut self, times: u8) -> bool {
        self.below(times) == times - 1
    }

    fn message(&mut self, fields: &'static Fields, depth: u32) -> Vec<u8> {
        let mut out = Vec::new();
        // Many spans, fewer attributes: the outer levels are what is split.
        let fields_max = if depth < 4 { 10 } else { 5 };
        for _ in 0..self.below(fields_max) {
            self.any_field(fields, depth, &mut out);
        }
        out
    }

    fn any_field(&mut self, fields: &'static Fields, depth: u32, out: &mut Vec<u8>) {
        if self.once_in(10) {
            return self.unknown_field(0, out);
        }
        if std::ptr::eq(fields, &ANY_VALUE) && self.once_in(30) {
            let tower = tower(usize::from(self.below(20)));
            return self.bytes(5, &tower, out);
        }
        let place = self.index(fields.0.len());
        let (number, kind) = fields.0[place];
        if self.vice == Vice::WrongType && self.once_in(12) {
            return self.random_value(number, 0, out);
        }
        self.field(number, kind, depth, out);
    }

    fn field(&mut self, number: u32, kind: Kind, depth: u32, out: &mut Vec<u8>) {
        match kind {
            Kind::Varint => {
                self.tag(number, 0, out);
                let value = self.number();
                self.varint(value, out);
            }
            Kind::Fixed64 => {
                self.tag(number, 1, out);
                (0..8).for_each(|_| out.push(self.byte()));
            }
            Kind::Fixed32 => {
                self.tag(number, 5, out);
                (0..4).for_each(|_| out.push(self.byte()));
            }
            Kind::Bytes => {
                let value: Vec<u8> = (0..self.below(20)).map(|_| self.byte()).collect();
                self.bytes(number, &value, out);
            }
            Kind::Text => {
                let value = self.text();
                self.bytes(number, &value, out);
            }
            Kind::Message(_) | Kind::Shared(_) | Kind::Span if depth >= DEPTH_MAX => {}
            Kind::Message(inner) => {
                let value = self.message(inner, depth + 1);
                self.bytes(number, &value, out);
            }
            Kind::Shared(inner) => {
                let value = self.shared_message(inner, depth + 1);
                self.bytes(number, &value, out);
            }
            Kind::Span => {
                let value = self.span(depth + 1);
                self.bytes(number, &value, out);
            }
        }
    }

    fn shared_message(&mut self, fields: &'static Fields, depth: u32) -> Vec<u8> {
        if self.once_in(2) {
            let of_its_kind = |(kind, _): &&(&'static Fields, _)| std::ptr::eq(*kind, fields);
            if let Some((_, known)) = self.shared.iter().find(of_its_kind) {
                return known.clone();
            }
        }
        let made = self.message(fields, depth);
        self.shared.push((fields, made.clone()));
        made
    }

    /// A span; its trace ID comes first and once, or late, twice, with a wrong length, zero, or not at all.
    fn span(&mut self, depth: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let oddity = self.below(20);
        if oddity < 14 {
            self.trace_id(&mut out);
        }
        if oddity == 14 {
            self.bytes(1, &[0; 16], &mut out);
        }
        if oddity == 15 || oddity == 16 {
            let len = usize::from(self.below(20));
            self.bytes(1, &[7; 20][..len], &mut out);
        }
        for _ in 0..self.below(8) {
            self.any_field(&SPAN, depth, &mut out);
        }
        if oddity == 16 || oddity == 17 || self.once_in(16) {
            self.trace_id(&mut out);
        }
        if self.once_in(16) {
            self.any_field(&SPAN, depth, &mut out);
        }
        if self.once_in(40) {
            self.bytes(1, &[0; 16], &mut out);
        }
        out
    }

    fn trace_id(&mut self, out: &mut Vec<u8>) {
        // Few different ones, so that spans of a trace meet.
        let mut id = [0; 16];
        id[usize::from(self.below(16))] = 1 + self.below(3);
        self.bytes(1, &id, out);
    }

    fn unknown_field(&mut self, depth: u32, out: &mut Vec<u8>) {
        let number = match self.below(6) {
            0 => 17,
            1 => 1000,
            2 => 99,
            3 => (1 << 29) - 1,
            4 => 18 + u32::from(self.byte()),
            _ => 16 + (u32::from(self.byte()) << 16),
        };
        self.random_value(number, depth, out);
    }

    fn random_value(&mut self, number: u32, depth: u32, out: &mut Vec<u8>) {
        match self.below(5) {
            0 => self.field(number, Kind::Varint, 0, out),
            1 => self.field(number, Kind::Bytes, 0, out),
            2 => self.field(number, Kind::Fixed64, 0, out),
            3 => self.field(number, Kind::Fixed32, 0, out),
            _ if depth > 4 => {}
            _ => {
                self.tag(number, 3, out);
                for _ in 0..self.below(3) {
                    self.unknown_field(depth + 1, out);
                }
                self.tag(number, 4, out);
            }
        }
    }

    fn text(&mut self) -> Vec<u8> {
        if self.vice == Vice::BadText && self.once_in(12) {
            return [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b"0123456789\x80"]
                [usize::from(self.below(4))]
            .to_vec();
        }
        match self.below(6) {
            0 => Vec::new(),
            1 => b"a".to_vec(),
            2 => "Zählerstände, ☃ und 🦝".into(),
            3 => vec![b'x'; 130],
            4 => "service.name".into(),
            _ => format!("{}", self.byte()).into_bytes(),
        }
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => u64::from(self.byte()),
            2 => u64::from(self.byte()) << 27,
            _ => u64::MAX - u64::from(self.byte()),
        }
    }

    fn tag(&mut self, number: u32, wire_type: u32, out: &mut Vec<u8>) {
        self.varint(u64::from(number << 3 | wire_type), out);
    }

    fn bytes(&mut self, number: u32, value: &[u8], out: &mut Vec<u8>) {
        self.tag(number, 2, out);
        self.varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }

    /// A varint, now and then longer than it need be.
    fn varint(&mut self, value: u64, out: &mut Vec<u8>) {
        let start = out.len();
        put_varint(out, value);
        if self.once_in(50) {
            let spare = 10 - (out.len() - start);
            if let Some(last) = out.last_mut().filter(|_| spare > 0) {
                *last |= 0x80;
                let more = usize::from(self.byte()) % spare;
                out.resize(out.len() + more, 0x80);
                out.push(0);
            }
        }
    }
}

// === two oracles ===

/// Everything that belongs to a span: what its resource says, what its scope says, itself.
type Whole = (Vec<u8>, Vec<u8>, Vec<u8>);

/// What prost sees of requests.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    wholes: Vec<Whole>,
    groups: u32,
    invalid: u32,
}

impl Decoded {
    fn add(&mut self, mut request: ExportTraceServiceRequest) {
        for resource in &mut request.resource_spans {
            let scopes = std::mem::take(&mut resource.scope_spans);
            // Encoded again rather than compared as structs: a NaN would not equal itself.
            let resource = resource.encode_to_vec();
            for mut scope in scopes {
                let spans = std::mem::take(&mut scope.spans);
                let scope = scope.encode_to_vec();
                let before = self.wholes.len();
                for span in spans {
                    if span.trace_id.len() == 16 && span.trace_id.iter().any(|byte| *byte != 0) {
                        self.wholes.push((resource.clone(), scope.clone(), span.encode_to_vec()));
                    } else {
                        self.invalid += 1;
                    }
                }
                self.groups += u32::from(self.wholes.len() > before);
            }
        }
        self.wholes.sort_unstable();
    }
}

/// What a simple reader sees of requests that are well formed: the bytes themselves, unknown fields included.
#[derive(Debug, Default)]
struct Raw {
    wholes: Vec<Whole>,
    loose: Vec<Vec<u8>>,
    shape: (u64, u64, u32, u32),
}

impl Raw {
    fn add(&mut self, request: &[u8]) {
        let (resources, loose) = fields_of(request, &[1], &[]);
        self.shape.3 += loose.len() as u32;
        self.loose.extend(loose);
        self.loose.sort_unstable();
        for resource in resources {
            let (scopes, header) = fields_of(resource, &[2], &[1000]);
            let legacy = fields_of(resource, &[1000], &[]);
            self.shape.2 += (legacy.0.len() + legacy.1.len() - header.len() - scopes.len()) as u32;
            let header = header.concat();
            let before = self.wholes.len();
            for scope in scopes {
                self.add_scope(&header, scope);
            }
            if self.wholes.len() > before {
                self.shape.1 += header.len() as u64;
            }
        }
        self.wholes.sort_unstable();
    }

    fn add_scope(&mut self, resource: &[u8], scope: &[u8]) {
        let (spans, header) = fields_of(scope, &[2], &[]);
        let header = header.concat();
        let before = self.wholes.len();
        for span in spans {
            let ids = fields_of(span, &[1], &[]).0;
            if ids.last().is_some_and(|id| id.len() == 16 && **id != [0; 16]) {
                self.shape.0 += span.len() as u64;
                self.wholes.push((resource.to_vec(), header.clone(), span.to_vec()));
            }
        }
        if self.wholes.len() > before {
            self.shape.1 += header.len() as u64;
        }
    }
}

/// The bodies of the fields that are children, and the other fields as they stand, without those left out.
fn fields_of<'a>(
    message: &'a [u8],
    children: &[u32],
    left_out: &[u32],
) -> (Vec<&'a [u8]>, Vec<Vec<u8>>) {
    let (mut bodies, mut others) = (Vec::new(), Vec::new());
    let mut fields = Reader::new(message);
    while let Some(field) = fields.next_field().unwrap() {
        match field.value {
            Value::Bytes(body) if children.contains(&field.number) => bodies.push(body),
            _ if left_out.contains(&field.number) => {}
            _ => others.push(field.raw.to_vec()),
        }
    }
    (bodies, others)
}

// === what must hold ===

/// Everything that a walk says, in its order.
#[derive(Debug, Default, PartialEq)]
struct Record {
    events: Vec<Event>,
}

#[derive(Debug, PartialEq)]
enum Event {
    Group(Vec<u8>, Vec<u8>),
    Span(TraceId, Vec<u8>),
    Invalid(Vec<u8>),
    Loose(Vec<u8>),
}

impl Visit for Record {
    fn group(&mut self, group: &Group<'_>) {
        self.events.push(Event::Group(group.resource.bytes().into(), group.scope.bytes().into()));
    }
    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        self.events.push(Event::Span(*id, span.into()));
    }
    fn invalid_span(&mut self, span: &[u8]) {
        self.events.push(Event::Invalid(span.into()));
    }
    fn loose(&mut self, raw: &[u8]) {
        self.events.push(Event::Loose(raw.into()));
    }
}

/// Spans by the hash of their trace ID.
struct Split {
    batches: Vec<Batch>,
    /// The group that is being walked, in the batches that have it already.
    groups: Vec<Option<GroupRef>>,
    invalid: u32,
}

impl Visit for Split {
    fn group(&mut self, _: &Group<'_>) {
        self.groups.fill(None);
    }
    fn span(&mut self, group: &Group<'_>, id: &TraceId, span: &[u8]) {
        let sum = id.iter().fold(7_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
        let place = sum % self.batches.len();
        let batch = &mut self.batches[place];
        let group =
            self.groups[place].get_or_insert_with(|| batch.intern(&group.resource, &group.scope));
        batch.push(*group, span);
    }
    fn invalid_span(&mut self, _: &[u8]) {
        self.invalid += 1;
    }
    fn loose(&mut self, raw: &[u8]) {
        self.batches[0].push_loose(raw);
    }
}

/// Whether the scanner refuses what decoders accept: what is nested too deeply, or has too many spans.
fn is_limit(error: ScanError) -> bool {
    matches!(
        error,
        ScanError::TooDeep(_)
            | ScanError::HeadersTooLong(_)
            | ScanError::TooManySpans(_)
            | ScanError::Wire(WireError::TooDeep(_))
    )
}

/// Checks one request against prost; gives its shape when it is accepted.
pub(crate) fn examine(request: &[u8]) -> Option<Shape> {
    let decoded = ExportTraceServiceRequest::decode(request);
    let checked = check(request, &ScanLimits::default());
    let shape = match checked {
        Ok(shape) => shape,
        Err(error) => {
            assert!(decoded.is_err() || is_limit(error), "refused ({error}): {request:02x?}");
            // A walk of what was refused may fail or not, but it ends, and it does not panic.
            for shape in [Shape::default(), Shape::UNKNOWN] {
                let _ = walk(request, &shape, &mut Record::default());
            }
            return None;
        }
    };
    let decoded = decoded.unwrap_or_else(|error| panic!("accepted ({error}): {request:02x?}"));

    let mut truth = Decoded::default();
    truth.add(decoded);
    assert_eq!(shape.spans as usize, truth.wholes.len());
    assert_eq!(shape.invalid_ids, truth.invalid);
    assert_eq!(shape.groups, truth.groups);
    let mut raw = Raw::default();
    raw.add(request);
    let sizes =
        (shape.span_bytes, shape.header_bytes, shape.legacy_fields, shape.unknown_request_fields);
    assert_eq!(sizes, raw.shape, "{request:02x?}");

    let (mut quick, mut thorough) = (Record::default(), Record::default());
    walk(request, &shape, &mut quick).unwrap();
    walk(request, &Shape::UNKNOWN, &mut thorough).unwrap();
    assert_eq!(quick, thorough, "{request:02x?}");
    Some(shape)
}

/// Splits requests over `parts` batches; the batches together must hold what the requests held.
pub(crate) fn split(requests: &[Vec<u8>], parts: usize) {
    let (mut decoded_before, mut raw_before) = (Decoded::default(), Raw::default());
    let batches = (0..parts).map(|_| Batch::new()).collect();
    let mut split = Split { batches, groups: vec![None; parts], invalid: 0 };
    for request in requests {
        let Some(shape) = examine(request) else {
            continue;
        };
        decoded_before.add(ExportTraceServiceRequest::decode(&request[..]).unwrap());
        raw_before.add(request);
        walk(request, &shape, &mut split).unwrap();
    }
    assert_eq!(split.invalid, decoded_before.invalid);

    let (mut decoded_after, mut raw_after) = (Decoded::default(), Raw::default());
    for batch in &mut split.batches {
        let mut out = b"before".to_vec();
        batch.encode(&mut out);
        let out = out.strip_prefix(b"before").unwrap();
        assert_eq!(out.len(), batch.encoded_len());
        assert!(out.len() <= batch.encoded_len_max());
        assert!(batch.held_bytes() >= out.len() / 2);
        assert_eq!(batch.is_empty(), batch.spans() == 0);
        let shape = examine(out).unwrap();
        assert_eq!(shape.spans, batch.spans());
        assert_eq!(shape.legacy_fields, 0);
        decoded_after.add(ExportTraceServiceRequest::decode(out).unwrap());
        raw_after.add(out);
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!((batch.encoded_len(), batch.encoded_len_max()), (0, 0));
    }
    assert_eq!(decoded_after.invalid, 0);
    assert_eq!(decoded_after.wholes, decoded_before.wholes);
    assert_eq!(raw_after.wholes, raw_before.wholes);
    assert_eq!(raw_after.loose, raw_before.loose);
}
