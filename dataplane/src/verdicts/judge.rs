//! What the compiled policies say of recorded traces, in the order in which a gateway would decide them.

use ringtail_engine::facts::TraceFacts;
use ringtail_engine::policy::{Answer, Occasion, Policy, Program};
use ringtail_engine::wire::{Reader, Value};

use super::recording::{Recording, Span, Trace};

/// Fields of a span that tell which one it is.
const SPAN_ID: u32 = 2;
const NAME: u32 = 5;

/// A trace and what became of it.
#[derive(Debug)]
pub(super) struct Judged {
    /// As it is written: 32 hexadecimal digits.
    pub(super) id: String,
    /// Its place among the traces of the recordings, from 1.
    pub(super) index: usize,
    /// The name of its first span without a parent; empty without one.
    pub(super) name: String,
    pub(super) facts: TraceFacts,
    pub(super) keep: bool,
    /// The policy that decided.
    pub(super) policy: Option<usize>,
    /// Those that would have changed the verdict, had they a vote.
    pub(super) changed: u64,
    pub(super) answers: Vec<Answer>,
    /// For each policy, the first span that passes its question.
    pub(super) witnesses: Vec<Option<Witness>>,
}

/// A span that passes a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) id: String,
    pub(super) name: String,
}

/// The verdicts on all traces, in the order of the recordings.
pub(super) fn judge(
    program: &Program,
    policies: &[Policy],
    wait_ms: u64,
    recording: &Recording,
) -> Vec<Judged> {
    let mut judged: Vec<Judged> = recording
        .traces
        .iter()
        .enumerate()
        .map(|(place, trace)| look(program, policies, place, trace))
        .collect();
    // Budgets are asked in the order of decisions: the wait after the first span, on the recording's clock.
    let mut order: Vec<(u64, usize)> = judged
        .iter()
        .enumerate()
        .map(|(place, trace)| (trace.facts.start_ns / 1_000_000 + wait_ms, place))
        .collect();
    order.sort_unstable();
    for (now, place) in order {
        let Some(trace) = judged.get_mut(place) else { continue };
        let occasion = Occasion { now, members: 1 };
        let (verdict, receipt) = program.decide_within(&trace.facts, occasion);
        trace.answers = program.explain(&trace.facts, &receipt);
        trace.keep = verdict.keep;
        trace.policy = verdict.policy.map(usize::from);
        trace.changed = verdict.changed;
    }
    judged
}

/// Takes the facts of a trace, as a shard does while spans arrive.
fn look(program: &Program, policies: &[Policy], place: usize, trace: &Trace) -> Judged {
    let mut facts = TraceFacts::new(trace.id);
    let mut witnesses: Vec<Option<Witness>> = vec![None; policies.len()];
    let mut name = None;
    for span in &trace.spans {
        let group = span.group();
        let resource = program.resource_bits(&group.resource);
        let own = program.span_facts(&span.bytes);
        // Conditions whose answer is known are not asked again, and a witness is the first that passed.
        let before = facts.bits;
        facts.add(&own, resource, span.bytes.len() as u64);
        if program.asks_conditions() {
            facts.bits |= program.ask(&group, &span.bytes, before).bits;
        }
        note(program, &mut witnesses, facts.bits & !before, span);
        if own.root && name.is_none() {
            name = Some(name_of(span));
        }
    }
    Judged {
        id: hex(&trace.id),
        index: place + 1,
        name: name.unwrap_or_default(),
        facts,
        keep: false,
        policy: None,
        changed: 0,
        answers: Vec::new(),
        witnesses,
    }
}

fn note(program: &Program, witnesses: &mut [Option<Witness>], new: u64, span: &Span) {
    if new == 0 {
        return;
    }
    for (policy, witness) in witnesses.iter_mut().enumerate() {
        if program.question_bit(policy) & new != 0 && witness.is_none() {
            *witness = Some(Witness { id: span_id(span), name: name_of(span) });
        }
    }
}

fn span_id(span: &Span) -> String {
    hex(bytes_of(span, SPAN_ID))
}

fn name_of(span: &Span) -> String {
    String::from_utf8_lossy(bytes_of(span, NAME)).into_owned()
}

fn bytes_of(span: &Span, number: u32) -> &[u8] {
    let mut found: &[u8] = &[];
    let mut fields = Reader::new(&span.bytes);
    while let Ok(Some(field)) = fields.next_field() {
        if let (true, Value::Bytes(bytes)) = (field.number == number, field.value) {
            found = bytes;
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
