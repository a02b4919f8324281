//! Requests that are meant to cost more than they are: each gets its answer from a real agent and a real
//! gateway, an honest client is served after each, memory stays within the budget, and the ledger is exact.

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use ringtail_engine::wire::put_varint;
use ringtail_tests::compression::{gzip, zstd};
use ringtail_tests::hostile::{PROTOBUF, Scene};
use ringtail_tests::http::post;
use ringtail_tests::process::Process;
use ringtail_tests::traces::{Trace, request, text};

const JSON: &str = "content-type: application/json";
const GZIP: &str = "content-encoding: gzip";
const ZSTD: &str = "content-encoding: zstd";
const MIB: usize = 1 << 20;
/// Sends a request to both processes, checks the answers, and that both still serve others.
fn check(scene: &mut Scene, name: &str, headers: &[&str], body: &[u8], status: u16, words: &str) {
    for process in scene.processes() {
        let answer = post(&process.http(), "/v1/traces", headers, body);
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(answer.body.contains(words), "{name}: no {words:?} in {answer:?}");
        // What is told is never a copy of what was sent.
        assert!(answer.body.len() < 1024, "{name}: {} bytes", answer.body.len());
    }
    scene.serves(name);
}

/// Stops everything; checks how many spans of each process were refused for a reason.
fn end(scene: Scene, refused: &[(&str, u64)]) {
    for end in scene.end() {
        for (reason, spans) in refused {
            let told = end.ledger.refused.get(*reason).copied().unwrap_or(0);
            assert_eq!(told, *spans, "{reason}: {:#?}", end.ledger);
        }
    }
}

fn field(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(number << 3 | 2));
    put_varint(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    out
}

/// A request with these spans, already encoded.
fn with_spans(spans: &[&[u8]]) -> Vec<u8> {
    let spans: Vec<u8> = spans.iter().flat_map(|span| field(2, span)).collect();
    field(1, &field(2, &spans))
}

/// A span with a valid ID and more fields, which no policy keeps.
fn span(more: &[u8]) -> Vec<u8> {
    [field(1, &[9; 16]), field(2, &[8; 8]), more.to_vec()].concat()
}

fn good() -> Vec<u8> {
    Trace { number: 5, spans: 1, error: true, duration_ms: 10 }.part(0, 1).encode_to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_cost_what_is_allowed_and_no_more() {
    let mut scene = Scene::start().await;
    let (zipped, packed) = (gzip(&good()), zstd(&good()));
    let (zip, pack) = ([PROTOBUF, GZIP], [PROTOBUF, ZSTD]);
    let zeros = vec![0_u8; 64 * MIB];
    check(&mut scene, "gzip bomb", &zip, &gzip(&zeros), 413, "inflates to more than");
    check(&mut scene, "zstd bomb", &pack, &zstd(&zeros), 413, "inflates to more than");
    check(&mut scene, "gzip bomb in JSON", &[JSON, GZIP], &gzip(&zeros), 413, "inflates to more");
    drop(zeros);
    let spaces = format!("{}{{}}", " ".repeat(9 * MIB));
    check(&mut scene, "large JSON", &[JSON], spaces.as_bytes(), 413, "send smaller batches");
    // The size that is told is believed to 32 times what was sent, and then found to be wrong.
    for told in [0_u32, 1, 15 << 20, u32::MAX] {
        let mut lying = zipped.clone();
        let end = lying.len() - 4;
        lying[end..].copy_from_slice(&told.to_le_bytes());
        check(&mut scene, "gzip lies about its size", &zip, &lying, 400, "gzip");
    }
    // A frame in one segment tells its content's size behind the fifth byte.
    for told in [1, 0xfe] {
        let mut lying = packed.clone();
        assert_eq!(lying[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        lying[5] = told;
        check(&mut scene, "zstd lies about its size", &pack, &lying, 400, "zstd");
    }
    // A window of 16 MiB, then of 2 TiB, and an empty last block.
    for window in [14 << 3, 31 << 3] {
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0];
        check(&mut scene, "zstd window", &pack, &wide, 400, "window exceeds 8 MiB");
    }
    check(&mut scene, "nested", &zip, &gzip(&zipped), 400, "OTLP");
    let twice = [PROTOBUF, "content-encoding: gzip, gzip"];
    check(&mut scene, "nested and told", &twice, &gzip(&zipped), 415, "identity,gzip,zstd");
    let trailing = [zipped.as_slice(), b"and more"].concat();
    check(&mut scene, "gzip with trailing garbage", &zip, &trailing, 400, "gzip");
    let trailing = [packed.as_slice(), b"and more"].concat();
    check(&mut scene, "zstd with trailing garbage", &pack, &trailing, 400, "zstd");
    for name in ["br", "deflate", "snappy", "x-snappy-framed", "lz4", "", "gzip;q=1"] {
        let header = format!("content-encoding: {name}");
        check(&mut scene, "unknown encoding", &[PROTOBUF, &header], &good(), 415, "use one of");
    }
    let members = gzip(b"").repeat(10_000);
    check(&mut scene, "gzip of many members", &zip, &members, 400, "too many frames");
    let frames = zstd(b"").repeat(10_000);
    check(&mut scene, "zstd of many frames", &pack, &frames, 400, "too many frames");
    for end in [1, zipped.len() / 2, zipped.len() - 1] {
        check(&mut scene, "cut gzip", &zip, &zipped[..end], 400, "gzip");
    }
    check(&mut scene, "empty gzip", &zip, b"", 400, "gzip");
    let counted = |process: &Process, reason: &str| {
        process.metric("ringtail_receiver_refused_requests_total", &format!("\"{reason}\""))
    };
    for process in scene.processes() {
        assert!(counted(process, "too_large") >= 3.0 && counted(process, "encoding") >= 8.0);
        assert!(counted(process, "malformed") >= 12.0);
    }
    end(scene, &[("malformed", 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_times_four_kilobytes_stay_four_kilobytes() {
    let mut scene = Scene::start().await;
    let before = scene.processes().map(Process::resident_bytes);
    // Two bytes each on the wire; decoded, each would be a hundred and more.
    let repeated = |element: &[u8], bytes: usize| element.repeat(bytes / element.len());
    let empty = 4 * MIB - 64;
    let spans = field(1, &field(2, &repeated(&[0x12, 0], empty)));
    let attributes = with_spans(&[&span(&repeated(&[0x4a, 0], empty))]);
    let events = with_spans(&[&span(&repeated(&[0x5a, 0], empty))]);
    let links = with_spans(&[&span(&repeated(&[0x6a, 0], empty))]);
    let resources = repeated(&[0x0a, 0], empty);
    let scopes = field(1, &repeated(&[0x12, 0], empty));
    for (name, body) in [
        ("attributes", &attributes),
        ("events", &events),
        ("links", &links),
        ("resources", &resources),
        ("scopes", &scopes),
    ] {
        check(&mut scene, name, &[PROTOBUF, GZIP], &gzip(body), 200, "");
    }
    let in_json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#,
        "{},".repeat(MIB)
    );
    check(
        &mut scene,
        "spans in JSON",
        &[JSON, GZIP],
        &gzip(in_json.as_bytes()),
        200,
        "rejectedSpans",
    );
    // A hundred at once, of some four kilobytes each.
    let bomb = gzip(&spans);
    assert!(bomb.len() < 8 << 10, "{} bytes", bomb.len());
    let ports = scene.processes().map(Process::http);
    let mut taken = [0_u64; 2];
    for (place, port) in ports.iter().enumerate() {
        let answers: Vec<u16> = std::thread::scope(|scope| {
            let send = || post(port, "/v1/traces", &[PROTOBUF, GZIP], &bomb).status;
            let all: Vec<_> = (0..100).map(|_| scope.spawn(send)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        taken[place] = answers.iter().filter(|status| **status == 200).count() as u64;
        assert!(answers.iter().all(|status| matches!(status, 200 | 429 | 503)), "{answers:?}");
    }
    scene.serves("a hundred at once");
    for (process, before) in scene.processes().into_iter().zip(before) {
        let grown = process.resident_bytes().saturating_sub(before);
        assert!(grown < 96 << 20, "it grew by {grown} bytes");
    }
    let each = (empty / 2) as u64;
    let (agents, gateways) = scene.fleet.stop();
    for (end, taken) in [&agents[0], &gateways[0]].into_iter().zip(taken) {
        let refused = end.ledger.refused["invalid_trace_id"];
        assert_eq!(refused, taken * each + MIB as u64 + 1, "{:#?}", end.ledger);
    }
}

/// An attribute whose value is this many lists in each other, on the wire. Written from its end, so that it
/// takes no more than its length.
fn deep(levels: usize) -> Vec<u8> {
    fn around(out: &mut Vec<u8>, number: u8) {
        let mut head = vec![number << 3 | 2];
        put_varint(&mut head, out.len() as u64);
        out.extend(head.iter().rev());
    }
    let mut reversed = vec![1, 0x18];
    for _ in 0..levels {
        around(&mut reversed, 1);
        around(&mut reversed, 5);
    }
    around(&mut reversed, 2);
    reversed.extend([b'k', 1, 0x0a]);
    around(&mut reversed, 9);
    reversed.reverse();
    reversed
}

#[tokio::test(flavor = "multi_thread")]
async fn nesting_without_end_costs_its_span_alone() {
    let mut scene = Scene::start().await;
    let other = span(&field(5, b"the other"));
    let (mut wrong, mut right) = (0, 0);
    for levels in [1, 2, 5, 12, 13, 14, 15, 23, 46, 64, 100, 1_000, 10_000, 100_000] {
        // Request, resource, scope, span, attribute, value: a list makes it two deeper.
        let fits = 6 + 2 * levels <= 32;
        let (rejected, message) = if fits { ("", "") } else { ("\"1\"", "1 spans were left out") };
        let body = with_spans(&[&span(&deep(levels)), &other]);
        check(&mut scene, &format!("{levels} in protobuf"), &[PROTOBUF], &body, 200, message);
        let body = format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[
            {{"traceId":"{id}","attributes":[{{"key":"k","value":{}{{"intValue":1}}{}}}]}},
            {{"traceId":"{id}"}}]}}]}}]}}"#,
            r#"{"arrayValue":{"values":["#.repeat(levels),
            "]}}".repeat(levels),
            id = "09".repeat(16),
        );
        check(&mut scene, &format!("{levels} in JSON"), &[JSON], body.as_bytes(), 200, rejected);
        if fits { right += 2 } else { wrong += 2 }
    }
    let alone = with_spans(&[&span(&deep(100_000))]);
    check(&mut scene, "alone", &[PROTOBUF], &alone, 400, "32 deep");
    assert!(right > 0);
    end(scene, &[("malformed", wrong)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_span_costs_itself_and_an_odd_one_nothing() {
    let mut scene = Scene::start().await;
    let other = span(&field(5, b"the other"));
    let wrong = |scene: &mut Scene, name: &str, wrong: &[u8], words: &str| {
        check(scene, name, &[PROTOBUF], &with_spans(&[&other, wrong]), 200, words);
    };
    let rejected = "1 spans were left out";
    let long_varint = [&[0x30][..], &[0xff; 10], &[1]].concat();
    wrong(&mut scene, "not UTF-8", &span(&field(5, b"\xff\xfe")), rejected);
    wrong(&mut scene, "key not UTF-8", &span(&field(9, &field(1, b"\xc0"))), rejected);
    wrong(&mut scene, "huge varint", &span(&long_varint), rejected);
    wrong(&mut scene, "cut field", &span(&[0x2a, 0xff, 0x7f]), rejected);
    wrong(&mut scene, "wrong type", &span(&[0x28, 1]), rejected);
    wrong(
        &mut scene,
        "length beyond all",
        &span(&[&[0x2a][..], &[0xff; 9], &[1]].concat()),
        rejected,
    );
    let invalid = "1 spans have an invalid trace ID";
    wrong(&mut scene, "zero ID", &[field(1, &[0; 16]), field(5, b"x")].concat(), invalid);
    wrong(&mut scene, "short ID", &[field(1, &[1; 15]), field(5, b"x")].concat(), invalid);
    wrong(&mut scene, "long ID", &[field(1, &[1; 17]), field(5, b"x")].concat(), invalid);
    wrong(&mut scene, "no ID", &field(5, b"x"), invalid);
    let json = |span: &str| {
        let id = "09".repeat(16);
        format!(
            r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{id}"}},{span}]}}]}}]}}"#
        )
    };
    let mut bytes = json(r#"{"name":"?"}"#).into_bytes();
    let place = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[place] = 0xff;
    check(&mut scene, "not UTF-8 in JSON", &[JSON], &bytes, 200, "\"1\"");
    for span in [r#"{"traceId":""}"#, r#"{"traceId":"00"}"#, "{}"] {
        check(&mut scene, "no ID in JSON", &[JSON], json(span).as_bytes(), 200, "\"1\"");
    }
    // Odd, and nobody's business but the backend's.
    let odd = |number: u64, change: fn(&mut Span)| {
        let trace = Trace { number, spans: 1, error: true, duration_ms: 10 };
        let mut request = trace.part(0, 1);
        change(&mut request.resource_spans[0].scope_spans[0].spans[0]);
        request.encode_to_vec()
    };
    type Case = (&'static str, fn(&mut Span));
    let cases: [Case; 8] = [
        ("end before start", |span| span.end_time_unix_nano = 1),
        ("of 1970", |span| (span.start_time_unix_nano, span.end_time_unix_nano) = (0, 1)),
        ("of 2554", |span| span.end_time_unix_nano = u64::MAX),
        ("no span ID", |span| span.span_id.clear()),
        ("its own parent", |span| span.parent_span_id = span.span_id.clone()),
        ("a megabyte", |span| span.attributes.push(text("long", &"x".repeat(MIB)))),
        ("many attributes", |span| {
            span.attributes.extend((0..20_000).map(|n| text(&n.to_string(), "v")))
        }),
        ("the same key", |span| span.attributes.extend((0..1000).map(|_| text("same", "v")))),
    ];
    for (number, (name, change)) in (1_000_000..).zip(cases) {
        check(&mut scene, name, &[PROTOBUF], &odd(number, change), 200, "");
    }
    // Headers go with every span, so they may not be as large as a request.
    let mut fat = request("fat", vec![Span { trace_id: vec![9; 16], ..Span::default() }]);
    fat.resource_spans[0].resource.as_mut().unwrap().attributes.push(text("x", &"y".repeat(MIB)));
    check(
        &mut scene,
        "a resource of 1 MiB",
        &[PROTOBUF],
        &fat.encode_to_vec(),
        400,
        "bytes of attributes",
    );
    let outside = [with_spans(&[&other]), vec![0xff; 11]].concat();
    check(&mut scene, "wrong outside of spans", &[PROTOBUF], &outside, 400, "OTLP");
    end(scene, &[("malformed", 7), ("invalid_trace_id", 7)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_without_end_is_decided_and_the_others_are_not_hurt() {
    let mut scene = Scene::start().await;
    let start = 1_700_000_000_000_000_000_u64;
    let endless = |from: u64, own: bool| {
        let span = |number: u64| Span {
            trace_id: if own { [number.to_be_bytes(), [6; 8]].concat() } else { vec![7; 16] },
            span_id: (number + 1).to_be_bytes().to_vec(),
            name: "again".to_owned(),
            start_time_unix_nano: start,
            end_time_unix_nano: start + 1,
            ..Span::default()
        };
        request("endless", (from..from + 10_000).map(span).collect()).encode_to_vec()
    };
    let (mut taken, mut refused) = (0, 0);
    for (own, requests) in [(false, 30), (true, 30)] {
        for number in 0..requests {
            let body = endless(number * 10_000, own);
            match post(&scene.fleet.agents[0].http(), "/v1/traces", &[PROTOBUF], &body).status {
                200 => taken += 10_000,
                503 | 429 => refused += 10_000,
                other => assert_eq!(other, 200),
            }
            if number % 10 == 9 {
                scene.serves("an endless trace, or one for each span");
            }
        }
    }
    assert!(taken >= 10 * refused, "{taken} taken, {refused} refused");
    let gateway = scene.processes()[1];
    gateway.wait_for("an empty buffer", |stats| stats.held.traces == 0);
    let early = gateway.metric("ringtail_early_decisions_total", "trace_size");
    assert!(early >= 1.0, "the endless trace was decided early");
    end(scene, &[("malformed", 0)]);
}
