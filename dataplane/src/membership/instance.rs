//! The number of a start: it grows with every start of the same id, whatever the clock does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::asker::ask;
use crate::discovery::Candidates;
use crate::peer::{Identity, State};
use crate::transport::{Client, ClientLimits, Keyring};

/// How long a gateway that starts waits for others to remember it. In a cold start nobody does.
const LEARN_WITHIN: Duration = Duration::from_secs(1);
/// Ids whose instances are remembered: 64 gateways, renamed by fifteen rollouts while one process runs.
/// A new pod has a new name, so only the last few can ever be asked about.
const SEEN_MAX: usize = 1024;

/// The highest instance seen of each gateway.
#[derive(Debug, Default)]
pub struct Seen {
    by_id: Mutex<HashMap<String, Sighting>>,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    inst: u64,
    heard: Instant,
}

// === impl Seen ===

impl Seen {
    /// A gateway of this id and instance has spoken.
    pub fn note(&self, id: &str, inst: u64) {
        self.note_at(id, inst, Instant::now());
    }

    fn note_at(&self, id: &str, inst: u64, heard: Instant) {
        let mut by_id = self.lock();
        if let Some(sighting) = by_id.get_mut(id) {
            *sighting = Sighting { inst: sighting.inst.max(inst), heard };
            return;
        }
        if by_id.len() >= SEEN_MAX {
            let oldest = by_id.iter().min_by_key(|(_, s)| s.heard).map(|(id, _)| id.clone());
            oldest.and_then(|id| by_id.remove(&id));
        }
        by_id.insert(id.to_owned(), Sighting { inst, heard });
    }

    /// The highest instance seen of this id; 0 for none.
    pub fn highest(&self, id: &str) -> u64 {
        self.lock().get(id).map_or(0, |sighting| sighting.inst)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Sighting>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// Gives `identity` an instance above every one that a candidate remembers, if they say so in time.
pub async fn learn(
    identity: Identity,
    mut candidates: watch::Receiver<Candidates>,
    keyring: Option<&Arc<Keyring>>,
) -> Identity {
    let deadline = Instant::now() + LEARN_WITHIN;
    let known = timeout_at(deadline, candidates.wait_for(Option::is_some)).await;
    let list = match known {
        Ok(Ok(list)) => list.clone().unwrap_or_default(),
        _ => Arc::default(),
    };
    let mut asked = JoinSet::new();
    for candidate in list.iter() {
        let limits = ClientLimits::default();
        let client = Client::with_keyring(&candidate.address, &limits, keyring);
        let identity = identity.clone();
        asked.spawn(async move {
            let client = client.ok()?;
            let answer = ask(&client, identity.hello(State::Joining, 0)).await.ok()??;
            // An earlier instance of this very id may still answer at its old address.
            let own = answer.member.filter(|member| member.id == identity.id);
            Some(answer.seen_inst.max(own.map_or(0, |member| member.inst)))
        });
    }
    let mut highest = 0;
    while let Ok(Some(answer)) = timeout_at(deadline, asked.join_next()).await {
        highest = highest.max(answer.ok().flatten().unwrap_or(0));
    }
    let inst = identity.inst.max(highest.saturating_add(1));
    if inst != identity.inst {
        tracing::info!(
            inst,
            "an earlier instance of this gateway is remembered; the clock went back"
        );
    }
    Identity { inst, ..identity }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_instance_stays_and_the_longest_silent_id_goes() {
        let (seen, start) = (Seen::default(), Instant::now());
        seen.note_at("gw-0", 7, start);
        seen.note_at("gw-0", 5, start);
        assert_eq!((seen.highest("gw-0"), seen.highest("gw-1")), (7, 0));
        for id in 0..SEEN_MAX as u64 {
            seen.note_at(&format!("other-{id}"), 1, start + Duration::from_millis(1 + id));
        }
        assert_eq!(seen.highest("gw-0"), 0);
        assert_eq!(seen.lock().len(), SEEN_MAX);
    }

    #[tokio::test]
    async fn with_nobody_to_ask_the_clock_counts() {
        let identity =
            Identity { id: "gw-0".to_owned(), inst: 9, role: crate::peer::Role::Gateway };
        let (_list, candidates) = watch::channel(Some(Arc::from([])));
        assert_eq!(learn(identity.clone(), candidates, None).await.inst, 9);
        let (list, candidates) = watch::channel(None);
        drop(list);
        assert_eq!(learn(identity, candidates, None).await.inst, 9);
    }
}
