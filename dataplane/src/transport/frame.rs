//! gRPC message frames: read off a body with the length seen before anything is reserved, or built in place.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::admission::{Admission, Overloaded, Permit};
use super::compress::{DeflateError, Encoding, deflated};
use super::limits::{COPY_BELOW_BYTES, DISCARD_PAUSE, FIRST_BUFFER_BYTES};

/// A flag byte and a big-endian length stand before every message.
pub const PREFIX_BYTES: usize = 5;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body ended inside a message.
    #[error("the body ends before the message does; send the whole frame")]
    Truncated,
    /// The call takes one message and the body has more.
    #[error("the body goes on after the message; send exactly one message a call")]
    Extra,
    /// The flag byte is neither 0 nor 1.
    #[error("the frame starts with {0:#04x} instead of 0 or 1; it is not a gRPC message")]
    BadFlag(u8),
    /// The message is longer than allowed.
    #[error("the message has {length} bytes, {limit} are allowed; send smaller batches")]
    TooLarge {
        /// Its length, as declared or as far as it was read.
        length: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The memory budget is full.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The sender paused for too long or took too long altogether.
    #[error("the body did not arrive in time; send it faster or in smaller batches")]
    TooSlow,
    /// The connection or the stream broke.
    #[error("reading the body failed: {0}")]
    Broken(#[source] hyper::Error),
}

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) progress: Duration,
    pub(super) whole: Duration,
}

/// A message as it came, still compressed if its flag says so.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) compressed: bool,
    pub(super) payload: Bytes,
    pub(super) permit: Permit,
}

/// Reads one body.
pub(super) struct BodyReader<B> {
    body: B,
    progress: Duration,
    deadline: Instant,
    /// The trailers, once they have been read.
    pub(super) trailers: Option<HeaderMap>,
}

// === impl BodyReader ===

impl<B> BodyReader<B>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    pub(super) fn new(body: B, pace: Pace) -> Self {
        let deadline = Instant::now() + pace.whole;
        Self { body, progress: pace.progress, deadline, trailers: None }
    }

    /// The one message of a call, or `None` when the body has no byte at all.
    pub(super) async fn message(
        &mut self,
        limit: u64,
        admission: &Admission,
    ) -> Result<Option<Message>, FrameError> {
        let Some((prefix, first)) = self.prefix().await? else {
            return Ok(None);
        };
        let [flag, length @ ..] = prefix;
        if flag > 1 {
            return Err(FrameError::BadFlag(flag));
        }
        let length = u64::from(u32::from_be_bytes(length));
        if length > limit {
            return Err(FrameError::TooLarge { length, limit });
        }
        let (payload, permit) = self.fill(first, length as usize, admission).await?;
        self.end().await?;
        Ok(Some(Message { compressed: flag == 1, payload, permit }))
    }

    /// A whole body without frames, of a length that may have been `declared`.
    pub(super) async fn whole(
        &mut self,
        declared: Option<u64>,
        limit: u64,
        admission: &Admission,
    ) -> Result<(Bytes, Permit), FrameError> {
        if let Some(length) = declared {
            if length > limit {
                return Err(FrameError::TooLarge { length, limit });
            }
            let (payload, permit) = self.fill(Bytes::new(), length as usize, admission).await?;
            self.end().await?;
            return Ok((payload, permit));
        }
        self.gather(limit, admission).await
    }

    /// Reads to the end, so that trailers have been seen.
    pub(super) async fn end(&mut self) -> Result<(), FrameError> {
        match self.data().await? {
            Some(_) => Err(FrameError::Extra),
            None => Ok(()),
        }
    }

    /// Throws away up to `limit` bytes and says whether the body ended within them.
    pub(super) async fn discard(&mut self, limit: u64) -> bool {
        self.progress = self.progress.min(DISCARD_PAUSE);
        let mut left = limit;
        while let Ok(piece) = self.data().await {
            let Some(piece) = piece else { return true };
            let Some(less) = left.checked_sub(piece.len() as u64) else {
                return false;
            };
            left = less;
        }
        false
    }

    /// The five bytes before the message, which may be torn over pieces, and what followed in the last piece.
    async fn prefix(&mut self) -> Result<Option<([u8; PREFIX_BYTES], Bytes)>, FrameError> {
        let Some(mut piece) = self.data().await? else {
            return Ok(None);
        };
        let mut prefix = [0; PREFIX_BYTES];
        let mut have = 0;
        loop {
            let part = piece.split_to(piece.len().min(PREFIX_BYTES - have));
            prefix[have..have + part.len()].copy_from_slice(&part);
            have += part.len();
            if have == PREFIX_BYTES {
                return Ok(Some((prefix, piece)));
            }
            piece = self.data().await?.ok_or(FrameError::Truncated)?;
        }
    }

    /// `length` bytes beginning with `first`: as they are when one piece holds them all, else copied into
    /// one buffer. What does not fit is refused at once, but charged is only what has arrived: whoever
    /// announces much and sends little must not keep others out.
    async fn fill(
        &mut self,
        first: Bytes,
        length: usize,
        admission: &Admission,
    ) -> Result<(Bytes, Permit), FrameError> {
        admission.has_room(length as u64)?;
        let mut piece = first;
        if piece.is_empty() && length > 0 {
            piece = self.data().await?.ok_or(FrameError::Truncated)?;
        }
        if piece.len() == length && length >= COPY_BELOW_BYTES {
            return Ok((piece, admission.try_reserve(length as u64)?));
        }
        let mut permit = admission.empty();
        let mut buffer: Vec<u8> = Vec::with_capacity(length.min(FIRST_BUFFER_BYTES));
        loop {
            if piece.len() > length - buffer.len() {
                return Err(FrameError::Extra);
            }
            permit.grow(piece.len() as u64)?;
            if piece.len() > buffer.capacity() - buffer.len() {
                let wanted = (buffer.capacity() * 2).max(buffer.len() + piece.len()).min(length);
                buffer.reserve_exact(wanted - buffer.len());
            }
            buffer.extend_from_slice(&piece);
            if buffer.len() == length {
                return Ok((Bytes::from(buffer), permit));
            }
            piece = self.data().await?.ok_or(FrameError::Truncated)?;
        }
    }

    /// A body of unknown length: the buffer doubles, charged before it grows.
    async fn gather(
        &mut self,
        limit: u64,
        admission: &Admission,
    ) -> Result<(Bytes, Permit), FrameError> {
        let mut permit = admission.empty();
        let mut buffer: Vec<u8> = Vec::new();
        let mut first = Bytes::new();
        while let Some(piece) = self.data().await? {
            let length = (first.len() + buffer.len() + piece.len()) as u64;
            if length > limit {
                return Err(FrameError::TooLarge { length, limit });
            }
            if length == piece.len() as u64 {
                permit.grow(length)?;
                first = piece;
                continue;
            }
            if length > buffer.capacity() as u64 {
                let capacity = length.max(buffer.capacity() as u64 * 2).min(limit);
                permit.grow(capacity - permit.bytes())?;
                buffer.reserve_exact(capacity as usize - buffer.len());
            }
            buffer.extend_from_slice(&std::mem::take(&mut first));
            buffer.extend_from_slice(&piece);
        }
        let payload = if buffer.is_empty() { first } else { Bytes::from(buffer) };
        Ok((payload, permit))
    }

    /// The next piece that is not empty. Empty ones neither end a body nor count as progress.
    async fn data(&mut self) -> Result<Option<Bytes>, FrameError> {
        let by = self.deadline.min(Instant::now() + self.progress);
        loop {
            let frame = match timeout_at(by, self.body.frame()).await {
                Err(_) => return Err(FrameError::TooSlow),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(FrameError::Broken)?,
            };
            match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                Ok(_) => {}
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
            // A flood of empty pieces never lets the timer fire, so it is looked at here.
            if Instant::now() >= by {
                return Err(FrameError::TooSlow);
            }
        }
    }
}

// === building ===

/// Builds a frame in place: `encode` appends the message behind the five bytes kept free for the prefix.
///
/// ```
/// let frame = ringtail::transport::framed(3, |out| out.extend_from_slice(b"abc"));
/// assert_eq!(&frame[..], b"\0\0\0\0\x03abc");
/// ```
pub fn framed(capacity: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(PREFIX_BYTES + capacity);
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    encode(&mut out);
    patch_prefix(&mut out, false);
    Bytes::from(out)
}

/// Builds a frame around a copy of `message` in `encoding`.
pub fn framed_as(encoding: Encoding, message: &[u8]) -> Result<Bytes, DeflateError> {
    if encoding == Encoding::Identity {
        return Ok(framed(message.len(), |out| out.extend_from_slice(message)));
    }
    let mut out = deflated(encoding, PREFIX_BYTES, message)?;
    patch_prefix(&mut out, true);
    Ok(Bytes::from(out))
}

/// What stands before a message of `length` bytes.
pub fn prefix(length: usize, compressed: bool) -> [u8; PREFIX_BYTES] {
    // Nothing of 4 GiB exists under any memory budget of ours; a receiver would refuse the frame as too
    // large.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// Writes the prefix into the first five bytes of `frame`, which holds the message behind them.
fn patch_prefix(frame: &mut [u8], compressed: bool) {
    let length = frame.len().saturating_sub(PREFIX_BYTES);
    if let Some(head) = frame.first_chunk_mut::<PREFIX_BYTES>() {
        *head = prefix(length, compressed);
    }
}
