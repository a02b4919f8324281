//! Sampling policies: their vocabulary, its limits, the compiler and the program that it makes.
//!
//! A list of [`Policy`] is data as written in a manifest. [`compile`](compile()) turns it into a
//! [`Program`], or says everything that is wrong with it. The program takes facts from the bytes of each
//! span when it arrives, and decides from the joined facts of a trace alone. `docs/policies.md` has the
//! meaning of each policy.

pub mod ast;
pub mod limits;

pub(crate) mod attributes;
mod budget;
mod compile;
mod condition;
mod explain;
mod filter;
mod grant;
mod graph;
mod ottl;
pub(crate) mod pattern;
mod predicates;
pub(crate) mod probability;
mod program;
mod record;
pub(crate) mod trace_state;

pub use ast::{ErrorMode, Policy, Problem, Role, Rule, Status, SubPolicy};
pub use budget::Occasion;
pub use compile::compile;
pub use condition::{Condition, Unanswered};
pub use explain::{Answer, Why};
pub use filter::{Filter, FilterProblem};
pub use grant::Receipt;
pub use predicates::Asked;
pub use program::{Program, Verdict};
pub use record::Records;
