//! The ledger adds up, says what is off, and reads well.

use super::*;

fn full() -> Ledger {
    let mut ledger = Ledger {
        incoming: Incoming { clients: 70, peers: 25, replays: 5 },
        out: 20,
        kept: 30,
        sampled_away: 10,
        duplicate: 5,
        held: 8,
        ..Ledger::default()
    };
    ledger.refuse("queue_full", 12);
    ledger.refuse("invalid_trace_id", 3);
    ledger.drop_spans("no_gateway", 12);
    let tempo = ledger.exporter("tempo");
    (tempo.incoming, tempo.sent, tempo.held) = (30, 20, 4);
    tempo.drop_spans("rejected", 6);
    ledger
}

#[test]
fn every_entry_counts() {
    assert_eq!(full().balance(), Ok(()));
    let changes: [fn(&mut Ledger); 12] = [
        |l| l.incoming.clients += 1,
        |l| l.incoming.peers += 1,
        |l| l.incoming.replays += 1,
        |l| l.out += 1,
        |l| l.kept += 1,
        |l| l.sampled_away += 1,
        |l| l.refuse("queue_full", 1),
        |l| l.duplicate += 1,
        |l| l.drop_spans("new_reason", 1),
        |l| l.held += 1,
        |l| l.exporter("tempo").sent += 1,
        |l| l.exporter("other").drop_spans("rejected", 1),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut ledger = full();
        change(&mut ledger);
        assert!(ledger.balance().is_err(), "change {number} goes unnoticed");
    }
}

#[test]
fn merging_adds_every_entry() {
    let mut ledger = full();
    ledger.merge(&full());
    assert_eq!((ledger.balance(), ledger.incoming.total(), ledger.outgoing()), (Ok(()), 200, 200));
    assert_eq!(ledger.refused, Reasons::from([("invalid_trace_id", 6), ("queue_full", 24)]));
    assert_eq!(ledger.exporters["tempo"].outgoing(), 60);
    let mut sum = Ledger::default();
    sum.merge(&full());
    assert_eq!(sum, full());
}

#[test]
fn an_imbalance_says_what_is_off() {
    let mut ledger = full();
    ledger.exporter("tempo").held += 2;
    let text =
        "the ledger of tempo does not balance: 30 came in, 32 are accounted for (2 too many)";
    assert_eq!(ledger.balance().unwrap_err().to_string(), text);
    ledger.incoming.clients += 7;
    let text =
        "the ledger of spans does not balance: 107 came in, 100 are accounted for (7 missing)";
    assert_eq!(ledger.balance().unwrap_err().to_string(), text);
}

#[test]
fn people_get_an_aligned_table() {
    let text = "\
in                                         100
clients                                     70
peers                                       25
replays                                      5
out                                         20
kept                                        30
sampled away                                10
refused: invalid_trace_id                    3
refused: queue_full                         12
duplicate                                    5
dropped: no_gateway                         12
held                                         8
exporter tempo: in                          30
  sent                                      20
  held                                       4
  dropped: rejected                          6
balanced";
    assert_eq!(full().to_string(), text);
    assert_eq!(Ledger::default().to_string(), format!("{:<32}{:>14}\nbalanced", "in", 0));
}
