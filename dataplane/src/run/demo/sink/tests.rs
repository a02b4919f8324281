//! The shop against the backend, with nothing between them: the two must agree about every trace.

use std::time::Duration;

use ringtail_engine::policy::{Policy, Role, Rule, compile};
use tokio::time::Instant;

use super::*;
use crate::run::demo::AgentAddress;
use crate::run::demo::report::Report;
use crate::run::demo::shop::Shop;

#[tokio::test]
async fn what_the_shop_says_it_sent_arrives() {
    let policies = [Policy { name: "all".into(), role: Role::Vote, rule: Rule::AlwaysSample }];
    let (stop, stopping) = watch::channel(false);
    let (intake, requests) = mpsc::channel(REQUESTS_MAX);
    let intake = Intake(intake);
    let agent = AgentAddress {
        grpc: listen(Protocol::Grpc, intake.clone(), stopping.clone()).await.unwrap(),
        http: listen(Protocol::Http, intake, stopping).await.unwrap(),
    };
    let arrivals = Arc::new(Mutex::new(Arrivals::new(compile(&policies).unwrap())));
    let writer = tokio::spawn(write_down(Arc::clone(&arrivals), requests));
    let closes = Instant::now() + Duration::from_millis(1_500);
    let mut shop = Shop::open(&[agent, agent], Some(closes)).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    shop.close().await;
    stop.send_replace(true);
    writer.await.unwrap();
    let (arrivals, closed) = (arrivals.lock().unwrap(), shop.into_closed());
    let report = Report::compare(&closed, &arrivals, &policies, false);
    let made: u64 = closed.sent.iter().map(|sent| u64::from(sent.spans)).sum();
    assert!(report.satisfied(), "{}", report.lines().join("\n"));
    assert!(closed.sent.len() > 10, "only {} traces", closed.sent.len());
    assert_eq!(made, arrivals.spans());
}
