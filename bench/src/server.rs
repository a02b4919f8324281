//! A gRPC server for unary calls, as plain as it can be: what the sink listens with.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::grpc::unframe;
use crate::grpc::{CONNECTION_WINDOW, EXPORT_PATH, Encoding, FRAME_SIZE, STREAM_WINDOW, code};
use crate::local::Local;

/// Streams a connection: more than any client of a bench has in flight.
const STREAMS_MAX: u32 = 1024;

/// How long to wait after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One Export request, inflated.
pub(crate) struct Received {
    pub(crate) wire_len: usize,
    pub(crate) payload: Bytes,
    pub(crate) encoding: Encoding,
}

/// Why a call is refused: status code and message.
pub(crate) struct Refusal(pub(crate) u32, pub(crate) String);

/// Accepts connections until the task is dropped; every Export goes to `take`.
pub(crate) async fn serve(
    listener: TcpListener,
    take: Rc<dyn Fn(Received) -> Result<(), Refusal>>,
) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::task::spawn_local(connection(stream, Rc::clone(&take)));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, take: Rc<dyn Fn(Received) -> Result<(), Refusal>>) {
    // Without it small answers wait for the peer's acknowledgement; a refusal to set it changes only timing.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Rc::clone(&take)));
    let served = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_concurrent_streams(STREAMS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        eprintln!("a connection broke: {error}");
    }
}

async fn answer(
    request: Request<Incoming>,
    take: Rc<dyn Fn(Received) -> Result<(), Refusal>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    Ok(match receive(request).await.and_then(|received| take(received)) {
        Ok(()) => accepted(),
        Err(refusal) => refused(&refusal),
    })
}

async fn receive(request: Request<Incoming>) -> Result<Received, Refusal> {
    if request.uri().path() != EXPORT_PATH {
        let path = request.uri().path();
        return Err(Refusal(code::UNIMPLEMENTED, format!("the sink takes Export, not {path}")));
    }
    let invalid =
        |error: crate::failure::Failure| Refusal(code::INVALID_ARGUMENT, error.to_string());
    let encoding = Encoding::of(request.headers()).map_err(invalid)?;
    let broken = |error: hyper::Error| Refusal(code::UNAVAILABLE, error.to_string());
    let body = gather(request.into_body()).await.map_err(broken)?;
    let payload = unframe(&body, encoding).map_err(invalid)?;
    Ok(Received { wire_len: body.len(), payload, encoding })
}

/// The whole body; copied only if it came in several frames.
async fn gather(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut gathered: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        match gathered.take() {
            None if joined.is_empty() && body.is_end_stream() => return Ok(data),
            None if joined.is_empty() => gathered = Some(data),
            None => joined.extend_from_slice(&data),
            Some(first) => {
                // The prefix announces how long the message is; a wrong one only costs a reallocation.
                joined.reserve(announced_len(&first).min(FRAME_SIZE as usize * 16));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(gathered.unwrap_or_else(|| joined.freeze()))
}

fn announced_len(start: &[u8]) -> usize {
    match start {
        [_, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize + 5,
        _ => 0,
    }
}

fn accepted() -> Response<BoxBody<Bytes, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    // An ExportTraceServiceResponse without fields.
    let message = Full::new(Bytes::from_static(&[0; 5]));
    response(message.with_trailers(async { Some(Ok(trailers)) }).boxed())
}

fn refused(Refusal(code, message): &Refusal) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = response(Full::new(Bytes::new()).boxed());
    response.headers_mut().insert("grpc-status", (*code).into());
    let printable: String =
        message.chars().map(|c| if c.is_ascii_graphic() && c != '%' { c } else { ' ' }).collect();
    if let Ok(value) = HeaderValue::from_str(&printable) {
        response.headers_mut().insert("grpc-message", value);
    }
    response
}

fn response(body: BoxBody<Bytes, Infallible>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip,zstd"));
    response
}
