//! The rules of slices as a table, and their independence of order.

use proptest::prelude::*;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ring::{Member, View};

use super::*;

const PORTS: PortChoice<'_> = PortChoice { names: &["peer", "otlp-grpc"], otherwise: 4317 };

/// What is written of an endpoint in the table: addresses, pod ("" for none), ready, serving, terminating.
type Row<'a> = (&'a [&'a str], &'a str, Option<bool>, Option<bool>, Option<bool>);

const T: Option<bool> = Some(true);
const F: Option<bool> = Some(false);
const N: Option<bool> = None;

fn slice(ports: &[(&str, u16)], rows: &[Row<'_>]) -> Slice {
    let endpoint = |(addresses, pod, ready, serving, terminating): &Row<'_>| Endpoint {
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        pod: (!pod.is_empty()).then(|| (*pod).to_owned()),
        conditions: Conditions { ready: *ready, serving: *serving, terminating: *terminating },
    };
    Slice {
        ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
        endpoints: rows.iter().map(endpoint).collect(),
    }
}

/// `address pod standing`, one line a candidate.
fn shown(candidates: &[Candidate]) -> Vec<String> {
    let line = |c: &Candidate| {
        let pod = c.pod.as_deref().unwrap_or("-");
        format!("{} {pod} {:?}", c.address, c.standing)
    };
    candidates.iter().map(line).collect()
}

#[test]
fn the_table() {
    let grpc: &[(&str, u16)] = &[("otlp-grpc", 4317), ("otlp-http", 4318)];
    let cases: Vec<(&str, Vec<Slice>, Vec<&str>)> = vec![
        ("no slice", vec![], vec![]),
        ("a slice without endpoints", vec![slice(grpc, &[])], vec![]),
        (
            "conditions that say nothing",
            vec![slice(grpc, &[(&["10.0.0.1"], "a", N, N, N)])],
            vec!["10.0.0.1:4317 a Serving"],
        ),
        (
            "serving without a value follows ready",
            vec![slice(grpc, &[(&["10.0.0.1"], "a", F, N, N), (&["10.0.0.2"], "b", T, N, N)])],
            vec!["10.0.0.1:4317 a Starting", "10.0.0.2:4317 b Serving"],
        ),
        (
            "not ready",
            vec![slice(grpc, &[(&["10.0.0.1"], "a", F, F, F)])],
            vec!["10.0.0.1:4317 a Starting"],
        ),
        (
            "ready because the Service publishes everybody",
            vec![slice(grpc, &[(&["10.0.0.1"], "a", T, F, F), (&["10.0.0.2"], "b", T, T, F)])],
            vec!["10.0.0.1:4317 a Starting", "10.0.0.2:4317 b Serving"],
        ),
        (
            "terminating, serving or not, published or not",
            vec![slice(
                grpc,
                &[
                    (&["10.0.0.1"], "a", F, T, T),
                    (&["10.0.0.2"], "b", F, F, T),
                    (&["10.0.0.3"], "c", T, T, T),
                    (&["10.0.0.4"], "d", N, N, T),
                ],
            )],
            vec![
                "10.0.0.1:4317 a Draining",
                "10.0.0.2:4317 b Draining",
                "10.0.0.3:4317 c Draining",
                "10.0.0.4:4317 d Draining",
            ],
        ),
        (
            "two slices",
            vec![
                slice(grpc, &[(&["10.0.0.2"], "b", T, T, F)]),
                slice(grpc, &[(&["10.0.0.1"], "a", T, T, F)]),
            ],
            vec!["10.0.0.1:4317 a Serving", "10.0.0.2:4317 b Serving"],
        ),
        (
            "a pod in two slices while it moves: the more alive entry",
            vec![
                slice(grpc, &[(&["10.0.0.1"], "a", F, F, T)]),
                slice(grpc, &[(&["10.0.0.1"], "a", T, T, F)]),
            ],
            vec!["10.0.0.1:4317 a Serving"],
        ),
        (
            "a pod made anew under its name: the address that is alive",
            vec![
                slice(grpc, &[(&["10.0.0.1"], "a", F, F, F)]),
                slice(grpc, &[(&["10.0.0.9"], "a", T, T, F)]),
            ],
            vec!["10.0.0.9:4317 a Serving"],
        ),
        (
            "dual stack: one candidate, IPv4, and its slice says how it is",
            vec![
                slice(grpc, &[(&["fd00::1"], "a", T, T, F)]),
                slice(grpc, &[(&["10.0.0.1"], "a", F, T, T)]),
            ],
            vec!["10.0.0.1:4317 a Draining"],
        ),
        (
            "IPv6 alone",
            vec![slice(grpc, &[(&["fd00::1"], "a", T, T, F)])],
            vec!["[fd00::1]:4317 a Serving"],
        ),
        (
            "only the first address of an endpoint",
            vec![slice(grpc, &[(&["10.0.0.1", "10.0.0.2"], "a", T, T, F)])],
            vec!["10.0.0.1:4317 a Serving"],
        ),
        (
            "without pods",
            vec![slice(grpc, &[(&["10.0.0.2"], "", T, T, F), (&["10.0.0.1"], "", T, T, F)])],
            vec!["10.0.0.1:4317 - Serving", "10.0.0.2:4317 - Serving"],
        ),
        (
            "an address that another pod has taken over",
            vec![slice(grpc, &[(&["10.0.0.1"], "old", F, F, T), (&["10.0.0.1"], "new", T, T, F)])],
            vec!["10.0.0.1:4317 new Serving"],
        ),
        (
            "nothing to connect to",
            vec![slice(grpc, &[(&[], "a", T, T, F), (&["gateway.example"], "b", T, T, F)])],
            vec![],
        ),
        (
            "the peer port where there is one, slice by slice",
            vec![
                slice(&[("otlp-grpc", 4317), ("peer", 4319)], &[(&["10.0.0.1"], "a", T, T, F)]),
                slice(grpc, &[(&["10.0.0.2"], "b", T, T, F)]),
            ],
            vec!["10.0.0.1:4319 a Serving", "10.0.0.2:4317 b Serving"],
        ),
        (
            "an unnamed port, if it is the only one",
            vec![
                slice(&[("", 5000)], &[(&["10.0.0.1"], "a", T, T, F)]),
                slice(&[("", 5000), ("x", 5001)], &[(&["10.0.0.2"], "b", T, T, F)]),
                slice(&[], &[(&["10.0.0.3"], "c", T, T, F)]),
            ],
            vec!["10.0.0.1:5000 a Serving", "10.0.0.2:4317 b Serving", "10.0.0.3:4317 c Serving"],
        ),
    ];
    for (name, slices, expected) in cases {
        assert_eq!(shown(&candidates(&slices, PORTS)), expected, "{name}");
        let backwards: Vec<Slice> = slices.into_iter().rev().collect();
        assert_eq!(shown(&candidates(&backwards, PORTS)), expected, "{name}, backwards");
    }
}

#[test]
fn a_thousand_endpoints_in_ten_slices() {
    let endpoint = |n: usize| Endpoint {
        addresses: vec![format!("10.0.{}.{}", n / 250, n % 250)],
        pod: Some(format!("gw-{n}")),
        conditions: Conditions::default(),
    };
    let slices: Vec<Slice> = (0..10)
        .map(|slice| Slice {
            ports: vec![("otlp-grpc".to_owned(), 4317)],
            endpoints: (slice * 100..(slice + 1) * 100).map(endpoint).collect(),
        })
        .collect();
    let all = candidates(&slices, PORTS);
    assert_eq!(all.len(), 1000);
    assert!(all.is_sorted());
}

fn any_endpoint() -> impl Strategy<Value = Endpoint> {
    let condition = || prop::option::of(any::<bool>());
    let address = prop_oneof![
        (1_u8..6).prop_map(|n| format!("10.0.0.{n}")),
        (1_u8..4).prop_map(|n| format!("fd00::{n}")),
    ];
    (address, prop::option::of(0_u8..5), condition(), condition(), condition()).prop_map(
        |(address, pod, ready, serving, terminating)| Endpoint {
            addresses: vec![address],
            pod: pod.map(|n| format!("gw-{n}")),
            conditions: Conditions { ready, serving, terminating },
        },
    )
}

proptest! {
    /// The same endpoints in any order, dealt to slices in any way, give the same candidates; and members
    /// that are found in any order give the same digest.
    #[test]
    fn order_means_nothing(
        endpoints in prop::collection::vec(any_endpoint(), 0..24),
        shuffled in any::<u64>(),
        hands in 1_usize..5,
    ) {
        let deal = |endpoints: &[Endpoint], hands: usize| -> Vec<Slice> {
            let mut slices = vec![Slice::default(); hands];
            for (at, endpoint) in endpoints.iter().enumerate() {
                slices[at % hands].endpoints.push(endpoint.clone());
            }
            slices
        };
        let mut other = endpoints.clone();
        fastrand::Rng::with_seed(shuffled).shuffle(&mut other);
        let one = candidates(&deal(&endpoints, 1), PORTS);
        prop_assert_eq!(&candidates(&deal(&other, hands), PORTS), &one);

        let member = |c: &Candidate| Member { id: c.address.clone(), inst: 1 };
        let mut members: Vec<Member> = one.iter().map(member).collect();
        let seed = KeySeed::new([3; 16]);
        let digest = View::new(members.clone(), &seed).digest();
        fastrand::Rng::with_seed(shuffled).shuffle(&mut members);
        prop_assert_eq!(View::new(members, &seed).digest(), digest);
    }
}
