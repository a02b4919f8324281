//! Sampling policies: the vocabulary ([`ast`]), its limits, the compiler and the program it makes.
//!
//! `compile(&[Policy]) -> Result<Program, Vec<Problem>>` turns a list of policies into a `Program` or says
//! everything that is wrong with it.

pub mod ast;
pub mod limits;

pub use ast::{Policy, Problem, Role, Rule, Status};
