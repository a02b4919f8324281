//! A name server that says what a test wants, over UDP and TCP, and what becomes of the list of gateways.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ProtocolConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const HEADER: usize = 12;
const NAME: &str = "gateways.test.";

/// What the server says of a name and type; of others it says that they do not exist.
#[derive(Clone, Debug)]
enum Says {
    Addresses(Vec<IpAddr>),
    Hosts(Vec<(u16, &'static str)>),
    /// Over UDP only that the answer is too long for it.
    OverTcp(Vec<IpAddr>),
    Nothing,
    NoSuchName,
    Failure,
    Silence,
}

#[derive(Default)]
struct Zone {
    says: Mutex<HashMap<(String, u16), Says>>,
}

impl Zone {
    fn set(&self, name: &str, kind: u16, says: Says) {
        self.says.lock().unwrap().insert((name.to_owned(), kind), says);
    }

    /// Both families of the name.
    fn addresses(&self, v4: &[&str], v6: &[&str]) {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        self.set(NAME, A, Says::Addresses(read(v4)));
        self.set(NAME, AAAA, Says::Addresses(read(v6)));
    }

    fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, after) = name_of(query);
        let kind = u16::from_be_bytes([query[after], query[after + 1]]);
        let says = self.says.lock().unwrap().get(&(name, kind)).cloned();
        let (truncated, code, records): (bool, u8, Vec<Vec<u8>>) = match says {
            Some(Says::Silence) => return None,
            Some(Says::Failure) => (false, 2, vec![]),
            Some(Says::Nothing) => (false, 0, vec![]),
            Some(Says::NoSuchName) | None => (false, 3, vec![]),
            Some(Says::OverTcp(_)) if !tcp => (true, 0, vec![]),
            Some(Says::Addresses(list) | Says::OverTcp(list)) => {
                (false, 0, list.iter().map(address).collect())
            }
            Some(Says::Hosts(list)) => (false, 0, list.iter().map(host).collect()),
        };
        let mut answer = query[..2].to_vec();
        answer.extend([0x84 | if truncated { 2 } else { 0 }, 0x80 | code, 0, 1]);
        answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
        answer.extend([0; 4]);
        answer.extend_from_slice(&query[HEADER..after + 4]);
        for record in records {
            // The name of the question, its type, class IN, a time to live of nothing.
            answer.extend([0xc0, HEADER as u8]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 0]);
            answer.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
            answer.extend(record);
        }
        Some(answer)
    }
}

fn address(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn host((port, name): &(u16, &str)) -> Vec<u8> {
    let mut record = vec![0, 0, 0, 0];
    record.extend(port.to_be_bytes());
    for label in name.trim_end_matches('.').split('.') {
        record.push(label.len() as u8);
        record.extend(label.bytes());
    }
    record.push(0);
    record
}

/// The name asked for, in lower case with its last point, and where it ends.
fn name_of(query: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (String::new(), HEADER);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push_str(&String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase());
        name.push('.');
        at = end;
    }
    (name, at + 1)
}

/// A server on both protocols of one port.
async fn serve() -> (Arc<Zone>, ResolverConfig) {
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = tcp.local_addr().unwrap();
    let zone = Arc::new(Zone::default());
    let ours = Arc::clone(&zone);
    tokio::spawn(async move {
        let mut query = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut query).await {
            if let Some(answer) = ours.answer(&query[..length], false) {
                udp.send_to(&answer, from).await.unwrap();
            }
        }
    });
    let ours = Arc::clone(&zone);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let ours = Arc::clone(&ours);
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; usize::from(length)];
                    stream.read_exact(&mut query).await.unwrap();
                    if let Some(answer) = ours.answer(&query, true) {
                        stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                }
            });
        }
    });
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
    let server = NameServerConfig::new(address.ip(), true, connections);
    (zone, ResolverConfig::from_name_servers(vec![server]))
}

fn settings(hostname: &str) -> Dns {
    Dns {
        hostname: hostname.to_owned(),
        port: 4317,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(400),
    }
}

fn addresses(discovery: &Discovery) -> Vec<String> {
    let list = discovery.candidates.borrow().clone();
    list.iter().flat_map(|list| list.iter()).map(|one| one.address.clone()).collect()
}

/// Waits until the list is this one.
async fn becomes(discovery: &mut Discovery, expected: &[&str]) {
    let is = |list: &Candidates| {
        let list = list.iter().flat_map(|list| list.iter().map(|one| one.address.as_str()));
        list.eq(expected.iter().copied())
    };
    let reached = timeout(Duration::from_secs(20), discovery.candidates.wait_for(is)).await.is_ok();
    assert!(reached, "never {expected:?}, but {:?}", addresses(discovery));
}

/// Waits for some more attempts that fail, or succeed.
async fn attempts(discovery: &Discovery, failing: bool) {
    let counter = match failing {
        true => &discovery.health.failures,
        false => &discovery.health.resolutions,
    };
    let before = counter.load(std::sync::atomic::Ordering::Relaxed);
    while counter.load(std::sync::atomic::Ordering::Relaxed) < before + 3 {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn addresses_of_both_families_are_gateways() {
    let (zone, servers) = serve().await;
    zone.addresses(&["10.0.0.2", "10.0.0.1", "10.0.0.2"], &["fd00::1", "fd00::1"]);
    let mut discovery = Discovery::dns_with(settings(NAME), &servers).unwrap();
    becomes(&mut discovery, &["10.0.0.1:4317", "10.0.0.2:4317", "[fd00::1]:4317"]).await;
    // A list that is the same again tells nobody anything.
    discovery.candidates.mark_unchanged();
    attempts(&discovery, false).await;
    assert!(!discovery.candidates.has_changed().unwrap());
    zone.addresses(&["10.0.0.1", "10.0.0.3"], &[]);
    becomes(&mut discovery, &["10.0.0.1:4317", "10.0.0.3:4317"]).await;
}

#[tokio::test]
async fn a_question_without_an_answer_changes_nothing() {
    let (zone, servers) = serve().await;
    zone.addresses(&["10.0.0.1"], &["fd00::1"]);
    let mut discovery = Discovery::dns_with(settings(NAME), &servers).unwrap();
    let both = ["10.0.0.1:4317", "[fd00::1]:4317"];
    becomes(&mut discovery, &both).await;
    for says in [Says::NoSuchName, Says::Nothing, Says::Failure, Says::Silence] {
        zone.set(NAME, A, says.clone());
        zone.set(NAME, AAAA, says.clone());
        attempts(&discovery, true).await;
        assert_eq!(addresses(&discovery), both, "{says:?}");
    }
    assert!(discovery.health.failing_for() > Duration::ZERO);
    zone.addresses(&["10.0.0.9"], &[]);
    becomes(&mut discovery, &["10.0.0.9:4317"]).await;
    assert_eq!(discovery.health.failing_for(), Duration::ZERO);
}

#[tokio::test]
async fn what_one_family_could_not_be_asked_for_stays() {
    let (zone, servers) = serve().await;
    zone.addresses(&["10.0.0.1"], &["fd00::1"]);
    let mut discovery = Discovery::dns_with(settings(NAME), &servers).unwrap();
    becomes(&mut discovery, &["10.0.0.1:4317", "[fd00::1]:4317"]).await;
    zone.addresses(&["10.0.0.2"], &[]);
    zone.set(NAME, AAAA, Says::Failure);
    becomes(&mut discovery, &["10.0.0.2:4317", "[fd00::1]:4317"]).await;
}

#[tokio::test]
async fn nothing_is_told_before_the_first_answer() {
    let (zone, servers) = serve().await;
    let mut discovery = Discovery::dns_with(settings(NAME), &servers).unwrap();
    attempts(&discovery, true).await;
    assert_eq!(*discovery.candidates.borrow(), None);
    zone.addresses(&["10.0.0.1"], &[]);
    becomes(&mut discovery, &["10.0.0.1:4317"]).await;
}

#[tokio::test]
async fn a_long_answer_is_asked_for_over_tcp() {
    let (zone, servers) = serve().await;
    let many: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    zone.set(NAME, A, Says::OverTcp(many.clone()));
    let mut discovery = Discovery::dns_with(settings(NAME), &servers).unwrap();
    let mut expected: Vec<String> = many.iter().map(|ip| format!("{ip}:4317")).collect();
    expected.sort();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    becomes(&mut discovery, &expected).await;
}

#[tokio::test]
async fn srv_records_have_hosts_and_ports() {
    const SERVICE: &str = "_otlp-grpc._tcp.gateways.test.";
    let (zone, servers) = serve().await;
    let hosts = vec![(14317, "a.test."), (24317, "b.test."), (14317, "a.test.")];
    zone.set(SERVICE, SRV, Says::Hosts(hosts));
    zone.set("a.test.", A, Says::Addresses(vec!["10.0.0.1".parse().unwrap()]));
    zone.set("b.test.", AAAA, Says::Addresses(vec!["fd00::2".parse().unwrap()]));
    let mut discovery = Discovery::dns_with(settings(SERVICE), &servers).unwrap();
    becomes(&mut discovery, &["10.0.0.1:14317", "[fd00::2]:24317"]).await;
    zone.set(SERVICE, SRV, Says::Nothing);
    attempts(&discovery, true).await;
    assert_eq!(addresses(&discovery), ["10.0.0.1:14317", "[fd00::2]:24317"]);
}
