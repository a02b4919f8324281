//! What a gateway counts of all this.

/// Makes the counters, their sum and their names from one list.
macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counters since the start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Stats {
            /// Both together.
            pub fn plus(self, other: Self) -> Self {
                Self { $($field: self.$field + other.$field,)* }
            }

            /// Each count with its name.
            pub fn events(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    };
}

counters! {
    /// Times that the process was stopped for longer than a tick may take.
    gaps,
    /// Times that it became a new instance, because others had taken it for dead.
    rejoined,
    /// Others that were taken for dead here.
    declared,
    /// Instances of others that were lost with what lay there.
    losses,
    /// Parts passed on to their owner.
    forwarded,
    /// Parts held for an owner that could not be reached.
    held_for_others,
    /// Parts refused.
    refused,
    /// Traces handed over and stored elsewhere.
    handed_over,
    /// Bytes of parcels sent, retries included.
    parcel_bytes,
    /// Decisions that this gateway made.
    decided,
    /// Of those, without a witness though there are other members.
    decided_alone,
    /// Of those, though spans may have been missing: the fence passed, or agents may not have found us.
    decided_unsure,
    /// Decisions learned from others.
    learned,
    /// Proposals that no witness answered.
    unanswered,
    /// Decisions that a witness refused: as it sees the fleet, the trace is not ours.
    turned_down,
    /// Decisions taken back because the key changed hands.
    taken_back,
    /// Decisions learned that differ from one that stands here.
    conflicts,
    /// Replayed parts dropped because they were exported before.
    repeated,
    /// Decisions told to new owners or witnesses.
    retold,
    /// Decisions that could not be remembered for as long as they may be asked for.
    forgotten,
}

/// Why a gateway that serves decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fence {
    /// Another gateway does not agree on the ring yet, or still has something to hand over.
    Peers,
    /// After a loss, agents have not sent again yet what lay there.
    Agents,
    /// It hears too few of the others.
    Minority,
}

/// What the fences of one cause took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FenceStats {
    /// How often.
    pub times: u64,
    /// For how long, together, in milliseconds.
    pub millis: u64,
    /// Others that were not waited for any longer.
    pub timed_out: u64,
}

/// What a gateway did to keep traces whole that is counted once a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conduct {
    /// Counters; those of the shards are not among them.
    pub stats: Stats,
    /// Why it decides nothing now.
    pub fence: Option<Fence>,
    /// By cause, in the order of [`Fence::ALL`].
    pub fences: [FenceStats; 3],
    /// For how long it held, or was sending, what belongs to others, in milliseconds.
    pub moving_millis: u64,
}

// === impl Fence ===

impl Fence {
    /// All causes.
    pub const ALL: [Self; 3] = [Self::Peers, Self::Agents, Self::Minority];

    /// As metrics and `/stats` call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Agents => "agents",
            Self::Minority => "minority",
        }
    }
}
