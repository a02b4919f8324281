//! Spans gathered for one destination: equal resources and scopes of many requests merged, encoded as one
//! request.
//!
//! Spans are appended to one buffer in the order of their arrival. Lists by index lead from a resource to its
//! groups and from a group to the runs of its spans in that buffer; encoding follows them. So nothing is
//! allocated per span, and once the buffers have grown, nothing per batch.

use hashbrown::HashTable;

use crate::scan::Headers;
use crate::wire::{put_varint, varint_len};

/// Tag of `ExportTraceServiceRequest.resource_spans`: field 1, length-delimited.
const RESOURCE_SPANS_TAG: u8 = 1 << 3 | 2;
/// Tag of `ResourceSpans.scope_spans` and of `ScopeSpans.spans`: field 2, length-delimited.
const CHILD_TAG: u8 = 2 << 3 | 2;
/// A tag of one byte and a length of at most five (a message is under 4 GiB).
const FIELD_HEAD_MAX: usize = 6;
/// A cleared batch keeps this much of its span buffer: twice the usual batch of 1 MiB, so that a batch which
/// passed the mark by one request does not shrink.
const KEEP_SPAN_BYTES: usize = 2 << 20;
/// And this many runs, groups, resources: those of 8192 spans, the usual limit of a batch, each in a run of
/// its own.
const KEEP_ENTRIES: usize = 8192;
/// And this many bytes of headers: 256 resources of 1 KiB.
const KEEP_HEADER_BYTES: usize = 256 << 10;
/// Offsets and indexes are 32 bits: those who fill batches limit them to far less than 4 GiB.
const OFFSET_MAX: usize = u32::MAX as usize;
/// The end of a list; no index, because every entry stands for at least two bytes of 4 GiB.
const NONE: u32 = u32::MAX;

/// A group of a batch, valid until the batch is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRef(u32);

/// A part of an encoded batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Tags, lengths and headers.
    Head(&'a [u8]),
    /// A run of spans, by its place in the batch's buffer.
    Spans(std::ops::Range<usize>),
}

/// Spans for one destination.
#[derive(Debug, Default)]
pub struct Batch {
    /// Span fields, tag and length included.
    bytes: Vec<u8>,
    runs: Vec<Run>,
    /// Headers of resources and groups, each once.
    headers: Vec<u8>,
    resources: Vec<Resource>,
    groups: Vec<Group>,
    resource_table: HashTable<u32>,
    group_table: HashTable<u32>,
    /// The resource that was asked for last, by hash and length. One resource may have a hundred thousand
    /// scopes, and to compare its bytes for each would take minutes; the hash is keyed, so that two agree
    /// once in 2^64 times.
    last_resource: Option<(u64, usize, u32)>,
    /// Fields of requests that OTLP does not know.
    loose: Vec<u8>,
    spans: u32,
}

/// Spans next to each other that belong to one group.
#[derive(Clone, Copy, Debug)]
struct Run {
    range: Range,
    group: u32,
    /// The next run of the group.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Resource {
    hash: u64,
    header: Range,
    first_group: u32,
    last_group: u32,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    hash: u64,
    header: Range,
    resource: u32,
    first_run: u32,
    last_run: u32,
    /// Bytes of its spans, tags and lengths included.
    span_bytes: u32,
    /// The next group of the resource.
    next: u32,
}

/// Bytes of a buffer.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: u32,
    len: u32,
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
        let index = self.find_group(hash, resource, scope);
        GroupRef(index.unwrap_or_else(|| self.append_group(hash, resource, scope)))
    }

    fn find_group(&self, hash: u64, resource: u32, scope: &Headers<'_>) -> Option<u32> {
        let is_known = |index: &u32| {
            self.groups.get(*index as usize).is_some_and(|group| {
                (group.hash, group.resource) == (hash, resource)
                    && group.header.of(&self.headers) == scope.bytes()
            })
        };
        self.group_table.find(hash, is_known).copied()
    }

    fn append_group(&mut self, hash: u64, resource: u32, scope: &Headers<'_>) -> u32 {
        let index = count(self.groups.len());
        if let Some(resource) = self.resources.get_mut(resource as usize) {
            match self.groups.get_mut(resource.last_group as usize) {
                Some(last) => last.next = index,
                None => resource.first_group = index,
            }
            resource.last_group = index;
        }
        self.groups.push(Group {
            hash,
            header: append(&mut self.headers, scope.bytes()),
            resource,
            first_run: NONE,
            last_run: NONE,
            span_bytes: 0,
            next: NONE,
        });
        let groups = &self.groups;
        let hash_of = |index: &u32| groups.get(*index as usize).map_or(0, |group| group.hash);
        self.group_table.insert_unique(hash, index, hash_of);
        index
    }

    fn intern_resource(&mut self, header: &Headers<'_>) -> u32 {
        let (hash, len) = (header.hash(), header.bytes().len());
        match self.last_resource {
            Some((last_hash, last_len, index)) if (last_hash, last_len) == (hash, len) => index,
            _ => {
                let index =
                    self.find_resource(header).unwrap_or_else(|| self.append_resource(header));
                self.last_resource = Some((hash, len, index));
                index
            }
        }
    }

    fn find_resource(&self, header: &Headers<'_>) -> Option<u32> {
        let is_known = |index: &u32| {
            let resource = self.resources.get(*index as usize);
            resource.is_some_and(|resource| {
                resource.hash == header.hash()
                    && resource.header.of(&self.headers) == header.bytes()
            })
        };
        self.resource_table.find(header.hash(), is_known).copied()
    }

    fn append_resource(&mut self, header: &Headers<'_>) -> u32 {
        let index = count(self.resources.len());
        let hash = header.hash();
        let header = append(&mut self.headers, header.bytes());
        self.resources.push(Resource { hash, header, first_group: NONE, last_group: NONE });
        let resources = &self.resources;
        let hash_of =
            |index: &u32| resources.get(*index as usize).map_or(0, |resource| resource.hash);
        self.resource_table.insert_unique(hash, index, hash_of);
        index
    }

    /// Appends a span, given without tag and length, to a group of this batch.
    #[inline]
    pub fn push(&mut self, group: GroupRef, span: &[u8]) {
        let start = self.bytes.len();
        self.bytes.reserve(FIELD_HEAD_MAX + span.len());
        match span.len() {
            // Two bytes are the length of nearly every span.
            length @ 0x80..0x4000 => {
                let head = [CHILD_TAG, length as u8 | 0x80, (length >> 7) as u8];
                self.bytes.extend_from_slice(&head);
            }
            length => {
                self.bytes.push(CHILD_TAG);
                put_varint(&mut self.bytes, length as u64);
            }
        }
        self.bytes.extend_from_slice(span);
        let len = count(self.bytes.len() - start);
        self.spans += 1;
        match self.runs.last_mut() {
            Some(run) if run.group == group.0 => run.range.len += len,
            _ => self.append_run(group.0, count(start), len),
        }
        if let Some(group) = self.groups.get_mut(group.0 as usize) {
            group.span_bytes += len;
        }
    }

    fn append_run(&mut self, group: u32, start: u32, len: u32) {
        let index = count(self.runs.len());
        if let Some(group) = self.groups.get_mut(group as usize) {
            match self.runs.get_mut(group.last_run as usize) {
                Some(last) => last.next = index,
                None => group.first_run = index,
            }
            group.last_run = index;
        }
        self.runs.push(Run { range: Range { start, len }, group, next: NONE });
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
        self.bytes.len() + self.headers.len() + self.loose.len() + heads
    }

    /// Bytes that [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let resources =
            self.resources.iter().map(|resource| field_len(self.resource_len(resource)));
        self.loose.len() + resources.sum::<usize>()
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
        self.outline(|part| match part {
            Part::Head(bytes) => out.extend_from_slice(bytes),
            Part::Spans(range) => out.extend_from_slice(self.span_bytes(range)),
        });
    }

    /// Tells the parts of what [`Self::encode`] writes, for those who can send spans from where they lie.
    pub fn outline(&self, mut tell: impl FnMut(Part<'_>)) {
        tell(Part::Head(&self.loose));
        for resource in &self.resources {
            let (head, len) = field_head(RESOURCE_SPANS_TAG, self.resource_len(resource));
            tell(Part::Head(&head[..len]));
            tell(Part::Head(resource.header.of(&self.headers)));
            for group in self.groups_of(resource) {
                let (head, len) = field_head(CHILD_TAG, group.len());
                tell(Part::Head(&head[..len]));
                tell(Part::Head(group.header.of(&self.headers)));
                for run in self.runs_of(group) {
                    let start = run.range.start as usize;
                    tell(Part::Spans(start..start + run.range.len as usize));
                }
            }
        }
    }

    /// The bytes of a run of spans, tags and lengths included.
    pub fn span_bytes(&self, run: std::ops::Range<usize>) -> &[u8] {
        self.bytes.get(run).unwrap_or_default()
    }

    /// Bytes of the buffer into which the runs lead, spare capacity included.
    pub fn buffer_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// How many runs of spans there are, and the bytes of those of at least `long` bytes.
    pub fn runs(&self, long: usize) -> (usize, usize) {
        let lens = self.runs.iter().map(|run| run.range.len as usize);
        (self.runs.len(), lens.filter(|len| *len >= long).sum())
    }

    /// Empties the batch and gives the buffer away into which the runs of [`Self::outline`] lead.
    pub fn detach(&mut self) -> Vec<u8> {
        let bytes = std::mem::take(&mut self.bytes);
        self.clear();
        bytes
    }

    /// Gives an empty batch without a buffer this one, cleared, so that it need not grow one.
    pub fn attach(&mut self, mut buffer: Vec<u8>) {
        if self.bytes.capacity() == 0 {
            buffer.clear();
            self.bytes = buffer;
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
            // An empty table has nothing to hash again.
            table.shrink_to(KEEP_ENTRIES, |_| 0);
        }
        self.spans = 0;
        self.last_resource = None;
    }

    /// Bytes of a `ResourceSpans` without its tag and length.
    fn resource_len(&self, resource: &Resource) -> usize {
        let groups = self.groups_of(resource).map(|group| field_len(group.len()));
        resource.header.len as usize + groups.sum::<usize>()
    }

    fn groups_of(&self, resource: &Resource) -> impl Iterator<Item = &Group> {
        let at = |index: u32| self.groups.get(index as usize);
        std::iter::successors(at(resource.first_group), move |group| at(group.next))
    }

    fn runs_of(&self, group: &Group) -> impl Iterator<Item = &Run> {
        let at = |index: u32| self.runs.get(index as usize);
        std::iter::successors(at(group.first_run), move |run| at(run.next))
    }
}

impl Group {
    /// Bytes of the `ScopeSpans` without its tag and length.
    fn len(&self) -> usize {
        self.header.len as usize + self.span_bytes as usize
    }
}

impl Range {
    fn of<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        buffer.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// Tag and length of a field, and how many bytes they are.
fn field_head(tag: u8, len: usize) -> ([u8; FIELD_HEAD_MAX], usize) {
    let (mut head, mut at, mut rest) = ([0; FIELD_HEAD_MAX], 1, len);
    head[0] = tag;
    while rest >= 0x80 && at < FIELD_HEAD_MAX - 1 {
        head[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    head[at] = rest as u8;
    (head, at + 1)
}

/// Bytes of a length-delimited field with a tag of one byte.
fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn append(buffer: &mut Vec<u8>, bytes: &[u8]) -> Range {
    let start = count(buffer.len());
    buffer.extend_from_slice(bytes);
    Range { start, len: count(bytes.len()) }
}

fn count(value: usize) -> u32 {
    debug_assert!(value <= OFFSET_MAX, "a batch of more than 4 GiB");
    value as u32
}

#[cfg(test)]
mod tests;
