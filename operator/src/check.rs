//! `ringtail-operator check`: asks an address until it answers well. The image has no shell and no curl,
//! and the chart's test looks at the operator with it.

use std::time::Duration;

use clap::Parser;
use hyper::{Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::TcpStream, time};

/// A pod that has just become ready takes a moment to get into its Service.
const PAUSE: Duration = Duration::from_millis(500);
/// Of one question. A kubelet's probe has three seconds; across nodes it may take longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Asks an address, such as an operator's /readyz, until it answers well.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringtail-operator check", no_binary_name = true)]
pub struct Check {
    /// What to ask: http://name:8080/readyz
    address: Uri,
    /// For how many seconds to go on asking.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
}

/// Why an address is not as it should be.
#[derive(Debug, Error)]
pub enum CheckError {
    /// It is no address that can be asked.
    #[error("{0} is no address like http://name:8080/readyz")]
    Address(Uri),
    /// Nobody listens there, or the name is not known.
    #[error("cannot connect to {authority}: {error}")]
    Connect {
        /// Name and port.
        authority: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Something listens that does not speak HTTP, or stops in the middle.
    #[error("{authority} does not answer: {error}")]
    Answer {
        /// Name and port.
        authority: String,
        /// What went wrong.
        error: hyper::Error,
    },
    /// It answers that something is wrong.
    #[error("{address} answers {status}")]
    Status {
        /// What was asked.
        address: Uri,
        /// The answer.
        status: StatusCode,
    },
    /// It takes too long.
    #[error("{0} does not answer in {seconds} s", seconds = ANSWER_WITHIN.as_secs())]
    Late(Uri),
}

// === impl Check ===

impl Check {
    /// Asks.
    ///
    /// # Errors
    /// The last reason when the answer never was good.
    pub async fn run(&self) -> Result<(), CheckError> {
        check(&self.address, Duration::from_secs(self.patience)).await
    }
}

/// Asks until the answer is good, for as long as `patience` lasts.
///
/// # Errors
/// The last reason when it never was.
pub async fn check(address: &Uri, patience: Duration) -> Result<(), CheckError> {
    let end = time::Instant::now() + patience;
    loop {
        let answer = time::timeout(ANSWER_WITHIN, ask(address)).await;
        let reason = match answer.unwrap_or_else(|_| Err(CheckError::Late(address.clone()))) {
            Ok(()) => return Ok(()),
            Err(reason @ CheckError::Address(_)) => return Err(reason),
            Err(reason) => reason,
        };
        if time::Instant::now() + PAUSE >= end {
            return Err(reason);
        }
        time::sleep(PAUSE).await;
    }
}

async fn ask(address: &Uri) -> Result<(), CheckError> {
    let authority = match (address.scheme_str(), address.authority()) {
        (Some("http"), Some(authority)) => authority,
        _ => return Err(CheckError::Address(address.clone())),
    };
    let target = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
    let authority = authority.to_string();
    let stream = TcpStream::connect(target)
        .await
        .map_err(|error| CheckError::Connect { authority: authority.clone(), error })?;
    let path = address.path_and_query().map_or("/", |path| path.as_str());
    let broken = |error| CheckError::Answer { authority: authority.clone(), error };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::get(path).header(header::HOST, &authority).body(String::new());
    let request = request.map_err(|_| CheckError::Address(address.clone()))?;
    // The connection is driven only for as long as the question is open.
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(broken)?,
        ended = connection => return Err(ended.map_or_else(broken, |()| CheckError::Late(address.clone()))),
    };
    let status = answer.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(CheckError::Status { address: address.clone(), status })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that is not ready for the first `bad` questions.
    async fn server(bad: usize) -> Uri {
        let asked = Arc::new(AtomicUsize::new(0));
        let answer = move || async move {
            let ready = asked.fetch_add(1, Ordering::Relaxed) >= bad;
            if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
        };
        let router = Router::new().route("/readyz", get(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/readyz").parse().unwrap()
    }

    #[tokio::test]
    async fn waits_until_the_answer_is_good() {
        check(&server(2).await, Duration::from_secs(60)).await.unwrap();
    }

    #[tokio::test]
    async fn gives_up_with_the_last_reason() {
        let unready = server(usize::MAX).await.to_string();
        let options = Check::parse_from([unready.as_str(), "--patience", "0"]);
        let refused = options.run().await.unwrap_err();
        assert!(
            refused.to_string().ends_with("/readyz answers 503 Service Unavailable"),
            "{refused}"
        );
        let nobody = check(&"http://127.0.0.1:1/readyz".parse().unwrap(), Duration::ZERO).await;
        assert!(matches!(nobody, Err(CheckError::Connect { .. })), "{nobody:?}");
    }

    #[tokio::test]
    async fn a_strange_address_is_not_asked_twice() {
        for address in ["https://a/readyz", "/readyz", "a:80"] {
            let refused = check(&address.parse().unwrap(), Duration::from_secs(3600)).await;
            assert!(matches!(refused, Err(CheckError::Address(_))), "{address}: {refused:?}");
        }
    }
}
