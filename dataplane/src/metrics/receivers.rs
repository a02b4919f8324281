//! What receivers count: requests refused, connections closed, certificates and tokens.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::{Metric, Sample, count, gauge};
use crate::transport::{Guard, Tls};

table! {
    REFUSED_REQUESTS = Counter "ringtail_receiver_refused_requests" ["reason"]
        "Requests that were answered with a refusal";
    CONNECTIONS = Gauge "ringtail_receiver_connections" []
        "Connections that are open";
    CLOSED = Counter "ringtail_receiver_closed_connections" ["cause"]
        "Connections that this process closed, or that broke";
    CLIENT_HANDSHAKES = Counter "ringtail_receiver_handshakes" ["outcome"]
        "TLS handshakes of clients";
    CLIENT_FILES = Counter "ringtail_receiver_files" ["files", "outcome"]
        "New certificates and tokens of the receivers";
}

/// Everything as of now.
pub(super) fn samples(guard: &Guard, samples: &mut Vec<Sample>) {
    let tally = &guard.tally;
    samples.extend(tally.refused().map(|(reason, n)| count(&REFUSED_REQUESTS, &[reason], n)));
    samples.push(gauge(&CONNECTIONS, &[], tally.open()));
    samples.extend(tally.closed().map(|(cause, n)| count(&CLOSED, &[cause], n)));
    let mut files = |name, reloads: u64, refusals: u64| {
        samples.push(count(&CLIENT_FILES, &[name, "applied"], reloads));
        samples.push(count(&CLIENT_FILES, &[name, "refused"], refusals));
    };
    if let Some(tokens) = &guard.tokens {
        files("tokens", tokens.reloads.load(Relaxed), tokens.refusals.load(Relaxed));
    }
    if let Tls::Clients(shown) = &guard.tls {
        files("certificates", shown.reloads.load(Relaxed), shown.refusals.load(Relaxed));
        samples.extend(tally.handshakes().map(|(how, n)| count(&CLIENT_HANDSHAKES, &[how], n)));
    }
}
