//! Agents and gateways of one manifest, as real processes.

use tempfile::TempDir;

use crate::process::{Ended, Process};

/// The manifest of most tests: what failed, what was slow, nothing else.
pub const ERRORS_AND_SLOW: &str = r#"
apiVersion: ringtail.dev/v1alpha1
kind: TracePipeline
metadata: {name: test}
spec:
  sampling:
    decisionWait: 1s
    policies:
      - {name: errors, type: StatusCode, statusCode: {statusCodes: [Error]}}
      - {name: slow, type: Latency, latency: {threshold: 500ms}}
  exporters:
    - name: backend
      type: OTLP
      otlp:
        endpoint: "http://127.0.0.1:1"
        protocol: GRPC
        compression: Gzip
        retry: {initialInterval: 50ms, maxInterval: 200ms}
"#;

/// A fleet.
#[derive(Debug)]
pub struct Fleet {
    /// Its agents.
    pub agents: Vec<Process>,
    /// Its gateways.
    pub gateways: Vec<Process>,
    // Removed with the fleet.
    _directory: TempDir,
}

// === impl Fleet ===

impl Fleet {
    /// Starts the gateways, then the agents, and waits until every agent has every gateway in its ring.
    pub fn start(
        manifest: &str,
        agents: usize,
        gateways: usize,
        backend: &str,
        extra: &[&str],
    ) -> Self {
        Self::start_each(manifest, (agents, &[]), (gateways, extra), backend)
    }

    /// As [`Self::start`], with arguments for agents too.
    pub fn start_each(
        manifest: &str,
        (agents, of_agents): (usize, &[&str]),
        (gateways, of_gateways): (usize, &[&str]),
        backend: &str,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pipeline.yaml");
        std::fs::write(&path, manifest).expect("the manifest is written");
        let file = path.to_str().expect("a path in UTF-8").to_owned();
        let export = format!("backend={backend}");
        let gateways: Vec<Process> = (0..gateways)
            .map(|index| {
                let id = format!("gw-{index}");
                let mut args =
                    vec!["gateway", "--pipeline", &file, "--identity", &id, "--export", &export];
                args.extend(of_gateways);
                Process::start(&args)
            })
            .collect();
        let addresses: Vec<String> = gateways.iter().map(Process::grpc).collect();
        let agents = (0..agents)
            .map(|index| {
                let id = format!("agent-{index}");
                let mut args = vec!["agent", "--pipeline", &file, "--identity", &id];
                args.extend(addresses.iter().flat_map(|address| ["--gateway", address]));
                args.extend(of_agents);
                let agent = Process::start(&args);
                agent.wait_for("a full ring", |stats| stats.ring.members.len() == gateways.len());
                agent
            })
            .collect();
        Self { agents, gateways, _directory: directory }
    }

    /// Stops agents, then gateways; checks that every ledger balances and every exit code is 0.
    pub fn stop(self) -> (Vec<Ended>, Vec<Ended>) {
        let stop = |processes: Vec<Process>| -> Vec<Ended> {
            processes.into_iter().map(Process::stop_balanced).collect()
        };
        (stop(self.agents), stop(self.gateways))
    }
}
