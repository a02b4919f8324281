//! What a program needs to know of a span and of a trace: numbers, never bytes.
//!
//! Facts are taken while a span's bytes are in the cache, at insert; a decision reads nothing else.

/// The facts of one span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpanFacts {
    /// Start in nanoseconds since 1970; 0 when the span does not say.
    pub start_ns: u64,
    /// End in nanoseconds since 1970; 0 when the span does not say.
    pub end_ns: u64,
    /// The bit of the span's status, see [`Status::bit`](crate::policy::Status::bit); none for a code that
    /// OTLP does not know.
    pub statuses: u8,
    /// Whether the span has no parent.
    pub root: bool,
    /// One bit a predicate of the program that the span's attributes satisfy.
    pub bits: u64,
    /// See [`TraceFacts::drawn`].
    pub drawn: u8,
}

/// The facts of a trace: those of its spans and resources, joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceFacts {
    /// The trace ID; probabilities are decided by it.
    pub id: [u8; 16],
    /// How many spans there are.
    pub spans: u32,
    /// How many bytes they have.
    pub bytes: u64,
    /// The earliest start; 0 when no span has one.
    pub start_ns: u64,
    /// The latest end; 0 when no span has one.
    pub end_ns: u64,
    /// The bits of all statuses.
    pub statuses: u8,
    /// Whether a span without a parent was seen.
    pub root: bool,
    /// The predicates that any span or any of their resources satisfies.
    pub bits: u64,
    /// What the trace state of its spans says of sampling, if the program asks: 0 for nothing, 1 for
    /// something without a randomness, else two more than the number of probabilistic levels of the program
    /// that the randomness passes.
    pub drawn: u8,
}

impl TraceFacts {
    /// The facts of a trace without spans.
    pub const fn new(id: [u8; 16]) -> Self {
        Self {
            id,
            spans: 0,
            bytes: 0,
            start_ns: 0,
            end_ns: 0,
            statuses: 0,
            root: false,
            bits: 0,
            drawn: 0,
        }
    }

    /// Joins a span of `bytes` bytes whose resource satisfies the predicates `resource_bits`.
    #[inline]
    pub fn add(&mut self, span: &SpanFacts, resource_bits: u64, bytes: u64) {
        self.spans = self.spans.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        // A start that is not set must not become the minimum: it would make the trace half a century long.
        if span.start_ns != 0 && (self.start_ns == 0 || span.start_ns < self.start_ns) {
            self.start_ns = span.start_ns;
        }
        self.end_ns = self.end_ns.max(span.end_ns);
        self.statuses |= span.statuses;
        self.root |= span.root;
        self.bits |= span.bits | resource_bits;
        // All spans of a trace say the same. Should they not, the order of their arrival must not matter.
        self.drawn = self.drawn.max(span.drawn);
    }

    /// From the first start to the last end in whole milliseconds, rounded down; 0 when it would be negative,
    /// `None` when no span has a start or none has an end.
    pub const fn duration_ms(&self) -> Option<u64> {
        match (self.start_ns, self.end_ns) {
            (0, _) | (_, 0) => None,
            (start, end) => Some(end.saturating_sub(start) / 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(spans: &[(u64, u64)]) -> TraceFacts {
        let mut facts = TraceFacts::new([1; 16]);
        for (start_ns, end_ns) in spans {
            facts.add(
                &SpanFacts { start_ns: *start_ns, end_ns: *end_ns, ..SpanFacts::default() },
                0,
                10,
            );
        }
        facts
    }

    #[test]
    fn durations_span_the_trace_and_skip_what_is_not_set() {
        const MS: u64 = 1_000_000;
        type Case<'a> = (&'a [(u64, u64)], Option<u64>);
        let cases: [Case<'_>; 9] = [
            (&[], None),
            (&[(5 * MS, 7 * MS)], Some(2)),
            (&[(5 * MS, 7 * MS - 1)], Some(1)),
            (&[(5 * MS, 7 * MS), (100 * MS, 101 * MS)], Some(96)),
            (&[(0, 7 * MS), (5 * MS, 6 * MS)], Some(2)),
            (&[(5 * MS, 6 * MS), (0, 7 * MS)], Some(2)),
            (&[(0, 7 * MS)], None),
            (&[(5 * MS, 0)], None),
            (&[(9 * MS, 2 * MS)], Some(0)),
        ];
        for (spans, expected) in cases {
            assert_eq!(times(spans).duration_ms(), expected, "{spans:?}");
        }
    }

    #[test]
    fn spans_are_counted_and_bits_joined_without_overflow() {
        let mut facts = TraceFacts::new([1; 16]);
        facts.spans = u32::MAX;
        facts.bytes = u64::MAX - 1;
        facts.add(&SpanFacts { statuses: 1, bits: 0b01, ..SpanFacts::default() }, 0b100, 10);
        facts.add(&SpanFacts { statuses: 4, bits: 0b10, root: true, ..SpanFacts::default() }, 0, 0);
        assert_eq!((facts.spans, facts.bytes), (u32::MAX, u64::MAX));
        assert_eq!((facts.statuses, facts.bits, facts.root), (5, 0b111, true));
    }
}
