//! A gRPC client for Export calls over one connection: what the generator sends with.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use crate::failure::{Doing, Result};
use crate::grpc::{
    CONNECTION_WINDOW, EXPORT_PATH, Encoding, FRAME_SIZE, STREAM_WINDOW, code, rejected_spans,
    retry_after, unframe,
};
use crate::local::Local;

/// A connection to one target, made anew when it breaks.
pub(crate) struct Channel {
    uri: Uri,
    address: SocketAddr,
    sender: RefCell<Option<SendRequest<Full<Bytes>>>>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) rejected_spans: u64,
}

// === impl Channel ===

impl Channel {
    pub(crate) fn new(address: SocketAddr) -> Result<Self> {
        let uri = format!("http://{address}{EXPORT_PATH}");
        let uri = uri.parse().doing(|| format!("the target {address}"))?;
        Ok(Self { uri, address, sender: RefCell::new(None) })
    }

    /// Sends one message; a connection that is not there or breaks is answered as UNAVAILABLE.
    pub(crate) async fn export(&self, message: Bytes, encoding: Encoding) -> Answer {
        match self.call(message, encoding).await {
            Ok(answer) => answer,
            Err(error) => {
                Answer { code: code::UNAVAILABLE, message: error.to_string(), ..Answer::default() }
            }
        }
    }

    async fn call(&self, message: Bytes, encoding: Encoding) -> Result<Answer> {
        let mut sender = self.sender().await?;
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        describe(request.headers_mut(), encoding);
        let calling = || format!("calling {}", self.address);
        let response = sender.send_request(request).await.doing(calling)?;
        read(response).await
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>> {
        if let Some(sender) = self.sender.borrow().as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let connecting = || format!("connecting to {}", self.address);
        let stream = TcpStream::connect(self.address).await.doing(connecting)?;
        stream.set_nodelay(true).doing(connecting)?;
        let (sender, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_SIZE)
            .handshake(TokioIo::new(stream))
            .await
            .doing(connecting)?;
        // When it breaks, every call in flight gets the error; nobody waits for the task itself.
        tokio::task::spawn_local(connection);
        *self.sender.borrow_mut() = Some(sender.clone());
        Ok(sender)
    }
}

fn describe(headers: &mut HeaderMap, encoding: Encoding) {
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    // Some servers answer in the encoding of the request, whatever is accepted.
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
    if encoding != Encoding::Identity {
        headers.insert("grpc-encoding", HeaderValue::from_static(encoding.name()));
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer> {
    let (head, body) = response.into_parts();
    let encoding = Encoding::of(&head.headers)?;
    let collected = body.collect().await.doing(|| "reading the answer".into())?;
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes();
    let status = trailers.filter(|trailers| trailers.contains_key("grpc-status"));
    let status = status.unwrap_or(head.headers);
    let text = |name: &str| status.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status").and_then(|code| code.parse().ok());
    let rejected = match body.is_empty() {
        true => 0,
        false => rejected_spans(&unframe(&body, encoding)?),
    };
    Ok(Answer {
        // An answer without a status is not from a gRPC server.
        code: code.unwrap_or(code::UNIMPLEMENTED),
        message: text("grpc-message").unwrap_or_default().to_owned(),
        retry_after: retry_after(&status),
        rejected_spans: rejected,
    })
}
