//! What a process tells of itself on its admin port, asked again and again while it lives.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringtail::stats::Stats;

/// Between two questions: fine against the second that a join settles for, and cheap.
const EVERY: Duration = Duration::from_millis(200);
/// A process that is stopped does not answer.
const WITHIN: Duration = Duration::from_millis(800);

/// The Collector's gauge of the gateways that an agent spreads over.
const BACKENDS: &str = "otelcol_loadbalancer_num_backends";

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it was asked for.
    pub(super) at: Instant,
    /// The view of the ring; of a Collector only how many there are.
    pub(super) digest: String,
    pub(super) members: Vec<String>,
    pub(super) backends: usize,
    pub(super) moved: Moved,
    pub(super) held: u64,
    pub(super) held_bytes: u64,
    /// What an agent keeps, and what it had to let go.
    pub(super) retained_bytes: u64,
    pub(super) unprotected: u64,
    /// What keeping traces whole took, by name.
    pub(super) events: BTreeMap<String, u64>,
}

/// Spans that went from where they lay to somewhere else.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Moved {
    /// Put into parcels for their new owners.
    pub(super) handed_over: u64,
    /// Sent again by agents.
    pub(super) replayed: u64,
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.handed_over += other.handed_over;
        self.replayed += other.replayed;
    }
}

/// Asks until it is dropped.
#[derive(Debug)]
pub(super) struct Probe {
    latest: Arc<Mutex<Option<Sample>>>,
    stop: Arc<AtomicBool>,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Admin {
    Ringtail(SocketAddr),
    Collector(SocketAddr),
}

// === impl Probe ===

impl Probe {
    pub(super) fn start(admin: Admin) -> Self {
        let probe = Self { latest: Arc::default(), stop: Arc::default() };
        let (latest, stop) = (Arc::clone(&probe.latest), Arc::clone(&probe.stop));
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                if let Some(sample) = ask(admin) {
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(sample);
                }
                std::thread::sleep(EVERY);
            }
        });
        probe
    }

    /// The newest answer.
    pub(super) fn latest(&self) -> Option<Sample> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn ask(admin: Admin) -> Option<Sample> {
    let at = Instant::now();
    let (Admin::Ringtail(address) | Admin::Collector(address)) = admin;
    let metrics = get(address, "/metrics")?;
    let stats: Option<Stats> = match admin {
        Admin::Ringtail(_) => Some(serde_json::from_str(&get(address, "/stats")?).ok()?),
        Admin::Collector(_) => None,
    };
    let mut sample = Sample {
        at,
        digest: String::new(),
        members: Vec::new(),
        backends: sum(&metrics, BACKENDS) as usize,
        moved: Moved {
            handed_over: sum(&metrics, "ringtail_handed_over_spans_total"),
            replayed: 0,
        },
        held: 0,
        held_bytes: 0,
        retained_bytes: sum(&metrics, "ringtail_retained_bytes"),
        unprotected: sum(&metrics, "ringtail_unprotected_traces_total"),
        events: events(&metrics),
    };
    if let Some(stats) = stats {
        sample.backends = stats.ring.members.len();
        (sample.digest, sample.members) = (stats.ring.digest, stats.ring.members);
        sample.moved.replayed = stats.ledger.received.replays;
        (sample.held, sample.held_bytes) = (stats.held.spans, stats.held.bytes);
    }
    Some(sample)
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN).ok()?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// The sum of a metric over its labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| {
        let value = rest.rsplit(' ').next()?;
        value.parse::<f64>().ok()
    });
    values.sum::<f64>() as u64
}

/// The events that have happened.
fn events(metrics: &str) -> BTreeMap<String, u64> {
    let lines = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("ringtail_ownership_events_total{event=\"")?;
        let (event, times) = rest.split_once("\"} ")?;
        Some((event.to_owned(), times.parse().ok()?))
    });
    lines.filter(|(_, times)| *times > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let metrics =
            "# TYPE a counter\na_total{x=\"1 2\"} 4\na_total{x=\"2\"} 1e1\na_total_more 7\nb 3\n";
        assert_eq!((sum(metrics, "a_total"), sum(metrics, "b"), sum(metrics, "c")), (14, 3, 0));
    }
}
