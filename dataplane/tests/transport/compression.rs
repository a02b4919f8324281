//! Compressed requests and answers, good, broken and malicious.

use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ringtail::transport::{
    Admission, CallError, Client, ClientLimits, Code, Encoding, Protocol, Refusal, bind, framed,
    framed_as, inflate,
};

use crate::support::{MIB, Server, call, gzipped, limits, noise, raw_frame, status, zstded};

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
        assert!(!result.unwrap_err().to_string().contains("budget"), "{name}");
    }
    assert_eq!((server.seen().len(), server.probe.budget.used()), (0, 0));
}

#[tokio::test]
async fn inflating_is_charged_as_it_grows() {
    let server = Server::with(Protocol::Grpc, limits(), 300_000);
    let client = server.client();
    let frame = framed_as(Encoding::Gzip, &vec![0; MIB]).unwrap();
    let error = call(&client, frame, Encoding::Gzip).await.unwrap_err();
    assert_eq!(status(Err(error)).0, Code::Unavailable);
    assert_eq!(server.probe.budget.used(), 0);
}

/// A delivery is a small frame with a large one behind it: the buffer is made once for both.
#[test]
fn the_sizes_of_several_frames_are_added_up() {
    let (head, spans) = (noise(60), noise(700_000));
    for compressed in [zstded, gzipped] {
        let body = [compressed(&head), compressed(&spans)].concat();
        let budget = Admission::new(64 * MIB as u64);
        let mut permit = budget.empty();
        let encoding =
            if body.starts_with(&[0x1f, 0x8b]) { Encoding::Gzip } else { Encoding::Zstd };
        let inflated = inflate(encoding, &body, 16 * MIB, &mut permit).unwrap();
        assert_eq!(inflated.len(), 700_060);
        assert!(inflated.capacity() < 710_000, "{} bytes", inflated.capacity());
    }
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
        ("half a gzip", Encoding::Gzip, gzip[..gzip.len() / 2].to_vec()),
        ("gzip without its last byte", Encoding::Gzip, gzip[..gzip.len() - 1].to_vec()),
        ("half a zstd", Encoding::Zstd, zstd[..zstd.len() / 2].to_vec()),
        ("zstd without its last byte", Encoding::Zstd, zstd[..zstd.len() - 1].to_vec()),
        ("garbage after gzip", Encoding::Gzip, with(&gzip, b"garbage")),
        ("a byte after gzip", Encoding::Gzip, with(&gzip, &[0x1f])),
        ("garbage after zstd", Encoding::Zstd, with(&zstd, b"garbage")),
        ("wrong checksum", Encoding::Gzip, wrong_sum),
        ("wrong magic", Encoding::Zstd, flipped),
        ("window of 128 MiB", Encoding::Zstd, wide_window),
        ("zlib instead of gzip", Encoding::Gzip, vec![0x78, 0x9c, 3, 0, 0, 0, 0, 1]),
        ("plain text", Encoding::Gzip, b"hello, hello, hello".to_vec()),
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
            assert_eq!(request.headers()["grpc-accept-encoding"], "identity,gzip,zstd");
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
        ("gzip", raw_frame(1, gzip.len() as u32, &gzip), Some(&message[..])),
        ("zstd", raw_frame(1, zstd.len() as u32, &zstd), Some(&message[..])),
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
