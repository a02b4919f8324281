//! Files that a command line names, of which `-` is standard input.

use std::io::{self, Read};
use std::path::Path;

/// The text at `path`, of which no more than so many bytes are read.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        io::stdin().take(bytes_max).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(bytes_max).read_to_string(&mut text)?;
    }
    Ok(text)
}
