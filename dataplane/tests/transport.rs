//! The wire edge over real sockets: what is taken, what is refused and how, and how it ends.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use ringtail::transport::{
    Admission, BindError, Call, CallError, Client, ClientLimits, Code, Encoding, Handler, Method,
    Protocol, Refusal, Reply, ServerLimits, bind, framed, framed_as, inflate, serve,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// A handler that writes down what it sees, answers what it is told and lets calls through a gate.
struct Probe {
    seen: Mutex<Vec<(Method, Bytes, u64)>>,
    refused: Mutex<Vec<(Option<Method>, &'static str)>>,
    entered: Semaphore,
    gate: Semaphore,
    answer: Mutex<Result<Reply, Refusal>>,
    budget: Admission,
}

impl Handler for Probe {
    fn admits(&self, method: Method) -> Result<(), Refusal> {
        match method {
            Method::ExportTraces | Method::Deliver => Ok(()),
            other => Err(other.unserved()),
        }
    }

    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        assert!(call.permit.bytes() >= call.message.len() as u64);
        self.entered.add_permits(1);
        self.gate.acquire().await.unwrap().forget();
        self.gate.add_permits(1);
        self.seen
            .lock()
            .unwrap()
            .push((call.method, call.message, call.wire_bytes));
        self.answer.lock().unwrap().clone()
    }

    fn refused(&self, method: Option<Method>, refusal: &Refusal) {
        self.refused
            .lock()
            .unwrap()
            .push((method, refusal.reason()));
    }
}

struct Server {
    address: SocketAddr,
    probe: Arc<Probe>,
    stop: watch::Sender<bool>,
    task: JoinHandle<usize>,
}

/// Small limits, so that tests reach them.
fn limits() -> ServerLimits {
    ServerLimits {
        max_wire_bytes: MIB as u64,
        max_message_bytes: MIB as u64,
        progress_timeout: Duration::from_secs(10),
        ..ServerLimits::default()
    }
}

impl Server {
    fn start(protocol: Protocol) -> Self {
        Self::with(protocol, limits(), 8 * MIB as u64)
    }

    fn with(protocol: Protocol, limits: ServerLimits, budget: u64) -> Self {
        let budget = Admission::new(budget);
        let probe = Arc::new(Probe {
            seen: Mutex::default(),
            refused: Mutex::default(),
            entered: Semaphore::new(0),
            gate: Semaphore::new(1),
            answer: Mutex::new(Ok(Reply::default())),
            budget: budget.clone(),
        });
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = serve(
            listener,
            protocol,
            limits,
            budget,
            Arc::clone(&probe),
            stopped,
        );
        Self {
            address,
            probe,
            stop,
            task: tokio::spawn(serving),
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.address.to_string(), &ClientLimits::default()).unwrap()
    }

    fn seen(&self) -> Vec<(Method, Bytes, u64)> {
        self.probe.seen.lock().unwrap().clone()
    }

    fn refused(&self) -> Vec<(Option<Method>, &'static str)> {
        self.probe.refused.lock().unwrap().clone()
    }

    fn answer(&self, answer: Result<Reply, Refusal>) {
        *self.probe.answer.lock().unwrap() = answer;
    }
}

async fn call(client: &Client, frame: Bytes, encoding: Encoding) -> Result<Bytes, CallError> {
    client
        .call(
            Method::ExportTraces,
            frame,
            encoding,
            &HeaderMap::new(),
            PATIENCE,
        )
        .await
}

/// Bytes that look like nothing in particular and compress by some two to one.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        b'a' + (state >> 60) as u8
    };
    (0..length).map(next).collect()
}

fn gzipped(message: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

fn zstded(message: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(message, 3).unwrap()
}

/// A frame with the given flag and length, whatever follows.
fn raw_frame(flag: u8, length: u32, rest: &[u8]) -> Bytes {
    let mut frame = vec![flag];
    frame.extend(length.to_be_bytes());
    frame.extend(rest);
    Bytes::from(frame)
}

/// The status of a call that had to fail with one.
fn status(result: Result<Bytes, CallError>) -> (Code, String, Option<Duration>) {
    match result {
        Err(CallError::Status {
            code,
            message,
            retry_after,
        }) => (code, message, retry_after),
        other => panic!("no status but {other:?}"),
    }
}

// === gRPC: what is taken ===

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
            assert_eq!(
                (method, wire_bytes),
                (Method::ExportTraces, wire),
                "{length} {encoding:?}"
            );
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
    server.answer(Ok(Reply {
        message: Bytes::from_static(b"partly"),
    }));
    let client = server.client();
    let frame = framed(3, |out| out.extend_from_slice(b"abc"));
    let none = HeaderMap::new();
    let deliver = client
        .call(Method::Deliver, frame, Encoding::Identity, &none, PATIENCE)
        .await;
    assert_eq!(deliver.unwrap(), "partly");
    assert_eq!(
        server.seen(),
        [(Method::Deliver, Bytes::from_static(b"abc"), 3)]
    );
}

#[tokio::test]
async fn many_calls_share_a_few_connections() {
    let server = Server::start(Protocol::Grpc);
    let limits = ClientLimits {
        connections: 3,
        ..ClientLimits::default()
    };
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
    let mut lengths: Vec<_> = server
        .seen()
        .iter()
        .map(|(_, message, _)| message.len())
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (0..300).collect::<Vec<_>>());
}

/// Begins a call whose body we send as we like.
async fn begin(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

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
    data.trailers()
        .await
        .unwrap()
        .unwrap_or_else(|| response.headers().clone())
}

#[tokio::test]
async fn torn_frames_are_put_together() {
    let server = Server::start(Protocol::Grpc);
    let frame = framed(300, |out| out.extend_from_slice(&noise(300)));
    for size in [1, 2, 3, 4, 5, 6, 100, 304, 305] {
        let pieces = frame.chunks(size).map(Bytes::copy_from_slice).collect();
        let trailers = call_in_pieces(server.address, pieces).await;
        assert_eq!(trailers["grpc-status"], "0", "pieces of {size}");
        assert!(
            server.seen().pop().unwrap().1 == noise(300),
            "pieces of {size}"
        );
    }
}

// === gRPC: what is refused ===

#[tokio::test]
async fn bad_frames_are_refused_for_good() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    let cases: [(&str, Bytes, Code, &str); 8] = [
        (
            "no message",
            Bytes::new(),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "half a prefix",
            Bytes::from_static(&[0, 0, 0]),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "truncated",
            raw_frame(0, 10, b"abc"),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "nothing after",
            raw_frame(0, 10, b""),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "longer",
            raw_frame(0, 2, b"abc"),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "odd flag",
            raw_frame(2, 3, b"abc"),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "no encoding",
            raw_frame(1, 3, b"abc"),
            Code::InvalidArgument,
            "malformed",
        ),
        (
            "64 MiB",
            raw_frame(0, 64 << 20, b"abc"),
            Code::InvalidArgument,
            "too_large",
        ),
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
    call(&client, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap();
}

#[tokio::test]
async fn methods_that_are_not_served_are_refused_before_the_body_comes() {
    let server = Server::start(Protocol::Grpc);
    let cases = [
        (
            Method::ExportMetrics.path(),
            Some(Method::ExportMetrics),
            "OTEL_METRICS_EXPORTER=none",
        ),
        (
            Method::ExportLogs.path(),
            Some(Method::ExportLogs),
            "OTEL_LOGS_EXPORTER=none",
        ),
        (
            Method::Hello.path(),
            Some(Method::Hello),
            "send OTLP instead",
        ),
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
async fn an_unknown_compression_names_the_known_ones() {
    let server = Server::start(Protocol::Grpc);
    let path = Method::ExportTraces.path();
    let headers = [GRPC, ("grpc-encoding", "snappy")];
    let (response, _body) = begin(server.address, path, &headers).await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(
        response.headers()["grpc-accept-encoding"],
        "identity,gzip,zstd"
    );
}

#[tokio::test]
async fn refusals_keep_their_code_text_and_pause() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    let pause = Duration::from_millis(2500);
    let text = "voll: größer machen, 100 %".to_owned();
    let cases = [
        (
            Refusal::Malformed(text.clone()),
            Code::InvalidArgument,
            None,
            false,
        ),
        (
            Refusal::TooLarge(text.clone()),
            Code::InvalidArgument,
            None,
            false,
        ),
        (Refusal::Internal(text.clone()), Code::Internal, None, false),
        (
            Refusal::Unimplemented(text.clone()),
            Code::Unimplemented,
            None,
            false,
        ),
        (
            Refusal::Overloaded {
                message: text.clone(),
                retry_after: pause,
            },
            Code::Unavailable,
            Some(pause),
            true,
        ),
        (
            Refusal::Unavailable {
                message: text.clone(),
                retry_after: pause,
            },
            Code::Unavailable,
            Some(pause),
            true,
        ),
    ];
    for (refusal, code, retry_after, retryable) in cases {
        server.answer(Err(refusal.clone()));
        let error = call(&client, framed(0, |_| {}), Encoding::Identity)
            .await
            .unwrap_err();
        assert_eq!(error.is_retryable(), retryable, "{refusal:?}");
        assert_eq!(error.retry_after(), retry_after, "{refusal:?}");
        assert_eq!(
            status(Err(error)),
            (code, text.clone(), retry_after),
            "{refusal:?}"
        );
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
    assert_eq!(
        (code, pause),
        (Code::Unavailable, Some(Duration::from_secs(1))),
        "{message}"
    );
    drop(held);
    call(&client, full, Encoding::Identity).await.unwrap();
    assert_eq!(server.probe.budget.used(), 0);
}

// === compression ===

#[tokio::test]
async fn bombs_stop_at_the_cap() {
    let server = Server::start(Protocol::Grpc);
    let client = server.client();
    let zeros = vec![0; 16 * MIB];
    let lying_size = {
        let mut bomb = gzipped(&zeros);
        let at = bomb.len() - 4;
        bomb[at..].copy_from_slice(&100_u32.to_le_bytes());
        bomb
    };
    let one_over = vec![0; MIB + 1];
    let cases = [
        ("gzip", Encoding::Gzip, gzipped(&zeros)),
        ("gzip that lies", Encoding::Gzip, lying_size),
        ("zstd", Encoding::Zstd, zstded(&zeros)),
        ("one byte over in gzip", Encoding::Gzip, gzipped(&one_over)),
        ("one byte over in zstd", Encoding::Zstd, zstded(&one_over)),
        ("many members", Encoding::Gzip, gzipped(&[]).repeat(1000)),
    ];
    for (name, encoding, bomb) in cases {
        assert!(bomb.len() < 32 << 10, "{name}: {}", bomb.len());
        let frame = raw_frame(1, bomb.len() as u32, &bomb);
        let error = call(&client, frame, encoding).await.unwrap_err();
        assert!(!error.is_retryable(), "{name}: {error}");
        assert_eq!(status(Err(error)).0, Code::InvalidArgument, "{name}");
        // The same bomb against a budget that says how much was ever asked for.
        let budget = Admission::new((MIB + 1) as u64);
        let result = inflate(encoding, &bomb, MIB, &mut budget.empty());
        assert!(result.is_err(), "{name}");
        assert!(
            !result.unwrap_err().to_string().contains("budget"),
            "{name}"
        );
    }
    assert_eq!((server.seen().len(), server.probe.budget.used()), (0, 0));
}

#[tokio::test]
async fn inflating_is_charged_as_it_grows() {
    let server = Server::with(Protocol::Grpc, limits(), 300_000);
    let client = server.client();
    let frame = framed_as(Encoding::Gzip, &vec![0; MIB]).unwrap();
    let error = call(&client, frame, Encoding::Gzip).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(server.probe.budget.used(), 0);
}

#[test]
fn broken_compression_is_malformed() {
    let message = noise(10_000);
    let (gzip, zstd) = (gzipped(&message), zstded(&message));
    let mut wrong_sum = gzip.clone();
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    let mut flipped = zstd.clone();
    flipped[0] ^= 1;
    let wide_window = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&message).unwrap();
        encoder.finish().unwrap()
    };
    let with = |data: &[u8], more: &[u8]| [data, more].concat();
    let cases = [
        ("empty gzip", Encoding::Gzip, Vec::new()),
        ("empty zstd", Encoding::Zstd, Vec::new()),
        (
            "half a gzip",
            Encoding::Gzip,
            gzip[..gzip.len() / 2].to_vec(),
        ),
        (
            "gzip without its last byte",
            Encoding::Gzip,
            gzip[..gzip.len() - 1].to_vec(),
        ),
        (
            "half a zstd",
            Encoding::Zstd,
            zstd[..zstd.len() / 2].to_vec(),
        ),
        (
            "zstd without its last byte",
            Encoding::Zstd,
            zstd[..zstd.len() - 1].to_vec(),
        ),
        (
            "garbage after gzip",
            Encoding::Gzip,
            with(&gzip, b"garbage"),
        ),
        ("a byte after gzip", Encoding::Gzip, with(&gzip, &[0x1f])),
        (
            "garbage after zstd",
            Encoding::Zstd,
            with(&zstd, b"garbage"),
        ),
        ("wrong checksum", Encoding::Gzip, wrong_sum),
        ("wrong magic", Encoding::Zstd, flipped),
        ("window of 128 MiB", Encoding::Zstd, wide_window),
        (
            "zlib instead of gzip",
            Encoding::Gzip,
            vec![0x78, 0x9c, 3, 0, 0, 0, 0, 1],
        ),
        (
            "plain text",
            Encoding::Gzip,
            b"hello, hello, hello".to_vec(),
        ),
    ];
    let budget = Admission::new(8 * MIB as u64);
    for (name, encoding, body) in cases {
        let error = inflate(encoding, &body, MIB, &mut budget.empty()).unwrap_err();
        assert_eq!(Refusal::from(error).reason(), "malformed", "{name}");
        assert_eq!(budget.used(), 0, "{name}");
    }
}

#[test]
fn several_members_and_frames_are_one_message() {
    let budget = Admission::new(8 * MIB as u64);
    let (one, two) = (noise(5000), vec![7; 70_000]);
    let both = [one.clone(), two.clone()].concat();
    for (encoding, body) in [
        (Encoding::Gzip, [gzipped(&one), gzipped(&two)].concat()),
        (Encoding::Zstd, [zstded(&one), zstded(&two)].concat()),
    ] {
        let mut permit = budget.empty();
        let message = inflate(encoding, &body, MIB, &mut permit).unwrap();
        assert!(message == both, "{encoding:?}");
        assert_eq!(permit.bytes(), message.capacity() as u64, "{encoding:?}");
    }
}

/// A server that answers like grpc-go: in the compression it was asked in.
async fn answering_peer(encoding: &'static str, body: Bytes) -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(
                request.headers()["grpc-accept-encoding"],
                "identity,gzip,zstd"
            );
            assert_eq!(request.headers()["te"], "trailers");
            let head = http::Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-encoding", encoding)
                .body(())
                .unwrap();
            let mut send = respond.send_response(head, false).unwrap();
            send.send_data(body.clone(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            send.send_trailers(trailers).unwrap();
        }
    });
    address
}

#[tokio::test]
async fn compressed_answers_are_understood() {
    let message = noise(3000);
    let (gzip, zstd) = (gzipped(&message), zstded(&message));
    let cases = [
        (
            "gzip",
            raw_frame(1, gzip.len() as u32, &gzip),
            Some(&message[..]),
        ),
        (
            "zstd",
            raw_frame(1, zstd.len() as u32, &zstd),
            Some(&message[..]),
        ),
        ("gzip", raw_frame(0, 3000, &message), Some(&message[..])),
        ("identity", raw_frame(0, 3000, &message), Some(&message[..])),
        ("identity", raw_frame(1, 3000, &message), None),
        ("snappy", raw_frame(1, 3000, &message), None),
        ("gzip", raw_frame(1, 3000, &message), None),
        ("gzip", raw_frame(1, 3001, &message), None),
    ];
    for (encoding, body, expected) in cases {
        let address = answering_peer(encoding, body).await;
        let client = Client::new(&address.to_string(), &ClientLimits::default()).unwrap();
        let answer = call(&client, framed(0, |_| {}), Encoding::Identity).await;
        match expected {
            Some(expected) => assert!(answer.unwrap() == expected, "{encoding}"),
            None => assert!(matches!(answer, Err(CallError::Transport(_))), "{encoding}"),
        }
    }
}

// === time ===

/// Limits under which whoever dawdles is shown out within the test.
fn impatient() -> ServerLimits {
    ServerLimits {
        header_timeout: Duration::from_millis(200),
        progress_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(600),
        idle_timeout: Duration::from_millis(300),
        ..limits()
    }
}

#[tokio::test]
async fn a_trickle_is_cut_off() {
    let server = Server::with(Protocol::Grpc, impatient(), 8 * MIB as u64);
    let path = Method::ExportTraces.path();
    for (name, piece) in [
        ("silence", None),
        ("empty", Some("")),
        ("byte by byte", Some("a")),
    ] {
        let (response, mut body) = begin(server.address, path, &[GRPC]).await;
        body.send_data(raw_frame(0, 100_000, b"begins"), false)
            .unwrap();
        let trickle = tokio::spawn(async move {
            while let Some(piece) = piece {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if body
                    .send_data(Bytes::from_static(piece.as_bytes()), false)
                    .is_err()
                {
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
    for words in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
        let answer = read_to_close(&mut stream).await;
        assert!(
            answer.is_empty() || answer.contains(" 408 "),
            "{words:?}: {answer}"
        );
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\
                content-type: application/x-protobuf\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_to_close(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
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
    call(&busy, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap();
}

#[tokio::test]
async fn connections_are_limited() {
    let limits = ServerLimits {
        max_connections: 2,
        ..limits()
    };
    let server = Server::with(Protocol::Grpc, limits, MIB as u64);
    let (one, two) = (server.client(), server.client());
    call(&one, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap();
    call(&two, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap();
    let three = server.client();
    let error = call(&three, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap_err();
    assert!(error.is_retryable(), "{error}");
    drop(two);
    until(|| async {
        call(&three, framed(0, |_| {}), Encoding::Identity)
            .await
            .is_ok()
    })
    .await;
}

/// Tries again until it works; the test harness bounds it.
async fn until<F: Future<Output = bool>>(attempt: impl Fn() -> F) {
    while !attempt().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// === the end ===

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
    server
        .probe
        .entered
        .acquire_many(10)
        .await
        .unwrap()
        .forget();
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
    let error = call(&client, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Connect(_)), "{error}");
    assert!(
        error.to_string().contains(&server.address.to_string()),
        "{error}"
    );
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
    let limits = ServerLimits {
        drain_timeout: Duration::from_millis(100),
        ..limits()
    };
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
    call(&client, framed(0, |_| {}), Encoding::Identity)
        .await
        .unwrap();
    let Server {
        address,
        probe,
        stop,
        task,
    } = server;
    stop.send(true).unwrap();
    task.await.unwrap();
    assert!(
        call(&client, framed(0, |_| {}), Encoding::Identity)
            .await
            .is_err()
    );

    let (_stop, stopped) = watch::channel(false);
    let budget = probe.budget.clone();
    let listener = bind(address).unwrap();
    tokio::spawn(serve(
        listener,
        Protocol::Grpc,
        limits(),
        budget,
        probe,
        stopped,
    ));
    until(|| async {
        call(&client, framed(0, |_| {}), Encoding::Identity)
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_call_gives_up_in_time() {
    let server = Server::start(Protocol::Grpc);
    let _gate = server.probe.gate.acquire().await.unwrap();
    let client = server.client();
    let (none, soon) = (HeaderMap::new(), Duration::from_millis(50));
    let frame = framed(0, |_| {});
    let result = client
        .call(Method::ExportTraces, frame, Encoding::Identity, &none, soon)
        .await;
    assert!(matches!(result, Err(CallError::Timeout(_))), "{result:?}");
}

#[tokio::test]
async fn a_port_in_use_says_what_to_do() {
    let held = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap();
    let error = bind(address).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)));
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("another port"),
        "{text}"
    );
    let elsewhere = bind("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(elsewhere.to_string().contains("192.0.2.1"), "{elsewhere}");
}

#[tokio::test]
async fn endpoints_are_checked() {
    for (endpoint, works) in [
        ("gw-0:4317", true),
        ("[::1]:4317", true),
        ("gw-0", false),
        ("http://gw-0:4317", false),
    ] {
        let client = Client::new(endpoint, &ClientLimits::default());
        assert_eq!(client.is_ok(), works, "{endpoint}");
    }
}

// === OTLP/HTTP ===

/// One HTTP/1.1 exchange on a connection of its own: status line, head, body.
async fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(answer[..end].to_vec())
        .unwrap()
        .to_ascii_lowercase();
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
            assert!(
                head.contains("content-type: application/x-protobuf"),
                "{head}"
            );
            assert!(
                server.seen().pop().unwrap().1 == message,
                "{length} {header}"
            );
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
    stream
        .write_all(format!("{head}\r\nhost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
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
        (
            "GET",
            "GET /v1/traces HTTP/1.1".to_owned(),
            405,
            "allow: post",
        ),
        ("root", post("/", proto, 3, ""), 404, ""),
        ("metrics", post("/v1/metrics", proto, 3, ""), 404, ""),
        ("logs", post("/v1/logs", proto, 3, ""), 404, ""),
        (
            "peer path",
            post(Method::Deliver.path(), proto, 3, ""),
            404,
            "",
        ),
        (
            "json",
            post("/v1/traces", "application/json", 3, ""),
            415,
            "application/json",
        ),
        (
            "text",
            post("/v1/traces", "text/plain", 3, ""),
            415,
            "text/plain",
        ),
        (
            "snappy",
            post("/v1/traces", proto, 3, "\r\ncontent-encoding: snappy"),
            415,
            "accept-encoding: identity,gzip,zstd",
        ),
        ("large", post("/v1/traces", proto, big, ""), 413, ""),
        (
            "gzip",
            post("/v1/traces", proto, 3, "\r\ncontent-encoding: gzip"),
            400,
            "",
        ),
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
        let telling = ["send", "serves", "served", "take", "use", "not valid"];
        assert!(
            telling.iter().any(|word| text.contains(word)),
            "{name}: {text}"
        );
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
    server.answer(Err(Refusal::Unavailable {
        message: "draining".into(),
        retry_after: pause,
    }));
    let head = post("/v1/traces", "application/x-protobuf", 1, "");
    let (status, head, body) = exchange(server.address, &head, b"a").await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: 3"), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("draining"));
}

#[tokio::test]
async fn a_refused_http_client_can_send_its_whole_body_first() {
    let server = Server::with(Protocol::Http, limits(), 100);
    let head = post("/v1/traces", "application/x-protobuf", 900_000, "");
    // Everything is written before the answer is read; without reading on, the server would reset the connection.
    let (status, _, _) = exchange(server.address, &head, &vec![7; 900_000]).await;
    assert_eq!(status, 429);
}

#[tokio::test]
async fn http_speaks_http2_too_and_each_port_names_the_other() {
    let cases = [
        (
            Protocol::Http,
            "/v1/traces",
            "application/x-protobuf",
            200,
            None,
            "",
        ),
        (
            Protocol::Http,
            Method::ExportTraces.path(),
            "application/grpc",
            200,
            Some("12"),
            "4317",
        ),
        (
            Protocol::Grpc,
            "/v1/traces",
            "application/x-protobuf",
            415,
            None,
            "",
        ),
    ];
    for (protocol, path, content_type, expected, grpc, text) in cases {
        let server = Server::start(protocol);
        let headers = [("content-type", content_type)];
        let (response, mut body) = begin(server.address, path, &headers).await;
        body.send_data(Bytes::from_static(b"abc"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
        let status = response
            .headers()
            .get("grpc-status")
            .map(|code| code.to_str().unwrap());
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
