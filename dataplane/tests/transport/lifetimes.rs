//! Connections that dawdle, idle, are too many, end and come back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use ringtail::transport::{
    BindError, CallError, Client, ClientLimits, Encoding, Method, Protocol, ServerLimits, bind,
    framed, serve,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::{GRPC, MIB, Server, begin, call, impatient, limits, raw_frame, until};

#[tokio::test]
async fn a_trickle_is_cut_off() {
    let server = Server::with(Protocol::Grpc, impatient(), 8 * MIB as u64);
    let path = Method::ExportTraces.path();
    for (name, piece) in [("silence", None), ("empty", Some("")), ("byte by byte", Some("a"))] {
        let (response, mut body) = begin(server.address, path, &[GRPC]).await;
        body.send_data(raw_frame(0, 100_000, b"begins"), false).unwrap();
        let trickle = tokio::spawn(async move {
            while let Some(piece) = piece {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if body.send_data(Bytes::from_static(piece.as_bytes()), false).is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
        });
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4", "{name}");
        assert_eq!(server.refused().pop().unwrap().1, "too_slow", "{name}");
        assert_eq!(server.probe.budget.used(), 0, "{name}");
        trickle.abort();
    }
}

/// Reads until the server closes.
async fn read_to_close(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is as good an end as any.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn who_says_nothing_is_shown_out() {
    let server = Server::with(Protocol::Http, impatient(), 8 * MIB as u64);
    for words in ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/traces HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(answer.is_empty() || answer.contains(" 408 "), "{words:?}: {answer}");
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\
                content-type: application/x-protobuf\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_let_go() {
    let limits = ServerLimits {
        keepalive_interval: Duration::from_millis(100),
        keepalive_timeout: Duration::from_millis(100),
        ..limits()
    };
    let server = Server::with(Protocol::Grpc, limits, MIB as u64);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The preface and an empty SETTINGS frame, then silence.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    read_to_close(&mut stream).await;
}

#[tokio::test]
async fn a_client_that_leaves_inside_its_body_leaves_no_charge() {
    let server = Server::start(Protocol::Grpc);
    let path = Method::ExportTraces.path();
    let (response, mut body) = begin(server.address, path, &[GRPC]).await;
    body.send_data(raw_frame(0, 100_000, b"begins"), false).unwrap();
    // Charged is what has arrived, not what was announced.
    until(|| async { server.probe.budget.used() == 6 }).await;
    body.send_reset(h2::Reason::CANCEL);
    drop(response);
    until(|| async { server.probe.budget.used() == 0 }).await;
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_asked_to_leave_and_a_busy_one_is_not() {
    let server = Server::with(Protocol::Grpc, impatient(), 8 * MIB as u64);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    // The connection ends by itself although its client is still there.
    connection.await.unwrap();
    drop(client);

    let busy = server.client();
    let gate = server.probe.gate.acquire().await.unwrap();
    let calling = call(&busy, framed(0, |_| {}), Encoding::Identity);
    let opening = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        drop(gate);
    };
    let (answer, ()) = tokio::join!(calling, opening);
    answer.unwrap();
    // After the server has let go of it the client makes a new connection without a word.
    tokio::time::sleep(Duration::from_millis(1000)).await;
    call(&busy, framed(0, |_| {}), Encoding::Identity).await.unwrap();
}

#[tokio::test]
async fn connections_are_limited() {
    let limits = ServerLimits { max_connections: 2, ..limits() };
    let server = Server::with(Protocol::Grpc, limits, MIB as u64);
    let (one, two) = (server.client(), server.client());
    call(&one, framed(0, |_| {}), Encoding::Identity).await.unwrap();
    call(&two, framed(0, |_| {}), Encoding::Identity).await.unwrap();
    let three = server.client();
    let error = call(&three, framed(0, |_| {}), Encoding::Identity).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(two);
    until(|| async { call(&three, framed(0, |_| {}), Encoding::Identity).await.is_ok() }).await;
}

async fn shutdown_finishes_calls_in_flight() {
    let server = Server::start(Protocol::Grpc);
    let client = Arc::new(server.client());
    let gate = server.probe.gate.acquire().await.unwrap();
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { call(&client, framed(0, |_| {}), Encoding::Identity).await })
        })
        .collect();
    server.probe.entered.acquire_many(10).await.unwrap().forget();
    server.stop.send(true).unwrap();
    // Nobody new gets in, once the listener is gone.
    until(|| async { TcpStream::connect(server.address).await.is_err() }).await;
    assert!(!server.task.is_finished());
    drop(gate);
    for one in calls {
        one.await.unwrap().unwrap();
    }
    assert_eq!(server.task.await.unwrap(), 0);
    assert_eq!(server.probe.seen.lock().unwrap().len(), 10);
    let error = call(&client, framed(0, |_| {}), Encoding::Identity).await.unwrap_err();
    assert!(matches!(error, CallError::Connect(_)), "{error}");
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
}

#[tokio::test]
async fn shutdown_finishes_calls_in_flight_on_one_thread() {
    shutdown_finishes_calls_in_flight().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_calls_in_flight_on_two_threads() {
    shutdown_finishes_calls_in_flight().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let limits = ServerLimits { drain_timeout: Duration::from_millis(100), ..limits() };
    let server = Server::with(Protocol::Grpc, limits, MIB as u64);
    let client = server.client();
    let _gate = server.probe.gate.acquire().await.unwrap();
    let calling =
        tokio::spawn(async move { call(&client, framed(0, |_| {}), Encoding::Identity).await });
    server.probe.entered.acquire().await.unwrap().forget();
    server.stop.send(true).unwrap();
    assert_eq!(server.task.await.unwrap(), 1);
    assert!(calling.await.unwrap().unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_client_finds_a_server_that_comes_back() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    call(&client, framed(0, |_| {}), Encoding::Identity).await.unwrap();
    let Server { address, probe, stop, task } = server;
    stop.send(true).unwrap();
    task.await.unwrap();
    assert!(call(&client, framed(0, |_| {}), Encoding::Identity).await.is_err());

    let (_stop, stopped) = watch::channel(false);
    let budget = probe.budget.clone();
    let listener = bind(address).unwrap();
    tokio::spawn(serve(listener, Protocol::Grpc, limits(), budget, probe, stopped));
    until(|| async { call(&client, framed(0, |_| {}), Encoding::Identity).await.is_ok() }).await;
}

#[tokio::test]
async fn a_client_leaves_a_server_that_says_goodbye() {
    let old = Server::start(Protocol::Grpc);
    let client = Arc::new(old.client());
    call(&client, framed(0, |_| {}), Encoding::Identity).await.unwrap();
    let gate = old.probe.gate.acquire().await.unwrap();
    let begin_call = || {
        let client = Arc::clone(&client);
        tokio::spawn(async move { call(&client, framed(0, |_| {}), Encoding::Identity).await })
    };
    let slow = begin_call();
    old.probe.entered.acquire_many(2).await.unwrap().forget();
    old.stop.send(true).unwrap();
    until(|| async { TcpStream::connect(old.address).await.is_err() }).await;

    // The old server still works on the slow call; every new one finds the new server without an error
    // between.
    let (_stop, stopped) = watch::channel(false);
    let new = Server::start(Protocol::Grpc);
    let listener = bind(old.address).unwrap();
    let probe = Arc::clone(&new.probe);
    let budget = probe.budget.clone();
    tokio::spawn(serve(listener, Protocol::Grpc, limits(), budget, probe, stopped));
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(begin_call());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(|| async { !new.seen().is_empty() }).await;
    assert!(!slow.is_finished());
    drop(gate);
    slow.await.unwrap().unwrap();
    for one in calls {
        one.await.unwrap().unwrap();
    }
    assert_eq!(old.seen().len() + new.seen().len(), 22);
}

#[tokio::test]
async fn a_call_gives_up_in_time() {
    let server = Server::start(Protocol::Grpc);
    let _gate = server.probe.gate.acquire().await.unwrap();
    let client = server.client();
    let (none, soon) = (HeaderMap::new(), Duration::from_millis(50));
    let frame = framed(0, |_| {});
    let result = client.call(Method::ExportTraces, frame, Encoding::Identity, &none, soon).await;
    assert!(matches!(result, Err(CallError::Timeout(_))), "{result:?}");
}

#[tokio::test]
async fn a_port_in_use_says_what_to_do() {
    let held = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)));
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("another port"), "{text}");
    let elsewhere = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(elsewhere.to_string().contains("192.0.2.1"), "{elsewhere}");
}

#[tokio::test]
async fn endpoints_are_checked() {
    for (endpoint, works) in
        [("gw-0:4317", true), ("[::1]:4317", true), ("gw-0", false), ("http://gw-0:4317", false)]
    {
        let client = Client::new(endpoint, &ClientLimits::default());
        assert_eq!(client.is_ok(), works, "{endpoint}");
    }
}
