//! Spans are rewritten as bytes: what is not touched is copied as it stands, unknown fields included, and
//! nothing is decoded.
//!
//! | module | what it holds |
//! |---|---|
//! | [`attributes`] | attributes inserted, updated, deleted, hashed, at the agent |
//! | [`outgoing`] | everything that a gateway does to kept spans |
//! | [`processing`] | everything that an agent does to a request |
//! | [`redaction`] | what must not leave: attributes removed, hashed, masked, at the gateway |
//! | [`sampling`] | why and how likely a span was kept, told in its own bytes |
//!
//! All of it takes messages that passed [`crate::scan::check`]. Other bytes never panic; what follows the
//! first of them that cannot be read is left out, so that nothing hides behind it.

pub mod attributes;
pub mod limits;
pub mod outgoing;
pub mod processing;
pub mod redaction;
pub mod sampling;

mod copy;
mod redact;
mod value;

#[cfg(test)]
mod tests;
