//! Trials -> one table, a row a scenario and side, each with the worst of its rounds.

use std::fmt::Write as _;

use super::contender::Side;
use super::scenario::Scenario;
use super::trial::Trial;

const HEAD: &str = "\
| scenario | side | traces | split | wrongly decided | spans lost | spans doubled | seconds to rest \
| handed over + sent again, x required | decided late, s: p50 / p99 / most | ledgers | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// The trials of one row.
struct Row<'a> {
    scenario: Scenario,
    side: Side,
    trials: Vec<&'a Trial>,
}

/// The table, and what could not be measured.
pub(super) fn markdown(trials: &[Trial], not_measured: &[String], settings: &str) -> String {
    let mut text = String::from(HEAD);
    for scenario in Scenario::ALL {
        for side in [Side::Ringtail, Side::Collector] {
            let row = Row::of(trials, scenario, side);
            if !row.trials.is_empty() {
                text.push_str(&row.render());
            }
        }
    }
    let _ = write!(text, "\n{settings}\n");
    if let Some(later) = later(trials) {
        let _ = write!(text, "\n{later}\n");
    }
    for reason in not_measured {
        let _ = write!(text, "\nNot measured: {reason}\n");
    }
    text
}

/// What agreeing costs in calm.
fn later(trials: &[Trial]) -> Option<String> {
    let rows = [Scenario::Calm, Scenario::CalmAlone].map(|s| Row::of(trials, s, Side::Ringtail));
    if rows.iter().any(|row| row.trials.is_empty()) {
        return None;
    }
    let [p50, p99] = [|t: &Trial| t.verdict.delay_p50, |t: &Trial| t.verdict.delay_p99]
        .map(|delay| rows[0].worst(delay) - rows[1].worst(delay));
    Some(format!(
        "In calm, decisions of gateways that agree are {p50:+.2} s (p50) and {p99:+.2} s (p99) later \
         than those of gateways that do not know each other."
    ))
}

impl<'a> Row<'a> {
    fn of(trials: &'a [Trial], scenario: Scenario, side: Side) -> Self {
        let of_row =
            |trial: &&Trial| trial.scenario == scenario.name() && trial.contender == side.name();
        Self { scenario, side, trials: trials.iter().filter(of_row).collect() }
    }

    fn worst(&self, value: fn(&Trial) -> f64) -> f64 {
        self.trials.iter().map(|trial| value(trial)).max_by(f64::total_cmp).unwrap_or(0.0)
    }

    fn most(&self, value: fn(&Trial) -> u64) -> String {
        self.trials.iter().map(|trial| value(trial)).max().unwrap_or(0).to_string()
    }

    fn render(&self) -> String {
        let rounds = match self.trials.len() {
            1 => String::new(),
            rounds => format!(", {rounds} rounds"),
        };
        let cells = [
            self.scenario.title().to_owned(),
            format!("{}{rounds}", self.side.name()),
            self.trials.iter().map(|trial| trial.verdict.traces).sum::<u64>().to_string(),
            self.most(|trial| trial.verdict.split),
            self.most(|trial| trial.verdict.wrong),
            self.most(|trial| trial.verdict.lost_spans),
            format!("{:.2} %", self.worst(|trial| trial.verdict.doubled_percent)),
            self.rest(),
            self.moved(),
            self.delay(),
            self.ledgers(),
            self.remark(),
        ];
        format!("| {} |\n", cells.join(" | "))
    }

    fn rest(&self) -> String {
        if self.trials.iter().any(|trial| trial.rest_seconds.contains(&None)) {
            return "never".into();
        }
        if self.trials.iter().all(|trial| trial.rest_seconds.is_empty()) {
            return "-".into();
        }
        let longest =
            |trial: &Trial| trial.rest_seconds.iter().flatten().copied().fold(0.0, f64::max);
        format!("{:.1}", self.worst(longest))
    }

    fn moved(&self) -> String {
        if self.side == Side::Collector {
            return "-".into();
        }
        let handed_over = self.worst(|trial| trial.megabytes(trial.handed_over_spans));
        let replayed = self.worst(|trial| trial.megabytes(trial.replayed_spans));
        let factor = match self.worst(Trial::moved_factor) {
            0.0 => "none required".into(),
            factor => format!("{factor:.2}x"),
        };
        format!("{handed_over:.1} + {replayed:.1} MB, {factor}")
    }

    fn delay(&self) -> String {
        if self.scenario == Scenario::Gigabyte {
            return "-".into();
        }
        format!(
            "{:.2} / {:.2} / {:.1}",
            self.worst(|trial| trial.verdict.delay_p50),
            self.worst(|trial| trial.verdict.delay_p99),
            self.worst(|trial| trial.verdict.delay_max)
        )
    }

    fn ledgers(&self) -> String {
        if self.side == Side::Collector {
            return "it keeps none".into();
        }
        let sum = |value: fn(&Trial) -> usize| self.trials.iter().map(|t| value(t)).sum::<usize>();
        let (balanced, all) = (sum(|trial| trial.balanced), sum(|trial| trial.ledgers));
        format!("{balanced} of {all} balance")
    }

    /// What the row is about, beside the columns.
    fn remark(&self) -> String {
        let mut remarks = Vec::new();
        let fits = self.trials.iter().filter_map(|trial| trial.retention_fits_rate);
        if let Some(rate) = fits.min_by(f64::total_cmp) {
            let bytes = self.worst(|trial| trial.retained_bytes_per_span.unwrap_or(0.0));
            remarks.push(format!(
                "agents keep {bytes:.0} bytes a span; by default that fits {rate:.0} spans/s of each"
            ));
        }
        let held = self.trials.iter().filter_map(|trial| trial.held_bytes);
        if let Some(held) = held.min() {
            let seconds = self.worst(|trial| trial.exit_seconds);
            remarks.push(format!(
                "{:.2} GB handed over, ended after {seconds:.1} s",
                held as f64 / 1e9
            ));
        }
        remarks.join("; ")
    }
}

impl Trial {
    fn megabytes(&self, spans: u64) -> f64 {
        spans as f64 * self.bytes_per_span / 1e6
    }

    /// How often as many spans moved as had to.
    pub(super) fn moved_factor(&self) -> f64 {
        match self.required_spans {
            0 => 0.0,
            required => (self.handed_over_spans + self.replayed_spans) as f64 / required as f64,
        }
    }
}
