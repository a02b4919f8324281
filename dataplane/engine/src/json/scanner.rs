//! JSON, read from one token to the next without a tree.

use super::JsonError;

/// Reads a text of JSON.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string as it stands between its quotes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether a backslash is in it.
    pub(super) escaped: bool,
}

/// The brackets that are open, a bit each: 1 for an object. A text of 16 MiB can open as many, so this takes
/// 2 MiB at most, and no stack.
#[derive(Debug, Default)]
struct Open {
    bits: Vec<u64>,
    depth: usize,
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Goes back to where it was, or forth.
    pub(super) fn seek(&mut self, at: usize) {
        self.at = at;
    }

    /// The first byte of the next token, which stays.
    pub(super) fn peek(&mut self) -> Result<u8, JsonError> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(JsonError::Truncated),
            }
        }
    }

    /// Takes the next token if it is this one.
    pub(super) fn eat(&mut self, byte: u8) -> Result<bool, JsonError> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Takes the next token, which must be this one.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte)? { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }

    /// Only white space may follow.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Err(JsonError::Truncated) => Ok(()),
            _ => Err(JsonError::Syntax(self.at)),
        }
    }

    /// Takes a string.
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, JsonError> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let stop = stop.ok_or(JsonError::Truncated)?;
            self.at += stop + 1;
            if rest.get(stop) == Some(&b'"') {
                let bytes = self.bytes.get(start..self.at - 1).unwrap_or_default();
                return Ok(Quoted { bytes, escaped });
            }
            // Whatever is escaped is part of the string, a quote too.
            escaped = true;
            self.at += 1;
        }
    }

    /// Takes a number, or the contents of a string: OTLP writes large numbers as strings.
    pub(super) fn scalar(&mut self) -> Result<&'a [u8], JsonError> {
        if self.peek()? == b'"' { Ok(self.string()?.bytes) } else { self.number() }
    }

    fn number(&mut self) -> Result<&'a [u8], JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let is_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.iter().take_while(is_number).count();
        if length == 0 {
            return Err(JsonError::Syntax(self.at));
        }
        self.at += length;
        Ok(&rest[..length])
    }

    /// Takes this word if it is the next token.
    pub(super) fn word(&mut self, word: &[u8]) -> Result<bool, JsonError> {
        self.peek()?;
        let found = self.bytes.get(self.at..).unwrap_or_default().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        Ok(found)
    }

    /// Takes a whole value, however deep, without going deeper itself.
    pub(super) fn skip(&mut self) -> Result<(), JsonError> {
        let mut open = Open::default();
        loop {
            match self.peek()? {
                b'{' => {
                    self.at += 1;
                    if !self.eat(b'}')? {
                        open.push(true);
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if !self.eat(b']')? {
                        open.push(false);
                        continue;
                    }
                }
                b'"' => drop(self.string()?),
                b't' | b'f' | b'n' => {
                    let known =
                        self.word(b"true")? || self.word(b"false")? || self.word(b"null")?;
                    if !known {
                        return Err(JsonError::Syntax(self.at));
                    }
                }
                _ => drop(self.number()?),
            }
            if self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: takes what closes with it, and says whether all is closed.
    fn close(&mut self, open: &mut Open) -> Result<bool, JsonError> {
        while let Some(object) = open.last() {
            if self.eat(b',')? {
                if object {
                    self.key()?;
                }
                return Ok(false);
            }
            self.expect(if object { b'}' } else { b']' })?;
            open.depth -= 1;
        }
        Ok(true)
    }

    fn key(&mut self) -> Result<(), JsonError> {
        self.string()?;
        self.expect(b':')
    }
}

// === impl Open ===

impl Open {
    fn push(&mut self, object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        if let Some(word) = self.bits.get_mut(word) {
            *word = *word & !(1 << bit) | u64::from(object) << bit;
        }
        self.depth += 1;
    }

    fn last(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        Some(self.bits.get(last / 64)? >> (last % 64) & 1 == 1)
    }
}

// === impl Quoted ===

impl Quoted<'_> {
    /// Appends the text that it means. `None` when it is not UTF-8 or an escape is none; something may have
    /// been appended by then.
    pub(super) fn put(self, out: &mut Vec<u8>) -> Option<()> {
        std::str::from_utf8(self.bytes).ok()?;
        let mut rest = self.bytes;
        if !self.escaped {
            out.extend_from_slice(rest);
            return Some(());
        }
        while let Some(stop) = rest.iter().position(|byte| *byte == b'\\') {
            out.extend_from_slice(&rest[..stop]);
            rest = unescape(&rest[stop + 1..], out)?;
        }
        out.extend_from_slice(rest);
        Some(())
    }
}

/// Appends what an escape means; gives what follows it.
fn unescape<'a>(escape: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (letter, rest) = escape.split_first()?;
    let plain = match letter {
        b'"' | b'\\' | b'/' => *letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let (character, rest) = unicode(rest)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}

/// Reads the four digits after `\u`, and the other half of a pair. Half a pair alone means no character; it
/// becomes the one that stands for such, as every decoder in the field does it.
fn unicode(digits: &[u8]) -> Option<(char, &[u8])> {
    let (first, rest) = unit(digits)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, rest));
    }
    let second = rest.strip_prefix(b"\\u").and_then(unit);
    if let (0xd800..0xdc00, Some((low @ 0xdc00..0xe000, rest))) = (first, second) {
        let pair = 0x1_0000 + ((first - 0xd800) << 10 | (low - 0xdc00));
        return Some((char::from_u32(pair)?, rest));
    }
    Some((char::REPLACEMENT_CHARACTER, rest))
}

fn unit(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (unit, rest) = digits.split_first_chunk::<4>()?;
    let mut value = 0;
    for digit in unit {
        value = value << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((value, rest))
}
