//! What the receivers of a process count: requests that were refused, connections that were closed and why.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::answer::Refusal;
use super::keyring::Outcome;

/// What one cause did is told in the log at most so often: who floods us must not fill the log as well.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Counters of all receivers of a process.
#[derive(Debug)]
pub struct Tally {
    refused: [AtomicU64; Refusal::REASONS.len()],
    closed: [AtomicU64; Closed::ALL.len()],
    /// Seconds after `since` from which on a cause may be told again.
    told: [AtomicU64; Closed::ALL.len()],
    handshakes: [AtomicU64; Outcome::ALL.len()],
    open: AtomicU64,
    since: Instant,
}

/// Why a connection was closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The listener holds as many as it may, and nobody else has more than who came.
    TooMany,
    /// Its address has as many as one may have.
    TooManyOfOne,
    /// Somebody who has fewer came, and this one had nothing under way.
    MadeRoom,
    /// It did not say what it speaks, or its handshake took too long.
    Silent,
    /// It speaks TLS, and the port does not.
    TlsOnPlain,
    /// What it speaks is no TLS, and the port speaks nothing else.
    PlainOnTls,
    /// The handshake failed; the handshakes' own counters say how.
    Handshake,
    /// More than half of its many requests were taken back.
    Resets,
    /// What it sent breaks the rules of HTTP, or it went away in the middle.
    Broken,
    /// Nothing was under way for long.
    Idle,
    /// It was old; who comes again may be sent elsewhere.
    Aged,
}

// === impl Closed ===

impl Closed {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 11] = [
        Self::TooMany,
        Self::TooManyOfOne,
        Self::MadeRoom,
        Self::Silent,
        Self::TlsOnPlain,
        Self::PlainOnTls,
        Self::Handshake,
        Self::Resets,
        Self::Broken,
        Self::Idle,
        Self::Aged,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TooManyOfOne => "too_many_of_one",
            Self::MadeRoom => "made_room",
            Self::Silent => "silent",
            Self::TlsOnPlain => "tls_on_plain",
            Self::PlainOnTls => "plain_on_tls",
            Self::Handshake => "handshake",
            Self::Resets => "resets",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Aged => "aged",
        }
    }

    /// What to do about it, for the causes that somebody should look at.
    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::TooMany => Some("all connections are in use"),
            Self::TooManyOfOne => Some("one address has as many connections as one may have"),
            Self::MadeRoom => Some("all connections are in use; those of the greediest are closed"),
            Self::TlsOnPlain => Some("a client speaks TLS to a port without; give it http://"),
            Self::PlainOnTls => Some("a client speaks no TLS to a port with it; give it https://"),
            Self::Handshake => Some("a TLS handshake failed; look at the client's certificates"),
            Self::Resets => Some("a client takes back more than half of its requests"),
            _ => None,
        }
    }
}

// === impl Tally ===

impl Default for Tally {
    fn default() -> Self {
        Self {
            refused: Default::default(),
            closed: Default::default(),
            told: Default::default(),
            handshakes: Default::default(),
            open: AtomicU64::new(0),
            since: Instant::now(),
        }
    }
}

impl Tally {
    /// Requests refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Refusal::REASONS.into_iter().zip(self.refused.iter().map(|count| count.load(Relaxed)))
    }

    /// Connections closed, by cause.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.closed.iter().map(|count| count.load(Relaxed));
        Closed::ALL.into_iter().map(Closed::label).zip(counts)
    }

    /// Handshakes of clients, by outcome.
    pub fn handshakes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.handshakes.iter().map(|count| count.load(Relaxed));
        Outcome::ALL.into_iter().map(Outcome::label).zip(counts)
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    pub(super) fn refuse(&self, refusal: &Refusal) {
        let place = Refusal::REASONS.iter().position(|reason| *reason == refusal.reason());
        if let Some(count) = place.and_then(|place| self.refused.get(place)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn shake(&self, outcome: Outcome) {
        self.handshakes[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn come(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    pub(super) fn go(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// Counts a connection, and tells of it now and then.
    pub(super) fn close(&self, why: Closed, peer: std::net::SocketAddr) {
        let closed = self.closed[why as usize].fetch_add(1, Relaxed) + 1;
        let Some(advice) = why.advice() else { return };
        let told = &self.told[why as usize];
        let now = self.since.elapsed().as_secs();
        let due = told.load(Relaxed);
        let next = now + TELL_EVERY.as_secs();
        if now >= due && told.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            tracing::warn!(%peer, closed, cause = why.label(), "a connection is closed: {advice}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_counter_of_its_own() {
        let tally = Tally::default();
        for (place, cause) in Closed::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place, "{cause:?}");
            tally.close(cause, std::net::SocketAddr::from(([127, 0, 0, 1], 1)));
        }
        assert!(tally.closed().all(|(_, count)| count == 1));
        let reasons: std::collections::BTreeSet<_> = Refusal::REASONS.into_iter().collect();
        assert_eq!(reasons.len(), Refusal::REASONS.len());
        tally.refuse(&Refusal::Unauthenticated("no token".to_owned()));
        assert_eq!(tally.refused().filter(|(_, count)| *count == 1).count(), 1);
    }
}
