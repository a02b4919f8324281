//! Years of certificates in a moment: what is renewed when, and that nobody is ever without trust.

use kube::api::ObjectMeta;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const LIFETIMES: Lifetimes = Lifetimes { leaf: Duration::from_secs(90 * 24 * 3_600) };

fn pipeline() -> TracePipeline {
    let mut pipeline: TracePipeline = serde_json::from_value(serde_json::json!({
        "apiVersion": "ringtail.dev/v1alpha1",
        "kind": "TracePipeline",
        "metadata": {},
        "spec": {
            "sampling": {"policies": []},
            "exporters": [],
        },
    }))
    .unwrap();
    pipeline.metadata = ObjectMeta {
        name: Some("shop".to_owned()),
        namespace: Some("observability".to_owned()),
        uid: Some("u".to_owned()),
        ..ObjectMeta::default()
    };
    pipeline
}

fn applied(renewed: &Renewed) -> Present {
    let secret = |name: &str| {
        let child = renewed.secrets.iter().find(|child| child.name == name).unwrap();
        Some(serde_json::from_value(child.manifest.clone()).unwrap())
    };
    Present {
        ca: secret("shop-peer-ca"),
        gateway: secret("shop-gateway-peer-tls"),
        agent: secret("shop-agent-peer-tls"),
    }
}

fn part(secret: Option<&Secret>, key: &str) -> String {
    text(secret.unwrap(), key).unwrap()
}

// By name, which every CA has of its own, and by date.
fn trusts(leaf: &str, bundle: &str, now: SystemTime) -> bool {
    let issuer = with_certificate(leaf, |leaf| leaf.issuer().as_raw().to_vec()).unwrap();
    blocks(bundle).any(|ca| {
        with_certificate(&ca, |ca| ca.subject().as_raw().to_vec()).unwrap() == issuer
            && ends(&ca).unwrap() > now
    })
}

#[test]
fn made_once_and_then_kept_byte_for_byte() {
    let (shop, now) = (pipeline(), SystemTime::now());
    let first = renew(&shop, &Present::default(), LIFETIMES, now).unwrap();
    assert_eq!(first.made, ["CA", "gateway", "agent"]);
    assert_eq!(first.due_in.as_secs().div_ceil(24 * 3_600), 60);
    let second = renew(&shop, &applied(&first), LIFETIMES, now + HOUR).unwrap();
    assert_eq!(second.made, Vec::<&str>::new());
    assert_eq!(second.secrets, first.secrets);
}

#[test]
fn what_cannot_be_used_is_made_anew() {
    let (shop, now) = (pipeline(), SystemTime::now());
    let first = renew(&shop, &Present::default(), LIFETIMES, now).unwrap();
    let other = renew(&shop, &Present::default(), LIFETIMES, now).unwrap();
    let foreign = applied(&other);
    let (present, made): (Present, &[&str]) =
        (Present { gateway: None, ..applied(&first) }, &["gateway"]);
    assert_eq!(renew(&shop, &present, LIFETIMES, now).unwrap().made, made);
    // A key that is not the certificate's.
    let mut present = applied(&first);
    let key = foreign.agent.clone().unwrap().data.unwrap()[KEY].clone();
    present.agent.as_mut().unwrap().data.as_mut().unwrap().insert(KEY.to_owned(), key);
    assert_eq!(renew(&shop, &present, LIFETIMES, now).unwrap().made, ["agent"]);
    // A lost CA takes the leaves with it, but those that run still trust the old one while pods take over.
    let present = Present { ca: None, ..applied(&first) };
    let renewed = renew(&shop, &present, LIFETIMES, now + HOUR).unwrap();
    assert_eq!(renewed.made, ["CA", "gateway", "agent"]);
}

// Pods that took over a Secret at any time of the last lifetimes' sixth must get along with pods that have
// the newest.
#[test]
fn at_no_time_does_anybody_meet_a_certificate_that_it_does_not_trust() {
    let lifetimes = Lifetimes { leaf: 9 * HOUR };
    let shop = pipeline();
    let begin = SystemTime::now();
    let mut present = Present::default();
    let mut history: Vec<(SystemTime, Present)> = Vec::new();
    let mut authorities = 0;
    // Four lives of a CA, looked at every hour.
    for hour in 0..360 {
        let now = begin + HOUR * hour;
        let renewed = renew(&shop, &present, lifetimes, now).unwrap();
        authorities += renewed.made.iter().filter(|made| made.ends_with("CA")).count();
        present = applied(&renewed);
        history.push((now, present.clone()));
        // Kubelets are late by an hour or two.
        for (then, older) in history.iter().rev().take(3) {
            let gateway = part(present.gateway.as_ref(), CERTIFICATE);
            let old_bundle = part(older.agent.as_ref(), TRUSTED);
            assert!(
                trusts(&gateway, &old_bundle, now),
                "new leaf, bundle of {:?}",
                now.duration_since(*then)
            );
            let agent = part(older.agent.as_ref(), CERTIFICATE);
            let bundle = part(present.gateway.as_ref(), TRUSTED);
            assert!(trusts(&agent, &bundle, now), "leaf of {:?}", now.duration_since(*then));
            assert!(ends(&agent).unwrap() > now, "an ended leaf is in use");
        }
        let bundle = part(present.gateway.as_ref(), TRUSTED);
        assert!(blocks(&bundle).count() <= 3, "the bundle grows: {}", blocks(&bundle).count());
    }
    assert!((5..=8).contains(&authorities), "{authorities} CAs in four lives");
}

#[test]
fn a_leaf_is_good_for_its_tier_alone() {
    let (shop, now) = (pipeline(), SystemTime::now());
    let present = applied(&renew(&shop, &Present::default(), LIFETIMES, now).unwrap());
    for (secret, tier, serves) in
        [(&present.gateway, "gateway", true), (&present.agent, "agent", false)]
    {
        let certificate = part(secret.as_ref(), CERTIFICATE);
        let (names, server) = with_certificate(&certificate, |leaf| {
            let names = leaf.subject_alternative_name().unwrap().unwrap().value;
            let names: Vec<_> = names.general_names.iter().map(ToString::to_string).collect();
            (names.join(" "), leaf.extended_key_usage().unwrap().unwrap().value.server_auth)
        })
        .unwrap();
        assert!(names.contains(&format!("{tier}.shop.ringtail")), "{names}");
        assert_eq!(server, serves, "{tier}");
    }
}
