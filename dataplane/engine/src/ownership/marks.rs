//! What agents have sent again: after a loss, decisions wait until every live agent has said so.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::{Instance, Name};
use super::losses::Losses;
use super::timers::{AGENT_SILENT, AGENT_WITNESSES, AGENTS_MAX, FENCE, GRACE};
use crate::Millis;

/// The last poll of each agent.
#[derive(Debug, Default)]
pub(super) struct Marks {
    agents: BTreeMap<Name, Mark>,
}

#[derive(Debug)]
struct Mark {
    polled: Millis,
    done: Arc<[Instance]>,
}

impl Marks {
    /// An agent polled.
    pub(super) fn note(&mut self, agent: &Name, done: &Arc<[Instance]>, now: Millis) {
        if self.agents.len() < AGENTS_MAX || self.agents.contains_key(agent) {
            let mark = Mark { polled: now, done: Arc::clone(done) };
            self.agents.insert(Arc::clone(agent), mark);
        }
    }

    /// Whether everything that lay with lost instances is here again, as far as it will be.
    pub(super) fn cover(&self, losses: &Losses, now: Millis) -> bool {
        losses.iter().all(|(lost, learned)| {
            now >= learned + FENCE || (now >= learned + GRACE && self.all_have(lost, now))
        })
    }

    /// The same, without those that were not waited for any longer.
    pub(super) fn cover_all(&self, losses: &Losses, now: Millis) -> bool {
        losses.iter().all(|(lost, _)| self.all_have(lost, now))
    }

    /// Whether the agent is one of those that remember decisions when gateways are few.
    pub(super) fn is_witness(&self, agent: &Name) -> bool {
        self.agents.keys().take(AGENT_WITNESSES).any(|name| name == agent)
    }

    /// Whether an agent has polled lately.
    pub(super) fn has_agents(&self, now: Millis) -> bool {
        self.agents.values().any(|mark| mark.polled + AGENT_SILENT > now)
    }

    /// Forgets agents that are silent.
    pub(super) fn expire(&mut self, now: Millis) {
        self.agents.retain(|_, mark| mark.polled + AGENT_SILENT > now);
    }

    /// Whether every live agent has sent again what lay there.
    pub(super) fn all_have(&self, lost: &Instance, now: Millis) -> bool {
        let live = self.agents.values().filter(|mark| mark.polled + AGENT_SILENT > now);
        live.into_iter().all(|mark| mark.done.contains(lost))
    }
}
