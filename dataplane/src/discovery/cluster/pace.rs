//! A brake on requests to the API server, and an eye on their answers.
//!
//! A watch that its server ends is asked for again at once by the watcher: by itself that is right, but a
//! server that ends every watch would be asked as fast as it can answer, and one that restarts would be
//! asked by the whole fleet in the same instant. So every request but the first few waits a moment of
//! random length.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Sleep;
use tower::{Layer, Service};

use crate::discovery::Health;

/// Requests without a pause: a process lists and watches two resources when it starts.
const UNPAUSED: u64 = 4;
/// Other requests wait up to so long, half of it on average: at worst a process sends one request a second.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Puts the brake on a client.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    slices: Arc<Health>,
    config: Arc<Health>,
}

/// A client with the brake on.
#[derive(Debug)]
pub(super) struct Paced<S> {
    client: S,
    pace: Pace,
    sent: u64,
    turn: Turn,
}

#[derive(Debug)]
enum Turn {
    Idle,
    Waiting(Pin<Box<Sleep>>),
    Mine,
}

/// How long the request after `sent` others waits, with a random number from 0 to 1.
fn pause_before(sent: u64, random: f64) -> Duration {
    if sent < UNPAUSED { Duration::ZERO } else { PAUSE_MAX.mul_f64(random) }
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(slices: Arc<Health>, config: Arc<Health>) -> Self {
        Self { slices, config }
    }

    fn health(&self, path: &str) -> &Arc<Health> {
        if path.ends_with("/endpointslices") { &self.slices } else { &self.config }
    }
}

impl<S> Layer<S> for Pace {
    type Service = Paced<S>;

    fn layer(&self, client: S) -> Self::Service {
        Paced { client, pace: self.clone(), sent: 0, turn: Turn::Idle }
    }
}

// === impl Paced ===

impl<S, B, A> Service<Request<B>> for Paced<S>
where
    S: Service<Request<B>, Response = Response<A>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if let Turn::Idle = self.turn {
            let pause = pause_before(self.sent, fastrand::f64());
            self.turn = Turn::Waiting(Box::pin(tokio::time::sleep(pause)));
        }
        if let Turn::Waiting(sleep) = &mut self.turn {
            ready!(sleep.as_mut().poll(context));
            self.turn = Turn::Mine;
        }
        self.client.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.turn = Turn::Idle;
        self.sent += 1;
        let health = Arc::clone(self.pace.health(request.uri().path()));
        health.requests.fetch_add(1, Relaxed);
        let answer = self.client.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // A watch that is taken up again may have nothing to tell for hours: this is its sign of life.
            if answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
                health.succeed();
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Echo;

    impl Service<Request<()>> for Echo {
        type Response = Response<()>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Response<()>, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            std::future::ready(Ok(Response::new(())))
        }
    }

    #[test]
    fn a_server_that_ends_every_watch_is_asked_once_a_second() {
        let minute: Duration = (0..64).map(|sent| pause_before(sent, 0.5)).sum();
        assert_eq!(minute, Duration::from_secs(60));
    }

    #[tokio::test]
    async fn every_answer_is_a_sign_of_life_of_its_own_resource() {
        let [slices, config] = [(); 2].map(|()| Arc::new(Health::new("k8s")));
        let pace = Pace::new(Arc::clone(&slices), Arc::clone(&config));
        let mut client = pace.layer(Echo);
        slices.fail();
        config.fail();
        std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
        let path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
        client.call(Request::get(path).body(()).unwrap()).await.unwrap();
        assert_eq!((slices.requests.load(Relaxed), config.requests.load(Relaxed)), (1, 0));
        assert_eq!(slices.failing_for(), Duration::ZERO);
        assert!(config.failing_for() > Duration::ZERO);
    }
}
