//! Calls to other gateways, each a future of its own, so that none waits for another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ownership::action::Failure;
use ringtail_engine::ownership::facts::{Instance, Name};
use ringtail_engine::ownership::message::{Agreement, Asked, Hello, HelloAnswer};

use crate::gateway::shards::{Ask, Outgoing, ShardHandle};
use crate::peer::{DecideResponse, DeliverResponse, HelloResponse, Role, messages};
use crate::transport::{CallError, Client, Code, Encoding, Method, framed};

/// How a call ended.
#[derive(Debug)]
pub(super) enum Called {
    /// A greeting.
    Hello {
        letter: Letter,
        /// `None` from somebody who is no gateway of ours.
        result: Result<Option<Met>, CallError>,
    },
    /// What a shard sent was answered.
    Answered { from: Instance },
    /// What a shard sent was not answered.
    Failed { to: Name, failure: Failure },
    /// Answered, but not as a living gateway of ours does.
    Unclear,
}

/// A greeting on its way.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) address: String,
    /// Who was there before.
    pub(super) to: Option<Name>,
    pub(super) asked: Asked,
    pub(super) client: Arc<Client>,
    pub(super) within: Duration,
}

/// Somebody who answered a greeting.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) seed_id: u64,
    pub(super) answer: HelloAnswer,
}

/// Greets a gateway.
pub(super) async fn greet(letter: Letter, hello: Hello, seed: KeySeed) -> Called {
    let request = messages::hello(&hello, &seed).encode_to_vec();
    let frame = framed(request.len(), |out| out.extend_from_slice(&request));
    let none = http::HeaderMap::new();
    let call =
        letter.client.call(Method::Hello, frame, Encoding::Identity, &none, letter.within).await;
    let result = match call {
        Ok(answer) => Ok(meet(answer, letter.asked)),
        // Something else listens there.
        Err(CallError::Status { code: Code::Unimplemented, .. }) => Ok(None),
        Err(error) => Err(error),
    };
    Called::Hello { letter, result }
}

fn meet(answer: Bytes, asked: Asked) -> Option<Met> {
    let response = HelloResponse::decode(answer).ok()?;
    let seed_id = response.seed_id;
    let is_gateway = response.member.as_ref()?.role() != Role::Agent;
    let answer = messages::hello_answer_of(&response, asked).ok()?;
    is_gateway.then_some(Met { seed_id, answer })
}

/// Carries what a shard sends, and brings it the answer.
pub(super) async fn carry(
    outgoing: Outgoing,
    client: Option<Arc<Client>>,
    within: Duration,
    shard: ShardHandle,
) -> Called {
    let Outgoing { to, req, method, frame, keys, .. } = outgoing;
    let Some(client) = client else {
        shard.ask(Ask::Failed(to, req, Failure::TimedOut)).await;
        return Called::Unclear;
    };
    let none = http::HeaderMap::new();
    let result = client.call(method, frame, Encoding::Identity, &none, within).await;
    let answer = match (method, result) {
        (Method::Deliver, Ok(answer)) => {
            receipt(answer, &keys).map(|receipt| (receipt.from.clone(), Ask::Receipt(req, receipt)))
        }
        (_, Ok(answer)) => agreement(answer)
            .map(|agreement| (agreement.from.clone(), Ask::Agreement(req, agreement))),
        (Method::Decide, Err(CallError::Status { code: Code::Unimplemented, .. })) => {
            // An older gateway remembers nothing, and is not waited for.
            let from = Instance { name: Arc::clone(&to), inst: 0 };
            let agreed = Agreement { from, known: Vec::new(), refused: Vec::new() };
            shard.ask(Ask::Agreement(req, agreed)).await;
            return Called::Unclear;
        }
        (_, Err(error)) => {
            tracing::debug!(%to, %error, ?method, "a gateway did not take what it was sent");
            let failure = failure(&error);
            shard.ask(Ask::Failed(Arc::clone(&to), req, failure)).await;
            return Called::Failed { to, failure };
        }
    };
    match answer {
        Some((from, ask)) => {
            shard.ask(ask).await;
            Called::Answered { from }
        }
        None => {
            shard.ask(Ask::Failed(to, req, Failure::TimedOut)).await;
            Called::Unclear
        }
    }
}

fn receipt(
    answer: Bytes,
    keys: &[ringtail_engine::key::TraceKey],
) -> Option<ringtail_engine::ownership::message::Receipt> {
    let response = DeliverResponse::decode(answer).ok()?;
    messages::receipt_of(&response, keys.iter().copied()).ok()
}

fn agreement(answer: Bytes) -> Option<Agreement> {
    messages::agreement_of(&DecideResponse::decode(answer).ok()?).ok()
}

/// What a failed call means.
pub(super) fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Connect(error) if error.refused => Failure::Refused,
        _ => Failure::TimedOut,
    }
}
