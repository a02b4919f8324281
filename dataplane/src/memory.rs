//! How much memory a process may use, and how that is shared out: one table per role.
//!
//! The limit comes from `--memory-limit`, else from the cgroup, else from a default per role. Three
//! quarters of it are the *budget*: what we account for byte by byte. The last quarter is for what no
//! program can count exactly: allocator fragmentation, socket buffers of the kernel that are charged to the
//! cgroup, thread stacks.

use std::path::Path;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// Share of the limit that is budgeted: 3/4, the Collector's advice for its memory limiter.
const BUDGET_NUM: u64 = 3;
const BUDGET_DEN: u64 = 4;
/// Runtime, connections, metrics: what an idle process of ours has for itself (measured: 9 to 13 MiB), and
/// the pages of its file, which the kernel may take back (15).
const BASE_BYTES: u64 = 24 * MIB;
/// Limit of an agent without a cgroup limit or flag: its budget is then 96 MiB.
const AGENT_DEFAULT_LIMIT: u64 = 128 * MIB;
/// Limit of a gateway without a cgroup limit or flag.
const GATEWAY_DEFAULT_LIMIT: u64 = 2048 * MIB;
/// Share of an agent's limit for what it has delivered: 1/4.
const RETENTION_SHARE: u64 = 4;
/// Share of what an agent may send that is for log records, where a pipeline has them: 1/3 (5 MiB with the
/// default limit). Bytes of their own, so that neither spans nor records take the others' room.
const LOGS_SHARE_OF_SEND: u64 = 3;
/// Share of a gateway's memory for log records that wait for a verdict: 1/8, which is 189 MiB with the
/// default limit: 40 s of 4.7 MiB/s.
const LOGS_SHARE_OF_REST: u64 = 8;
/// Share of a gateway's slack that may be buffers of export requests which wait for the next ones: half, but
/// at most what two rounds of decisions make when 150,000 spans a second come of 450 bytes and one in ten is
/// kept.
const SPARE_SHARE_OF_SLACK: u64 = 2;
const SPARE_MOST: u64 = 12 * MIB;
/// Below this a process cannot hold even one large request beside its base: 24 base + 8 receive + 16 for
/// the rest, divided by 3/4.
pub const LEAST_LIMIT: u64 = 64 * MIB;
/// A cgroup that says "no limit" writes a huge number in version 1; nothing real is that large.
const CGROUP_UNLIMITED: u64 = 1 << 50;

/// Which table applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Receives and routes.
    Agent,
    /// Buffers and decides.
    Gateway,
}

/// The budget of a process, in bytes, and what each part of it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Everything below together; resident memory stays within this.
    pub total: u64,
    /// Requests being read and inflated.
    pub receive: u64,
    /// Spans on their way to another process: an agent's batches and frames, a gateway's kept spans.
    pub send: u64,
    /// Delivered spans, to be sent again when their gateway is lost (agents).
    pub retention: u64,
    /// Undecided spans with their index (gateways).
    pub buffer: u64,
    /// Remembered decisions (gateways).
    pub decisions: u64,
    /// Series of span metrics (gateways).
    pub span_metrics: u64,
    /// Log records on their way to gateways (agents), or that wait for a verdict (gateways).
    pub logs: u64,
    /// Buffers of export requests that wait for the next ones (gateways).
    pub spare: u64,
}

/// What a manifest asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The queues of all exporters together (gateways).
    pub send: u64,
    /// Delivered spans (agents); none: a share of the limit.
    pub retention: Option<u64>,
    /// Series of span metrics (gateways): `maxSeries` times the bytes of one, times the tables of them.
    pub span_metrics: u64,
    /// Whether log records are gathered (agents), or wait for a verdict (gateways).
    pub logs: bool,
}

impl Budget {
    /// Shares out `limit` bytes.
    ///
    /// Agent: base 24 MiB, receive 1/4 of the rest (18 MiB with the default limit, so that a request of
    /// 16 MiB fits), retention what is wanted or 1/4 of the limit, but at most half of the rest, send 2/3 of
    /// what is left, and the other third slack for open batches' spare capacity and compression state.
    /// Gateway: base 24 MiB, receive 1/8 of the rest (4 MiB to 256 MiB), send what is wanted up to 1/4,
    /// decisions 1/16, span metrics what is wanted up to 1/4, log records that wait 1/8 if any do, slack 5/32
    /// (tables that double are there twice for a moment; half of it, but at most 12 MiB, may be spare
    /// buffers), and the buffer takes what is left.
    pub fn share(tier: Tier, limit: u64, wanted: Wanted) -> Self {
        let total = limit / BUDGET_DEN * BUDGET_NUM;
        let rest = total.saturating_sub(BASE_BYTES);
        match tier {
            Tier::Agent => {
                let retention = wanted.retention.unwrap_or(limit / RETENTION_SHARE).min(rest / 2);
                let receive = rest / 4;
                let both = (rest - receive - retention) / 3 * 2;
                let logs = if wanted.logs { both / LOGS_SHARE_OF_SEND } else { 0 };
                let (send, buffer, decisions, span_metrics, spare) = (both - logs, 0, 0, 0, 0);
                Self {
                    total,
                    receive,
                    send,
                    retention,
                    buffer,
                    decisions,
                    span_metrics,
                    logs,
                    spare,
                }
            }
            Tier::Gateway => {
                let receive = (rest / 8).clamp(4 * MIB, 256 * MIB);
                let send = wanted.send.min(rest / 4);
                let decisions = rest / 16;
                let slack = rest / 32 * 5;
                let spare = (slack / SPARE_SHARE_OF_SLACK).min(SPARE_MOST);
                let span_metrics = wanted.span_metrics.min(rest / 4);
                let logs = if wanted.logs { rest / LOGS_SHARE_OF_REST } else { 0 };
                let others = receive + send + decisions + span_metrics + logs + slack;
                let (retention, buffer) = (0, rest.saturating_sub(others));
                Self {
                    total,
                    receive,
                    send,
                    retention,
                    buffer,
                    decisions,
                    span_metrics,
                    logs,
                    spare,
                }
            }
        }
    }
}

/// The limit in bytes for a process of `tier`: the flag, else the cgroup, else the tier's default.
pub fn limit(tier: Tier, flag: Option<u64>) -> u64 {
    let default = match tier {
        Tier::Agent => AGENT_DEFAULT_LIMIT,
        Tier::Gateway => GATEWAY_DEFAULT_LIMIT,
    };
    flag.or_else(cgroup_limit).unwrap_or(default).max(LEAST_LIMIT)
}

/// The memory limit of this process's cgroup: version 2, else version 1; `None` when there is none.
fn cgroup_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let nested = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')).join("memory.max");
    [
        nested.as_path(),
        Path::new("/sys/fs/cgroup/memory.max"),
        Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ]
    .iter()
    .find_map(|path| parse_limit(&std::fs::read_to_string(path).ok()?))
}

fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < CGROUP_UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget() {
        for limit in [LEAST_LIMIT, 128 * MIB, 256 * MIB, 2048 * MIB, 64 * 1024 * MIB] {
            for tier in [Tier::Agent, Tier::Gateway] {
                for wanted in [0, 64 * MIB, 1 << 40] {
                    let span_metrics = wanted;
                    let (retention, logs) = (Some(wanted), wanted > 0);
                    let wanted = Wanted { send: wanted, retention, span_metrics, logs };
                    let budget = Budget::share(tier, limit, wanted);
                    let parts = budget.receive
                        + budget.send
                        + budget.retention
                        + budget.buffer
                        + budget.decisions
                        + budget.span_metrics
                        + budget.logs
                        + budget.spare;
                    assert!(parts + BASE_BYTES <= budget.total, "{tier:?} {limit} {budget:?}");
                    assert!(budget.receive >= 4 * MIB, "{tier:?} {limit} {budget:?}");
                }
            }
        }
    }

    #[test]
    fn a_cgroup_without_limit_is_no_limit() {
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("9223372036854771712\n"), None);
        assert_eq!(parse_limit("268435456\n"), Some(256 * MIB));
    }
}
