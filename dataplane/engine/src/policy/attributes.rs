//! Tests of attributes, made on the bytes of a span or resource: a bit for each test that some value passes.
//!
//! An attribute's key is compared by length, then by bytes, before its value is looked at; nothing is
//! decoded or allocated. As in the Collector, only the first attribute of a key counts, in each span and in
//! each resource.

use regex::bytes::RegexSet;

use crate::wire::{Reader, Value as Wire};

/// Key and value of `KeyValue`.
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// The members of `AnyValue`; further ones (double, array, list, bytes, index of a string) are of other
/// types.
const STRING_VALUE: u32 = 1;
const BOOL_VALUE: u32 = 2;
const INT_VALUE: u32 = 3;
const LAST_VALUE: u32 = 8;

/// The longest key length with a bucket of its own.
const LONG_KEY: usize = 63;

/// Whose attribute it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    Resource,
    Span,
}

/// A question about the value of one attribute.
#[derive(Debug, Clone)]
pub(super) enum Test {
    /// A string that equals one of these; sorted by length, then bytes.
    OneOf(Vec<Box<[u8]>>),
    /// A string in which one of these patterns is found.
    Patterns { sources: Vec<String>, set: RegexSet },
    /// An integer from `min` to `max`, both included.
    Range { min: i64, max: i64 },
    /// This bool.
    Bool(bool),
}

/// A test and the key of the attribute that it is about.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) key: String,
    pub(super) test: Test,
}

/// All tests of a program, by key.
#[derive(Debug)]
pub(super) struct Attributes {
    /// Sorted by length, then bytes.
    keys: Vec<Key>,
    /// Bit n is set when bucket n has keys; nearly every attribute of a span costs one look at this.
    lengths: u64,
    /// Bucket n are the keys with n bytes, the last bucket those with [`LONG_KEY`] or more; bucket n begins
    /// at `starts[n]` and ends at `starts[n + 1]`.
    starts: [u8; LONG_KEY + 2],
}

#[derive(Debug)]
struct Key {
    name: Box<[u8]>,
    /// The bit of the key in `seen`.
    bit: u64,
    /// The bit of each test.
    tests: Vec<(u64, Test)>,
}

/// What a policy can ask of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value<'a> {
    Unset,
    Text(&'a [u8]),
    Int(i64),
    Bool(bool),
    Other,
}

impl Leaf {
    /// Whether both ask the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.key == other.key && self.test.same(&other.test)
    }
}

impl Test {
    pub(super) fn one_of(values: &[String]) -> Self {
        let mut values: Vec<Box<[u8]>> = values.iter().map(|v| v.as_bytes().into()).collect();
        values.sort_unstable_by(|a, b| by_length(a, b));
        values.dedup();
        Self::OneOf(values)
    }

    /// Whether both give the same answer to every value, as far as their text shows.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OneOf(a), Self::OneOf(b)) => a == b,
            (Self::Patterns { sources: a, .. }, Self::Patterns { sources: b, .. }) => a == b,
            (Self::Range { min: a, max: b }, Self::Range { min: c, max: d }) => a == c && b == d,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            _ => false,
        }
    }

    fn passes(&self, value: Value<'_>, home: Home) -> bool {
        match (self, value) {
            // The Collector skips empty strings of spans, not of resources.
            (_, Value::Text([])) if home == Home::Span => false,
            (Self::OneOf(values), Value::Text(text)) => {
                values.binary_search_by(|candidate| by_length(candidate, text)).is_ok()
            }
            (Self::Patterns { set, .. }, Value::Text(text)) => set.is_match(text),
            (Self::Range { min, max }, Value::Int(value)) => (*min..=*max).contains(&value),
            (Self::Bool(wanted), Value::Bool(value)) => *wanted == value,
            _ => false,
        }
    }
}

impl Attributes {
    /// The tests of the leaves, each with its bit.
    pub(super) fn new(leaves: Vec<(u64, Leaf)>) -> Self {
        let mut keys: Vec<Key> = Vec::new();
        for (bit, Leaf { key, test }) in leaves {
            match keys.iter_mut().find(|known| *known.name == *key.as_bytes()) {
                Some(known) => known.tests.push((bit, test)),
                None => keys.push(Key {
                    name: key.into_bytes().into(),
                    bit: 0,
                    tests: vec![(bit, test)],
                }),
            }
        }
        keys.sort_unstable_by(|a, b| by_length(&a.name, &b.name));
        for (index, key) in keys.iter_mut().enumerate() {
            key.bit = bit(index);
        }
        let lengths = keys.iter().fold(0, |set, key| set | bit(bucket(&key.name)));
        let start = |number| keys.partition_point(|key| bucket(&key.name) < number) as u8;
        let starts = std::array::from_fn(start);
        Self { keys, lengths, starts }
    }

    /// Whether there is anything to test.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The bits of the tests that an attribute, a whole `KeyValue`, passes. `seen` holds the keys that the
    /// same span or resource had before.
    #[inline]
    pub(super) fn observe(&self, pair: &[u8], home: Home, seen: &mut u64) -> u64 {
        match plain(pair) {
            Some((key, any)) => match self.find(key) {
                Some(key) => key.observe(Value::Unset.then(any), home, seen),
                None => 0,
            },
            None => self.observe_unusual(pair, home, seen),
        }
    }

    /// A `KeyValue` whose fields are missing, repeated or in another order.
    #[cold]
    fn observe_unusual(&self, pair: &[u8], home: Home, seen: &mut u64) -> u64 {
        let (mut name, mut value): (&[u8], _) = (&[], Value::Unset);
        let mut reader = Reader::new(pair);
        while let Ok(Some(field)) = reader.next_field() {
            match (field.number, field.value) {
                (KEY, Wire::Bytes(bytes)) => name = bytes,
                (VALUE, Wire::Bytes(any)) => value = value.then(any),
                _ => {}
            }
        }
        self.find(name).map_or(0, |key| key.observe(value, home, seen))
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<&Key> {
        let bucket = bucket(name);
        if self.lengths >> bucket & 1 == 0 {
            return None;
        }
        let (start, end) = (self.starts[bucket], self.starts[bucket + 1]);
        let bucket = self.keys.get(usize::from(start)..usize::from(end))?;
        bucket.iter().find(|key| *key.name == *name)
    }
}

impl Key {
    fn observe(&self, value: Value<'_>, home: Home, seen: &mut u64) -> u64 {
        if *seen & self.bit != 0 {
            return 0;
        }
        *seen |= self.bit;
        let passed = self.tests.iter().filter(|(_, test)| test.passes(value, home));
        passed.fold(0, |bits, (bit, _)| bits | bit)
    }
}

impl<'a> Value<'a> {
    /// This value after an `AnyValue` was merged into it: the last member that is set counts.
    fn then(mut self, any: &'a [u8]) -> Self {
        let mut reader = Reader::new(any);
        while let Ok(Some(field)) = reader.next_field() {
            self = match (field.number, field.value) {
                (STRING_VALUE, Wire::Bytes(text)) => Self::Text(text),
                // Two's complement: what the varint holds is the integer's bits.
                (INT_VALUE, Wire::Varint(bits)) => Self::Int(bits as i64),
                (BOOL_VALUE, Wire::Varint(bits)) => Self::Bool(bits != 0),
                (1..=LAST_VALUE, _) => Self::Other,
                _ => self,
            };
        }
        self
    }
}

/// Key and value of a `KeyValue` as every encoder lays it out: a key of up to 127 bytes, a value of up to
/// 16,383, both once, nothing else.
#[inline]
pub(crate) fn plain(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    const KEY_TAG: u8 = (KEY << 3) as u8 | 2;
    const VALUE_TAG: u8 = (VALUE << 3) as u8 | 2;
    let ([KEY_TAG, key_length @ ..0x80], rest) = pair.split_first_chunk::<2>()? else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(*key_length))?;
    let ([VALUE_TAG, low], rest) = rest.split_first_chunk::<2>()? else {
        return None;
    };
    let (length, value) = match (*low, rest.split_first()) {
        (..0x80, _) => (usize::from(*low), rest),
        (_, Some((high @ ..0x80, rest))) => {
            (usize::from(*low & 0x7f) | usize::from(*high) << 7, rest)
        }
        _ => return None,
    };
    (value.len() == length).then_some((key, value))
}

/// The bucket of keys of this length.
#[inline]
fn bucket(name: &[u8]) -> usize {
    name.len().min(LONG_KEY)
}

fn by_length(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// The bit with this place, none past the last.
pub(super) fn bit(place: usize) -> u64 {
    u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0)
}
