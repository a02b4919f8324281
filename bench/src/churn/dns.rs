//! A DNS responder as a headless Service has one: the addresses of the gateways that are ready. The first
//! label of the name asked for says whose view is wanted.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::directory::{Directory, Standing};

/// What every name ends in.
pub(super) const ZONE: &str = "churn.test";

/// A query is far smaller; nothing else comes over loopback.
const QUERY_MAX: usize = 512;
const HEADER: usize = 12;
const TYPE_A: u16 = 1;

/// Answers until the task is dropped.
pub(super) async fn serve(socket: UdpSocket, directory: Arc<Directory>) {
    let mut query = [0; QUERY_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut query).await else { continue };
        let ready = |process: &str| ready(&directory, process);
        if let Some(answer) = answer(&query[..length], ready) {
            // Who gets no answer asks again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// What the headless Service of a process lists.
fn ready(directory: &Directory, process: &str) -> Vec<Ipv4Addr> {
    let (seen, _) = directory.seen(process);
    let ready = seen.values().filter(|entry| entry.standing == Standing::Ready);
    let addresses = ready.filter_map(|entry| match entry.address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    addresses.collect()
}

fn answer(query: &[u8], ready: impl Fn(&str) -> Vec<Ipv4Addr>) -> Option<Vec<u8>> {
    let (labels, after) = labels(query)?;
    let question = query.get(HEADER..after + 4)?;
    let kind = u16::from_be_bytes([*query.get(after)?, *query.get(after + 1)?]);
    let ours = labels.get(1..).is_some_and(|zone| zone.join(".") == ZONE);
    let addresses = match labels.first() {
        Some(process) if ours && kind == TYPE_A => ready(process),
        _ => Vec::new(),
    };
    let mut answer = query.get(..2)?.to_vec();
    // A response, authoritative; an unknown name does not exist.
    answer.extend([0x84, if ours { 0 } else { 3 }, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend_from_slice(question);
    for address in addresses {
        // The name of the question, type A, class IN, nothing to be cached, four bytes.
        answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// The labels of the name asked for, in lower case, and where they end.
fn labels(query: &[u8]) -> Option<(Vec<String>, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels, at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.bytes());
        }
        query.extend([0, 0, kind, 0, 1]);
        query
    }

    #[test]
    fn a_name_is_answered_with_the_view_of_its_process() {
        let ready = |process: &str| match process {
            "agent-1" => vec![Ipv4Addr::new(127, 1, 0, 5)],
            _ => Vec::new(),
        };
        let told = answer(&query("Agent-1.churn.test", 1), ready).unwrap();
        assert_eq!(told[..4], [7, 9, 0x84, 0]);
        assert!(told.ends_with(&[0, 4, 127, 1, 0, 5]));
        let other = answer(&query("agent-1.churn.test", 28), ready).unwrap();
        assert_eq!(other[6..8], [0, 0], "no IPv6");
        let unknown = answer(&query("agent-1.example.org", 1), ready).unwrap();
        assert_eq!(unknown[3], 3);
        assert_eq!(answer(&[1, 2, 3], ready), None);
    }
}
