//! HTTP/2 frame by frame, for clients that break its rules or its spirit.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Frame types.
pub const DATA: u8 = 0;
/// Begins a request.
pub const HEADERS: u8 = 1;
/// Takes a request back.
pub const RST_STREAM: u8 = 3;
/// Settings of a connection.
pub const SETTINGS: u8 = 4;
/// Asks for a sign of life.
pub const PING: u8 = 6;
/// More headers.
pub const CONTINUATION: u8 = 9;

/// No more frames on the stream.
pub const END_STREAM: u8 = 1;
/// No more headers.
pub const END_HEADERS: u8 = 4;

/// A write or a read that takes so long is stuck: the other side has stopped to read, as it may.
const STUCK: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub struct Raw(TcpStream);

impl Raw {
    /// Connects and sends the preface and these settings (identifier, value).
    pub fn connect(address: &str, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).expect("the receiver listens");
        stream.set_write_timeout(Some(STUCK)).expect("a timeout");
        stream.set_read_timeout(Some(STUCK)).expect("a timeout");
        let mut raw = Self(stream);
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the preface is sent");
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| {
                [name.to_be_bytes().as_slice(), value.to_be_bytes().as_slice()].concat()
            })
            .collect();
        assert!(raw.send(&frame(SETTINGS, 0, 0, &settings)), "the settings are sent");
        raw
    }

    /// Sends bytes; false when the other side does not take them, or has closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Whether the other side has closed the connection, after reading all that it has sent.
    pub fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 64 << 10];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                }
            }
        }
    }
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// The headers of an OTLP/gRPC export, as literals that are not remembered.
pub fn export_headers() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        (":authority", "ringtail"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// One header, as a literal that is not remembered.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        [&[length.expect("a short text")], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}
