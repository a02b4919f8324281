//! The generator against a server in the same process: what it is told, it must do, and count.

use std::rc::Rc;

use ringtail_engine::scan::{self, Group, Shape, Visit};
use tokio::net::TcpListener;

use super::*;
use crate::check::{Check, Report};
use crate::local;
use crate::server::{Received, Refusal, serve};
use crate::truth::{Policies, TraceId};

/// Sends `options` to a server that answers request number n as `answer(n)` says; checks what it took.
fn exchange(
    change: impl FnOnce(&mut Options),
    answer: impl Fn(u64) -> Option<u32> + 'static,
) -> (Value, Report) {
    let run = local::run(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = options(listener.local_addr().unwrap());
        change(&mut options);
        let check = Rc::new(RefCell::new(Check::new(World::new(options.seed)).unwrap()));
        let (requests, checked) = (Cell::new(0), Rc::clone(&check));
        let take = move |received: Received| {
            requests.set(requests.get() + 1);
            if let Some(code) = answer(requests.get()) {
                return Err(Refusal(code, "not now".into()));
            }
            scan::walk(&received.payload, &Shape::UNKNOWN, &mut Noting(&mut checked.borrow_mut()))
                .map_err(|error| Refusal(code::INVALID_ARGUMENT, error.to_string()))
        };
        tokio::task::spawn_local(serve(listener, Rc::new(take)));
        let summary = run(options).await?;
        let sent = 0..summary["traces"]["end"].as_u64().unwrap();
        let report = check.borrow().report(&[sent], &Policies::EVERYTHING);
        Ok((summary, report))
    });
    run.unwrap()
}

struct Noting<'a>(&'a mut Check);

impl Visit for Noting<'_> {
    fn group(&mut self, _: &Group<'_>) {}

    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        self.0.note(id, span);
    }
}

fn options(target: SocketAddr) -> Options {
    Options {
        targets: vec![target],
        spans: 80,
        fragments: 1,
        lag: 1,
        gzip: None,
        distinct: 64,
        connections: 2,
        in_flight: 4,
        rate: None,
        seconds: None,
        traces: Some(200),
        first: 0,
        seed: 5,
        retry_for: 10.0,
    }
}

#[test]
fn all_loads_arrive_whole() {
    let loads: [fn(&mut Options); 4] = [
        |_| {},
        |options| options.fragments = 8,
        |options| options.gzip = Some(1),
        |options| options.rate = Some(20_000.0),
    ];
    for (number, load) in loads.into_iter().enumerate() {
        let (summary, report) = exchange(load, |_| None);
        assert!(report.right, "load {number}: {report:?}");
        assert_eq!(summary["failed"]["requests"], 0);
        assert!(report.traces >= 200);
        assert_eq!(summary["taken"]["spans"], report.traces * SPANS as u64);
    }
}

#[test]
fn a_load_of_seconds_ends_with_whole_traces() {
    let change = |options: &mut Options| {
        (options.traces, options.seconds, options.fragments) = (None, Some(0.2), 4);
    };
    let (summary, report) = exchange(change, |_| None);
    assert!(report.right && report.traces > 0, "{report:?}");
    assert!(summary["seconds"].as_f64().unwrap() >= 0.2);
}

#[test]
fn what_may_be_sent_again_is_sent_again() {
    let busy = |number: u64| number.is_multiple_of(3).then_some(code::UNAVAILABLE);
    let (summary, report) = exchange(|_| {}, busy);
    assert!(report.right, "{report:?}");
    assert_eq!(summary["failed"]["requests"], 0);
    assert_eq!(summary["refusals"]["14"], summary["resentRequests"]);
    assert!(summary["resentRequests"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_refused_for_good_is_not_sent_again() {
    // RESOURCE_EXHAUSTED without a time to come back is final by OTLP's rule.
    for code in [code::INVALID_ARGUMENT, code::RESOURCE_EXHAUSTED] {
        let (summary, report) = exchange(|_| {}, move |number| (number == 2).then_some(code));
        assert_eq!(
            (&summary["failed"]["requests"], &summary["resentRequests"]),
            (&1.into(), &0.into())
        );
        assert_eq!(summary["failed"]["spans"], report.missing_spans);
        assert!(!report.right);
    }
}

#[test]
fn resending_ends() {
    let change = |options: &mut Options| options.retry_for = 0.1;
    let (summary, report) = exchange(change, |_| Some(code::UNAVAILABLE));
    assert_eq!(summary["taken"]["requests"], 0);
    assert_eq!(report.missing_traces, report.traces);
}

#[test]
fn a_load_that_cannot_be_is_refused() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    for change in [
        (|options| options.fragments = 3) as fn(&mut Options),
        |options| options.spans = 81,
        |options| options.traces = None,
    ] {
        let mut options = options(address);
        change(&mut options);
        assert!(local::run(run(options)).is_err());
    }
}
