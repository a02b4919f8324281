//! A control group with a memory limit, where the machine lets us make one.

use std::path::{Path, PathBuf};

/// A group of its own; removed with this value, when its processes are gone.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

// === impl Cgroup ===

impl Cgroup {
    /// A new group whose processes together may have so many bytes, without swap. `None` where that is not
    /// permitted, with the reason on standard output.
    pub fn with_limit(name: &str, bytes: u64) -> Option<Self> {
        let name = format!("ringtail-{name}-{}", std::process::id());
        let roots = [(Version::Two, "/sys/fs/cgroup"), (Version::One, "/sys/fs/cgroup/memory")];
        for (version, root) in roots {
            let directory = Path::new(root).join(&name);
            if std::fs::create_dir(&directory).is_err() {
                continue;
            }
            let group = Self { directory, version };
            if group.write(group.file("memory.max", "memory.limit_in_bytes"), &bytes.to_string()) {
                // There may be no swap at all.
                let both = group.file("memory.swap.max", "memory.memsw.limit_in_bytes");
                let swap = if version == Version::Two { 0 } else { bytes };
                group.write(both, &swap.to_string());
                return Some(group);
            }
        }
        println!("no control group of memory can be made here; resident memory is watched instead");
        None
    }

    /// Moves a process into it. What it has by then stays charged elsewhere.
    pub fn take(&self, process: u32) {
        assert!(self.write("cgroup.procs", &process.to_string()), "{self:?} takes {process}");
    }

    /// The most bytes that it ever had, if the kernel tells.
    pub fn peak(&self) -> Option<u64> {
        let text = self.read(self.file("memory.peak", "memory.max_usage_in_bytes"))?;
        text.trim().parse().ok()
    }

    /// Processes that the kernel killed for their memory.
    pub fn killed(&self) -> u64 {
        let text = self.read(self.file("memory.events", "memory.oom_control")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.unwrap_or(0)
    }

    fn file(&self, two: &'static str, one: &'static str) -> &'static str {
        if self.version == Version::Two { two } else { one }
    }

    fn write(&self, file: &str, text: &str) -> bool {
        let path = self.directory.join(file);
        // Of a file that does not exist nothing must be made.
        path.exists() && std::fs::write(path, text).is_ok()
    }

    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.directory.join(file)).ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.directory);
    }
}
