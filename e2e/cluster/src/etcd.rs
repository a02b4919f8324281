//! The one thing that a test wants of etcd itself: to forget what was before.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, OnFile};

/// Compaction of a test's few objects takes milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Forgets all history: a watch or a list that goes on from before the last change is answered with 410.
pub(crate) async fn compact(address: &str) -> Result<(), Error> {
    // A write of our own is the revision that is kept. Without it the last change of the API server's would
    // be kept, and whoever has seen everything but that would still be served.
    let write = json!({ "key": STANDARD.encode("ringtail-cluster"), "value": "" });
    let answer = ask(address, "/v3/kv/put", &write).await?;
    let revision = answer["header"]["revision"].clone();
    let compacted = json!({ "revision": revision, "physical": true });
    let answer = ask(address, "/v3/kv/compaction", &compacted).await?;
    if answer["header"].is_object() {
        return Ok(());
    }
    Err(Error::Misuse(format!("etcd does not compact revision {revision}: {answer}")))
}

/// One call of etcd's JSON interface. HTTP/1.0, so that the answer ends where the connection does.
async fn ask(address: &str, path: &str, body: &Value) -> Result<Value, Error> {
    let call = async {
        let body = body.to_string();
        let length = body.len();
        let mut stream = TcpStream::connect(address).await?;
        let head =
            format!("POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, call).await;
    let answer = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let answer = answer.on("ask etcd at", address)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(serde_json::from_str(body).unwrap_or_default())
}
