//! The operator: makes the fleet that a TracePipeline describes, and says truthfully how it is.

pub mod build; //    children as they should be
pub mod kind; //     the kinds of children
pub mod labels; //   labels and annotations of children
pub mod live; //     what exists of a pipeline
pub mod settings; // what children depend on besides their pipeline
