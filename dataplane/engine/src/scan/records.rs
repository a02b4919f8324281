//! The same for log requests: their framing is that of trace requests, with records in the place of spans.
//!
//! A record's trace ID is its field 9, and need not be there: such a record is a *stray*. Records are walked
//! field by field; that of a trace costs two passes over its fields, which are few.

use super::check::{limit_headers, text, validate};
use super::mend::Mended;
use super::{CHILDREN, Group, Headers, LEGACY_SPANS, RESOURCE_SPANS, SPAN_DEPTH};
use super::{ScanError, ScanLimits, Shape, TraceId, Visit, headers_of, valid_id};
use crate::schema;
use crate::wire::{Reader, Value, WireError};

/// Field 9 of a log record.
const TRACE_ID: u32 = 9;

/// What [`check_logs`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The shape of the request; its spans are all records, strays included.
    pub shape: Shape,
    /// Records that belong to no trace.
    pub strays: u32,
}

/// Validates all framing of a log request down to the last attribute, and counts what is in it.
///
/// # Errors
/// When a decoder would refuse the request, or it passes a limit.
pub fn check_logs(request: &[u8], limits: &ScanLimits) -> Result<Records, ScanError> {
    let mut found = Records { shape: Shape { odd_ids: 1, ..Shape::default() }, strays: 0 };
    let mut fields = Reader::new(request);
    while let Some(field) = fields.next_field()? {
        match (field.number, field.value) {
            (RESOURCE_SPANS, Value::Bytes(resource)) => found.resource(resource, limits)?,
            (RESOURCE_SPANS, _) => return Err(WireError::WrongType(RESOURCE_SPANS).into()),
            _ => found.shape.unknown_request_fields += 1,
        }
    }
    Ok(found)
}

/// Leaves out the records that are wrong, as [`super::mend()`] does with spans.
///
/// # Errors
/// When the framing outside of records is wrong.
pub fn mend_logs(request: &[u8], limits: &ScanLimits) -> Result<Mended, ScanError> {
    Mended::of(request, &schema::LOG_RECORD, limits)
}

/// Visits every group of a log request, every record of a trace as a span, and every stray.
///
/// # Errors
/// At the first field that is malformed; a request that passed [`check_logs`] has none.
pub fn walk_logs(request: &[u8], visitor: &mut impl Visit) -> Result<(), ScanError> {
    let (mut resource_pieces, mut scope_pieces) = (Vec::new(), Vec::new());
    let mut fields = Reader::new(request);
    while let Some(field) = fields.next_field()? {
        let Value::Bytes(bytes) = field.value else { continue };
        if field.number != RESOURCE_SPANS {
            continue;
        }
        let resource = headers_of(bytes, &[CHILDREN, LEGACY_SPANS], &mut resource_pieces)?;
        let resource = resource.map_or_else(|| Headers::whole(&resource_pieces), Headers::whole);
        let mut fields = Reader::new(bytes);
        while let Some(field) = fields.next_field()? {
            if let (CHILDREN, Value::Bytes(scope)) = (field.number, field.value) {
                walk_scope(scope, resource, &mut scope_pieces, visitor)?;
            }
        }
    }
    Ok(())
}

fn walk_scope(
    bytes: &[u8],
    resource: Headers<'_>,
    pieces: &mut Vec<u8>,
    visitor: &mut impl Visit,
) -> Result<(), ScanError> {
    let scope = headers_of(bytes, &[CHILDREN], pieces)?;
    let scope = scope.map_or_else(|| Headers::whole(pieces), Headers::whole);
    let group = Group { resource, scope };
    let mut announced = false;
    let mut fields = Reader::new(bytes);
    while let Some(field) = fields.next_field()? {
        let (CHILDREN, Value::Bytes(record)) = (field.number, field.value) else { continue };
        if !std::mem::replace(&mut announced, true) {
            visitor.group(&group);
        }
        match id_of(record)? {
            Some(id) => visitor.span(&group, id, record),
            None => visitor.stray(&group, record),
        }
    }
    Ok(())
}

/// The trace of a record: of a field that is set twice the last one counts.
fn id_of(record: &[u8]) -> Result<Option<&TraceId>, ScanError> {
    let mut id: &[u8] = &[];
    let mut fields = Reader::new(record);
    while let Some(field) = fields.next_field()? {
        if let (TRACE_ID, Value::Bytes(bytes)) = (field.number, field.value) {
            id = bytes;
        }
    }
    Ok(valid_id(id))
}

// === impl Records ===

impl Records {
    fn resource(&mut self, bytes: &[u8], limits: &ScanLimits) -> Result<(), ScanError> {
        let (mut header_bytes, before) = (0, self.shape.groups);
        let mut fields = Reader::new(bytes);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (CHILDREN, Value::Bytes(scope)) => {
                    self.scope(scope, limits)?;
                    continue;
                }
                (LEGACY_SPANS, _) => {
                    self.shape.legacy_fields += 1;
                    continue;
                }
                (1, Value::Bytes(resource)) => validate(resource, &schema::RESOURCE, 3, limits)?,
                (3, Value::Bytes(url)) => text(url, 3)?,
                (1..=3, _) => return Err(WireError::WrongType(field.number).into()),
                _ => {}
            }
            header_bytes += field.raw.len() as u64;
        }
        if self.shape.groups > before {
            self.shape.header_bytes += header_bytes;
        }
        limit_headers(header_bytes, limits)
    }

    fn scope(&mut self, bytes: &[u8], limits: &ScanLimits) -> Result<(), ScanError> {
        let (mut header_bytes, before) = (0, self.shape.spans);
        let mut fields = Reader::new(bytes);
        while let Some(field) = fields.next_field()? {
            match (field.number, field.value) {
                (CHILDREN, Value::Bytes(record)) => {
                    self.record(record, limits)?;
                    continue;
                }
                (1, Value::Bytes(scope)) => validate(scope, &schema::SCOPE, SPAN_DEPTH, limits)?,
                (3, Value::Bytes(url)) => text(url, 3)?,
                (1..=3, _) => return Err(WireError::WrongType(field.number).into()),
                _ => {}
            }
            header_bytes += field.raw.len() as u64;
        }
        if self.shape.spans > before {
            self.shape.groups += 1;
            self.shape.header_bytes += header_bytes;
        }
        limit_headers(header_bytes, limits)
    }

    fn record(&mut self, record: &[u8], limits: &ScanLimits) -> Result<(), ScanError> {
        validate(record, &schema::LOG_RECORD, SPAN_DEPTH, limits)?;
        self.strays += u32::from(id_of(record)?.is_none());
        self.shape.spans += 1;
        self.shape.span_bytes += record.len() as u64;
        if self.shape.spans > limits.max_spans {
            return Err(ScanError::TooManySpans(limits.max_spans));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mend::tests::{field, request};
    use super::*;

    #[derive(Default)]
    struct Seen {
        of_traces: Vec<TraceId>,
        strays: usize,
        groups: usize,
    }

    impl Visit for Seen {
        fn group(&mut self, _group: &Group<'_>) {
            self.groups += 1;
        }
        fn span(&mut self, _group: &Group<'_>, id: &TraceId, _record: &[u8]) {
            self.of_traces.push(*id);
        }
        fn stray(&mut self, _group: &Group<'_>, _record: &[u8]) {
            self.strays += 1;
        }
    }

    #[test]
    fn a_record_belongs_to_the_trace_of_its_last_id() {
        let body = field(5, &field(1, b"hello"));
        let with = |ids: &[&[u8]]| {
            let ids = ids.iter().flat_map(|id| field(9, id));
            body.iter().copied().chain(ids).collect::<Vec<u8>>()
        };
        let cases: [(&str, Vec<u8>, Option<TraceId>); 6] = [
            ("none", with(&[]), None),
            ("empty", with(&[b""]), None),
            ("zero", with(&[&[0; 16]]), None),
            ("short", with(&[&[7; 15]]), None),
            ("whole", with(&[&[7; 16]]), Some([7; 16])),
            ("twice", with(&[&[7; 16], &[8; 16]]), Some([8; 16])),
        ];
        let limits = ScanLimits::default();
        for (name, record, id) in cases {
            let request = request(&[record]);
            let found = check_logs(&request, &limits).unwrap();
            assert_eq!((found.shape.spans, found.strays), (1, u32::from(id.is_none())), "{name}");
            let mut seen = Seen::default();
            walk_logs(&request, &mut seen).unwrap();
            assert_eq!(seen.of_traces, id.into_iter().collect::<Vec<_>>(), "{name}");
            assert_eq!((seen.strays, seen.groups), (usize::from(id.is_none()), 1), "{name}");
        }
    }

    #[test]
    fn a_wrong_record_goes_and_the_others_stay() {
        let limits = ScanLimits::default();
        let mut deep = field(1, b"x");
        for _ in 0..100 {
            deep = field(5, &field(1, &deep));
        }
        let wrong = [
            ("not UTF-8", field(3, &[0xff])),
            ("too deep", field(5, &deep)),
            ("cut off", vec![0x2a, 9]),
            ("of another type", vec![0x28, 1]),
        ];
        let good = [field(9, &[7; 16]), field(9, &[8; 16])];
        for (name, wrong) in wrong {
            let mixed = request(&[good[0].clone(), wrong, good[1].clone()]);
            let error = check_logs(&mixed, &limits).unwrap_err();
            let mended = mend_logs(&mixed, &limits).unwrap();
            assert_eq!((mended.left_out, mended.why), (1, Some(error)), "{name}");
            assert_eq!(mended.request, request(&good), "{name}");
        }
        let many = ScanLimits { max_spans: 1, ..limits };
        assert_eq!(check_logs(&request(&good), &many), Err(ScanError::TooManySpans(1)));
        let short = ScanLimits { max_header_bytes: 3, ..limits };
        assert_eq!(check_logs(&request(&good), &short), Err(ScanError::HeadersTooLong(3)));
    }
}
