//! How long things take and how many of them there may be, each with its arithmetic.

use crate::Millis;

/// A gateway looks at its clock so often.
pub const TICK: Millis = 250;
/// Longer between two ticks of our own and the process was stopped: 6 ticks.
pub const GAP: Millis = 1_500;
/// A gateway greets every other one so often, and at each change of its view.
pub const HELLO: Millis = 750;
/// An agreement is good for so long after the question was sent: 4 hellos.
pub const LEASE: Millis = 3_000;
/// A silent peer is taken for dead: LEASE + 2 s of delay, so that it has stopped deciding before.
pub const SUSPECT: Millis = 5_000;
/// Decisions wait for a silent peer or agent at most so long; then they go on, counted.
pub const FENCE: Millis = 10_000;
/// How old a loss must be before decisions go on: more than LEASE and than two polls, so that every agent
/// that is alive was heard about it.
pub const GRACE: Millis = 4_000;
/// An agent that has not polled for so long is not waited for.
pub const AGENT_SILENT: Millis = 5_000;
/// An agent asks every gateway so often while it retains anything.
pub const POLL: Millis = 1_000;
/// A holder that answered nothing for so long keeps the agent from forgetting what lies with it: 3 polls.
pub const HOLDER_SILENT: Millis = 3_000;
/// An answer to what an agent sent comes within this: two hops of [`REQUEST`] and its own.
pub const AGENT_REQUEST: Millis = 2_500;
/// An answer to what a gateway sent comes within this; at the second hop within [`LAST_HOP`].
pub const REQUEST: Millis = 1_000;
/// See [`REQUEST`].
pub const LAST_HOP: Millis = 700;
/// Foreign traces that lie here are looked at so often.
pub const RE_EXAMINE: Millis = 1_000;
/// How long after the decision wait an agent retains: FENCE + SUSPECT + 10 s of export.
pub const RETAIN_AFTER_WAIT: Millis = 25_000;
/// How much longer because of a silent holder, at most.
pub const RETAIN_PINNED_MAX: Millis = 60_000;
/// A gateway that joins knows of the others by then: 2 hellos.
pub const JOIN_SETTLE: Millis = 1_500;
/// A gateway that finds nobody when it joins leaves traces older than itself open for so long, for agents
/// that have not heard of it yet: 10 s for their slices, and polls.
pub const COLD: Millis = 15_000;
/// With exactly half of the members and not the lowest name, decisions go on after this.
pub const HALF_CAP: Millis = 20_000;
/// A leaving gateway must have had no input for so long.
pub const QUIET: Millis = 2_000;
/// It stays at least so long, for agents that have not heard of it yet: 3 polls.
pub const DRAIN_MIN: Millis = 3_000;
/// It stays at most so long; Kubernetes kills after 30 s.
pub const DRAIN_MAX: Millis = 25_000;
/// A lost instance is told of for so long: longer than any agent retains (60 s with the default wait).
pub const LOSS_KEPT: Millis = 90_000;
/// What a dead or departed member was is remembered for so long, so that a stale process cannot bring it
/// back: longer than the slices of a paused process are believed.
pub const TOMBSTONE_KEPT: Millis = 600_000;
/// Who leaves tells all next choices what was decided so lately: until the loss of an owner is known and
/// decisions go on, SUSPECT + FENCE.
pub const LAST_WORDS: Millis = SUSPECT + FENCE;
/// A refused connection and silence of this length mean that the process is gone.
pub const REFUSED_SILENT: Millis = 1_000;
/// A slice without the peer and silence of this length mean the same: LEASE + 1 s.
pub const ABSENT_SILENT: Millis = LEASE + 1_000;
/// What a hand-over or a list of decisions waits for after a failure; doubles up to [`BACK_OFF_MAX`].
pub const BACK_OFF: Millis = 500;
/// See [`BACK_OFF`].
pub const BACK_OFF_MAX: Millis = 4_000;
/// Spans that an agent took less than this before a decision may have missed it.
pub const IN_FLIGHT: Millis = 5_000;

/// A delivery is passed on at most so often.
pub const HOPS_MAX: u8 = 2;
/// Members a view may have, and tombstones beside them: 64 supported, 16 generations of each.
pub const FACTS_MAX: usize = 1_024;
/// Lost instances told of at a time: every one of 64 gateways 16 times within 90 s.
pub const LOSSES_MAX: usize = 1_024;
/// Agents whose marks are kept: 2,000 supported, twice.
pub const AGENTS_MAX: usize = 4_096;
/// Agents that remember decisions when there are fewer than three gateways: those with the lowest names.
pub const AGENT_WITNESSES: usize = 2;
/// An agent confirms decisions that wait for it at its next tick: 250 ms.
pub const AGENT_CONFIRM: Millis = 200;
/// How long a decision waits for an agent's word before it is made anew: a poll, a confirmation, [`REQUEST`].
pub const AGENT_CONFIRMS: Millis = POLL + AGENT_CONFIRM + REQUEST;
/// Decisions of the last two polls are told to them: each is told twice.
pub const AGENT_WITNESSES_TOLD: Millis = 2 * POLL;
/// Traces in one parcel.
pub const PARCEL_TRACES: usize = 1_024;
/// Bytes in one parcel, unless one trace alone has more.
pub const PARCEL_BYTES: u64 = 1 << 20;
/// Parcels on their way to one peer from one shard: 4 MiB in flight, 4 GB/s at 1 ms.
pub const PARCELS_IN_FLIGHT: usize = 4;
/// Decisions in one message: 64 KiB of keys. A gateway that decides 16,000 traces a second asks each witness
/// once a round; more of them would ask in more messages, and it is messages that cost.
pub const DECISIONS_PER_MESSAGE: usize = 8_192;
/// Choices that an agent tries before it waits.
pub const CHOICES: usize = 3;
