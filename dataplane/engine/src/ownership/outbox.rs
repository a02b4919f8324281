//! Decisions that others have to know, per member: told in batches, again until they are answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::facts::Name;
use super::message::Req;
use super::timers::{BACK_OFF, BACK_OFF_MAX, DECISIONS_PER_MESSAGE};
use crate::Millis;
use crate::key::TraceKey;

/// Decisions that wait for one member; beyond it the oldest are let go: 16 MiB.
const QUEUED_MAX: usize = 1 << 20;

/// Why a member has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It owns the key now.
    Owner,
    /// It is a next choice.
    Witness,
    /// It is one, and has heard of the decision; the backend has the spans, since then. That goes along with
    /// the next proposal, or the answer to one, whichever comes first.
    Exported(Millis),
}

/// How long news of exports wait for a proposal to go along with.
const PATIENCE: Millis = 1_000;

/// News in one answer of a shard: with 16 shards 0.4 MiB of the 4 MiB that an answer may have.
const NEWS_PER_ANSWER: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    members: BTreeMap<Name, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(TraceKey, Why)>,
    sent: Option<(Req, Vec<(TraceKey, Why)>)>,
    /// How many of both are for an owner.
    owners: usize,
    /// How many of those that wait cannot wait for something to go along with.
    urgent: usize,
    failures: u32,
    not_before: Millis,
}

impl Outbox {
    pub(super) fn push(&mut self, to: &str, key: TraceKey, why: Why) {
        let queue = match self.members.get_mut(to) {
            Some(queue) => queue,
            None => self.members.entry(Arc::from(to)).or_default(),
        };
        if queue.waiting.len() >= QUEUED_MAX {
            let oldest = queue.waiting.pop_front();
            queue.owners -= usize::from(oldest.is_some_and(|(_, why)| why == Why::Owner));
            queue.urgent -= usize::from(oldest.is_some_and(|(_, why)| why.is_urgent()));
        }
        queue.owners += usize::from(why == Why::Owner);
        queue.urgent += usize::from(why.is_urgent());
        queue.waiting.push_back((key, why));
    }

    /// No new owner waits for anything.
    pub(super) fn owners_know(&self) -> bool {
        self.members.values().all(|queue| queue.owners == 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.values().all(|queue| queue.waiting.is_empty() && queue.sent.is_none())
    }

    /// Drops what waits for members that are no more; the others may be tried at once.
    pub(super) fn retain(&mut self, is_member: impl Fn(&str) -> bool) {
        self.members.retain(|name, _| is_member(name));
        self.members.values_mut().for_each(|queue| queue.not_before = 0);
    }

    /// Members to which a message can go now.
    pub(super) fn ready(&self, now: Millis) -> Vec<Name> {
        let ready = self.members.iter().filter(|(_, queue)| {
            let old = |(_, why): &(TraceKey, Why)| match why {
                Why::Exported(since) => *since + PATIENCE <= now,
                _ => true,
            };
            let pressing = queue.urgent > 0 || queue.waiting.front().is_some_and(old);
            queue.is_free(now) && pressing
        });
        ready.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Takes out what can go along with a proposal: nothing but news of exports.
    pub(super) fn take_along(&mut self, to: &str, req: Req, now: Millis) -> Vec<TraceKey> {
        let queue = self.members.get(to);
        match queue.is_some_and(|queue| queue.is_free(now) && queue.urgent == 0) {
            true => self.take(to, req),
            false => Vec::new(),
        }
    }

    /// Takes out news of exports that go into an answer, if nothing else waits. Nobody says whether an answer
    /// arrived: if it does not, the member may export once more what it takes over from us, as if we had
    /// ended a moment sooner.
    pub(super) fn take_news(&mut self, to: &str) -> impl Iterator<Item = TraceKey> {
        let queue = self.members.get_mut(to).filter(|queue| queue.urgent == 0);
        let news = queue.map(|queue| {
            let number = queue.waiting.len().min(NEWS_PER_ANSWER);
            queue.waiting.drain(..number)
        });
        news.into_iter().flatten().map(|(key, _)| key)
    }

    /// Takes out what goes into the next message.
    pub(super) fn take(&mut self, to: &str, req: Req) -> Vec<TraceKey> {
        let Some(queue) = self.members.get_mut(to) else {
            return Vec::new();
        };
        let number = queue.waiting.len().min(DECISIONS_PER_MESSAGE);
        let items: Vec<_> = queue.waiting.drain(..number).collect();
        queue.urgent -= items.iter().filter(|(_, why)| why.is_urgent()).count();
        let keys = items.iter().map(|(key, _)| *key).collect();
        queue.sent = Some((req, items));
        keys
    }

    /// A message was answered; whether it was one of these.
    pub(super) fn answered(&mut self, to: &str, req: Req) -> bool {
        let queue = self.members.get_mut(to).filter(|queue| queue.awaits(req));
        let Some(queue) = queue else {
            return false;
        };
        let sent = queue.sent.take().map(|(_, items)| items).unwrap_or_default();
        queue.owners -= sent.iter().filter(|(_, why)| *why == Why::Owner).count();
        queue.failures = 0;
        true
    }

    /// A message was not answered: its decisions wait again.
    pub(super) fn failed(&mut self, to: &str, req: Req, now: Millis) {
        let queue = self.members.get_mut(to).filter(|queue| queue.awaits(req));
        let Some(queue) = queue else {
            return;
        };
        for item in queue.sent.take().into_iter().flat_map(|(_, items)| items).rev() {
            queue.urgent += usize::from(item.1.is_urgent());
            queue.waiting.push_front(item);
        }
        queue.not_before = now + back_off(queue.failures);
        queue.failures += 1;
    }
}

impl Why {
    fn is_urgent(self) -> bool {
        !matches!(self, Self::Exported(_))
    }
}

impl Queue {
    fn is_free(&self, now: Millis) -> bool {
        self.sent.is_none() && !self.waiting.is_empty() && self.not_before <= now
    }

    fn awaits(&self, req: Req) -> bool {
        self.sent.as_ref().is_some_and(|(sent, _)| *sent == req)
    }
}

/// How long to wait after so many failures.
pub(super) fn back_off(failures: u32) -> Millis {
    (BACK_OFF << failures.min(8)).min(BACK_OFF_MAX)
}
