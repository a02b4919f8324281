//! Listening and accepting: connections with limits, idle handling and a graceful end.

use std::collections::HashMap;
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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::admission::Admission;
use super::answer::AnswerBody;
use super::call::{Desk, Handler, Peer, Protocol};
use super::guard::{Caller, Guard, Tls};
use super::keyring::Outcome;
use super::limits::{
    CONNECTION_REQUESTS_MIN, CONNECTION_SHARE, DISCARD_PAUSE, HTTP1_BUFFER_BYTES,
    PENDING_RESETS_MAX, PROVOKED_RESETS_MAX, RESETS_LOOKED_AT, ServerLimits,
};
use super::roll::Roll;
use super::tally::Closed;
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

/// The first byte of TLS: a record of the handshake. No method of HTTP begins with it.
const TLS_HANDSHAKE: u8 = 22;
/// A fatal alert of TLS 1.2, `handshake_failure`: record type, version, length, level, description.
const TLS_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// Connections are asked to leave up to this part of their age earlier.
const AGE_SPREAD: u64 = 10;

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
    /// Calls that were taken back before their answer.
    taken_back: AtomicU64,
}

/// A connection that was let in.
struct Guest {
    stream: TcpStream,
    peer: SocketAddr,
    activity: Arc<Activity>,
    leave: Arc<Notify>,
}

/// A call in flight, for as long as it lives.
struct InFlight {
    activity: Arc<Activity>,
    leave: Arc<Notify>,
    answered: bool,
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
    serve_guarded(listener, protocol, limits, admission, handler, Guard::default(), shutdown).await
}

/// Serves like [`serve`], to whoever passes the guard.
pub async fn serve_guarded<H: Handler>(
    listener: TcpListener,
    protocol: Protocol,
    limits: ServerLimits,
    admission: Admission,
    handler: H,
    guard: Guard,
    shutdown: watch::Receiver<bool>,
) -> usize {
    accept(listener, Desk::new(protocol, limits, admission, handler, guard), shutdown).await
}

async fn accept<H: Handler>(
    listener: TcpListener,
    desk: Desk<H>,
    mut shutdown: watch::Receiver<bool>,
) -> usize {
    let drain_timeout = desk.limits.drain_timeout;
    let mut roll = Roll::new(&desk.limits);
    let desk = Arc::new(desk);
    let mut connections = JoinSet::new();
    let mut numbers = HashMap::new();
    // Calls run in tasks of their own and may outlive their connection; each holds a sender.
    let (working, mut finished) = mpsc::channel(1);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(ended) = connections.join_next_with_id() => {
                let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
                if let Some((address, number)) = numbers.remove(&task) {
                    roll.remove(address, number);
                    desk.guard.tally.go();
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (activity, leave) = (Arc::<Activity>::default(), Arc::<Notify>::default());
                let entry = (Arc::clone(&activity), Arc::clone(&leave));
                // An IPv4 address is the same one when it comes by an IPv6 socket.
                let address = peer.ip().to_canonical();
                match roll.admit(address, entry.0, entry.1, Activity::is_idle) {
                    Err(why) => desk.guard.tally.close(why, peer),
                    Ok((number, _)) => {
                        desk.guard.tally.come();
                        let guest = Guest { stream, peer, activity, leave };
                        let (desk, working) = (Arc::clone(&desk), working.clone());
                        let task = connections.spawn(guest.stay(desk, working, shutdown.clone()));
                        numbers.insert(task.id(), (address, number));
                    }
                }
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

// === impl Guest ===

impl Guest {
    /// Lives as long as the connection.
    async fn stay<H: Handler>(
        self,
        desk: Arc<Desk<H>>,
        working: mpsc::Sender<()>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let Self { stream, peer: address, activity, leave } = self;
        // Small answers must not wait for the acknowledgement of earlier ones.
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = open(stream, &desk.guard, desk.protocol, desk.limits.header_timeout) => opened,
            () = stopped(&mut shutdown) => return,
            () = leave.notified() => Err(Closed::MadeRoom),
        };
        let (wire, certified, misplaced) = match opened {
            Ok(opened) => opened,
            Err(why) => return desk.guard.tally.close(why, address),
        };
        if misplaced {
            desk.guard.tally.close(Closed::PlainOnTls, address);
        }
        let least = desk.limits.max_wire_bytes * CONNECTION_REQUESTS_MIN;
        let share = (desk.admission.limit() / CONNECTION_SHARE).max(least);
        let peer = Peer { address, certified };
        let caller = Arc::new(Caller { peer, admission: desk.admission.part(share), misplaced });
        let builder = connection_builder(&desk.limits);
        let service = service_fn({
            let (activity, desk) = (Arc::clone(&activity), Arc::clone(&desk));
            let leave = Arc::clone(&leave);
            move |request: http::Request<Incoming>| {
                let (desk, caller) = (Arc::clone(&desk), Arc::clone(&caller));
                let in_flight = InFlight::begin(&activity, &leave, &working);
                async move {
                    let answer = desk.answer(request, &caller).await;
                    in_flight.end();
                    Ok::<http::Response<AnswerBody>, hyper::Error>(answer)
                }
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
        let limits = &desk.limits;
        // Who only has to be told that TLS is spoken here has heard it by then.
        let idle = if misplaced { limits.header_timeout } else { limits.idle_timeout };
        let why = tokio::select! {
            result = connection.as_mut() => result.err().map(|_| Closed::Broken),
            () = stopped(&mut shutdown) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
                None
            }
            () = leave.notified() => {
                let why = activity.reproach();
                // A call may have begun since somebody saw that none was under way.
                if why == Closed::MadeRoom && !activity.is_idle() {
                    connection.as_mut().graceful_shutdown();
                    let _ = timeout(limits.drain_timeout, connection).await;
                }
                Some(why)
            }
            why = activity.outlived(idle, limits.connection_age) => {
                connection.as_mut().graceful_shutdown();
                let _ = timeout(limits.drain_timeout, connection).await;
                Some(why)
            }
        };
        if let Some(why) = why {
            desk.guard.tally.close(why, address);
        }
    }
}

/// Waits until it is clear what is spoken; with mutual TLS also until it is clear who speaks. The last part
/// says whether plain text came where TLS is spoken.
async fn open(
    mut stream: TcpStream,
    guard: &Guard,
    protocol: Protocol,
    patience: Duration,
) -> Result<(Wire, Option<Role>, bool), Closed> {
    if let Tls::Peers(keyring) = &guard.tls {
        let shaken = timeout(patience, keyring.accept(stream)).await;
        let shaken = shaken.unwrap_or(Err(Outcome::TooSlow));
        keyring.count(shaken.as_ref().err().copied().unwrap_or(Outcome::Accepted));
        let shaken = shaken.map_err(|_| Closed::Handshake);
        return shaken.map(|(wire, tier)| (wire, Some(tier), false));
    }
    let speaks_tls = match timeout(patience, first_words(&stream)).await {
        Ok(Ok(Some(byte))) => byte == TLS_HANDSHAKE,
        _ => return Err(Closed::Silent),
    };
    match &guard.tls {
        Tls::Clients(certificate) if speaks_tls => {
            let shaken = timeout(patience, certificate.accept(stream, protocol)).await;
            let shaken = shaken.unwrap_or(Err(Outcome::TooSlow));
            guard.tally.shake(shaken.as_ref().err().copied().unwrap_or(Outcome::Accepted));
            shaken.map(|wire| (wire, None, false)).map_err(|_| Closed::Handshake)
        }
        Tls::Clients(_) => Ok((Wire::Plain(stream), None, true)),
        Tls::None | Tls::Peers(_) if speaks_tls => {
            // So that the client says that the other side would not, instead of waiting.
            let _ = timeout(DISCARD_PAUSE, tell_alert(&mut stream)).await;
            Err(Closed::TlsOnPlain)
        }
        Tls::None | Tls::Peers(_) => Ok((Wire::Plain(stream), None, false)),
    }
}

/// Says that there is no TLS here, and waits for the other side to go: closing over bytes that were not read
/// would take the alert away again.
async fn tell_alert(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&TLS_ALERT).await?;
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Returns when the client has sent the HTTP/2 preface, or something that is not the beginning of it. The
/// bytes stay in the socket; hyper looks at them again, but would wait for them for ever. Gives the first of
/// them, if there is one.
async fn first_words(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut seen).await?;
        let said = seen.get(..length).unwrap_or_default();
        if length == 0 || length == PREFACE.len() || !PREFACE.starts_with(said) {
            return Ok(said.first().copied());
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
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(PROVOKED_RESETS_MAX)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

// === impl Activity ===

impl Activity {
    const BEGUN: u64 = 1 << 32;

    fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Relaxed).is_multiple_of(Self::BEGUN)
    }

    /// Returns when no call was in flight for `idle`, give or take another, or the connection is as old as it
    /// may become.
    async fn outlived(&self, idle: Duration, age: Duration) -> Closed {
        let spread = age.as_millis() as u64 / AGE_SPREAD;
        let age = age - Duration::from_millis(fastrand::u64(0..=spread));
        tokio::select! {
            () = self.idle(idle) => Closed::Idle,
            () = sleep(age) => Closed::Aged,
        }
    }

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

    /// Whether so many calls were taken back that somebody does it on purpose.
    fn is_abused(&self) -> bool {
        let begun = self.calls.load(Ordering::Relaxed) / Self::BEGUN;
        let taken_back = self.taken_back.load(Ordering::Relaxed);
        begun >= RESETS_LOOKED_AT && taken_back > begun / 2
    }

    /// Why a connection that was told to leave has to.
    fn reproach(&self) -> Closed {
        if self.is_abused() { Closed::Resets } else { Closed::MadeRoom }
    }
}

impl InFlight {
    fn begin(activity: &Arc<Activity>, leave: &Arc<Notify>, working: &mpsc::Sender<()>) -> Self {
        activity.calls.fetch_add(Activity::BEGUN + 1, Ordering::Relaxed);
        Self {
            activity: Arc::clone(activity),
            leave: Arc::clone(leave),
            answered: false,
            _working: working.clone(),
        }
    }
}

impl InFlight {
    /// The call has its answer. Takes itself, so that it lives in the future of the call until then.
    fn end(mut self) {
        self.answered = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.activity.calls.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            self.activity.taken_back.fetch_add(1, Ordering::Relaxed);
            if self.activity.is_abused() {
                self.leave.notify_one();
            }
        }
    }
}
