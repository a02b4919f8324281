//! What is true of trace number `index`: ID, spans, error, duration, and what the policies must do.
//!
//! Everything follows from the index and the seed by arithmetic, and the index follows from the trace ID. So
//! generator and sink agree on every span without exchanging or storing anything.

/// Spans of a trace, one a service.
pub const SPANS: usize = 8;

/// A trace ID as it stands on the wire.
pub type TraceId = [u8; 16];

/// When the first trace starts: 2026-01-01T00:00:00Z. Fixed, so that a sink can rebuild every byte.
const EPOCH_NS: u64 = 1_767_225_600_000_000_000;

/// Distance between the starts of two traces.
const SPACING_NS: u64 = 8_000;

/// One trace in this many holds one ERROR span.
const ERROR_EVERY: u64 = 100;

/// Log-normal durations: the median, and a sigma of 1, so that P(> 500 ms) = P(Z > ln 10) = 1.07 %.
const MEDIAN_NS: f64 = 50e6;

/// No trace is longer than a minute or shorter than a microsecond.
const DURATION_NS: (f64, f64) = (1e3, 60e9);

/// Keeps the streams of pseudo-random facts about one trace apart from each other.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Stream {
    IdHigh = 0x9e37_79b9_7f4a_7c15,
    Spans = 0xd1b5_4a32_d192_ed03,
    Error = 0x8cb9_2ba7_2f3d_8dd7,
    Duration = 0xaef1_7502_108e_f2d9,
}

/// All traces of one seed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct World {
    seed: u64,
    errors: Errors,
}

/// Which traces hold an ERROR span, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Errors {
    /// One in [`ERROR_EVERY`], in any span.
    Rare,
    /// Every other one, in its first span or in its last.
    AtEnds,
}

/// One trace of a [`World`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trace {
    /// Its number.
    pub index: u64,
    /// Its ID, a bijection of the number.
    pub id: TraceId,
    /// The span that ends in ERROR, if one does.
    pub error_span: Option<usize>,
    /// When its root span starts.
    pub start_ns: u64,
    /// How long its root span lasts; every other span lies within.
    pub duration_ns: u64,
}

// === impl World ===

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, errors: Errors::Rare }
    }

    /// A world in which a decision on a part of a trace shows. Half of the traces hold an ERROR: in the last
    /// span, so that whoever decides without it drops the trace, or in the first, so that whoever decides
    /// without the others keeps a torso.
    pub fn of_ends(seed: u64) -> Self {
        Self { seed, errors: Errors::AtEnds }
    }

    /// Everything about trace number `index`.
    pub fn trace(&self, index: u64) -> Trace {
        let low = mix(index.wrapping_add(self.seed));
        let error = self.fact(index, Stream::Error);
        Trace {
            index,
            id: trace_id(low),
            error_span: match self.errors {
                Errors::Rare => {
                    error.is_multiple_of(ERROR_EVERY).then_some((error >> 32) as usize % SPANS)
                }
                Errors::AtEnds => {
                    let ends = [0, SPANS - 1];
                    error.is_multiple_of(2).then_some(ends[(error >> 32) as usize % 2])
                }
            },
            start_ns: EPOCH_NS + index * SPACING_NS,
            duration_ns: log_normal_ns(self.fact(index, Stream::Duration)),
        }
    }

    /// The number of the trace with this ID, if it is of this world.
    pub fn index_of(&self, id: &TraceId) -> Option<u64> {
        let low = u64::from_be_bytes(std::array::from_fn(|i| id[8 + i]));
        (trace_id(low) == *id).then(|| unmix(low).wrapping_sub(self.seed))
    }

    /// The ID of span `number` of a trace.
    pub fn span_id(&self, index: u64, number: usize) -> [u8; 8] {
        let position = (index * SPANS as u64 + number as u64).wrapping_add(self.seed);
        mix(position ^ Stream::Spans as u64).to_be_bytes()
    }

    /// Trace index and number of the span with this ID.
    pub fn span_of(&self, id: &[u8; 8]) -> (u64, usize) {
        let position = unmix(u64::from_be_bytes(*id)) ^ Stream::Spans as u64;
        let position = position.wrapping_sub(self.seed);
        (position / SPANS as u64, (position % SPANS as u64) as usize)
    }

    fn fact(&self, index: u64, stream: Stream) -> u64 {
        mix(mix(index.wrapping_add(self.seed)) ^ stream as u64)
    }
}

fn trace_id(low: u64) -> TraceId {
    let high = mix(low ^ Stream::IdHigh as u64);
    std::array::from_fn(|i| match i {
        0..8 => high.to_be_bytes()[i],
        _ => low.to_be_bytes()[i - 8],
    })
}

// === impl Trace ===

impl Trace {
    /// Start and end of span `number`: the root covers all others, which overlap as in a real fan-out.
    pub fn times_ns(&self, number: usize) -> (u64, u64) {
        if number == 0 {
            return (self.start_ns, self.start_ns + self.duration_ns);
        }
        let sixteenth = self.duration_ns / 16;
        let start_ns = self.start_ns + sixteenth * number as u64;
        (start_ns, start_ns + sixteenth * 8)
    }

    /// Whether a [`Policies`] keeps it.
    pub fn kept_by(&self, policies: &Policies) -> bool {
        let slow = |limit_ms| self.duration_ns / 1_000_000 > limit_ms;
        policies.everything
            || (policies.errors && self.error_span.is_some())
            || policies.slower_than_ms.is_some_and(slow)
            || policies.percent.is_some_and(|percent| fraction_keeps(percent, &self.id))
    }
}

/// The parent of span `number`: a binary tree over the services.
pub fn parent_of(number: usize) -> Option<usize> {
    (number > 0).then(|| (number - 1) / 2)
}

/// Sampling policies, as far as the load can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policies {
    /// Every trace is kept.
    pub everything: bool,
    /// Traces with an ERROR span are kept.
    pub errors: bool,
    /// Traces of more whole milliseconds than this are kept.
    pub slower_than_ms: Option<u64>,
    /// This percentage of trace IDs is kept.
    pub percent: Option<f64>,
}

impl Policies {
    /// No decision is made: an agent, a relay.
    pub const EVERYTHING: Self =
        Self { everything: true, errors: false, slower_than_ms: None, percent: None };

    /// Traces with an ERROR, nothing else: what gateways run while they come and go.
    pub const ERRORS: Self =
        Self { everything: false, errors: true, slower_than_ms: None, percent: None };

    /// What the gateways of the comparison run.
    pub const THREE: Self =
        Self { everything: false, errors: true, slower_than_ms: Some(500), percent: Some(10.0) };
}

/// The probabilistic verdict that both sides promise: FNV-1a 64 of salt and trace ID, at most a threshold.
fn fraction_keeps(percent: f64, id: &TraceId) -> bool {
    fnv1a(b"default-hash-seed", id) <= threshold(percent)
}

fn fnv1a(salt: &[u8], id: &TraceId) -> u64 {
    salt.iter().chain(id).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// (2^64 - 1) * percent / 100 with a mantissa of 64 bits, cut to an integer: what Go's `big.Float` gives.
fn threshold(percent: f64) -> u64 {
    let fraction = percent / 100.0;
    if fraction >= 1.0 {
        return u64::MAX;
    }
    if fraction <= 0.0 {
        return 0;
    }
    let bits = fraction.to_bits();
    let mantissa = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
    // A normal f64 below 1 is mantissa * 2^-shift with shift >= 53.
    let shift = (1075 - (bits >> 52)) as u32;
    let product = mantissa * u128::from(u64::MAX);
    let shifted = product.checked_shr(shift).unwrap_or(0);
    // With all 64 bits of the mantissa before the point, rounding happens there; otherwise the cut decides.
    let round_up = shifted >> 63 == 1 && product >> (shift - 1) & 1 == 1;
    u64::try_from(shifted + u128::from(round_up)).unwrap_or(u64::MAX)
}

/// A log-normal duration from 64 random bits, by Box and Muller.
fn log_normal_ns(random: u64) -> u64 {
    let unit = |bits: u64| (bits as f64 + 0.5) / 4_294_967_296.0;
    let radius = (-2.0 * unit(random >> 32).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * unit(random & 0xffff_ffff)).cos();
    (MEDIAN_NS * normal.exp()).clamp(DURATION_NS.0, DURATION_NS.1) as u64
}

/// A bijection of 64-bit numbers that looks random (the finalizer of splitmix64).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The inverse of [`mix`]: the factors are the modular inverses of those there.
fn unmix(mut z: u64) -> u64 {
    z = (z ^ (z >> 31) ^ (z >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    z ^ (z >> 30) ^ (z >> 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_index() {
        let world = World::new(7);
        for index in (0..1000).chain([u64::from(u32::MAX), 1 << 40]) {
            assert_eq!(world.index_of(&world.trace(index).id), Some(index));
        }
        assert_eq!(world.index_of(&[3; 16]), None);
        assert_ne!(World::new(8).index_of(&world.trace(5).id), Some(5));
    }

    #[test]
    fn thresholds_and_hashes_match_the_collectors() {
        let cases = [
            (0.1, 18_446_744_073_709_551),
            (1.0, 184_467_440_737_095_519),
            (10.0, 1_844_674_407_370_955_263),
            (33.3, 6_142_765_776_545_279_999),
            (50.0, 9_223_372_036_854_775_807),
            (99.9, 18_428_297_329_635_844_095),
            (100.0, u64::MAX),
        ];
        for (percent, expected) in cases {
            assert_eq!(threshold(percent), expected, "{percent} %");
        }
        let id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
        assert_eq!(fnv1a(b"default-hash-seed", &id), 11_908_981_664_384_643_253);
    }

    #[test]
    fn the_share_of_every_fact_is_as_promised() {
        let world = World::new(1);
        let traces: Vec<Trace> = (0..100_000).map(|index| world.trace(index)).collect();
        let share = |policies: Policies| {
            let kept = traces.iter().filter(|trace| trace.kept_by(&policies)).count();
            kept as f64 / traces.len() as f64
        };
        let none = Policies { everything: false, ..Policies::EVERYTHING };
        let errors = share(Policies { errors: true, ..none });
        assert!((0.009..0.011).contains(&errors), "{errors}");
        let slow = share(Policies { slower_than_ms: Some(500), ..none });
        assert!((0.0095..0.0120).contains(&slow), "{slow}");
        let tenth = share(Policies { percent: Some(10.0), ..none });
        assert!((0.097..0.103).contains(&tenth), "{tenth}");
        let three = share(Policies::THREE);
        assert!((0.115..0.122).contains(&three), "{three}");
    }

    #[test]
    fn in_a_world_of_ends_half_fail_first_or_last() {
        let world = World::of_ends(2);
        let spans: Vec<_> = (0..10_000).map(|index| world.trace(index).error_span).collect();
        let share = |wanted| spans.iter().filter(|span| **span == wanted).count();
        let [none, first, last] = [share(None), share(Some(0)), share(Some(SPANS - 1))];
        assert_eq!(none + first + last, spans.len());
        assert!((4_800..5_200).contains(&none), "{none}");
        assert!((2_300..2_700).contains(&first), "{first}");
    }

    #[test]
    fn the_root_span_covers_all_others() {
        let world = World::new(3);
        for index in 0..1000 {
            let trace = world.trace(index);
            let (start, end) = trace.times_ns(0);
            for number in 1..SPANS {
                let (child_start, child_end) = trace.times_ns(number);
                assert!(start <= child_start && child_start <= child_end && child_end <= end);
            }
        }
    }
}
