//! Tests of the fleet with shell scripts as its processes, and of what it says about them.

use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::run::balance::FleetLedger;
use crate::run::control::{Command, Verb};
use crate::run::table::{self, Around};
use crate::stats::LedgerReport;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: crate::run::RunOptions,
}

const LISTENING: &str = r#"echo '{"listening":{"otlpGrpc":"127.0.0.1:1","admin":"127.0.0.1:2"}}'"#;

/// A script that listens, and on SIGTERM tells `ledger` and exits with `code`.
fn role_script(ledger: &LedgerReport, code: i32) -> String {
    let ledger = serde_json::to_string(&Report::Ledger(ledger.clone())).unwrap();
    format!(
        "trap 'echo \"$LEDGER\"; exit {code}' TERM; LEDGER='{ledger}'; {LISTENING}; \
         while :; do sleep 0.01; done"
    )
}

fn spec(role: Role, index: usize, script: &str) -> Spec {
    Spec {
        identity: format!("{}-{index}", role.name()),
        role,
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".into(), script.into()],
    }
}

fn plan() -> Plan {
    let options = CommandLine::try_parse_from(["run", "examples/shop.yaml"]).unwrap();
    let manifest = include_str!("../../../../examples/shop.yaml");
    Plan::new(&options.options, &ringtail_crds::validate(manifest).unwrap(), &[]).unwrap()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

async fn fleet_of(scripts: &[(Role, String)]) -> (Fleet, Screen) {
    let (mut fleet, mut screen) = (Fleet::empty(), Screen::open());
    for (index, (role, script)) in scripts.iter().enumerate() {
        fleet.spawn(&spec(*role, index, script)).await.unwrap();
    }
    fleet.await_addresses(deadline(), &mut screen).await.unwrap();
    (fleet, screen)
}

fn agent_ledger() -> LedgerReport {
    let mut ledger = LedgerReport { out: 10, ..LedgerReport::default() };
    ledger.received.clients = 12;
    ledger.refused.insert("invalidTraceId".to_owned(), 2);
    ledger.settle()
}

fn gateway_ledger() -> LedgerReport {
    let mut ledger = LedgerReport { kept: 4, sampled_away: 6, ..LedgerReport::default() };
    ledger.received.peers = 10;
    let exporter = ledger.exporters.entry("tempo".to_owned()).or_default();
    (exporter.received, exporter.sent) = (4, 4);
    ledger.settle()
}

#[tokio::test]
async fn a_fleet_that_balances_says_so() {
    let (mut fleet, mut screen) = fleet_of(&[
        (Role::Gateway, role_script(&gateway_ledger(), 0)),
        (Role::Agent, role_script(&agent_ledger(), 0)),
    ])
    .await;
    fleet.stop(&mut screen).await;
    let ledger = FleetLedger::of(fleet.members());
    assert!(ledger.balances(), "{:?}", ledger.problems);
    let text = ledger.lines().join("\n");
    assert!(text.contains("agents    in 12 = out 10 + refused 2 (invalidTraceId 2)"), "{text}");
    assert!(text.contains("gateways  in 10 = kept 4 + sampled away 6"), "{text}");
}

#[tokio::test]
async fn log_records_have_books_of_their_own() {
    let with = |spans: LedgerReport, logs: &LedgerReport| spans.with_logs(Some(logs.clone()));
    let mut lost = gateway_ledger();
    (lost.received.peers, lost.sampled_away) = (9, 5);
    for (logs, problems) in [
        (gateway_ledger(), vec![]),
        (lost.settle(), vec!["10 log records were handed over, gateways took 9"]),
    ] {
        let (mut fleet, mut screen) = fleet_of(&[
            (Role::Gateway, role_script(&with(gateway_ledger(), &logs), 0)),
            (Role::Agent, role_script(&with(agent_ledger(), &agent_ledger()), 0)),
        ])
        .await;
        fleet.stop(&mut screen).await;
        let ledger = FleetLedger::of(fleet.members());
        assert_eq!(ledger.problems, problems);
        let text = ledger.lines().join("\n");
        assert!(text.contains("ledger (log records)\n  agents    in 12 = out 10"), "{text}");
    }
}

#[tokio::test]
async fn what_does_not_add_up_is_named() {
    let mut short = gateway_ledger();
    short.received.peers = 9;
    short.sampled_away = 5;
    let mut wrong = agent_ledger();
    wrong.out = 9;
    let mut lossy = gateway_ledger();
    lossy.exporters.values_mut().for_each(|exporter| (exporter.received, exporter.sent) = (3, 3));
    #[rustfmt::skip]
    let cases = [
        (short.settle(), agent_ledger(), 0, "10 spans were handed over, gateways took 9"),
        (gateway_ledger(), wrong.settle(), 1, "agent-1 does not balance: 12 in, 11 explained"),
        (lossy.settle(), agent_ledger(), 0, "4 spans were kept, exporter tempo was given 3"),
        (gateway_ledger(), agent_ledger(), 3, "agent-1 ended with exit status: 3"),
    ];
    for (gateway, agent, code, expected) in cases {
        let (mut fleet, mut screen) = fleet_of(&[
            (Role::Gateway, role_script(&gateway, 0)),
            (Role::Agent, role_script(&agent, code)),
        ])
        .await;
        fleet.stop(&mut screen).await;
        let problems = FleetLedger::of(fleet.members()).problems;
        assert!(problems.iter().any(|problem| problem == expected), "{expected}: {problems:?}");
    }
}

#[tokio::test]
async fn a_process_that_does_not_start_ends_the_wait() {
    let (mut fleet, mut screen) = (Fleet::empty(), Screen::open());
    fleet.spawn(&spec(Role::Gateway, 0, "echo 'address in use' >&2; exit 1")).await.unwrap();
    let error = fleet.await_addresses(deadline(), &mut screen).await.unwrap_err();
    assert!(
        matches!(&error, RunError::Ended { identity, .. } if identity == "gateway-0"),
        "{error}"
    );
}

#[tokio::test]
async fn a_process_that_dies_is_a_problem() {
    let dying = format!("{LISTENING}; kill -9 $$");
    let (mut fleet, mut screen) = fleet_of(&[(Role::Gateway, dying)]).await;
    while fleet.members[0].ended.is_none() {
        let event = fleet.next_event().await.unwrap();
        fleet.note(event, &mut screen);
    }
    fleet.stop(&mut screen).await;
    let problems = FleetLedger::of(fleet.members()).problems.join("; ");
    assert!(problems.contains("gateway-0 ended with signal: 9"), "{problems}");
    assert!(problems.contains("gateway-0 told no ledger"), "{problems}");
    let shown = {
        let around = Around { elapsed: Duration::from_secs(65), ..Around::default() };
        table::line(fleet.members(), &around)
    };
    assert!(shown.starts_with("01:05  0 spans in"), "{shown}");
}

#[tokio::test]
async fn one_that_somebody_wanted_killed_is_no_problem() {
    let mut survivor = gateway_ledger();
    (survivor.received.peers, survivor.sampled_away) = (7, 3);
    let (mut fleet, mut screen) = fleet_of(&[
        (Role::Gateway, role_script(&gateway_ledger(), 0)),
        (Role::Gateway, role_script(&survivor.settle(), 0)),
        (Role::Agent, role_script(&agent_ledger(), 0)),
    ])
    .await;
    let plan = plan();
    for (verb, name, answer) in [
        (Verb::Freeze, Some("gateway-0"), "gateway-0 is frozen"),
        (Verb::Thaw, None, "gateway-0 goes on"),
    ] {
        let command = Command { verb, gateway: name.map(str::to_owned) };
        let outcome = fleet.obey(&command, &plan).await;
        assert!(matches!(&outcome, Ok(Outcome::Done(text)) if text == answer), "{outcome:?}");
    }
    let outcome = fleet.obey(&Command::of(Verb::Kill), &plan).await;
    let Ok(Outcome::Promised(promise)) = outcome else { panic!("{outcome:?}") };
    while fleet.redeem(&promise).is_none() {
        let event = fleet.next_event().await.unwrap();
        fleet.note(event, &mut screen);
    }
    assert_eq!(fleet.redeem(&promise), Some(Ok("gateway-0 is killed".to_owned())));
    fleet.stop(&mut screen).await;
    let ledger = FleetLedger::of(fleet.members());
    assert!(ledger.balances(), "{:?}", ledger.problems);
    let text = ledger.lines().join("\n");
    assert!(
        text.contains("gateway-0 was killed and told no ledger: 3 spans lay with it"),
        "{text}"
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let (mut fleet, mut screen) = fleet_of(&[
        (Role::Gateway, role_script(&gateway_ledger(), 0)),
        (Role::Agent, role_script(&agent_ledger(), 0)),
    ])
    .await;
    let plan = plan();
    fleet.obey(&Command::of(Verb::Freeze), &plan).await.unwrap();
    #[rustfmt::skip]
    let cases = [
        ("kill gateway-9", "no gateway is called gateway-9; there are gateway-0"),
        ("kill agent-1", "agent-1 is an agent; only gateways can be asked to kill"),
        ("add gateway-0", "gateway-0 runs already"),
        ("drain gateway-0", "gateway-0 is frozen; thaw it first"),
        ("freeze", "no gateway is left that runs"),
    ];
    for (line, expected) in cases {
        let outcome = fleet.obey(&Command::parse(line).unwrap(), &plan).await;
        assert_eq!(outcome.unwrap_err(), expected, "{line}");
    }
    // A fleet that ends wakes those that stand still.
    fleet.stop(&mut screen).await;
    let outcome = fleet.obey(&Command::parse("kill gateway-0").unwrap(), &plan).await;
    assert_eq!(outcome.unwrap_err(), "gateway-0 has ended: left");
}

#[tokio::test]
async fn whoever_ignores_sigterm_is_killed() {
    let deaf = format!("trap '' TERM; {LISTENING}; while :; do sleep 0.01; done");
    let (mut fleet, mut screen) = fleet_of(&[(Role::Agent, deaf)]).await;
    let patience = Duration::from_millis(200);
    assert!(tokio::time::timeout(patience, fleet.stop(&mut screen)).await.is_err());
    fleet.kill(&mut screen).await;
    assert!(fleet.members[0].ended.is_some());
}

#[tokio::test]
async fn a_dropped_fleet_closes_the_pipe_of_its_children() {
    let file = std::env::temp_dir().join(format!("ringtail-fleet-{}", std::process::id()));
    // `read` returns when stdin ends, which a child with `--exit-with-parent` takes for SIGTERM. The inner
    // shell outlives the kill of the outer one, as a child outlives a parent that is killed.
    let waiter = format!("(exec 0<&3; read line; : > '{}') &", file.display());
    let script = format!("exec 3<&0; {waiter} {LISTENING}; wait");
    let (fleet, _) = fleet_of(&[(Role::Agent, script)]).await;
    drop(fleet);
    while !file.exists() {
        sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(file).unwrap();
}
