//! The gateway's receivers: who may come in where, and what peers are answered.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use prost::Message;
use ringtail_engine::ownership::message::{self, Agreement, Origin};

use super::fleet::Knock;
use super::shards::{Ask, ShardHandle, by_shard};
use super::{Gateway, no_holder, stopping, wrong};
use crate::otlp;
use crate::peer::messages::{self, Manner};
use crate::peer::{
    DecideRequest, DecideResponse, DeliverRequest, HelloRequest, HelloResponse, Member,
    PollRequest, Role,
};
use crate::transport::{Call, Handler, Method, Peer, Refusal, Reply};

/// The gateway's side of its receivers.
#[derive(Clone, Debug)]
pub struct Intake {
    /// Behind the door.
    pub gateway: Arc<Gateway>,
    /// Which door.
    pub door: Door,
}

/// Who may come in where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Everybody: there is no TLS between the tiers.
    Open,
    /// SDKs and Collectors; peers have a port of their own.
    Clients,
    /// Peers, by their certificate.
    Peers,
}

// === impl Intake ===

impl Intake {
    /// Whether the process that a message is from may be behind this connection.
    fn admit(&self, from: Option<&Member>, peer: Peer) -> Result<(), Refusal> {
        let claimed = from.map_or(Role::Unspecified, Member::role);
        let shown = peer.certified.map(Role::from);
        if self.door != Door::Peers || shown == Some(claimed) {
            return Ok(());
        }
        tracing::warn!(%peer, ?claimed, ?shown, "a peer claims to be what its certificate does not say");
        Err(Refusal::Forbidden("the certificate is not of the tier that the message claims".into()))
    }
}

impl Handler for Intake {
    fn admits(&self, method: Method) -> Result<(), Refusal> {
        let for_peers = "peers of this pipeline speak TLS to the peer port (4319); plain OTLP is \
                         taken here";
        match (method, self.door) {
            (Method::ExportTraces, Door::Open | Door::Clients)
            | (
                Method::Hello | Method::Deliver | Method::Decide | Method::Poll,
                Door::Open | Door::Peers,
            ) => Ok(()),
            // Agents bring records to the door that is theirs.
            (Method::ExportLogs, _) if self.gateway.logs.is_some() => Ok(()),
            (Method::Hello | Method::Deliver | Method::Decide | Method::Poll, Door::Clients) => {
                self.gateway.peers.turned_away.fetch_add(1, Relaxed);
                Err(Refusal::Forbidden(for_peers.to_owned()))
            }
            (other, _) => Err(other.unserved()),
        }
    }

    async fn handle(&self, call: Call) -> Result<Reply, Refusal> {
        let gateway = &self.gateway;
        match call.method {
            Method::Hello => {
                let hello: HelloRequest = read(call.message)?;
                self.admit(hello.from.as_ref(), call.peer)?;
                gateway.hello(hello).await
            }
            Method::Deliver => {
                let request: DeliverRequest = read(call.message)?;
                self.admit(request.from.as_ref(), call.peer)?;
                gateway.deliver(request, call.permit).await
            }
            Method::Decide => {
                let request: DecideRequest = read(call.message)?;
                self.admit(request.from.as_ref(), call.peer)?;
                if request.from.as_ref().map(Member::role) != Some(Role::Gateway) {
                    return Err(Refusal::Forbidden("only gateways decide".to_owned()));
                }
                if let Some(hello) = &request.hello {
                    self.admit(hello.from.as_ref(), call.peer)?;
                }
                gateway.decide(request).await
            }
            Method::Poll => {
                let request: PollRequest = read(call.message)?;
                self.admit(request.from.as_ref(), call.peer)?;
                gateway.poll(request).await
            }
            Method::ExportTraces => gateway.export(call).await,
            Method::ExportLogs => gateway.export_logs(call).await,
            other => Err(other.unserved()),
        }
    }
}

fn read<M: Message + Default>(message: Bytes) -> Result<M, Refusal> {
    M::decode(message)
        .map_err(|error| Refusal::Malformed(format!("not a message of ours: {error}")))
}

// === What clients and peers ask ===

impl Gateway {
    async fn export(&self, call: Call) -> Result<Reply, Refusal> {
        let mut permit = call.permit;
        let checked = otlp::check(call.message, &mut permit, call.left_out, &self.scan)?;
        let malformed = checked.malformed.clone();
        let stored = self.store(checked, Manner::uniform(Origin::Client), permit, false).await?;
        if stored.refused > 0 {
            return Err(no_holder());
        }
        Ok(otlp::export_reply(stored.invalid, &malformed))
    }

    async fn hello(&self, request: HelloRequest) -> Result<Reply, Refusal> {
        Ok(Reply { message: self.greeted(&request).await?.encode_to_vec().into() })
    }

    async fn greeted(&self, request: &HelloRequest) -> Result<HelloResponse, Refusal> {
        let plain = self.peers.answer(request);
        let hello = messages::hello_of(request).map_err(wrong)?;
        let ours = hello.filter(|_| request.seed_id == self.seed.id());
        let Some(hello) = ours else { return Ok(plain) };
        let answer = self.fleet.ask(|done| Knock::Hello(Box::new(hello), done)).await;
        Ok(messages::answer_hello(&answer.ok_or_else(stopping)?, plain))
    }

    async fn decide(&self, request: DecideRequest) -> Result<Reply, Refusal> {
        let told = messages::decisions_of(&request).map_err(wrong)?;
        let from = self.peers.stands.load().me.clone();
        let mut answer = Agreement { from, known: Vec::new(), refused: Vec::new() };
        let mut asked = Vec::new();
        for (shard, list) in self.by_shard(told.list) {
            let (done, agreed) = tokio::sync::oneshot::channel();
            let part = message::Decisions { list, from: told.from.clone(), ..told };
            shard.ask(Ask::Decisions(part, done)).await;
            asked.push(agreed);
        }
        let hello = match &request.hello {
            Some(hello) => Some(self.greeted(hello).await?),
            None => None,
        };
        for agreed in asked {
            let part = agreed.await.map_err(|_| stopping())?;
            answer.known.extend(part.known);
            answer.refused.extend(part.refused);
        }
        let answer = messages::agreement(&answer, self.peers.member());
        let answer = DecideResponse { hello, ..answer };
        Ok(Reply { message: answer.encode_to_vec().into() })
    }

    async fn poll(&self, request: PollRequest) -> Result<Reply, Refusal> {
        self.peers.hear(request.from.as_ref(), request.digest);
        let poll = messages::poll_of(&request).map_err(wrong)?;
        if request.seed_id != self.seed.id() {
            return Err(Refusal::Forbidden("the agent has another seed than this fleet".into()));
        }
        for (shard, list) in self.by_shard(poll.decided.to_vec()) {
            shard.ask(Ask::Reminded(list)).await;
        }
        let answer = self.fleet.ask(|done| Knock::Poll(Box::new(poll), done)).await;
        let (mut answer, confides) = answer.ok_or_else(stopping)?;
        let mut decided = Vec::new();
        if let Some(lately) = confides {
            for shard in &*self.shards {
                let (done, last) = tokio::sync::oneshot::channel();
                shard.ask(Ask::Last(lately, done)).await;
                decided.extend(last.await.unwrap_or_default());
            }
        }
        answer.decided = decided.into();
        let answer = messages::poll_answer(&answer, self.peers.member());
        Ok(Reply { message: answer.encode_to_vec().into() })
    }

    /// Decisions by the shard of their key.
    fn by_shard(
        &self,
        list: Vec<message::Decision>,
    ) -> impl Iterator<Item = (&ShardHandle, Vec<message::Decision>)> {
        let parts = by_shard(list, self.shards.len());
        self.shards.iter().zip(parts).filter(|(_, part)| !part.is_empty())
    }
}
