//! What happens to a fleet: traces that are sent, events that befall it, how its network is. All of it comes
//! from one seed and is plain data, so that a failing one can be cut down.

use std::fmt;

use super::dice::Dice;

/// The decision wait of every schedule.
pub const WAIT: u64 = 30_000;

/// Traces begin here; the fleet has formed by then.
pub const START: u64 = 10_000;

/// One percent: a hundred times what a crystal is off.
const SKEW_MAX: u64 = 100;

/// What kind of events a schedule has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Class {
    Calm,
    Join,
    Drain,
    KillSameIdentity,
    KillNewIdentity,
    Pause10,
    Pause60,
    CutGateways,
    CutAgent,
    ScaleUp,
    ScaleDown,
    Rolling,
    DrainThenKill,
    JoinerKilled,
    Mixed,
    TwoKills,
    Isolated,
    KillNearDeadline,
    AgentKilled,
    BudgetsOut,
    MemoryAged,
    ClockDrift,
    StatefulPolicy,
    Partition,
    LargeFleet,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::Calm,
        Self::Join,
        Self::Drain,
        Self::KillSameIdentity,
        Self::KillNewIdentity,
        Self::Pause10,
        Self::Pause60,
        Self::CutGateways,
        Self::CutAgent,
        Self::ScaleUp,
        Self::ScaleDown,
        Self::Rolling,
        Self::DrainThenKill,
        Self::JoinerKilled,
        Self::Mixed,
        Self::TwoKills,
        Self::Isolated,
        Self::KillNearDeadline,
        Self::AgentKilled,
        Self::BudgetsOut,
        Self::MemoryAged,
        Self::ClockDrift,
        Self::StatefulPolicy,
        Self::Partition,
        Self::LargeFleet,
    ];

    /// Whether no gateway dies or is taken for dead with spans in its memory: senders that are not ours do
    /// not repeat them.
    fn is_gentle(self) -> bool {
        matches!(
            self,
            Self::Calm | Self::Join | Self::Drain | Self::ScaleUp | Self::ScaleDown | Self::Rolling
        )
    }
}

/// Everything that happens.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Where it came from.
    pub seed: u64,
    /// Its kind.
    pub class: Class,
    /// Gateways at the start, called 0, 1, 2 and so on.
    pub gateways: usize,
    /// Agents.
    pub agents: usize,
    /// Agent 0 is a plain Collector: another ring, no retention, views from slices alone.
    pub plain: bool,
    /// Traces.
    pub traces: Vec<TracePlan>,
    /// Events, in order of time.
    pub events: Vec<Event>,
    /// The network.
    pub network: Network,
    /// Bounds that may be too small.
    pub budgets: Budgets,
    /// By how much the wall clocks of gateways differ, at most.
    pub drift: u64,
    /// By how much of ten thousand the clock of each process may run faster or slower.
    pub skew: u64,
    /// The verdict is no function of the trace, as with a rate that a policy keeps to.
    pub stateful: bool,
    /// Greetings go along with decisions, as they do where there is traffic.
    pub greets_along: bool,
}

/// One trace.
#[derive(Debug, Clone)]
pub struct TracePlan {
    /// Its name in reports, which survives shrinking.
    pub number: u32,
    /// When and through which agent each span comes.
    pub spans: Vec<(u64, usize)>,
    /// The span that makes the policy keep it.
    pub error: Option<usize>,
}

/// Something that befalls the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: u64,
    /// What.
    pub what: What,
}

/// See [`Event`]. Gateways go by the number of their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum What {
    Start { gateway: usize },
    Drain { gateway: usize },
    Kill { gateway: usize },
    Pause { gateway: usize, millis: u64 },
    CutGateways { from: usize, to: usize, millis: u64 },
    CutAgent { agent: usize, gateway: usize, both: bool, millis: u64 },
    Isolate { gateway: usize, millis: u64 },
    KillAgent { agent: usize },
    StartAgent { agent: usize },
}

/// How messages travel and when slices arrive.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// The longest delay of a message in calm.
    pub delay_max: u64,
    /// How many of a hundred messages are lost and sent again.
    pub loss_percent: u64,
    /// The longest delay of a slice to a process.
    pub slice_max: u64,
    /// A process whose slices take 30 to 60 s: gateways first, then agents.
    pub slow_process: Option<usize>,
    /// Connections to the dead are refused; otherwise nothing comes back.
    pub refuses: bool,
    /// What is sent into a cut arrives when it heals; otherwise it is lost.
    pub cuts_delay: bool,
}

/// Bounds that may be too small.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    /// Spans that a gateway holds before it decides early.
    pub gateway_spans: usize,
    /// Bytes that an agent retains; a span has 100.
    pub agent_bytes: u64,
    /// Decisions that a gateway remembers.
    pub decisions: usize,
}

impl Schedule {
    /// The schedule of a seed.
    pub fn new(class: Class, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ (class as u64) << 56);
        let gateways = match class {
            Class::LargeFleet => dice.between(7, 12) as usize,
            Class::Drain | Class::ScaleDown | Class::DrainThenKill => dice.between(3, 6) as usize,
            _ => dice.between(2, 6) as usize,
        };
        let agents = dice.between(2, 4) as usize;
        let network = Network::new(&mut dice, gateways + agents);
        // One that knows only addresses of the dead reaches nobody, whatever gateways do.
        let stale = network.slow_process == Some(gateways) || network.slice_max > 2_000;
        let plain = class.is_gentle() && !stale && dice.chance(40);
        let traces = (0..dice.between(12, 30))
            .map(|n| TracePlan::new(n as u32, agents, &mut dice))
            .collect();
        let mut schedule = Self {
            seed,
            class,
            gateways,
            agents,
            plain,
            traces,
            events: Vec::new(),
            network,
            budgets: Budgets::AMPLE,
            drift: 0,
            skew: 0,
            stateful: false,
            greets_along: seed % 2 == 1,
        };
        schedule.befall(&mut dice);
        if class == Class::ClockDrift || dice.chance(15) {
            schedule.skew = SKEW_MAX;
        }
        schedule.stateful = class == Class::StatefulPolicy || dice.chance(20);
        schedule.events.sort_by_key(|event| event.at);
        schedule
    }

    /// When the last span is sent and the last event is over.
    pub fn end(&self) -> u64 {
        let spans = self.traces.iter().flat_map(|trace| trace.spans.iter().map(|(at, _)| *at));
        let events = self.events.iter().map(|event| event.at + event.what.millis());
        spans.chain(events).max().unwrap_or(START)
    }

    fn befall(&mut self, dice: &mut Dice) {
        let at = dice.between(12_000, 45_000);
        let some = dice.below(self.gateways);
        match self.class {
            Class::Calm => {}
            Class::Join => self.add(at, What::Start { gateway: self.gateways }),
            Class::Drain => self.add(at, What::Drain { gateway: some }),
            Class::KillSameIdentity => self.kill_same(at, some, dice),
            Class::KillNewIdentity => self.kill_new(at, some, 0, dice),
            Class::Pause10 => {
                self.add(at, What::Pause { gateway: some, millis: dice.between(2_000, 12_000) })
            }
            Class::Pause60 => {
                self.add(at, What::Pause { gateway: some, millis: dice.between(45_000, 60_000) })
            }
            Class::CutGateways => self.cut_gateways(at, some, dice),
            Class::CutAgent => self.cut_agent(at, some, dice),
            Class::ScaleUp => self.scale_up(at, dice),
            Class::ScaleDown => self.scale_down(at, dice),
            Class::Rolling => self.roll(at.min(20_000), dice),
            Class::DrainThenKill => {
                self.add(at, What::Drain { gateway: some });
                let other = (some + 1) % self.gateways;
                self.kill_new(
                    at + dice.between(0, 8_000),
                    if dice.chance(50) { some } else { other },
                    0,
                    dice,
                );
            }
            Class::JoinerKilled => {
                self.add(at, What::Start { gateway: self.gateways });
                self.add(at + dice.between(500, 12_000), What::Kill { gateway: self.gateways });
            }
            Class::Mixed => self.mix(dice),
            Class::TwoKills => self.kill_two(at, some, dice),
            Class::Isolated => {
                self.add(at, What::Isolate { gateway: some, millis: dice.between(8_000, 40_000) })
            }
            Class::KillNearDeadline => self.kill_new(dice.between(38_000, 70_000), some, 0, dice),
            Class::AgentKilled => {
                let agent = dice.below(self.agents);
                self.add(at, What::KillAgent { agent });
                if dice.chance(50) {
                    self.kill_new(at + dice.between(0, 10_000), some, 0, dice);
                }
                if dice.chance(50) {
                    self.add(at + dice.between(500, 10_000), What::StartAgent { agent });
                }
            }
            Class::BudgetsOut => {
                self.budgets.gateway_spans = dice.between(5, 40) as usize;
                self.budgets.agent_bytes = dice.between(500, 4_000);
                self.kill_new(at, some, 0, dice);
            }
            Class::MemoryAged => {
                self.budgets.decisions = dice.between(1, 8) as usize;
                self.kill_new(at, some, 0, dice);
            }
            Class::ClockDrift => {
                self.drift = dice.between(1_000, 3_600_000);
                self.kill_same(at, some, dice);
                self.add(at + dice.between(3_000, 15_000), What::Start { gateway: self.gateways });
            }
            Class::StatefulPolicy => match dice.below(4) {
                0 => self.kill_same(at, some, dice),
                1 => self.kill_new(at, some, 0, dice),
                2 => {
                    self.add(at, What::Pause { gateway: some, millis: dice.between(2_000, 60_000) })
                }
                _ => self.roll(at.min(20_000), dice),
            },
            Class::Partition => self.part(at, dice),
            Class::LargeFleet => match dice.below(4) {
                0 => self.kill_two(at, some, dice),
                1 => self.scale_down(at, dice),
                2 => self.roll(at.min(20_000), dice),
                _ => self.mix(dice),
            },
        }
    }

    fn add(&mut self, at: u64, what: What) {
        self.events.push(Event { at, what });
    }

    fn kill_same(&mut self, at: u64, gateway: usize, dice: &mut Dice) {
        self.add(at, What::Kill { gateway });
        self.add(at + dice.between(300, 15_000), What::Start { gateway });
    }

    fn kill_new(&mut self, at: u64, gateway: usize, nth: usize, dice: &mut Dice) {
        self.add(at, What::Kill { gateway });
        let gateway = self.gateways + 20 + nth;
        self.add(at + dice.between(1_000, 15_000), What::Start { gateway });
    }

    fn kill_two(&mut self, at: u64, some: usize, dice: &mut Dice) {
        let other = (some + 1 + dice.below(self.gateways - 1)) % self.gateways;
        let then = at + dice.between(1_000, 15_000);
        for (nth, (at, gateway)) in [(at, some), (then, other)].into_iter().enumerate() {
            match dice.chance(50) {
                true => self.kill_same(at, gateway, dice),
                false => self.kill_new(at, gateway, nth, dice),
            }
        }
    }

    fn cut_gateways(&mut self, at: u64, some: usize, dice: &mut Dice) {
        let other = (some + 1) % self.gateways;
        self.add(
            at,
            What::CutGateways { from: some, to: other, millis: dice.between(3_000, 40_000) },
        );
    }

    fn cut_agent(&mut self, at: u64, some: usize, dice: &mut Dice) {
        let (agent, both) = (dice.below(self.agents), dice.chance(50));
        self.add(
            at,
            What::CutAgent { agent, gateway: some, both, millis: dice.between(3_000, 40_000) },
        );
    }

    /// Two parts of the fleet, agents and gateways, do not hear each other, for less than the fence.
    fn part(&mut self, at: u64, dice: &mut Dice) {
        let millis = dice.between(1_000, 8_000);
        let gateways: Vec<bool> = (0..self.gateways).map(|_| dice.chance(50)).collect();
        for (from, side) in gateways.iter().enumerate() {
            for (to, other) in gateways.iter().enumerate() {
                if side != other {
                    self.add(at, What::CutGateways { from, to, millis });
                }
            }
        }
        for agent in 0..self.agents {
            let side = dice.chance(50);
            for gateway in (0..self.gateways).filter(|gateway| gateways[*gateway] != side) {
                self.add(at, What::CutAgent { agent, gateway, both: true, millis });
            }
        }
    }

    fn scale_up(&mut self, at: u64, dice: &mut Dice) {
        for n in 0..dice.between(2, 3) as usize {
            self.add(at + dice.between(0, 1_000), What::Start { gateway: self.gateways + n });
        }
    }

    fn scale_down(&mut self, at: u64, dice: &mut Dice) {
        let number = (dice.between(2, 3) as usize).min(self.gateways - 1);
        for gateway in 0..number {
            self.add(at + dice.between(0, 1_000), What::Drain { gateway });
        }
    }

    fn roll(&mut self, mut at: u64, dice: &mut Dice) {
        let same = dice.chance(50);
        for gateway in 0..self.gateways {
            if same {
                self.add(at, What::Drain { gateway });
                at += dice.between(10_000, 14_000);
                self.add(at, What::Start { gateway });
            } else {
                self.add(at, What::Start { gateway: self.gateways + gateway });
                self.add(at + dice.between(3_000, 5_000), What::Drain { gateway });
            }
            at += dice.between(3_000, 8_000);
        }
    }

    fn mix(&mut self, dice: &mut Dice) {
        for nth in 0..dice.between(2, 5) as usize {
            let at = dice.between(12_000, 50_000);
            let some = dice.below(self.gateways);
            match dice.below(9) {
                0 => self.add(at, What::Start { gateway: self.gateways + 10 + nth }),
                1 if self.gateways > 2 => self.add(at, What::Drain { gateway: some }),
                2 => self.kill_same(at, some, dice),
                3 => self.kill_new(at, some, nth, dice),
                4 => {
                    self.add(at, What::Pause { gateway: some, millis: dice.between(2_000, 12_000) })
                }
                5 => self
                    .add(at, What::Pause { gateway: some, millis: dice.between(20_000, 60_000) }),
                6 => self.cut_gateways(at, some, dice),
                7 => self.cut_agent(at, some, dice),
                _ => self
                    .add(at, What::Isolate { gateway: some, millis: dice.between(5_000, 30_000) }),
            }
        }
    }
}

impl Budgets {
    const AMPLE: Self =
        Self { gateway_spans: usize::MAX, agent_bytes: u64::MAX, decisions: 1 << 12 };
}

impl TracePlan {
    fn new(number: u32, agents: usize, dice: &mut Dice) -> Self {
        let first = START + dice.between(0, 29_000);
        let spread = [200, 3_000, 29_000][dice.below(3)];
        let spans = (0..dice.between(2, 12)).map(|_| {
            (first + dice.between(0, spread).min(START + 29_500 - first), dice.below(agents))
        });
        let mut spans: Vec<_> = spans.collect();
        spans.sort_unstable();
        let error = dice.chance(50).then(|| dice.below(spans.len()));
        Self { number, spans, error }
    }

    /// The trace's ID.
    pub fn id(&self, seed: u64) -> [u8; 16] {
        let mut dice = Dice::new(seed ^ u64::from(self.number) << 32);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&dice.roll().to_le_bytes());
        id[8..].copy_from_slice(&dice.roll().to_le_bytes());
        id
    }
}

impl Network {
    fn new(dice: &mut Dice, processes: usize) -> Self {
        Self {
            delay_max: [5, 50, 300][dice.below(3)],
            loss_percent: [0, 1, 3][dice.below(3)],
            slice_max: [300, 2_000, 10_000][dice.below(3)],
            slow_process: dice.chance(30).then(|| dice.below(processes)),
            refuses: dice.chance(50),
            cuts_delay: dice.chance(50),
        }
    }
}

impl What {
    fn millis(self) -> u64 {
        match self {
            Self::Pause { millis, .. }
            | Self::CutGateways { millis, .. }
            | Self::CutAgent { millis, .. }
            | Self::Isolate { millis, .. } => millis,
            Self::Start { .. }
            | Self::Drain { .. }
            | Self::Kill { .. }
            | Self::KillAgent { .. }
            | Self::StartAgent { .. } => 0,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, seed, gateways, agents, plain, network, budgets, .. } = self;
        let Self { drift, skew, stateful, greets_along, .. } = self;
        writeln!(f, "{class:?} {seed:#x}: {gateways} gateways, {agents} agents, plain {plain}")?;
        writeln!(
            f,
            "  drift {drift}, skew {skew}, stateful policy {stateful}, greets along {greets_along}"
        )?;
        writeln!(f, "  {network:?} {budgets:?}")?;
        for event in &self.events {
            writeln!(f, "  {:>6} {:?}", event.at, event.what)?;
        }
        write!(f, "  {} traces", self.traces.len())?;
        for trace in self.traces.iter().filter(|_| self.traces.len() <= 3) {
            write!(f, "\n  trace {} {:?} error {:?}", trace.number, trace.spans, trace.error)?;
        }
        Ok(())
    }
}
