//! What a listener asks of whoever comes, and what it then knows of a connection.

use std::sync::Arc;

use super::admission::Admission;
use super::call::Peer;
use super::certificate::Certificate;
use super::keyring::Keyring;
use super::tally::Tally;
use super::tokens::Tokens;

/// One connection, as its calls see it.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    /// Its part of the budget.
    pub(super) admission: Admission,
    /// It speaks no TLS where TLS is spoken, and is only told so.
    pub(super) misplaced: bool,
}

/// What a listener asks of whoever comes.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// What is spoken.
    pub tls: Tls,
    /// The tokens of which one must be shown.
    pub tokens: Option<Arc<Tokens>>,
    /// What is counted.
    pub tally: Arc<Tally>,
}

/// What a listener speaks below HTTP.
#[derive(Clone, Debug, Default)]
pub enum Tls {
    /// Nothing.
    #[default]
    None,
    /// Mutual TLS between the tiers.
    Peers(Arc<Keyring>),
    /// TLS with clients, mutual if the certificate knows an authority of theirs.
    Clients(Arc<Certificate>),
}

// === impl Guard ===

impl Guard {
    /// Whether clients have to show anything.
    pub fn asks(&self) -> bool {
        self.tokens.is_some() || matches!(self.tls, Tls::Clients(_))
    }

    /// What is asked of peers, who are counted together with clients.
    pub fn for_peers(&self, keyring: Arc<Keyring>) -> Self {
        Self { tls: Tls::Peers(keyring), tokens: None, tally: Arc::clone(&self.tally) }
    }
}
