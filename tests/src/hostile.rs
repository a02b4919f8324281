//! An agent and a gateway that somebody means ill with, and whoever else must be served meanwhile.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;

use crate::backend::Backend;
use crate::fleet::{ERRORS_AND_SLOW, Fleet};
use crate::http::post;
use crate::process::{Ended, Process};
use crate::traces::Trace;

/// The header of a request in protobuf.
pub const PROTOBUF: &str = "content-type: application/x-protobuf";
/// Of either process, and what three quarters of it are; resident memory stays within that.
const LIMIT: [&str; 2] = ["--memory-limit", "256Mi"];
const BUDGET: u64 = 192 << 20;

/// An agent, its gateway, the backend, and how many honest traces each of the two was sent.
#[derive(Debug)]
pub struct Scene {
    /// Where kept traces go: the honest ones are.
    pub backend: Backend,
    /// Both processes.
    pub fleet: Fleet,
    /// Honest traces so far, of the agent and of the gateway.
    pub honest: [u64; 2],
}

// === impl Scene ===

impl Scene {
    /// Both with a limit of memory.
    pub async fn start() -> Self {
        let backend = Backend::start().await;
        let (agents, gateways) = ((1, &LIMIT[..]), (1, &LIMIT[..]));
        let fleet =
            Fleet::start_each(ERRORS_AND_SLOW, agents, gateways, &backend.address.to_string());
        Self { backend, fleet, honest: [0; 2] }
    }

    /// The agent.
    pub fn agent(&self) -> &Process {
        &self.fleet.agents[0]
    }

    /// The agent and the gateway.
    pub fn processes(&self) -> [&Process; 2] {
        [&self.fleet.agents[0], &self.fleet.gateways[0]]
    }

    /// Sends an honest request over HTTP to either process, on a connection of its own.
    pub fn serves(&mut self, name: &str) {
        for place in [0, 1] {
            let body = self.next(place).part(0, 1).encode_to_vec();
            let process = self.processes()[place];
            let answer = post(&process.http(), "/v1/traces", &[PROTOBUF], &body);
            let told = (answer.status, answer.body.as_str());
            assert_eq!(told, (200, ""), "after {name}: {answer:?}");
            is_within(process, name);
        }
    }

    /// Sends one to the agent over gRPC, where the abuse of HTTP/2 is.
    pub async fn serves_grpc(&mut self, name: &str) {
        let request = self.next(0).part(0, 1);
        let address = format!("http://{}", self.agent().grpc());
        let mut client = TraceServiceClient::connect(address).await.unwrap();
        let answer = client.export(request).await;
        assert!(answer.is_ok(), "{name}: {answer:?}");
        is_within(self.agent(), name);
    }

    fn next(&mut self, place: usize) -> Trace {
        self.honest[place] += 1;
        honest(self.honest.iter().sum())
    }

    /// Stops both; checks that the ledgers balance and that every honest trace arrived, once.
    pub fn end(self) -> [Ended; 2] {
        let (mut agents, mut gateways) = self.fleet.stop();
        let traces = self.backend.traces();
        for number in 1..=self.honest.iter().sum() {
            assert_eq!(traces[&honest(number).id()].len(), 1, "honest trace {number}");
        }
        [agents.remove(0), gateways.remove(0)]
    }
}

fn honest(number: u64) -> Trace {
    Trace { number, spans: 1, error: true, duration_ms: 1 }
}

fn is_within(process: &Process, name: &str) {
    let resident = process.resident_bytes();
    assert!(resident <= BUDGET, "after {name}: {resident} bytes resident");
}
