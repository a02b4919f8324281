//! Memory of messages, used again: to have a megabyte cleared by the kernel costs as much as to fill it.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Smaller buffers do not wait: the allocator has them at hand by itself. So 4 MiB are at most 512 buffers.
const LEAST_BYTES: usize = 8 << 10;

/// A buffer that is larger by more than this share of what is asked for is not given: who counts the bytes
/// of a message counts too few by no more than this.
const WASTE: usize = 8;

/// Buffers that come back when what lay in them has been sent. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    spare_bytes: usize,
}

/// A buffer on its way.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

// === impl Buffers ===

impl Buffers {
    /// None yet. Those that wait for reuse have at most so many bytes together.
    pub(crate) fn new(spare_bytes: usize) -> Self {
        Self { spare: Arc::default(), spare_bytes }
    }

    /// An empty buffer that was used before, if one is here.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.lock().pop()
    }

    /// An empty buffer for so many bytes: one that was used before, unless all are too small or much larger.
    pub(crate) fn take_for(&self, bytes: usize) -> Vec<u8> {
        let fits = |buffer: &Vec<u8>| (bytes..=bytes + bytes / WASTE).contains(&buffer.capacity());
        let mut spare = self.lock();
        let found = spare.iter().position(fits).map(|place| spare.remove(place));
        drop(spare);
        found.unwrap_or_else(|| Vec::with_capacity(bytes))
    }

    /// The bytes of a buffer, which comes back when the last of them is dropped.
    pub(crate) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    /// A buffer comes back. If too much waits then, what has waited longest is given back.
    fn put(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() < LEAST_BYTES {
            return;
        }
        buffer.clear();
        let mut spare = self.lock();
        spare.push(buffer);
        while spare.iter().map(Vec::capacity).sum::<usize>() > self.spare_bytes {
            spare.remove(0);
        }
    }

    /// Bytes of the buffers that wait.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.lock().iter().map(|buffer| buffer.capacity() as u64).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Held for a push or a pop, which leave the list whole.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.put(mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(buffers: &Buffers, bytes: usize) -> Bytes {
        let mut buffer = buffers.take_for(bytes);
        buffer.resize(bytes, 7);
        buffers.lend(buffer)
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_of_its_bytes_is_gone() {
        let buffers = Buffers::new(1 << 20);
        let bytes = lent(&buffers, 100_000);
        let (part, at) = (bytes.slice(10..20), bytes.as_ptr());
        drop(bytes);
        assert_eq!((buffers.held_bytes(), &part[..]), (0, &[7; 10][..]));
        drop(part);
        assert_eq!(buffers.held_bytes(), 100_000);
        let again = buffers.take_for(90_000);
        assert_eq!((again.as_ptr(), again.len(), buffers.held_bytes()), (at, 0, 0));
    }

    #[test]
    fn what_is_counted_by_its_length_is_never_much_larger() {
        let buffers = Buffers::new(1 << 20);
        drop(lent(&buffers, 100_000));
        for (wanted, reused) in [(100_001, false), (88_000, false), (88_900, true)] {
            let buffer = buffers.take_for(wanted);
            assert_eq!(buffer.capacity() == 100_000, reused, "{wanted}");
        }
    }

    #[test]
    fn no_more_waits_than_may() {
        let buffers = Buffers::new(1 << 20);
        for bytes in [100, 300_000, 400_000, 500_000, 2 << 20, LEAST_BYTES - 1] {
            buffers.put(Vec::with_capacity(bytes));
            assert!(buffers.held_bytes() <= 1 << 20);
        }
        assert_eq!(buffers.held_bytes(), 0, "one was too large for all");
        for bytes in [300_000, 400_000, 500_000] {
            buffers.put(Vec::with_capacity(bytes));
        }
        assert_eq!(buffers.held_bytes(), 900_000, "the oldest made room");
        assert!(buffers.take().is_some_and(|buffer| buffer.capacity() == 500_000));
    }
}
