//! Undecided spans of one shard: bytes appended once, and a small index beside them.
//!
//! - [`segment`]: span bytes in 1 MiB segments; the spans of a trace form a backward chain of records.
//! - [`cohort`]: which segment a span goes to, so that segments die as a whole.
//! - [`headers`]: resource and scope bytes, each stored once however many spans share them.
//! - [`duplicates`]: which spans of a trace are already here.
//! - [`index`]: trace -> entry with its facts and the head of its chain.
//! - [`deadline`]: which traces are due.
//!
//! The parts know nothing of each other; [`crate::shard::Shard`] ties them together. Every part reports
//! what it holds in bytes of capacity, not of content, because that is what the process pays for.

mod cohort;
pub(crate) mod deadline;
pub(crate) mod duplicates;
pub(crate) mod headers;
pub(crate) mod index;
pub(crate) mod segment;
pub(crate) mod slab;

use hashbrown::HashTable;

/// A table shrinks when it is less than one eighth full and above this size; below it is not worth the
/// moving.
const SHRINK_ABOVE: usize = 1024;

/// Gives the memory of a table back after a peak. Halving only when seven eighths are free keeps it from
/// swinging.
fn shrink<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.is_empty() {
        *table = HashTable::new();
    } else if table.capacity() > SHRINK_ABOVE && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2, hash);
    }
}

/// At most how many bytes a table grows by `more` values. A table that has no room left moves to one of at
/// least twice the size, and holds both while it does; places of removed values may use up room without
/// counting.
fn table_growth<T>(table: &HashTable<T>, more: u64) -> u64 {
    let len = table.len() as u64;
    if more <= (table.capacity() as u64).saturating_sub(len) {
        return 0;
    }
    // At most 7/8 of the buckets, a power of two of at least 4, are used; a byte a bucket and a group of 16
    // beside them.
    let values = (len + more).max(table.num_buckets() as u64);
    let buckets = (values * 8 / 7 + 1).next_power_of_two().max(4);
    buckets * (size_of::<T>() as u64 + 1) + 32
}
