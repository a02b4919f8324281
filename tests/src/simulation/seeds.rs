//! Schedules that are run every time: those that once found a fault, and those that find it again when a
//! rule is off.

use ringtail_engine::ownership::rules::Rules;

use super::schedule::Class;
use super::truth::Kind;

/// Schedules that went wrong while the rules were being written, and must not again.
pub const ONCE_FAILED: &[(Class, u64)] = &[
    // Stale answers in the backlog of a stopped process brought its fence forward.
    (Class::Pause60, 0x9c04_eec1_9c77_898f),
    // A gateway without a say took all others for dead.
    (Class::Isolated, 0xa6ea_f652_ba3f_2e1d),
    // Of two gateways with a one-way cut each took over from the other.
    (Class::CutGateways, 0x71),
    (Class::CutGateways, 0xc8),
    // All who knew the decision were dead.
    (Class::TwoKills, 0x0),
    // The last gateway was killed within a poll of decisions that no agent had heard of yet.
    (Class::TwoKills, 0x2),
    (Class::TwoKills, 0x154),
    // What an agent had sent again counted as known after it had reached nobody for a while.
    (Class::TwoKills, 9_500_226),
    // Agents forgot what lay with a gateway that was leaving, and could not hand over.
    (Class::Mixed, 0x218),
    // A witness that had stood still refused a proposal that was no more; the one that waited for an agent
    // was forgotten, and its trace never decided.
    (Class::Mixed, 20_001_652),
    // The owner stood still, one of its witnesses was cut off and decided anew, and the other one told agents
    // of its last two seconds only; they would have agreed to the second decision as well.
    (Class::Mixed, 777_054),
    // One of two stood still while the other one, cut off from it, decided with agents: its answer to what
    // they had told it long ago counted as if it had been told of that.
    (Class::Mixed, 80_000_076),
    // A gateway that no other one heard decided with agents, who told nobody; the next owner decided anew.
    (Class::Mixed, 80_002_600),
    // One stood still, was taken for dead and came back: an agent that it had stored spans for, and that the
    // others did not hear, let them go before it said so, and what it held itself counted as sent again.
    (Class::Mixed, 90_000_961),
    // One of two stood still, and the other one, which may not hold, did not even try to pass spans on: the
    // owner woke up and decided without them.
    (Class::StatefulPolicy, 40_001_758),
    // One had another trace's spans again when news of their export came along with a proposal: the state
    // machine let them go, and did not say so.
    (Class::Partition, 170_000_716),
    // An agent was told of another decision than the one that it stood by, and the checker took it for a
    // second one.
    (Class::Mixed, 170_001_603),
];

/// A rule, what turns it off, and a schedule that goes wrong in this way without it.
pub type Mutation = (&'static str, fn(&mut Rules), Class, u64, Kind);

/// What each rule is for. Those that are not here have a test by hand, in the engine's `ownership::tests`.
pub const MUTATIONS: &[Mutation] = &[
    ("hand_over", |rules| rules.hand_over = false, Class::Join, 500000, Kind::Wedge),
    ("agent_fence", |rules| rules.agent_fence = false, Class::KillNewIdentity, 500027, Kind::Split),
    ("drain", |rules| rules.drain = false, Class::ScaleDown, 500002, Kind::Split),
    ("replay", |rules| rules.replay = false, Class::KillSameIdentity, 500000, Kind::Split),
    ("poll", |rules| rules.poll = false, Class::JoinerKilled, 500000, Kind::Wedge),
    ("gossip", |rules| rules.gossip = false, Class::Pause10, 500006, Kind::Double),
    ("instances", |rules| rules.instances = false, Class::KillSameIdentity, 500001, Kind::Split),
    ("retain", |rules| rules.retain = false, Class::KillNewIdentity, 500027, Kind::Split),
    ("age", |rules| rules.age = false, Class::Rolling, 500000, Kind::Late),
    ("detour", |rules| rules.detour = false, Class::Mixed, 500388, Kind::Split),
    ("re_examine", |rules| rules.re_examine = false, Class::Rolling, 500021, Kind::Double),
    ("suspect", |rules| rules.suspect = false, Class::Pause60, 500006, Kind::Late),
    ("agent_relay", |rules| rules.agent_relay = false, Class::CutGateways, 500031, Kind::Late),
    ("rejoin", |rules| rules.rejoin = false, Class::Pause60, 500000, Kind::Double),
    ("accepted", |rules| rules.accepted = false, Class::Mixed, 500023, Kind::Split),
    ("cold", |rules| rules.cold = false, Class::Mixed, 500001, Kind::Stranded),
    ("propose", |rules| rules.propose = false, Class::KillNearDeadline, 500003, Kind::Double),
    ("third", |rules| rules.third = false, Class::TwoKills, 6000006, Kind::Double),
    ("agents_witness", |rules| rules.agents_witness = false, Class::TwoKills, 500037, Kind::Double),
    ("sticky", |rules| rules.sticky = false, Class::Rolling, 500004, Kind::Double),
    ("agreement", |rules| rules.agreement = false, Class::Mixed, 500231, Kind::Split),
];
