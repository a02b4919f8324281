//! Which part of the fleet this gateway is in. Of two parts that do not hear each other only one may go on.

use super::timers::HALF_CAP;
use crate::Millis;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quorum {
    /// More than half of the members, or exactly half with the lowest name.
    Majority,
    /// Exactly half, without the lowest name.
    Half {
        /// Since when.
        since: Millis,
    },
    /// Less than half, or not a member.
    Minority,
}

impl Quorum {
    /// Of `members` a gateway hears `heard`, itself among them.
    pub(super) fn of(self, heard: usize, members: usize, has_lowest: bool, now: Millis) -> Self {
        match (heard * 2).cmp(&members) {
            std::cmp::Ordering::Greater => Self::Majority,
            std::cmp::Ordering::Equal if has_lowest => Self::Majority,
            std::cmp::Ordering::Equal => match self {
                Self::Half { .. } => self,
                _ => Self::Half { since: now },
            },
            std::cmp::Ordering::Less => Self::Minority,
        }
    }

    /// Whether it may decide, and take others for dead.
    pub(super) fn may_act(self, now: Millis) -> bool {
        match self {
            Self::Majority => true,
            Self::Half { since } => now > since + HALF_CAP,
            Self::Minority => false,
        }
    }
}
