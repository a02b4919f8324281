//! Trials -> one table, a row a scenario and side, each with the worst of its rounds.

use std::fmt::Write as _;

use super::contender::Side;
use super::scenario::Scenario;
use super::trial::Trial;

const HEAD: &str = "\
| scenario | | traces | split | wrongly decided | spans lost | spans doubled | seconds to rest \
| moved, x required | decisions late p50 / p99 / most, s | ledgers |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// The table, and what could not be measured.
pub(super) fn markdown(trials: &[Trial], not_measured: &[String], settings: &str) -> String {
    let mut text = String::from(HEAD);
    for scenario in Scenario::ALL {
        for side in [Side::Ringtail, Side::Collector] {
            let of_row = |trial: &&Trial| {
                trial.scenario == scenario.name() && trial.contender == side.name()
            };
            let row: Vec<&Trial> = trials.iter().filter(of_row).collect();
            if !row.is_empty() {
                text.push_str(&render(scenario, side, &row));
            }
        }
    }
    let _ = write!(text, "\n{settings}\n");
    for line in trials.iter().filter_map(retention) {
        let _ = write!(text, "\n{line}\n");
    }
    for reason in not_measured {
        let _ = write!(text, "\nNot measured: {reason}\n");
    }
    text
}

fn render(scenario: Scenario, side: Side, row: &[&Trial]) -> String {
    let worst = |value: fn(&Trial) -> f64| {
        row.iter().map(|trial| value(trial)).max_by(f64::total_cmp).unwrap_or(0.0)
    };
    let count = |value: fn(&Trial) -> u64| row.iter().map(|trial| value(trial)).max().unwrap_or(0);
    let rounds = if row.len() > 1 { format!(" ({} rounds)", row.len()) } else { String::new() };
    let restless = row.iter().any(|trial| trial.rest_seconds.contains(&None));
    let rest = worst(|trial| trial.rest_seconds.iter().flatten().copied().fold(0.0, f64::max));
    let any_rest = row.iter().any(|trial| !trial.rest_seconds.is_empty());
    let cells = [
        scenario.title().to_owned(),
        format!("{}{rounds}", side.name()),
        row.iter().map(|trial| trial.verdict.traces).sum::<u64>().to_string(),
        count(|trial| trial.verdict.split).to_string(),
        count(|trial| trial.verdict.wrong).to_string(),
        count(|trial| trial.verdict.lost_spans).to_string(),
        format!("{:.2} %", worst(|trial| trial.verdict.doubled_percent)),
        match (any_rest, restless) {
            (false, _) => "-".into(),
            (_, true) => "never".into(),
            _ => format!("{rest:.1}"),
        },
        moved(side, worst(|trial| trial.moved_bytes()), worst(Trial::moved_factor)),
        format!(
            "{:.2} / {:.2} / {:.1}",
            worst(|trial| trial.verdict.delay_p50),
            worst(|trial| trial.verdict.delay_p99),
            worst(|trial| trial.verdict.delay_max)
        ),
        ledgers(side, row),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn moved(side: Side, bytes: f64, factor: f64) -> String {
    match side {
        Side::Collector => "-".into(),
        Side::Ringtail if factor == 0.0 => format!("{:.1} MB, none required", bytes / 1e6),
        Side::Ringtail => format!("{:.1} MB, {factor:.2}x", bytes / 1e6),
    }
}

fn ledgers(side: Side, row: &[&Trial]) -> String {
    if side == Side::Collector {
        return "it keeps none".into();
    }
    let sum = |value: fn(&Trial) -> usize| row.iter().map(|trial| value(trial)).sum::<usize>();
    let (balanced, all) = (sum(|trial| trial.balanced), sum(|trial| trial.ledgers));
    format!("{balanced} of {all} balance")
}

/// What a kill may cost: as much as agents have let go.
fn retention(trial: &Trial) -> Option<String> {
    let (bytes, rate) = (trial.retained_bytes_per_span?, trial.retention_fits_rate?);
    Some(format!(
        "{}, round {}: an agent keeps {bytes:.0} bytes a span; with its default limit that fits {rate:.0} spans \
         a second of each agent. Traces let go before their time: {}.",
        trial.scenario, trial.round, trial.unprotected_traces
    ))
}

impl Trial {
    fn moved_bytes(&self) -> f64 {
        self.moved_spans as f64 * self.bytes_per_span
    }

    /// How often as many spans moved as had to.
    fn moved_factor(&self) -> f64 {
        match self.required_spans {
            0 => 0.0,
            required => self.moved_spans as f64 / required as f64,
        }
    }
}
