//! The churn bench works: one short scenario from its first span to its report.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn a_fleet_under_load_loses_a_gateway_and_nothing_else() {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("churn");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_ringtail-bench"));
    bench.args(["churn", "--only", "sigterm", "--contender", "ringtail", "--rounds", "1"]);
    bench.args(["--decision-wait", "4", "--spread", "1", "--rate", "400"]);
    bench.arg("--output").arg(&output);
    let told = bench.output().unwrap();
    let words = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{words}");
    let table = String::from_utf8(told.stdout).unwrap();
    assert!(table.contains("| SIGTERM of 1 of 3 | ringtail |"), "{table}");
    let lines = std::fs::read_to_string(output.join("churn.jsonl")).unwrap();
    let trial: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let verdict = &trial["verdict"];
    assert_eq!(verdict["whole"], verdict["wanted"], "{trial:#}");
    assert!(verdict["wanted"].as_u64().unwrap() > 100, "{trial:#}");
    assert!(trial["handedOverSpans"].as_u64().unwrap() > 0, "{trial:#}");
}
