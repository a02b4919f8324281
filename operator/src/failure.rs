//! What can go wrong while a pipeline is reconciled, sorted by what is to be done about it.

use std::fmt;

use thiserror::Error;

use crate::{
    gate::{NoAnswer, NotLeading},
    kind::Kind,
};

/// A reconcile ended early.
#[derive(Debug, Error)]
pub enum Failure {
    /// A name that a child needs is taken.
    #[error(
        "{kind} {name} exists and does not belong to this pipeline; delete it, or name the pipeline otherwise"
    )]
    Foreign {
        /// The kind of the object.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// A request failed.
    #[error("cannot {verb} {what}: {source}")]
    Request {
        /// What was tried.
        verb: &'static str,
        /// On which object.
        what: String,
        /// How it failed.
        source: Box<kube::Error>,
    },
    /// It took too long as a whole.
    #[error("the reconcile took longer than it may; it goes on from where it came to")]
    Timeout,
    /// A certificate or key could not be made.
    #[error("cannot make {what}: {reason}")]
    Mint {
        /// What was to be made.
        what: &'static str,
        /// Why it was not.
        reason: String,
    },
}

/// Kinds of failures, as a label of metrics and for decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Somebody else's object is in the way.
    Foreign,
    /// Somebody else wrote first; the next attempt sees it.
    Conflict,
    /// RBAC, a quota or an admission policy says no.
    Forbidden,
    /// The API server does not take an object as it is.
    Invalid,
    /// The API server asks for patience.
    Throttled,
    /// The API server is ill.
    Server,
    /// It was not reached, or did not answer.
    Network,
    /// This operator does not lead.
    NotLeading,
    /// Certificates.
    Mint,
}

// === impl Failure ===

impl Failure {
    /// For `map_err`.
    pub fn request(
        verb: &'static str,
        what: impl fmt::Display,
    ) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Request { verb, what: what.to_string(), source: Box::new(source) }
    }

    /// What kind of failure it is.
    pub fn category(&self) -> Category {
        match self {
            Self::Foreign { .. } => Category::Foreign,
            Self::Mint { .. } => Category::Mint,
            Self::Timeout => Category::Network,
            Self::Request { source, .. } => of_request(source),
        }
    }
}

fn of_request(error: &kube::Error) -> Category {
    match error {
        kube::Error::Api(status) => match status.code {
            403 => Category::Forbidden,
            404 | 409 => Category::Conflict,
            400 | 422 => Category::Invalid,
            429 => Category::Throttled,
            _ => Category::Server,
        },
        kube::Error::Service(error) if error.is::<NotLeading>() => Category::NotLeading,
        kube::Error::Service(error) if error.is::<NoAnswer>() => Category::Network,
        _ => Category::Network,
    }
}

// === impl Category ===

impl Category {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Foreign,
        Self::Conflict,
        Self::Forbidden,
        Self::Invalid,
        Self::Throttled,
        Self::Server,
        Self::Network,
        Self::NotLeading,
        Self::Mint,
    ];

    /// As a label and a reason.
    pub fn name(self) -> &'static str {
        match self {
            Self::Foreign => "Foreign",
            Self::Conflict => "Conflict",
            Self::Forbidden => "Forbidden",
            Self::Invalid => "Invalid",
            Self::Throttled => "Throttled",
            Self::Server => "Server",
            Self::Network => "Network",
            Self::NotLeading => "NotLeading",
            Self::Mint => "Mint",
        }
    }

    /// Whether it lasts until somebody does something about it.
    pub fn needs_somebody(self) -> bool {
        matches!(self, Self::Foreign | Self::Forbidden | Self::Invalid)
    }
}
