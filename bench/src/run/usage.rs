//! What a process has used, as the kernel tells it: CPU time and resident memory.

use std::collections::BTreeMap;

use crate::failure::{Doing, Failure, Result};

/// The unit of /proc/<pid>/stat: USER_HZ is 100 on every Linux that this builds for.
const TICK_S: f64 = 0.01;

/// CPU time of a process at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Cpu {
    /// User and system time in ticks: coarse, but complete.
    ticks: u64,
    /// Nanoseconds by thread: exact, but a thread that ended takes its share along.
    threads: BTreeMap<u32, u64>,
}

/// Resident memory of a process at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

// === impl Cpu ===

impl Cpu {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).doing(|| format!("reading {path}"))?;
        Ok(Self {
            ticks: ticks(&stat).ok_or_else(|| Failure::new(format!("{path} reads {stat:?}")))?,
            threads: threads(pid),
        })
    }

    /// Seconds of CPU from `before` to here: exact if no thread ended in between.
    pub(crate) fn seconds_since(&self, before: &Self) -> f64 {
        let coarse = (self.ticks - before.ticks) as f64 * TICK_S;
        let stayed = before.threads.keys().all(|thread| self.threads.contains_key(thread));
        let exact = self
            .threads
            .iter()
            .map(|(thread, ns)| ns - before.threads.get(thread).copied().unwrap_or_default());
        let exact = exact.sum::<u64>() as f64 / 1e9;
        // A thread that came and went in between would be missed: the coarse figure shows it.
        let agrees = (exact - coarse).abs() < 3.0 * TICK_S + coarse * 0.02;
        if stayed && agrees { exact } else { coarse }
    }
}

/// utime + stime: fields 14 and 15, counted behind the name, which may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Time on a CPU by thread; empty on a kernel without schedstat.
fn threads(pid: u32) -> BTreeMap<u32, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| {
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ns = schedstat.split(' ').next()?.parse().ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, ns))
    });
    times.collect()
}

// === impl Memory ===

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).doing(|| format!("reading {path}"))?;
        let bytes = |key| kilobytes(&status, key).map(|kilobytes| kilobytes << 10);
        match (bytes("VmRSS:"), bytes("VmHWM:")) {
            (Some(resident), Some(peak)) => Ok(Self { resident, peak }),
            _ => Err(Failure::new(format!("{path} tells no memory: has the process ended?"))),
        }
    }
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 4 0";
        assert_eq!(ticks(&format!("77 (a b) c) {rest}")), Some(154));
        assert_eq!(ticks("77 nonsense"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(1024));
        assert!(Memory::of(std::process::id()).unwrap().resident > 1 << 20);
    }

    #[test]
    fn work_takes_time() {
        let before = Cpu::of(std::process::id()).unwrap();
        let mut sum = 0u64;
        for number in 0..30_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        let seconds = Cpu::of(std::process::id()).unwrap().seconds_since(&before);
        assert!(seconds > 0.0, "{seconds} for {sum}");
    }

    #[test]
    fn a_thread_that_ended_leaves_the_coarse_figure() {
        let cpu = |ticks, threads: &[(u32, u64)]| Cpu {
            ticks,
            threads: threads.iter().copied().collect(),
        };
        let before = cpu(100, &[(1, 1_000_000_000), (2, 5)]);
        assert_eq!(cpu(300, &[(1, 1_500_000_000)]).seconds_since(&before), 2.0);
        assert_eq!(cpu(300, &[(1, 3_001_000_000), (2, 5)]).seconds_since(&before), 2.001);
    }
}
