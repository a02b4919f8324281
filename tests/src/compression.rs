//! Bodies as clients compress them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use ringtail::transport::{Encoding, deflate};

/// As small as gzip makes them.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    deflate(Encoding::Zstd, bytes, &mut out).unwrap();
    out
}
