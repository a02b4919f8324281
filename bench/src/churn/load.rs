//! The load of a fleet: traces whose spans go to all agents in turn, spread over seconds.

use std::net::SocketAddr;
use std::time::Duration;

use crate::generate;
use crate::truth::SPANS;

/// Blocks of traces a second: fine against everything that is measured.
const BLOCKS_A_SECOND: f64 = 15.0;
/// Connections to each agent, and requests in flight over all of them.
const CONNECTIONS: usize = 2;
const IN_FLIGHT: usize = 32;
/// Seconds during which a refused request is sent again.
const RETRY_FOR_S: f64 = 30.0;

/// What a fleet carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Spans a second.
    pub(super) rate: f64,
    /// From the first span of a trace to its last.
    pub(super) spread: Duration,
    pub(super) seed: u64,
}

// === impl Load ===

impl Load {
    /// How many traces a block has; each of its requests has one span of each.
    pub(super) fn traces_per_block(&self) -> u64 {
        (self.rate / SPANS as f64 / BLOCKS_A_SECOND).round().max(1.0) as u64
    }

    /// The generator's options.
    pub(super) fn options(&self, targets: Vec<SocketAddr>) -> generate::Options {
        let traces = self.traces_per_block();
        let block_s = (traces * SPANS as u64) as f64 / self.rate;
        let lag = (self.spread.as_secs_f64() / (SPANS - 1) as f64 / block_s).round().max(1.0);
        generate::Options {
            targets,
            spans: traces as usize,
            fragments: SPANS,
            lag: lag as u64,
            gzip: None,
            distinct: 1,
            connections: CONNECTIONS,
            in_flight: IN_FLIGHT,
            rate: Some(self.rate),
            seconds: None,
            traces: None,
            first: 0,
            seed: self.seed,
            retry_for: RETRY_FOR_S,
        }
    }
}
