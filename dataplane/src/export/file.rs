//! Kept spans in a file: a line of OTLP JSON for each request, a new file when one is full.
//!
//! A line is written whole or, when the disk is full, not at all: what was written of it is cut off again.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use ringtail_crds::resolved;

/// What stands in a path for the name of the process.
const IDENTITY: &str = "{identity}";

/// Writes requests.
#[derive(Debug)]
pub(super) struct FileWriter {
    path: PathBuf,
    max_bytes: u64,
    max_backups: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

// === impl FileWriter ===

impl FileWriter {
    /// Opens the file to append to it.
    ///
    /// # Errors
    /// When that can never work: there is no such directory, or another process writes the file. What may
    /// pass, such as a full disk, is left for later.
    pub(super) fn open(settings: &resolved::File, identity: &str) -> Result<Self, String> {
        let mut writer = Self {
            path: PathBuf::from(settings.path.replace(IDENTITY, identity)),
            max_bytes: settings.max_bytes,
            max_backups: settings.max_backups,
            open: None,
        };
        let shown = writer.path.display().to_string();
        match open(&writer.path) {
            Ok(open) => writer.open = Some(open),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(format!(
                    "file.path: {shown} is being written by another process: write {IDENTITY} into \
                     the path, so that each has its own"
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("file.path: {shown}: {error}; its directory must exist"));
            }
            Err(error) => tracing::warn!(%error, path = shown, "not writable yet"),
        }
        Ok(writer)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// In words, when it is not in the file.
    pub(super) fn write(&mut self, mut line: Vec<u8>) -> Result<(), String> {
        line.push(b'\n');
        self.append(&line).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let bytes = self.current()?.bytes;
        if bytes > 0 && bytes + length > self.max_bytes {
            self.rotate()?;
        }
        let open = self.current()?;
        if let Err(error) = open.file.write_all(line) {
            // What was written of it would be a broken line; should this fail too, the next start mends it.
            let _ = open.file.set_len(open.bytes);
            self.open = None;
            return Err(error);
        }
        open.bytes += length;
        Ok(())
    }

    fn current(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        Ok(self.open.insert(open))
    }

    /// Renames the files, the oldest first, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        if self.max_backups == 0 {
            return std::fs::remove_file(&self.path);
        }
        for number in (1..self.max_backups).rev() {
            match std::fs::rename(self.backup(number), self.backup(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.backup(1))
    }

    fn backup(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

/// Opens a file at its end, as the only one to write it. A line that a kill left unfinished is ended.
fn open(path: &Path) -> io::Result<Open> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut bytes = file.metadata()?.len();
    if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(Open { file, bytes })
}

#[cfg(test)]
mod tests;
