//! What the tests share: a server with a handler that takes notes, calls, compressed data.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use ringtail::transport::{
    Admission, Call, CallError, Client, ClientLimits, Code, Encoding, Handler, Method, Protocol,
    Refusal, Reply, ServerLimits, bind, serve,
};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const MIB: usize = 1 << 20;

/// A handler that writes down what it sees, answers what it is told and lets calls through a gate.
pub(crate) struct Probe {
    pub(crate) seen: Mutex<Vec<(Method, Bytes, u64)>>,
    pub(crate) refused: Mutex<Vec<(Option<Method>, &'static str)>>,
    pub(crate) entered: Semaphore,
    pub(crate) gate: Semaphore,
    pub(crate) answer: Mutex<Result<Reply, Refusal>>,
    pub(crate) budget: Admission,
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
        self.seen.lock().unwrap().push((call.method, call.message, call.wire_bytes));
        self.answer.lock().unwrap().clone()
    }

    fn refused(&self, method: Option<Method>, refusal: &Refusal) {
        self.refused.lock().unwrap().push((method, refusal.reason()));
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) probe: Arc<Probe>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<usize>,
}

/// Small limits, so that tests reach them.
pub(crate) fn limits() -> ServerLimits {
    ServerLimits {
        max_wire_bytes: MIB as u64,
        max_message_bytes: MIB as u64,
        progress_timeout: Duration::from_secs(10),
        ..ServerLimits::default()
    }
}

impl Server {
    pub(crate) fn start(protocol: Protocol) -> Self {
        Self::with(protocol, limits(), 8 * MIB as u64)
    }

    pub(crate) fn with(protocol: Protocol, limits: ServerLimits, budget: u64) -> Self {
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
        let serving = serve(listener, protocol, limits, budget, Arc::clone(&probe), stopped);
        Self { address, probe, stop, task: tokio::spawn(serving) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.address.to_string(), &ClientLimits::default()).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<(Method, Bytes, u64)> {
        self.probe.seen.lock().unwrap().clone()
    }

    pub(crate) fn refused(&self) -> Vec<(Option<Method>, &'static str)> {
        self.probe.refused.lock().unwrap().clone()
    }

    pub(crate) fn answer(&self, answer: Result<Reply, Refusal>) {
        *self.probe.answer.lock().unwrap() = answer;
    }
}

pub(crate) async fn call(
    client: &Client,
    frame: Bytes,
    encoding: Encoding,
) -> Result<Bytes, CallError> {
    client.call(Method::ExportTraces, frame, encoding, &HeaderMap::new(), PATIENCE).await
}

/// Bytes that look like nothing in particular and compress by some two to one.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        b'a' + (state >> 60) as u8
    };
    (0..length).map(next).collect()
}

pub(crate) fn gzipped(message: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstded(message: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(message, 3).unwrap()
}

/// A frame with the given flag and length, whatever follows.
pub(crate) fn raw_frame(flag: u8, length: u32, rest: &[u8]) -> Bytes {
    let mut frame = vec![flag];
    frame.extend(length.to_be_bytes());
    frame.extend(rest);
    Bytes::from(frame)
}

/// The status of a call that had to fail with one.
pub(crate) fn status(result: Result<Bytes, CallError>) -> (Code, String, Option<Duration>) {
    match result {
        Err(CallError::Status { code, message, retry_after }) => (code, message, retry_after),
        other => panic!("no status but {other:?}"),
    }
}

/// Limits under which whoever dawdles is shown out within the test.
pub(crate) fn impatient() -> ServerLimits {
    ServerLimits {
        header_timeout: Duration::from_millis(200),
        progress_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(600),
        idle_timeout: Duration::from_millis(300),
        ..limits()
    }
}

/// Begins a call whose body we send as we like.
pub(crate) async fn begin(
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
    client.send_request(request.body(()).unwrap(), false).unwrap()
}

pub(crate) const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Tries again until it works; the test harness bounds it.
pub(crate) async fn until<F: Future<Output = bool>>(attempt: impl Fn() -> F) {
    while !attempt().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
