//! The least of an HTTP client: what a test sends is exactly what it says, right or wrong.

use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header lines, in lower case.
    pub head: String,
    /// The body, as text where it is text.
    pub body: String,
}

/// GETs a path: the body, if somebody listens and answers.
pub fn fetch(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    // Of version 1.0, so that the answer does not come in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// POSTs `body` to a path with these header lines.
///
/// A server that refuses early may close before it has read everything; what it has answered by then counts.
pub fn post(address: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    post_declared(address, path, headers, body.len() as u64, body)
}

/// Like [`post`], with a declared length that need not be true.
pub fn post_declared(
    address: &str,
    path: &str,
    headers: &[&str],
    declared: u64,
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the receiver listens");
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: ringtail\r\nconnection: close\r\n\
         content-length: {declared}\r\n{lines}\r\n"
    );
    stream.write_all(head.as_bytes()).expect("the head is sent");
    // Refused early, the rest of the body meets a closed connection.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer with a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}
