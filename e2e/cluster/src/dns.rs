//! Names of Services, for the pods of a cluster: `<service>.<namespace>.svc.cluster.local` and what lies
//! below.
//!
//! It answers from watches of Services and EndpointSlices, as a cluster's DNS does, over UDP and for IPv4.
//! It is ours and runs in the harness: an upstream server would be four more minutes of building for what
//! fits on a page.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::cluster::client;
use crate::error::{Error, OnFile};

/// How long askers may keep an answer. Endpoints come and go within a test.
const TTL_SECONDS: u32 = 1;

/// What fits in 512 bytes after the longest name (12 + 255 + 4 bytes), at 16 bytes an address.
const ADDRESSES_MAX: usize = 15;

/// A question is one packet of at most this many bytes.
const PACKET_MAX: usize = 512;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const NAME_ERROR: u8 = 3;
const DOMAIN: [&str; 3] = ["svc", "cluster", "local"];

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Dns {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a name stands for; an unknown name is not the same as a Service without addresses.
type Answer = Option<Vec<Ipv4Addr>>;

/// The watched objects.
struct Names {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
}

// === impl Dns ===

impl Dns {
    /// Serves on port 53 of `address`, with what the holder of the kubeconfig may see.
    pub(crate) fn start(address: Ipv4Addr, kubeconfig: PathBuf) -> Result<Self, Error> {
        let socket = UdpSocket::bind((address, 53));
        let socket = socket.on("listen for DNS on", address.to_string())?;
        socket.set_nonblocking(true).on("set up", "the DNS socket")?;
        let (stop, stopped) = oneshot::channel();
        // A runtime of its own: a cluster that is shared by tests outlives the runtime of the first.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.on("start", "the DNS runtime")?;
        let thread = std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(socket, &kubeconfig) => (),
                    _ = stopped => (),
                }
            });
        });
        Ok(Self { stop: Some(stop), thread: Some(thread.on("start", "the DNS thread")?) })
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(socket: UdpSocket, kubeconfig: &Path) -> Result<(), Error> {
    let client = client(kubeconfig).await?;
    let names = Names { services: watch(&client), slices: watch(&client) };
    let socket = tokio::net::UdpSocket::from_std(socket).on("set up", "the DNS socket")?;
    let mut packet = [0; PACKET_MAX];
    loop {
        let (bytes, asker): (usize, SocketAddr) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            // An asker that is gone shows up here, as an error about an answer of before.
            Err(_) => continue,
        };
        if let Some(reply) = reply(&packet[..bytes], |labels| names.find(labels)) {
            let _ = socket.send_to(&reply, asker).await;
        }
    }
}

/// Keeps the objects of one kind at hand, for as long as the runtime lives.
fn watch<K>(client: &Client) -> Store<K>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + DeserializeOwned,
    K: std::fmt::Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events =
        watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    tokio::spawn(reflector::reflector(writer, events).for_each(|_| std::future::ready(())));
    store
}

// === impl Names ===

impl Names {
    /// `[<pod>,] <service>, <namespace>` and the domain, in lower case.
    fn find(&self, labels: &[String]) -> Answer {
        let at = labels.len().checked_sub(DOMAIN.len())?;
        let (name, domain) = labels.split_at(at);
        if domain != DOMAIN {
            return None;
        }
        let (pod, service, namespace) = match name {
            [service, namespace] => (None, service, namespace),
            [pod, service, namespace] => (Some(pod), service, namespace),
            _ => return None,
        };
        let known = self.services.get(&ObjectRef::new(service).within(namespace))?;
        let address = known.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref())?;
        if let (None, Ok(address)) = (pod, address.parse()) {
            return Some(vec![address]);
        }
        let slices = self.slices_of(service, namespace);
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let everyone = known.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses);
        let listed = endpoints
            .filter(|endpoint| everyone == Some(true) || is_ready(endpoint))
            .filter(|endpoint| pod.is_none() || endpoint.hostname.as_ref() == pod)
            .flat_map(|endpoint| &endpoint.addresses)
            .filter_map(|address| address.parse().ok());
        let mut addresses: Vec<_> = listed.collect();
        addresses.sort();
        addresses.dedup();
        (pod.is_none() || !addresses.is_empty()).then_some(addresses)
    }

    fn slices_of(&self, service: &str, namespace: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.state_filter(|slice| {
            let labels = slice.metadata.labels.as_ref();
            let owner = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
            slice.metadata.namespace.as_deref() == Some(namespace)
                && owner.map(String::as_str) == Some(service)
        })
    }
}

/// No word about readiness means ready.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

/// The reply to a packet, if it is a question that can be read.
fn reply(packet: &[u8], find: impl FnOnce(&[String]) -> Answer) -> Option<Vec<u8>> {
    let header = packet.get(..HEADER)?;
    let (mut labels, mut rest) = (Vec::new(), packet.get(HEADER..)?);
    while let (length, tail) = rest.split_first()?
        && *length > 0
    {
        let label = tail.get(..usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        rest = tail.get(label.len()..)?;
    }
    let kind = rest.get(1..5)?;
    let question = &packet[HEADER..packet.len() - rest.len() + 5];
    let found = find(&labels);
    let failure = if found.is_none() { NAME_ERROR } else { 0 };
    let mut addresses = found.unwrap_or_default();
    // Other kinds, AAAA above all, get an empty answer: the name exists, and has none of these.
    if kind[..2] != TYPE_A.to_be_bytes() {
        addresses.clear();
    }
    addresses.truncate(ADDRESSES_MAX);
    let count = u8::try_from(addresses.len()).unwrap_or(0);
    // A reply (0x80) that knows (0x04), to who wants recursion (bit of theirs), and recursion is to be had
    // (0x80).
    let mut reply = vec![header[0], header[1], 0x84 | (header[2] & 0x01), 0x80 | failure];
    reply.extend([0, 1, 0, count, 0, 0, 0, 0]);
    reply.extend(question);
    for address in addresses {
        // The name is the one at offset 12, the question's.
        reply.extend([0xc0, 12, 0, 1, 0, 1]);
        reply.extend(TTL_SECONDS.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `name`, with id 7 and recursion desired.
    fn question(name: &str, kind: u8) -> Vec<u8> {
        let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            packet.push(u8::try_from(label.len()).unwrap_or(0));
            packet.extend(label.bytes());
        }
        packet.extend([0, 0, kind, 0, 1]);
        packet
    }

    fn find(labels: &[String]) -> Answer {
        (labels.join(".") == "sink.shop.svc").then(|| vec![Ipv4Addr::new(198, 18, 1, 9)])
    }

    #[test]
    fn questions_are_answered() {
        let known = question("Sink.shop.svc", 1);
        let answer = reply(&known, find).unwrap_or_default();
        assert_eq!(answer[..HEADER], [0, 7, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[HEADER..known.len()], known[HEADER..]);
        assert_eq!(answer[known.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 198, 18, 1, 9]);
        let other_kind = reply(&question("sink.shop.svc", 28), find).unwrap_or_default();
        assert_eq!(other_kind[3..8], [0x80, 0, 1, 0, 0]);
        let unknown = reply(&question("sunk.shop.svc", 1), find).unwrap_or_default();
        assert_eq!(unknown[3..8], [0x83, 0, 1, 0, 0]);
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        let whole = question("sink.shop.svc", 1);
        for length in 0..whole.len() {
            assert_eq!(reply(&whole[..length], find), None, "{length} bytes");
        }
    }
}
