//! The thread behind a queue on disk: a disk that stands still keeps nobody waiting but it.
//!
//! Every request is written before it is sent. What is sent soon stays in memory as well; the rest is read
//! again when there is room. Where the disk fails, or is full, memory alone is used, and that is counted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::disk::{Directory, DiskError, DiskQueue, Next, RecordId, Stored};
use super::{Inner, Item};
use crate::gateway::output::Kept;
use crate::ledger::Dropped;

/// How often it is looked whether there is room in memory, when nothing else happens.
const TICK: Duration = Duration::from_millis(100);
/// How often what was written is made to survive the machine: that much is lost with it at most.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// A process that ends waits so long for its disk.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// A disk that failed is left alone for so long.
const REST: Duration = Duration::from_secs(1);
/// Complaints about a disk are at least so far apart.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// The way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Store {
    commands: Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Keep(Kept),
    Done(RecordId),
    /// To be answered when all before it is done.
    Flush(Sender<()>),
}

/// What is told of a queue on disk.
#[derive(Debug, Default)]
pub struct DiskCounters {
    /// Bytes on disk.
    pub bytes: AtomicU64,
    /// The most that there may be.
    pub limit: AtomicU64,
    /// Spans of this process that are on disk and not done.
    pub spans: AtomicU64,
    /// Spans that an earlier process left.
    pub recovered: AtomicU64,
    /// Records and stretches of bytes that cannot be used.
    pub corrupt: AtomicU64,
    /// Spans in memory alone because the queue on disk is full.
    pub full: AtomicU64,
    /// Spans in memory alone because the disk failed.
    pub failed: AtomicU64,
}

struct Keeper {
    inner: Arc<Inner>,
    disk: DiskQueue<Directory>,
    items: UnboundedSender<Item>,
    resting_until: Option<Instant>,
    complained: Option<Instant>,
    synced: Instant,
}

// === impl Store ===

impl Store {
    /// Starts the thread. What an earlier process left comes first.
    ///
    /// # Errors
    /// When another process has the directory, or there is no thread.
    pub(super) fn start(
        inner: &Arc<Inner>,
        directory: &Path,
        size_limit: u64,
        items: UnboundedSender<Item>,
    ) -> Result<Self, String> {
        let files = Directory::open(directory)?;
        inner.disk.limit.store(size_limit, Relaxed);
        let (commands, received) = channel();
        let inner = Arc::clone(inner);
        let name = "export-disk".to_owned();
        let run = move || {
            let disk = DiskQueue::open(files, size_limit);
            let synced = Instant::now();
            let (resting_until, complained) = (None, None);
            Keeper { inner, disk, items, resting_until, complained, synced }.run(&received);
        };
        std::thread::Builder::new().name(name).spawn(run).map_err(|error| error.to_string())?;
        Ok(Self { commands })
    }

    /// Keeps a request until it is done; false when the thread is gone.
    pub(super) fn keep(&self, kept: Kept) -> bool {
        self.commands.send(Command::Keep(kept)).is_ok()
    }

    /// A request is delivered or given up.
    pub(super) fn done(&self, record: RecordId) {
        // Without the thread it is sent once more by the next process.
        let _ = self.commands.send(Command::Done(record));
    }
}

impl Store {
    /// Waits until everything told so far is on disk, at most for [`FLUSH_WITHIN`].
    pub(super) fn flush(&self) {
        let (done, wait) = channel();
        if self.commands.send(Command::Flush(done)).is_ok() {
            // A disk that stands still must not keep the process from ending.
            let _ = wait.recv_timeout(FLUSH_WITHIN);
        }
    }
}

// === impl Keeper ===

impl Keeper {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(TICK) {
                Ok(Command::Keep(kept)) => self.keep(kept),
                Ok(Command::Done(record)) => self.disk.done(record),
                Ok(Command::Flush(done)) => {
                    self.disk.sync();
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.load();
            self.settle();
        }
        self.disk.sync();
    }

    fn keep(&mut self, kept: Kept) {
        let (spans, bytes) = (kept.spans, kept.message.len() as u64);
        self.inner.transit.leave(bytes, Instant::now());
        // What is sent soon need not be read again.
        let take = self.disk.is_read() && self.has_room(bytes);
        match self.write(&kept, take) {
            Some(record) if take => self.send(Item::of(kept, Some(record)), bytes),
            // Whoever replays these traces later exports them again: they may not come that far.
            Some(_) => kept.exported.fail(),
            None if self.has_room(bytes) => self.send(Item::of(kept, None), bytes),
            None => self.inner.refuse(&kept.exported, spans, Dropped::QueueFull),
        }
    }

    /// Writes a request, or says and counts why it cannot be.
    fn write(&mut self, kept: &Kept, take: bool) -> Option<RecordId> {
        let (counters, spans) = (&self.inner.disk, kept.spans);
        if self.resting_until.is_some_and(|until| Instant::now() < until) {
            counters.failed.fetch_add(spans, Relaxed);
            return None;
        }
        let error = match self.disk.append(spans, &kept.message, take) {
            Ok(record) => {
                counters.spans.fetch_add(spans, Relaxed);
                return Some(record);
            }
            Err(error) => error,
        };
        match &error {
            DiskError::Full => drop(counters.full.fetch_add(spans, Relaxed)),
            DiskError::Io(_) => {
                counters.failed.fetch_add(spans, Relaxed);
                self.resting_until = Some(Instant::now() + REST);
            }
        }
        self.complain(&error);
        None
    }

    /// Whether a request of so many bytes, or any, has room in memory.
    fn has_room(&self, bytes: u64) -> bool {
        let queued = &self.inner.queued;
        queued.fits(queued.bytes(), bytes)
    }

    /// Reads what waits on disk, as far as there is room for it.
    fn load(&mut self) {
        while self.has_room(0) {
            let Some(next) = self.disk.next() else { return };
            let Inner { counters, disk, .. } = &*self.inner;
            match next {
                Next::Lost(spans) => {
                    disk.spans.fetch_sub(spans, Relaxed);
                    counters.held.fetch_sub(spans, Relaxed);
                    counters.dropped.add(Dropped::DiskLost, spans);
                }
                Next::Request(Stored { id, spans, request, is_recovered }) => {
                    if is_recovered {
                        counters.taken.fetch_add(spans, Relaxed);
                        counters.held.fetch_add(spans, Relaxed);
                        disk.spans.fetch_add(spans, Relaxed);
                        disk.recovered.fetch_add(spans, Relaxed);
                    }
                    let (bytes, message) = (request.len() as u64, request.into());
                    self.send(Item { message, spans, exported: None, record: Some(id) }, bytes);
                }
            }
        }
    }

    fn send(&self, item: Item, bytes: u64) {
        self.inner.queued.add(bytes);
        // Without a task the process is ending, and the ledger has its line.
        let _ = self.items.send(item);
    }

    fn settle(&mut self) {
        let counters = &self.inner.disk;
        counters.bytes.store(self.disk.bytes(), Relaxed);
        let before = counters.corrupt.swap(self.disk.corrupt, Relaxed);
        if before < self.disk.corrupt {
            let records = self.disk.corrupt;
            let exporter = &self.inner.name;
            tracing::warn!(exporter, records, "records of the queue on disk cannot be used");
        }
        if self.synced.elapsed() >= SYNC_EVERY {
            self.disk.sync();
            self.synced = Instant::now();
        }
    }

    fn complain(&mut self, error: &DiskError) {
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            self.complained = Some(Instant::now());
            let exporter = &self.inner.name;
            tracing::warn!(exporter, %error, "spans wait in memory alone");
        }
    }
}
