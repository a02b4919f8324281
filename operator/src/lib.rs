//! The operator: makes the fleet that a TracePipeline describes, and says truthfully how it is.

pub mod admin; //       metrics and probes
pub mod backoff; //     how long to leave a failing pipeline alone
pub mod build; //       children as they should be
pub mod changes; //     which events of a watch mean a change
pub mod check; //       asks the operator how it is
pub mod cli; //         the command line
pub mod clock; //       the time on two clocks
pub mod conditions; //  what status says, and why
pub mod coverage; //    whether an object still is what was applied
pub mod events; //      what happened, for people
pub mod failure; //     what can go wrong
pub mod fingerprint; // what of an object's metadata matters
pub mod gate; //        no write without the lease
pub mod kind; //        the kinds of children
pub mod labels; //      labels and annotations of children
pub mod lease; //       who of several operators leads
pub mod live; //        what exists of a pipeline
pub mod memory; //      what is remembered between reconciles
pub mod metrics; //     the operator's own
pub mod peer_tls; //    certificates between agents and gateways
pub mod quantise; //    numbers with two digits
pub mod rbac; //        what the operator may do, and why
pub mod reconcile; //   the stages
pub mod references; //  Secrets that a pipeline refers to
pub mod runtime; //     everything wired together
pub mod scope; //       namespaces
pub mod seed; //        the ring seed
pub mod settings; //    what children depend on besides their pipeline
pub mod stats; //       what gateways tell
pub mod stores; //      what is known of the cluster
pub mod trim; //        what is kept of workloads and pods
pub mod watches; //     what is watched
