//! Calls to other gateways, each a future of its own, so that none waits for another.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use ringtail_engine::key::KeySeed;
use ringtail_engine::ownership::action::Failure;
use ringtail_engine::ownership::facts::{Instance, Name};
use ringtail_engine::ownership::message::{Agreement, Asked, Hello, HelloAnswer};

use crate::gateway::shards::{Ask, Outgoing, ShardHandle, by_shard};
use crate::peer::{DecideResponse, DeliverResponse, HelloResponse, Role, messages};
use crate::transport::{
    CallError, Client, Code, Encoding, Method, PREFIX_BYTES, Pieces, framed, prefix,
};

/// How a call ended.
#[derive(Debug)]
pub(super) enum Called {
    /// A greeting.
    Hello {
        letter: Letter,
        /// `None` from somebody who is no gateway of ours.
        result: Result<Option<Met>, CallError>,
    },
    /// What a shard sent was answered, and the greeting that went along, if one did; not by somebody who
    /// does not know that greetings may.
    Answered { from: Instance, along: Option<(Letter, Option<Met>)> },
    /// What a shard sent was not answered.
    Failed { to: Name, failure: Failure },
    /// Answered, but not as a living gateway of ours does, and so perhaps not the greeting that went along.
    Unclear(Option<Letter>),
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
        Ok(answer) => {
            Ok(HelloResponse::decode(answer).ok().and_then(|response| met(&response, letter.asked)))
        }
        // Something else listens there.
        Err(CallError::Status { code: Code::Unimplemented, .. }) => Ok(None),
        Err(error) => Err(error),
    };
    Called::Hello { letter, result }
}

fn met(response: &HelloResponse, asked: Asked) -> Option<Met> {
    let seed_id = response.seed_id;
    let is_gateway = response.member.as_ref()?.role() != Role::Agent;
    let answer = messages::hello_answer_of(response, asked).ok()?;
    is_gateway.then_some(Met { seed_id, answer })
}

/// Carries what a shard, which is one of these, sends, and brings it the answer.
pub(super) async fn carry(
    outgoing: Outgoing,
    client: Option<Arc<Client>>,
    within: Duration,
    (shards, place): (Vec<ShardHandle>, usize),
    along: Option<Letter>,
) -> Called {
    let Some(shard) = shards.get(place) else { return Called::Unclear(None) };
    let Outgoing { to, req, method, frame, keys, .. } = outgoing;
    let Some(client) = client else {
        shard.ask(Ask::Failed(to, req, Failure::TimedOut)).await;
        return Called::Unclear(None);
    };
    let none = http::HeaderMap::new();
    let result = client.call(method, frame, Encoding::Identity, &none, within).await;
    let answer = match (method, result) {
        (Method::Deliver, Ok(answer)) => receipt(answer, &keys)
            .map(|receipt| (receipt.from.clone(), Ask::Receipt(req, receipt), None)),
        (_, Ok(answer)) => agreement(answer).map(|(agreement, hello)| {
            let along = along.map(|letter| {
                let met = hello.and_then(|hello| met(&hello, letter.asked));
                (letter, met)
            });
            (agreement.from.clone(), Ask::Agreement(req, agreement), along)
        }),
        (Method::Decide, Err(CallError::Status { code: Code::Unimplemented, .. })) => {
            // An older gateway remembers nothing, and is not waited for.
            let from = Instance { name: Arc::clone(&to), inst: 0 };
            let agreed = Agreement { from, known: Vec::new(), refused: Vec::new() };
            shard.ask(Ask::Agreement(req, agreed)).await;
            return Called::Unclear(along);
        }
        (_, Err(error)) => {
            tracing::debug!(%to, %error, ?method, "a gateway did not take what it was sent");
            let failure = failure(&error);
            shard.ask(Ask::Failed(Arc::clone(&to), req, failure)).await;
            return Called::Failed { to, failure };
        }
    };
    match answer {
        Some((from, mut ask, along)) => {
            if let Ask::Agreement(_, answer) = &mut ask {
                pass_on(answer, place, &shards).await;
            }
            shard.ask(ask).await;
            Called::Answered { from, along }
        }
        None => {
            shard.ask(Ask::Failed(to, req, Failure::TimedOut)).await;
            Called::Unclear(None)
        }
    }
}

/// Gives the other shards what an answer to this one says of their traces: who answers may have another
/// number of shards.
async fn pass_on(answer: &mut Agreement, place: usize, shards: &[ShardHandle]) {
    let mut parts = by_shard(std::mem::take(&mut answer.known), shards.len());
    answer.known = parts.get_mut(place).map(std::mem::take).unwrap_or_default();
    for (shard, news) in shards.iter().zip(parts).filter(|(_, news)| !news.is_empty()) {
        shard.ask(Ask::News(news)).await;
    }
}

fn receipt(
    answer: Bytes,
    keys: &[ringtail_engine::key::TraceKey],
) -> Option<ringtail_engine::ownership::message::Receipt> {
    let response = DeliverResponse::decode(answer).ok()?;
    messages::receipt_of(&response, keys.iter().copied()).ok()
}

fn agreement(answer: Bytes) -> Option<(Agreement, Option<HelloResponse>)> {
    let mut response = DecideResponse::decode(answer).ok()?;
    let hello = response.hello.take();
    Some((messages::agreement_of(&response).ok()?, hello))
}

/// A request with a greeting behind it.
pub(super) fn with(frame: Pieces, hello: &Hello, seed: &KeySeed) -> Pieces {
    let mut message = frame.joined();
    message.advance(PREFIX_BYTES.min(message.len()));
    // Fields may follow each other in any order.
    let hello = messages::along(hello, seed).encode_to_vec();
    let front = prefix(message.len() + hello.len(), false);
    Pieces::new([Bytes::copy_from_slice(&front), message, hello.into()])
}

/// What a failed call means.
pub(super) fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Connect(error) if error.refused => Failure::Refused,
        _ => Failure::TimedOut,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringtail_engine::key::TraceKey;
    use ringtail_engine::ownership::message::{Decision, Decisions, Status, Verdict};

    use super::*;
    use crate::peer::{DecideRequest, Member};

    #[test]
    fn a_greeting_goes_along_with_decisions() {
        let from = Instance { name: "gw-0".into(), inst: 7 };
        let verdict = Verdict { keep: true, note: 2 };
        let decision = |key| Decision { key: TraceKey(key), verdict, age: 0, exported: false };
        let list = (0..500).map(decision).collect();
        let told = Decisions { from: from.clone(), propose: true, list };
        let member = Member { id: "gw-0".to_owned(), inst: 7, ..Member::default() };
        let request = messages::decisions(&told, member).encode_to_vec();
        let frame = framed(request.len(), |out| out.extend_from_slice(&request));
        let status = Status {
            from,
            digest: 9,
            complete: true,
            cold: 0,
            facts: Arc::default(),
            losses: Arc::default(),
            heard: Arc::default(),
        };
        let hello = Hello { status, asked: Asked { epoch: 3, at: 4 } };
        let seed = KeySeed::new([1; 16]);
        let both = with(frame.into(), &hello, &seed).joined();
        let (front, message) = both.split_at(PREFIX_BYTES);
        assert_eq!(front, prefix(message.len(), false));
        let arrived = DecideRequest::decode(message).unwrap();
        let greeting = messages::hello_of(arrived.hello.as_ref().unwrap()).unwrap().unwrap();
        assert_eq!((greeting.asked, greeting.status.digest), (hello.asked, 9));
        let arrived = messages::decisions_of(&arrived).unwrap();
        assert_eq!(format!("{arrived:?}"), format!("{told:?}"));
    }
}
