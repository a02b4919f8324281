//! A fuzz target: whatever the bytes are, the scanner agrees with prost and a split loses nothing.
//!
//! `cargo test` runs a bounded number of inputs; `cargo bolero test fuzz_split` goes on for as long as it is
//! let.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing test should say where")]

mod wild;

use bolero::produce;

#[test]
fn fuzz_split() {
    let entropy = produce::<Vec<u8>>().with().len(0_usize..3000);
    bolero::check!().with_generator(entropy).with_iterations(3000).with_max_len(8192).for_each(
        |bytes| {
            wild::examine(bytes);
            let (first, second) = bytes.split_at(bytes.len() / 2);
            let parts = 1 + bytes.first().map_or(0, |byte| usize::from(byte % 5));
            wild::split(&[bytes.clone(), wild::request(first), wild::request(second)], parts);
        },
    );
}
