//! The addresses at which other gateways may be found, each with its connections.

use std::sync::Arc;
use std::time::Duration;

use ringtail_engine::Millis;
use ringtail_engine::ownership::facts::Name;
use ringtail_engine::ownership::message::Asked;

use super::calls::Letter;
use crate::discovery::{Candidate, Standing};
use crate::transport::{Client, ClientLimits, EndpointError, Keyring, Method};

/// Peers are near: a connection is there in milliseconds or not at all, and one that comes back is wanted
/// soon.
const CONNECT_WITHIN: Duration = Duration::from_millis(900);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) address: String,
    /// Who was there last.
    pub(super) name: Option<Name>,
    /// It is this very process.
    pub(super) myself: bool,
    /// It is not one of ours.
    pub(super) foreign: bool,
    /// Somebody is asking it who it is.
    pub(super) asking: bool,
    /// Greetings may go along with decisions.
    pub(super) rides: bool,
    /// When it answered a greeting last, or was opened.
    pub(super) answered: Millis,
    /// How it is listed, if it is.
    pub(super) standing: Option<Standing>,
    /// For what is small: it must not wait behind a megabyte of spans.
    pub(super) talk: Arc<Client>,
    spans: Arc<Client>,
}

// === impl Seat ===

impl Seat {
    /// A seat for a candidate.
    ///
    /// # Errors
    /// When its address is none.
    pub(super) fn open(
        candidate: &Candidate,
        keyring: Option<&Arc<Keyring>>,
        now: Millis,
    ) -> Result<Self, EndpointError> {
        let limits = ClientLimits {
            connect_timeout: CONNECT_WITHIN,
            backoff_first: PAUSE_FIRST,
            backoff_cap: PAUSE_MAX,
            ..ClientLimits::default()
        };
        let client = || Client::with_keyring(&candidate.address, &limits, keyring).map(Arc::new);
        Ok(Self {
            address: candidate.address.clone(),
            name: None,
            myself: false,
            foreign: false,
            asking: false,
            rides: true,
            answered: now,
            standing: Some(candidate.standing),
            talk: client()?,
            spans: client()?,
        })
    }

    /// A greeting to whoever was there last.
    pub(super) fn letter(&self, asked: Asked, within: Duration) -> Letter {
        let (address, to, client) =
            (self.address.clone(), self.name.clone(), Arc::clone(&self.talk));
        Letter { address, to, asked, client, within }
    }

    pub(super) fn client(&self, method: Method) -> Arc<Client> {
        Arc::clone(if method == Method::Deliver { &self.spans } else { &self.talk })
    }

    /// Whether it is listed, and not known to be this very process.
    pub(super) fn is_other(&self) -> bool {
        !self.myself && self.standing.is_some()
    }
}
