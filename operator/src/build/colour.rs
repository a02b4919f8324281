//! Which gateway Deployments there are, and how large each is: with update strategy BlueGreen a new template
//! gets a Deployment of its own, which joins the ring before the old one leaves it, gateway by gateway.
//!
//! One pure function from what is to what should be next. It knows no phases: whatever it finds, also half of
//! another rollout or of another strategy, it takes one safe step from there.
//!
//! - The *target* has the wanted template and all replicas. Every other Deployment keeps the template that it
//!   has.
//! - While the target is not up, nothing else shrinks. Up means: all of it ready, and in the ring as far as
//!   gateways can be asked.
//! - Then the others shrink by one gateway at a time, and the next goes when the last has handed on what it
//!   held.
//! - A Deployment without gateways goes.

use std::collections::BTreeMap;

use ringtail_crds::gateway::UpdateType;

use crate::live::{Live, Workload};

/// What tells gateway Deployments of one pipeline apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Colour {
    /// The only one, with update strategy RollingUpdate.
    Plain,
    /// The first with BlueGreen.
    Blue,
    /// The second with BlueGreen.
    Green,
}

/// What the pipeline wants of its gateways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// What all Deployments are called, before their colour.
    pub(super) name: &'a str,
    /// Of the template that gateways should have.
    pub(super) template_hash: &'a str,
    /// How many gateways there should be.
    pub(super) replicas: i32,
    /// How they get there.
    pub(super) update: UpdateType,
}

/// What a Deployment should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// `spec.replicas`.
    pub(super) replicas: i32,
    /// Which pods it makes.
    pub(super) template: Template,
}

/// Which pods a Deployment makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Template {
    /// Those that the pipeline wants.
    Wanted,
    /// Those that it makes already.
    Kept,
}

/// What there is, by colour.
struct Situation<'a> {
    wanted: Wanted<'a>,
    live: &'a Live,
    present: BTreeMap<Colour, &'a Workload>,
}

/// What every gateway Deployment should be next. One that is not in it should not be.
pub(super) fn plan(wanted: Wanted<'_>, live: &Live) -> BTreeMap<Colour, Order> {
    let found =
        |colour: Colour| Some((colour, live.deployments.get(&colour.deployment(wanted.name))?));
    let present = Colour::ALL.into_iter().filter_map(found).collect();
    Situation { wanted, live, present }.plan()
}

// === impl Colour ===

impl Colour {
    /// All of them.
    const ALL: [Self; 3] = [Self::Plain, Self::Blue, Self::Green];

    /// As in the label, if it has one.
    pub(super) fn label(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Blue => Some("blue"),
            Self::Green => Some("green"),
        }
    }

    /// What the Deployment is called, of gateways that are called `name`.
    pub(super) fn deployment(self, name: &str) -> String {
        match self.label() {
            None => name.to_owned(),
            Some(label) => format!("{name}-{label}"),
        }
    }

    // The pods of a Deployment are called NAME-HASH-SUFFIX, and hashes have no vowels: none is a colour.
    fn has_pod(self, name: &str, pod: &str) -> bool {
        let of = |colour: Self| {
            pod.strip_prefix(&colour.deployment(name)).is_some_and(|rest| rest.starts_with('-'))
        };
        of(self) && (self != Self::Plain || !(of(Self::Blue) || of(Self::Green)))
    }
}

// === impl Situation ===

impl Situation<'_> {
    fn plan(&self) -> BTreeMap<Colour, Order> {
        let target = self.target();
        let mut orders = BTreeMap::new();
        orders.insert(target, Order { replicas: self.wanted.replicas, template: Template::Wanted });
        let others = || self.present.iter().filter(|(colour, _)| **colour != target);
        let mut may_shrink =
            self.is_up(target) && others().all(|(colour, _)| self.is_settled(*colour));
        for (colour, workload) in others() {
            if workload.desired == 0 && self.is_settled(*colour) {
                continue;
            }
            let shrinks = may_shrink && workload.desired > 0;
            may_shrink &= !shrinks;
            let replicas = workload.desired - i32::from(shrinks);
            orders.insert(*colour, Order { replicas, template: Template::Kept });
        }
        orders
    }

    fn target(&self) -> Colour {
        if self.wanted.update == UpdateType::RollingUpdate {
            return Colour::Plain;
        }
        let colours = [Colour::Blue, Colour::Green];
        let of = |colour: &Colour| self.present.get(colour).copied();
        let has_template = |colour: &Colour| {
            of(colour)
                .is_some_and(|w| w.template_hash.as_deref() == Some(self.wanted.template_hash))
        };
        // Nothing is lost by replacing pods that take no spans, and they need no room twice.
        let is_idle = |colour: &Colour| of(colour).is_some_and(|workload| workload.ready == 0);
        let is_absent = |colour: &Colour| of(colour).is_none();
        let find = |matches: &dyn Fn(&Colour) -> bool| colours.into_iter().find(matches);
        find(&has_template)
            .or_else(|| find(&is_idle))
            .or_else(|| find(&is_absent))
            // A third template, while the second one comes up or the first one goes: the larger part stays.
            .or_else(|| colours.into_iter().min_by_key(|c| of(c).map(|w| (w.ready, w.desired))))
            .unwrap_or(Colour::Blue)
    }

    fn is_up(&self, colour: Colour) -> bool {
        let replicas = self.wanted.replicas;
        let rolled_out = self.present.get(&colour).is_some_and(|workload| {
            workload.template_hash.as_deref() == Some(self.wanted.template_hash)
                && workload.desired == replicas
                && workload.present == replicas
                && workload.is_rolled_out()
        });
        rolled_out && self.members(colour).is_none_or(|members| members >= replicas)
    }

    /// Whether a Deployment has as many gateways as it was last told, and those that left have left the ring
    /// too.
    fn is_settled(&self, colour: Colour) -> bool {
        let Some(workload) = self.present.get(&colour) else {
            return true;
        };
        let gone = match self.members(colour) {
            Some(members) => members <= workload.desired && self.live.ring_draining == 0,
            None => self.live.leaving_gateways == 0,
        };
        workload.observed && workload.present <= workload.desired && gone
    }

    /// How many of its gateways are in the ring; none when no gateway can be asked.
    fn members(&self, colour: Colour) -> Option<i32> {
        let members = &self.live.ring_members;
        let of_colour = members.iter().filter(|pod| colour.has_pod(self.wanted.name, pod));
        (!members.is_empty()).then(|| i32::try_from(of_colour.count()).unwrap_or(i32::MAX))
    }
}

#[cfg(test)]
mod tests;
