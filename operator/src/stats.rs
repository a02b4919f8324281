//! What gateways tell at `/stats`, asked for beside the reconciles and summed up for status.

pub mod answer; //  the body of /stats, as far as it is read
pub mod fetch; //   one request
pub mod poll; //    the task that asks
pub mod ring; //    whether all agree on the ring
pub mod tally; //   sums over a window
pub mod view; //    what the status stage sees
pub mod write; //   status.ring and status.sampling
