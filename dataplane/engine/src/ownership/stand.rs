//! What the shards of a gateway need to know of the fleet: one value, replaced as a whole, so that a shard
//! never waits for anybody.

use std::sync::Arc;

use super::facts::{Instance, State};
use super::rules::Rules;
use super::timers::{FENCE, REQUEST};
use crate::Millis;
use crate::key::TraceKey;
use crate::ring::{Member, View};

/// See the module.
#[derive(Debug, Clone)]
pub struct Stand {
    /// Who this gateway is.
    pub me: Instance,
    /// What it is up to.
    pub state: State,
    /// Grows with every change of the view.
    pub epoch: u64,
    /// The members that own keys.
    pub view: Arc<View>,
    /// Of each member of the view, in its order.
    pub(super) seats: Vec<Seat>,
    /// Our place in the view.
    pub(super) place: Option<usize>,
    /// Decisions are allowed before this.
    pub(super) decide_until: Millis,
    /// Since when they have been, without a break.
    pub(super) decides_since: Millis,
    /// Nobody is left out: every peer agrees, and after losses every agent has sent again.
    pub(super) sure: bool,
    /// Traces that began before the first wait for the second.
    pub(super) cold: Cold,
    /// Whether agents can witness decisions that no other gateway can.
    pub(super) confides: bool,
    /// Whether others would come to ask for what is held here.
    pub(super) holds: bool,
    /// Lost instances, sorted.
    pub(super) lost: Arc<[Instance]>,
    pub(super) rules: Rules,
}

/// After all gateways are gone and a new one comes, agents find it one by one, and each sends again what it
/// retains. So what began before waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cold {
    /// When this gateway began to serve, if it was alone.
    pub(super) since: Millis,
    /// When the agents have found it.
    pub(super) until: Millis,
}

impl Cold {
    /// Somebody says for how long agents may still be looking for it or for its peers. What was said before
    /// comes again with every hello, a little earlier or later.
    pub(super) fn extended(self, cold: Millis, now: Millis) -> Self {
        let until = now + cold;
        match self.until {
            _ if cold == 0 => self,
            known if until > known + REQUEST => Self { since: now, until },
            known => Self { until: until.max(known), ..self },
        }
    }
}

/// A member of the view as we see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    /// Until when it agrees with us.
    pub(super) agrees_until: Millis,
    /// Not waited for any more.
    pub(super) deaf: bool,
    /// It has shown the view that we have.
    pub(super) knows: bool,
}

impl Stand {
    /// Whether keys that are ours may be decided now: one comparison, the same for all keys.
    pub fn may_decide(&self, now: Millis) -> bool {
        now < self.decide_until
    }

    /// Whether a decision first tried then has waited for its witnesses as long as it shall. A time in which
    /// nothing could be decided does not count: others may have decided in it, and the witnesses know.
    pub(super) fn is_overdue(&self, tried: Millis, now: Millis) -> bool {
        now > tried.max(self.decides_since) + FENCE
    }

    /// Counts on from the stand before this one.
    pub(super) fn follows(&mut self, before: &Self, now: Millis) {
        let unbroken = before.may_decide(now) && self.may_decide(now);
        self.decides_since = if unbroken { before.decides_since } else { now };
    }

    /// Whether a trace with its first span then may be decided, as far as agents are concerned that have not
    /// found us yet.
    pub(super) fn is_found(&self, first: Millis, now: Millis) -> bool {
        first >= self.cold.since || now >= self.cold.until || !self.rules.cold
    }

    /// Nobody is left to hand over to: a leaving gateway decides what it has.
    pub fn is_alone(&self) -> bool {
        self.state == State::Draining && self.view.is_empty()
    }

    /// Among how many gateways the budgets of policies are shared: those that own keys, or this one alone.
    pub fn members(&self) -> u32 {
        u32::try_from(self.view.len()).unwrap_or(u32::MAX).max(1)
    }

    /// The owner of a key, if there is anybody.
    pub fn owner(&self, key: TraceKey) -> Option<&Member> {
        self.view.owner(key).map(|place| &self.view.members()[place])
    }

    /// Whether the key is ours to decide.
    pub fn owns(&self, key: TraceKey) -> bool {
        match self.view.owner(key) {
            Some(place) => Some(place) == self.place,
            None => self.is_alone(),
        }
    }

    pub(super) fn is_lost(&self, instance: &Instance) -> bool {
        self.lost.binary_search(instance).is_ok()
    }

    /// The first choice for the key that is neither we nor one of these.
    pub(super) fn next_choice(&self, key: TraceKey, not: &str) -> Option<&Member> {
        let mut ranked = self.view.ranked(key);
        let other =
            |place: &usize| Some(*place) != self.place && self.view.members()[*place].id != not;
        ranked.find(other).map(|place| &self.view.members()[place])
    }

    /// Whether this gateway owns the key when its owner is gone.
    pub(super) fn is_next(&self, key: TraceKey) -> bool {
        self.place.is_some() && self.view.ranked(key).nth(1) == self.place
    }

    /// Whether spans of others that were passed on so often, and cannot be passed on from here, stay here.
    /// Else they go back to who sent them and wait there: two that sent them to each other would move them
    /// for as long as the owner is silent.
    pub(super) fn may_keep(&self, key: TraceKey, hops: u8) -> bool {
        let wait_here = hops == 0 || self.is_next(key) || !self.rules.wait;
        !self.rules.refuse || self.holds && wait_here
    }

    /// Who has to know of a decision on a key of ours: the choices after us that can be heard.
    pub(super) fn witnesses(&self, key: TraceKey) -> Witnesses {
        self.owned(key).1
    }

    /// Whether the key is ours to decide, and its witnesses: both with one look at the members.
    pub(super) fn owned(&self, key: TraceKey) -> (bool, Witnesses) {
        let number = if self.rules.third { 2 } else { 1 };
        let choices = self.view.first::<3>(key);
        let owns = choices[0].map_or_else(|| self.is_alone(), |owner| Some(owner) == self.place);
        let others = choices.into_iter().flatten().filter(|place| Some(*place) != self.place);
        let heard = others.take(number).filter(|place| !self.seats[*place].deaf);
        let mut places = heard.map(|place| place as u16);
        let (one, other) = (places.next(), places.next());
        // In one order, so that decisions with the same witnesses share messages.
        let witnesses = match other {
            Some(other) if one > Some(other) => Witnesses([Some(other), one]),
            _ => Witnesses([one, other]),
        };
        (owns, witnesses)
    }

    /// The place of a member that may decide what it owns, because it knows that we see it there.
    pub(super) fn proposer(&self, instance: &Instance, now: Millis) -> Option<usize> {
        let members = self.view.members();
        let is_it = |member: &Member| member.id == *instance.name && member.inst == instance.inst;
        let place = members.iter().position(is_it)?;
        (now < self.seats[place].agrees_until).then_some(place)
    }

    /// Whether that member owns the key.
    pub(super) fn takes_from(&self, proposer: Option<usize>, key: TraceKey) -> bool {
        proposer.is_some() && self.view.owner(key) == proposer
    }
}

/// Places of up to two members of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Witnesses(pub(super) [Option<u16>; 2]);

impl Witnesses {
    pub(super) fn places(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().flatten().map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_start_that_is_told_again_is_the_same() {
        let cold = Cold::default().extended(15_000, 100_000);
        assert_eq!((cold.since, cold.until), (100_000, 115_000));
        let again = cold.extended(14_300, 100_750);
        assert_eq!((again.since, again.until), (100_000, 115_050));
        assert_eq!(again.extended(0, 101_000), again);
        let another = again.extended(15_000, 110_000);
        assert_eq!((another.since, another.until), (110_000, 125_000));
    }
}
