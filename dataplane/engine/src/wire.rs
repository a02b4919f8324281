//! The protobuf wire format: varints, tags and fields, read without knowing the message.

use thiserror::Error;

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field ends after its message.
    #[error("the message is cut off inside a field")]
    Truncated,
    /// A varint has more than ten bytes, or more than 64 bits.
    #[error("a variable-length integer is longer than 64 bits")]
    VarintTooLong,
    /// Field number 0, a number above 2^29 - 1, or a wire type that does not exist.
    #[error("a field tag is invalid")]
    BadTag,
    /// A group ends that was not begun, or does not end.
    #[error("a group is not closed by its own end")]
    GroupMismatch,
    /// Groups or messages are nested too deeply.
    #[error("messages are nested more than {0} deep")]
    TooDeep(u32),
    /// A known field has another wire type than its definition.
    #[error("field {0} has a wire type that contradicts its definition")]
    WrongType(u32),
}

/// Groups inside groups that are skipped. Groups are long deprecated and OTLP has none.
const GROUP_DEPTH_MAX: u32 = 32;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    /// What it holds.
    pub value: Value<'a>,
    /// Tag, length and value as they stand in the message.
    pub raw: &'a [u8],
}

/// What a field holds, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integers, booleans and enums.
    Varint(u64),
    /// 64 bits.
    Fixed64(u64),
    /// Strings, bytes, messages and packed lists.
    Bytes(&'a [u8]),
    /// The fields of a group.
    Group(&'a [u8]),
    /// 32 bits.
    Fixed32(u32),
}

/// Reads the fields of one message in their order.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `message`.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes that were not read yet.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next field; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are not a field.
    #[inline(always)]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let start = self.rest;
        let tag = self.varint()?;
        let number = field_number(tag)?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(self.delimited()?),
            3 => {
                // A copy reads on, so that this reader can stay in registers.
                let mut inner = *self;
                let fields = inner.group(number, GROUP_DEPTH_MAX)?;
                *self = inner;
                Value::Group(fields)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            4 => return Err(WireError::GroupMismatch),
            _ => return Err(WireError::BadTag),
        };
        let raw = &start[..start.len() - self.rest.len()];
        Ok(Some(Field { number, value, raw }))
    }

    /// The next byte, which stays; for readers that know what a tag of one byte means and skip its value
    /// themselves.
    #[inline]
    pub(crate) fn first(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Takes a byte away.
    #[inline]
    pub(crate) fn skip_byte(&mut self) {
        self.rest = self.rest.split_first().map_or(&[], |(_, rest)| rest);
    }

    /// What was not read yet.
    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `bytes` bytes away, or as many as there are.
    #[inline]
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// Takes a length and as many bytes.
    #[inline]
    pub(crate) fn delimited(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| WireError::Truncated)?)
    }

    /// Takes a varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            // Two bytes are the lengths of spans.
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => {
                let (value, rest) = long_varint(self.rest)?;
                self.rest = rest;
                Ok(value)
            }
        }
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes as many bytes as the array has.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[cold]
    fn group(&mut self, number: u32, depth: u32) -> Result<&'a [u8], WireError> {
        if depth == 0 {
            return Err(WireError::TooDeep(GROUP_DEPTH_MAX));
        }
        let start = self.rest;
        loop {
            let before = self.rest;
            let tag = self.varint()?;
            let inner = field_number(tag)?;
            match tag & 7 {
                0 => drop(self.varint()?),
                1 => drop(self.array::<8>()?),
                2 => drop(self.delimited()?),
                3 => drop(self.group(inner, depth - 1)?),
                4 if inner == number => return Ok(&start[..start.len() - before.len()]),
                4 => return Err(WireError::GroupMismatch),
                5 => drop(self.array::<4>()?),
                _ => return Err(WireError::BadTag),
            }
        }
    }
}

/// Reads a varint of any length; gives it and what follows.
#[cold]
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WireError> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        // The tenth byte holds the 64th bit alone.
        if index == 9 && *byte > 1 {
            return Err(WireError::VarintTooLong);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    if bytes.len() < 10 { Err(WireError::Truncated) } else { Err(WireError::VarintTooLong) }
}

/// How many bytes `value` takes as a varint: 1 to 10.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; zero takes one as well.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Keeps a byte free for the length of what is appended next; [`finish`] takes what it returns.
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Writes the length of what was appended since [`begin`]; a length of several bytes pushes it to the right.
pub(crate) fn finish(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let more = varint_len(length as u64) - 1;
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(start..start + length, start + more);
    }
    let mut left = length;
    for place in out.iter_mut().skip(start - 1).take(more) {
        *place = left as u8 | 0x80;
        left >>= 7;
    }
    if let Some(last) = out.get_mut(start - 1 + more) {
        *last = left as u8;
    }
}

#[inline]
fn field_number(tag: u64) -> Result<u32, WireError> {
    // A tag is 32 bits: a number of 29 bits and the wire type.
    let number = u32::try_from(tag).map_err(|_| WireError::BadTag)? >> 3;
    if number == 0 { Err(WireError::BadTag) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_the_length_they_claim() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Ok(value));
        }
    }

    #[test]
    fn truncation_is_found_at_every_byte() {
        let message =
            [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x23, 0x08, 1, 0x24];
        for end in 0..message.len() {
            let mut reader = Reader::new(&message[..end]);
            let mut read = 0;
            while let Ok(Some(field)) = reader.next_field() {
                read += field.raw.len();
            }
            assert!(read <= end);
        }
        let mut reader = Reader::new(&message);
        let mut numbers = Vec::new();
        while let Some(field) = reader.next_field().unwrap() {
            numbers.push(field.number);
        }
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn what_is_not_a_field_is_refused() {
        let cases: [(&[u8], WireError); 6] = [
            (&[0x00], WireError::BadTag),
            (&[0x0e], WireError::BadTag),
            (&[0x0c], WireError::GroupMismatch),
            (&[0x0b, 0x14], WireError::GroupMismatch),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
                WireError::VarintTooLong,
            ),
            (&[0x0a, 0x05, 1], WireError::Truncated),
        ];
        for (bytes, error) in cases {
            assert_eq!(Reader::new(bytes).next_field(), Err(error), "{bytes:x?}");
        }
    }
}
