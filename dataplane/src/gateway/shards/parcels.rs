//! Traces that are on their way to another gateway: bytes in memory until somebody has said that it has them.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringtail_engine::batch::Batch;
use ringtail_engine::ownership::message::Req;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    open: BTreeMap<Req, Parcel>,
    bytes: u64,
    spans: u64,
}

/// Spans for one gateway.
#[derive(Debug)]
struct Parcel {
    /// An OTLP request. What was taken out again is still in it.
    message: Bytes,
    /// Without what was taken out.
    spans: u64,
}

// === impl Parcels ===

impl Parcels {
    /// Keeps what `batch` holds until [`Self::forget`].
    pub(super) fn add(&mut self, req: Req, batch: &Batch) {
        let mut message = Vec::with_capacity(batch.encoded_len());
        batch.encode(&mut message);
        let parcel = Parcel { message: message.into(), spans: u64::from(batch.spans()) };
        self.bytes += parcel.message.len() as u64;
        self.spans += parcel.spans;
        if self.open.insert(req, parcel).is_some() {
            tracing::error!(?req, "two parcels with one number; please report this");
        }
    }

    /// The OTLP request of a parcel.
    pub(super) fn message(&self, req: Req) -> Bytes {
        self.open.get(&req).map(|parcel| parcel.message.clone()).unwrap_or_default()
    }

    /// So many spans were taken out.
    pub(super) fn take_out(&mut self, req: Req, spans: u64) {
        if let Some(parcel) = self.open.get_mut(&req) {
            let spans = spans.min(parcel.spans);
            parcel.spans -= spans;
            self.spans -= spans;
        }
    }

    /// Forgets a parcel; returns how many spans were still in it.
    pub(super) fn forget(&mut self, req: Req) -> u64 {
        let Some(parcel) = self.open.remove(&req) else { return 0 };
        self.bytes -= parcel.message.len() as u64;
        self.spans -= parcel.spans;
        parcel.spans
    }

    /// Forgets all parcels; returns what is in them. Nothing was taken out: what follows that forgets the
    /// parcel.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Bytes> + use<> {
        (self.bytes, self.spans) = (0, 0);
        std::mem::take(&mut self.open).into_values().map(|parcel| parcel.message)
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Spans in all of them.
    pub(super) fn spans(&self) -> u64 {
        self.spans
    }
}
