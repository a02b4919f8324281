//! Membership: who is in the ring, as an agent learns it by asking. Gateways have the steward for it
//! ([`crate::gateway::fleet`]).
//!
//! Discovery yields addresses; a member exists only by its own announcement, with its id and instance. Every
//! candidate is asked `Hello` about once a second, and those that may serve, as far as discovery knows, and
//! say that they do are the view. A peer that does not know `Hello` (a Collector) is a member named after its
//! address, for as long as it can be reached.
//!
//! Leaves apply at once, joins settle, so that ten gateways that start together change the view once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ringtail_engine::key::KeySeed;
use ringtail_engine::ring::{Member, View};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::asker::{Asker, News};
use crate::discovery::{Candidates, Standing};
use crate::pause;
use crate::peer::Dialect;
use crate::transport::{EndpointError, Keyring};

pub mod asker;
pub mod instance;
pub mod observers;

/// Joins are published together after this pause.
const JOIN_SETTLE: Duration = Duration::from_millis(1500);
/// A candidate that discovery no longer lists, but that answers, is kept for so long: a pod that moves from
/// one slice to another is in neither for a moment. One that does not answer leaves at once.
const ABSENCE_SETTLE: Duration = Duration::from_secs(1);
/// News of candidates under way: each asker sends at most one every hello and waits when this is full.
const NEWS_MAX: usize = 64;

/// Where a tier keeps what belongs to a candidate.
pub type Place = usize;

/// What is known of a candidate by asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not asked yet, or not answered yet.
    Unknown,
    /// Takes spans.
    Serving(Member),
    /// Says that it is leaving.
    Draining,
    /// Refused the connection, or was silent for too long.
    Away,
    /// Belongs to somebody else: it places keys by another seed, or is not what it should be.
    Foreign,
}

/// What a process makes of membership.
pub trait Tier: Send + 'static {
    /// A candidate appeared; `dialect` is what it turns out to speak.
    ///
    /// # Errors
    /// When its address is none; the candidate is then left out.
    fn open(
        &mut self,
        address: &str,
        dialect: watch::Receiver<Dialect>,
    ) -> Result<Place, EndpointError>;

    /// A candidate is gone. It was in no published roster before.
    fn close(&mut self, place: Place);

    /// Who is in the ring from now on.
    fn publish(&mut self, roster: Roster);
}

/// How a process introduces itself to others.
pub trait Voice: Send + Sync + 'static {
    /// Its `HelloRequest` as of now.
    fn hello(&self) -> Vec<u8>;
}

/// A view, and what belongs to it.
#[derive(Debug)]
pub struct Roster {
    /// The members.
    pub view: View,
    /// The place of each member, in the order of `view.members()`.
    pub places: Vec<Option<Place>>,
}

/// Counts of candidates that are shown but change nothing.
#[derive(Debug, Default)]
pub struct Counts {
    /// All of them.
    pub candidates: AtomicU64,
    /// Gateways on their way out; a gateway counts itself among them.
    pub draining: AtomicU64,
    /// Those that belong to somebody else.
    pub foreign: AtomicU64,
}

/// What membership works with.
pub struct Config {
    /// Keys the ring.
    pub seed: KeySeed,
    /// Where candidates come from.
    pub candidates: watch::Receiver<Candidates>,
    /// Certificates for asking, where there is TLS between the tiers.
    pub keyring: Option<Arc<Keyring>>,
    /// Whether nobody is asked who it is, and whoever answers takes plain OTLP.
    pub thin: bool,
    /// How this process introduces itself.
    pub voice: Arc<dyn Voice>,
    /// Where counts are shown.
    pub counts: Arc<Counts>,
}

/// The task that owns what is known.
pub struct Membership<T> {
    config: Config,
    tier: T,
    seats: BTreeMap<String, Seat>,
    /// Numbers seats, so that late news of a former holder of an address are not taken for its successor's.
    opened: u64,
    news: mpsc::Sender<News>,
    /// Nobody is in the published view.
    cold: bool,
    /// When a settled join is due.
    join_at: Option<Instant>,
}

/// A candidate.
struct Seat {
    number: u64,
    place: Place,
    standing: Standing,
    status: Status,
    asker: AbortHandle,
    /// Since when discovery does not list it.
    absent_since: Option<Instant>,
}

// === impl Membership ===

impl<T: Tier> Membership<T> {
    /// Follows candidates and asks them until the task is aborted.
    pub async fn run(config: Config, tier: T) {
        let mut candidates = config.candidates.clone();
        let (mut membership, mut news) = Self::new(config, tier);
        candidates.mark_changed();
        loop {
            let (join_at, absent_at) = (membership.join_at, membership.next_absence());
            tokio::select! {
                Some(news) = news.recv() => membership.note(news, Instant::now()),
                Ok(()) = candidates.changed() => {
                    let list = candidates.borrow_and_update().clone();
                    membership.list(&list, Instant::now());
                }
                () = pause::until(join_at) => membership.publish(),
                () = pause::until(absent_at) => membership.close_absent(Instant::now()),
            }
            membership.count();
        }
    }

    fn new(config: Config, tier: T) -> (Self, mpsc::Receiver<News>) {
        let (news, received) = mpsc::channel(NEWS_MAX);
        let seats = BTreeMap::new();
        (Self { config, tier, seats, opened: 0, news, cold: true, join_at: None }, received)
    }

    /// Takes over a list of candidates.
    fn list(&mut self, list: &Candidates, now: Instant) {
        let Some(list) = list else { return };
        let mut left = false;
        for candidate in list.iter() {
            match self.seats.get_mut(&candidate.address) {
                Some(seat) => {
                    let was = seat.is_member();
                    seat.standing = candidate.standing;
                    seat.absent_since = None;
                    let is = seat.is_member();
                    left |= was && !is;
                    if is && !was {
                        self.join_at.get_or_insert(now + JOIN_SETTLE);
                    }
                }
                None => self.open(&candidate.address, candidate.standing),
            }
        }
        let listed: BTreeSet<&str> = list.iter().map(|c| c.address.as_str()).collect();
        for (address, seat) in &mut self.seats {
            if !listed.contains(address.as_str()) {
                seat.absent_since.get_or_insert(now);
            }
        }
        if left {
            self.publish();
        }
        self.close_absent(now);
    }

    fn open(&mut self, address: &str, standing: Standing) {
        let (dialect, spoken) = watch::channel(Dialect::Otlp);
        let place = match self.tier.open(address, spoken) {
            Ok(place) => place,
            Err(error) => return tracing::warn!(%error, "a candidate is left out"),
        };
        self.opened += 1;
        let asker = Asker {
            number: self.opened,
            address: address.to_owned(),
            seed_id: self.config.seed.id(),
            thin: self.config.thin,
            takes_collectors: self.config.keyring.is_none(),
            keyring: self.config.keyring.clone(),
            voice: Arc::clone(&self.config.voice),
            dialect,
            news: self.news.clone(),
        };
        let seat = Seat {
            number: self.opened,
            place,
            standing,
            status: Status::Unknown,
            asker: tokio::spawn(asker.run()).abort_handle(),
            absent_since: None,
        };
        self.seats.insert(address.to_owned(), seat);
    }

    fn note(&mut self, news: News, now: Instant) {
        let Some(seat) = self.seats.get_mut(&news.address) else { return };
        if seat.number != news.number {
            return;
        }
        let was = seat.is_member();
        seat.status = news.status;
        let is = seat.is_member();
        if seat.absent_since.is_some() && !is {
            self.close_absent(now);
            if was {
                // It counted until a moment ago, so closing its seat was no news of a member.
                self.publish();
            }
            return;
        }
        let open =
            |seat: &Seat| seat.standing == Standing::Serving && seat.status == Status::Unknown;
        let complete = !self.seats.values().any(open);
        if was || (self.cold && complete) {
            // A leave applies at once, and so does the first view when every candidate has answered. What
            // was a member and still is one has a new instance.
            self.publish();
        } else if is {
            self.join_at.get_or_insert(now + JOIN_SETTLE);
        }
    }

    /// When the next candidate that is not listed any more has had its time.
    fn next_absence(&self) -> Option<Instant> {
        let since = self.seats.values().filter_map(|seat| seat.absent_since).min();
        since.map(|since| since + ABSENCE_SETTLE)
    }

    fn close_absent(&mut self, now: Instant) {
        let gone = |seat: &Seat| {
            seat.absent_since
                .is_some_and(|since| !seat.is_member() || now >= since + ABSENCE_SETTLE)
        };
        let gone: Vec<String> = self
            .seats
            .iter()
            .filter(|(_, seat)| gone(seat))
            .map(|(address, _)| address.clone())
            .collect();
        let seats: Vec<Seat> = gone.iter().filter_map(|at| self.seats.remove(at)).collect();
        if seats.iter().any(Seat::is_member) {
            self.publish();
        }
        for (seat, address) in seats.into_iter().zip(gone) {
            tracing::info!(%address, "a candidate is gone");
            seat.asker.abort();
            self.tier.close(seat.place);
        }
    }

    fn publish(&mut self) {
        self.join_at = None;
        let roster = self.roster();
        self.cold = roster.view.is_empty();
        tracing::info!(
            digest = format!("{:016x}", roster.view.digest()),
            members = roster.view.len(),
            "ring"
        );
        self.tier.publish(roster);
    }

    fn roster(&self) -> Roster {
        let others = self.seats.values().filter_map(|seat| match &seat.status {
            Status::Serving(member) => seat.is_member().then_some((member, seat.place)),
            _ => None,
        });
        let others: Vec<(&Member, Place)> = others.collect();
        let members = others.iter().map(|(member, _)| (*member).clone());
        let view = View::new(members.collect(), &self.config.seed);
        // A gateway that two addresses lead to is one member: the first address with its newest instance
        // wins.
        let place = |member: &Member| {
            others.iter().find(|(known, _)| *known == member).map(|(_, place)| *place)
        };
        let places = view.members().iter().map(place).collect();
        Roster { view, places }
    }

    fn count(&self) {
        let leaving = |seat: &&Seat| {
            seat.status == Status::Draining
                || (seat.standing == Standing::Draining && seat.status != Status::Away)
        };
        let leaving = self.seats.values().filter(leaving).count();
        let foreign = self.seats.values().filter(|seat| seat.status == Status::Foreign).count();
        let counts = &self.config.counts;
        counts.candidates.store(self.seats.len() as u64, Relaxed);
        counts.draining.store(leaving as u64, Relaxed);
        counts.foreign.store(foreign as u64, Relaxed);
    }
}

// === impl Seat ===

impl Seat {
    fn is_member(&self) -> bool {
        self.standing == Standing::Serving && matches!(self.status, Status::Serving(_))
    }
}

impl<T> Drop for Membership<T> {
    fn drop(&mut self) {
        for seat in self.seats.values() {
            seat.asker.abort();
        }
    }
}

#[cfg(test)]
mod tests;
