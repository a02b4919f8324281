//! The Ringtail data plane: agent, gateway, local fleet and command-line tools.

pub mod stats; // what a role tells about itself
