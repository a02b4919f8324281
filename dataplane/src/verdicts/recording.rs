//! Recorded OTLP: files as the Collector's file exporter writes them, documents of OTLP/JSON, and requests in
//! protobuf, any of them compressed. What a file is is read from its bytes.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ringtail_engine::json;
use ringtail_engine::scan::{self, Group, Headers, ScanLimits, TraceId, Visit};
use serde::de::IgnoredAny;

/// What all recordings together may take, decompressed: half of what a small machine has.
const RECORDING_BYTES_MAX: u64 = 512 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A span and the headers above it, as they came.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) resource: Arc<[u8]>,
    pub(super) scope: Arc<[u8]>,
    pub(super) bytes: Arc<[u8]>,
}

/// A trace of all recordings.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) spans: Vec<Span>,
}

/// The headers of a resource and of a scope, as bytes.
type GroupHeaders = (Arc<[u8]>, Arc<[u8]>);

/// Traces in the order in which they are first seen.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) traces: Vec<Trace>,
    /// Spans without a valid trace ID, which no gateway would take.
    pub(super) invalid: u64,
    /// Spans that came twice, byte by byte.
    pub(super) duplicates: u64,
    places: HashMap<TraceId, usize>,
    seen: HashSet<(TraceId, Arc<[u8]>)>,
    headers: Option<GroupHeaders>,
    bytes: u64,
}

// === impl Recording ===

impl Recording {
    /// Reads files, or says what is wrong with the first that cannot be read.
    pub(super) fn read(paths: &[impl AsRef<Path>]) -> Result<Self, String> {
        let mut recording = Self::default();
        for path in paths {
            let path = path.as_ref();
            let shown = path.display();
            let bytes = std::fs::File::open(path)
                .and_then(|file| recording.within(file))
                .map_err(|error| format!("{shown}: {error}"))?;
            recording.add(&bytes).map_err(|problem| format!("{shown}: {problem}"))?;
        }
        Ok(recording)
    }

    /// Adds the content of a file.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        let unpacked = match bytes {
            [a, b, ..] if [*a, *b] == GZIP => {
                Some(self.within(flate2::read::MultiGzDecoder::new(bytes)))
            }
            [a, b, c, d, ..] if [*a, *b, *c, *d] == ZSTD => {
                let decoder = zstd::stream::read::Decoder::with_buffer(bytes);
                Some(decoder.and_then(|decoder| self.within(decoder)))
            }
            _ => None,
        };
        let unpacked =
            unpacked.transpose().map_err(|error| format!("cannot be decompressed: {error}"))?;
        let bytes = unpacked.as_deref().unwrap_or(bytes);
        self.charge(bytes.len())?;
        match bytes.trim_ascii_start().first() {
            None => Err("is empty".to_owned()),
            Some(b'{') => self.json(bytes),
            Some(b'[') => {
                Err("line 1: is a list: write each request on a line of its own".to_owned())
            }
            Some(_) => self.protobuf(bytes),
        }
    }

    // At most one byte more than is allowed, which the charge then refuses.
    fn within(&self, source: impl Read) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.take(RECORDING_BYTES_MAX.saturating_sub(self.bytes) + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes as u64;
        if self.bytes > RECORDING_BYTES_MAX {
            return Err(format!(
                "the recordings have more than {} MiB: give fewer of them",
                RECORDING_BYTES_MAX >> 20
            ));
        }
        Ok(())
    }

    // One document or many, with whatever blanks between them.
    fn json(&mut self, bytes: &[u8]) -> Result<(), String> {
        let line = |end: usize| {
            bytes.get(..end).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count() + 1
        };
        let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<IgnoredAny>();
        let mut start = 0;
        while let Some(document) = documents.next() {
            document.map_err(|error| format!("line {}: {error}", error.line()))?;
            let end = documents.byte_offset();
            let text = bytes.get(start..end).unwrap_or_default();
            let begin = end - text.trim_ascii_start().len();
            start = end;
            let broken = |why: String| format!("line {}: {why}", line(begin));
            let converted = json::traces(text.trim_ascii_start(), &ScanLimits::default())
                .map_err(|error| broken(error.to_string()))?;
            if let Some(why) = converted.why {
                return Err(broken(format!("a span is wrong: {why}")));
            }
            self.request(&converted.wire).map_err(broken)?;
        }
        Ok(())
    }

    fn protobuf(&mut self, bytes: &[u8]) -> Result<(), String> {
        let whole = self.request(bytes);
        match (whole, framed(bytes)) {
            (Err(_), Some(frames)) => {
                for (index, frame) in frames.iter().enumerate() {
                    self.request(frame).map_err(|why| format!("request {}: {why}", index + 1))?;
                }
                Ok(())
            }
            (whole, _) => whole.map_err(|why| format!("is neither OTLP/JSON nor protobuf: {why}")),
        }
    }

    fn request(&mut self, request: &[u8]) -> Result<(), String> {
        let limits = ScanLimits::default();
        let shape = scan::check(request, &limits).map_err(|error| error.to_string())?;
        scan::walk(request, &shape, self).map_err(|error| error.to_string())
    }
}

impl Visit for Recording {
    fn group(&mut self, group: &Group<'_>) {
        self.headers = Some((group.resource.bytes().into(), group.scope.bytes().into()));
    }

    fn span(&mut self, _: &Group<'_>, id: &TraceId, span: &[u8]) {
        let Some((resource, scope)) = self.headers.clone() else { return };
        let bytes: Arc<[u8]> = span.into();
        if !self.seen.insert((*id, Arc::clone(&bytes))) {
            self.duplicates += 1;
            return;
        }
        let place = *self.places.entry(*id).or_insert(self.traces.len());
        if place == self.traces.len() {
            self.traces.push(Trace { id: *id, spans: Vec::new() });
        }
        if let Some(trace) = self.traces.get_mut(place) {
            trace.spans.push(Span { resource, scope, bytes });
        }
    }

    fn invalid_span(&mut self, _: &[u8]) {
        self.invalid += 1;
    }
}

// === impl Span ===

impl Span {
    pub(super) fn group(&self) -> Group<'_> {
        Group { resource: Headers::whole(&self.resource), scope: Headers::whole(&self.scope) }
    }
}

/// Requests with their lengths before them, as the file exporter writes protobuf; `None` if the lengths do
/// not come out even.
fn framed(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (frame, tail) = tail.split_at_checked(length)?;
        frames.push(frame);
        rest = tail;
    }
    Some(frames)
}
