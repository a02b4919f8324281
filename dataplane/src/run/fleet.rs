//! The processes of a local fleet: started gateways first, watched, stopped agents first.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::member::{Ending, Member, Told};
pub use self::orders::{Outcome, Promise};
use super::RunError;
use super::child::{self, Event, News, Order};
use super::plan::{AGENTS, Plan, Spec};
use super::poll;
use super::screen::Screen;
use crate::stats::{Report, Role, Stats};

mod member;
mod orders; // what can be asked of a running fleet

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
    /// Somebody came or went, and not all have been told.
    is_news: bool,
}

// === impl Fleet ===

impl Fleet {
    /// A fleet without processes.
    pub fn empty() -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (members, tasks) = (Vec::new(), JoinSet::new());
        Self { members, sender, events, tasks, is_news: false }
    }

    /// All processes, gateways first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Starts gateways, then agents, tells them where all are, and waits until the ring is whole.
    pub async fn start(&mut self, plan: &Plan, screen: &mut Screen) -> Result<(), RunError> {
        let deadline = Instant::now() + START_WITHIN;
        for index in 0..plan.gateways {
            self.spawn(&plan.gateway(index)).await?;
        }
        self.await_addresses(deadline, screen).await?;
        for index in 0..AGENTS {
            self.spawn(&plan.agent(index)).await?;
        }
        self.await_addresses(deadline, screen).await?;
        self.spread_news().await;
        self.await_ring(deadline, screen).await
    }

    /// Tells everybody where the gateways are, if that has changed.
    pub async fn spread_news(&mut self) {
        if std::mem::take(&mut self.is_news) {
            let gateways = Order::Peers(self.gateways());
            for member in self.members.iter().filter(|member| member.ended.is_none()) {
                // Who is about to be gone needs no news.
                let _ = member.orders.send(gateways.clone()).await;
            }
        }
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
            News::Report(Report::Listening(listening)) => {
                member.listening = Some(listening);
                self.is_news |= member.role == Role::Gateway;
            }
            News::Report(Report::Ledger(ledger)) => member.ledger = Some(ledger),
            News::Ended(status) => {
                let ending = Ending::new(status, member.told);
                if ending.told == Told::Nothing {
                    screen.say(&format!("{} is {ending}", member.identity));
                }
                member.ended = Some(ending);
                member.frozen = false;
                self.is_news |= member.role == Role::Gateway;
            }
        }
    }

    /// Asks every process for its figures.
    pub async fn poll(&mut self) {
        let answers = poll::stats(&self.admins()).await;
        self.take(answers);
    }

    /// Takes the answers of the first so many processes; who did not answer keeps the old figures.
    pub fn take(&mut self, answers: Vec<Option<Stats>>) {
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
        self.thaw_all().await;
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

    /// Starts a process, and tells it at once who is there: a gateway that is told of nobody would take
    /// itself for the only one.
    async fn spawn(&mut self, spec: &Spec) -> Result<(), RunError> {
        let child = self.members.len();
        let orders = child::spawn(child, spec, self.sender.clone(), &mut self.tasks)
            .map_err(|source| RunError::Spawn { identity: spec.identity.clone(), source })?;
        // The queue is new and empty.
        let _ = orders.send(Order::Peers(self.gateways())).await;
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

    /// Gives an order that ends every process of a tier. Who was told to stop before is not told again: a
    /// second signal would cut its drain short.
    async fn order(&mut self, role: Role, order: Order) {
        for member in self.members.iter_mut().filter(|member| member.role == role) {
            let was_told = member.told;
            if was_told == Told::Nothing {
                member.told = Told::Stop;
            }
            if order != Order::Stop || was_told == Told::Nothing {
                // A member that is gone takes no orders.
                let _ = member.orders.send(order.clone()).await;
            }
        }
    }

    /// The processes of one tier.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }

    fn running(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.of(role).filter(|member| member.ended.is_none())
    }

    /// Where gateways are that have not ended.
    fn gateways(&self) -> Vec<SocketAddr> {
        let listening = self.running(Role::Gateway).filter_map(|member| member.listening.as_ref());
        listening.map(|listening| listening.otlp_grpc).collect()
    }

    /// Where to ask each process, in order; nowhere if it is gone or frozen.
    pub fn admins(&self) -> Vec<Option<SocketAddr>> {
        let running = |member: &Member| {
            let listening =
                member.listening.as_ref().filter(|_| member.ended.is_none() && !member.frozen);
            listening.map(|listening| listening.admin)
        };
        self.members.iter().map(running).collect()
    }
}

#[cfg(test)]
mod tests;
