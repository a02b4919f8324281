//! When a record may be taken, and when leadership ends by the clock.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use kube::client::Body;
use serde_json::json;

use super::*;

fn lease(holder: &str, version: &str) -> Lease {
    Lease {
        metadata: ObjectMeta {
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            // By the clock of another machine, which is wrong.
            renew_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            ..LeaseSpec::default()
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_taken_when_it_has_not_changed_for_as_long_as_it_promises() {
    let mut seen = None;
    let steps = [
        ("first sight", 0, lease("other", "1"), false),
        ("renewed in time", 14, lease("other", "2"), false),
        ("not yet", 14, lease("other", "2"), false),
        ("one second later", 1, lease("other", "2"), true),
        ("taken by a third", 0, lease("third", "3"), false),
        ("given back", 0, lease("", "4"), true),
        ("ours from before", 0, lease("me", "5"), true),
    ];
    for (step, wait, record, may) in steps {
        tokio::time::advance(Duration::from_secs(wait)).await;
        assert_eq!(may_take(&record, "me", &mut seen), may, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_term_ends_by_the_clock_alone() {
    let leading = Leadership::Leading { until: Moment::now().after(RENEW_DEADLINE) };
    assert!(leading.may_write());
    // As after SIGCONT: nothing has run meanwhile that could have told.
    tokio::time::advance(RENEW_DEADLINE).await;
    assert!(!leading.may_write());
    assert!(!Leadership::Unknown.may_write());
    assert!(!Leadership::Lost.may_write());
    assert!(!Leadership::Standby { holder: "other".to_owned() }.may_write());
}

/// A renewal that was sent before the signal is stored after the lease was read to be given back.
#[tokio::test(start_paused = true)]
async fn a_renewal_under_way_does_not_keep_the_lease() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let answer = move |request: http::Request<Body>| {
        let spoiled = request.method() == "PUT" && counted.fetch_add(1, Relaxed) == 0;
        let (code, body) = match spoiled {
            true => (409, json!({"kind": "Status", "status": "Failure", "code": 409})),
            false => (200, json!(lease("me", "2"))),
        };
        let response =
            http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    };
    let client = Client::new(tower::service_fn(answer), "ringtail-system");
    let (state, _) = watch::channel(Leadership::Leading { until: Moment::now() });
    let candidate = Candidate::new(client, "ringtail-system", "ringtail-operator", "me", state);
    candidate.release().await;
    assert_eq!(tries.load(Relaxed), 2);
}
