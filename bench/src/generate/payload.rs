//! The messages of a load: patched into buffers that come back, or compressed before the clock starts.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};

use crate::failure::Result;
use crate::grpc::frame_gzip;
use crate::plan::Step;
use crate::template::{PREFIX_LEN, RequestTemplate};
use crate::truth::World;

/// One template and one pool of buffers a fragment.
pub(super) struct Payloads {
    world: World,
    first: u64,
    templates: Vec<RequestTemplate>,
    pools: Vec<RefCell<Vec<BytesMut>>>,
    /// By fragment, then by block: what a gzip load sends in turn.
    compressed: Vec<Vec<Bytes>>,
}

// === impl Payloads ===

impl Payloads {
    pub(super) fn new(world: World, first: u64, traces: usize, fragments: usize) -> Result<Self> {
        let templates = (0..fragments)
            .map(|fragment| RequestTemplate::new(traces, fragment, fragments))
            .collect::<Result<_>>()?;
        let pools = (0..fragments).map(|_| RefCell::default()).collect();
        Ok(Self { world, first, templates, pools, compressed: Vec::new() })
    }

    /// Compresses the first `blocks` blocks; later blocks repeat them.
    pub(super) fn compress(&mut self, level: u32, blocks: u64) -> Result<()> {
        let mut compressed = Vec::new();
        for fragment in 0..self.templates.len() {
            let messages = (0..blocks).map(|block| {
                let plain = self.patched(block, fragment);
                frame_gzip(&plain[PREFIX_LEN..], level)
            });
            compressed.push(messages.collect::<Result<_>>()?);
        }
        self.compressed = compressed;
        Ok(())
    }

    /// The message of a step.
    pub(super) fn message(&self, step: Step) -> Bytes {
        match self.compressed.get(step.fragment) {
            Some(blocks) => blocks[(step.block % blocks.len() as u64) as usize].clone(),
            None => self.patched(step.block, step.fragment).freeze(),
        }
    }

    fn patched(&self, block: u64, fragment: usize) -> BytesMut {
        let template = &self.templates[fragment];
        let pooled = self.pools[fragment].borrow_mut().pop();
        let mut message = pooled.unwrap_or_else(|| template.bytes().into());
        let first = self.first + block * template.traces() as u64;
        template.patch(&self.world, first, &mut message);
        message
    }

    /// Takes a buffer back, unless the connection still holds it.
    pub(super) fn recycle(&self, step: Step, message: Bytes) {
        if self.compressed.is_empty()
            && let Ok(buffer) = message.try_into_mut()
        {
            self.pools[step.fragment].borrow_mut().push(buffer);
        }
    }

    pub(super) fn compressed(&self) -> bool {
        !self.compressed.is_empty()
    }

    /// The length of a step's message before compression, without its prefix.
    pub(super) fn payload_len(&self, step: Step) -> usize {
        self.templates[step.fragment].bytes().len() - PREFIX_LEN
    }

    /// Traces that a request touches.
    pub(super) fn traces(&self) -> usize {
        self.templates.first().map_or(0, RequestTemplate::traces)
    }

    /// Spans of a request: equally many in every fragment.
    pub(super) fn spans(&self) -> u64 {
        self.templates.first().map_or(0, RequestTemplate::spans) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{Encoding, unframe};

    const STEP: Step = Step { block: 3, fragment: 1, target: 0 };

    #[test]
    fn a_recycled_buffer_is_the_next_message() {
        let payloads = Payloads::new(World::new(1), 100, 10, 2).unwrap();
        let message = payloads.message(STEP);
        let (copy, at) = (message.to_vec(), message.as_ptr());
        payloads.recycle(STEP, message);
        let other = payloads.message(Step { block: 4, ..STEP });
        assert_eq!(other.as_ptr(), at, "the buffer was not allocated anew");
        assert_ne!(other, copy);
        payloads.recycle(STEP, other);
        assert_eq!(payloads.message(STEP), copy);
    }

    #[test]
    fn a_buffer_still_in_use_is_left_alone() {
        let payloads = Payloads::new(World::new(1), 0, 10, 2).unwrap();
        let message = payloads.message(STEP);
        let held = message.clone();
        payloads.recycle(STEP, message);
        assert_ne!(payloads.message(STEP).as_ptr(), held.as_ptr());
    }

    #[test]
    fn compressed_messages_are_the_plain_ones_and_repeat() {
        let plain = Payloads::new(World::new(1), 0, 10, 2).unwrap();
        let mut compressed = Payloads::new(World::new(1), 0, 10, 2).unwrap();
        compressed.compress(6, 4).unwrap();
        let message = compressed.message(STEP);
        assert_eq!(message, compressed.message(Step { block: 7, ..STEP }));
        let inflated = unframe(&message, Encoding::Gzip).unwrap();
        assert_eq!(inflated, plain.message(STEP).slice(PREFIX_LEN..));
    }
}
