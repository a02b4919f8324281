//! One piece: where its traces go next, and what is said of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Piece, Progress};
use crate::Millis;
use crate::key::TraceKey;
use crate::ownership::action::AgentAction;
use crate::ownership::facts::Name;
use crate::ownership::message::{Delivery, Part, Req};
use crate::ownership::outbox::back_off;
use crate::ownership::timers::{AGENT_REQUEST, CHOICES};
use crate::ring::View;

impl Piece {
    pub(super) fn bytes(&self) -> u64 {
        self.traces.iter().map(|(_, bytes)| u64::from(*bytes)).sum()
    }

    /// Its traces by the member that is to get them next: of the first choices one that answers, if any does.
    pub(super) fn by_choice(
        &self,
        view: &View,
        answers: &[bool],
    ) -> BTreeMap<Option<usize>, Vec<(TraceKey, u32)>> {
        let mut groups: BTreeMap<Option<usize>, Vec<(TraceKey, u32)>> = BTreeMap::new();
        for trace in &self.traces {
            let choices = || view.ranked(trace.0).take(CHOICES);
            let answering = || choices().filter(|place| answers[*place]);
            let choice = match answering().count() {
                0 => choices().nth(self.failures as usize % view.len().clamp(1, CHOICES)),
                number => answering().nth(self.refusals as usize % number),
            };
            groups.entry(choice).or_default().push(*trace);
        }
        groups
    }

    /// The next choice at once; after the last of them a pause, then the first again.
    pub(super) fn after_failure(self, now: Millis) -> Self {
        let failures = self.failures + 1;
        let rounds = failures / CHOICES as u32;
        let again = failures.is_multiple_of(CHOICES as u32);
        let until = now + if again { back_off(rounds - 1) } else { 0 };
        Self { failures, progress: Progress::Waiting { until }, ..self }
    }

    pub(super) fn deliver(&self, to: &Name, req: Req, age: bool, now: Millis) -> AgentAction {
        let age = if age { now - self.born } else { 0 };
        let part = |(key, bytes): &(TraceKey, u32)| Part {
            key: *key,
            age,
            bytes: *bytes,
            origin: self.origin,
            tentative: None,
        };
        let parts = self.traces.iter().map(part).collect();
        AgentAction::Deliver {
            to: Arc::clone(to),
            req,
            batch: self.batch,
            delivery: Delivery { parts, hops: 0 },
            deadline: now + AGENT_REQUEST,
        }
    }
}
