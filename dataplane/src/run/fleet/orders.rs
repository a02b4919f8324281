//! What can be asked of a running fleet: a gateway more, a gateway less, in every way that gateways go.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fleet, Member, Told};
use crate::run::child::Order;
use crate::run::control::{Answer, Command, Verb};
use crate::run::plan::Plan;
use crate::run::table::number;
use crate::stats::{Life, Role};

/// As many gateways as a fleet may have.
const GATEWAYS_MAX: usize = 64;

/// What comes of a command.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done(String),
    /// It takes a while.
    Promised(Promise),
}

/// Something that a gateway is on its way to.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    child: usize,
    goal: Goal,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Serves,
    Left,
    Dead,
}

// === impl Fleet ===

impl Fleet {
    /// Does what is asked.
    ///
    /// # Errors
    /// Says why it cannot be done.
    pub async fn obey(&mut self, command: &Command, plan: &Plan) -> Result<Outcome, String> {
        let name = command.gateway.as_deref();
        if command.verb == Verb::Add {
            return self.add(name, plan).await;
        }
        let child = self.choose(command.verb, name)?;
        let member = &mut self.members[child];
        let (order, goal) = match command.verb {
            Verb::Drain => {
                member.told = Told::Stop;
                (Order::Stop, Some(Goal::Left))
            }
            Verb::Kill => {
                member.told = Told::Die;
                (Order::Kill, Some(Goal::Dead))
            }
            Verb::Freeze => {
                (member.frozen, member.was_frozen) = (true, true);
                (Order::Freeze, None)
            }
            Verb::Thaw | Verb::Add | Verb::Status => {
                member.frozen = false;
                (Order::Thaw, None)
            }
        };
        // A member that has just gone takes no orders; its end is an event.
        let _ = member.orders.send(order).await;
        Ok(match goal {
            Some(goal) => Outcome::Promised(Promise { child, goal, since: Instant::now() }),
            None if member.frozen => Outcome::Done(format!("{} is frozen", member.identity)),
            None => Outcome::Done(format!("{} goes on", member.identity)),
        })
    }

    /// What became of a promise, once it is known.
    pub fn redeem(&self, promise: &Promise) -> Option<Answer> {
        let Promise { child, goal, since } = *promise;
        let member = &self.members[child];
        let name = &member.identity;
        let after = since.elapsed();
        let Some(ending) = &member.ended else {
            let serves = goal == Goal::Serves && self.is_served_by(member);
            return serves.then(|| Ok(format!("{name} serves after {}", seconds(after))));
        };
        Some(match goal {
            Goal::Left if ending.told == Told::Stop && ending.clean => {
                let churn = member.stats.as_ref().map(|stats| &stats.churn);
                let traces = number(churn.map_or(0, |churn| churn.handed_over.traces));
                Ok(format!("{name} left after {}, {traces} traces handed over", seconds(after)))
            }
            Goal::Dead => Ok(format!("{name} is killed")),
            Goal::Serves | Goal::Left => Err(format!("{name} is {ending}")),
        })
    }

    /// Lets those go on that stand still.
    pub async fn thaw_all(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.frozen) {
            member.frozen = false;
            let _ = member.orders.send(Order::Thaw).await;
        }
    }

    /// The gateway that a command means which names none.
    pub fn likely(&self, verb: Verb) -> Option<&Member> {
        let wanted = |member: &&Member| member.is_up() && member.frozen == (verb == Verb::Thaw);
        self.of(Role::Gateway).find(wanted)
    }

    /// The process of this name: the one that runs, else the one that ended last.
    pub fn named(&self, name: &str) -> Option<&Member> {
        let mut of_name = self.members.iter().rev().filter(|member| member.identity == name);
        of_name.clone().find(|member| member.ended.is_none()).or_else(|| of_name.next())
    }

    async fn add(&mut self, name: Option<&str>, plan: &Plan) -> Result<Outcome, String> {
        if self.running(Role::Gateway).count() >= GATEWAYS_MAX {
            return Err(format!("{GATEWAYS_MAX} gateways are all that a fleet may have"));
        }
        let name = name.map_or_else(|| self.next_name(), str::to_owned);
        if self.named(&name).is_some_and(|member| member.ended.is_none()) {
            return Err(format!("{name} runs already"));
        }
        let child = self.members.len();
        self.spawn(&plan.gateway_named(name)).await.map_err(|error| error.to_string())?;
        Ok(Outcome::Promised(Promise { child, goal: Goal::Serves, since: Instant::now() }))
    }

    fn next_name(&self) -> String {
        let prefix = format!("{}-", Role::Gateway.name());
        let taken = |name: &str| self.members.iter().any(|member| member.identity == name);
        let mut names = (0_usize..).map(|index| format!("{prefix}{index}"));
        // There are more numbers than members.
        names.find(|name| !taken(name)).unwrap_or(prefix)
    }

    fn choose(&self, verb: Verb, name: Option<&str>) -> Result<usize, String> {
        let member = match name {
            Some(name) => self.named(name).ok_or_else(|| {
                let names: Vec<&str> =
                    self.running(Role::Gateway).map(|member| member.identity.as_str()).collect();
                format!("no gateway is called {name}; there are {}", names.join(", "))
            })?,
            None => self.likely(verb).ok_or_else(|| match verb {
                Verb::Thaw => "no gateway is frozen".to_owned(),
                _ => "no gateway is left that runs".to_owned(),
            })?,
        };
        check(verb, member)?;
        let place = self.members.iter().position(|other| std::ptr::eq(other, member));
        place.ok_or_else(|| "nobody".to_owned())
    }

    /// It serves, and every agent that can be asked knows.
    fn is_served_by(&self, gateway: &Member) -> bool {
        let stats = gateway.stats.as_ref();
        let knows = |agent: &Member| {
            let members = agent.stats.iter().flat_map(|stats| &stats.ring.members);
            members.into_iter().any(|name| *name == gateway.identity)
        };
        stats.is_some_and(|stats| stats.churn.life == Some(Life::Serving))
            && self.running(Role::Agent).all(knows)
    }
}

/// Whether this can be done to this process.
fn check(verb: Verb, member: &Member) -> Result<(), String> {
    let name = &member.identity;
    if member.role == Role::Agent {
        return Err(format!("{name} is an agent; only gateways can be asked to {}", verb.name()));
    }
    if let Some(ending) = &member.ended {
        return Err(format!("{name} has ended: {ending}"));
    }
    match (verb, member.told, member.frozen) {
        (_, Told::Die, _) => Err(format!("{name} is being killed")),
        (Verb::Drain | Verb::Freeze, Told::Stop, _) => Err(format!("{name} drains already")),
        (Verb::Drain, _, true) => Err(format!("{name} is frozen; thaw it first")),
        (Verb::Freeze, _, true) => Err(format!("{name} is frozen already")),
        (Verb::Thaw, _, false) => Err(format!("{name} is not frozen")),
        _ => Ok(()),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
