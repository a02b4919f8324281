//! Container images that hold one static binary: written as a tar that is an OCI layout and that `docker
//! load` takes too, with no container engine, the same bytes for the same binary.

pub mod build;
pub mod elf;
pub mod image;
