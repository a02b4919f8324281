//! Which rules are in force. All are, except in tests that show what each of them is for.

/// One switch a rule. The simulation turns them off one by one and must then find a broken trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Spans of foreign keys are passed on to their owner.
    pub forward: bool,
    /// Undecided traces move when their owner changes.
    pub hand_over: bool,
    /// Decisions wait until the peers agree on the view.
    pub agreement: bool,
    /// An agreement ends after [`super::timers::LEASE`].
    pub lease: bool,
    /// Decisions wait, after a loss, for the marks of the agents.
    pub agent_fence: bool,
    /// A leaving gateway hands over and waits until it is quiet.
    pub drain: bool,
    /// Agents send again what lay with a lost instance.
    pub replay: bool,
    /// Agents ask gateways even when they have nothing to send.
    pub poll: bool,
    /// Facts about members travel in every message.
    pub gossip: bool,
    /// A restart under the same name is a new member.
    pub instances: bool,
    /// Retention outlasts detection and fence.
    pub retain: bool,
    /// Retention lasts while the holder is silent.
    pub pin: bool,
    /// Agents replay by the holder that the answer named.
    pub holder: bool,
    /// The age of spans travels with them.
    pub age: bool,
    /// A gateway that nobody asks does not hold for others.
    pub refuse: bool,
    /// A forward that failed goes to the next choice.
    pub fallback: bool,
    /// Parcels that do not reach their owner go through the next choice.
    pub detour: bool,
    /// What cannot be passed on does not go to and fro.
    pub wait: bool,
    /// Foreign traces are looked at every second.
    pub re_examine: bool,
    /// Silent peers are taken for dead.
    pub suspect: bool,
    /// A peer that others hear is not taken for dead.
    pub relay: bool,
    /// Nor is one that agents hear.
    pub agent_relay: bool,
    /// Only a majority may take others for dead without the slice's word, and only it decides.
    pub quorum: bool,
    /// A process that was stopped trusts no lease and suspects nobody.
    pub gap: bool,
    /// Who was taken for dead comes back as a new instance.
    pub rejoin: bool,
    /// A new instance owns nothing before most peers know it.
    pub accepted: bool,
    /// A gateway that comes when all are gone waits for the agents to find it.
    pub cold: bool,
    /// A decision is told to the second choice before anything is exported.
    pub propose: bool,
    /// The third choice is told as well.
    pub third: bool,
    /// With fewer than three gateways, agents are told as well.
    pub agents_witness: bool,
    /// Who is told agrees only if it sees the same owner.
    pub agree: bool,
    /// Who is told answers with the decision that it knows.
    pub known: bool,
    /// A decision that was taken back keeps its verdict.
    pub sticky: bool,
    /// Decisions are told again when a choice changes.
    pub restream: bool,
    /// A gateway that leaves tells the choices after it what it has heard lately.
    pub last_words: bool,
    /// What a gateway held before it was taken for dead counts as sent again.
    pub woken: bool,
    /// It does not follow a decision that may have been made without all spans.
    pub doubt: bool,
    /// The mark "exported" follows a decision.
    pub exported: bool,
}

impl Rules {
    /// Everything in force.
    pub const ALL: Self = Self {
        forward: true,
        hand_over: true,
        agreement: true,
        lease: true,
        agent_fence: true,
        drain: true,
        replay: true,
        poll: true,
        gossip: true,
        instances: true,
        retain: true,
        pin: true,
        holder: true,
        age: true,
        refuse: true,
        fallback: true,
        detour: true,
        wait: true,
        re_examine: true,
        suspect: true,
        relay: true,
        agent_relay: true,
        quorum: true,
        gap: true,
        rejoin: true,
        accepted: true,
        cold: true,
        propose: true,
        third: true,
        agents_witness: true,
        agree: true,
        known: true,
        sticky: true,
        restream: true,
        last_words: true,
        woken: true,
        doubt: true,
        exported: true,
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::ALL
    }
}
