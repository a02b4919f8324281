//! Connections that are meant to cost more than they bring: each abuse ends or is bounded, an honest client
//! is served during and after it, memory stays within the budget, and the ledger is exact.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use ringtail::transport::{MAX_CONNECTIONS, MAX_CONNECTIONS_OF_ONE};
use ringtail_tests::hostile::Scene;
use ringtail_tests::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, SETTINGS,
    export_headers, field, frame,
};
use ringtail_tests::process::wait_until;
use tokio::net::TcpSocket;

const CLOSED: &str = "ringtail_receiver_closed_connections_total";

fn open(scene: &Scene) -> f64 {
    scene.agent().metric("ringtail_receiver_connections", "")
}

fn closed(scene: &Scene, cause: &str) -> f64 {
    scene.agent().metric(CLOSED, &format!("\"{cause}\""))
}

/// Stops everything; checks that the agent took nothing but what was honest.
fn end(scene: Scene) {
    let honest = scene.honest[0];
    let [agent, _] = scene.end();
    assert_eq!(agent.ledger.received.clients, honest);
}

/// A request's headers as a frame.
fn headers(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &export_headers())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_end_their_connection() {
    let mut scene = Scene::start().await;
    let mut raw = Raw::connect(&scene.agent().grpc(), &[]);
    let mut stream = 1;
    let taken_back: Vec<u8> = std::iter::from_fn(|| {
        stream += 2;
        let cancel = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        Some([headers(stream, END_HEADERS), cancel].concat())
    })
    .take(20_000)
    .flatten()
    .collect();
    // Pieces, so that some streams are looked at before they are reset.
    let mut open = true;
    for piece in taken_back.chunks(1000) {
        open = open && raw.send(piece);
    }
    assert!(!open || raw.is_closed(), "the connection is closed");
    scene.serves_grpc("rapid reset").await;
    let ended = closed(&scene, "resets") + closed(&scene, "broken");
    assert!(ended >= 1.0, "it is counted");
    end(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_are_ended_or_not_read() {
    let mut scene = Scene::start().await;
    let address = scene.agent().grpc();
    // Headers without end: 16 KiB are allowed.
    let mut raw = Raw::connect(&address, &[]);
    let piece: Vec<u8> =
        (0..100).flat_map(|n| field(&format!("x-{n}"), &"v".repeat(100))).collect();
    let mut open = raw.send(&headers(1, 0));
    for _ in 0..2_000 {
        open = open && raw.send(&frame(CONTINUATION, 0, 1, &piece));
    }
    assert!(!open || raw.is_closed(), "a flood of CONTINUATION ends the connection");
    scene.serves_grpc("CONTINUATION").await;
    let mut raw = Raw::connect(&address, &[]);
    let mut open = raw.send(&headers(1, 0));
    for _ in 0..100_000 {
        open = open && raw.send(&frame(CONTINUATION, 0, 1, &[]));
    }
    assert!(!open || raw.is_closed(), "so does one of empty frames");
    scene.serves_grpc("empty CONTINUATION").await;

    // Frames that ask for an answer, of somebody who reads none; and ones that mean nothing.
    let floods = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("an unknown type", frame(99, 0, 0, &[0; 64])),
        ("resets of nothing", frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())),
    ];
    for (name, one) in floods {
        let mut raw = Raw::connect(&address, &[]);
        let many = one.repeat(1000);
        let mut sent = 0;
        while sent < 200 && raw.send(&many) {
            sent += 1;
        }
        scene.serves_grpc(name).await;
        scene.serves(name);
    }
    end(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_say_nothing_and_answers_that_nobody_reads_are_bounded() {
    let mut scene = Scene::start().await;
    let address = scene.agent().grpc();
    // Empty DATA frames: no progress, whatever their number.
    let mut raw = Raw::connect(&address, &[]);
    assert!(raw.send(&headers(1, END_HEADERS)));
    let empty = frame(DATA, 0, 1, &[]).repeat(1000);
    let mut sent = 0;
    while sent < 500 && raw.send(&empty) {
        sent += 1;
    }
    scene.serves_grpc("empty DATA").await;
    drop(raw);
    // A hundred calls on one connection, which lets no byte of an answer through.
    let mut stalled: Vec<Raw> = (0..20).map(|_| Raw::connect(&address, &[(4, 0)])).collect();
    let message = frame(DATA, END_STREAM, 0, &[0; 5]);
    for raw in &mut stalled {
        for stream in (1..400_u32).step_by(2) {
            let mut body = message.clone();
            body[5..9].copy_from_slice(&stream.to_be_bytes());
            if !raw.send(&[headers(stream, END_HEADERS), body].concat()) {
                break;
            }
        }
    }
    scene.serves_grpc("zero window").await;
    // More streams than one may have, none of which says anything.
    let mut raw = Raw::connect(&address, &[]);
    for stream in (1..20_000_u32).step_by(2) {
        if !raw.send(&headers(stream, END_HEADERS)) {
            break;
        }
    }
    scene.serves_grpc("too many streams").await;
    drop(stalled);
    end(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_keep_nobody_out() {
    let mut scene = Scene::start().await;
    let address = scene.agent().http();
    let connect = |said: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        stream
    };
    // Heads that do not end; bodies of 16 MiB of which a byte comes; and nothing at all.
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n";
    let slow: Vec<TcpStream> = (0..300).map(|_| connect(&head[..head.len() / 2])).collect();
    scene.serves("slowloris");
    let announced = format!("{head}content-length: 16777216\r\n\r\n");
    let mut trickled: Vec<TcpStream> = (0..300).map(|_| connect(&announced)).collect();
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    trickled.extend((0..100).map(|_| connect(&chunked)));
    for _ in 0..5 {
        for stream in &mut trickled {
            let _ = stream.write_all(b"1");
        }
        scene.serves("trickled bodies");
    }
    let silent: Vec<TcpStream> = (0..100).map(|_| connect("")).collect();
    let half: Vec<TcpStream> = (0..100).map(|_| connect("PRI * HTTP/2.0\r\n")).collect();
    scene.serves("silence");
    drop((slow, trickled, silent, half));
    wait_until("they are let go", || open(&scene) < 50.0);
    end(scene);
}

/// Connects from an address of loopback that is not the usual one.
async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Option<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).ok()?;
    socket.connect(to).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_leave_room_for_the_next() {
    // Both ends of a connection are descriptors, one here and, of those that are kept, one there.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let wanted = files.map_or(10_000, |files| files.saturating_sub(500).min(10_000));
    let raised = rustix::process::Rlimit { current: files, maximum: files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    println!("{wanted} connections, with {files:?} file descriptors");
    let mut scene = Scene::start().await;
    let to = scene.agent().listening.otlp_http.unwrap();
    let mut idle = Vec::new();
    // The first address tries to have all, the others to have the rest.
    for number in 0..wanted {
        let source = if number < wanted / 2 { 2 } else { 3 + (number % 50) as u8 };
        idle.extend(connect_from(Ipv4Addr::new(127, 0, 0, source), to).await);
        if number % 1000 == 999 {
            scene.serves("many idle connections");
        }
    }
    wait_until("the others are closed", || open(&scene) <= (MAX_CONNECTIONS + 50) as f64);
    let causes = ["too_many_of_one", "made_room"].map(|cause| closed(&scene, cause));
    if wanted == 10_000 {
        assert_eq!(causes[0], (wanted as usize / 2 - MAX_CONNECTIONS_OF_ONE) as f64);
        // The greedy one had half; the fifty others took what was free, then all but its share.
        assert!(causes[1] >= 900.0, "{causes:?}");
    }
    scene.serves("ten thousand idle connections");
    drop(idle);
    wait_until("all are gone", || open(&scene) < 50.0);
    end(scene);
}
