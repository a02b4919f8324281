//! One process of a fleet and what is known of it.

use std::process::ExitStatus;

use tokio::sync::mpsc::Sender;

use crate::run::child::Order;
use crate::run::plan::Spec;
use crate::stats::{LedgerReport, Life, Listening, Role, Stats};

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
    /// What it was told about its end.
    pub told: Told,
    /// It stands still now.
    pub frozen: bool,
    /// It has stood still at least once.
    pub was_frozen: bool,
    pub(super) orders: Sender<Order>,
}

/// What a process was told about its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing: it is to go on.
    Nothing,
    /// To drain and end.
    Stop,
    /// It was killed because somebody wanted to see that.
    Die,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The status in words.
    pub status: String,
    /// Exit code 0.
    pub clean: bool,
    /// What it was told before.
    pub told: Told,
}

// === impl Member ===

impl Member {
    pub(super) fn new(spec: &Spec, orders: Sender<Order>) -> Self {
        Self {
            identity: spec.identity.clone(),
            role: spec.role,
            listening: None,
            stats: None,
            ledger: None,
            ended: None,
            told: Told::Nothing,
            frozen: false,
            was_frozen: false,
            orders,
        }
    }

    /// Whether it runs, and nobody told it to end.
    pub fn is_up(&self) -> bool {
        self.ended.is_none() && self.told == Told::Nothing
    }

    /// Whether it was killed because somebody wanted to see that.
    pub fn was_killed(&self) -> bool {
        self.ended.as_ref().is_some_and(|ending| ending.told == Told::Die)
    }

    /// What it is up to, in a word or two.
    pub fn state(&self) -> String {
        if let Some(ending) = &self.ended {
            return ending.to_string();
        }
        let churn = self.stats.as_ref().map(|stats| &stats.churn);
        let life = churn.and_then(|churn| churn.life);
        match (self.frozen, self.told, life) {
            (true, ..) => "frozen".to_owned(),
            (_, Told::Stop, _) => Life::Draining.name().to_owned(),
            (_, _, Some(Life::Serving)) => match churn.and_then(|churn| churn.fence.as_ref()) {
                Some(fence) => format!("waits: {fence}"),
                None => Life::Serving.name().to_owned(),
            },
            (_, _, Some(life)) => life.name().to_owned(),
            (_, _, None) if self.role == Role::Agent && self.stats.is_some() => "up".to_owned(),
            _ => "starting".to_owned(),
        }
    }
}

// === impl Ending ===

impl Ending {
    pub(super) fn new(status: std::io::Result<ExitStatus>, told: Told) -> Self {
        match status {
            Ok(status) => Self { status: status.to_string(), clean: status.success(), told },
            Err(error) => Self { status: error.to_string(), clean: false, told },
        }
    }

    /// Whether it ended as it was told to.
    pub fn is_fine(&self) -> bool {
        match self.told {
            Told::Nothing => false,
            Told::Stop => self.clean,
            Told::Die => true,
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.told {
            Told::Stop if self.clean => f.write_str("left"),
            Told::Die => f.write_str("killed"),
            Told::Nothing | Told::Stop => write!(f, "gone: {}", self.status),
        }
    }
}
