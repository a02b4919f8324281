//! Trials -> medians of ratios -> one markdown table and one JSON file.

use std::fmt::Write as _;

use serde::Serialize;

use super::case::{Case, Measure};
use super::machine::Machine;
use super::trial::Trial;

/// Everything a run found.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) machine: &'a Machine,
    pub(super) settings: &'a str,
    pub(super) trials: &'a [Trial],
    /// Contenders that were left out, and why.
    pub(super) not_measured: &'a [String],
}

/// The trials of one case, by contender, in the order of their rounds.
struct Group<'a> {
    case: &'a Case,
    trials: Vec<&'a Trial>,
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

const HEAD: &str = "\
| case | Ringtail / Collector | Ringtail / raw limit | Ringtail | raw limit | Collector | settings \
| bytes out / in, as sent (before compression) | checked |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

impl Report<'_> {
    /// The table and what belongs under it.
    pub(super) fn markdown(&self, cases: &[Case]) -> String {
        let mut text = String::from(HEAD);
        for case in cases {
            let of_case = |trial: &&Trial| trial.case == case.name;
            let group = Group { case, trials: self.trials.iter().filter(of_case).collect() };
            text.push_str(&group.row());
        }
        let _ = write!(text, "\n{}\n\n{}\n", self.settings, self.machine.sentence());
        for reason in self.not_measured {
            let _ = write!(text, "\nNot measured: {reason}\n");
        }
        text
    }
}

impl Group<'_> {
    fn row(&self) -> String {
        let cells = [
            self.case.title.to_owned(),
            self.ratio("ringtail", "collector"),
            self.ratio("ringtail", "relay"),
            self.figure("ringtail"),
            self.figure("relay"),
            self.figure("collector"),
            self.settings(),
            self.bytes(),
            self.checked(),
        ];
        format!("| {} |\n", cells.join(" | "))
    }

    fn of(&self, contender: &str) -> impl Iterator<Item = &Trial> {
        self.trials.iter().copied().filter(move |trial| trial.contender == contender)
    }

    /// Of the trials of the same round: they ran one after the other, on the same machine in the same mood.
    fn ratio(&self, ours: &str, theirs: &str) -> String {
        let ratios = self.of(ours).filter_map(|ours| {
            let theirs = self.of(theirs).find(|theirs| theirs.round == ours.round)?;
            Some(match self.case.measure {
                Measure::Speed => ours.spans_per_cpu_second / theirs.spans_per_cpu_second,
                Measure::Memory => theirs.bytes_per_span? / ours.bytes_per_span?,
            })
        });
        let Some(spread) = Spread::of(ratios.collect()) else {
            return "-".into();
        };
        let better = if self.case.measure == Measure::Memory { " less" } else { "" };
        format!("**{:.2}x**{better} ({:.2}-{:.2})", spread.median, spread.least, spread.most)
    }

    fn figure(&self, contender: &str) -> String {
        match self.case.measure {
            Measure::Speed => self.speed(contender),
            Measure::Memory => self.memory(contender),
        }
    }

    fn speed(&self, contender: &str) -> String {
        let median = |value: fn(&Trial) -> f64| Spread::of(self.of(contender).map(value).collect());
        let (Some(rate), Some(cost), Some(idle), Some(peak)) = (
            median(|trial| trial.spans_per_cpu_second),
            median(|trial| 1e6 / trial.spans_per_cpu_second),
            median(|trial| mebibytes(trial.idle_bytes)),
            median(|trial| mebibytes(trial.peak_bytes)),
        ) else {
            return "not measured".into();
        };
        format!(
            "{} spans/CPU-s, {:.2} µs; RSS {:.0} MiB idle, {:.0} peak",
            thousands(rate.median),
            cost.median,
            idle.median,
            peak.median
        )
    }

    fn memory(&self, contender: &str) -> String {
        let median = |value: fn(&Trial) -> Option<f64>| {
            Spread::of(self.of(contender).filter_map(value).collect())
        };
        let (Some(bytes), Some(factor), Some(spans)) = (
            median(|trial| trial.bytes_per_span),
            median(|trial| trial.wire_factor),
            median(|trial| Some(trial.spans as f64)),
        ) else {
            return if contender == "relay" { "-".into() } else { "not measured".into() };
        };
        format!(
            "{:.0} B RSS a span, {:.2} x its wire bytes, {} spans held",
            bytes.median,
            factor.median,
            thousands(spans.median)
        )
    }

    fn settings(&self) -> String {
        let settings = self
            .case
            .contenders
            .iter()
            .map(|contender| format!("{}: {}", contender.name(), contender.settings()));
        settings.collect::<Vec<_>>().join("; ")
    }

    fn bytes(&self) -> String {
        let cells = self.case.contenders.iter().filter_map(|contender| {
            let trials = self.of(contender.name()).filter_map(|trial| trial.bytes_out_in);
            let (sent, plain): (Vec<f64>, Vec<f64>) = trials.unzip();
            let (sent, plain) = (Spread::of(sent)?, Spread::of(plain)?);
            let name = contender.name();
            Some(format!("{name} {:.3} ({:.3})", sent.median, plain.median))
        });
        let cells: Vec<String> = cells.collect();
        if cells.is_empty() { "-".into() } else { cells.join("; ") }
    }

    /// Every trial is checked by the sink; a mistake is told with the contender that made it.
    fn checked(&self) -> String {
        let wrong = self.trials.iter().filter(|trial| trial.fault().is_some());
        let wrong: Vec<String> =
            wrong.map(|trial| format!("{} round {}", trial.contender, trial.round + 1)).collect();
        let checked = self.trials.iter().filter(|trial| trial.right.is_some()).count();
        match (checked, wrong.is_empty()) {
            (_, false) => format!("WRONG: {}", wrong.join(", ")),
            (0, true) => "counted only".into(),
            (_, true) => format!("exact, {checked} runs"),
        }
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: (low + high) / 2.0, least, most })
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn thousands(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e5.. => format!("{:.0} k", value / 1e3),
        _ => format!("{:.1} k", value / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::case::cases;

    fn trial(contender: &'static str, round: usize, rate: f64) -> Trial {
        Trial {
            case: "agent-1000",
            contender,
            settings: String::new(),
            round,
            spans: 1000,
            cpu_seconds: 1.0,
            spans_per_cpu_second: rate,
            wall_seconds: 1.0,
            idle_bytes: 1 << 20,
            resident_bytes: 2 << 20,
            peak_bytes: 3 << 20,
            bytes_per_span: None,
            wire_factor: None,
            bytes_out_in: Some((1.0, 1.0)),
            right: Some(true),
            rewritten: Some(0),
            balanced: None,
            loads: Vec::new(),
            sink: serde_json::Value::Null,
            ledger: None,
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).map(|s| s.median), Some(2.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine is twice as slow in the second round: the ratios agree, the figures do not.
        let trials = [
            trial("ringtail", 0, 1_000_000.0),
            trial("collector", 0, 100_000.0),
            trial("ringtail", 1, 500_000.0),
            trial("collector", 1, 50_000.0),
        ];
        let cases = cases();
        let group = Group { case: &cases[0], trials: trials.iter().collect() };
        assert!(group.ratio("ringtail", "collector").starts_with("**10.00x** (10.00-10.00)"));
        assert_eq!(group.ratio("ringtail", "relay"), "-");
        assert_eq!(group.checked(), "exact, 4 runs");
    }

    #[test]
    fn a_mistake_is_told() {
        let mut wrong = trial("collector", 1, 1.0);
        wrong.right = Some(false);
        let cases = cases();
        let group = Group { case: &cases[0], trials: vec![&wrong] };
        assert_eq!(group.checked(), "WRONG: collector round 2");
        let mut rewritten = trial("collector", 0, 1.0);
        rewritten.rewritten = Some(8);
        assert_eq!(rewritten.fault(), None);
        rewritten.contender = "ringtail";
        assert!(rewritten.fault().is_some());
    }
}
