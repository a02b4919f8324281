//! What is known of every gateway: one fact a name, merged from whoever tells.
//!
//! A fact only grows: a higher instance wins, of one instance the later state. So it does not matter in
//! which order, how often and through whom facts arrive.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::timers::{FACTS_MAX, TOMBSTONE_KEPT};
use crate::Millis;
use crate::key::KeySeed;
use crate::ring::{Member, View};

/// What a gateway or an agent calls itself.
pub type Name = Arc<str>;

/// One process of a gateway's name. Zero is nobody: the instance of an address that has not answered yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// What it calls itself.
    pub name: Name,
    /// Grows with every start, and with every return from the dead.
    pub inst: u64,
}

/// What an instance is up to. The order is that of a life; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Here, but it owns nothing yet.
    Joining,
    /// Owns its keys.
    Serving,
    /// Hands over what it has.
    Draining,
    /// Others took it for dead, or it left with spans in hand.
    Gone,
    /// It said so itself, with nothing in hand.
    Left,
}

/// What is known of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The newest instance.
    pub of: Instance,
    /// What it is up to.
    pub state: State,
}

/// All facts.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    by_name: BTreeMap<Name, Known>,
    /// The same as a list that is shared by the messages of one version.
    told: Arc<[Fact]>,
}

#[derive(Debug, Clone)]
struct Known {
    fact: Fact,
    changed: Millis,
}

/// What a merge changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A name that was not known.
    New(Fact),
    /// The instance before was replaced; it is lost unless it had left.
    Superseded {
        /// What was known.
        before: Fact,
        /// What is known now.
        now: Fact,
    },
    /// The same instance, further on.
    Moved(Fact),
}

// === impl Facts ===

impl Facts {
    /// Takes in a fact; `None` when it was known already, or is older than what is known.
    pub fn merge(&mut self, fact: &Fact, now: Millis) -> Option<Change> {
        let known = self.by_name.get(&fact.of.name).map(|known| known.fact.clone());
        let change = match known {
            None if self.by_name.len() >= FACTS_MAX => return None,
            None => Change::New(fact.clone()),
            Some(known) if (fact.of.inst, fact.state) <= (known.of.inst, known.state) => {
                return None;
            }
            Some(before) if fact.of.inst > before.of.inst => {
                Change::Superseded { before, now: fact.clone() }
            }
            Some(_) => Change::Moved(fact.clone()),
        };
        let known = Known { fact: fact.clone(), changed: now };
        self.by_name.insert(Arc::clone(&fact.of.name), known);
        self.tell();
        Some(change)
    }

    /// What is known of a name.
    pub fn find(&self, name: &str) -> Option<&Fact> {
        self.by_name.get(name).map(|known| &known.fact)
    }

    /// Everything, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.by_name.values().map(|known| &known.fact)
    }

    /// Everything, to be sent.
    pub fn told(&self) -> Arc<[Fact]> {
        Arc::clone(&self.told)
    }

    /// Forgets the dead of long ago.
    pub fn expire(&mut self, now: Millis) {
        let before = self.by_name.len();
        self.by_name.retain(|_, known| {
            known.fact.state < State::Gone || known.changed + TOMBSTONE_KEPT > now
        });
        if self.by_name.len() != before {
            self.tell();
        }
    }

    /// The members that own keys.
    pub fn view(&self, seed: &KeySeed) -> View {
        let serving = self.iter().filter(|fact| fact.state == State::Serving);
        View::new(serving.map(|fact| fact.of.member()).collect(), seed)
    }

    fn tell(&mut self) {
        self.told = self.iter().cloned().collect();
    }
}

// === impl Instance ===

impl Instance {
    /// An instance of a name.
    pub fn new(name: &str, inst: u64) -> Self {
        Self { name: name.into(), inst }
    }

    /// As the ring knows it.
    pub fn member(&self) -> Member {
        Member { id: self.name.as_ref().to_owned(), inst: self.inst }
    }
}

// === impl State ===

impl State {
    /// Alive and with spans that a decision must wait for.
    pub fn takes_part(self) -> bool {
        matches!(self, Self::Serving | Self::Draining)
    }
}
