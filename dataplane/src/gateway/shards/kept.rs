//! What a shard keeps, on its way to the exporters.

use ringtail_engine::batch::Batch;
use ringtail_engine::rewrite::sampling::Mark;
use tokio::time::Instant;

use super::worker::Worker;
use crate::gateway::output::Exported;

// === impl Worker ===

impl Worker {
    /// Bytes of traces that may be decided now so that exporters have room for all that is kept of them; any
    /// number when waiting for that does not help.
    pub(super) fn room(&self) -> u64 {
        match self.outside.output.room() {
            u64::MAX => u64::MAX,
            free if self.waiting() > free / 2 => 0,
            // The last one may be larger than was asked for.
            free => (free - self.waiting()) / 2 / self.outside.shards,
        }
    }

    /// Bytes of kept spans that exporters do not have yet.
    fn waiting(&self) -> u64 {
        (self.kept.encoded_len_max() + self.marked.encoded_len_max()) as u64
    }

    /// Hands kept spans to the exporters once they are at least `bytes`.
    pub(super) fn flush(&mut self, bytes: u64) {
        if self.kept.is_empty() && self.marked.is_empty() {
            return;
        }
        self.kept_since.get_or_insert_with(Instant::now);
        if self.waiting() >= bytes {
            let keys = std::mem::take(&mut self.kept_keys);
            let exported = Exported::new(keys, self.own.clone());
            if self.outside.redaction.is_some() || !self.marked.is_empty() {
                self.rewrite();
                self.outside.output.export(self.rewriter.ready(), exported);
                self.rewriter.clear();
            } else {
                self.outside.output.export(&self.kept, exported);
            }
            self.kept.clear();
            self.shard.start_gathering();
            self.kept_since = None;
            self.flushed = Instant::now();
        }
    }

    /// Rewrites all kept spans.
    fn rewrite(&mut self) {
        let Self { kept, marked, rewriter, outside, .. } = self;
        let redaction = outside.redaction.as_deref();
        let mut add = |batch: &Batch, mark: &Mark| {
            if let Err(error) = rewriter.add(batch, redaction, mark) {
                tracing::error!(%error, "a batch of our own does not parse; please report this");
            }
        };
        add(kept, &Mark::default());
        for (mark, batch) in marked.drain() {
            add(&batch, &mark);
            marked.recycle(batch);
        }
    }

    pub(super) fn all_sent(&self) -> bool {
        self.kept.is_empty() && self.marked.is_empty()
    }
}
