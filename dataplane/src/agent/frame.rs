//! A batch as it is sent: encoded once, then waiting, sent and sent again as it is.

use std::time::Instant;

use bytes::Bytes;
use ringtail_engine::batch::{Batch, Part};
use ringtail_engine::key::TraceKey;

use crate::buffers::Buffers;
use crate::peer::{self, Dialect};
use crate::transport::{
    Admission, Encoding, MAX_REQUEST_BYTES, PREFIX_BYTES, Pieces, deflate, deflated, inflate,
    prefix,
};

/// Tag and length of the spans in a `Deliver`.
const TAG_BYTES: usize = 11;

/// A run of spans of this length is sent from where it lies. The kernel is given 16 pieces at a time, so a
/// piece costs about 0.1 us; that is what copying 2 KiB costs.
const IN_PLACE_BYTES: usize = 2 << 10;

/// Buffers of spans that wait for reuse have at most so many bytes together: those of sixteen batches as
/// ten gateways have them.
pub(super) const SPARE_BYTES: usize = 4 << 20;

/// An encoded batch. What is to be known about it beside its spans is put before it each time that it is
/// sent: both formats let compressed pieces follow each other.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    body: Pieces,
    /// Bytes of memory that it holds.
    pub(super) held: u64,
    pub(super) encoding: Encoding,
    pub(super) dialect: Dialect,
    pub(super) spans: u64,
    /// Its traces, each with bytes of its spans; a trace may be there more than once.
    pub(super) traces: Vec<(TraceKey, u32)>,
    /// When its first span came.
    pub(super) born: Instant,
    /// Whether a gateway may have counted its spans.
    pub(super) counted: bool,
}

/// How batches are encoded now.
pub(super) struct Encoder<'a> {
    pub(super) dialect: Dialect,
    pub(super) encoding: Encoding,
    pub(super) buffers: &'a Buffers,
}

// === impl Frame ===

impl Frame {
    /// What is sent: the rest of a message, if the gateway wants any, and the spans.
    pub(super) fn message(&self, head: &[u8]) -> Pieces {
        let mut front = vec![0; PREFIX_BYTES];
        // A head that cannot be compressed is left out: without it the spans are those of anybody.
        if !head.is_empty() && deflate(self.encoding, head, &mut front).is_err() {
            front.truncate(PREFIX_BYTES);
        }
        let length = front.len() - PREFIX_BYTES + self.body.len();
        if let Some(place) = front.first_chunk_mut() {
            *place = prefix(length, self.encoding != Encoding::Identity);
        }
        self.body.behind(front.into())
    }

    /// Bytes of its spans as they are sent.
    pub(super) fn len(&self) -> usize {
        self.body.len()
    }

    /// The OTLP bytes in it.
    pub(super) fn open(&self) -> Option<Bytes> {
        let message = self.body.clone().joined();
        let message = match self.encoding {
            Encoding::Identity => message,
            encoding => {
                // Our own frame, so no bomb; the budget for it is the largest batch that could be made.
                let limit = 2 * MAX_REQUEST_BYTES;
                let mut permit = Admission::new(limit).empty();
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                Bytes::from(inflate(encoding, &message, limit, &mut permit).ok()?)
            }
        };
        peer::spans_of(self.dialect, message)
    }
}

// === impl Encoder ===

impl Encoder<'_> {
    /// Encodes a batch, which is empty then or about to be cleared.
    pub(super) fn encode(
        &self,
        batch: &mut Batch,
        traces: Vec<(TraceKey, u32)>,
        born: Instant,
    ) -> Frame {
        let spans = u64::from(batch.spans());
        let (body, held, encoding) = match self.compressed(batch) {
            Some((bytes, encoding)) => (Pieces::from(bytes.clone()), bytes.len(), encoding),
            None => {
                let (pieces, held) = self.plain(batch);
                (pieces, held, Encoding::Identity)
            }
        };
        let held = (held + traces.capacity() * size_of::<(TraceKey, u32)>()) as u64;
        let (dialect, counted) = (self.dialect, false);
        Frame { body, held, encoding, dialect, spans, traces, born, counted }
    }

    fn compressed(&self, batch: &Batch) -> Option<(Bytes, Encoding)> {
        if self.encoding == Encoding::Identity {
            return None;
        }
        let mut message = Vec::with_capacity(batch.encoded_len() + TAG_BYTES);
        self.write(batch, &mut message);
        match deflated(self.encoding, 0, &message) {
            Ok(out) => Some((out.into(), self.encoding)),
            // Compression is an economy: without it the spans still arrive.
            Err(error) => {
                tracing::warn!(%error, "a batch goes out uncompressed");
                None
            }
        }
    }

    /// The batch without compression and the bytes that it holds. If long runs of spans fill most of their
    /// buffer, they stay where they are; else a frame that waits would hold mostly what it does not need.
    fn plain(&self, batch: &mut Batch) -> (Pieces, usize) {
        let len = batch.encoded_len();
        let (runs, in_place) = batch.runs(IN_PLACE_BYTES);
        if 2 * in_place < batch.buffer_bytes().max(len) {
            let mut body = Vec::with_capacity(len + TAG_BYTES);
            self.write(batch, &mut body);
            let held = body.capacity();
            return (Pieces::from(Bytes::from(body)), held);
        }
        let mut heads = Vec::with_capacity(TAG_BYTES + len - in_place);
        peer::write_spans_tag(self.dialect, len, &mut heads);
        let mut cuts = Vec::with_capacity(runs);
        batch.outline(|part| match part {
            Part::Head(bytes) => heads.extend_from_slice(bytes),
            Part::Spans(run) if run.len() < IN_PLACE_BYTES => {
                heads.extend_from_slice(batch.span_bytes(run));
            }
            Part::Spans(run) => cuts.push((heads.len(), run)),
        });
        let buffer = batch.detach();
        let held = heads.capacity() + buffer.capacity();
        (assemble(heads.into(), self.buffers.lend(buffer), &cuts), held)
    }

    fn write(&self, batch: &Batch, out: &mut Vec<u8>) {
        peer::write_spans_tag(self.dialect, batch.encoded_len(), out);
        batch.encode(out);
    }
}

/// All of `heads`, and before the place of each cut its run of `spans`.
fn assemble(heads: Bytes, spans: Bytes, cuts: &[(usize, std::ops::Range<usize>)]) -> Pieces {
    let mut list = Vec::with_capacity(2 * cuts.len() + 1);
    let mut from = 0;
    for (place, run) in cuts {
        list.push(heads.slice(from..*place));
        list.push(spans.slice(run.clone()));
        from = *place;
    }
    list.push(heads.slice(from..));
    Pieces::new(list)
}

#[cfg(test)]
mod tests {
    use ringtail_engine::scan::Headers;

    use super::*;
    use crate::transport::framed;

    /// Spans in runs of the given lengths, in turn under two resources.
    fn batch(runs: &[usize]) -> Batch {
        let mut batch = Batch::new();
        let resources = [b"r", b"q"].map(|name| Headers::whole(name));
        let groups = resources.map(|resource| batch.intern(&resource, &Headers::whole(b"s")));
        for (index, len) in runs.iter().enumerate() {
            batch.push(groups[index % 2], &vec![index as u8; *len]);
        }
        batch
    }

    #[test]
    fn a_frame_in_pieces_is_the_frame_in_one() {
        let lists: [&[usize]; 5] = [
            &[],
            &[10],
            &[5000],
            &[10, 5000, 3000, 20, 2047, 2048],
            &[5000, 1, 1, 1, 6000, 70_000],
        ];
        for (runs, dialect) in
            lists.into_iter().flat_map(|runs| [(runs, Dialect::Otlp), (runs, Dialect::Ringtail)])
        {
            let buffers = Buffers::new(SPARE_BYTES);
            let encoding = Encoding::Identity;
            let encoder = Encoder { dialect, encoding, buffers: &buffers };
            let whole = framed(0, |out| encoder.write(&batch(runs), out));
            let frame = encoder.encode(&mut batch(runs), Vec::new(), Instant::now());
            assert_eq!(frame.message(&[]).joined(), whole, "{runs:?} {dialect:?}");
            assert!(
                frame.held + PREFIX_BYTES as u64 >= whole.len() as u64,
                "{} of {}",
                frame.held,
                whole.len()
            );
            assert!(
                frame.held <= 2 * whole.len() as u64 + 2048,
                "{} of {}",
                frame.held,
                whole.len()
            );
            let mut spans = Vec::new();
            batch(runs).encode(&mut spans);
            assert_eq!(frame.open().unwrap(), spans);
        }
    }

    #[test]
    fn a_buffer_comes_back_when_its_last_frame_is_gone() {
        let buffers = Buffers::new(SPARE_BYTES);
        let (dialect, encoding) = (Dialect::Ringtail, Encoding::Identity);
        let encoder = Encoder { dialect, encoding, buffers: &buffers };
        let mut batch = batch(&[5000, 5000]);
        let frame = encoder.encode(&mut batch, Vec::new(), Instant::now());
        assert!(batch.is_empty());
        let again = frame.clone();
        drop(frame);
        assert_eq!(buffers.held_bytes(), 0, "it may be sent once more");
        drop(again);
        assert!(buffers.held_bytes() >= 10_000);
        batch.attach(buffers.take().unwrap());
        assert!(batch.is_empty() && batch.held_bytes() >= 10_000);
    }

    #[test]
    fn a_frame_does_not_hold_a_buffer_that_is_mostly_spare() {
        let buffers = Buffers::new(SPARE_BYTES);
        let (dialect, encoding) = (Dialect::Ringtail, Encoding::Identity);
        let encoder = Encoder { dialect, encoding, buffers: &buffers };
        let mut roomy = Batch::new();
        roomy.attach(Vec::with_capacity(1 << 20));
        let group = roomy.intern(&Headers::whole(b"r"), &Headers::whole(b"s"));
        roomy.push(group, &[7; 10_000]);
        assert!(encoder.encode(&mut roomy, Vec::new(), Instant::now()).held < 11_000);
        assert_eq!(roomy.buffer_bytes(), 1 << 20, "and the batch keeps it");
    }
    #[test]
    fn no_more_buffers_wait_than_may() {
        let buffers = Buffers::new(SPARE_BYTES);
        for _ in 0..10 {
            drop(buffers.lend(Vec::with_capacity(1 << 20)));
        }
        assert_eq!(buffers.held_bytes(), SPARE_BYTES as u64);
    }
}
