//! The end of a role: signals, and the parent of a process that must not outlive it.

use std::io::BufRead;

use tokio::sync::{oneshot, watch};

/// What a line of the parent that lists gateways begins with.
pub const PEERS_LINE: &str = "peers";

/// The process that started this one, at the other end of standard input.
#[derive(Debug)]
pub struct Parent {
    /// The gateways that it listed last.
    pub peers: watch::Receiver<Vec<String>>,
    gone: oneshot::Receiver<()>,
}

// === impl Parent ===

impl Parent {
    /// Listens to the parent until it is gone.
    pub fn listen() -> Self {
        // A thread of its own: reading standard input cannot be interrupted, and must not keep the runtime
        // from ending.
        let (ended, gone) = oneshot::channel::<()>();
        let (list, peers) = watch::channel(Vec::new());
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                let mut words = line.split_whitespace();
                if words.next() == Some(PEERS_LINE) {
                    list.send_replace(words.map(str::to_owned).collect());
                }
            }
            drop(ended);
        });
        Self { peers, gone }
    }
}

/// Resolves on SIGTERM, SIGINT, or the end of the parent.
///
/// A second signal ends the process at once.
pub(super) async fn wait_for_stop(parent: Option<Parent>) {
    let (Ok(mut term), Ok(mut int)) = (
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()),
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received; stopping");
        return;
    };
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
