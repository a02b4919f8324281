//! What only a real API server can show of the operator, the chart's rights, and agents and gateways that
//! watch: each file a scenario with a control plane of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop where it cannot go on"
)]

mod children; // what exists for a pipeline, who owns replicas, what is refused
mod colours; //  a second set of gateways that takes over
mod fleet; //    real processes under a real operator
mod outage; //   an API server that is away, cuts, forgets and refuses
