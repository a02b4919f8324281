//! The files under a queue on disk: numbered segments in one directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Segments are files of this kind.
const SUFFIX: &str = ".queue";

/// What a queue does with its files. Tests have one that fails as disks do.
pub(in super::super) trait Files: Send {
    /// The segments that there are, with their sizes, in their order.
    fn list(&self) -> io::Result<Vec<(u64, u64)>>;
    /// Writes behind the end of a segment, which is made if there is none. What fails may have been written
    /// in part.
    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes one byte over another.
    fn mark(&mut self, segment: u64, offset: u64, byte: u8) -> io::Result<()>;
    /// Reads so many bytes, or as many as there are.
    fn read(&self, segment: u64, offset: u64, bytes: usize) -> io::Result<Vec<u8>>;
    /// Sees that what was written survives the machine.
    fn sync(&mut self, segment: u64) -> io::Result<()>;
    /// Deletes a segment.
    fn remove(&mut self, segment: u64) -> io::Result<()>;
}

/// A directory on a real disk.
#[derive(Debug)]
pub(in super::super) struct Directory {
    path: PathBuf,
    /// The segment that is written.
    current: Option<(u64, File)>,
    /// Keeps other processes away for as long as it is open.
    _lock: Option<File>,
}

// === impl Directory ===

impl Directory {
    /// Opens a directory, which is made if there is none.
    ///
    /// # Errors
    /// When another process has it. What may pass, such as a full disk, is left for later.
    pub(in super::super) fn open(path: &Path) -> Result<Self, String> {
        let lock = std::fs::create_dir_all(path).and_then(|()| File::create(path.join("lock")));
        let lock = match lock {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => Some(lock),
                Err(TryLockError::WouldBlock) => {
                    let shown = path.display();
                    return Err(format!(
                        "queue.persistent: {shown} is in use by another process: give each a \
                         --data-dir of its own"
                    ));
                }
                Err(TryLockError::Error(_)) => None,
            },
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no queue on disk yet");
                None
            }
        };
        Ok(Self { path: path.to_owned(), current: None, _lock: lock })
    }

    fn file(&self, segment: u64) -> PathBuf {
        self.path.join(format!("{segment:016x}{SUFFIX}"))
    }
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<(u64, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if let Some(number) = number {
                found.push((number, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|(number, _)| *number != segment) {
            self.current = None;
            std::fs::create_dir_all(&self.path)?;
            let file = OpenOptions::new().append(true).create(true).open(self.file(segment))?;
            self.current = Some((segment, file));
        }
        match &mut self.current {
            Some((_, file)) => file.write_all(bytes),
            None => Ok(()),
        }
    }

    fn mark(&mut self, segment: u64, offset: u64, byte: u8) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.file(segment))?;
        file.write_all_at(&[byte], offset)
    }

    fn read(&self, segment: u64, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.file(segment))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut read = Vec::new();
        file.take(bytes as u64).read_to_end(&mut read)?;
        Ok(read)
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        match &self.current {
            Some((number, file)) if *number == segment => file.sync_data(),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.current.take_if(|(number, _)| *number == segment);
        std::fs::remove_file(self.file(segment))
    }
}
