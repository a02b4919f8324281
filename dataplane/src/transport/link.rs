//! One HTTP/2 connection that is made when somebody needs it and made again when it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::client::{ClientLimits, in_full};
use super::keyring::Keyring;
use super::pieces::Pieces;
use super::trust::{self, Trust};
use super::wire::Wire;

type Line = Connection<TokioIo<Wire>, Full<Pieces>, TokioExecutor>;

/// A connection that lived shorter than this and answered no call counts as a failed attempt: behind a load
/// balancer without backends, connecting works and the connection is closed at once.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot connect to {endpoint}: {detail}; next attempt in {} ms", wait.as_millis())]
pub struct ConnectError {
    /// Where to.
    pub endpoint: Arc<str>,
    /// What went wrong.
    pub detail: String,
    /// The pause until a call makes the next attempt.
    pub wait: Duration,
    /// Whether nobody listens at the address, as its machine says.
    pub refused: bool,
}

/// A connection as callers use it.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) sender: SendRequest<Full<Pieces>>,
    answered: Arc<AtomicBool>,
}

/// Why an attempt failed.
#[derive(Clone)]
struct Failed {
    detail: Arc<str>,
    refused: bool,
}

/// What is spoken below HTTP.
#[derive(Clone, Debug)]
pub(super) enum Security {
    /// Nothing.
    Plain,
    /// TLS between the tiers.
    Peers(Arc<Keyring>),
    /// TLS to a server that is not of the fleet.
    Server(Arc<Trust>),
}

/// What the keeper tells the callers.
#[derive(Clone)]
enum State {
    /// Nobody has asked yet, or the last connection ended in peace.
    Idle,
    Up(Lease),
    /// The last attempt failed; calls before `until` fail at once.
    Down {
        why: Failed,
        until: Instant,
    },
}

/// The callers' end of a connection.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: Arc<str>,
    state: watch::Receiver<State>,
    /// A word here asks the keeper to connect; closing it asks the keeper to end.
    wanted: mpsc::Sender<()>,
}

/// The task that owns the connection.
struct Keeper {
    endpoint: Arc<str>,
    limits: ClientLimits,
    security: Security,
    backoff: Backoff,
    state: watch::Sender<State>,
    wanted: mpsc::Receiver<()>,
}

// === impl Link ===

impl Link {
    /// A link that connects when it is first used. Must be called inside a tokio runtime.
    pub(super) fn new(endpoint: Arc<str>, limits: ClientLimits, security: Security) -> Self {
        let (state, watched) = watch::channel(State::Idle);
        let (ask, wanted) = mpsc::channel(1);
        let backoff = Backoff::new(limits.backoff_first, limits.backoff_cap);
        let name = Arc::clone(&endpoint);
        let keeper = Keeper { endpoint: name, limits, security, backoff, state, wanted };
        tokio::spawn(keeper.run());
        Self { endpoint, state: watched, wanted: ask }
    }

    /// The connection, made if need be. While a failed attempt is backing off this fails at once, because
    /// the caller has better things to do than wait: other destinations, its queue.
    pub(super) async fn lease(&self) -> Result<Lease, ConnectError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Up(lease) if !lease.sender.is_closed() => return Ok(lease.clone()),
                State::Down { why, until } => {
                    let wait = until.saturating_duration_since(Instant::now());
                    if !wait.is_zero() {
                        return Err(self.failed(why.clone(), wait));
                    }
                }
                State::Idle | State::Up(_) => {}
            }
            // A full channel means that somebody has asked already.
            let _ = self.wanted.try_send(());
            if state.changed().await.is_err() {
                let why = Failed::because("the runtime is shutting down");
                return Err(self.failed(why, Duration::ZERO));
            }
        }
    }

    fn failed(&self, why: Failed, wait: Duration) -> ConnectError {
        let Failed { detail, refused } = why;
        let endpoint = Arc::clone(&self.endpoint);
        ConnectError { endpoint, detail: detail.as_ref().to_owned(), wait, refused }
    }
}

// === impl Failed ===

impl Failed {
    fn because(why: impl ToString) -> Self {
        Self { detail: why.to_string().into(), refused: false }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
        Self { detail: error.to_string().into(), refused }
    }
}

// === impl Lease ===

impl Lease {
    /// A call was answered, so the connection is a good one however soon it ends.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

// === impl Keeper ===

impl Keeper {
    async fn run(mut self) {
        while self.wanted.recv().await.is_some() {
            // Of several callers that asked for one attempt, the words of all but the first come late.
            if self.is_resting() {
                continue;
            }
            match self.connect().await {
                Ok((lease, line)) => self.keep(lease, line).await,
                Err(why) => self.back_off(why),
            }
        }
    }

    async fn connect(&self) -> Result<(Lease, Line), Failed> {
        let connecting = async {
            let stream = TcpStream::connect(&*self.endpoint).await?;
            stream.set_nodelay(true)?;
            let wire = match &self.security {
                Security::Plain => Wire::Plain(stream),
                Security::Peers(keyring) => {
                    keyring.connect(stream).await.map_err(Failed::because)?
                }
                Security::Server(trust) => trust.connect(stream).await.map_err(Failed::because)?,
            };
            let handshake = self.builder().handshake(TokioIo::new(wire)).await;
            let (sender, line) = handshake.map_err(Failed::because)?;
            let answered = Arc::default();
            Ok((Lease { sender, answered }, line))
        };
        match timeout(self.limits.connect_timeout, connecting).await {
            Ok(result) => result,
            Err(_) => {
                Err(Failed::because(format!("no answer in {:?}", self.limits.connect_timeout)))
            }
        }
    }

    /// Drives the connection to its end.
    async fn keep(&mut self, lease: Lease, line: Line) {
        let since = Instant::now();
        let answered = Arc::clone(&lease.answered);
        self.state.send_replace(State::Up(lease));
        let mut line = std::pin::pin!(line);
        let ended = loop {
            tokio::select! {
                ended = line.as_mut() => break ended,
                word = self.wanted.recv() => if word.is_none() {
                    // No link is left: without the sender kept here the connection ends after its last call.
                    self.state.send_replace(State::Idle);
                    break line.await;
                },
            }
        };
        if since.elapsed() < SHORT_LIFE && !answered.load(Ordering::Relaxed) {
            let because = |error: hyper::Error| match trust::hint(&in_full(&error)) {
                Some(told) => Failed::because(told),
                None => Failed::because(error),
            };
            let why = ended.err().map(because);
            let closed = || Failed::because("the server closed the connection at once");
            self.back_off(why.unwrap_or_else(closed));
        } else {
            self.backoff.succeed();
            self.state.send_replace(State::Idle);
        }
    }

    fn is_resting(&self) -> bool {
        matches!(&*self.state.borrow(), State::Down { until, .. } if *until > Instant::now())
    }

    fn back_off(&mut self, why: Failed) {
        let until = Instant::now() + self.backoff.fail(fastrand::f64());
        tracing::debug!(endpoint = &*self.endpoint, detail = &*why.detail, "no connection");
        self.state.send_replace(State::Down { why, until });
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(self.limits.stream_window_bytes)
            .initial_connection_window_size(self.limits.connection_window_bytes)
            .max_frame_size(self.limits.max_frame_bytes)
            .max_send_buf_size(self.limits.send_buffer_bytes)
            .keep_alive_interval(self.limits.keepalive_interval)
            .keep_alive_timeout(self.limits.keepalive_timeout)
            .keep_alive_while_idle(true);
        builder
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Idle => "Idle",
            State::Up(_) => "Up",
            State::Down { .. } => "Down",
        })
    }
}
