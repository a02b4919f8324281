//! Rollouts from beginning to end, whatever comes in between: a model of the Deployment controller, of pods
//! and of what the operator gets to see of them, late.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Leaving,
}

#[derive(Clone, Debug, PartialEq)]
struct Pod {
    template: &'static str,
    phase: Phase,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Deployment {
    template: &'static str,
    replicas: i32,
    observed: bool,
    pods: Vec<Pod>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The user wants another template.
    Template(&'static str),
    /// The user wants another strategy.
    Update(UpdateType),
    /// The operator's caches catch up.
    See,
    /// The operator asks the gateways.
    Poll,
    /// The operator reconciles.
    Reconcile,
    /// A Deployment's controller takes a step.
    Control(Colour),
    /// A pod of a colour gets ready, or is gone.
    Advance(Colour, usize),
}

struct Cluster {
    template: &'static str,
    update: UpdateType,
    can_ask: bool,
    deployments: BTreeMap<Colour, Deployment>,
    seen: Live,
}

// === impl Deployment ===

impl Deployment {
    fn count(&self, counts: impl Fn(&Pod) -> bool) -> i32 {
        i32::try_from(self.pods.iter().filter(|pod| counts(pod)).count()).unwrap()
    }

    fn ready(&self) -> i32 {
        self.count(|pod| pod.phase == Phase::Ready)
    }

    fn active(&self) -> i32 {
        self.count(|pod| pod.phase != Phase::Leaving)
    }

    /// One step of a rolling update with maxSurge 0 and maxUnavailable 1.
    fn control(&mut self) {
        self.observed = true;
        if self.active() < self.replicas {
            self.pods.push(Pod { template: self.template, phase: Phase::Starting });
            return;
        }
        let surplus = self.active() > self.replicas;
        let all_ready = self.ready() == self.active();
        let template = self.template;
        let mut candidates: Vec<_> = self
            .pods
            .iter_mut()
            .filter(|pod| {
                let old = pod.template != template;
                pod.phase != Phase::Leaving
                    && (surplus || old && (all_ready || pod.phase == Phase::Starting))
            })
            .collect();
        candidates.sort_by_key(|pod| pod.phase == Phase::Ready);
        if let Some(pod) = candidates.first_mut() {
            pod.phase = Phase::Leaving;
        }
    }

    fn advance(&mut self, index: usize) {
        let Some(pod) = self.pods.get_mut(index) else { return };
        match pod.phase {
            Phase::Starting => pod.phase = Phase::Ready,
            Phase::Ready => {}
            Phase::Leaving => {
                self.pods.remove(index);
            }
        }
    }

    fn workload(&self) -> Workload {
        Workload {
            template_hash: Some(self.template.to_owned()),
            desired: self.replicas,
            present: self.active(),
            ready: self.ready(),
            updated: self.count(|pod| pod.phase != Phase::Leaving && pod.template == self.template),
            available: self.ready(),
            observed: self.observed,
            ..Workload::default()
        }
    }
}

// === impl Cluster ===

impl Cluster {
    fn new(update: UpdateType, can_ask: bool) -> Self {
        Self { template: "a", update, can_ask, deployments: BTreeMap::new(), seen: Live::default() }
    }

    fn ready(&self) -> i32 {
        self.deployments.values().map(Deployment::ready).sum()
    }

    fn plan(&self) -> BTreeMap<Colour, Order> {
        let wanted = Wanted {
            name: NAME,
            template_hash: self.template,
            replicas: REPLICAS,
            update: self.update,
        };
        plan(wanted, &self.seen)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Template(template) => self.template = template,
            Event::Update(update) => self.update = update,
            Event::See => self.see(),
            Event::Poll => self.poll(),
            Event::Reconcile => self.reconcile(),
            Event::Control(colour) => {
                if let Some(deployment) = self.deployments.get_mut(&colour) {
                    deployment.control();
                }
            }
            Event::Advance(colour, index) => {
                if let Some(deployment) = self.deployments.get_mut(&colour) {
                    deployment.advance(index);
                }
            }
        }
    }

    fn see(&mut self) {
        let workload =
            |(colour, one): (&Colour, &Deployment)| (colour.deployment(NAME), one.workload());
        self.seen.deployments = self.deployments.iter().map(workload).collect();
        let leaving = |one: &Deployment| one.count(|pod| pod.phase == Phase::Leaving);
        let leaving: i32 = self.deployments.values().map(leaving).sum();
        self.seen.leaving_gateways = u32::try_from(leaving).unwrap();
    }

    fn poll(&mut self) {
        if !self.can_ask {
            return;
        }
        self.seen.ring_members.clear();
        self.seen.ring_draining = 0;
        for (colour, deployment) in &self.deployments {
            for (index, pod) in deployment.pods.iter().enumerate() {
                match pod.phase {
                    Phase::Starting => {}
                    Phase::Ready => {
                        let name = format!("{}-6d4cf56db6-{index}", colour.deployment(NAME));
                        self.seen.ring_members.push(name);
                    }
                    Phase::Leaving => self.seen.ring_draining += 1,
                }
            }
        }
    }

    fn reconcile(&mut self) {
        let orders = self.plan();
        for (colour, order) in &orders {
            let kept = self.deployments.get(colour).map(|deployment| deployment.template);
            let template = match order.template {
                Template::Wanted => self.template,
                Template::Kept => kept.unwrap_or(self.template),
            };
            let deployment = self.deployments.entry(*colour).or_default();
            let same = (deployment.template, deployment.replicas) == (template, order.replicas);
            (deployment.template, deployment.replicas) = (template, order.replicas);
            deployment.observed &= same;
        }
        // Deleted is what was seen, and only as it was seen: the operator names the version.
        let seen = &self.seen.deployments;
        self.deployments.retain(|colour, deployment| {
            let is_as_seen = seen.get(&colour.deployment(NAME)) == Some(&deployment.workload());
            let is_kept = orders.contains_key(colour) || !is_as_seen;
            assert!(
                is_kept || deployment.ready() == 0,
                "{colour:?} is deleted with gateways in it"
            );
            is_kept
        });
    }

    /// Until nothing changes any more.
    fn settle(&mut self) {
        let mut before = None;
        while before.as_ref() != Some(&self.deployments) {
            before = Some(self.deployments.clone());
            for colour in Colour::ALL {
                self.happen(Event::Control(colour));
                for index in [0, 1, 2, 3] {
                    self.happen(Event::Advance(colour, index));
                }
            }
            self.happen(Event::See);
            self.happen(Event::Poll);
            self.happen(Event::Reconcile);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let colour = || prop::sample::select(Colour::ALL.to_vec());
    prop_oneof![
        1 => prop::sample::select(vec!["a", "b", "c"]).prop_map(Event::Template),
        1 => prop::sample::select(vec![RollingUpdate, BlueGreen]).prop_map(Event::Update),
        10 => Just(Event::See),
        5 => Just(Event::Poll),
        10 => Just(Event::Reconcile),
        15 => colour().prop_map(Event::Control),
        25 => (colour(), 0..4_usize).prop_map(|(colour, index)| Event::Advance(colour, index)),
    ]
}

fn check(update: UpdateType, can_ask: bool, events: &[Event]) {
    let mut cluster = Cluster::new(update, can_ask);
    cluster.settle();
    assert_eq!(cluster.ready(), REPLICAS, "a new fleet");
    for event in events {
        cluster.happen(*event);
        assert!(cluster.ready() >= REPLICAS - 1, "too few gateways after {event:?}");
    }
    cluster.settle();
    let orders = cluster.plan();
    assert_eq!(cluster.deployments.len(), 1, "{:?}", cluster.deployments);
    assert_eq!(orders.len(), 1, "{orders:?}");
    let (colour, deployment) = cluster.deployments.first_key_value().unwrap();
    assert_eq!(*colour == Plain, cluster.update == RollingUpdate);
    assert_eq!((deployment.template, deployment.ready()), (cluster.template, REPLICAS));
    assert!(deployment.pods.iter().all(|pod| pod.template == cluster.template));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn converges_without_a_gap(
        blue_green: bool,
        can_ask: bool,
        events in prop::collection::vec(event(), 0..200),
    ) {
        check(if blue_green { BlueGreen } else { RollingUpdate }, can_ask, &events);
    }
}
