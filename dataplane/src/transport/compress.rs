//! gzip and zstd in both directions: inflating under a cap that is charged as it grows, deflating at level 1.

use std::cell::Cell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use zstd::zstd_safe::{
    self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective,
};

use super::admission::{Overloaded, Permit};

/// What `grpc-accept-encoding` and, over HTTP, `accept-encoding` say.
pub const ACCEPTED: &str = "identity,gzip,zstd";

/// zstd frames may ask for a window of 8 MiB at most: what RFC 8878 recommends every decoder to support,
/// and the most that a decoder of ours keeps per thread.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body may consist of so many gzip members or zstd frames. Senders use one; parallel compressors cut
/// some dozens out of 16 MiB; more than that is an attempt to make us start over for every few bytes.
const MAX_FRAMES: u32 = 64;

/// First guess at the inflated size when the sender has not told it: OTLP shrinks 5 to 15 times.
const USUAL_RATIO: usize = 8;

/// A size told by the sender is believed up to this ratio, so that a lie costs budget but not for nothing.
const BELIEVED_RATIO: usize = 32;

/// Frames whose sizes are added up beforehand: a delivery has two.
const FRAMES_READ: usize = 4;
/// What may come beside the size that was told: the members before the last one of gzip, which for a delivery
/// are its head, and one byte for the turn in which the end of the data is seen.
const BEFORE_BYTES: usize = 4 << 10;

/// Smallest output buffer: one page.
const MIN_OUTPUT_BYTES: usize = 4 << 10;

/// Bytes inflated between two returns of [`Inflation::step`]: some 0.5 ms of work, then others get their
/// turn.
const STEP_BYTES: usize = 512 << 10;

/// Level 1 of either: what a sender inside a cluster can afford.
const ZSTD_LEVEL: i32 = 1;

/// What was compressed last leaves its memory to the next on its thread, up to this: gzip wants a quarter of
/// a message, zstd all of it, and the usual ones have somewhat more than 1 MiB.
const SCRATCH_BYTES: usize = 2 << 20;

/// How a message is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
}

/// Why a compressed body was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// The data does not follow its format.
    #[error("the {} body is not valid: {detail}", encoding.name())]
    Malformed {
        /// The format it claimed.
        encoding: Encoding,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The data inflates to more than is allowed.
    #[error("the body inflates to more than {limit} bytes; send smaller batches")]
    TooLarge {
        /// The most that is allowed.
        limit: usize,
    },
    /// The memory budget is full.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

/// A compression library failed, which it does only for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compressing with {} failed", .0.name())]
pub struct DeflateError(Encoding);

/// One body on its way to be inflated.
pub(super) struct Inflation<'a> {
    encoding: Encoding,
    context: Context,
    rest: &'a [u8],
    out: Vec<u8>,
    limit: usize,
    frames: u32,
}

enum Context {
    Gzip(Box<Decompress>),
    Zstd(DCtx<'static>),
}

/// What one call of a decompressor did.
enum Turn {
    /// It went on and needs more room or more input.
    Went,
    /// It reached the end of a member or frame.
    Ended,
}

thread_local! {
    static ZSTD_INFLATER: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
    static ZSTD_DEFLATER: Cell<Option<CCtx<'static>>> = const { Cell::new(None) };
    static GZIP_DEFLATER: Cell<Option<Compress>> = const { Cell::new(None) };
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

// === impl Encoding ===

impl Encoding {
    /// The name in headers.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }

    /// The encoding of a header value, if we know it.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Encoding::Identity, Encoding::Gzip, Encoding::Zstd]
            .into_iter()
            .find(|encoding| name.eq_ignore_ascii_case(encoding.name().as_bytes()))
    }
}

// === inflating ===

/// Inflates `body` whole, to `limit` bytes at most. `permit` is grown with the output buffer and holds
/// its capacity afterwards, over whatever it held before.
pub fn inflate(
    encoding: Encoding,
    body: &[u8],
    limit: usize,
    permit: &mut Permit,
) -> Result<Vec<u8>, InflateError> {
    let mut inflation = Inflation::new(encoding, body, limit)?;
    while !inflation.step(permit)? {}
    Ok(inflation.finish())
}

impl<'a> Inflation<'a> {
    pub(super) fn new(
        encoding: Encoding,
        body: &'a [u8],
        limit: usize,
    ) -> Result<Self, InflateError> {
        let context = match encoding {
            Encoding::Zstd => Context::Zstd(zstd_inflater()?),
            Encoding::Gzip | Encoding::Identity => {
                Context::Gzip(Box::new(Decompress::new_gzip(15)))
            }
        };
        Ok(Self { encoding, context, rest: body, out: Vec::new(), limit, frames: 0 })
    }

    /// Goes on for about [`STEP_BYTES`] of output and says whether the body has ended.
    pub(super) fn step(&mut self, permit: &mut Permit) -> Result<bool, InflateError> {
        let target = self.out.len() + STEP_BYTES;
        while self.out.len() < target {
            self.make_room(permit)?;
            let (before_in, before_out) = (self.rest.len(), self.out.len());
            let turn = self.turn()?;
            if self.out.len() > self.limit {
                return Err(InflateError::TooLarge { limit: self.limit });
            }
            match turn {
                Turn::Ended if self.rest.is_empty() => return Ok(true),
                Turn::Ended => self.start_over()?,
                Turn::Went => {
                    let stuck = self.rest.len() == before_in && self.out.len() == before_out;
                    let has_room = self.out.len() < self.out.capacity();
                    if has_room && (self.rest.is_empty() || stuck) {
                        return Err(self.malformed("it ends too early"));
                    }
                }
            }
        }
        Ok(false)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        if let Context::Zstd(context) = self.context {
            ZSTD_INFLATER.set(Some(context));
        }
        self.out
    }

    /// Doubles a full output buffer, charging it first. One byte over the limit is allowed for, to tell a
    /// body of exactly the limit from a longer one.
    fn make_room(&mut self, permit: &mut Permit) -> Result<(), InflateError> {
        let held = self.out.capacity();
        if self.out.len() < held {
            return Ok(());
        }
        let wanted = if held == 0 { self.guess() } else { held * 2 };
        let wanted = wanted.min(self.limit + 1);
        permit.grow((wanted - held) as u64)?;
        self.out.reserve_exact(wanted - self.out.len());
        Ok(())
    }

    /// The inflated size as the sender tells it, within reason, or as experience does.
    fn guess(&self) -> usize {
        let told = match self.encoding {
            Encoding::Zstd => self.told_by_frames(),
            // The last four bytes of a gzip member are its size modulo 2^32.
            _ => self.rest.last_chunk::<4>().map(|size| u64::from(u32::from_le_bytes(*size))),
        };
        let told = told.and_then(|size| usize::try_from(size).ok());
        let believed = self.rest.len().saturating_mul(BELIEVED_RATIO);
        let usual = self.rest.len().saturating_mul(USUAL_RATIO);
        let guess = told.map_or(usual, |size| size.saturating_add(BEFORE_BYTES).min(believed));
        guess.max(MIN_OUTPUT_BYTES)
    }

    /// What the first frames tell of their sizes, together: a delivery is a small frame with a large one
    /// behind it.
    fn told_by_frames(&self) -> Option<u64> {
        let (mut rest, mut told) = (self.rest, None);
        for _ in 0..FRAMES_READ {
            let Some(size) = zstd_safe::get_frame_content_size(rest).ok().flatten() else { break };
            told = Some(told.unwrap_or(0_u64).saturating_add(size));
            let read = zstd_safe::find_frame_compressed_size(rest).ok();
            rest = read.and_then(|read| rest.get(read..)).unwrap_or_default();
        }
        told
    }

    fn turn(&mut self) -> Result<Turn, InflateError> {
        match &mut self.context {
            Context::Gzip(context) => {
                let before = context.total_in();
                let result =
                    context.decompress_vec(self.rest, &mut self.out, FlushDecompress::None);
                let used = (context.total_in() - before) as usize;
                self.rest = self.rest.get(used..).unwrap_or_default();
                match result {
                    Ok(flate2::Status::StreamEnd) => Ok(Turn::Ended),
                    Ok(_) => Ok(Turn::Went),
                    Err(_) => Err(self.malformed("the data or its checksum is broken")),
                }
            }
            Context::Zstd(context) => {
                let at = self.out.len();
                let mut input = InBuffer::around(self.rest);
                let mut output = OutBuffer::around_pos(&mut self.out, at);
                let result = context.decompress_stream(&mut output, &mut input);
                self.rest = self.rest.get(input.pos()..).unwrap_or_default();
                match result {
                    Ok(0) => Ok(Turn::Ended),
                    Ok(_) => Ok(Turn::Went),
                    Err(_) => Err(self.malformed("the data is broken or its window exceeds 8 MiB")),
                }
            }
        }
    }

    /// Another member or frame follows; zstd goes on by itself.
    fn start_over(&mut self) -> Result<(), InflateError> {
        self.frames += 1;
        if self.frames >= MAX_FRAMES {
            return Err(self.malformed("it consists of too many frames"));
        }
        if let Context::Gzip(context) = &mut self.context {
            **context = Decompress::new_gzip(15);
        }
        Ok(())
    }

    fn malformed(&self, detail: &'static str) -> InflateError {
        InflateError::Malformed { encoding: self.encoding, detail }
    }
}

fn zstd_inflater() -> Result<DCtx<'static>, InflateError> {
    let failed = InflateError::Malformed { encoding: Encoding::Zstd, detail: "no decoder" };
    let kept = ZSTD_INFLATER.take();
    let mut context = kept.or_else(DCtx::try_create).ok_or(failed.clone())?;
    context.reset(ResetDirective::SessionOnly).map_err(|_| failed.clone())?;
    context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(|_| failed)?;
    Ok(context)
}

// === deflating ===

/// `message` in `encoding` behind so many bytes of zeroes, in memory of just that size: compressors want room
/// for the worst case, and a queue should not hold that.
pub fn deflated(
    encoding: Encoding,
    zeroes: usize,
    message: &[u8],
) -> Result<Vec<u8>, DeflateError> {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    scratch.resize(zeroes, 0);
    let done = deflate(encoding, message, &mut scratch);
    let out = done.map(|()| scratch.to_vec());
    if scratch.capacity() <= SCRATCH_BYTES {
        SCRATCH.set(scratch);
    }
    out
}

/// Appends `message` to `out` in `encoding`.
pub fn deflate(encoding: Encoding, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeflateError> {
    match encoding {
        Encoding::Identity => {
            out.extend_from_slice(message);
            Ok(())
        }
        Encoding::Gzip => gzip(message, out).ok_or(DeflateError(encoding)),
        Encoding::Zstd => zstd(message, out).ok_or(DeflateError(encoding)),
    }
}

fn gzip(message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let kept = GZIP_DEFLATER.take();
    let mut context = kept.unwrap_or_else(|| Compress::new_gzip(Compression::fast(), 15));
    context.reset();
    let mut rest = message;
    // OTLP shrinks to a quarter or better; what does not is caught by growing.
    out.reserve(message.len() / 4 + 64);
    loop {
        let before = context.total_in();
        let status = context.compress_vec(rest, out, FlushCompress::Finish).ok()?;
        rest = rest.get((context.total_in() - before) as usize..)?;
        match status {
            flate2::Status::StreamEnd => break,
            _ => out.reserve(rest.len() / 2 + 256),
        }
    }
    GZIP_DEFLATER.set(Some(context));
    Some(())
}

fn zstd(message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let kept = ZSTD_DEFLATER.take();
    let mut context = kept.or_else(CCtx::try_create)?;
    context.reset(ResetDirective::SessionOnly).ok()?;
    context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).ok()?;
    // Room for the worst case lets zstd work in one pass and never come back.
    out.reserve(zstd_safe::compress_bound(message.len()));
    let at = out.len();
    let mut output = OutBuffer::around_pos(out, at);
    context.set_pledged_src_size(Some(message.len() as u64)).ok()?;
    let mut input = InBuffer::around(message);
    let left = context
        .compress_stream2(
            &mut output,
            &mut input,
            zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_end,
        )
        .ok()?;
    ZSTD_DEFLATER.set(Some(context));
    (left == 0).then_some(())
}
