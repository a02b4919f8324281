//! The wire edge: what agents, gateways and the tools around them use to be called and to call.
//!
//! Requests are read by hand off raw hyper, because the length of a message has to be seen before memory
//! is taken for it, inflating has to stop at a cap, and an oversize request must get an answer that no
//! OTLP client retries.
//!
//! ```
//! use std::time::Duration;
//! use http::HeaderMap;
//! use ringtail::transport::{
//!     Admission, Call, Client, ClientLimits, Encoding, Handler, Method, Protocol, Refusal, Reply,
//!     ServerLimits, bind, framed, serve,
//! };
//! use tokio::sync::watch;
//!
//! struct Counter;
//!
//! impl Handler for Counter {
//!     async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
//!         println!("{} bytes from {}", call.message.len(), call.peer);
//!         Ok(Reply::default()) // an ExportTraceServiceResponse without partial success has no bytes
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = bind("127.0.0.1:0".parse()?)?;
//! let address = listener.local_addr()?;
//! let (stop, stopped) = watch::channel(false);
//! let budget = Admission::new(64 << 20);
//! let limits = ServerLimits::default();
//! let server = tokio::spawn(serve(listener, Protocol::Grpc, limits, budget, Counter, stopped));
//!
//! let client = Client::new(&address.to_string(), &ClientLimits::default())?;
//! let frame = framed(0, |_message| {});
//! let (none, patience) = (HeaderMap::new(), Duration::from_secs(5));
//! let answer = client.call(Method::ExportTraces, frame, Encoding::Identity, &none, patience).await?;
//! assert!(answer.is_empty());
//!
//! stop.send(true)?;
//! server.await?;
//! # Ok(())
//! # }
//! ```

mod admission; // the byte budget and its permits
mod answer; //    refusals and replies as gRPC and HTTP answers
mod backoff; //   pauses between attempts
mod call; //      one call on the server side, and the trait that roles implement
mod certificate; // what clients see, and whom of them is believed
mod client; //    calling
mod compress; //  gzip and zstd, both ways
mod frame; //     message frames, read and built
mod guard; //     what a listener asks of whoever comes
mod http_client; // calling OTLP/HTTP servers
mod keyring; //   certificates between the tiers
mod limits; //    every limit with its arithmetic
mod link; //      one connection of a client
mod pieces; //    bytes in several pieces
mod roll; //      who is connected, and who makes room
mod server; //    listening and accepting
mod status; //    gRPC statuses in trailers
mod tally; //     what receivers count
mod tokens; //    bearer tokens
mod trust; //       TLS to servers that are not of the fleet
mod wire; //      plain or TLS

pub use admission::{Admission, Overloaded, Permit};
pub use answer::{OVERLOAD_PAUSE, Refusal, Reply};
pub use backoff::Backoff;
pub use call::{Call, Handler, Method, Peer, Protocol};
pub use certificate::Certificate;
pub use client::{CallError, Client, ClientLimits, EndpointError};
pub use compress::{ACCEPTED, DeflateError, Encoding, InflateError, deflate, deflated, inflate};
pub use frame::{FrameError, PREFIX_BYTES, framed, framed_as, prefix};
pub use guard::{Guard, Tls};
pub use http_client::{BodyFormat, HttpClient};
pub use keyring::{Keyring, KeyringError, Outcome};
pub use limits::{
    CONNECTION_SHARE, CONNECTION_WINDOW_BYTES, HTTP1_BUFFER_BYTES, MAX_CONNECTIONS,
    MAX_CONNECTIONS_OF_ONE, MAX_FRAME_BYTES, MAX_HEADER_BYTES, MAX_JSON_BYTES, MAX_REQUEST_BYTES,
    MAX_STREAMS, STREAM_WINDOW_BYTES, ServerLimits,
};
pub use link::ConnectError;
pub use pieces::Pieces;
pub use server::{BindError, bind, serve, serve_guarded};
pub use status::{Code, Status};
pub use tally::{Closed, Tally};
pub use tokens::Tokens;
pub use trust::{Alpn, Material, Trust};
