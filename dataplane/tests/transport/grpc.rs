//! gRPC calls: what is taken and what is refused, and how.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use ringtail::transport::{
    Client, ClientLimits, Code, Encoding, Method, Protocol, Refusal, Reply, framed, framed_as,
};

use crate::support::{GRPC, MIB, PATIENCE, Server, begin, call, limits, noise, raw_frame, status};

async fn messages_arrive_whole() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    for length in [0, 1, 5, 20_000, 474_000, MIB] {
        let message = noise(length);
        for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
            let frame = framed_as(encoding, &message).unwrap();
            let wire = frame.len() as u64 - 5;
            let answer = call(&client, frame, encoding).await.unwrap();
            assert!(answer.is_empty(), "{length} {encoding:?}");
            let (method, seen, wire_bytes) = server.seen().pop().unwrap();
            assert_eq!((method, wire_bytes), (Method::ExportTraces, wire), "{length} {encoding:?}");
            assert!(seen == message, "{length} {encoding:?}");
        }
    }
    assert_eq!(server.refused(), []);
    assert_eq!(server.probe.budget.used(), 0);
}

#[tokio::test]
async fn messages_arrive_whole_on_one_thread() {
    messages_arrive_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_whole_on_two_threads() {
    messages_arrive_whole().await;
}

#[tokio::test]
async fn replies_come_back_and_methods_are_told_apart() {
    let server = Server::start(Protocol::Grpc);
    server.answer(Ok(Reply { message: Bytes::from_static(b"partly") }));
    let client = server.client();
    let frame = framed(3, |out| out.extend_from_slice(b"abc"));
    let none = HeaderMap::new();
    let deliver = client.call(Method::Deliver, frame, Encoding::Identity, &none, PATIENCE).await;
    assert_eq!(deliver.unwrap(), "partly");
    assert_eq!(server.seen(), [(Method::Deliver, Bytes::from_static(b"abc"), 3)]);
}

#[tokio::test]
async fn many_calls_share_a_few_connections() {
    let server = Server::start(Protocol::Grpc);
    let limits = ClientLimits { connections: 3, ..ClientLimits::default() };
    let client = Arc::new(Client::new(&server.address.to_string(), &limits).unwrap());
    let calls: Vec<_> = (0..300_usize)
        .map(|n| {
            let client = Arc::clone(&client);
            let frame = framed(n, |out| out.extend_from_slice(&noise(n)));
            tokio::spawn(async move { call(&client, frame, Encoding::Identity).await })
        })
        .collect();
    for one in calls {
        one.await.unwrap().unwrap();
    }
    let mut lengths: Vec<_> = server.seen().iter().map(|(_, message, _)| message.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (0..300).collect::<Vec<_>>());
}

/// Sends a body in pieces of our choosing.
async fn call_in_pieces(address: SocketAddr, pieces: Vec<Bytes>) -> HeaderMap {
    let path = Method::ExportTraces.path();
    let (response, mut body) = begin(address, path, &[GRPC]).await;
    for piece in pieces {
        body.send_data(piece, false).unwrap();
        tokio::task::yield_now().await;
    }
    body.send_data(Bytes::new(), true).unwrap();
    let mut response = response.await.unwrap();
    let data = response.body_mut();
    while data.data().await.transpose().unwrap().is_some() {}
    data.trailers().await.unwrap().unwrap_or_else(|| response.headers().clone())
}

#[tokio::test]
async fn torn_frames_are_put_together() {
    let server = Server::start(Protocol::Grpc);
    let frame = framed(300, |out| out.extend_from_slice(&noise(300)));
    for size in [1, 2, 3, 4, 5, 6, 100, 304, 305] {
        let pieces = frame.chunks(size).map(Bytes::copy_from_slice).collect();
        let trailers = call_in_pieces(server.address, pieces).await;
        assert_eq!(trailers["grpc-status"], "0", "pieces of {size}");
        assert!(server.seen().pop().unwrap().1 == noise(300), "pieces of {size}");
    }
}

// === gRPC: what is refused ===

#[tokio::test]
async fn bad_frames_are_refused_for_good() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    let cases: [(&str, Bytes, Code, &str); 8] = [
        ("no message", Bytes::new(), Code::InvalidArgument, "malformed"),
        ("half a prefix", Bytes::from_static(&[0, 0, 0]), Code::InvalidArgument, "malformed"),
        ("truncated", raw_frame(0, 10, b"abc"), Code::InvalidArgument, "malformed"),
        ("nothing after", raw_frame(0, 10, b""), Code::InvalidArgument, "malformed"),
        ("longer", raw_frame(0, 2, b"abc"), Code::InvalidArgument, "malformed"),
        ("odd flag", raw_frame(2, 3, b"abc"), Code::InvalidArgument, "malformed"),
        ("no encoding", raw_frame(1, 3, b"abc"), Code::InvalidArgument, "malformed"),
        ("64 MiB", raw_frame(0, 64 << 20, b"abc"), Code::InvalidArgument, "too_large"),
    ];
    for (name, frame, code, reason) in cases {
        let error = call(&client, frame, Encoding::Identity).await.unwrap_err();
        assert!(!error.is_retryable(), "{name}");
        assert_eq!(status(Err(error)).0, code, "{name}");
        assert_eq!(server.refused().pop().unwrap().1, reason, "{name}");
    }
    assert_eq!((server.seen().len(), server.probe.budget.used()), (0, 0));
}

#[tokio::test]
async fn an_oversize_length_is_refused_before_the_body_comes() {
    let server = Server::start(Protocol::Grpc);
    let path = Method::ExportTraces.path();
    // The body is never finished: an answer can only come from the length.
    let (response, mut body) = begin(server.address, path, &[GRPC]).await;
    body.send_data(raw_frame(0, 64 << 20, b""), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "3");
    assert_eq!(server.probe.budget.used(), 0);
}

#[tokio::test]
async fn a_large_message_is_refused_while_it_is_being_sent() {
    let server = Server::with(Protocol::Grpc, limits(), MIB as u64 / 2);
    let client = server.client();
    // Larger than the limit, then larger than the budget; both far larger than what sockets hold.
    for (length, code) in [(24 * MIB, Code::InvalidArgument), (MIB, Code::Unavailable)] {
        let frame = framed(length, |out| out.resize(5 + length, 7));
        for _ in 0..20 {
            let error = call(&client, frame.clone(), Encoding::Identity).await;
            assert_eq!(status(error).0, code, "{length}");
        }
    }
    // The connection survived it.
    call(&client, framed(0, |_| {}), Encoding::Identity).await.unwrap();
}

#[tokio::test]
async fn methods_that_are_not_served_are_refused_before_the_body_comes() {
    let server = Server::start(Protocol::Grpc);
    let cases = [
        (Method::ExportMetrics.path(), Some(Method::ExportMetrics), "OTEL_METRICS_EXPORTER=none"),
        (Method::ExportLogs.path(), Some(Method::ExportLogs), "OTEL_LOGS_EXPORTER=none"),
        (Method::Hello.path(), Some(Method::Hello), "send OTLP instead"),
        ("/shop.Cart/Pay", None, "/shop.Cart/Pay"),
    ];
    for (path, method, text) in cases {
        let proto = ("content-type", "application/grpc+proto");
        let (response, _body) = begin(server.address, path, &[proto]).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["grpc-status"], "12", "{path}");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.contains(text), "{path}: {message}");
        assert_eq!(server.refused().pop(), Some((method, "unimplemented")));
    }
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    let mut metadata = HeaderMap::new();
    metadata.insert("x-flood", "a".repeat(20 << 10).parse().unwrap());
    let frame = framed(0, |_| {});
    let result =
        client.call(Method::ExportTraces, frame, Encoding::Identity, &metadata, PATIENCE).await;
    let (_, message, _) = status(result);
    assert!(message.contains("431"), "{message}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn an_unknown_compression_names_the_known_ones() {
    let server = Server::start(Protocol::Grpc);
    let path = Method::ExportTraces.path();
    let headers = [GRPC, ("grpc-encoding", "snappy")];
    let (response, _body) = begin(server.address, path, &headers).await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip,zstd");
}

#[tokio::test]
async fn refusals_keep_their_code_text_and_pause() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    let pause = Duration::from_millis(2500);
    let text = "voll: größer machen, 100 %".to_owned();
    let cases = [
        (Refusal::Malformed(text.clone()), Code::InvalidArgument, None, false),
        (Refusal::TooLarge(text.clone()), Code::InvalidArgument, None, false),
        (Refusal::Internal(text.clone()), Code::Internal, None, false),
        (Refusal::Unimplemented(text.clone()), Code::Unimplemented, None, false),
        (
            Refusal::Overloaded { message: text.clone(), retry_after: pause },
            Code::Unavailable,
            Some(pause),
            true,
        ),
        (
            Refusal::Unavailable { message: text.clone(), retry_after: pause },
            Code::Unavailable,
            Some(pause),
            true,
        ),
    ];
    for (refusal, code, retry_after, retryable) in cases {
        server.answer(Err(refusal.clone()));
        let error = call(&client, framed(0, |_| {}), Encoding::Identity).await.unwrap_err();
        assert_eq!(error.is_retryable(), retryable, "{refusal:?}");
        assert_eq!(error.retry_after(), retry_after, "{refusal:?}");
        assert_eq!(status(Err(error)), (code, text.clone(), retry_after), "{refusal:?}");
        assert_eq!(server.refused().pop().unwrap().1, refusal.reason());
    }
}

#[tokio::test]
async fn a_full_budget_asks_to_come_back() {
    let server = Server::with(Protocol::Grpc, limits(), 1000);
    let client = server.client();
    let fits = framed(0, |out| out.resize(1005, 7));
    call(&client, fits, Encoding::Identity).await.unwrap();
    let held = server.probe.budget.try_reserve(1).unwrap();
    let full = framed(0, |out| out.resize(1005, 7));
    let (code, message, pause) = status(call(&client, full.clone(), Encoding::Identity).await);
    assert_eq!((code, pause), (Code::Unavailable, Some(Duration::from_secs(1))), "{message}");
    drop(held);
    call(&client, full, Encoding::Identity).await.unwrap();
    assert_eq!(server.probe.budget.used(), 0);
}
