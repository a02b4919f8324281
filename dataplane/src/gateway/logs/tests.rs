//! What becomes of records that wait, in virtual time.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message as _;

use super::*;

const WAIT: Duration = Duration::from_secs(30);
const SLACKED: Duration = Duration::from_millis(30_000 + SLACK);

/// Logs that forward to nobody, with the way in of verdicts.
fn start(undecided: Undecided, hold_bytes: u64) -> (Arc<Logs>, Verdicts) {
    let config = Config { exporters: Vec::new(), undecided: Some(undecided), hold_bytes };
    let (verdicts, told) = channel(Some(&config));
    let logs = Logs::start(&config, (KeySeed::new([1; 16]), None), (Clock::start(), WAIT), told);
    (logs, verdicts.unwrap())
}

/// Takes a record of each of these traces, with a text of so many bytes; none of trace 0.
fn take(logs: &Logs, traces: &[u8], bytes: usize) -> Vec<TraceKey> {
    let record = |trace: &u8| LogRecord {
        trace_id: vec![*trace; 16],
        severity_text: "x".repeat(bytes),
        ..LogRecord::default()
    };
    let log_records = traces.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let request = ExportLogsServiceRequest { resource_logs }.encode_to_vec().into();
    logs.counters.from_clients.fetch_add(traces.len() as u64, Relaxed);
    logs.hold(logs.waiting.as_ref().unwrap(), &request)
}

/// Kept, sampled away, dropped and held.
fn fates(logs: &Logs) -> (u64, u64, u64, u64) {
    let report = logs.report();
    assert!(report.balanced, "{report:?}");
    let dropped = report.dropped.get("undecided").copied().unwrap_or(0);
    (report.kept, report.sampled_away, dropped, report.held)
}

fn early(logs: &Logs) -> u64 {
    logs.waiting.as_ref().unwrap().early.load(Relaxed)
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_verdict_frees_its_records_and_no_others() {
    let (logs, verdicts) = start(Undecided::Drop, 1 << 20);
    let keys = take(&logs, &[1, 2, 3, 1, 0], 9);
    assert_eq!(keys.len(), 3, "each trace is asked about once");
    pass(2 * TICK).await;
    assert_eq!(fates(&logs), (1, 0, 0, 4), "a record of no trace waits for nothing");
    let seed = KeySeed::new([1; 16]);
    verdicts.tell(seed.key(&[1; 16]), true);
    verdicts.tell(seed.key(&[2; 16]), false);
    pass(2 * TICK).await;
    assert_eq!(fates(&logs), (3, 1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_undecided_goes_by_the_rule_and_not_before_its_time() {
    for (rule, kept, dropped) in [(Undecided::Keep, 2, 0), (Undecided::Drop, 0, 2)] {
        let (logs, _verdicts) = start(rule, 1 << 20);
        take(&logs, &[1, 2], 9);
        pass(SLACKED - TICK).await;
        assert_eq!(fates(&logs), (0, 0, 0, 2), "{rule:?}");
        pass(3 * TICK).await;
        assert_eq!(fates(&logs), (kept, 0, dropped, 0), "{rule:?}");
        let waiting = logs.waiting.as_ref().unwrap();
        assert_eq!(waiting.undecided_kept.load(Relaxed), kept);
        assert_eq!((early(&logs), waiting.bytes()), (0, 0));
        // A shorter wait is for what waits already.
        take(&logs, &[1], 9);
        logs.set_decision_wait(Duration::from_secs(1));
        pass(Duration::from_millis(1_000 + SLACK) + 2 * TICK).await;
        assert_eq!(fates(&logs).3, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_gives_way_when_there_is_no_room() {
    let (logs, verdicts) = start(Undecided::Drop, 64 << 10);
    for trace in 1..=100 {
        take(&logs, &[trace], 2_000);
        assert!(logs.waiting.as_ref().unwrap().bytes() <= 64 << 10);
    }
    let (_, _, dropped, held) = fates(&logs);
    assert_eq!((dropped, early(&logs)), (100 - held, dropped));
    assert!(held > 10, "{held}");
    // The youngest are those that are left.
    for trace in 1..=100 {
        verdicts.tell(KeySeed::new([1; 16]).key(&[trace; 16]), trace > 90);
    }
    pass(2 * TICK).await;
    assert_eq!(fates(&logs), (10, held - 10, dropped, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_last_verdicts_are_followed_and_the_rest_is_undecided() {
    let (logs, verdicts) = start(Undecided::Keep, 1 << 20);
    take(&logs, &[1, 2, 3], 9);
    verdicts.tell(KeySeed::new([1; 16]).key(&[1; 16]), false);
    drop(verdicts);
    logs.finish(Instant::now()).await;
    assert_eq!((fates(&logs), early(&logs)), ((2, 1, 0, 0), 2));
}

#[tokio::test(start_paused = true)]
async fn verdicts_that_nobody_follows_take_no_more_memory_and_their_records_are_undecided() {
    let (logs, verdicts) = start(Undecided::Drop, 1 << 20);
    let seed = KeySeed::new([1; 16]);
    take(&logs, &[1, 2], 9);
    verdicts.tell(seed.key(&[1; 16]), true);
    for _ in 1..TOLD_MAX {
        verdicts.tell(seed.key(&[9; 16]), true);
    }
    verdicts.tell(seed.key(&[2; 16]), true);
    pass(SLACKED + 2 * TICK).await;
    assert_eq!(fates(&logs), (1, 0, 1, 0));
}
