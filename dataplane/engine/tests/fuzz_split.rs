//! A fuzz target: whatever the bytes are, the scanner agrees with prost and a split loses nothing.
//!
//! `cargo test` runs a bounded number of inputs; `cargo bolero test fuzz_split` goes on for as long as it
//! is let.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should say where")]

mod wild;

#[test]
fn fuzz_split() {
    bolero::check!().with_iterations(10_000).with_max_len(2048).for_each(|bytes: &[u8]| {
        wild::examine(bytes);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let parts = 1 + bytes.first().map_or(0, |byte| usize::from(byte % 5));
        wild::split(&[bytes.to_vec(), wild::request(first), wild::request(second)], parts);
    });
}
