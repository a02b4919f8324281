//! What an agent keeps until it is decided: pieces of batches, each under way or with a holder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::{AgentAction, BatchId};
use super::facts::{Instance, Name};
use super::message::{Origin, Req};
use crate::Millis;
use crate::key::TraceKey;
use crate::ring::View;

mod piece;

/// Pieces under way to one gateway; others wait for an answer. 256 batches of 64 KiB are 16 MiB.
const UNDER_WAY_MAX: usize = 256;

/// How long a piece waits when too many are under way.
const CROWDED: Millis = 100;

/// Some traces of one batch, all in the same state.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) batch: BatchId,
    pub(super) traces: Vec<(TraceKey, u32)>,
    /// When the agent took it in.
    pub(super) born: Millis,
    pub(super) progress: Progress,
    /// How often it was not stored.
    failures: u32,
    /// How often of these a gateway said so.
    refusals: u32,
    /// Sent again because of a loss.
    origin: Origin,
    /// Losses that are not done before this piece is stored.
    owed: Vec<Instance>,
}

/// Where a piece is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// To be sent.
    Waiting {
        /// Not before.
        until: Millis,
    },
    /// Not answered yet.
    Sent {
        /// To whom.
        to: Name,
        /// The request.
        req: Req,
    },
    /// Stored.
    Held {
        /// By whom.
        holder: Instance,
    },
}

/// In order of birth, so that the oldest are found first.
type PieceId = (Millis, u64);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Retention {
    pieces: BTreeMap<PieceId, Piece>,
    sent: BTreeMap<Req, PieceId>,
    under_way: BTreeMap<Name, usize>,
    /// To be sent, by the time before which they are not.
    waiting: BTreeSet<(Millis, PieceId)>,
    batches: BTreeMap<BatchId, Batch>,
    bytes: u64,
    count: u64,
}

/// What is left of a batch.
#[derive(Debug, Clone, Copy)]
struct Batch {
    pieces: usize,
    stored: Stored,
}

/// Whether the batch was ever stored as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Not { traces: usize },
    Yes,
}

// === Pieces ===

impl Retention {
    pub(super) fn add(&mut self, batch: BatchId, traces: &[(TraceKey, u32)], now: Millis) {
        let stored = Stored::Not { traces: traces.len() };
        self.batches.insert(batch, Batch { pieces: 0, stored });
        self.insert(Piece {
            batch,
            traces: traces.to_vec(),
            born: now,
            progress: Progress::Waiting { until: now },
            failures: 0,
            refusals: 0,
            origin: Origin::Agent,
            owed: Vec::new(),
        });
    }

    /// A batch that was delivered by others: it is held where its holders are, the rest is to be sent.
    pub(super) fn add_delivered(
        &mut self,
        (batch, born): (BatchId, Millis),
        traces: &[(TraceKey, u32)],
        holders: &[Option<Instance>],
        lost: Option<Instance>,
        now: Millis,
    ) {
        self.batches.insert(batch, Batch { pieces: 0, stored: Stored::Yes });
        for (holder, traces) in by_holder(traces, holders) {
            let progress = match holder {
                Some(holder) => Progress::Held { holder: holder.clone() },
                None => Progress::Waiting { until: now },
            };
            let failures = u32::from(holder.is_none());
            let owed = lost.iter().filter(|_| holder.is_none()).cloned().collect();
            let origin = Origin::Agent;
            let refusals = failures;
            self.insert(Piece { batch, traces, born, progress, failures, refusals, origin, owed });
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether everything is stored at a gateway.
    pub(super) fn is_settled(&self) -> bool {
        self.sent.is_empty() && self.waiting.is_empty()
    }

    /// Whether anything is stored at a gateway, and may be let go.
    pub(super) fn holds_any(&self) -> bool {
        self.pieces.len() > self.sent.len() + self.waiting.len()
    }

    /// Losses that are not done.
    pub(super) fn owed(&self) -> BTreeSet<Instance> {
        let sent = self.sent.values();
        let open = sent.chain(self.waiting.iter().map(|(_, id)| id));
        let pieces = open.filter_map(|id| self.pieces.get(id));
        pieces.flat_map(|piece| piece.owed.iter().cloned()).collect()
    }

    fn insert(&mut self, piece: Piece) {
        self.count += 1;
        let id = (piece.born, self.count);
        self.bytes += piece.bytes();
        if let Some(batch) = self.batches.get_mut(&piece.batch) {
            batch.pieces += 1;
        }
        match &piece.progress {
            Progress::Waiting { until } => {
                self.waiting.insert((*until, id));
            }
            Progress::Sent { to, req } => {
                self.sent.insert(*req, id);
                *self.under_way.entry(Arc::clone(to)).or_default() += 1;
            }
            Progress::Held { .. } => {}
        }
        self.pieces.insert(id, piece);
    }

    fn remove(&mut self, id: PieceId) -> Option<Piece> {
        let piece = self.pieces.remove(&id)?;
        self.bytes -= piece.bytes();
        if let Some(batch) = self.batches.get_mut(&piece.batch) {
            batch.pieces -= 1;
        }
        match &piece.progress {
            Progress::Waiting { until } => {
                self.waiting.remove(&(*until, id));
            }
            Progress::Sent { to, req } => {
                self.sent.remove(req);
                if let Some(number) = self.under_way.get_mut(to) {
                    *number -= 1;
                }
            }
            Progress::Held { .. } => {}
        }
        Some(piece)
    }

    fn release_if_last(&mut self, batch: BatchId, out: &mut Vec<AgentAction>) {
        if self.batches.get(&batch).is_some_and(|batch| batch.pieces == 0) {
            let last = self.batches.remove(&batch);
            debug_assert!(
                last.is_some_and(|batch| batch.stored == Stored::Yes),
                "a batch that nobody has stored is released"
            );
            out.push(AgentAction::Release(batch));
        }
    }
}

// === Sending ===

impl Retention {
    /// Sends what waits no longer, each trace to its choice among those that answer.
    pub(super) fn dispatch(
        &mut self,
        view: &View,
        answers: impl Fn(&str) -> bool,
        age: bool,
        mut next: impl FnMut() -> Req,
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        let answers: Vec<bool> = view.members().iter().map(|member| answers(&member.id)).collect();
        while let Some((until, id)) = self.waiting.first().copied()
            && until <= now
        {
            let Some(piece) = self.remove(id) else {
                self.waiting.remove(&(until, id));
                continue;
            };
            for (choice, traces) in piece.by_choice(view, &answers) {
                let to: Option<Name> = choice.map(|place| view.members()[place].id.as_str().into());
                let crowded = to.as_ref().is_some_and(|to| {
                    self.under_way.get(to).is_some_and(|number| *number >= UNDER_WAY_MAX)
                });
                let piece = Piece { traces, ..piece.clone() };
                match to {
                    Some(to) if !crowded => {
                        let req = next();
                        out.push(piece.deliver(&to, req, age, now));
                        self.insert(Piece { progress: Progress::Sent { to, req }, ..piece });
                    }
                    _ => {
                        let until = now + CROWDED;
                        self.insert(Piece { progress: Progress::Waiting { until }, ..piece });
                    }
                }
            }
        }
    }

    /// A gateway is back: what waits for another try waits no longer, and goes to its owner.
    pub(super) fn hurry(&mut self, now: Millis) {
        for (until, id) in std::mem::take(&mut self.waiting) {
            if let Some(piece) = self.pieces.get_mut(&id) {
                let until = until.min(now);
                (piece.failures, piece.refusals) = (0, 0);
                piece.progress = Progress::Waiting { until };
                self.waiting.insert((until, id));
            }
        }
    }

    /// A gateway may have stopped waiting for us: it may have decided without what is not stored yet.
    pub(super) fn doubt(&mut self) {
        let open = self.sent.values().chain(self.waiting.iter().map(|(_, id)| id));
        for id in open {
            if let Some(piece) = self.pieces.get_mut(id) {
                piece.origin = Origin::Agent;
            }
        }
    }

    /// A delivery was answered: for each of its traces who holds it, or nobody.
    pub(super) fn answered(
        &mut self,
        req: Req,
        holders: &[Option<Instance>],
        now: Millis,
        out: &mut Vec<AgentAction>,
    ) {
        let Some(piece) = self.sent.get(&req).copied().and_then(|id| self.remove(id)) else {
            return;
        };
        for (holder, traces) in by_holder(&piece.traces, holders) {
            let number = traces.len();
            let piece = Piece { traces, ..piece.clone() };
            match holder {
                Some(holder) => {
                    let progress = Progress::Held { holder: holder.clone() };
                    let batch = piece.batch;
                    let (failures, owed) = (0, Vec::new());
                    self.insert(Piece { progress, failures, refusals: 0, owed, ..piece });
                    self.store(batch, number, out);
                }
                None => {
                    let refusals = piece.refusals + 1;
                    self.insert(Piece { refusals, ..piece.after_failure(now) });
                }
            }
        }
    }

    /// Traces of a batch are stored, most of them for the first time.
    fn store(&mut self, id: BatchId, number: usize, out: &mut Vec<AgentAction>) {
        let Some(batch) = self.batches.get_mut(&id) else {
            return;
        };
        if let Stored::Not { traces } = batch.stored {
            batch.stored = Stored::Not { traces: traces.saturating_sub(number) };
            if traces <= number {
                batch.stored = Stored::Yes;
                out.push(AgentAction::Stored(id));
            }
        }
    }

    /// A delivery was not answered; whose answer it was that did not come.
    pub(super) fn failed(&mut self, req: Req, now: Millis) -> Option<Name> {
        let piece = self.sent.get(&req).copied().and_then(|id| self.remove(id))?;
        let to = match &piece.progress {
            Progress::Sent { to, .. } => Some(Arc::clone(to)),
            Progress::Waiting { .. } | Progress::Held { .. } => None,
        };
        self.insert(piece.after_failure(now));
        to
    }
}

// === Losses and forgetting ===

impl Retention {
    /// An instance is lost: what lies with it is to be sent again, what is on its way to it goes elsewhere.
    /// Returns how many traces are sent again.
    pub(super) fn lose(
        &mut self,
        lost: &Instance,
        lies_there: impl Fn(&Instance, TraceKey) -> bool,
        origin: Origin,
        now: Millis,
    ) -> u64 {
        let ids: Vec<PieceId> = self.pieces.keys().copied().collect();
        let mut replayed = 0;
        for id in ids {
            let Some(piece) = self.pieces.get_mut(&id) else {
                continue;
            };
            match &piece.progress {
                Progress::Waiting { .. } => piece.owed.push(lost.clone()),
                Progress::Sent { to, .. } if *to == lost.name => {
                    piece.owed.push(lost.clone());
                    if let Some(piece) = self.remove(id) {
                        self.insert(piece.after_failure(now));
                    }
                }
                Progress::Sent { .. } => {}
                Progress::Held { holder } => {
                    let (again, rest): (Vec<_>, Vec<_>) =
                        piece.traces.iter().copied().partition(|(key, _)| lies_there(holder, *key));
                    if again.is_empty() {
                        continue;
                    }
                    replayed += again.len() as u64;
                    self.split(id, lost, origin, [again, rest], now);
                }
            }
        }
        replayed
    }

    fn split(
        &mut self,
        id: PieceId,
        lost: &Instance,
        origin: Origin,
        [again, rest]: [Vec<(TraceKey, u32)>; 2],
        now: Millis,
    ) {
        let Some(piece) = self.remove(id) else {
            return;
        };
        if !rest.is_empty() {
            self.insert(Piece { traces: rest, ..piece.clone() });
        }
        self.insert(Piece {
            traces: again,
            progress: Progress::Waiting { until: now },
            origin,
            owed: vec![lost.clone()],
            ..piece
        });
    }

    /// Forgets stored pieces that were born before `old`, if `is_free` lets them.
    pub(super) fn forget(
        &mut self,
        old: Millis,
        is_free: impl Fn(&Piece, &Instance) -> bool,
        out: &mut Vec<AgentAction>,
    ) {
        let due = self.pieces.range(..(old, 0)).filter(|(_, piece)| match &piece.progress {
            Progress::Held { holder } => is_free(piece, holder),
            _ => false,
        });
        let due: Vec<PieceId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.drop_piece(id, out);
        }
    }

    /// Forgets the oldest stored pieces until `excess` bytes are free; returns how many traces they had.
    pub(super) fn evict(&mut self, excess: u64, out: &mut Vec<AgentAction>) -> u64 {
        let (mut freed, mut traces, mut due) = (0, 0, Vec::new());
        for (id, piece) in &self.pieces {
            if freed >= excess {
                break;
            }
            if matches!(piece.progress, Progress::Held { .. }) {
                freed += piece.bytes();
                traces += piece.traces.len() as u64;
                let keys = piece.traces.iter().map(|(key, _)| *key).collect();
                out.push(AgentAction::Unprotect { batch: piece.batch, keys });
                due.push(*id);
            }
        }
        for id in due {
            self.drop_piece(id, out);
        }
        traces
    }

    fn drop_piece(&mut self, id: PieceId, out: &mut Vec<AgentAction>) {
        if let Some(piece) = self.remove(id) {
            let held = matches!(piece.progress, Progress::Held { .. });
            debug_assert!(held, "what nobody has stored is dropped");
            self.release_if_last(piece.batch, out);
        }
    }
}

/// Traces by who holds them; those that nobody is named for, by nobody.
fn by_holder<'a>(
    traces: &[(TraceKey, u32)],
    holders: &'a [Option<Instance>],
) -> BTreeMap<Option<&'a Instance>, Vec<(TraceKey, u32)>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (trace, holder) in traces.iter().zip(holders.iter().chain(std::iter::repeat(&None))) {
        groups.entry(holder.as_ref()).or_default().push(*trace);
    }
    groups
}
