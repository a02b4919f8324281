//! What receivers count: requests under way, requests refused, connections closed, certificates and tokens.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::MetricType;

use super::{Metric, Sample, count, gauge};
use crate::renewal::Renewals;
use crate::transport::{Admission, Guard, Tls};

table! {
    RECEIVING = Gauge "ringtail_receiver_bytes" []
        "Bytes of requests that are being received: read, inflated, not yet taken or refused";
    RECEIVING_LIMIT = Gauge "ringtail_receiver_limit_bytes" []
        "Budget of requests that are being received";
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
pub(super) fn samples(guard: &Guard, receiving: &Admission, samples: &mut Vec<Sample>) {
    samples.push(gauge(&RECEIVING, &[], receiving.used()));
    samples.push(gauge(&RECEIVING_LIMIT, &[], receiving.limit()));
    let tally = &guard.tally;
    samples.extend(tally.refused().map(|(reason, n)| count(&REFUSED_REQUESTS, &[reason], n)));
    samples.push(gauge(&CONNECTIONS, &[], tally.open()));
    samples.extend(tally.closed().map(|(cause, n)| count(&CLOSED, &[cause], n)));
    let mut files = |name, renewals: &Renewals| {
        samples.push(count(&CLIENT_FILES, &[name, "applied"], renewals.applied.load(Relaxed)));
        samples.push(count(&CLIENT_FILES, &[name, "refused"], renewals.refused.load(Relaxed)));
    };
    if let Some(tokens) = &guard.tokens {
        files("tokens", &tokens.renewals);
    }
    if let Tls::Clients(shown) = &guard.tls {
        files("certificates", &shown.renewals);
        samples.extend(tally.handshakes().map(|(how, n)| count(&CLIENT_HANDSHAKES, &[how], n)));
    }
}
