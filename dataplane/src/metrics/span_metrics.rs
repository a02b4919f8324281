//! Span metrics as Prometheus scrapes them: the names that the Collector's connector and its Prometheus
//! exporter make, written as OpenMetrics. Beside them, what is told of the counting itself.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;
use ringtail_engine::span_metrics::{Buckets, Exemplar, Histogram, Labels, Series, Shown, Unit};

use super::{Metric, Sample, count, gauge};
use crate::gateway::span_metrics::SpanMetrics;

table! {
    SPANS = Counter "ringtail_span_metrics_spans" ["outcome"]
        "Spans that span metrics have seen: counted, counted in the overflow series, or without service.name";
    SERIES = Gauge "ringtail_span_metrics_series" []
        "Series of span metrics, without the overflow series";
    PUSHES = Counter "ringtail_span_metrics_pushes" ["outcome"]
        "Pushes of span metrics by OTLP: taken, or failed";
    PUSH_CREDENTIALS = Counter "ringtail_span_metrics_credentials" ["outcome"]
        "New certificates of the push of span metrics, by whether they are used (applied, refused)";
}

/// What is told of the counting, as of the last time that somebody looked.
pub(super) fn samples(metrics: &SpanMetrics) -> Vec<Sample> {
    let shown = metrics.latest.load();
    let counts = shown.counts;
    let own = shown.spans.iter().chain(&shown.events).filter(|series| !series.key.is_empty());
    let mut samples = vec![
        count(&SPANS, &["counted"], counts.spans - counts.overflowed),
        count(&SPANS, &["overflow"], counts.overflowed),
        count(&SPANS, &["no_service_name"], counts.nameless),
        gauge(&SERIES, &[], own.count() as u64),
        count(&PUSHES, &["taken"], metrics.pushed.load(Relaxed)),
        count(&PUSHES, &["failed"], metrics.failed.load(Relaxed)),
    ];
    if let Some(credentials) = &metrics.credentials {
        let renewals = &credentials.renewals;
        samples.extend([
            count(&PUSH_CREDENTIALS, &["applied"], renewals.applied.load(Relaxed)),
            count(&PUSH_CREDENTIALS, &["refused"], renewals.refused.load(Relaxed)),
        ]);
    }
    samples
}

/// All series as text, some at a time: of ten thousand with the default buckets it is tens of megabytes,
/// which need not all be there at once.
#[derive(Debug)]
pub struct Pages {
    metrics: Arc<SpanMetrics>,
    shown: Arc<Shown>,
    part: Part,
    /// The first series of the next page.
    from: usize,
}

/// The metrics, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Calls,
    Durations,
    Events,
}

/// Series of a page: 64 with 17 buckets and labels of 250 bytes are about 300 KiB.
const PAGE_SERIES: usize = 64;

// === impl Pages ===

impl Pages {
    /// Of these series.
    pub fn new(metrics: Arc<SpanMetrics>, shown: Arc<Shown>) -> Self {
        Self { metrics, shown, part: Part::Calls, from: 0 }
    }

    fn write(&self, list: &[Series], out: &mut String) -> fmt::Result {
        let (metrics, first) = (&*self.metrics, self.from == 0);
        let (name, unit) = match metrics.plan.unit() {
            Unit::Milliseconds => ("traces_span_metrics_duration_milliseconds", "milliseconds"),
            Unit::Seconds => ("traces_span_metrics_duration_seconds", "seconds"),
        };
        match self.part {
            Part::Calls => {
                let of = ("traces_span_metrics_calls", "Spans", false);
                calls(metrics, of, first, list, out)
            }
            Part::Durations => {
                if first {
                    writeln!(out, "# HELP {name} How long spans took.")?;
                    writeln!(out, "# TYPE {name} histogram\n# UNIT {name} {unit}")?;
                }
                list.iter().try_for_each(|series| durations(metrics, name, series, out))
            }
            Part::Events => {
                let of = ("traces_span_metrics_events", "Events of spans", true);
                calls(metrics, of, first, list, out)
            }
        }
    }
}

impl Iterator for Pages {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let (list, next) = match self.part {
                Part::Calls => (&self.shown.spans, Some(Part::Durations)),
                Part::Durations => (&self.shown.spans, Some(Part::Events)),
                Part::Events => (&self.shown.events, None),
            };
            let end = list.len().min(self.from + PAGE_SERIES);
            let page = list.get(self.from..end).filter(|page| !page.is_empty());
            if let Some(page) = page {
                let mut out = String::new();
                // Writing to memory does not fail.
                let _ = self.write(page, &mut out);
                self.from = end;
                return Some(out);
            }
            (self.part, self.from) = (next?, 0);
        }
    }
}

fn calls(
    metrics: &SpanMetrics,
    (name, what, of_events): (&str, &str, bool),
    first: bool,
    list: &[Series],
    out: &mut impl Write,
) -> fmt::Result {
    if first {
        writeln!(out, "# HELP {name} {what}, before any sampling.\n# TYPE {name} counter")?;
    }
    for series in list {
        let labels = labels(metrics, series, of_events);
        write!(out, "{name}_total{{{labels}}} {}", series.calls)?;
        exemplar(metrics, series.exemplars.last(), out)?;
    }
    Ok(())
}

fn durations(
    metrics: &SpanMetrics,
    name: &str,
    series: &Series,
    out: &mut impl Write,
) -> fmt::Result {
    let labels = labels(metrics, series, false);
    let comma = if labels.is_empty() { "" } else { "," };
    // Exponential buckets have no form in this text; as from the Collector, count and sum are there.
    let (bounds, counts, sum): (&[f64], &[u64], f64) =
        match (&series.histogram, metrics.plan.buckets()) {
            (Histogram::Explicit { counts, sum }, Buckets::Explicit(bounds)) => {
                (bounds, counts, *sum)
            }
            (Histogram::Exponential(histogram), _) => (&[], &[], histogram.sum),
            _ => (&[], &[], 0.0),
        };
    let (mut below, mut from) = (0, f64::NEG_INFINITY);
    for (bound, count) in bounds.iter().zip(counts) {
        below += count;
        write!(out, "{name}_bucket{{{labels}{comma}le=\"{bound:?}\"}} {below}")?;
        let inside = |one: &&Exemplar| one.duration > from && one.duration <= *bound;
        exemplar(metrics, series.exemplars.iter().rev().find(inside), out)?;
        from = *bound;
    }
    write!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", series.calls)?;
    let inside = |one: &&Exemplar| one.duration > from;
    exemplar(metrics, series.exemplars.iter().rev().find(inside), out)?;
    writeln!(out, "{name}_sum{{{labels}}} {sum:?}")?;
    writeln!(out, "{name}_count{{{labels}}} {}", series.calls)
}

/// Ends a line, with an exemplar if there is one.
fn exemplar(metrics: &SpanMetrics, one: Option<&Exemplar>, out: &mut impl Write) -> fmt::Result {
    if let Some(Exemplar { trace_id, span_id, duration, at }) = one {
        out.write_str(" # {trace_id=\"")?;
        trace_id.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        out.write_str("\",span_id=\"")?;
        span_id.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        let millis = metrics.wall_nanos(*at) / 1_000_000;
        write!(out, "\"}} {duration:?} {}.{:03}", millis / 1_000, millis % 1_000)?;
    }
    out.write_char('\n')
}

/// The labels of a series, in the order of OTLP's attributes, `job` and `instance` last.
fn labels(metrics: &SpanMetrics, series: &Series, of_events: bool) -> String {
    let plan = &metrics.plan;
    let Labels { owner, attributes } = Labels::of(&series.key, plan, of_events);
    let mut out = String::with_capacity(2 * series.key.len() + 128);
    let mut add = |name: &str, value: &str| {
        if !out.is_empty() {
            out.push(',');
        }
        label_name(name, &mut out);
        out.push_str("=\"");
        escape(value, &mut out);
        out.push('"');
    };
    attributes.iter().for_each(|(name, value)| add(name, value));
    if plan.names_instance() || owner.is_none() {
        add("collector.instance.id", &metrics.instance);
    }
    if let Some(owner) = owner {
        match owner.namespace {
            Some(namespace) => add("job", &format!("{namespace}/{}", owner.service)),
            None => add("job", owner.service),
        }
        if let Some(instance) = owner.instance {
            add("instance", instance);
        }
    }
    out
}

/// As the Collector has it: whatever is no letter and no digit of ASCII is an underscore.
fn label_name(attribute: &str, out: &mut String) {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
    if attribute.starts_with(|letter: char| letter.is_ascii_digit()) {
        out.push_str("key_");
    }
    out.extend(attribute.chars().map(plain));
}

fn escape(value: &str, out: &mut String) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_and_values_are_as_prometheus_takes_them() {
        let name = |attribute: &str| {
            let mut out = String::new();
            label_name(attribute, &mut out);
            out
        };
        assert_eq!(name("http.status_code"), "http_status_code");
        assert_eq!(name("a-b/c:d"), "a_b_c_d");
        assert_eq!(name("5xx"), "key_5xx");
        let mut out = String::new();
        escape("a\"b\\c\nd", &mut out);
        assert_eq!(out, "a\\\"b\\\\c\\nd");
    }
}
