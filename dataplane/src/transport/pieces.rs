//! Bytes in several pieces that are sent one behind the other as if they were one.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf, Bytes};

/// A list of pieces, and how much of it was read. A clone shares them and costs nothing, so that what has
/// to be sent again need not be built again.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    list: Arc<[Bytes]>,
    /// The piece that is read, and where in it: unless nothing remains, there is a byte.
    at: usize,
    offset: usize,
    remaining: usize,
}

// === impl Pieces ===

impl Pieces {
    /// All of `list`; empty pieces are left out.
    pub fn new(list: impl IntoIterator<Item = Bytes>) -> Self {
        let list: Arc<[Bytes]> = list.into_iter().filter(|piece| !piece.is_empty()).collect();
        let remaining = list.iter().map(Bytes::len).sum();
        Self { list, at: 0, offset: 0, remaining }
    }

    /// All of these behind another piece, which must not be empty. Nothing of them may have been read.
    pub fn behind(&self, front: Bytes) -> Self {
        Self::new(std::iter::once(front).chain(self.list.iter().cloned()))
    }

    /// Bytes that remain.
    pub fn len(&self) -> usize {
        self.remaining
    }

    /// Whether nothing remains.
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// What remains, in one piece; copied unless it is one already.
    pub fn joined(mut self) -> Bytes {
        match &*self.list {
            [one] => one.slice(self.offset.min(one.len())..),
            _ => self.copy_to_bytes(self.remaining),
        }
    }

    fn unread(&self) -> impl Iterator<Item = &[u8]> {
        let mut offset = self.offset;
        self.list.iter().skip(self.at).map(move |piece| {
            let skipped = std::mem::take(&mut offset);
            piece.get(skipped..).unwrap_or_default()
        })
    }
}

impl From<Bytes> for Pieces {
    fn from(piece: Bytes) -> Self {
        Self::new([piece])
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.unread().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(self.unread()) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// Ends at the end, where the trait would allow a panic.
    fn advance(&mut self, count: usize) {
        let count = count.min(self.remaining);
        self.remaining -= count;
        self.offset += count;
        while let Some(piece) = self.list.get(self.at)
            && self.offset >= piece.len()
        {
            self.offset -= piece.len();
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(list: &[&'static str]) -> Pieces {
        Pieces::new(list.iter().map(|piece| Bytes::from_static(piece.as_bytes())))
    }

    #[test]
    fn pieces_read_as_one_whatever_the_steps() {
        let text = "abcdefghij";
        for step in 1..=text.len() {
            let mut unread = pieces(&["a", "", "bcd", "efgh", "", "ij"]);
            let mut read = Vec::new();
            while unread.has_remaining() {
                assert_eq!(unread.len(), text.len() - read.len());
                assert!(!unread.chunk().is_empty(), "a byte remains");
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = unread.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                assert!(text.as_bytes()[read.len()..].starts_with(&seen));
                assert_eq!(unread.clone().joined(), text.as_bytes()[read.len()..]);
                let step = step.min(unread.len());
                read.extend_from_slice(&unread.clone().copy_to_bytes(step));
                unread.advance(step);
            }
            assert_eq!(read, text.as_bytes());
            assert!(unread.chunk().is_empty() && unread.joined().is_empty());
        }
    }

    #[test]
    fn one_piece_is_not_copied() {
        let piece = Bytes::from(vec![7; 100]);
        let mut one = Pieces::from(piece.clone());
        assert_eq!(one.clone().joined().as_ptr(), piece.as_ptr());
        one.advance(40);
        assert_eq!(one.joined().as_ptr(), piece.slice(40..).as_ptr());
        assert!(Pieces::default().joined().is_empty());
    }
}
