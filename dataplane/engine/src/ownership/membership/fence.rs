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
    pub(super) fn account(&mut self, complete: bool, now: Millis, stats: &mut Stats) {
        let elapsed = now.saturating_sub(self.ticked);
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
