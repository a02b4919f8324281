//! What befalls the processes of a world, and what they do on their own.

use std::sync::Arc;

use ringtail_engine::key::TraceKey;
use ringtail_engine::ownership::facts::Name;

use super::{
    Clock, Cut, Event, Kind, Listed, NOBODY, Process, TICK, WALL, World, agent_name, gateway_name,
    on_event,
};
use crate::simulation::agent::{Agent, Collector};
use crate::simulation::gateway::Gateway;
use crate::simulation::schedule::What;
use crate::simulation::truth::SpanRef;

impl World<'_> {
    pub(super) fn befall(&mut self, what: What) {
        match what {
            What::Start { gateway } => self.start(gateway),
            What::Drain { gateway } => self.drain(gateway),
            What::Kill { gateway } => self.kill(gateway),
            What::Pause { gateway, millis } => self.pause(gateway, millis),
            What::CutGateways { from, to, millis } => {
                self.cut(gateway_name(from), Some(gateway_name(to)), millis);
            }
            What::CutAgent { agent, gateway, both, millis } => {
                self.cut(agent_name(agent), Some(gateway_name(gateway)), millis);
                if both {
                    self.cut(gateway_name(gateway), Some(agent_name(agent)), millis);
                }
            }
            What::Isolate { gateway, millis } => self.cut(gateway_name(gateway), None, millis),
            What::KillAgent { agent } => self.kill_agent(agent),
            What::StartAgent { agent } => self.start_agent(agent),
        }
    }

    pub(super) fn start(&mut self, gateway: usize) {
        let name = gateway_name(gateway);
        if self.find_alive(&name).is_some() {
            return;
        }
        let drift =
            if self.schedule.drift > 0 { self.dice.between(0, self.schedule.drift) } else { 0 };
        let inst = WALL + self.now - drift;
        let budgets = self.schedule.budgets;
        let mut gateway = Gateway::new(&name, inst, self.seed, self.rules, budgets, self.now);
        gateway.greets_along = self.schedule.greets_along;
        self.add_process(&name, Kind::Gateway(Box::new(gateway)));
        let at = self.now + self.dice.between(100, 1_000);
        self.schedule_event(at, NOBODY, Event::Listed { name, listed: Listed::Serving });
    }

    pub(super) fn start_agent(&mut self, agent: usize) {
        let name = agent_name(agent);
        if self.find_alive(&name).is_some() {
            return;
        }
        let kind = if self.schedule.plain && agent == 0 {
            Kind::Collector(Collector::default())
        } else {
            let retained = self.schedule.budgets.agent_bytes;
            Kind::Agent(Box::new(Agent::new(&name, self.seed, self.rules, retained)))
        };
        self.add_process(&name, kind);
    }

    pub(super) fn add_process(&mut self, name: &Name, kind: Kind) {
        let process = self.processes.len();
        let clock = Clock::new(self.now, self.schedule.skew, &mut self.dice);
        self.by_name.insert(Arc::clone(name), process);
        self.processes.push(Process {
            name: Arc::clone(name),
            kind,
            alive: true,
            paused: false,
            backlog: Vec::new(),
            last_slice: 0,
            clock,
        });
        let at = self.now + self.dice.between(0, TICK);
        self.schedule_event(at, process, Event::Tick);
        self.send_slice(process, self.now + 50);
    }

    pub(super) fn drain(&mut self, gateway: usize) {
        let name = gateway_name(gateway);
        let Some(process) = self.find_alive(&name) else {
            return;
        };
        self.list(name, Listed::NotReady);
        if self.processes[process].paused {
            // The signal waits with everything else.
            self.schedule_event(self.now + 1_000, NOBODY, Event::Script(What::Drain { gateway }));
            return;
        }
        self.run_process(process, |kind, cx| {
            if let Kind::Gateway(gateway) = kind {
                gateway.drain(cx);
            }
        });
    }

    pub(super) fn kill(&mut self, gateway: usize) {
        let name = gateway_name(gateway);
        if let Some(process) = self.find_alive(&name) {
            self.end(process);
        }
    }

    pub(super) fn end(&mut self, process: usize) {
        self.processes[process].alive = false;
        let name = Arc::clone(&self.processes[process].name);
        let at = self.now + self.dice.between(300, 2_000);
        self.schedule_event(at, NOBODY, Event::Listed { name, listed: Listed::Absent });
    }

    pub(super) fn kill_agent(&mut self, agent: usize) {
        let Some(process) = self.find_alive(&agent_name(agent)) else {
            return;
        };
        self.processes[process].alive = false;
        if let Kind::Agent(agent) = &self.processes[process].kind {
            for span in agent.spans() {
                self.truth.orphan(span);
            }
        }
    }

    pub(super) fn pause(&mut self, gateway: usize, millis: u64) {
        let name = gateway_name(gateway);
        let Some(process) =
            self.find_alive(&name).filter(|process| !self.processes[*process].paused)
        else {
            return;
        };
        self.processes[process].paused = true;
        self.schedule_event(self.now + millis, process, Event::Resume);
        // The readiness probe fails three times before the slices say so.
        let unready = self.now + self.dice.between(15_000, 30_000);
        if unready < self.now + millis {
            let listed = Listed::NotReady;
            self.schedule_event(unready, NOBODY, Event::Listed { name: Arc::clone(&name), listed });
            let ready = self.now + millis + self.dice.between(1_000, 5_000);
            self.schedule_event(ready, NOBODY, Event::Listed { name, listed: Listed::Serving });
        }
    }

    pub(super) fn resume(&mut self, process: usize) {
        self.processes[process].paused = false;
        for event in std::mem::take(&mut self.processes[process].backlog) {
            if self.processes[process].alive {
                self.run_process(process, |kind, cx| on_event(kind, event, cx));
            }
        }
        self.schedule_event(self.now, process, Event::Tick);
    }

    pub(super) fn cut(&mut self, from: Name, to: Option<Name>, millis: u64) {
        self.cuts.push(Cut { from, to, until: self.now + millis });
    }

    pub(super) fn find_alive(&self, name: &Name) -> Option<usize> {
        self.by_name.get(name).copied().filter(|process| self.processes[*process].alive)
    }

    pub(super) fn on_span(&mut self, span: SpanRef, agent: usize) {
        let Some(process) = self.find_alive(&agent_name(agent)) else {
            return;
        };
        self.truth.take(span);
        self.run_process(process, |kind, cx| match kind {
            Kind::Agent(agent) => agent.on_span(span),
            Kind::Collector(collector) => collector.on_span(span, cx),
            Kind::Gateway(_) | Kind::Away => {}
        });
    }

    pub(super) fn exported(&mut self, process: usize, keys: &[TraceKey], spans: &[SpanRef]) {
        let this = &mut self.processes[process];
        if !this.alive {
            return;
        }
        if this.paused {
            this.backlog.push(Event::Exported { keys: keys.to_vec(), spans: spans.to_vec() });
            return;
        }
        for span in spans {
            self.truth.export(*span);
        }
        if let Kind::Gateway(gateway) = &mut this.kind {
            gateway.on_exported(keys);
        }
    }
}
