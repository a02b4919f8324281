//! The gate that every write passes: it lets a request start only while the lease is ours.
//!
//! It is a layer of the client, outside of which nothing can write, and behind it nothing retries: a
//! request that failed after a long stop must not start again without a look at the lease.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{self, Either};
use http::{Method, Request, Response};
use kube::client::Body;
use prometheus_client::metrics::counter::Counter;
use thiserror::Error;
use tokio::{sync::watch, time::timeout};
use tower::{BoxError, Layer, Service};

use crate::lease::Leadership;

/// How long the first byte of an answer may take. API servers end a request of their own after 60 seconds,
/// and a reconcile that waits longer than half of it had better start again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A write was refused here, before it reached the API server.
#[derive(Clone, Copy, Debug, Error)]
#[error("this operator does not lead (any more), so it does not write")]
pub struct NotLeading;

/// No answer came in time.
#[derive(Clone, Copy, Debug, Error)]
#[error("the API server did not answer within {ANSWER_TIMEOUT:?}")]
pub struct NoAnswer;

/// Puts the gate in front of a client.
#[derive(Clone)]
pub struct Gate {
    /// Where leadership stands.
    pub leadership: watch::Receiver<Leadership>,
    /// Counts the writes that were let through.
    pub writes: Counter,
}

/// A client behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

// === impl Gate ===

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

impl Gate {
    fn admits(&self, request: &Request<Body>) -> bool {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return true;
        }
        let admits = self.leadership.borrow().may_write();
        if admits {
            self.writes.inc();
        }
        admits
    }
}

// === impl Gated ===

impl<S, B> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !self.gate.admits(&request) {
            return Box::pin(future::ready(Err(NotLeading.into())));
        }
        let answer = match is_watch(&request) {
            true => Either::Left(self.inner.call(request)),
            false => Either::Right(in_time(self.inner.call(request))),
        };
        Box::pin(answer)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(NoAnswer.into()))
}

// Watches have their own idle timeout, and their first byte may be minutes away.
fn is_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}
