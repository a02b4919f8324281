//! A request without the spans that are wrong: what a sender gets for it is a partial success instead of a
//! refusal.
//!
//! A span is bytes of a known length, so whatever is wrong inside of it leaves the others readable. Only a
//! request that [`super::check`] has refused comes here, so it costs nothing otherwise.

use super::check::validate;
use super::{CHILDREN, RESOURCE_SPANS, SPAN_DEPTH, ScanError, ScanLimits};
use crate::schema;
use crate::wire::{Reader, Value, begin, finish};

/// What is left of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// The request without them; never longer than it was.
    pub request: Vec<u8>,
    /// Spans that are not in it.
    pub left_out: u32,
    /// What is wrong with the first of them.
    pub why: Option<ScanError>,
}

/// Leaves out the spans that are wrong. Nothing else is judged: the rest has to be checked again.
///
/// # Errors
/// When the framing outside of spans is wrong.
pub fn mend(request: &[u8], limits: &ScanLimits) -> Result<Mended, ScanError> {
    Mended::of(request, &schema::SPAN, limits)
}

impl Mended {
    /// The same for any request whose leaves, at the level of spans, are such messages.
    pub(super) fn of(
        request: &[u8],
        leaf: &'static schema::Message,
        limits: &ScanLimits,
    ) -> Result<Self, ScanError> {
        let mut mended = Self { request: Vec::with_capacity(request.len()), ..Self::default() };
        mended.children(request, (RESOURCE_SPANS, 1), leaf, limits)?;
        Ok(mended)
    }

    /// Copies a message of `level` 1 (request) to 3 (scope); its children are in field `number`.
    fn children(
        &mut self,
        message: &[u8],
        (number, level): (u32, u32),
        leaf: &'static schema::Message,
        limits: &ScanLimits,
    ) -> Result<(), ScanError> {
        let mut fields = Reader::new(message);
        while let Some(field) = fields.next_field()? {
            match field.value {
                Value::Bytes(span) if field.number == number && level + 1 == SPAN_DEPTH => {
                    match validate(span, leaf, SPAN_DEPTH, limits) {
                        Ok(()) => self.request.extend_from_slice(field.raw),
                        Err(error) => {
                            self.left_out = self.left_out.saturating_add(1);
                            self.why.get_or_insert(error);
                        }
                    }
                }
                Value::Bytes(child) if field.number == number => {
                    self.request.push((number << 3 | 2) as u8);
                    let start = begin(&mut self.request);
                    self.children(child, (CHILDREN, level + 1), leaf, limits)?;
                    finish(&mut self.request, start);
                }
                _ => self.request.extend_from_slice(field.raw),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Shape, check};
    use super::*;
    use crate::wire::put_varint;

    pub(in crate::scan) fn field(number: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, u64::from(number << 3 | 2));
        put_varint(&mut out, body.len() as u64);
        out.extend(body);
        out
    }

    fn span(rest: &[u8]) -> Vec<u8> {
        [field(1, &[7; 16]), rest.to_vec()].concat()
    }

    /// A request with these spans, or records of log requests, whose framing is the same.
    pub(in crate::scan) fn request(spans: &[Vec<u8>]) -> Vec<u8> {
        let spans: Vec<u8> = spans.iter().flat_map(|span| field(2, span)).collect();
        field(1, &[field(1, &field(1, &field(1, b"k"))), field(2, &spans)].concat())
    }

    #[test]
    fn a_wrong_span_goes_and_the_others_stay() {
        let limits = ScanLimits::default();
        let mut deep = field(1, b"x");
        for _ in 0..100 {
            deep = field(5, &field(1, &deep));
        }
        let wrong: [(&str, Vec<u8>, ScanError); 4] = [
            ("not UTF-8", field(5, &[0xff]), ScanError::Text(5)),
            ("too deep", field(9, &field(2, &deep)), ScanError::TooDeep(32)),
            ("cut off", vec![0x2a, 9], crate::wire::WireError::Truncated.into()),
            ("of another type", vec![0x28, 1], crate::wire::WireError::WrongType(5).into()),
        ];
        for (name, wrong, why) in wrong {
            let good = request(&[span(&field(5, b"a")), span(&field(5, b"b"))]);
            let mixed = request(&[span(&field(5, b"a")), span(&wrong), span(&field(5, b"b"))]);
            assert_eq!(check(&mixed, &limits), Err(why), "{name}");
            let mended = mend(&mixed, &limits).unwrap();
            assert_eq!(mended, Mended { request: good, left_out: 1, why: Some(why) }, "{name}");
            assert_eq!(check(&mended.request, &limits).unwrap().spans, 2, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_outside_of_spans_is_not_mended() {
        let limits = ScanLimits::default();
        let whole = request(&[span(&[])]);
        let cut = &whole[..whole.len() - 1];
        assert!(mend(cut, &limits).is_err());
        // A resource with a wrong text: nothing is left out, and the check still refuses it.
        let resource = field(1, &field(1, &field(1, &field(1, &[0xff]))));
        let mended = mend(&resource, &limits).unwrap();
        assert_eq!((mended.left_out, &mended.request), (0, &resource));
        assert!(check(&mended.request, &limits).is_err());
        assert_eq!(check(&[], &limits), Ok(Shape::default()));
    }

    #[test]
    fn any_bytes_are_mended_to_something_that_is_no_longer_and_stays() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let limits = ScanLimits::default();
            let Ok(mended) = mend(bytes, &limits) else { return };
            assert!(mended.request.len() <= bytes.len());
            let again = mend(&mended.request, &limits).unwrap();
            assert_eq!((again.left_out, &again.request), (0, &mended.request));
        });
    }
}
