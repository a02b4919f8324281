//! Every limit of the wire edge, with its arithmetic.

use std::time::Duration;

/// Largest request, on the wire and inflated. OTLP senders are built around grpc-go's 4 MiB, the
/// Collector can be raised; four times the common limit leaves room for both and is small beside any
/// memory budget we accept.
pub const MAX_REQUEST_BYTES: u64 = 16 << 20;

/// Streams one connection may have open. An SDK uses one or two, a busy Collector a few dozen; hyper and
/// grpc-go open at most 100 before they have seen our settings, so a lower number would only cause
/// resets.
pub const MAX_STREAMS: u32 = 100;

/// Bytes of all header fields of a request: an OTLP request carries about 300, a mesh with tokens a few
/// thousand.
pub const MAX_HEADER_BYTES: u32 = 16 << 10;

/// HTTP/1.1 read buffer, which bounds the head of a request and the size of the pieces its body arrives
/// in: four heads of 16 KiB.
pub const HTTP1_BUFFER_BYTES: usize = 64 << 10;

/// Connections one listener holds. An idle HTTP/2 connection was measured at 45 KiB, so this is 90 MiB of
/// idlers.
pub const MAX_CONNECTIONS: usize = 2048;

/// Connections that one address may have of them: half. An address may be a whole mesh or a NAT, so this is
/// no fair share; that is made when a listener is full (`roll.rs`).
pub const MAX_CONNECTIONS_OF_ONE: usize = MAX_CONNECTIONS / 2;

/// Share of the receive budget that the requests of one connection may take: half, so that one alone does not
/// keep the others out.
pub const CONNECTION_SHARE: u64 = 2;
/// But at least so many of the largest requests: one as it was sent, what it inflates to, and some room. What
/// can never fit must not be answered with "later".
pub(super) const CONNECTION_REQUESTS_MIN: u64 = 3;

/// Largest body in JSON, inflated. It is there twice while it is converted, and an agent's receive budget is
/// 18 MiB unless it has more memory. On the wire it is half as long.
pub const MAX_JSON_BYTES: u64 = 8 << 20;

/// HTTP/2 streams that were reset before a task had begun to look at them (rapid reset): h2 closes the
/// connection beyond so many. Its own default, said here since it is a promise.
pub(super) const PENDING_RESETS_MAX: usize = 20;
/// Resets that a client provoked from us by breaking rules, over the life of a connection. h2 takes 1024; no
/// sender of OTLP provokes one.
pub(super) const PROVOKED_RESETS_MAX: usize = 100;
/// A connection with so many requests, of which more than half were taken back before their answer, is
/// closed. Deadlines that pass do that too, but an SDK sends one request after the other: this is 250 of
/// them.
pub(super) const RESETS_LOOKED_AT: u64 = 500;

/// Window of one stream: a quarter of the largest request is in flight at most, a typical one (0.5 MiB)
/// whole.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// Window of a connection: four full streams, so that one large upload does not stall the others.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;

/// Largest HTTP/2 frame we take. With frames of 1 MiB a 256 KiB request costs 98 us, with the default of
/// 16 KiB 180; the buffer of a connection grows to it only when its peer does send frames so large.
pub const MAX_FRAME_BYTES: u32 = 1 << 20;

/// An HTTP/1.1 client that is refused before it has sent its body may read the answer only after it has
/// sent all of it, and closing under its hands would lose the answer. So much is read and thrown away
/// first; larger bodies are cut off.
pub(super) const DISCARD_BYTES: u64 = 1 << 20;

/// Who pauses for so long while a body is thrown away is not sending it any more.
pub(super) const DISCARD_PAUSE: Duration = Duration::from_secs(1);

/// A body that comes in several pieces begins with a buffer of its announced length up to this, and doubles
/// it from there: usual requests are copied once, and who announces 16 MiB does not get them for a byte.
pub(super) const FIRST_BUFFER_BYTES: usize = 1 << 20;

/// A message shorter than this is copied out of the piece it came in. The piece is a slice of the
/// connection's read buffer (16 to 64 KiB), which a few bytes would otherwise keep alive for as long as a
/// handler holds them.
pub(super) const COPY_BELOW_BYTES: usize = 4 << 10;

/// A body in JSON of at most so many bytes is converted where it is read: some 0.5 ms of work.
pub(super) const CONVERT_HERE_BYTES: u64 = 128 << 10;

/// Bodies of one listener that are inflated, or converted from JSON, at a time. It is work for processors,
/// so more than a few would only wait for each other; and each may hold a zstd window of 8 MiB that the
/// budget does not see: 32 MiB in all.
pub(super) const MAX_INFLATIONS: usize = 4;

/// What a server allows its clients.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Largest request as it arrives, compressed or not.
    pub max_wire_bytes: u64,
    /// Largest request after inflating.
    pub max_message_bytes: u64,
    /// Streams a connection may have open.
    pub max_streams: u32,
    /// Bytes of all header fields of a request.
    pub max_header_bytes: u32,
    /// Connections the listener holds; further ones are closed at once.
    pub max_connections: usize,
    /// Connections of them that one address may have.
    pub max_connections_of_one: usize,
    /// HTTP/2 window of a stream.
    pub stream_window_bytes: u32,
    /// HTTP/2 window of a connection.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame.
    pub max_frame_bytes: u32,
    /// A new connection has this long to say which protocol it speaks, an HTTP/1.1 client this long for
    /// each head.
    pub header_timeout: Duration,
    /// A request body has this long between two pieces of data; empty pieces do not count.
    pub progress_timeout: Duration,
    /// A request body has this long altogether, so that a trickle cannot hold its reservation for ever.
    pub body_timeout: Duration,
    /// An HTTP/2 connection that was silent this long is pinged.
    pub keepalive_interval: Duration,
    /// A ping has this long to be answered.
    pub keepalive_timeout: Duration,
    /// A connection without any request in flight is asked to leave after this long.
    pub idle_timeout: Duration,
    /// A connection this old is asked to leave, so that clients spread anew over processes that came later;
    /// up to a tenth earlier, so that not all come back at once.
    pub connection_age: Duration,
    /// After the shutdown signal, requests in flight have this long to finish.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_wire_bytes: MAX_REQUEST_BYTES,
            max_message_bytes: MAX_REQUEST_BYTES,
            max_streams: MAX_STREAMS,
            max_header_bytes: MAX_HEADER_BYTES,
            max_connections: MAX_CONNECTIONS,
            max_connections_of_one: MAX_CONNECTIONS_OF_ONE,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            max_frame_bytes: MAX_FRAME_BYTES,
            header_timeout: Duration::from_secs(30),
            progress_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(15 * 60),
            connection_age: Duration::from_secs(60 * 60),
            drain_timeout: Duration::from_secs(20),
        }
    }
}
