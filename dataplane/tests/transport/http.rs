//! OTLP/HTTP: what is taken, what is refused and how.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ringtail::transport::{Method, Protocol, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{MIB, Server, begin, gzipped, limits, noise, zstded};

/// One HTTP/1.1 exchange on a connection of its own: status line, head, body.
async fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

fn post(path: &str, content_type: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: {length}{more}"
    )
}

#[tokio::test]
async fn http_takes_protobuf_in_any_compression() {
    let server = Server::start(Protocol::Http);
    for length in [0, 3, 30_000, MIB] {
        let message = noise(length);
        let cases = [
            ("", message.clone()),
            ("\r\ncontent-encoding: identity", message.clone()),
            ("\r\ncontent-encoding: gzip", gzipped(&message)),
            ("\r\ncontent-encoding: zstd", zstded(&message)),
        ];
        for (header, body) in cases {
            let kind = "application/x-protobuf; charset=x";
            let head = post("/v1/traces", kind, body.len(), header);
            let (status, head, answer) = exchange(server.address, &head, &body).await;
            assert_eq!((status, answer.len()), (200, 0), "{length} {header}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            assert!(server.seen().pop().unwrap().1 == message, "{length} {header}");
        }
    }
    assert_eq!(server.probe.budget.used(), 0);
}

#[tokio::test]
async fn http_takes_chunked_bodies() {
    let server = Server::start(Protocol::Http);
    let message = noise(200_000);
    for size in [1000, 70_000, 200_000] {
        let mut body = Vec::new();
        for chunk in message.chunks(size) {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        let head = "POST /v1/traces HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n\
                    transfer-encoding: chunked";
        let (status, _, _) = exchange(server.address, head, &body).await;
        assert_eq!(status, 200, "{size}");
        assert!(server.seen().pop().unwrap().1 == message, "{size}");
    }
    // A chunked body over the limit is refused at the limit.
    let mut body = format!("{:x}\r\n", 2 * MIB).into_bytes();
    body.extend(vec![0; MIB + 100_000]);
    let head = "POST /v1/traces HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n\
                transfer-encoding: chunked";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    assert_eq!(server.probe.budget.used(), 0);
}

#[tokio::test]
async fn http_refusals() {
    let server = Server::start(Protocol::Http);
    let proto = "application/x-protobuf";
    let big = 2 * MIB;
    let cases = [
        ("GET", "GET /v1/traces HTTP/1.1".to_owned(), 405, "allow: post"),
        ("root", post("/", proto, 3, ""), 404, ""),
        ("metrics", post("/v1/metrics", proto, 3, ""), 404, ""),
        ("logs", post("/v1/logs", proto, 3, ""), 404, ""),
        ("peer path", post(Method::Deliver.path(), proto, 3, ""), 404, ""),
        ("json", post("/v1/traces", "application/json", 3, ""), 400, "application/json"),
        ("text", post("/v1/traces", "text/plain", 3, ""), 415, "text/plain"),
        (
            "snappy",
            post("/v1/traces", proto, 3, "\r\ncontent-encoding: snappy"),
            415,
            "accept-encoding: identity,gzip,zstd",
        ),
        ("large", post("/v1/traces", proto, big, ""), 413, ""),
        ("gzip", post("/v1/traces", proto, 3, "\r\ncontent-encoding: gzip"), 400, ""),
    ];
    for (name, mut head, expected, header) in cases {
        let body: &[u8] = match name {
            "GET" => b"",
            // A client that waits for `100 Continue` sends nothing after a refusal.
            "large" => {
                head.push_str("\r\nexpect: 100-continue");
                b""
            }
            _ => b"abc",
        };
        let (status, head, body) = exchange(server.address, &head, body).await;
        assert_eq!(status, expected, "{name}: {head}");
        assert!(head.contains(header), "{name}: {head}");
        let text = String::from_utf8_lossy(&body).into_owned();
        let telling = ["send", "serves", "served", "take", "use", "not valid", "not OTLP/JSON"];
        assert!(telling.iter().any(|word| text.contains(word)), "{name}: {text}");
    }
    assert_eq!((server.seen().len(), server.probe.budget.used()), (0, 0));
}

#[tokio::test]
async fn http_overload_says_when_to_come_back() {
    let server = Server::with(Protocol::Http, limits(), 100);
    let head = post("/v1/traces", "application/x-protobuf", 101, "");
    let (status, head, body) = exchange(server.address, &head, &[7; 101]).await;
    assert_eq!(status, 429);
    assert!(head.contains("retry-after: 1"), "{head}");
    // google.rpc.Status: field 1 is the code, UNAVAILABLE.
    assert_eq!(&body[..2], [8, 14]);

    let pause = Duration::from_millis(2001);
    server.answer(Err(Refusal::Unavailable { message: "draining".into(), retry_after: pause }));
    let head = post("/v1/traces", "application/x-protobuf", 1, "");
    let (status, head, body) = exchange(server.address, &head, b"a").await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 3"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("draining"));
}

#[tokio::test]
async fn a_refused_http_client_can_send_its_whole_body_first() {
    let server = Server::with(Protocol::Http, limits(), 100);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = post("/v1/traces", "application/x-protobuf", 900_000, "");
    stream.write_all(format!("{head}\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    // Everything is written, with pauses, before the answer is read: a server that answers and closes
    // resets the connection under these writes.
    for _ in 0..30 {
        stream.write_all(&[7; 30_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 429");
}

#[tokio::test]
async fn http_speaks_http2_too_and_each_port_names_the_other() {
    let cases = [
        (Protocol::Http, "/v1/traces", "application/x-protobuf", 200, None, ""),
        (Protocol::Http, Method::ExportTraces.path(), "application/grpc", 200, Some("12"), "4317"),
        (Protocol::Grpc, "/v1/traces", "application/x-protobuf", 415, None, ""),
    ];
    for (protocol, path, content_type, expected, grpc, text) in cases {
        let server = Server::start(protocol);
        let headers = [("content-type", content_type)];
        let (response, mut body) = begin(server.address, path, &headers).await;
        body.send_data(Bytes::from_static(b"abc"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
        let status = response.headers().get("grpc-status").map(|code| code.to_str().unwrap());
        assert_eq!(status, grpc, "{path}");
        let message = response.headers().get("grpc-message");
        let message = message.map_or("", |message| message.to_str().unwrap());
        assert!(message.contains(text), "{path}: {message}");
    }
    // An SDK set to http/protobuf that was given the gRPC port.
    let server = Server::start(Protocol::Grpc);
    let head = post("/v1/traces", "application/x-protobuf", 3, "");
    let (status, _, body) = exchange(server.address, &head, b"abc").await;
    assert_eq!(status, 415);
    assert!(String::from_utf8_lossy(&body).contains("4318"));
}
