//! The end of a role: signals, and the parent of a process that must not outlive it.

use std::io::BufRead;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// What a line of the parent that lists gateways begins with.
pub const PEERS_LINE: &str = "peers";

/// The process that started this one, at the other end of standard input.
#[derive(Debug)]
pub struct Parent {
    /// The gateways that it listed last; `None` before it has listed any.
    pub peers: watch::Receiver<Option<Vec<String>>>,
    gone: oneshot::Receiver<()>,
}

// === impl Parent ===

impl Parent {
    /// Listens to the parent until it is gone.
    pub fn listen() -> Self {
        // A thread of its own: reading standard input cannot be interrupted, and must not keep the runtime
        // from ending.
        let (ended, gone) = oneshot::channel::<()>();
        let (list, peers) = watch::channel(None);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                let mut words = line.split_whitespace();
                if words.next() == Some(PEERS_LINE) {
                    list.send_replace(Some(words.map(str::to_owned).collect()));
                }
            }
            drop(ended);
        });
        Self { peers, gone }
    }
}

/// SIGTERM and SIGINT. Caught before a process says that it listens: until then either would end it with what
/// it holds.
#[derive(Debug)]
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

// === impl Signals ===

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(super) fn catch() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }
}

/// Resolves on SIGTERM, SIGINT, or the end of the parent.
///
/// A second signal ends the process at once.
pub(super) async fn wait_for_stop(signals: Signals, parent: Option<Parent>) {
    let Signals { mut term, mut int } = signals;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        () = gone(parent) => {}
    }
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        tracing::error!("stopped by a second signal before everything was handed on");
        std::process::exit(1);
    });
}

async fn gone(parent: Option<Parent>) {
    match parent {
        // An error is what the end looks like: the thread has dropped its side.
        Some(parent) => drop(parent.gone.await),
        None => std::future::pending().await,
    }
}
