//! What a shard counts.

use crate::policy::Verdict;

/// Rows for policies: 64 of them, given new names by sixteen reloads. Those after share the last row, so
/// that a shard does not grow with every reload.
const ROWS_MAX: usize = 1024;

/// Why traces were decided before their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// The trace passed its cap on spans or bytes.
    TraceTooLarge,
    /// The memory was needed.
    MemoryPressure,
    /// The process is stopping.
    Drain,
}

impl Early {
    /// All reasons, in the order of [`ShardStats::early`].
    pub const ALL: [Self; 3] = [Self::TraceTooLarge, Self::MemoryPressure, Self::Drain];

    /// The reason as metrics and the ledger spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceTooLarge => "trace_too_large",
            Self::MemoryPressure => "memory_pressure",
            Self::Drain => "drain",
        }
    }
}

/// What one policy decided, in traces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyCount {
    /// The policy's name; it keeps its row over reloads.
    pub name: String,
    /// Traces that are kept because of it: it was the first to say so.
    pub kept: u64,
    /// Traces that are dropped because of it: it is a Drop policy.
    pub dropped: u64,
    /// Traces for which it said yes, whoever was first.
    pub matched: u64,
    /// Traces that it would have decided otherwise, had it a vote: its role is Shadow.
    pub changed: u64,
}

/// Counters that only grow. For spans, at any time:
/// `stored = kept_spans + sampled_away_spans + taken + held`; spans that come late are in no other count than
/// theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Spans taken into the buffer.
    pub stored: u64,
    /// Spans that were in the buffer already.
    pub duplicates: u64,
    /// Spans of traces decided before, handed out because their trace was kept.
    pub late_kept: u64,
    /// Spans of traces decided before, gone because their trace was not kept.
    pub late_dropped: u64,
    /// Spans handed out with their trace.
    pub kept_spans: u64,
    /// Spans gone with their trace.
    pub sampled_away_spans: u64,
    /// Spans that went elsewhere with their trace, undecided.
    pub taken: u64,
    /// Traces first seen.
    pub traces: u64,
    /// Traces decided and kept.
    pub traces_kept: u64,
    /// Traces decided and not kept.
    pub traces_dropped: u64,
    /// Traces decided elsewhere, in none of the counts above.
    pub followed: u64,
    /// Traces decided before their time (they are in the counts above too), by reason as in [`Early::ALL`].
    pub early: [u64; Early::ALL.len()],
    /// What each policy decided.
    pub policies: Vec<PolicyCount>,
    /// Traces dropped because no policy wanted them.
    pub unwanted: u64,
    /// Conditions of policies that a span's values could not answer, of those that are counted.
    pub condition_failures: u64,
    /// Segments freed by moving their last spans together.
    pub segments_evacuated: u64,
    /// Bytes moved for it.
    pub evacuated_bytes: u64,
}

impl ShardStats {
    /// Traces decided early for a reason.
    pub fn early(&self, reason: Early) -> u64 {
        self.early[reason as usize]
    }

    /// Adds the counts of another shard; policies are matched by name.
    pub fn merge(&mut self, other: &Self) {
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.late_kept += other.late_kept;
        self.late_dropped += other.late_dropped;
        self.kept_spans += other.kept_spans;
        self.sampled_away_spans += other.sampled_away_spans;
        self.taken += other.taken;
        self.followed += other.followed;
        self.traces += other.traces;
        self.traces_kept += other.traces_kept;
        self.traces_dropped += other.traces_dropped;
        self.unwanted += other.unwanted;
        self.condition_failures += other.condition_failures;
        self.segments_evacuated += other.segments_evacuated;
        self.evacuated_bytes += other.evacuated_bytes;
        for (count, more) in self.early.iter_mut().zip(other.early) {
            *count += more;
        }
        for policy in &other.policies {
            let row = self.row(&policy.name);
            self.policies[row].kept += policy.kept;
            self.policies[row].dropped += policy.dropped;
            self.policies[row].matched += policy.matched;
            self.policies[row].changed += policy.changed;
        }
    }

    /// Counts what each policy said of a trace; `rows` has the row of each.
    pub(super) fn count_policies(&mut self, verdict: &Verdict, rows: &[usize]) {
        let mut matched = verdict.matched;
        while matched != 0 {
            let policy = matched.trailing_zeros();
            matched &= matched - 1;
            let row = rows.get(policy as usize);
            if let Some(count) = row.and_then(|row| self.policies.get_mut(*row)) {
                count.matched += 1;
                count.changed += verdict.changed >> policy & 1;
            }
        }
        let decisive = verdict.policy.and_then(|policy| rows.get(usize::from(policy)));
        match decisive.and_then(|row| self.policies.get_mut(*row)) {
            Some(policy) if verdict.keep => policy.kept += 1,
            Some(policy) => policy.dropped += 1,
            None => self.unwanted += 1,
        }
    }

    /// The row of a policy, added when its name is new.
    pub(super) fn row(&mut self, name: &str) -> usize {
        self.policies.iter().position(|policy| policy.name == name).unwrap_or_else(|| {
            if self.policies.len() < ROWS_MAX {
                let name = name.to_owned();
                self.policies.push(PolicyCount { name, ..PolicyCount::default() });
            }
            self.policies.len() - 1
        })
    }
}
