//! What arrived at a sink, held against the truth: whole, once, unaltered, and rightly kept.

use std::ops::Range;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use ringtail_engine::wire::{Reader, Value};
use serde::Serialize;

use crate::failure::Result;
use crate::template::SpanTemplate;
use crate::truth::{Policies, SPANS, TraceId, World};

/// All spans of a trace have arrived.
const WHOLE: u8 = u8::MAX;
const _: () = assert!(SPANS == u8::BITS as usize, "the mask of a trace has one bit a span");

/// Traces beyond this are not of any load: 2^28 masks are 256 MiB.
const TRACES_MAX: u64 = 1 << 28;

/// One in this many spans whose bytes were rewritten is decoded: decoding all would cost more than what is
/// measured.
const DECODE_EVERY: u64 = 64;

/// Empty fields that a re-encoding may add: tag and length of an empty parent ID.
const SURPLUS_MAX: usize = 2;

/// Spans seen so far.
pub struct Check {
    world: World,
    templates: Vec<SpanTemplate>,
    /// One bit a span, by the index of its trace.
    masks: Vec<u8>,
    doubled: u64,
    rewritten: u64,
    altered: u64,
    foreign: u64,
    scratch: Vec<u8>,
}

/// The verdict; all but the first three and `rewritten_spans` count mistakes and are 0 if all is well.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing missing, doubled, altered, foreign or wrongly decided.
    pub right: bool,
    /// Traces that were sent.
    pub traces: u64,
    /// Traces that had to arrive and did, with all their spans.
    pub kept_whole: u64,
    /// Traces that had to arrive and did not at all.
    pub missing_traces: u64,
    /// Traces that had to arrive and did in part.
    pub incomplete_traces: u64,
    /// Spans that had to arrive and did not.
    pub missing_spans: u64,
    /// Traces that had to be dropped and arrived, whole or in part.
    pub wrongly_kept: u64,
    /// Traces that arrived and were never sent.
    pub unexpected_traces: u64,
    /// Spans that arrived again.
    pub doubled_spans: u64,
    /// Spans with other bytes than were sent, whether they say the same or not.
    pub rewritten_spans: u64,
    /// Spans that say something else than was sent; of rewritten spans only every 64th is looked at.
    pub altered_spans: u64,
    /// Spans of no trace of this load.
    pub foreign_spans: u64,
}

impl Check {
    /// A check of the world's spans, of which none has arrived.
    pub fn new(world: World) -> Result<Self> {
        Ok(Self {
            world,
            templates: SpanTemplate::all()?,
            masks: Vec::new(),
            doubled: 0,
            rewritten: 0,
            altered: 0,
            foreign: 0,
            scratch: Vec::new(),
        })
    }

    /// Takes note of a span that arrived, and says which one it is: index of its trace, and its number.
    pub fn note(&mut self, id: &TraceId, body: &[u8]) -> Option<(u64, usize)> {
        let Some((index, number)) = self.identify(id, body) else {
            self.foreign += 1;
            return None;
        };
        if self.masks.len() <= index as usize {
            self.masks.resize(index as usize + 1, 0);
        }
        let mask = &mut self.masks[index as usize];
        let bit = 1 << number;
        self.doubled += u64::from(*mask & bit != 0);
        *mask |= bit;
        self.templates[number].render(&self.world, &self.world.trace(index), &mut self.scratch);
        if self.scratch != body {
            self.note_rewritten(number, body);
        }
        Some((index, number))
    }

    /// Other bytes may still say the same: a Collector writes the fields of a span in another order.
    fn note_rewritten(&mut self, number: usize, body: &[u8]) {
        let surplus = body.len().abs_diff(self.templates[number].encoded_len());
        if surplus > SURPLUS_MAX || self.rewritten.is_multiple_of(DECODE_EVERY) {
            let same = matches!(
                (Span::decode(body), Span::decode(&self.scratch[..])),
                (Ok(arrived), Ok(sent)) if arrived == sent
            );
            self.altered += u64::from(!same);
        }
        self.rewritten += 1;
    }

    /// A span without a usable trace ID arrived.
    pub fn note_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Which span of which trace this is, if trace ID and span ID agree.
    fn identify(&self, id: &TraceId, body: &[u8]) -> Option<(u64, usize)> {
        let index = self.world.index_of(id).filter(|index| *index < TRACES_MAX)?;
        let (of, number) = self.world.span_of(&span_id(body)?);
        (of == index).then_some((index, number))
    }

    /// The verdict, given which traces were sent and which policies decided.
    pub fn report(&self, sent: &[Range<u64>], policies: &Policies) -> Report {
        let mut report = Report {
            doubled_spans: self.doubled,
            rewritten_spans: self.rewritten,
            altered_spans: self.altered,
            foreign_spans: self.foreign,
            ..Report::default()
        };
        for index in sent.iter().cloned().flatten() {
            let mask = self.masks.get(index as usize).copied().unwrap_or(0);
            report.judge(self.world.trace(index).kept_by(policies), mask);
        }
        let arrived = (0..).zip(&self.masks).filter(|(_, mask)| **mask != 0);
        report.unexpected_traces = arrived
            .filter(|(index, _)| !sent.iter().any(|range| range.contains(index)))
            .count() as u64;
        let mistakes = Report { traces: 0, kept_whole: 0, rewritten_spans: 0, ..report };
        report.right = mistakes == Report::default();
        report
    }
}

impl Report {
    fn judge(&mut self, keep: bool, mask: u8) {
        self.traces += 1;
        match (keep, mask) {
            (true, WHOLE) => self.kept_whole += 1,
            (true, 0) => self.missing_traces += 1,
            (true, _) => self.incomplete_traces += 1,
            (false, 0) => {}
            (false, _) => self.wrongly_kept += 1,
        }
        if keep {
            self.missing_spans += u64::from(mask.count_zeros());
        }
    }
}

/// The span ID of an encoded span: field 2, the last one if it is there more than once.
fn span_id(body: &[u8]) -> Option<[u8; 8]> {
    let mut reader = Reader::new(body);
    let mut id = None;
    while let Some(field) = reader.next_field().ok()? {
        match (field.number, field.value) {
            (2, Value::Bytes(bytes)) => id = bytes.try_into().ok(),
            (3.., _) if id.is_some() => break,
            _ => {}
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACES: u64 = 300;

    /// What reaches the sink if everything is right, then what a mistake makes of it.
    fn report(policies: Policies, mistake: impl FnOnce(&mut Vec<(u64, usize, Vec<u8>)>)) -> Report {
        let world = World::new(11);
        let templates = SpanTemplate::all().unwrap();
        let mut spans = Vec::new();
        for index in (0..TRACES).filter(|index| world.trace(*index).kept_by(&policies)) {
            for (number, template) in templates.iter().enumerate() {
                let mut body = Vec::new();
                template.render(&world, &world.trace(index), &mut body);
                spans.push((index, number, body));
            }
        }
        mistake(&mut spans);
        let mut check = Check::new(world).unwrap();
        for (index, _, body) in &spans {
            check.note(&world.trace(*index).id, body);
        }
        check.report(&[0..100, 100..TRACES], &policies)
    }

    #[test]
    fn what_is_right_is_called_right() {
        for policies in [Policies::EVERYTHING, Policies::THREE] {
            let report = report(policies, |_| {});
            assert!(report.right, "{report:?}");
            assert_eq!(report.traces, TRACES);
            assert!(report.kept_whole > 0);
        }
    }

    #[test]
    fn a_missing_span_is_noticed() {
        let report = report(Policies::THREE, |spans| {
            spans.pop();
        });
        assert!(!report.right);
        assert_eq!((report.incomplete_traces, report.missing_spans), (1, 1));
    }

    #[test]
    fn a_missing_trace_is_noticed() {
        let report = report(Policies::THREE, |spans| {
            spans.drain(..SPANS);
        });
        assert!(!report.right);
        assert_eq!((report.missing_traces, report.missing_spans), (1, SPANS as u64));
    }

    #[test]
    fn a_doubled_span_is_noticed() {
        let report = report(Policies::THREE, |spans| spans.push(spans[3].clone()));
        assert!(!report.right);
        assert_eq!(report.doubled_spans, 1);
    }

    #[test]
    fn a_trace_kept_by_mistake_is_noticed() {
        let world = World::new(11);
        let dropped = (0..TRACES).find(|index| !world.trace(*index).kept_by(&Policies::THREE));
        let index = dropped.unwrap();
        let report = report(Policies::THREE, |spans| {
            let mut body = Vec::new();
            SpanTemplate::new(0).unwrap().render(&world, &world.trace(index), &mut body);
            spans.push((index, 0, body));
        });
        assert!(!report.right);
        assert_eq!(report.wrongly_kept, 1);
    }

    #[test]
    fn an_altered_span_is_noticed() {
        let report = report(Policies::THREE, |spans| {
            let last = spans[5].2.len() - 1;
            spans[5].2[last] ^= 1;
        });
        assert!(!report.right);
        assert_eq!((report.altered_spans, report.missing_spans), (1, 0));
    }

    #[test]
    fn a_rewritten_span_that_says_the_same_is_right() {
        let report = report(Policies::THREE, |spans| {
            // An explicit empty trace state: other bytes, same meaning.
            spans[0].2.extend([0x1a, 0]);
        });
        assert!(report.right, "{report:?}");
        assert_eq!((report.rewritten_spans, report.altered_spans), (1, 0));
    }

    #[test]
    fn a_span_that_was_cut_is_noticed_among_many() {
        let report = report(Policies::THREE, |spans| {
            for (_, _, body) in spans.iter_mut() {
                body.extend([0x1a, 0]);
            }
            // Without its flags, at the end: too short to be the same.
            let cut = spans[77].2.len() - 9;
            spans[77].2.truncate(cut);
        });
        assert!(!report.right);
        assert_eq!(report.altered_spans, 1);
    }

    #[test]
    fn a_trace_that_was_never_sent_is_noticed() {
        let world = World::new(11);
        let report = report(Policies::THREE, |spans| {
            let mut body = Vec::new();
            SpanTemplate::new(0).unwrap().render(&world, &world.trace(5000), &mut body);
            spans.push((5000, 0, body));
        });
        assert!(!report.right);
        assert_eq!(report.unexpected_traces, 1);
    }

    #[test]
    fn a_span_under_a_foreign_trace_id_is_noticed() {
        let report = report(Policies::EVERYTHING, |spans| {
            // The bytes of one trace's span under the ID of another.
            spans[0].0 = 7;
        });
        assert!(!report.right);
        assert_eq!((report.foreign_spans, report.missing_spans), (1, 1));
    }
}
