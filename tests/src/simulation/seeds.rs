//! Schedules that are run every time: those that once found a fault, and those that find it again when a
//! rule is off.

use ringtail_engine::ownership::rules::Rules;

use super::schedule::Class;
use super::truth::Kind;

/// Schedules that went wrong while the rules were being written, and must not again.
pub const ONCE_FAILED: &[(Class, u64)] = &[];

/// A rule, what turns it off, and a schedule that goes wrong in this way without it.
pub type Mutation = (&'static str, fn(&mut Rules), Class, u64, Kind);

/// What each rule is for.
pub const MUTATIONS: &[Mutation] = &[];
