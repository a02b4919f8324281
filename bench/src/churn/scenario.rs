//! What happens to a fleet: every scenario is a script.

use std::time::Duration;

use super::contender::Side;
use super::directory::Standing;
use super::fleet::{Crew, Fleet};
use crate::failure::Result;

/// The load goes on for so long after an event, so that what comes later is judged too.
const AFTER: Duration = Duration::from_secs(5);
/// Between two steps of a rollout: a new pod is ready after a probe or two.
const READY_AFTER: Duration = Duration::from_secs(2);
/// Three failed readiness probes, ten seconds apart, as Kubernetes has it by default.
const NOT_READY_AFTER: Duration = Duration::from_secs(30);
/// Between two kills.
const KILLS_APART: Duration = Duration::from_secs(3);
/// Longer than it takes to miss one whose connections stay open: as if its node were gone.
const VANISHED_FOR: Duration = Duration::from_secs(8);
/// How long a partition lasts.
const PARTED_FOR: Duration = Duration::from_secs(20);
/// How far an agent that is behind is behind.
const STALE_FOR: Duration = Duration::from_secs(30);
/// How long a calm fleet is watched.
const CALM_FOR: Duration = Duration::from_secs(15);

/// A row of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scenario {
    CalmAlone,
    Calm,
    Scale,
    RolloutSame,
    RolloutNew,
    Sigterm,
    Sigkill,
    SigkillBack,
    SigkillTwo,
    Vanishes,
    Sigstop10,
    Sigstop60,
    Partition,
    Stale,
    Foreign,
    Gigabyte,
}

// === impl Scenario ===

impl Scenario {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 16] = [
        Self::CalmAlone,
        Self::Calm,
        Self::Scale,
        Self::RolloutSame,
        Self::RolloutNew,
        Self::Sigterm,
        Self::Sigkill,
        Self::SigkillBack,
        Self::SigkillTwo,
        Self::Vanishes,
        Self::Sigstop10,
        Self::Sigstop60,
        Self::Partition,
        Self::Stale,
        Self::Foreign,
        Self::Gigabyte,
    ];

    /// On the command line and in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CalmAlone => "calm-alone",
            Self::Calm => "calm",
            Self::Scale => "scale",
            Self::RolloutSame => "rollout-same",
            Self::RolloutNew => "rollout-new",
            Self::Sigterm => "sigterm",
            Self::Sigkill => "sigkill",
            Self::SigkillBack => "sigkill-back",
            Self::SigkillTwo => "sigkill-two",
            Self::Vanishes => "vanishes",
            Self::Sigstop10 => "sigstop-10",
            Self::Sigstop60 => "sigstop-60",
            Self::Partition => "partition",
            Self::Stale => "stale",
            Self::Foreign => "foreign",
            Self::Gigabyte => "gigabyte",
        }
    }

    /// In the table.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::CalmAlone => "calm, gateways that do not know each other",
            Self::Calm => "calm",
            Self::Scale => "scale 3 -> 5 -> 2",
            Self::RolloutSame => "rolling restart of 3, same identity",
            Self::RolloutNew => "rolling replacement of 3, new identities",
            Self::Sigterm => "SIGTERM of 1 of 3",
            Self::Sigkill => "SIGKILL of 1 of 3, buffer full",
            Self::SigkillBack => "SIGKILL of 1 of 3, which is back 2 s later",
            Self::SigkillTwo => "SIGKILL of 2 of 4, 3 s apart",
            Self::Vanishes => "1 of 3 vanishes without a word, another one is told to stop",
            Self::Sigstop10 => "SIGSTOP of 1 of 3 for 10 s",
            Self::Sigstop60 => "SIGSTOP of 1 of 3 for 60 s",
            Self::Partition => "1 of 3 cannot reach another for 20 s (one way)",
            Self::Stale => "3 -> 4 -> 3, one agent's list 30 s behind",
            Self::Foreign => "3 -> 4 -> 3, senders: Ringtail, a Collector, an SDK past all agents",
            Self::Gigabyte => "SIGTERM of 1 of 3 that holds 1 GiB undecided",
        }
    }

    /// Whose gateways can be put through it.
    pub(super) fn contenders(self) -> &'static [Side] {
        match self {
            Self::CalmAlone | Self::Partition | Self::Foreign | Self::Gigabyte => &[Side::Ringtail],
            _ => &[Side::Ringtail, Side::Collector],
        }
    }

    /// The fleet that it begins with.
    pub(super) fn crew(self, side: Side) -> Crew {
        let foreign = self == Self::Foreign;
        Crew {
            gateways: if self == Self::SigkillTwo { 4 } else { 3 },
            gateway_side: side,
            agents: if foreign { vec![side, Side::Collector] } else { vec![side; 2] },
            direct: foreign,
            ways: self == Self::Partition,
        }
    }

    /// What is done to a fleet whose buffers are full.
    pub(super) fn play(self, fleet: &mut Fleet) -> Result<()> {
        match self {
            Self::CalmAlone | Self::Calm => fleet.carry_on(CALM_FOR),
            Self::Scale => scale(fleet)?,
            Self::RolloutSame => restart_each(fleet)?,
            Self::RolloutNew => replace_each(fleet)?,
            Self::Sigterm => {
                fleet.tell_to_stop(&names([1]))?;
                fleet.await_exits()?;
                fleet.rest()?;
            }
            Self::Sigkill => {
                fleet.kill("gw-1")?;
                fleet.rest()?;
            }
            Self::SigkillBack => {
                fleet.crash("gw-1")?;
                // A second has passed until the list has noticed.
                fleet.carry_on(Duration::from_secs(1));
                fleet.begin(&names([1]))?;
                fleet.rest()?;
            }
            Self::SigkillTwo => {
                fleet.kill("gw-1")?;
                // Killing takes a second: until the list has noticed.
                fleet.carry_on(KILLS_APART.saturating_sub(Duration::from_secs(1)));
                fleet.kill("gw-2")?;
                fleet.rest()?;
            }
            Self::Vanishes => {
                fleet.freeze("gw-1")?;
                fleet.tell_to_stop(&names([2]))?;
                fleet.carry_on(VANISHED_FOR);
                fleet.kill("gw-1")?;
                fleet.await_exits()?;
                fleet.rest()?;
            }
            Self::Sigstop10 => {
                fleet.freeze("gw-1")?;
                fleet.carry_on(Duration::from_secs(10));
                fleet.thaw("gw-1")?;
                fleet.rest()?;
            }
            Self::Sigstop60 => freeze_for_a_minute(fleet)?,
            Self::Partition => {
                fleet.open_way("gw-0", "gw-1", false);
                fleet.carry_on(PARTED_FOR);
                fleet.open_way("gw-0", "gw-1", true);
                fleet.rest()?;
            }
            Self::Stale => leave_an_agent_behind(fleet)?,
            Self::Foreign => grow_and_shrink(fleet)?,
            // It has a script of its own.
            Self::Gigabyte => {}
        }
        fleet.carry_on(AFTER);
        Ok(())
    }
}

fn scale(fleet: &mut Fleet) -> Result<()> {
    fleet.begin(&names([3, 4]))?;
    fleet.rest()?;
    fleet.carry_on(AFTER);
    fleet.tell_to_stop(&names([0, 1, 3]))?;
    fleet.await_exits()?;
    fleet.rest()
}

fn restart_each(fleet: &mut Fleet) -> Result<()> {
    for gateway in 0..3 {
        fleet.tell_to_stop(&names([gateway]))?;
        fleet.await_exits()?;
        fleet.begin(&names([gateway]))?;
        fleet.carry_on(READY_AFTER);
    }
    fleet.rest()
}

/// As a Deployment does it: the next one starts when the last one is ready, whether or not the one that was
/// told to stop has ended.
fn replace_each(fleet: &mut Fleet) -> Result<()> {
    for gateway in 0..3 {
        fleet.begin(&names([gateway + 3]))?;
        fleet.carry_on(READY_AFTER);
        fleet.tell_to_stop(&names([gateway]))?;
    }
    fleet.await_exits()?;
    fleet.rest()
}

fn freeze_for_a_minute(fleet: &mut Fleet) -> Result<()> {
    fleet.freeze("gw-1")?;
    fleet.carry_on(NOT_READY_AFTER);
    fleet.list("gw-1", Standing::NotReady);
    fleet.carry_on(Duration::from_secs(60).saturating_sub(NOT_READY_AFTER));
    fleet.thaw("gw-1")?;
    fleet.carry_on(READY_AFTER);
    fleet.list("gw-1", Standing::Ready);
    fleet.rest()
}

fn leave_an_agent_behind(fleet: &mut Fleet) -> Result<()> {
    let started = std::time::Instant::now();
    fleet.board.directory.hold_back("agent-1", true);
    fleet.begin(&names([3]))?;
    fleet.carry_on(STALE_FOR / 3);
    fleet.tell_to_stop(&names([1]))?;
    fleet.await_exits()?;
    fleet.carry_on(STALE_FOR.saturating_sub(started.elapsed()));
    fleet.board.directory.hold_back("agent-1", false);
    fleet.rest()
}

fn grow_and_shrink(fleet: &mut Fleet) -> Result<()> {
    fleet.begin(&names([3]))?;
    fleet.rest()?;
    fleet.carry_on(AFTER);
    fleet.tell_to_stop(&names([1]))?;
    fleet.await_exits()?;
    fleet.rest()
}

fn names<const N: usize>(numbers: [usize; N]) -> Vec<String> {
    numbers.map(|number| format!("gw-{number}")).to_vec()
}
