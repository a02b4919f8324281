//! One request to one gateway.

use std::{net::IpAddr, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

use super::answer::Answer;

/// The admin port of the data plane.
pub const ADMIN_PORT: u16 = 8888;
/// A gateway that takes longer is too busy to be asked.
const TIMEOUT: Duration = Duration::from_secs(2);
/// 2,000 observers of some 200 bytes, 64 policies of some 100, and as much again.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Why a gateway counts as missing.
#[derive(Debug, Error)]
pub enum NoStats {
    /// Nobody is there, or does not speak HTTP.
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    /// The connection broke.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// An answer that says so.
    #[error("answered {0}")]
    Refused(StatusCode),
    /// Larger than any gateway's.
    #[error("an answer that is too long, or broken off")]
    Body,
    /// Not the JSON of a gateway.
    #[error("an answer that cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It took too long.
    #[error("no answer within {TIMEOUT:?}")]
    Slow,
}

/// Asks a gateway.
pub async fn fetch(ip: IpAddr, port: u16) -> Result<Answer, NoStats> {
    timeout(TIMEOUT, ask(ip, port)).await.unwrap_or(Err(NoStats::Slow))
}

async fn ask(ip: IpAddr, port: u16) -> Result<Answer, NoStats> {
    let stream = TcpStream::connect((ip, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let request =
            Request::get("/stats").header(header::HOST, "gateway").body(Empty::<Bytes>::new());
        // A constant request is well-formed.
        let Ok(request) = request else { return Err(NoStats::Body) };
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(NoStats::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(serde_json::from_slice(&body.map_err(|_| NoStats::Body)?.to_bytes())?)
    };
    // The connection is driven by the same task, and ends with it.
    let (exchange, connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    match futures::future::select(exchange, connection).await {
        futures::future::Either::Left((answer, _)) => answer,
        futures::future::Either::Right((Err(error), _)) => Err(error.into()),
        futures::future::Either::Right((Ok(()), exchange)) => exchange.await,
    }
}
