//! What a gateway counts of all this.

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Times that the process was stopped for longer than a tick may take.
    pub gaps: u64,
    /// Others that were taken for dead here.
    pub declared: u64,
    /// Parts passed on to their owner.
    pub forwarded: u64,
    /// Parts held for an owner that could not be reached.
    pub held_for_others: u64,
    /// Parts refused.
    pub refused: u64,
    /// Traces handed over and stored elsewhere.
    pub handed_over: u64,
    /// Bytes of parcels sent, retries included.
    pub parcel_bytes: u64,
    /// Decisions that this gateway made.
    pub decided: u64,
    /// Of those, without a witness though there are other members.
    pub decided_alone: u64,
    /// Decisions learned from others.
    pub learned: u64,
    /// Proposals that no witness answered.
    pub unanswered: u64,
    /// Decisions taken back because the key changed hands.
    pub taken_back: u64,
    /// Decisions learned that differ from one that stands here.
    pub conflicts: u64,
    /// Replayed parts dropped because they were exported before.
    pub repeated: u64,
    /// Decisions told to new owners or witnesses.
    pub retold: u64,
}
