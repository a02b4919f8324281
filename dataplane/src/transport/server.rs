//! Listening and accepting: connections with limits, idle handling and a graceful end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::admission::Admission;
use super::answer::AnswerBody;
use super::call::{Desk, Handler, Peer, Protocol};
use super::keyring::{Keyring, Outcome};
use super::limits::{HTTP1_BUFFER_BYTES, ServerLimits};
use super::wire::Wire;
use crate::stats::Role;

/// Connections the kernel holds for us until we accept them: what a fleet of SDKs opens at once after a
/// restart.
const BACKLOG: u32 = 1024;

/// When accepting fails, the process is out of file descriptors; some connection has to close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A preface that arrives in parts is looked at again after so long; it almost never does.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "cannot listen on {0}: the address is in use; stop the process that holds it \
         (`ss -ltnp` names it) or give another port, 0 for a free one"
    )]
    InUse(SocketAddr),
    /// The port is reserved.
    #[error("cannot listen on {0}: not permitted; give a port of 1024 or more")]
    NotPermitted(SocketAddr),
    /// The address is not of this machine.
    #[error("cannot listen on {0}: no interface of this machine has that address; use 0.0.0.0")]
    NotOurs(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Counts what goes on in the connections of one listener.
#[derive(Debug, Default)]
struct Activity {
    /// Calls in flight in the low half, calls ever begun in the high half: one load sees both.
    calls: AtomicU64,
}

/// A call in flight, for as long as it lives.
struct InFlight {
    activity: Arc<Activity>,
    _working: mpsc::Sender<()>,
}

/// A listener on `address`. `SO_REUSEADDR` is set, so that a restart need not wait for old connections to
/// expire.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        _ => BindError::Other { address, source },
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `listener` until `shutdown` turns true (or its sender is dropped). Then nothing is accepted any
/// more, every connection is told to go away, and calls in flight have `limits.drain_timeout` to finish.
///
/// Returns how many connections had to be cut off after that (at least 1 if a call whose client has left
/// still hangs). After 0 no call of `handler` is running any more, so what it has counted is final.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    protocol: Protocol,
    limits: ServerLimits,
    admission: Admission,
    handler: H,
    shutdown: watch::Receiver<bool>,
) -> usize {
    let desk = Desk::new(protocol, limits, admission, handler);
    accept(listener, desk, None, shutdown).await
}

/// Serves gRPC like [`serve`], to whoever has a certificate of the keyring's authority.
pub async fn serve_tls<H: Handler>(
    listener: TcpListener,
    keyring: Arc<Keyring>,
    limits: ServerLimits,
    admission: Admission,
    handler: H,
    shutdown: watch::Receiver<bool>,
) -> usize {
    let desk = Desk::new(Protocol::Grpc, limits, admission, handler);
    accept(listener, desk, Some(keyring), shutdown).await
}

async fn accept<H: Handler>(
    listener: TcpListener,
    desk: Desk<H>,
    keyring: Option<Arc<Keyring>>,
    mut shutdown: watch::Receiver<bool>,
) -> usize {
    let drain_timeout = desk.limits.drain_timeout;
    let max_connections = desk.limits.max_connections;
    let desk = Arc::new(desk);
    let mut connections = JoinSet::new();
    let mut turned_away = false;
    // Calls run in tasks of their own and may outlive their connection; each holds a sender.
    let (working, mut finished) = mpsc::channel(1);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if connections.len() < max_connections => {
                turned_away = false;
                let (desk, keyring) = (Arc::clone(&desk), keyring.clone());
                let (working, shutdown) = (working.clone(), shutdown.clone());
                connections.spawn(converse(stream, peer, keyring, desk, working, shutdown));
            }
            // Told once until there is room again: who opens too many connections must not fill the log
            // as well.
            Ok(_) if turned_away => {}
            Ok((_, peer)) => {
                turned_away = true;
                tracing::warn!(%peer, max_connections, "connections are closed: too many are open");
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(working);
    let all = async {
        while connections.join_next().await.is_some() {}
        // Nothing is ever sent: this ends when the last call has dropped its sender.
        let _ = finished.recv().await;
    };
    match timeout(drain_timeout, all).await {
        Ok(()) => 0,
        Err(_) => connections.len().max(1),
    }
}

/// Returns when the signal is given; a sender that is gone can never give it and counts as having done so.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Lives as long as one connection.
async fn converse<H: Handler>(
    stream: TcpStream,
    address: SocketAddr,
    keyring: Option<Arc<Keyring>>,
    desk: Arc<Desk<H>>,
    working: mpsc::Sender<()>,
    mut shutdown: watch::Receiver<bool>,
) {
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let patience = desk.limits.header_timeout;
    let opened = tokio::select! {
        opened = open(stream, keyring.as_deref(), patience) => opened,
        () = stopped(&mut shutdown) => return,
    };
    let (wire, certified) = match opened {
        Ok(opened) => opened,
        Err(why) => return tracing::debug!(%address, why, "connection closed"),
    };
    let peer = Peer { address, certified };
    let activity = Arc::new(Activity::default());
    let builder = connection_builder(&desk.limits);
    let idle_timeout = desk.limits.idle_timeout;
    let service = service_fn({
        let activity = Arc::clone(&activity);
        move |request: http::Request<Incoming>| {
            let desk = Arc::clone(&desk);
            let in_flight = InFlight::begin(&activity, &working);
            async move {
                let _in_flight = in_flight;
                Ok::<http::Response<AnswerBody>, hyper::Error>(desk.answer(request, peer).await)
            }
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.idle(idle_timeout) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Waits until it is clear what is spoken; with a keyring also until it is clear who speaks.
async fn open(
    stream: TcpStream,
    keyring: Option<&Keyring>,
    patience: Duration,
) -> Result<(Wire, Option<Role>), &'static str> {
    let Some(keyring) = keyring else {
        return match timeout(patience, first_words(&stream)).await {
            Ok(Ok(())) => Ok((Wire::Plain(stream), None)),
            _ => Err("it did not say what it speaks"),
        };
    };
    let shaken = timeout(patience, keyring.accept(stream)).await;
    let shaken = shaken.unwrap_or(Err(Outcome::TooSlow));
    keyring.count(shaken.as_ref().err().copied().unwrap_or(Outcome::Accepted));
    shaken.map(|(wire, tier)| (wire, Some(tier))).map_err(Outcome::label)
}

/// Returns when the client has sent the HTTP/2 preface, or something that is not the beginning of it. The
/// bytes stay in the socket; hyper looks at them again, but would wait for them for ever.
async fn first_words(stream: &TcpStream) -> io::Result<()> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut seen).await?;
        let said = seen.get(..length).unwrap_or_default();
        if length == 0 || length == PREFACE.len() || !PREFACE.starts_with(said) {
            return Ok(());
        }
        // The socket stays readable while part of a preface lies in it, so waiting for readiness would spin.
        sleep(PREFACE_PAUSE).await;
    }
}

fn connection_builder(limits: &ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(limits.max_frame_bytes)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

// === impl Activity ===

impl Activity {
    const BEGUN: u64 = 1 << 32;

    /// Returns when no call was in flight for `period`, give or take another.
    async fn idle(&self, period: Duration) {
        let mut before = self.calls.load(Ordering::Relaxed);
        loop {
            sleep(period).await;
            let now = self.calls.load(Ordering::Relaxed);
            if now == before && now.is_multiple_of(Self::BEGUN) {
                return;
            }
            before = now;
        }
    }
}

impl InFlight {
    fn begin(activity: &Arc<Activity>, working: &mpsc::Sender<()>) -> Self {
        activity.calls.fetch_add(Activity::BEGUN + 1, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), _working: working.clone() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.activity.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
