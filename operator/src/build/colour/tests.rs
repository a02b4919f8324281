//! Which Deployments there are, situation by situation.

use super::*;
use Colour::{Blue, Green, Plain};
use UpdateType::{BlueGreen, RollingUpdate};

mod simulation; // rollouts from beginning to end, whatever comes in between

const NAME: &str = "shop-gateway";
const REPLICAS: i32 = 3;

/// What gateways say of their ring.
#[derive(Clone, Copy, Debug)]
enum Ring {
    /// No gateway can be asked, and so many are being deleted.
    Unknown(u32),
    /// So many of each colour are in it, and so many on their way out.
    Has([usize; 3], u32),
}
use Ring::{Has, Unknown};

/// A template by its letter, the replicas that are wanted, pods, and those of them that are ready.
type Set = (Colour, &'static str, [i32; 3]);
/// A colour, its replicas, and whether it gets the wanted template.
type Ordered = (Colour, i32, bool);

struct Case {
    name: &'static str,
    update: UpdateType,
    template: &'static str,
    sets: &'static [Set],
    ring: Ring,
    orders: &'static [Ordered],
}

fn live(sets: &[Set], ring: Ring) -> Live {
    let workload = |(_, template, [desired, present, ready]): &Set| Workload {
        template_hash: Some((*template).to_owned()),
        desired: *desired,
        present: *present,
        ready: *ready,
        updated: *present,
        available: *ready,
        observed: true,
        ..Workload::default()
    };
    let mut live = Live {
        deployments: sets.iter().map(|set| (set.0.deployment(NAME), workload(set))).collect(),
        ..Live::default()
    };
    match ring {
        Unknown(leaving) => live.leaving_gateways = leaving,
        Has(members, draining) => {
            live.ring_draining = draining;
            for (colour, count) in Colour::ALL.into_iter().zip(members) {
                let pod = |n| format!("{}-6d4cf56db6-{n}xk2z", colour.deployment(NAME));
                live.ring_members.extend((0..count).map(pod));
            }
        }
    }
    live
}

#[test]
fn one_safe_step_from_wherever_it_is() {
    for case in CASES {
        let Case { name, update, template, sets, ring, orders } = case;
        let wanted =
            Wanted { name: NAME, template_hash: template, replicas: REPLICAS, update: *update };
        let planned: Vec<Ordered> = plan(wanted, &live(sets, *ring))
            .into_iter()
            .map(|(colour, order)| (colour, order.replicas, order.template == Template::Wanted))
            .collect();
        assert_eq!(planned, *orders, "{name}");
    }
}

const CASES: &[Case] = &[
    Case {
        name: "a new pipeline, one Deployment",
        update: RollingUpdate,
        template: "a",
        sets: &[],
        ring: Unknown(0),
        orders: &[(Plain, 3, true)],
    },
    Case {
        name: "a rolling update is the Deployment's own business",
        update: RollingUpdate,
        template: "b",
        sets: &[(Plain, "a", [3, 3, 3])],
        ring: Has([3, 0, 0], 0),
        orders: &[(Plain, 3, true)],
    },
    Case {
        name: "a new pipeline, with colours",
        update: BlueGreen,
        template: "a",
        sets: &[],
        ring: Unknown(0),
        orders: &[(Blue, 3, true)],
    },
    Case {
        name: "nothing to do",
        update: BlueGreen,
        template: "a",
        sets: &[(Green, "a", [3, 3, 3])],
        ring: Has([0, 0, 3], 0),
        orders: &[(Green, 3, true)],
    },
    Case {
        name: "a new template comes as the other colour",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [3, 3, 3])],
        ring: Has([0, 3, 0], 0),
        orders: &[(Blue, 3, false), (Green, 3, true)],
    },
    Case {
        name: "while it is not ready nothing shrinks",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [3, 3, 3]), (Green, "b", [3, 3, 2])],
        ring: Has([0, 3, 2], 0),
        orders: &[(Blue, 3, false), (Green, 3, true)],
    },
    Case {
        name: "ready is not enough: it must be in the ring",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [3, 3, 3]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 3, 2], 0),
        orders: &[(Blue, 3, false), (Green, 3, true)],
    },
    Case {
        name: "all of it is in the ring: the first one goes",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [3, 3, 3]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 3, 3], 0),
        orders: &[(Blue, 2, false), (Green, 3, true)],
    },
    Case {
        name: "nobody can be asked: ready has to do",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [3, 3, 3]), (Green, "b", [3, 3, 3])],
        ring: Unknown(0),
        orders: &[(Blue, 2, false), (Green, 3, true)],
    },
    Case {
        name: "the next one waits until the last has left the ring",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [2, 2, 2]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 3, 3], 0),
        orders: &[(Blue, 2, false), (Green, 3, true)],
    },
    Case {
        name: "and has handed on what it held",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [2, 2, 2]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 2, 3], 1),
        orders: &[(Blue, 2, false), (Green, 3, true)],
    },
    Case {
        name: "or, if nobody can be asked, is gone",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [2, 2, 2]), (Green, "b", [3, 3, 3])],
        ring: Unknown(1),
        orders: &[(Blue, 2, false), (Green, 3, true)],
    },
    Case {
        name: "the Deployment has not done the last step",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [2, 3, 3]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 2, 3], 0),
        orders: &[(Blue, 2, false), (Green, 3, true)],
    },
    Case {
        name: "then it goes",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [2, 2, 2]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 2, 3], 0),
        orders: &[(Blue, 1, false), (Green, 3, true)],
    },
    Case {
        name: "the new ones falter: the old ones stay",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [1, 1, 1]), (Green, "b", [3, 3, 2])],
        ring: Has([0, 1, 3], 0),
        orders: &[(Blue, 1, false), (Green, 3, true)],
    },
    Case {
        name: "the last one drains",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [0, 0, 0]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 0, 3], 1),
        orders: &[(Blue, 0, false), (Green, 3, true)],
    },
    Case {
        name: "the empty Deployment goes",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [0, 0, 0]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 0, 3], 0),
        orders: &[(Green, 3, true)],
    },
    Case {
        name: "a change of mind before the new ones are up: in their place",
        update: BlueGreen,
        template: "c",
        sets: &[(Blue, "a", [3, 3, 3]), (Green, "b", [3, 3, 1])],
        ring: Has([0, 3, 1], 0),
        orders: &[(Blue, 3, false), (Green, 3, true)],
    },
    Case {
        name: "a change of mind while the old ones go: in theirs",
        update: BlueGreen,
        template: "c",
        sets: &[(Blue, "a", [1, 1, 1]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 1, 3], 0),
        orders: &[(Blue, 3, true), (Green, 3, false)],
    },
    Case {
        name: "back to the old template: the old ones stay, the new ones go",
        update: BlueGreen,
        template: "a",
        sets: &[(Blue, "a", [3, 3, 3]), (Green, "b", [3, 3, 1])],
        ring: Has([0, 3, 1], 0),
        orders: &[(Blue, 3, true), (Green, 2, false)],
    },
    Case {
        name: "back to the old template, when some of the old ones are gone",
        update: BlueGreen,
        template: "a",
        sets: &[(Blue, "a", [1, 1, 1]), (Green, "b", [3, 3, 3])],
        ring: Has([0, 1, 3], 0),
        orders: &[(Blue, 3, true), (Green, 3, false)],
    },
    Case {
        name: "what never worked is mended in its place",
        update: BlueGreen,
        template: "b",
        sets: &[(Blue, "a", [3, 3, 0])],
        ring: Unknown(0),
        orders: &[(Blue, 3, true)],
    },
    Case {
        name: "from one Deployment to colours: the same template, other pods",
        update: BlueGreen,
        template: "a",
        sets: &[(Plain, "a", [3, 3, 3])],
        ring: Has([3, 0, 0], 0),
        orders: &[(Plain, 3, false), (Blue, 3, true)],
    },
    Case {
        name: "from colours to one Deployment",
        update: RollingUpdate,
        template: "a",
        sets: &[(Plain, "a", [3, 3, 3]), (Green, "a", [3, 3, 3])],
        ring: Has([3, 0, 3], 0),
        orders: &[(Plain, 3, true), (Green, 2, false)],
    },
    Case {
        name: "three of them: one gateway at a time over all",
        update: RollingUpdate,
        template: "c",
        sets: &[(Plain, "c", [3, 3, 3]), (Blue, "a", [2, 2, 2]), (Green, "b", [1, 1, 1])],
        ring: Has([3, 2, 1], 0),
        orders: &[(Plain, 3, true), (Blue, 1, false), (Green, 1, false)],
    },
    Case {
        name: "a pod of one colour is not a pod without",
        update: RollingUpdate,
        template: "a",
        sets: &[(Plain, "a", [3, 3, 3]), (Blue, "a", [3, 3, 3])],
        ring: Has([0, 3, 0], 0),
        orders: &[(Plain, 3, true), (Blue, 3, false)],
    },
];
