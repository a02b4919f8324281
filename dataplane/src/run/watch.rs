//! The time between the start of a fleet and its end: figures are shown, and what is asked for is done.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use super::Stop;
use super::control::socket::ControlSocket;
use super::control::{Answer, Asked, Command, Verb};
use super::demo::Demo;
use super::fleet::{Fleet, Outcome, Promise};
use super::keys::{Key, Keys};
use super::plan::Plan;
use super::poll;
use super::screen::Screen;
use super::table::{self, Around};
use crate::stats::{Role, Stats};

/// How often the fleet is asked for its figures.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Without a terminal, every so many polls become a line.
const POLLS_A_LINE: u64 = 5;

/// A fleet that is being watched.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    plan: &'a Plan,
    fleet: &'a mut Fleet,
    screen: &'a mut Screen,
    demo: Option<&'a mut Demo>,
    control: Option<ControlSocket>,
    keys: Option<Keys>,
    /// The gateway that keys are about.
    chosen: Option<String>,
    promised: Vec<Promised>,
    started: Instant,
    polls: u64,
}

/// Somebody waits for something to become true.
#[derive(Debug)]
struct Promised {
    promise: Promise,
    /// Keys wait for nothing: what happens is shown.
    answer: Option<oneshot::Sender<Answer>>,
}

/// Figures on their way.
struct Polling {
    ticks: Interval,
    answers: mpsc::Receiver<Vec<Option<Stats>>>,
    answer: mpsc::Sender<Vec<Option<Stats>>>,
}

// === impl Watch ===

impl<'a> Watch<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        fleet: &'a mut Fleet,
        screen: &'a mut Screen,
        demo: Option<&'a mut Demo>,
        control: Option<ControlSocket>,
    ) -> Self {
        let keys = if screen.is_live() { Keys::open() } else { None };
        Self {
            plan,
            fleet,
            screen,
            demo,
            control,
            keys,
            chosen: None,
            promised: Vec::new(),
            started: Instant::now(),
            polls: 0,
        }
    }

    /// Shows and obeys until it is time to stop.
    pub(super) async fn run(mut self, stop: &mut Stop, duration: Option<Duration>) {
        let end = self.started + duration.unwrap_or_default();
        let mut polling = Polling::new();
        loop {
            let step = self.demo.as_ref().and_then(|demo| demo.next_step());
            let Self { fleet, screen, control, keys, .. } = &mut self;
            tokio::select! {
                Some(event) = fleet.next_event() => fleet.note(event, screen),
                Some(answers) = polling.answers.recv() => {
                    fleet.take(answers);
                    self.show();
                }
                _ = polling.ticks.tick() => polling.ask(fleet),
                asked = next_asked(control), if control.is_some() => self.answer(asked).await,
                key = next_key(keys), if keys.is_some() => {
                    if self.press(key).await {
                        return;
                    }
                }
                () = sleep_until(step.unwrap_or(end)), if step.is_some() => self.step().await,
                () = sleep_until(end), if duration.is_some() => return,
                () = stop.asked() => return,
            }
            self.fleet.spread_news().await;
            self.redeem();
        }
    }

    // === What is shown ===

    fn show(&mut self) {
        let truth = self.demo.as_mut().and_then(|demo| demo.truth());
        let around = Around {
            elapsed: self.started.elapsed(),
            truth,
            keys: self.keys.is_some(),
            chosen: self.chosen.as_deref(),
        };
        if self.screen.is_live() {
            self.screen.show(table::table(self.plan, self.fleet.members(), &around));
        } else if self.polls.is_multiple_of(POLLS_A_LINE) {
            self.screen.say(&table::line(self.fleet.members(), &around));
        }
        self.polls += 1;
    }

    fn status(&mut self) -> String {
        let truth = self.demo.as_mut().and_then(|demo| demo.truth());
        let elapsed = self.started.elapsed();
        let around = Around { elapsed, truth, keys: false, chosen: None };
        table::table(self.plan, self.fleet.members(), &around).join("\n").trim_start().to_owned()
    }

    // === What is asked for ===

    async fn answer(&mut self, asked: Option<Asked>) {
        let Some(Asked { command, answer }) = asked else {
            self.control = None;
            return;
        };
        if command.verb == Verb::Status {
            // Who does not wait for the answer does not need it.
            let _ = answer.send(Ok(self.status()));
            return;
        }
        self.obey(&command, Some(answer)).await;
    }

    /// Does what a key says; true at the end.
    async fn press(&mut self, key: Option<Key>) -> bool {
        match key {
            None => self.keys = None,
            Some(Key::Quit) => return true,
            Some(Key::Choose(number)) => {
                let name = format!("{}-{number}", Role::Gateway.name());
                self.chosen = self.fleet.named(&name).map(|member| member.identity.clone());
            }
            Some(Key::Next) => self.choose_next(),
            Some(Key::Do(verb)) => {
                let command = self.meant(verb);
                self.obey(&command, None).await;
            }
        }
        if self.keys.is_some() {
            self.show();
        }
        false
    }

    /// The command that a key is, with the gateway that is chosen.
    fn meant(&self, verb: Verb) -> Command {
        let chosen = self.chosen.as_ref().and_then(|name| self.fleet.named(name));
        let thaws = match chosen {
            Some(member) => member.frozen,
            // Without a choice those that run are frozen first, and thawed when none is left.
            None => self.fleet.likely(Verb::Freeze).is_none(),
        };
        let verb = if verb == Verb::Freeze && thaws { Verb::Thaw } else { verb };
        let gateway = chosen.map(|member| member.identity.clone());
        Command { verb, gateway: gateway.filter(|_| verb != Verb::Add) }
    }

    fn choose_next(&mut self) {
        let running = |member: &&super::fleet::Member| member.ended.is_none();
        let gateways = || self.fleet.of(Role::Gateway).filter(running);
        let after = self
            .chosen
            .as_ref()
            .and_then(|chosen| gateways().skip_while(|member| member.identity != *chosen).nth(1));
        let next = after.or_else(|| gateways().next());
        self.chosen = next.map(|member| member.identity.clone());
    }

    /// The next step of the demo, unless it would be the end of the fleet.
    async fn step(&mut self) {
        let Some(command) = self.demo.as_mut().and_then(|demo| demo.take_step()) else { return };
        let others = self.fleet.of(Role::Gateway).filter(|member| member.is_up()).count() > 1;
        if others || command.verb == Verb::Add {
            self.obey(&command, None).await;
        }
    }

    async fn obey(&mut self, command: &Command, answer: Option<oneshot::Sender<Answer>>) {
        self.screen.say(&format!("{} {command}", clock(self.started.elapsed())));
        match self.fleet.obey(command, self.plan).await {
            Ok(Outcome::Promised(promise)) => self.promised.push(Promised { promise, answer }),
            Ok(Outcome::Done(text)) => self.tell(answer, Ok(text)),
            Err(text) => self.tell(answer, Err(text)),
        }
    }

    /// Tells those who wait for it what has come true.
    fn redeem(&mut self) {
        for promised in std::mem::take(&mut self.promised) {
            match self.fleet.redeem(&promised.promise) {
                Some(outcome) => self.tell(promised.answer, outcome),
                None => self.promised.push(promised),
            }
        }
    }

    fn tell(&mut self, to: Option<oneshot::Sender<Answer>>, answer: Answer) {
        let (Ok(text) | Err(text)) = &answer;
        self.screen.say(&format!("{} {text}", clock(self.started.elapsed())));
        if let Some(to) = to {
            // As above.
            let _ = to.send(answer);
        }
    }
}

fn clock(elapsed: Duration) -> String {
    table::clock(elapsed)
}

async fn next_asked(control: &mut Option<ControlSocket>) -> Option<Asked> {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}

async fn next_key(keys: &mut Option<Keys>) -> Option<Key> {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

// === impl Polling ===

impl Polling {
    fn new() -> Self {
        let (answer, answers) = mpsc::channel(1);
        let mut ticks = interval(POLL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, answers, answer }
    }

    /// Asks for figures in the background: a process that takes its time must not keep keys waiting.
    fn ask(&self, fleet: &Fleet) {
        // The room in the channel is what keeps a second question from being asked beside the first.
        if let Ok(permit) = self.answer.clone().try_reserve_owned() {
            let admins = fleet.admins();
            tokio::spawn(async move {
                let answers = poll::stats(&admins).await;
                permit.send(answers);
            });
        }
    }
}
