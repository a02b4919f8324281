//! Leadership: of several operators one writes, and it knows at every moment for how long it still may.
//!
//! The rules are client-go's. A candidate takes a Lease whose record has not changed for as long as the
//! record promises, by the candidate's own clock, so that clocks need not agree. A leader renews every few
//! seconds and counts its time from before the request that renewed, so that it stops before anybody else
//! may start. Every update names the version that it was made from: of two that want the Lease, one gets
//! it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use thiserror::Error;
use tokio::{sync::watch, time::timeout};

use crate::clock::Moment;

/// How long others leave a record alone that does not change: three missed renewals and a slow API server.
const DURATION: Duration = Duration::from_secs(15);
/// How long a leader goes on after its last renewal. The five seconds less than `DURATION` are for the
/// request in flight and for clocks that run at different speeds.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews and a candidate looks.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// After this the next attempt is worth more than the answer to this one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// A renewal that is under way when the lease is given back can spoil one attempt, hardly two.
const RELEASE_ATTEMPTS: usize = 3;
/// Somebody changed the object since it was read.
const CONFLICT: u16 = 409;

/// Where leadership stands, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Not asked yet, or no answer so far.
    Unknown,
    /// Somebody else's.
    Standby {
        /// Who leads.
        holder: String,
    },
    /// Ours, until then unless it is renewed.
    Leading {
        /// The end of this term.
        until: Moment,
    },
    /// It was ours. This process must end, because what it knows may be old.
    Lost,
}

/// Why a process must end.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Lost {
    /// Nothing was renewed in time: the API server is away, or this process stood still.
    #[error(
        "the lease could not be renewed in time; this process ends so that it cannot act on old knowledge"
    )]
    Expired,
    /// The record names another holder.
    #[error("the lease was taken by another operator; this process ends")]
    Taken,
}

/// A candidate for the Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    state: watch::Sender<Leadership>,
}

/// The record as it was when it last changed.
#[derive(Clone, Debug)]
struct Sighting {
    version: Option<String>,
    expires: Moment,
}

// === impl Leadership ===

impl Leadership {
    /// Whether a write may start now.
    pub fn may_write(&self) -> bool {
        matches!(self, Self::Leading { until } if !until.is_past())
    }
}

// === impl Candidate ===

impl Candidate {
    /// `client` must not be behind the gate: a candidate writes before it leads.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        state: watch::Sender<Leadership>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            state,
        }
    }

    /// Tells where leadership stands from now on.
    pub fn subscribe(&self) -> watch::Receiver<Leadership> {
        self.state.subscribe()
    }

    /// Stands for leadership, then leads, until it is lost. Says when it begins to lead.
    pub async fn run(&self, begins: impl FnOnce(bool)) -> Lost {
        let until = self.stand().await;
        begins(true);
        tracing::info!(identity = self.identity, "leading");
        let lost = self.lead(until).await;
        self.state.send_replace(Leadership::Lost);
        lost
    }

    /// Gives the Lease back, so that the next one need not wait for it to expire.
    pub async fn release(&self) {
        if !matches!(*self.state.borrow(), Leadership::Leading { .. }) {
            return;
        }
        self.state.send_replace(Leadership::Lost);
        for _ in 0..RELEASE_ATTEMPTS {
            match timeout(REQUEST_TIMEOUT, self.give_back()).await {
                // A renewal that was under way when we were told to end has changed the version.
                Ok(Err(kube::Error::Api(status))) if status.code == CONFLICT => {}
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::info!(%error, "the lease was not given back; it expires by itself");
                    return;
                }
                Err(_) => return,
            }
        }
    }

    async fn give_back(&self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        if holder(&lease) != self.identity {
            return Ok(());
        }
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    async fn stand(&self) -> Moment {
        let mut seen = None;
        loop {
            match timeout(REQUEST_TIMEOUT, self.attempt(&mut seen)).await {
                Ok(Ok(leadership @ Leadership::Leading { until })) => {
                    self.state.send_replace(leadership);
                    return until;
                }
                Ok(Ok(leadership)) => {
                    self.state.send_if_modified(|state| {
                        let changed = *state != leadership;
                        *state = leadership;
                        changed
                    });
                }
                Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be read or taken"),
                Err(_) => tracing::warn!("no answer about the lease"),
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    // The first thing after every wait is the look at the clock: after a long stop nothing else may happen.
    async fn lead(&self, mut until: Moment) -> Lost {
        loop {
            tokio::time::sleep(RETRY_INTERVAL.min(until.remaining())).await;
            if until.is_past() {
                return Lost::Expired;
            }
            let asked = Moment::now();
            let limit = REQUEST_TIMEOUT.min(until.remaining());
            match timeout(limit, self.renew()).await {
                Ok(Ok(true)) if !until.is_past() => {
                    until = asked.after(RENEW_DEADLINE);
                    self.state.send_replace(Leadership::Leading { until });
                }
                Ok(Ok(false)) => return Lost::Taken,
                Ok(Ok(true)) | Err(_) => tracing::warn!("the lease was not renewed yet"),
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed yet"),
            }
        }
    }

    async fn attempt(&self, seen: &mut Option<Sighting>) -> kube::Result<Leadership> {
        let asked = Moment::now();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.record(None);
            self.api.create(&PostParams::default(), &lease).await?;
            return Ok(Leadership::Leading { until: asked.after(RENEW_DEADLINE) });
        };
        if !may_take(&lease, &self.identity, seen) {
            return Ok(Leadership::Standby { holder: holder(&lease).to_owned() });
        }
        let lease = self.record(Some(lease));
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(Leadership::Leading { until: asked.after(RENEW_DEADLINE) })
    }

    // False when somebody else holds it.
    async fn renew(&self) -> kube::Result<bool> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            self.api.create(&PostParams::default(), &self.record(None)).await?;
            return Ok(true);
        };
        if holder(&lease) != self.identity {
            return Ok(false);
        }
        let lease = self.record(Some(lease));
        self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        Ok(true)
    }

    // The record that names us, made from the one that is there, whose version goes along.
    fn record(&self, from: Option<Lease>) -> Lease {
        let mut lease = from.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let renewed = holder(&lease) == self.identity;
        let spec = lease.spec.get_or_insert_default();
        let now = MicroTime(Timestamp::now());
        if !renewed {
            spec.lease_transitions =
                Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

// Ours from before a restart is not taken at once when the identity is a pod's name: a pod has one process
// at a time, so there is nobody to wait for.
fn may_take(lease: &Lease, identity: &str, seen: &mut Option<Sighting>) -> bool {
    let holder = holder(lease);
    if holder.is_empty() || holder == identity {
        return true;
    }
    let version = lease.metadata.resource_version.clone();
    match seen {
        Some(sighting) if sighting.version == version => sighting.expires.is_past(),
        _ => {
            *seen = Some(Sighting { version, expires: Moment::now().after(promised(lease)) });
            false
        }
    }
}

fn promised(lease: &Lease) -> Duration {
    let seconds = |spec: &LeaseSpec| u64::try_from(spec.lease_duration_seconds?).ok();
    lease.spec.as_ref().and_then(seconds).map_or(DURATION, Duration::from_secs)
}

#[cfg(test)]
mod tests;
