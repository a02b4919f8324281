//! The way of a request from an exporter's address to its task: through memory, or by a queue on disk.

use std::sync::Arc;

use ringtail_crds::logs::Signal;
use ringtail_crds::resolved::Destination;
use tokio::sync::mpsc;

use super::store::Store;
use super::{Config, ConfigError, Inner, Item};
use crate::gateway::output::Kept;

/// The way of a request to the task.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Memory(mpsc::UnboundedSender<Item>),
    Disk(Store),
}

// === impl Way ===

impl Way {
    pub(super) fn new(
        config: &Config,
        inner: &Arc<Inner>,
        items: mpsc::UnboundedSender<Item>,
    ) -> Result<Self, ConfigError> {
        let name = &config.exporter.name;
        let Destination::Otlp(otlp) = &config.exporter.destination else {
            return Ok(Self::Memory(items));
        };
        let Some(size_limit) = otlp.disk_max_bytes else { return Ok(Self::Memory(items)) };
        let Some(data_dir) = &config.data_dir else {
            let why = "queue.persistent needs a place: start with --data-dir DIR";
            return Err(ConfigError::of(name, why));
        };
        // One volume is mounted for both; segments have other names.
        let directory = match config.signal {
            Signal::Traces => data_dir.join(name),
            Signal::Logs => data_dir.join(name).join("logs"),
        };
        let share = size_limit / config.exporter.signals.len().max(1) as u64;
        let store = Store::start(inner, &directory, share, items);
        store.map(Self::Disk).map_err(|why| ConfigError::of(name, &why))
    }

    pub(super) fn send(&self, kept: Kept) -> bool {
        match self {
            Self::Memory(items) => items.send(Item::of(kept, None)).is_ok(),
            Self::Disk(store) => store.keep(kept),
        }
    }
}
