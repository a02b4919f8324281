//! Kept spans on their way from a shard to every exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use ringtail_engine::batch::{Batch, GroupRef};
use ringtail_engine::key::TraceKey;
use ringtail_engine::scan::{self, Group, Shape, TraceId, Visit};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::shards::Ask;
use crate::buffers::Buffers;
use crate::export::ExporterHandle;

/// An export request is at most this large, unless one span alone is larger: OTLP receivers take 4 MiB by
/// default, and the last span of a request may pass the mark.
const REQUEST_BYTES_MAX: usize = 3 << 20;

/// How often who decides all that is left looks for room with the exporters.
pub const ROOM_EVERY: Duration = Duration::from_millis(10);

/// One encoded export request, shared by all exporters.
#[derive(Clone, Debug)]
pub struct Kept {
    /// An OTLP `ExportTraceServiceRequest` or `ExportLogsServiceRequest`.
    pub message: Bytes,
    /// Spans or records in it.
    pub spans: u64,
    /// To be told when every exporter is done with it.
    pub exported: Arc<Exported>,
}

/// Traces whose spans go to the backends. When the last exporter drops this and none has failed, the shard
/// learns that the backends have them.
#[derive(Debug)]
pub struct Exported {
    keys: Vec<TraceKey>,
    failed: AtomicBool,
    shard: Option<mpsc::WeakSender<Ask>>,
}

// === impl Exported ===

impl Exported {
    /// Of traces of a shard.
    pub fn new(keys: Vec<TraceKey>, shard: mpsc::WeakSender<Ask>) -> Arc<Self> {
        Arc::new(Self { keys, failed: AtomicBool::new(false), shard: Some(shard) })
    }

    /// Of nothing that anybody would replay.
    fn nothing() -> Arc<Self> {
        Arc::new(Self { keys: Vec::new(), failed: AtomicBool::new(false), shard: None })
    }

    /// Some backend does not have all of them.
    pub fn fail(&self) {
        self.failed.store(true, Relaxed);
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        if keys.is_empty() || self.failed.load(Relaxed) {
            return;
        }
        // Without the word a replay of these traces is exported once more: not worth waiting for.
        if let Some(shard) = self.shard.as_ref().and_then(mpsc::WeakSender::upgrade) {
            let _ = shard.try_send(Ask::Exported(keys));
        }
    }
}

/// Hands kept spans to every exporter.
#[derive(Clone, Debug)]
pub struct Output {
    exporters: Arc<[ExporterHandle]>,
    buffers: Buffers,
}

// === impl Output ===

impl Output {
    /// An output to these exporters. So many bytes of its buffers may wait for the next requests.
    pub fn new(exporters: Arc<[ExporterHandle]>, spare_bytes: u64) -> Self {
        let spare = usize::try_from(spare_bytes).unwrap_or(usize::MAX);
        Self { exporters, buffers: Buffers::new(spare) }
    }

    /// So many bytes fit into the queues of all exporters now; any number when waiting does not help.
    pub fn room(&self) -> u64 {
        self.exporters.iter().map(ExporterHandle::room).min().unwrap_or(u64::MAX)
    }

    /// Waits until a request of so many bytes fits into them, at most until then.
    pub async fn await_room(&self, bytes: u64, until: Instant) {
        while Instant::now() < until && !self.exporters.iter().all(|one| one.has_room(bytes)) {
            tokio::time::sleep(ROOM_EVERY).await;
        }
    }

    /// Encodes `batch` once and gives it to every exporter.
    pub fn export(&self, batch: &Batch, exported: Arc<Exported>) {
        let message = self.encoded(batch);
        if message.len() <= REQUEST_BYTES_MAX {
            let spans = u64::from(batch.spans());
            self.give(&Kept { message, spans, exported });
            return;
        }
        // A trace of many megabytes: rare, so a second pass over the encoded bytes is the simplest way to
        // cut it.
        let mut cutter = Cutter { output: self, part: Batch::default(), group: None, exported };
        if let Err(error) = scan::walk(&message, &Shape::UNKNOWN, &mut cutter) {
            tracing::error!(%error, "a batch of our own does not parse; please report this");
        }
        cutter.flush();
    }

    /// The same of log records.
    pub fn export_logs(&self, batch: &Batch) {
        self.forward_logs(self.encoded(batch), u64::from(batch.spans()));
    }

    /// Gives a log request with so many records to every exporter, in parts if it is too large.
    pub fn forward_logs(&self, message: Bytes, records: u64) {
        let exported = Exported::nothing();
        if message.len() <= REQUEST_BYTES_MAX {
            self.give(&Kept { message, spans: records, exported });
            return;
        }
        let mut cutter = Cutter { output: self, part: Batch::default(), group: None, exported };
        if let Err(error) = scan::walk_logs(&message, &mut cutter) {
            tracing::error!(%error, "a request that was checked does not parse; please report this");
        }
        cutter.flush();
    }

    fn encoded(&self, batch: &Batch) -> Bytes {
        let mut message = self.buffers.take_for(batch.encoded_len());
        batch.encode(&mut message);
        self.buffers.lend(message)
    }

    fn give(&self, kept: &Kept) {
        for exporter in self.exporters.iter() {
            exporter.push(kept.clone());
        }
    }
}

struct Cutter<'a> {
    output: &'a Output,
    part: Batch,
    group: Option<GroupRef>,
    exported: Arc<Exported>,
}

impl Cutter<'_> {
    fn flush(&mut self) {
        if self.part.is_empty() {
            return;
        }
        let message = self.output.encoded(&self.part);
        let spans = u64::from(self.part.spans());
        let exported = Arc::clone(&self.exported);
        self.output.give(&Kept { message, spans, exported });
        self.part.clear();
        self.group = None;
    }
}

impl Visit for Cutter<'_> {
    fn group(&mut self, _group: &Group<'_>) {
        self.group = None;
    }

    fn span(&mut self, group: &Group<'_>, _id: &TraceId, span: &[u8]) {
        if self.part.encoded_len_max() + span.len() > REQUEST_BYTES_MAX {
            self.flush();
        }
        let part = &mut self.part;
        let group = *self.group.get_or_insert_with(|| part.intern(&group.resource, &group.scope));
        part.push(group, span);
    }

    fn stray(&mut self, group: &Group<'_>, record: &[u8]) {
        self.span(group, &TraceId::default(), record);
    }
}
