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
    /// Of those, though spans may have been missing: the fence passed, or agents may not have found us.
    pub decided_unsure: u64,
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
    /// Decisions that could not be remembered for as long as they may be asked for.
    pub forgotten: u64,
}

impl Stats {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self.events().map(|(_, times)| times);
        for (times, (_, more)) in sum.iter_mut().zip(other.events()) {
            *times += more;
        }
        let [
            gaps,
            declared,
            forwarded,
            held_for_others,
            refused,
            handed_over,
            parcel_bytes,
            decided,
            decided_alone,
            decided_unsure,
            learned,
            unanswered,
            taken_back,
            conflicts,
            repeated,
            retold,
            forgotten,
        ] = sum;
        Self {
            gaps,
            declared,
            forwarded,
            held_for_others,
            refused,
            handed_over,
            parcel_bytes,
            decided,
            decided_alone,
            decided_unsure,
            learned,
            unanswered,
            taken_back,
            conflicts,
            repeated,
            retold,
            forgotten,
        }
    }

    /// Each count with its name.
    pub fn events(&self) -> [(&'static str, u64); 17] {
        [
            ("gaps", self.gaps),
            ("declared", self.declared),
            ("forwarded", self.forwarded),
            ("held_for_others", self.held_for_others),
            ("refused", self.refused),
            ("handed_over", self.handed_over),
            ("parcel_bytes", self.parcel_bytes),
            ("decided", self.decided),
            ("decided_alone", self.decided_alone),
            ("decided_unsure", self.decided_unsure),
            ("learned", self.learned),
            ("unanswered", self.unanswered),
            ("taken_back", self.taken_back),
            ("conflicts", self.conflicts),
            ("repeated", self.repeated),
            ("retold", self.retold),
            ("forgotten", self.forgotten),
        ]
    }
}
