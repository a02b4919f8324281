//! A fleet under every kind of churn, thousands of times in virtual time: no trace is split, decided twice,
//! or lost, and each rule that sees to it is shown to be needed.
//!
//! `RINGTAIL_SCHEDULES=100000` runs that many instead of the default, `RINGTAIL_SEED` begins elsewhere. A
//! schedule that goes wrong is printed cut down, with its class and seed.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it cannot read")]

use std::collections::BTreeMap;
use std::fmt::Write;

use ringtail_engine::ownership::rules::Rules;
use ringtail_tests::simulation::schedule::{Class, Event, Network, Schedule, TracePlan, What};
use ringtail_tests::simulation::seeds::{MUTATIONS, ONCE_FAILED};
use ringtail_tests::simulation::truth::Kind;
use ringtail_tests::simulation::{Outcome, run, shrink};

/// Schedules of a normal run: about 25 s of one core.
const SCHEDULES: u64 = 2_000;

/// A fleet of 7 to 12 costs as much as six small ones.
const LARGE_FLEET_SHARE: u64 = 6;

/// Schedules that are printed in full.
const SHOWN_MAX: usize = 5;

/// Of a hundred schedules of a class that cannot always be right, so many may be wrong.
const RESIDUAL_PERCENT: u64 = 6;

/// Seeds of schedules in which a witness leaves before anybody misses an owner, and what went wrong: 6 of
/// 2,016.
const LEAVING: &[(u64, Kind)] = &[
    (406, Kind::Double),
    (690, Kind::Double),
    (956, Kind::Double),
    (1857, Kind::Double),
    (2005, Kind::Double),
    (2015, Kind::Double),
];

/// Schedules in which a gateway vanishes.
const VANISHING: u64 = 10;

/// Bytes handed over may be so many times those that had to move. Where less than one span a schedule has to,
/// one retry is most of it, and so many a schedule may.
const MOVED_MAX: u64 = 2;

/// What a class may show, in few schedules, and why nothing is done about it; `docs/churn-simulation.md` has
/// the measured shares.
const RESIDUAL: &[(Class, &[Kind], &str)] = &[
    (
        Class::TwoKills,
        &[Kind::Stranded, Kind::Split, Kind::Late],
        "all gateways are dead, and an agent whose slices are a minute old does not find the new one",
    ),
    (
        Class::Mixed,
        &[Kind::Stranded, Kind::Split, Kind::Late],
        "an agent is cut off from the owner, and whoever hears both is cut off or dead, for longer than the \
         fence; one of two gateways hangs, and nobody says that it is dead",
    ),
    (Class::Pause60, &[Kind::Late], "one of two gateways hangs, and the slices are late to say so"),
    (
        Class::Partition,
        &[Kind::Stranded, Kind::Split],
        "an agent that is alone on its side, or that tries two choices in vain one after the other, is back \
         too late",
    ),
    (
        Class::LargeFleet,
        &[Kind::Stranded, Kind::Split, Kind::Late],
        "it has schedules of Pause60 and Partition",
    ),
    (
        Class::MemoryAged,
        &[Kind::Double, Kind::Contra, Kind::Split],
        "the decision is forgotten before the agents forget the spans, which is counted",
    ),
];

/// What came of one class.
#[derive(Default)]
struct Row {
    schedules: u64,
    bad: u64,
    traces: usize,
    kinds: BTreeMap<Kind, u64>,
    twice: u64,
    exported: u64,
    moved: [u64; 2],
    delays: Vec<u64>,
}

#[test]
fn every_kind_of_churn_keeps_traces_whole() {
    let schedules = from_environment("RINGTAIL_SCHEDULES", SCHEDULES);
    let base = from_environment("RINGTAIL_SEED", 0);
    let per_class = schedules.div_ceil(Class::ALL.len() as u64 - 1);
    let (mut wrong, mut table) = (Vec::new(), String::new());
    for class in Class::ALL {
        let share = if class == Class::LargeFleet { LARGE_FLEET_SHARE } else { 1 };
        let mut row = Row::default();
        for seed in base..base + per_class / share {
            let schedule = Schedule::new(class, seed);
            let outcome = run(&schedule, Rules::ALL);
            row.add(&schedule, &outcome);
            let tolerated = tolerated(class, &outcome);
            if let Some(worst) =
                outcome.violations.iter().find(|one| !tolerated.contains(&one.kind))
            {
                wrong.push((schedule, worst.kind));
            }
        }
        if row.bad * 100 > RESIDUAL_PERCENT * row.schedules.max(20) {
            panic!("{class:?}: {} of {} schedules went wrong", row.bad, row.schedules);
        }
        let [moved, required] = row.moved;
        let most = MOVED_MAX * required.max(row.schedules);
        assert!(moved <= most, "{class:?}: {moved} spans sent, {required} moved");
        writeln!(table, "{class:?}: {row}").unwrap();
    }
    println!("{table}");
    for (schedule, kind) in wrong.iter().take(SHOWN_MAX) {
        println!("{}", shown(schedule, *kind));
    }
    assert!(wrong.is_empty(), "{} schedules went wrong", wrong.len());
}

/// A gateway vanishes while another one leaves: nothing refuses a connection, so it is missed after 5 s. What
/// others send each other meanwhile, and agents send again, is no more than twice what has to move.
#[test]
fn who_vanishes_does_not_make_others_send_spans_to_and_fro() {
    let ratio = |leaves: bool, rules: Rules| {
        let outcomes = (0..VANISHING).map(|seed| run(&vanishing(seed, leaves), rules));
        let [sent, moved] = outcomes.fold([0, 0], |sum, outcome| {
            assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
            [sum[0] + outcome.traffic[0], sum[1] + outcome.traffic[1]]
        });
        println!("leaves: {leaves}, wait: {}: {sent} spans sent, {moved} moved", rules.wait);
        sent as f64 / moved as f64
    };
    for leaves in [false, true] {
        assert!(ratio(leaves, Rules::ALL) < MOVED_MAX as f64);
    }
    assert!(ratio(true, Rules { wait: false, ..Rules::ALL }) > MOVED_MAX as f64);
}

/// The schedule of a seed with one other event, and with so many traces that one of them is little.
fn vanishing(seed: u64, leaves: bool) -> Schedule {
    let mut schedule = Schedule::new(Class::KillNewIdentity, seed);
    schedule.gateways = schedule.gateways.max(3);
    schedule.network.refuses = false;
    let few = schedule.traces.clone();
    schedule.traces = (0..20 * few.len())
        .map(|n| TracePlan { number: n as u32, ..few[n % few.len()].clone() })
        .collect();
    let at = 20_000 + seed % 7 * 1_000;
    schedule.events = vec![Event { at, what: What::Kill { gateway: 1 } }];
    schedule.events.extend(leaves.then_some(Event { at, what: What::Drain { gateway: 0 } }));
    schedule
}

/// A witness leaves, and an owner vanishes before it has asked the witnesses after that one.
#[test]
fn what_a_witness_has_heard_stays_when_it_leaves() {
    let without = Rules { last_words: false, ..Rules::ALL };
    for (seed, kind) in LEAVING {
        let schedule = leaving(*seed);
        let with = run(&schedule, Rules::ALL).violations;
        assert!(with.is_empty(), "{seed}: {with:?}");
        let without = run(&schedule, without).violations;
        assert!(without.iter().any(|violation| violation.kind == *kind), "{seed}: {without:?}");
    }
}

/// The schedule of a seed with other events, more decisions and a bad network.
fn leaving(seed: u64) -> Schedule {
    let mut schedule = Schedule::new(Class::DrainThenKill, seed);
    schedule.gateways = schedule.gateways.max(4);
    schedule.greets_along = false;
    schedule.network =
        Network { delay_max: 300, loss_percent: 3, refuses: false, ..schedule.network };
    let few = schedule.traces.clone();
    schedule.traces = (0..3 * few.len())
        .map(|n| TracePlan { number: n as u32, ..few[n % few.len()].clone() })
        .collect();
    let at = 42_000 + seed % 200 * 100;
    let killed = at + 50 + seed % 12 * 100;
    schedule.events = vec![
        Event { at, what: What::Drain { gateway: 0 } },
        Event { at: killed, what: What::Kill { gateway: 1 } },
    ];
    schedule
}

#[test]
fn schedules_that_once_failed_do_not() {
    for (class, seed) in ONCE_FAILED {
        let schedule = Schedule::new(*class, *seed);
        let outcome = run(&schedule, Rules::ALL);
        let tolerated = tolerated(*class, &outcome);
        let wrong = outcome.violations.iter().find(|one| !tolerated.contains(&one.kind));
        assert!(wrong.is_none(), "{}", shown(&schedule, wrong.unwrap().kind));
    }
}

#[test]
fn each_rule_is_needed() {
    for (rule, turn_off, class, seed, kind) in MUTATIONS {
        let schedule = Schedule::new(*class, *seed);
        let mut rules = Rules::ALL;
        turn_off(&mut rules);
        assert_ne!(rules, Rules::ALL, "'{rule}' is not turned off");
        let with = run(&schedule, Rules::ALL).violations;
        assert!(
            with.is_empty(),
            "{class:?} {seed:#x}, for '{rule}', fails with all rules: {with:?}"
        );
        let without = run(&schedule, rules).violations;
        let fails = without.iter().any(|violation| violation.kind == *kind);
        assert!(fails, "{class:?} {seed:#x} does not need '{rule}' any more: {without:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for class in [Class::Mixed, Class::TwoKills, Class::Rolling] {
        let again = || run(&Schedule::new(class, 7), Rules::ALL);
        let (one, other) = (again(), again());
        assert_eq!((one.delays, one.twice, one.ended), (other.delays, other.twice, other.ended));
    }
}

#[test]
fn a_failing_schedule_is_cut_down() {
    let rules = Rules { hand_over: false, ..Rules::ALL };
    let found = (0..50).map(|seed| Schedule::new(Class::Mixed, seed)).find_map(|schedule| {
        let kind = run(&schedule, rules).violations.first()?.kind;
        Some((schedule, kind))
    });
    let (schedule, kind) = found.unwrap();
    let small = shrink(&schedule, rules, kind);
    assert!(small.traces.len() < schedule.traces.len());
    assert!(run(&small, rules).violations.iter().any(|violation| violation.kind == kind));
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn tolerated(class: Class, outcome: &Outcome) -> &'static [Kind] {
    // What is forgotten early is counted, or it was not the reason.
    if class == Class::MemoryAged && outcome.stats.forgotten == 0 {
        return &[];
    }
    RESIDUAL.iter().find(|(of, ..)| *of == class).map_or(&[], |(_, kinds, _)| kinds)
}

fn shown(schedule: &Schedule, kind: Kind) -> String {
    let small = shrink(schedule, Rules::ALL, kind);
    let mut text = format!("{small}\n");
    for violation in run(&small, Rules::ALL).violations {
        writeln!(text, "  {violation}").unwrap();
    }
    text
}

impl Row {
    fn add(&mut self, schedule: &Schedule, outcome: &Outcome) {
        self.schedules += 1;
        self.bad += u64::from(!outcome.violations.is_empty());
        self.traces += schedule.traces.len();
        self.twice += outcome.twice;
        self.exported += outcome.exported;
        self.delays.extend(&outcome.delays);
        for (sum, moved) in self.moved.iter_mut().zip(outcome.moved) {
            *sum += moved;
        }
        for violation in &outcome.violations {
            *self.kinds.entry(violation.kind).or_default() += 1;
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { schedules, bad, traces, kinds, twice, exported, moved, .. } = self;
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        let percentile =
            |percent| delays.get(delays.len() * percent / 100).copied().unwrap_or_default();
        let twice = *twice as f64 * 100.0 / (*exported).max(1) as f64;
        let moved = moved[0] as f64 / moved[1].max(1) as f64;
        write!(f, "{schedules} schedules, {bad} bad, {traces} traces {kinds:?}, ")?;
        write!(f, "{twice:.2} % of the spans twice, sent / moved {moved:.2}, ")?;
        write!(f, "delay p50 {} ms, p99 {} ms", percentile(50), percentile(99))
    }
}
