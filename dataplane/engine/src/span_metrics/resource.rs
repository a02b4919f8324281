//! What series take from resources, read once for all spans of a resource and remembered a while.

use hashbrown::HashTable;

use super::key::{cut, put_absent, put_text};
use super::plan::Plan;
use super::text::{Any, pair};
use crate::scan::Headers;
use crate::wire::{Reader, Value as Wire};

/// Bytes of what is remembered of resources: of 5,000 that are like most. Then all are forgotten, and read
/// again as they come.
const BYTES_MAX: u64 = 1 << 20;
/// What an entry takes beside its texts: its place in a table that doubles.
const ENTRY_BYTES: u64 = 2 * size_of::<Known>() as u64 + 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Resources {
    known: HashTable<Known>,
    bytes: u64,
}

/// What is read of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// How the keys of its series begin.
    pub(super) prefix: Box<[u8]>,
    /// Its value for each dimension, as labels have it.
    pub(super) values: Box<[Option<Box<[u8]>>]>,
}

/// Told from others by hash and length, as where spans are stored: the hash is keyed, so that two of them
/// agree once in 2^64 times.
#[derive(Debug)]
struct Known {
    hash: u64,
    length: usize,
    /// None: it has no name.
    resource: Option<Resource>,
}

// === impl Resources ===

impl Resources {
    /// What is known of a resource; `None` when it has no `service.name`.
    #[inline]
    pub(super) fn of(&mut self, headers: &Headers<'_>, plan: &Plan) -> Option<&Resource> {
        let (hash, length) = (headers.hash(), headers.bytes().len());
        let is = |known: &Known| known.hash == hash && known.length == length;
        if self.known.find(hash, is).is_none() {
            self.read(headers, plan);
        }
        self.known.find(hash, is)?.resource.as_ref()
    }

    #[cold]
    fn read(&mut self, headers: &Headers<'_>, plan: &Plan) {
        let resource = Resource::of(headers.bytes(), plan);
        let bytes = ENTRY_BYTES + resource.as_ref().map_or(0, Resource::bytes);
        if self.bytes + bytes > BYTES_MAX {
            self.known = HashTable::new();
            self.bytes = 0;
        }
        self.bytes += bytes;
        let known = Known { hash: headers.hash(), length: headers.bytes().len(), resource };
        self.known.insert_unique(known.hash, known, |known| known.hash);
    }

    /// Bytes that it occupies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

// === impl Resource ===

impl Resource {
    fn of(headers: &[u8], plan: &Plan) -> Option<Self> {
        let mut wanted: [Option<Any<'_>>; 3] = [None; 3];
        let mut values: Vec<Option<Box<[u8]>>> = vec![None; plan.names.len()];
        for (key, value) in attributes(headers) {
            let place = match key {
                b"service.name" => Some(0),
                b"service.namespace" => Some(1),
                b"service.instance.id" => Some(2),
                _ => None,
            };
            // Of equal keys the first counts, as for the Collector.
            if let Some(slot) = place.and_then(|place| wanted.get_mut(place)) {
                slot.get_or_insert_with(|| Any::of(value));
            }
            plan.look_up(key, |place| {
                if let Some(slot) = values.get_mut(place) {
                    slot.get_or_insert_with(|| shown(Any::of(value)));
                }
            });
        }
        let [service, namespace, instance] = wanted;
        let service = service?;
        let mut prefix = Vec::new();
        put_text(&mut prefix, &shown(service));
        prefix.push(u8::from(matches!(service, Any::Text(_))));
        for any in [namespace, instance] {
            match any {
                Some(any) => put_text(&mut prefix, &shown(any)),
                None => put_absent(&mut prefix),
            }
        }
        Some(Self { prefix: prefix.into(), values: values.into() })
    }

    fn bytes(&self) -> u64 {
        let texts: usize = self.values.iter().flatten().map(|text| text.len()).sum();
        let slots = size_of_val::<[Option<Box<[u8]>>]>(&self.values);
        (self.prefix.len() + texts + slots) as u64
    }
}

fn shown(any: Any<'_>) -> Box<[u8]> {
    let mut out = Vec::new();
    any.write(&mut out);
    cut(&out).into()
}

/// Keys and values of the attributes in the headers of a `ResourceSpans`.
fn attributes(headers: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields(headers).flat_map(fields).map(pair)
}

/// The messages that are field 1: the resource of headers, the attributes of a resource.
fn fields(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut reader = Reader::new(message);
    std::iter::from_fn(move || {
        while let Ok(Some(field)) = reader.next_field() {
            if let (1, Wire::Bytes(inner)) = (field.number, field.value) {
                return Some(inner);
            }
        }
        None
    })
}
