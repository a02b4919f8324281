//! The shop: customers come in, wander about, and leave traces; the shop remembers what it sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::journey::{Sent, wander};
use super::service::Services;
use super::{AgentAddress, DemoError};

/// About 250 spans a second, which no laptop notices.
pub const TRACES_A_SECOND: u32 = 25;
/// A new customer every so often, each with one trace.
const CUSTOMER_EVERY: Duration = Duration::from_millis(1_000 / TRACES_A_SECOND as u64);
/// Less than this shows nothing: 50 traces have three or four errors among them.
pub const OPEN_LEAST: Duration = Duration::from_secs(2);
/// Half an hour of customers. Shop and backend remember every trace: 24 bytes of it here, a kept one whole
/// there.
const TRACES_MAX: usize = 50_000;
/// From the last customer to the last decision, beyond the decision wait: the longest journey takes a good
/// second, an SDK half a second, an agent's batch a fifth, a shard's clock as much again.
pub const SETTLE: Duration = Duration::from_millis(2_500);

/// A shop that is open, or was.
#[derive(Debug)]
pub struct Shop {
    closing: watch::Sender<bool>,
    open: Option<JoinHandle<Vec<String>>>,
    sent: Arc<Mutex<Vec<Sent>>>,
    complaints: Vec<String>,
}

/// What is left of a shop.
#[derive(Debug, Default)]
pub struct Closed {
    /// Every trace that was sent.
    pub sent: Vec<Sent>,
    /// What the SDKs complained of at their end.
    pub complaints: Vec<String>,
}

// === impl Shop ===

impl Shop {
    /// Opens the doors until `closes`, or until [`Self::close`].
    pub fn open(agents: &[AgentAddress], closes: Option<Instant>) -> Result<Self, DemoError> {
        let services = Arc::new(Services::start(agents)?);
        let (closing, told) = watch::channel(false);
        let sent = Arc::default();
        let open = tokio::spawn(serve_customers(services, closes, told, Arc::clone(&sent)));
        Ok(Self { closing, open: Some(open), sent, complaints: Vec::new() })
    }

    /// Waits for customers inside to leave, and for the SDKs to send what they have.
    pub async fn close(&mut self) {
        self.closing.send_replace(true);
        if let Some(open) = self.open.take() {
            let panicked = |error| vec![format!("the shop: {error}")];
            self.complaints = open.await.unwrap_or_else(panicked);
        }
    }

    /// What was sent so far.
    pub fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        lock(&self.sent)
    }

    /// What was sent, once the shop is closed.
    pub fn into_closed(self) -> Closed {
        let sent = std::mem::take(&mut *lock(&self.sent));
        Closed { sent, complaints: self.complaints }
    }
}

fn lock(sent: &Mutex<Vec<Sent>>) -> MutexGuard<'_, Vec<Sent>> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_customers(
    services: Arc<Services>,
    closes: Option<Instant>,
    mut told: watch::Receiver<bool>,
    sent: Arc<Mutex<Vec<Sent>>>,
) -> Vec<String> {
    let mut inside = JoinSet::new();
    let mut door = interval(CUSTOMER_EVERY);
    door.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while lock(&sent).len() + inside.len() < TRACES_MAX {
        tokio::select! {
            _ = door.tick() => {
                inside.spawn(wander(Arc::clone(&services)));
            }
            Some(left) = inside.join_next() => lock(&sent).extend(left.ok()),
            // Whoever dropped the shop wants it closed too.
            _ = told.wait_for(|closing| *closing) => break,
            () = sleep_until(closes.unwrap_or_else(Instant::now)), if closes.is_some() => break,
        }
    }
    let last = inside.join_all().await;
    lock(&sent).extend(last);
    // The SDK's shutdown blocks until its exporters are done, and they need this runtime for that.
    let shutdown = tokio::task::spawn_blocking(move || services.shutdown()).await;
    shutdown.unwrap_or_else(|error| vec![error.to_string()])
}
