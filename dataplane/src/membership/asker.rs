//! Asks one candidate who it is, again and again, and tells what changes.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use ringtail_engine::ring::Member;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{Status, Voice};
use crate::peer::{Dialect, HelloResponse, Role, State};
use crate::transport::{CallError, Client, ClientLimits, Code, Encoding, Keyring, Method, framed};

/// How often a candidate is asked.
pub const HELLO_EVERY: Duration = Duration::from_millis(750);
/// How often an agent that is thin looks whether it is answered: there may be one in every pod.
const THIN_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take.
const HELLO_WITHIN: Duration = Duration::from_millis(1000);
/// A member that was heard and then says nothing for so long has left: four missed hellos, and some delay.
const SUSPECT_AFTER: Duration = Duration::from_secs(4);

/// News of one candidate.
#[derive(Debug)]
pub struct News {
    /// Its address.
    pub address: String,
    /// The number of its seat.
    pub number: u64,
    /// What is known of it now.
    pub status: Status,
}

/// Asks one candidate for as long as it is one.
pub struct Asker {
    /// The number of the candidate's seat.
    pub number: u64,
    /// `host:port`, also the name of a peer that has no other.
    pub address: String,
    /// Tells our seed from others'.
    pub seed_id: u64,
    /// Whether nobody is asked who it is, and whoever answers takes plain OTLP.
    pub thin: bool,
    /// Whether a peer that does not know `Hello` is a member too.
    pub takes_collectors: bool,
    /// Certificates, where there is TLS between the tiers.
    pub keyring: Option<Arc<Keyring>>,
    /// What is said when asking.
    pub voice: Arc<dyn Voice>,
    /// Where it tells how spans are to be framed.
    pub dialect: watch::Sender<Dialect>,
    /// Where news go.
    pub news: mpsc::Sender<News>,
}

// === impl Asker ===

impl Asker {
    /// Asks, reports changes, and goes on.
    pub async fn run(self) {
        // A connection of its own: an answer must not wait behind a megabyte of spans.
        let limits = ClientLimits::default();
        let client = match Client::with_keyring(&self.address, &limits, self.keyring.as_ref()) {
            Ok(client) => client,
            Err(error) => return tracing::warn!(%error, "a candidate cannot be asked"),
        };
        let mut known = Status::Unknown;
        let mut heard = Instant::now();
        let mut every = tokio::time::interval(if self.thin { THIN_EVERY } else { HELLO_EVERY });
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let answer = match self.thin {
                true => knock(&client).await.map(|()| None),
                false => ask(&client, self.voice.hello()).await,
            };
            let status = match answer {
                Ok(answer) => {
                    heard = Instant::now();
                    self.judge(answer)
                }
                Err(CallError::Connect(_)) => Status::Away,
                Err(_) if heard.elapsed() >= SUSPECT_AFTER => Status::Away,
                Err(_) => continue,
            };
            if status != known {
                self.log(&status);
                known = status.clone();
                let news = News { address: self.address.clone(), number: self.number, status };
                if self.news.send(news).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What an answer means; `None` is a peer that does not know the question.
    fn judge(&self, answer: Option<HelloResponse>) -> Status {
        let Some((member, seed_id)) = answer.and_then(|a| Some((a.member?, a.seed_id))) else {
            self.dialect.send_replace(Dialect::Otlp);
            return if self.takes_collectors {
                Status::Serving(Member { id: self.address.clone(), inst: 0 })
            } else {
                Status::Foreign
            };
        };
        if seed_id != self.seed_id {
            return Status::Foreign;
        }
        // Whoever answers on the way to a gateway and is none would keep what it is sent.
        if member.role() == Role::Agent {
            return Status::Foreign;
        }
        match member.state() {
            State::Serving => {
                self.dialect.send_replace(Dialect::Ringtail);
                Status::Serving(Member { id: member.id, inst: member.inst })
            }
            _ => Status::Draining,
        }
    }

    fn log(&self, status: &Status) {
        let address = self.address.as_str();
        if *status == Status::Foreign {
            tracing::warn!(
                address,
                "not taken as a gateway: it does not speak our protocol or has another seed; every process \
                 of a fleet needs the same --seed-file"
            );
        } else {
            tracing::info!(address, ?status, "gateway");
        }
    }
}

/// Whether anybody is there, asked by a request without spans. It says nothing of ourselves: a gateway
/// would count us among those whose ring should agree.
async fn knock(client: &Client) -> Result<(), CallError> {
    let frame = framed(0, |_| {});
    let none = http::HeaderMap::new();
    match client.call(Method::ExportTraces, frame, Encoding::Identity, &none, HELLO_WITHIN).await {
        Ok(_) | Err(CallError::Status { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks once; `None` when the peer answers without knowing the question.
///
/// # Errors
/// When there is no answer.
pub async fn ask(client: &Client, hello: Vec<u8>) -> Result<Option<HelloResponse>, CallError> {
    let frame = framed(hello.len(), |out| out.extend_from_slice(&hello));
    let none = http::HeaderMap::new();
    match client.call(Method::Hello, frame, Encoding::Identity, &none, HELLO_WITHIN).await {
        // Something that answers every call with OK knows nothing either.
        Ok(answer) => Ok(HelloResponse::decode(answer).ok()),
        Err(CallError::Status { code: Code::Unimplemented, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
