//! Why nothing may be decided, and what waiting for others has cost so far.

use std::sync::Arc;

use super::Membership;
use crate::Millis;
use crate::ownership::facts::{Instance, State};
use crate::ownership::stats::{Conduct, Fence, Stats};
use crate::ownership::timers::FENCE;

/// What was so at the last tick, to see what is new.
#[derive(Debug, Default)]
pub(super) struct FenceWatch {
    conduct: Conduct,
    inst: u64,
    /// Others that decisions go on without, and losses that nobody waits for any more.
    given_up: [usize; 2],
    losses: Arc<[Instance]>,
}

impl Membership {
    /// What was counted; `stats` are the counters of the process.
    pub(in crate::ownership) fn conduct(&self, stats: Stats) -> Conduct {
        Conduct { stats, ..self.watch.conduct }
    }

    /// Why a gateway that serves decides nothing now.
    fn fence(&self, now: Millis) -> Option<Fence> {
        if self.state != State::Serving || self.decide_until(now) > now {
            None
        } else if !self.may_act(now) {
            Some(Fence::Minority)
        } else if !self.marks.cover(&self.losses, now) {
            Some(Fence::Agents)
        } else {
            Some(Fence::Peers)
        }
    }

    /// Counts what has been so since the last tick.
    pub(super) fn account(
        &mut self,
        complete: bool,
        elapsed: Millis,
        now: Millis,
        stats: &mut Stats,
    ) {
        let (fence, given_up) = (self.fence(now), self.given_up(now));
        let watch = &mut self.watch;
        let conduct = &mut watch.conduct;
        if let Some(cause) = fence {
            let of_cause = &mut conduct.fences[cause as usize];
            of_cause.times += u64::from(conduct.fence != fence);
            of_cause.millis += elapsed;
        }
        for (index, (before, now)) in watch.given_up.iter().zip(given_up).enumerate() {
            conduct.fences[index].timed_out += now.saturating_sub(*before) as u64;
        }
        conduct.moving_millis += if complete { 0 } else { elapsed };
        conduct.fence = fence;
        watch.given_up = given_up;
        stats.rejoined += u64::from(watch.inst != 0 && watch.inst != self.me.inst);
        watch.inst = self.me.inst;
        let losses = self.losses.told();
        if !Arc::ptr_eq(&losses, &watch.losses) {
            let new = losses.iter().filter(|lost| watch.losses.binary_search(lost).is_err());
            stats.losses += new.filter(|lost| lost.name != self.me.name).count() as u64;
            watch.losses = losses;
        }
    }

    fn given_up(&self, now: Millis) -> [usize; 2] {
        if self.state != State::Serving {
            return [0, 0];
        }
        let parts = self.facts.iter().filter(|fact| fact.state.takes_part());
        let peers = parts.filter_map(|fact| self.peers.get(&fact.of.name));
        let deaf = peers.filter(|peer| peer.is_deaf(now)).count();
        let overdue = self.losses.iter().filter(|(_, learned)| now >= learned + FENCE);
        let unanswered = overdue.filter(|(lost, _)| !self.marks.all_have(lost, now)).count();
        [deaf, unanswered]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeySeed;
    use crate::ownership::Config;
    use crate::ownership::facts::Fact;
    use crate::ownership::rules::Rules;
    use crate::ownership::timers::{GRACE, SUSPECT, TICK};

    const START: Millis = 100_000;

    /// A gateway that serves beside these others, of which it hears nothing.
    fn serving(name: &str, others: &[&str]) -> (Membership, Stats) {
        let me = Instance { name: name.into(), inst: 1 };
        let seed = KeySeed::new([1; 16]);
        let config =
            Config { me, seed, remember: 0, remember_max: 0, settle: 0, rules: Rules::ALL };
        let (mut members, mut stats) = (Membership::new(&config, START), Stats::default());
        pass(&mut members, &mut stats, START, TICK);
        let fact = |name: &&str| {
            let of = Instance { name: (*name).into(), inst: 1 };
            Fact { of, state: State::Serving }
        };
        members.merge(&others.iter().map(fact).collect::<Vec<_>>(), START + TICK);
        (members, stats)
    }

    fn pass(members: &mut Membership, stats: &mut Stats, from: Millis, time: Millis) {
        let mut out = Vec::new();
        for now in (from + TICK..=from + time).step_by(TICK as usize) {
            members.tick(false, now, stats, &mut out);
        }
    }

    fn millis(members: &Membership) -> [Millis; 3] {
        members.watch.conduct.fences.map(|fences| fences.millis)
    }

    #[test]
    fn a_silent_peer_is_waited_for_until_it_is_lost_and_then_the_agents_are() {
        let (mut members, mut stats) = serving("a", &["b"]);
        pass(&mut members, &mut stats, START + TICK, 60_000);
        let conduct = members.conduct(stats);
        assert_eq!((conduct.fence, stats.losses, stats.declared), (None, 1, 1));
        // Nobody agrees for as long as it takes to find out, and then the loss is too young.
        let [peers, agents, minority] = millis(&members);
        assert!((SUSPECT..SUSPECT + 2 * TICK).contains(&peers), "{peers}");
        assert!((GRACE - TICK..=GRACE + TICK).contains(&agents), "{agents}");
        assert_eq!(minority, 0);
        assert_eq!(conduct.fences.map(|fences| fences.times), [1, 1, 0]);
        assert_eq!(conduct.fences.map(|fences| fences.timed_out), [0; 3]);
        assert_eq!(conduct.moving_millis, 60_000 + TICK);
    }

    #[test]
    fn one_that_is_heard_and_never_agrees_is_given_up() {
        let (mut members, mut stats) = serving("a", &["b"]);
        let b = Instance { name: "b".into(), inst: 1 };
        for tick in 1..=240 {
            let now = START + tick * TICK;
            members.on_heard(&b, now);
            pass(&mut members, &mut stats, now, TICK);
        }
        let peers = members.watch.conduct.fences[Fence::Peers as usize];
        assert_eq!((peers.times, peers.timed_out, stats.losses), (1, 1, 0));
        assert!((FENCE - TICK..=FENCE + 2 * TICK).contains(&peers.millis), "{peers:?}");
    }

    #[test]
    fn a_minority_waits_for_the_others() {
        let (mut members, mut stats) = serving("c", &["a", "b"]);
        pass(&mut members, &mut stats, START + TICK, 60_000);
        assert_eq!(members.conduct(stats).fence, Some(Fence::Minority));
        let [peers, agents, minority] = millis(&members);
        assert!((SUSPECT..SUSPECT + 2 * TICK).contains(&peers), "{peers}");
        assert_eq!((agents, peers + minority), (0, 60_000));
    }
}
