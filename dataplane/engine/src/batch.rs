//! Spans gathered for one destination: equal resources and scopes of many requests merged, encoded as one request.
//!
//! Spans are appended to one buffer in the order of their arrival; a list of runs says which part of it belongs to which
//! group, and encoding puts the runs of a group together. So nothing is allocated per span, and once its buffers have
//! grown, nothing per batch.

use hashbrown::HashTable;

use crate::scan::Headers;
use crate::wire::{put_varint, varint_len};

/// Tag of `ExportTraceServiceRequest.resource_spans`: field 1, length-delimited.
const RESOURCE_SPANS_TAG: u8 = 1 << 3 | 2;
/// Tag of `ResourceSpans.scope_spans` and of `ScopeSpans.spans`: field 2, length-delimited.
const CHILD_TAG: u8 = 2 << 3 | 2;
/// A tag of one byte and a length of at most five (a message is under 4 GiB).
const FIELD_HEAD_MAX: usize = 6;
/// A cleared batch keeps this much of its span buffer: twice the usual batch of 1 MiB, so that a batch which passed the mark
/// by one request does not shrink.
const KEEP_SPAN_BYTES: usize = 2 << 20;
/// And this many runs, groups, resources: those of 8192 spans, the usual limit of a batch, each in a run of its own.
const KEEP_ENTRIES: usize = 8192;
/// And this many bytes of headers: 256 resources of 1 KiB.
const KEEP_HEADER_BYTES: usize = 256 << 10;
/// No group yet, and none could be made: more than [`u32::MAX`] bytes of spans or headers are refused before they come here.
const OFFSET_MAX: usize = u32::MAX as usize;

/// A group of a batch, valid until the batch is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRef(u32);

/// Spans for one destination.
#[derive(Debug, Default)]
pub struct Batch {
    /// Span fields, tag and length included.
    bytes: Vec<u8>,
    runs: Vec<Run>,
    headers: Vec<u8>,
    resources: Vec<Resource>,
    groups: Vec<Group>,
    resource_table: HashTable<u32>,
    /// The resource that was interned last: a request may name one of a mebibyte for each of a hundred thousand scopes.
    last_resource: Option<u32>,
    group_table: HashTable<u32>,
    /// Fields of requests that OTLP does not know.
    loose: Vec<u8>,
    spans: u32,
    /// Header bytes as they will be written: a scope's once, a resource's once.
    header_bytes: usize,
}

/// Spans next to each other that belong to one group.
#[derive(Clone, Copy, Debug)]
struct Run {
    group: u32,
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Resource {
    hash: u64,
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    hash: u64,
    resource: u32,
    start: u32,
    len: u32,
    /// Bytes of its spans.
    span_bytes: u32,
}

/// The order in which a batch is written, and the lengths of its messages.
struct Layout {
    /// Groups by resource.
    groups: Vec<u32>,
    /// By resource: bytes of its `ResourceSpans`.
    resource_len: Vec<usize>,
}

// === impl Batch ===

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// The group with these headers, made when there is none.
    pub fn intern(&mut self, resource: &Headers<'_>, scope: &Headers<'_>) -> GroupRef {
        let resource = self.intern_resource(resource);
        // Mixed, so that the same scope under another resource falls elsewhere.
        let hash = scope.hash() ^ u64::from(resource + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (groups, headers) = (&self.groups, &self.headers);
        let known = self.group_table.find(hash, |index| {
            groups.get(*index as usize).is_some_and(|group| {
                group.resource == resource && slice(headers, group.start, group.len) == scope.bytes()
            })
        });
        if let Some(index) = known {
            return GroupRef(*index);
        }
        let (start, len) = append(&mut self.headers, scope.bytes());
        let index = count(self.groups.len());
        self.groups.push(Group { hash, resource, start, len, span_bytes: 0 });
        self.header_bytes += scope.bytes().len();
        let groups = &self.groups;
        self.group_table.insert_unique(hash, index, |index| hash_of(groups.get(*index as usize)));
        GroupRef(index)
    }

    fn intern_resource(&mut self, header: &Headers<'_>) -> u32 {
        let last = self.last_resource.filter(|index| {
            // The hash is keyed, so that two of a length agree once in 2^64 times.
            let is_it =
                |last: &Resource| (last.hash, last.len as usize) == (header.hash(), header.bytes().len());
            self.resources.get(*index as usize).is_some_and(is_it)
        });
        let index = last.unwrap_or_else(|| self.find_resource(header));
        self.last_resource = Some(index);
        index
    }

    fn find_resource(&mut self, header: &Headers<'_>) -> u32 {
        let (resources, headers) = (&self.resources, &self.headers);
        let known = self.resource_table.find(header.hash(), |index| {
            resources.get(*index as usize).is_some_and(|resource| {
                slice(headers, resource.start, resource.len) == header.bytes()
            })
        });
        if let Some(index) = known {
            return *index;
        }
        let (start, len) = append(&mut self.headers, header.bytes());
        let index = count(self.resources.len());
        self.resources.push(Resource { hash: header.hash(), start, len });
        self.header_bytes += header.bytes().len();
        let resources = &self.resources;
        self.resource_table.insert_unique(header.hash(), index, |index| {
            resources.get(*index as usize).map_or(0, |resource| resource.hash)
        });
        index
    }

    /// Appends a span, given without tag and length, to a group of this batch.
    #[inline]
    pub fn push(&mut self, group: GroupRef, span: &[u8]) {
        let start = self.bytes.len();
        self.bytes.push(CHILD_TAG);
        put_varint(&mut self.bytes, span.len() as u64);
        self.bytes.extend_from_slice(span);
        let len = count(self.bytes.len() - start);
        self.spans += 1;
        if let Some(group) = self.groups.get_mut(group.0 as usize) {
            group.span_bytes += len;
        }
        match self.runs.last_mut() {
            Some(run) if run.group == group.0 => run.len += len,
            _ => self.runs.push(Run { group: group.0, start: count(start), len }),
        }
    }

    /// Appends a field of a request that OTLP does not know, as it stands.
    pub fn push_loose(&mut self, raw: &[u8]) {
        self.loose.extend_from_slice(raw);
    }

    /// Spans in the batch.
    pub const fn spans(&self) -> u32 {
        self.spans
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.spans == 0
    }

    /// An upper bound of [`Self::encoded_len`] that costs nothing to ask: off by a few bytes a group.
    #[inline]
    pub fn encoded_len_max(&self) -> usize {
        let heads = (self.groups.len() + self.resources.len()) * FIELD_HEAD_MAX;
        self.bytes.len() + self.header_bytes + self.loose.len() + heads
    }

    /// Bytes that [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        self.loose.len() + self.layout().resource_len.iter().map(|len| field_len(*len)).sum::<usize>()
    }

    /// Bytes that the batch occupies, spare capacity included.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.headers.capacity()
            + self.loose.capacity()
            + self.runs.capacity() * size_of::<Run>()
            + self.resources.capacity() * size_of::<Resource>()
            + self.groups.capacity() * size_of::<Group>()
            + self.resource_table.allocation_size()
            + self.group_table.allocation_size()
    }

    /// Appends the batch as one `ExportTraceServiceRequest`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Layout { groups, resource_len } = self.layout();
        let runs = self.runs_by_group();
        out.extend_from_slice(&self.loose);
        let mut written = None;
        for index in groups {
            let Some(group) = self.groups.get(index as usize) else { continue };
            if written != Some(group.resource) {
                written = Some(group.resource);
                self.begin_resource(group.resource, &resource_len, out);
            }
            out.push(CHILD_TAG);
            put_varint(out, u64::from(group.len) + u64::from(group.span_bytes));
            out.extend_from_slice(slice(&self.headers, group.start, group.len));
            for run in runs.of(index) {
                out.extend_from_slice(slice(&self.bytes, run.start, run.len));
            }
        }
    }

    /// Empties the batch. Its buffers keep their capacity, up to a bound.
    pub fn clear(&mut self) {
        fn empty<T>(list: &mut Vec<T>, keep: usize) {
            list.clear();
            list.shrink_to(keep);
        }
        empty(&mut self.bytes, KEEP_SPAN_BYTES);
        empty(&mut self.headers, KEEP_HEADER_BYTES);
        empty(&mut self.loose, 0);
        empty(&mut self.runs, KEEP_ENTRIES);
        empty(&mut self.resources, KEEP_ENTRIES);
        empty(&mut self.groups, KEEP_ENTRIES);
        for table in [&mut self.resource_table, &mut self.group_table] {
            table.clear();
            table.shrink_to(KEEP_ENTRIES, |_| 0);
        }
        self.last_resource = None;
        self.spans = 0;
        self.header_bytes = 0;
    }

    fn begin_resource(&self, index: u32, resource_len: &[usize], out: &mut Vec<u8>) {
        let len = resource_len.get(index as usize).copied().unwrap_or_default();
        out.push(RESOURCE_SPANS_TAG);
        put_varint(out, len as u64);
        if let Some(resource) = self.resources.get(index as usize) {
            out.extend_from_slice(slice(&self.headers, resource.start, resource.len));
        }
    }

    fn layout(&self) -> Layout {
        let mut groups: Vec<u32> = (0..count(self.groups.len())).collect();
        groups.sort_by_key(|index| self.groups.get(*index as usize).map(|group| group.resource));
        let mut resource_len: Vec<usize> =
            self.resources.iter().map(|resource| resource.len as usize).collect();
        for group in &self.groups {
            if let Some(len) = resource_len.get_mut(group.resource as usize) {
                *len += field_len(group.len as usize + group.span_bytes as usize);
            }
        }
        Layout { groups, resource_len }
    }

    /// A counting sort of the runs by their group; runs of a group keep their order.
    fn runs_by_group(&self) -> RunsByGroup<'_> {
        let mut starts = vec![0_u32; self.groups.len() + 1];
        for run in &self.runs {
            if let Some(start) = starts.get_mut(run.group as usize + 1) {
                *start += 1;
            }
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        let mut next = starts.clone();
        let mut order = vec![0_u32; self.runs.len()];
        for (index, run) in self.runs.iter().enumerate() {
            let Some(place) = next.get_mut(run.group as usize) else { continue };
            if let Some(slot) = order.get_mut(*place as usize) {
                *slot = count(index);
            }
            *place += 1;
        }
        RunsByGroup { runs: &self.runs, starts, order }
    }
}

/// The runs of a batch in the order of their groups.
struct RunsByGroup<'a> {
    runs: &'a [Run],
    starts: Vec<u32>,
    order: Vec<u32>,
}

impl RunsByGroup<'_> {
    fn of(&self, group: u32) -> impl Iterator<Item = Run> + '_ {
        let bound = |index: usize| self.starts.get(index).map_or(0, |start| *start as usize);
        let range = bound(group as usize)..bound(group as usize + 1);
        let order = self.order.get(range).unwrap_or_default();
        order.iter().filter_map(|index| self.runs.get(*index as usize).copied())
    }
}

fn hash_of(group: Option<&Group>) -> u64 {
    group.map_or(0, |group| group.hash)
}

/// Bytes of a length-delimited field with a tag of one byte.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> (u32, u32) {
    let start = count(buffer.len());
    buffer.extend_from_slice(bytes);
    (start, count(bytes.len()))
}

fn slice(buffer: &[u8], start: u32, len: u32) -> &[u8] {
    buffer.get(start as usize..start as usize + len as usize).unwrap_or_default()
}

/// Offsets are 32 bits: batches are limited to far less than 4 GiB by those who fill them.
fn count(value: usize) -> u32 {
    debug_assert!(value <= OFFSET_MAX, "a batch of more than 4 GiB");
    value as u32
}
