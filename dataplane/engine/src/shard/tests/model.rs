//! Random operations against a model that keeps every trace as a list of spans.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::buffer::deadline::BUCKET_MS;
use crate::facts::TraceFacts;
use crate::scan::{Group, Headers};

const MAX_SPANS: u32 = 40;
const MAX_BYTES: u64 = 200_000;

#[derive(Clone, Debug)]
struct Piece {
    trace: u128,
    number: u64,
    padding: usize,
    resource: u8,
    scope: u8,
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<Piece>),
    /// The same request as that many inserts ago.
    Repeat(usize),
    Wait(Millis),
    Decide(u64),
    Relieve(u64),
    Evacuate,
    Reload(u64),
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let padding = prop_oneof![8 => 0..600usize, 1 => 60_000..140_000usize];
    let piece = (0..30u128, 0..60u64, padding, 0..4u8, 0..3u8).prop_map(
        |(trace, number, padding, resource, scope)| Piece {
            trace: id(trace),
            number,
            padding: if padding < 600 { number as usize } else { padding },
            resource,
            scope,
        },
    );
    let step = prop_oneof![
        8 => prop::collection::vec(piece, 1..40).prop_map(Step::Insert),
        2 => (0..4usize).prop_map(Step::Repeat),
        3 => (0..3_000u64).prop_map(Step::Wait),
        2 => (1..10u64).prop_map(Step::Decide),
        2 => (0..2_000_000u64).prop_map(Step::Relieve),
        2 => Just(Step::Evacuate),
        1 => (0..100u64).prop_map(Step::Reload),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 1..50)
}

fn encode(pieces: &[Piece]) -> Vec<u8> {
    let groups =
        pieces.chunk_by(|a, b| (a.resource, a.scope) == (b.resource, b.scope)).map(|pieces| {
            let (resource, scope) = (pieces[0].resource, pieces[0].scope);
            let spans = pieces.iter().map(|piece| span(piece.trace, piece.number, piece.padding));
            group(&format!("service-{resource}"), &format!("scope-{scope}"), spans.collect())
        });
    request(groups.collect())
}

struct Trace {
    spans: Vec<Origin>,
    known: HashSet<Vec<u8>>,
    facts: TraceFacts,
    program: Arc<Program>,
    first_seen: Millis,
}

/// What the shard should do, done slowly.
struct Model {
    program: Arc<Program>,
    held: BTreeMap<u128, Trace>,
    decided: BTreeMap<u128, bool>,
    out: Vec<Origin>,
    stats: ShardStats,
}

impl Model {
    fn insert(&mut self, request: &[u8], now: Millis) -> Inserted {
        let mut inserted = Inserted::default();
        for origin in origins(request) {
            self.insert_span(origin, now, &mut inserted);
        }
        self.stats.stored += inserted.stored;
        self.stats.duplicates += inserted.duplicates;
        self.stats.late_kept += inserted.late_kept;
        self.stats.late_dropped += inserted.late_dropped;
        self.stats.traces += inserted.traces_new;
        inserted
    }

    fn insert_span(&mut self, origin: Origin, now: Millis, inserted: &mut Inserted) {
        let trace_id = Span::decode(&*origin.2).unwrap().trace_id;
        let id = u128::from_be_bytes(trace_id.try_into().unwrap());
        match self.decided.get(&id) {
            Some(true) => {
                inserted.late_kept += 1;
                return self.out.push(origin);
            }
            Some(false) => return inserted.late_dropped += 1,
            None => {}
        }
        let trace = self.held.entry(id).or_insert_with(|| {
            inserted.traces_new += 1;
            Trace {
                spans: Vec::new(),
                known: HashSet::new(),
                facts: TraceFacts::new(id.to_be_bytes()),
                program: self.program.clone(),
                first_seen: now,
            }
        });
        if !trace.known.insert(origin.2.clone()) {
            return inserted.duplicates += 1;
        }
        inserted.stored += 1;
        // As the fields of ResourceSpans: the resource is its first.
        let resource = ResourceSpans {
            resource: Resource::decode(&*origin.0).ok(),
            ..ResourceSpans::default()
        };
        let headers = resource.encode_to_vec();
        let bits = trace.program.resource_bits(&Headers::whole(&headers));
        trace.facts.add(&trace.program.span_facts(&origin.2), bits, origin.2.len() as u64);
        let scope = ScopeSpans {
            scope: InstrumentationScope::decode(&*origin.1).ok(),
            ..ScopeSpans::default()
        };
        let scope = scope.encode_to_vec();
        let group = Group { resource: Headers::whole(&headers), scope: Headers::whole(&scope) };
        // Asked of every span anew, whatever is known.
        trace.facts.bits |= trace.program.ask(&group, &origin.2, 0).bits;
        trace.spans.push(origin);
        if trace.facts.spans > MAX_SPANS || trace.facts.bytes > MAX_BYTES {
            inserted.traces_capped += 1;
            self.decide(id, Some(Early::TraceTooLarge));
        }
    }

    fn decide(&mut self, id: u128, early: Option<Early>) {
        let trace = self.held.remove(&id).expect("only what is held is decided");
        let verdict = trace.program.decide(&trace.facts);
        let count = trace.spans.len() as u64;
        let stats = &mut self.stats;
        if verdict.keep {
            stats.kept_spans += count;
            stats.traces_kept += 1;
            self.out.extend(trace.spans);
        } else {
            stats.sampled_away_spans += count;
            stats.traces_dropped += 1;
        }
        let rows: Vec<_> = trace.program.names().iter().map(|name| stats.row(name)).collect();
        stats.count_policies(&verdict, &rows);
        if let Some(reason) = early {
            stats.early[reason as usize] += 1;
        }
        self.decided.insert(id, verdict.keep);
    }

    fn take(&mut self) -> Vec<Origin> {
        self.out.sort();
        std::mem::take(&mut self.out)
    }

    fn spans(&self) -> u64 {
        self.held.values().map(|trace| trace.spans.len() as u64).sum()
    }

    fn due(trace: &Trace) -> Millis {
        (trace.first_seen + config().decision_wait_ms).next_multiple_of(BUCKET_MS)
    }
}

struct Pair {
    shard: Shard,
    model: Model,
    out: Batch,
    now: Millis,
    requests: Vec<Vec<u8>>,
    idle_bytes: u64,
}

impl Pair {
    fn new() -> Self {
        let config =
            ShardConfig { max_trace_spans: MAX_SPANS, max_trace_bytes: MAX_BYTES, ..config() };
        let program = program(20);
        let shard = Shard::new(config, program.clone());
        let stats = shard.stats.clone();
        let (held, decided, out) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let model = Model { program, held, decided, out, stats };
        let idle_bytes = shard.held().bytes;
        Self { shard, model, out: Batch::new(), now: 77_123, requests: Vec::new(), idle_bytes }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Insert(pieces) => self.insert(encode(pieces)),
            Step::Repeat(ago) => {
                let Some(request) = self.requests.iter().rev().nth(*ago).cloned() else {
                    return;
                };
                self.insert(request);
            }
            Step::Wait(by) => self.now += by,
            Step::Decide(at_once) => self.decide_due(*at_once),
            Step::Relieve(bytes) => self.relieve(*bytes),
            Step::Evacuate => self.evacuate(),
            Step::Reload(slow_ms) => {
                self.model.program = program(*slow_ms);
                self.shard.set_program(self.model.program.clone());
                rows(&mut self.model.stats, &self.model.program);
            }
            Step::Drain => self.drain(),
        }
        self.compare();
    }

    fn insert(&mut self, request: Vec<u8>) {
        let shape = scan::check(&request, &ScanLimits::default()).unwrap();
        let bound = self.shard.held().bytes + self.shard.worst_case(&shape);
        let inserted = self.shard.insert(&request, &shape, self.now, &mut self.out);
        assert_eq!(inserted, self.model.insert(&request, self.now));
        assert!(self.shard.held().bytes <= bound);
        self.requests.push(request);
    }

    fn decide_due(&mut self, at_once: u64) {
        let limit = TickLimit { traces: at_once, out_bytes: u64::MAX };
        loop {
            let progress = self.shard.decide_due(self.now, &limit, &mut self.out);
            assert!(progress.decided <= at_once);
            if !progress.more {
                break;
            }
        }
        let due = |trace: &&u128| Model::due(&self.model.held[*trace]) <= self.now;
        let due: Vec<u128> = self.model.held.keys().filter(due).copied().collect();
        due.into_iter().for_each(|id| self.model.decide(id, None));
        let next = self.model.held.values().map(Model::due).min();
        assert_eq!(self.shard.next_deadline(), next);
    }

    fn relieve(&mut self, bytes: u64) {
        let before = self.shard.held();
        let relief = self.shard.relieve(self.now, bytes, &mut self.out);
        assert_eq!(relief.freed, before.bytes.saturating_sub(self.shard.held().bytes));
        let gone = self.gone();
        assert_eq!(relief.decided, gone.len() as u64);
        // Bucket, then weight: nothing that stays comes before anything that went.
        let order = |id: &u128| {
            let trace = &self.model.held[id];
            (Model::due(trace), std::cmp::Reverse(trace.facts.bytes))
        };
        let old = |trace: &Trace| self.now - trace.first_seen >= config().decision_wait_ms / 4;
        assert!(gone.iter().all(|id| old(&self.model.held[id])), "too young to be decided");
        let last = gone.iter().map(order).max();
        let stays =
            self.model.held.keys().filter(|id| !gone.contains(id) && old(&self.model.held[*id]));
        let first = stays.map(order).min();
        assert!(last.is_none() || first.is_none() || last <= first, "{last:?} before {first:?}");
        assert!(
            first.is_none() || relief.freed >= bytes.min(before.bytes),
            "there was more to free"
        );
        gone.into_iter().for_each(|id| self.model.decide(id, Some(Early::MemoryPressure)));
    }

    fn gone(&self) -> Vec<u128> {
        let held = |id: &u128| {
            let id = id.to_be_bytes();
            self.shard.index.find(SEED.key(&id), &id).is_some()
        };
        self.model.held.keys().filter(|id| !held(id)).copied().collect()
    }

    /// Moves every span there is, not only those of sparse segments.
    fn evacuate(&mut self) {
        self.shard.log.seal_open();
        for _ in 0..3 {
            self.shard.evacuate(101, 0);
        }
    }

    fn drain(&mut self) {
        let limit = TickLimit { traces: 3, out_bytes: 100_000 };
        let mut all = Batch::new();
        std::mem::swap(&mut all, &mut self.out);
        let mut found = take(&mut all);
        loop {
            let progress = self.shard.decide_all(&limit, &mut self.out);
            assert!(
                progress.decided <= 3 && (self.out.encoded_len() as u64) < 100_000 + 2 * MAX_BYTES
            );
            found.extend(take(&mut self.out));
            if !progress.more {
                break;
            }
        }
        let ids: Vec<u128> = self.model.held.keys().copied().collect();
        ids.into_iter().for_each(|id| self.model.decide(id, Some(Early::Drain)));
        found.sort();
        assert!(found == self.model.take(), "what was drained differs");
        self.idle();
    }

    /// Nothing is held: memory is back where it was, but for spare segments and scratch.
    fn idle(&mut self) {
        self.shard.relieve(self.now, u64::MAX, &mut self.out);
        let bytes = self.shard.held().bytes;
        assert!(
            bytes <= self.idle_bytes + SCRATCH_BYTES as u64,
            "{bytes} held, idle: {}",
            self.idle_bytes
        );
    }

    fn compare(&mut self) {
        let held = self.shard.held();
        assert_eq!(held.spans, self.model.spans());
        assert_eq!(held.traces, self.model.held.len() as u64);
        assert!(take(&mut self.out) == self.model.take(), "what came out differs");
        let stats = &self.shard.stats;
        assert_eq!(
            ShardStats { segments_evacuated: 0, evacuated_bytes: 0, ..stats.clone() },
            self.model.stats
        );
        assert_eq!(stats.stored, stats.kept_spans + stats.sampled_away_spans + held.spans);
        let live: u64 = self.model.held.values().map(|trace| trace.facts.bytes).sum();
        assert_eq!(self.shard.log.live_bytes(), live);
        self.shard.log.audit();
        assert!(held.bytes >= live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]
    #[test]
    fn the_shard_does_what_the_model_does(steps in steps()) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.run(step);
        }
        pair.run(&Step::Drain);
    }
}
