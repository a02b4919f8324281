//! What a gateway knows of one other, beside the facts that all share.

use super::facts::Instance;
use super::message::Asked;
use super::timers::{ABSENT_SILENT, FENCE, LEASE, REFUSED_SILENT};
use crate::Millis;

/// Where the slices have a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Listed {
    /// There was no slice so far.
    #[default]
    Unknown,
    /// It is in the slices, and serves.
    Serving,
    /// It is not, or does not serve.
    Not,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Which instance all this is about.
    pub(super) of: Instance,
    /// When it was heard last, by us.
    pub(super) heard: Millis,
    /// When it was heard last by any other gateway, as far as we were told.
    pub(super) relayed: Millis,
    /// When a connection to it was refused last.
    pub(super) refused: Option<Millis>,
    /// When we asked what it answered last with our own view, and with nothing left to hand over.
    pub(super) agreed: Option<Millis>,
    /// Since when there is no agreement, if there is none.
    pub(super) apart_since: Millis,
    /// The digest it showed last.
    pub(super) digest: u64,
    /// The highest instance of us that it has shown to know.
    pub(super) knows_us: u64,
    /// Where the slices have it.
    pub(super) listed: Listed,
    /// When we greeted it last.
    pub(super) greeted: Millis,
    /// Whether that went along with something else.
    pub(super) rode: bool,
}

impl Peer {
    pub(super) fn new(of: Instance, listed: Listed, now: Millis) -> Self {
        Self {
            of,
            heard: now,
            relayed: now,
            refused: None,
            agreed: None,
            apart_since: now,
            digest: 0,
            knows_us: 0,
            listed,
            greeted: 0,
            rode: false,
        }
    }

    /// How long nobody has heard of it.
    pub(super) fn silent(&self, now: Millis) -> Millis {
        now.saturating_sub(self.heard.max(self.relayed))
    }

    /// The connection is refused and it is silent, or the slices have it no more and it is silent.
    pub(super) fn is_confirmed_dead(&self, now: Millis) -> bool {
        let refused = self.refused.is_some_and(|at| at >= self.heard.max(self.relayed));
        let absent = self.listed == Listed::Not;
        refused && self.silent(now) > REFUSED_SILENT || absent && self.silent(now) > ABSENT_SILENT
    }

    /// Takes an agreement from an answer.
    pub(super) fn agree(&mut self, asked: Asked) {
        self.agreed = self.agreed.max(Some(asked.at));
        // The answer may have lain in our own socket for a minute: it does not bring the fence forward.
        self.apart_since = self.apart_since.max(asked.at + LEASE);
    }

    /// All agreement is void: the view changed, or we were stopped.
    pub(super) fn part(&mut self, now: Millis) {
        self.agreed = None;
        self.apart_since = now;
    }

    /// Until when it agrees with us.
    pub(super) fn agrees_until(&self, lease: bool) -> Millis {
        match self.agreed {
            Some(_) if !lease => Millis::MAX,
            Some(at) => at + LEASE,
            None => 0,
        }
    }

    /// It has not agreed for so long that decisions go on without it.
    pub(super) fn is_deaf(&self, now: Millis) -> bool {
        now > self.apart_since + FENCE
    }
}
