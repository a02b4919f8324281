//! Budgets: token buckets that a fleet shares out among its gateways, filled by the time that the caller
//! tells.
//!
//! All shards of a gateway share one bucket, behind a lock that is held for some nanoseconds and only for
//! traces that nothing else keeps. A trace passes when its cost is there, or when the bucket is as full as it
//! can be: then it takes more than there is, and the bucket owes it. So the mean over time is the rate,
//! however large a trace and however small a gateway's share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Millis;

/// Parts of a token: a rate of one a second, shared by a thousand gateways, still gives a thousand parts in
/// a millisecond.
const PARTS: i128 = 1_000_000_000;

/// Milliseconds in the second that rates are about.
const SECOND_MS: i128 = 1_000;

/// When something is decided, and among how many gateways budgets are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occasion {
    /// The caller's clock.
    pub now: Millis,
    /// Members that own keys; at least one.
    pub members: u32,
}

/// What a budget is for and how large it is, of the whole fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Spans a second and at once.
    Spans { rate: u64, burst: u64 },
    /// Bytes a second and at once.
    Bytes { rate: u64, burst: u64 },
    /// Spans a second, and the percentage of each part in order.
    Parts { rate: u64, percent: Vec<(String, Option<u32>)> },
}

/// A budget of one policy.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    pub(super) plan: Plan,
    state: Arc<Mutex<State>>,
}

/// What one policy took from its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spent {
    /// The budget, by its place in the program.
    pub(super) budget: usize,
    pub(super) part: usize,
    own: i128,
    spare: i128,
}

/// One bucket, or several with what they do not need.
#[derive(Debug)]
struct State {
    filled: Option<Millis>,
    buckets: Vec<Bucket>,
    /// What full buckets do not take, for those that need more.
    spare: Bucket,
}

/// Parts of tokens, of the whole fleet but for `level`.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// What a millisecond brings.
    rate: i128,
    capacity: i128,
    /// What is there now, here; negative when it owes.
    level: i128,
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(plan: Plan) -> Self {
        let state = Arc::new(Mutex::new(State::new(&plan)));
        Self { plan, state }
    }

    /// Goes on with the tokens of another one with the same plan.
    pub(super) fn adopt(&mut self, before: &Self) {
        self.state = Arc::clone(&before.state);
    }

    /// Takes what a trace costs if it is there; `place` is that of the budget.
    pub(super) fn take(
        &self,
        (place, part): (usize, usize),
        (spans, bytes): (u32, u64),
        occasion: Occasion,
    ) -> Option<Spent> {
        let cost = match self.plan {
            Plan::Bytes { .. } => i128::from(bytes),
            Plan::Spans { .. } | Plan::Parts { .. } => i128::from(spans),
        };
        let mut state = self.lock();
        state.fill(occasion);
        let (own, spare) = state.take(part, cost * PARTS, occasion)?;
        Some(Spent { budget: place, part, own, spare })
    }

    /// Puts back what was taken for nothing.
    pub(super) fn put_back(&self, spent: &Spent) {
        let mut state = self.lock();
        state.spare.level += spent.spare;
        if let Some(bucket) = state.buckets.get_mut(spent.part) {
            bucket.level += spent.own;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers are whole after every step: nothing is half done when a holder panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn new(plan: &Plan) -> Self {
        // Per second over a thousand is per millisecond, and parts are multiples of a thousand.
        let bucket = |rate: u64, burst: i128| Bucket {
            rate: i128::from(rate) * (PARTS / SECOND_MS),
            capacity: burst,
            level: 0,
        };
        match plan {
            Plan::Spans { rate, burst } | Plan::Bytes { rate, burst } => Self {
                filled: None,
                buckets: vec![bucket(*rate, i128::from(*burst) * PARTS)],
                spare: Bucket::default(),
            },
            Plan::Parts { rate, percent } => {
                let whole = bucket(*rate, i128::from(*rate) * PARTS);
                let buckets: Vec<Bucket> = shares(percent)
                    .into_iter()
                    .map(|(part, of)| Bucket {
                        rate: whole.rate * part / of,
                        capacity: whole.capacity * part / of,
                        level: 0,
                    })
                    .collect();
                let given: i128 = buckets.iter().map(|bucket| bucket.rate).sum();
                let spare = Bucket { rate: whole.rate - given, ..whole };
                Self { filled: None, buckets, spare }
            }
        }
    }

    /// Adds what the time since the last look has brought.
    fn fill(&mut self, Occasion { now, members }: Occasion) {
        let members = i128::from(members.max(1));
        let elapsed = match self.filled {
            Some(filled) => i128::from(now.saturating_sub(filled)),
            None => 0,
        };
        let first = self.filled.is_none();
        self.filled = Some(self.filled.map_or(now, |filled| filled.max(now)));
        let mut rest = self.spare.rate * elapsed / members;
        for bucket in &mut self.buckets {
            let capacity = bucket.capacity / members;
            let brought = if first { capacity } else { bucket.rate * elapsed / members };
            let level = bucket.level + brought;
            bucket.level = level.min(capacity);
            rest += level - bucket.level;
        }
        self.spare.level = (self.spare.level + rest).min(self.spare.capacity / members);
    }

    /// Takes a cost from a bucket, then from what others do not need; what is missing the bucket owes.
    fn take(&mut self, part: usize, cost: i128, occasion: Occasion) -> Option<(i128, i128)> {
        let members = i128::from(occasion.members.max(1));
        let Self { buckets, spare, .. } = self;
        let bucket = buckets.get_mut(part)?;
        let lent_only = bucket.capacity == 0;
        let most = if lent_only { spare.capacity } else { bucket.capacity } / members;
        if bucket.level + spare.level.max(0) < cost.min(most) {
            return None;
        }
        let own = cost.min(bucket.level.max(0));
        let borrowed = (cost - own).min(spare.level.max(0));
        let owed = cost - own - borrowed;
        let taken = if lent_only { (own, borrowed + owed) } else { (own + owed, borrowed) };
        bucket.level -= taken.0;
        spare.level -= taken.1;
        Some(taken)
    }
}

/// The share of each part as a fraction: what the manifest gives it, else an equal part of what is left.
fn shares(percent: &[(String, Option<u32>)]) -> Vec<(i128, i128)> {
    let given: u32 = percent.iter().filter_map(|(_, percent)| *percent).sum();
    let left = i128::from(100_u32.saturating_sub(given));
    let without = percent.iter().filter(|(_, percent)| percent.is_none()).count();
    let equal = (left, 100 * i128::try_from(without.max(1)).unwrap_or(1));
    let share = |(_, percent): &(String, Option<u32>)| match percent {
        Some(percent) => (i128::from(*percent), 100),
        None => equal,
    };
    percent.iter().map(share).collect()
}
