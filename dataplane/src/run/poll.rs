//! Asks the admin ports of the fleet: is it ready, and what are its figures.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::stats::Stats;

/// Loopback answers in a millisecond; a process that is busy for longer shows its old figures once more.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// 64 gateways of 64 policies with long names stay below a tenth of it.
const ANSWER_BYTES_MAX: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The figures of every process that answers, in the order of `admins`.
pub async fn stats(admins: &[Option<SocketAddr>]) -> Vec<Option<Stats>> {
    ask_all(admins, "/stats", |status, body| {
        (status == StatusCode::OK).then(|| serde_json::from_slice(&body).ok()).flatten()
    })
    .await
}

/// Whether every process says that it is ready.
pub async fn all_ready(admins: &[Option<SocketAddr>]) -> bool {
    let ready = ask_all(admins, "/readyz", |status, _| (status == StatusCode::OK).then_some(()));
    ready.await.iter().all(Option::is_some)
}

async fn ask_all<T: Send + 'static>(
    admins: &[Option<SocketAddr>],
    path: &'static str,
    read: fn(StatusCode, Bytes) -> Option<T>,
) -> Vec<Option<T>> {
    let mut questions = JoinSet::new();
    for (index, admin) in admins.iter().enumerate() {
        let Some(admin) = *admin else { continue };
        questions.spawn(async move {
            let answer = tokio::time::timeout(ANSWER_WITHIN, ask(admin, path)).await;
            (index, answer.ok().and_then(Result::ok).and_then(|(status, body)| read(status, body)))
        });
    }
    let mut answers: Vec<Option<T>> = admins.iter().map(|_| None).collect();
    for (index, answer) in questions.join_all().await {
        answers[index] = answer;
    }
    answers
}

async fn ask(admin: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), Failure> {
    let stream = TcpStream::connect(admin).await?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, admin.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answered = async move {
        let response = requests.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven beside the request; it ends when `requests` is dropped with the answer.
    let (answer, _) = tokio::join!(answered, connection);
    answer
}
