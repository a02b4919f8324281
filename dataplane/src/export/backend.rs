//! One attempt to give a request to a backend: over gRPC or HTTP, to the log, or to a file.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ringtail_crds::Compression;
use ringtail_crds::exporter::OtlpProtocol;
use ringtail_crds::logs::Signal;
use ringtail_crds::resolved::{Destination, Otlp};

use super::credentials::Credentials;
use super::file::FileWriter;
use super::print::Printer;
use super::{Config, ConfigError, json};
use crate::ledger::Dropped;
use crate::otlp;
use crate::transport::{
    Alpn, BodyFormat, CallError, Client, ClientLimits, Encoding, HttpClient, Method, deflated,
    framed, framed_as,
};

/// Requests under way to one backend.
const IN_FLIGHT_MAX: usize = 4;

/// Where an exporter's requests go.
#[derive(Clone, Debug)]
pub(super) enum Backend {
    Grpc(Arc<Client>, Arc<Remote>),
    Http(Arc<HttpClient>, Arc<Remote>),
    Print(Arc<Mutex<Printer>>),
    File(Arc<Mutex<FileWriter>>),
}

/// What is the same for both protocols.
#[derive(Debug)]
pub(super) struct Remote {
    credentials: Arc<Credentials>,
    encoding: Encoding,
    timeout: Duration,
    format: BodyFormat,
}

/// A request as it waits.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// As it will be sent: compressed, and for gRPC with the prefix of a frame.
    Ready(Bytes, Encoding),
    /// The OTLP message. What is made of it is larger, so it is made anew for each attempt.
    Message(Bytes),
}

/// What became of a request that was taken.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Spans that were not taken with it, and why.
    pub(super) left: Option<(u64, Dropped)>,
    /// The backend's words about them.
    pub(super) words: String,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{0}")]
    Write(String),
}

// === impl Backend ===

impl Backend {
    /// Requests that go to `twin` as well take turns with it where the place has room for one alone.
    pub(super) fn new(config: &Config, twin: Option<&Self>) -> Result<Self, ConfigError> {
        let exporter = &config.exporter;
        if let Some(shared @ (Self::Print(_) | Self::File(_))) = twin {
            return Ok(shared.clone());
        }
        match &exporter.destination {
            Destination::Otlp(otlp) => Self::remote(&exporter.name, otlp, config),
            Destination::Debug(debug) => {
                Ok(Self::Print(Arc::new(Mutex::new(Printer::new(&exporter.name, *debug)))))
            }
            Destination::File(file) => {
                let writer = FileWriter::open(file, &config.identity);
                let writer = writer.map_err(|why| ConfigError::of(&exporter.name, &why))?;
                Ok(Self::File(Arc::new(Mutex::new(writer))))
            }
        }
    }

    fn remote(name: &str, otlp: &Otlp, config: &Config) -> Result<Self, ConfigError> {
        let is_grpc = otlp.protocol == OtlpProtocol::Grpc;
        let alpn = if is_grpc { Alpn::Http2 } else { Alpn::Http1 };
        let credentials =
            Credentials::open(name, otlp, config.secrets_dir.clone(), alpn).map_err(ConfigError)?;
        let trust = credentials.trust();
        let is_json = otlp.protocol == OtlpProtocol::HttpJson;
        let remote = Arc::new(Remote {
            credentials: Arc::new(credentials),
            encoding: encoding(otlp.compression),
            timeout: otlp.timeout,
            format: if is_json { BodyFormat::Json } else { BodyFormat::Protobuf },
        });
        let address = &otlp.endpoint.address;
        let wrong =
            |error: crate::transport::EndpointError| ConfigError::of(name, &error.to_string());
        if is_grpc {
            let limits = ClientLimits {
                backoff_first: otlp.retry.initial_interval,
                backoff_cap: otlp.retry.max_interval,
                ..ClientLimits::default()
            };
            let client = Client::with_trust(address, &limits, trust).map_err(wrong)?;
            Ok(Self::Grpc(Arc::new(client), remote))
        } else {
            let path = &otlp.endpoint.path;
            let client = HttpClient::new(address, path, config.signal, trust).map_err(wrong)?;
            Ok(Self::Http(Arc::new(client), remote))
        }
    }

    /// What it shows and trusts, if there is somebody to show it to.
    pub(super) fn credentials(&self) -> Option<&Arc<Credentials>> {
        match self {
            Self::Grpc(_, remote) | Self::Http(_, remote) => Some(&remote.credentials),
            Self::Print(_) | Self::File(_) => None,
        }
    }

    /// How many requests may be under way. What is printed or written keeps its order.
    pub(super) fn in_flight_max(&self) -> usize {
        match self {
            Self::Grpc(..) | Self::Http(..) => IN_FLIGHT_MAX,
            Self::Print(_) | Self::File(_) => 1,
        }
    }

    /// The message as it waits for its turn: compressed, where that makes it smaller.
    pub(super) fn body(&self, message: Bytes) -> Body {
        match self {
            Self::Grpc(_, remote) => framed_as(remote.encoding, &message)
                .map(|frame| Body::Ready(frame, remote.encoding))
                // Compression is an economy: without it the spans still arrive.
                .unwrap_or_else(|_| Body::Ready(plain(&message), Encoding::Identity)),
            Self::Http(_, remote) if remote.format == BodyFormat::Protobuf => {
                compressed(remote.encoding, message)
            }
            Self::Http(..) | Self::Print(_) | Self::File(_) => Body::Message(message),
        }
    }

    /// Gives the request to the backend.
    pub(super) async fn send(
        &self,
        signal: Signal,
        body: Body,
        items: u64,
    ) -> Result<Answer, Failure> {
        match (self, body) {
            (Self::Grpc(client, remote), Body::Ready(frame, encoding)) => {
                let headers = remote.credentials.headers();
                let method = match signal {
                    Signal::Traces => Method::ExportTraces,
                    Signal::Logs => Method::ExportLogs,
                };
                let call = client.call(method, frame, encoding, &headers.map, remote.timeout);
                Ok(answer(otlp::rejected(call.await?)))
            }
            (Self::Http(client, remote), Body::Ready(body, encoding)) => {
                Ok(answer(otlp::rejected(remote.post(client, body, encoding).await?)))
            }
            (Self::Http(client, remote), Body::Message(message)) => {
                let encoding = remote.encoding;
                let encode =
                    move || match compressed(encoding, json::request(signal, &message).into()) {
                        Body::Ready(body, encoding) => (body, encoding),
                        Body::Message(body) => (body, Encoding::Identity),
                    };
                let (body, encoding) = aside(encode).await?;
                let words = remote.post(client, body, encoding).await?;
                Ok(answer(otlp::rejected_json(signal, &words)))
            }
            (Self::Print(printer), Body::Message(message)) => {
                let printer = Arc::clone(printer);
                let print = move || {
                    let mut printer = printer.lock().unwrap_or_else(PoisonError::into_inner);
                    printer.print(signal, &message, items)
                };
                let left = (!aside(print).await?).then_some((items, Dropped::NotPrinted));
                Ok(Answer { left, words: String::new() })
            }
            (Self::File(writer), Body::Message(message)) => {
                let writer = Arc::clone(writer);
                let write = move || {
                    let line = json::request(signal, &message);
                    writer.lock().unwrap_or_else(PoisonError::into_inner).write(line)
                };
                aside(write).await?.map(|()| Answer::default()).map_err(Failure::Write)
            }
            // Bodies are made by the backend that sends them.
            (Self::Grpc(..), Body::Message(_)) | (Self::Print(_) | Self::File(_), _) => {
                Err(Failure::Write("a request of another backend; please report this".to_owned()))
            }
        }
    }
}

// === impl Remote ===

impl Remote {
    async fn post(
        &self,
        client: &HttpClient,
        body: Bytes,
        encoding: Encoding,
    ) -> Result<Bytes, CallError> {
        let headers = self.credentials.headers();
        client.post(body, self.format, encoding, &headers.map, self.timeout).await
    }
}

/// Work that takes long or may block, where it keeps nobody waiting.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::Write("the process is ending".to_owned()))
}

fn answer(rejected: Option<(u64, String)>) -> Answer {
    match rejected {
        Some((spans, words)) => Answer { left: Some((spans, Dropped::PartialSuccess)), words },
        None => Answer::default(),
    }
}

fn plain(message: &[u8]) -> Bytes {
    framed(message.len(), |out| out.extend_from_slice(message))
}

/// Without compression nothing is copied.
fn compressed(encoding: Encoding, message: Bytes) -> Body {
    if encoding == Encoding::Identity {
        return Body::Ready(message, encoding);
    }
    match deflated(encoding, 0, &message) {
        Ok(out) => Body::Ready(out.into(), encoding),
        Err(_) => Body::Ready(message, Encoding::Identity),
    }
}

fn encoding(compression: Compression) -> Encoding {
    match compression {
        Compression::None => Encoding::Identity,
        Compression::Gzip => Encoding::Gzip,
        Compression::Zstd => Encoding::Zstd,
    }
}
