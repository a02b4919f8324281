//! Copies a message field by field: runs of fields that stay are copied as one range.

use crate::wire::{Field, Reader, put_varint, varint_len};

/// A message on its way into a buffer.
#[derive(Debug)]
pub(super) struct Copy<'a, 'o> {
    message: &'a [u8],
    reader: Reader<'a>,
    /// Where what was not copied yet begins.
    from: usize,
    /// Where the field that was read last begins.
    start: usize,
    out: &'o mut Vec<u8>,
}

impl<'a, 'o> Copy<'a, 'o> {
    pub(super) fn new(message: &'a [u8], out: &'o mut Vec<u8>) -> Self {
        Self { message, reader: Reader::new(message), from: 0, start: 0, out }
    }

    /// The next field; it stays, unless [`Self::replace`] is called before the one after it is read. Bytes
    /// that are no field end the message.
    #[inline]
    pub(super) fn next_field(&mut self) -> Option<Field<'a>> {
        self.start = self.message.len() - self.reader.remaining();
        match self.reader.next_field() {
            Ok(field) => field,
            Err(_) => {
                self.message = self.message.get(..self.start).unwrap_or_default();
                self.reader = Reader::new(&[]);
                None
            }
        }
    }

    /// Leaves out the field that was read last; what stands instead may be written.
    pub(super) fn replace(&mut self) -> &mut Vec<u8> {
        self.flush(self.start);
        self.from = self.message.len() - self.reader.remaining();
        self.out
    }

    /// Copies what is left; gives the buffer back for what is to follow.
    pub(super) fn finish(mut self) -> &'o mut Vec<u8> {
        while self.next_field().is_some() {}
        self.flush(self.message.len());
        self.out
    }

    fn flush(&mut self, to: usize) {
        self.out.extend_from_slice(self.message.get(self.from..to).unwrap_or_default());
        self.from = to;
    }
}

/// Appends a field of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field whose body `write` appends; `guess` is how long it may become.
pub(super) fn put_nested(
    out: &mut Vec<u8>,
    number: u32,
    guess: usize,
    write: impl FnOnce(&mut Vec<u8>),
) {
    put_varint(out, u64::from(number) << 3 | 2);
    let place = out.len();
    let guessed = varint_len(guess as u64);
    out.resize(place + guessed, 0);
    write(out);
    let body = place + guessed;
    let len = out.len().saturating_sub(body);
    let (mut head, mut rest) = ([0; 10], len);
    let needed = varint_len(len as u64);
    for byte in head.iter_mut().take(needed) {
        *byte = rest as u8 & 0x7f | 0x80;
        rest >>= 7;
    }
    if let Some(last) = head.get_mut(needed - 1) {
        *last &= 0x7f;
    }
    let head = head.get(..needed).unwrap_or_default();
    // The guess is nearly always right: then only the length is written over.
    out.splice(place..body, head.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Value;

    #[test]
    fn lengths_are_right_however_wrong_the_guess_is() {
        for (guess, len) in [(0, 0), (0, 127), (0, 128), (20_000, 5), (128, 128), (5, 70_000)] {
            let mut out = vec![7];
            put_nested(&mut out, 2, guess, |out| out.resize(out.len() + len, 9));
            let field = Reader::new(&out[1..]).next_field().unwrap().unwrap();
            assert_eq!(field.number, 2);
            assert_eq!(field.value, Value::Bytes(&vec![9; len]), "{guess} {len}");
        }
    }

    #[test]
    fn fields_stay_or_are_replaced_and_nothing_follows_a_broken_one() {
        let message = [0x08, 1, 0x12, 1, b'a', 0x18, 3, 0x20, 4];
        let copied = |message: &[u8], dropped: &[u32]| {
            let mut out = Vec::new();
            let mut copy = Copy::new(message, &mut out);
            while let Some(field) = copy.next_field() {
                if dropped.contains(&field.number) {
                    copy.replace().push(0xff);
                }
            }
            copy.finish();
            out
        };
        assert_eq!(copied(&message, &[]), message);
        assert_eq!(copied(&message, &[2]), [0x08, 1, 0xff, 0x18, 3, 0x20, 4]);
        assert_eq!(copied(&message, &[1, 4]), [0xff, 0x12, 1, b'a', 0x18, 3, 0xff]);
        assert_eq!(copied(&message[..8], &[]), &message[..7]);
        assert_eq!(copied(&message[..8], &[3]), [0x08, 1, 0x12, 1, b'a', 0xff]);
    }
}
