//! The processes of a local fleet: started gateways first, watched, stopped agents first.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::RunError;
use super::child::{self, Event, News, Order};
use super::plan::{AGENTS, Plan, Spec};
use super::poll;
use super::screen::Screen;
use crate::stats::{LedgerReport, Listening, Report, Role, Stats};

/// Events are a few a second; a child that floods its stderr waits for us to read.
const EVENTS_MAX: usize = 1024;
/// Binding takes milliseconds, and agents let joins settle for two seconds; a loaded machine takes ten times
/// that.
const START_WITHIN: Duration = Duration::from_secs(30);
/// A drain waits for backends for up to 30 s and hands over in moments; past it something is stuck.
const STOP_WITHIN: Duration = Duration::from_secs(45);
/// How often readiness is asked for.
const READY_EVERY: Duration = Duration::from_millis(100);

/// A running fleet.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Member>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// Children are killed when their tasks are dropped.
    tasks: JoinSet<()>,
}

/// One process and what is known of it.
#[derive(Debug)]
pub struct Member {
    /// What it is called.
    pub identity: String,
    /// Its tier.
    pub role: Role,
    /// Where it listens, once it said so.
    pub listening: Option<Listening>,
    /// Its newest figures.
    pub stats: Option<Stats>,
    /// Its last word.
    pub ledger: Option<LedgerReport>,
    /// How it ended.
    pub ended: Option<Ending>,
    orders: Sender<Order>,
    stopping: bool,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The status in words.
    pub status: String,
    /// Exit code 0.
    pub clean: bool,
    /// It was told to stop before.
    pub expected: bool,
}

// === impl Fleet ===

impl Fleet {
    /// A fleet without processes.
    pub fn empty() -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (members, tasks) = (Vec::new(), JoinSet::new());
        Self { members, sender, events, tasks }
    }

    /// All processes, gateways first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Starts gateways, then agents that know their addresses, and waits until the ring is whole.
    pub async fn start(&mut self, plan: &Plan, screen: &mut Screen) -> Result<(), RunError> {
        let deadline = Instant::now() + START_WITHIN;
        for index in 0..plan.gateways {
            self.spawn(&plan.gateway(index))?;
        }
        self.await_addresses(deadline, screen).await?;
        let gateways: Vec<SocketAddr> = self.addresses().map(|at| at.otlp_grpc).collect();
        self.order(Role::Gateway, Order::Peers(gateways.clone())).await;
        for index in 0..AGENTS {
            self.spawn(&plan.agent(index, &gateways))?;
        }
        self.await_addresses(deadline, screen).await?;
        self.await_ring(deadline, screen).await
    }

    /// The next thing that happened; pass it to [`Self::note`].
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Writes down what happened, and tells the user what is worth telling.
    pub fn note(&mut self, event: Event, screen: &mut Screen) {
        let member = &mut self.members[event.child];
        match event.news {
            News::Said(line) => screen.say(&format!("{} | {line}", member.identity)),
            News::Report(Report::Listening(listening)) => member.listening = Some(listening),
            News::Report(Report::Ledger(ledger)) => member.ledger = Some(ledger),
            News::Ended(status) => {
                let ending = Ending::new(status, member.stopping);
                if !ending.expected {
                    screen.say(&format!("{} is gone: {}", member.identity, ending.status));
                }
                member.ended = Some(ending);
            }
        }
    }

    /// Asks every process for its figures; who does not answer keeps the old ones.
    pub async fn poll(&mut self) {
        let answers = poll::stats(&self.admins()).await;
        for (member, answer) in self.members.iter_mut().zip(answers) {
            if answer.is_some() {
                member.stats = answer;
            }
        }
    }

    /// Stops agents, then gateways, each tier when the one before has told its ledger.
    ///
    /// Can be dropped and called again.
    pub async fn stop(&mut self, screen: &mut Screen) {
        for role in [Role::Agent, Role::Gateway] {
            self.order(role, Order::Stop).await;
            let deadline = Instant::now() + STOP_WITHIN;
            while self.running(role).next().is_some() {
                match timeout_at(deadline, self.next_event()).await {
                    Ok(Some(event)) => self.note(event, screen),
                    Ok(None) | Err(_) => {
                        let names: Vec<_> =
                            self.running(role).map(|m| m.identity.as_str()).collect();
                        screen.say(&format!("killed after {STOP_WITHIN:?}: {}", names.join(", ")));
                        return self.kill(screen).await;
                    }
                }
            }
        }
    }

    /// Kills what still runs, and waits until it is gone.
    pub async fn kill(&mut self, screen: &mut Screen) {
        for role in [Role::Agent, Role::Gateway] {
            self.order(role, Order::Kill).await;
        }
        while self.members.iter().any(|member| member.ended.is_none()) {
            let Some(event) = self.next_event().await else {
                return;
            };
            self.note(event, screen);
        }
    }

    fn spawn(&mut self, spec: &Spec) -> Result<(), RunError> {
        let child = self.members.len();
        let orders = child::spawn(child, spec, self.sender.clone(), &mut self.tasks)
            .map_err(|source| RunError::Spawn { identity: spec.identity.clone(), source })?;
        self.members.push(Member::new(spec, orders));
        Ok(())
    }

    async fn await_addresses(
        &mut self,
        deadline: Instant,
        screen: &mut Screen,
    ) -> Result<(), RunError> {
        while self.members.iter().any(|member| member.listening.is_none()) {
            self.await_event(deadline, "its addresses", screen).await?;
        }
        Ok(())
    }

    async fn await_event(
        &mut self,
        deadline: Instant,
        what: &'static str,
        screen: &mut Screen,
    ) -> Result<(), RunError> {
        match timeout_at(deadline, self.next_event()).await {
            Ok(Some(event)) => self.note(event, screen),
            Ok(None) | Err(_) => return Err(self.overdue(what)),
        }
        self.check_alive()
    }

    async fn await_ring(&mut self, deadline: Instant, screen: &mut Screen) -> Result<(), RunError> {
        loop {
            if poll::all_ready(&self.admins()).await {
                self.poll().await;
                if self.ring_is_whole() {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(self.overdue("the ring"));
            }
            tokio::select! {
                Some(event) = self.events.recv() => self.note(event, screen),
                () = sleep(READY_EVERY) => {}
            }
            self.check_alive()?;
        }
    }

    fn ring_is_whole(&self) -> bool {
        let gateways: BTreeSet<&str> =
            self.of(Role::Gateway).map(|m| m.identity.as_str()).collect();
        self.of(Role::Agent).all(|agent| {
            let members = agent.stats.iter().flat_map(|stats| &stats.ring.members);
            members.map(String::as_str).collect::<BTreeSet<_>>() == gateways
        })
    }

    fn check_alive(&self) -> Result<(), RunError> {
        let gone = self.members.iter().find_map(|member| Some((member, member.ended.as_ref()?)));
        gone.map_or(Ok(()), |(member, ending)| {
            let (identity, status) = (member.identity.clone(), ending.status.clone());
            Err(RunError::Ended { identity, status })
        })
    }

    fn overdue(&self, what: &'static str) -> RunError {
        let waits = |member: &&Member| member.listening.is_none() || member.stats.is_none();
        let identity = self.members.iter().find(waits).map_or("the fleet", |m| m.identity.as_str());
        RunError::Overdue { identity: identity.to_owned(), what, after: START_WITHIN }
    }

    async fn order(&mut self, role: Role, order: Order) {
        for member in self.members.iter_mut().filter(|member| member.role == role) {
            member.stopping |= matches!(order, Order::Stop | Order::Kill);
            // A member that is gone takes no orders.
            let _ = member.orders.send(order.clone()).await;
        }
    }

    /// The processes of one tier.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    fn running(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.of(role).filter(|member| member.ended.is_none())
    }

    fn addresses(&self) -> impl Iterator<Item = &Listening> {
        self.members.iter().filter_map(|member| member.listening.as_ref())
    }

    fn admins(&self) -> Vec<Option<SocketAddr>> {
        let running = |member: &Member| {
            let listening = member.listening.as_ref().filter(|_| member.ended.is_none());
            listening.map(|listening| listening.admin)
        };
        self.members.iter().map(running).collect()
    }
}

// === impl Member ===

impl Member {
    fn new(spec: &Spec, orders: Sender<Order>) -> Self {
        Self {
            identity: spec.identity.clone(),
            role: spec.role,
            listening: None,
            stats: None,
            ledger: None,
            ended: None,
            orders,
            stopping: false,
        }
    }
}

// === impl Ending ===

impl Ending {
    fn new(status: std::io::Result<ExitStatus>, expected: bool) -> Self {
        match status {
            Ok(status) => Self { status: status.to_string(), clean: status.success(), expected },
            Err(error) => Self { status: error.to_string(), clean: false, expected },
        }
    }
}

#[cfg(test)]
mod tests;
