//! Durations in buckets: explicit ones, or exponential ones whose base follows from the range of the values,
//! as OpenTelemetry defines them.

use super::plan::{Buckets, Plan};

/// The finest scale: 2^20 buckets between a number and its double. The base is 2^(2^-scale).
const SCALE_MAX: i32 = 20;

/// The durations of a series.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Histogram {
    /// Events have none.
    #[default]
    None,
    /// Up to each bound of the plan, and above.
    Explicit {
        /// Spans of each bucket.
        counts: Box<[u64]>,
        /// The sum of the durations.
        sum: f64,
    },
    /// See [`Exponential`].
    Exponential(Box<Exponential>),
}

/// Durations in buckets of growing width: bucket n is above base^n, up to base^(n+1).
#[derive(Debug, Clone, PartialEq)]
pub struct Exponential {
    /// How fine the buckets are.
    scale: i32,
    /// The number of the first bucket.
    offset: i32,
    /// Spans of each bucket.
    counts: Vec<u64>,
    /// Spans that took no time.
    pub zeros: u64,
    /// All spans.
    pub count: u64,
    /// The sum of the durations.
    pub sum: f64,
    /// The shortest duration; 0 without spans.
    pub min: f64,
    /// The longest one.
    pub max: f64,
    size: u32,
}

// === impl Histogram ===

impl Histogram {
    pub(super) fn new(plan: &Plan) -> Self {
        match plan.buckets() {
            Buckets::Explicit(bounds) => {
                Self::Explicit { counts: vec![0; bounds.len() + 1].into(), sum: 0.0 }
            }
            Buckets::Exponential { max_size } => {
                Self::Exponential(Box::new(Exponential::new(*max_size)))
            }
        }
    }

    /// Bytes that one takes beside itself, at most.
    pub fn bytes_max(buckets: &Buckets) -> u64 {
        match buckets {
            Buckets::Explicit(bounds) => 8 * (bounds.len() as u64 + 1),
            // A list that grows may be twice what is in it.
            Buckets::Exponential { max_size } => {
                size_of::<Exponential>() as u64 + 16 * u64::from(*max_size)
            }
        }
    }

    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "as the connector: sums are floats")]
    pub(super) fn record(&mut self, value: f64, times: u64, plan: &Plan) {
        match (self, plan.buckets()) {
            (Self::Explicit { counts, sum }, Buckets::Explicit(bounds)) => {
                *sum += value * times as f64;
                let bucket = bounds.partition_point(|bound| *bound < value);
                if let Some(count) = counts.get_mut(bucket) {
                    *count += times;
                }
            }
            (Self::Exponential(histogram), _) => histogram.record(value, times),
            _ => {}
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Explicit { counts, sum }, Self::Explicit { counts: more, sum: added }) => {
                *sum += added;
                counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            }
            (Self::Exponential(histogram), Self::Exponential(other)) => histogram.merge(other),
            _ => {}
        }
    }
}

// === impl Exponential ===

impl Exponential {
    pub(super) fn new(size: u32) -> Self {
        Self {
            scale: SCALE_MAX,
            offset: 0,
            counts: Vec::new(),
            zeros: 0,
            count: 0,
            sum: 0.0,
            min: 0.0,
            max: 0.0,
            // Two is the least by which every pair of numbers has a scale.
            size: size.max(2),
        }
    }

    /// How fine the buckets are; 0 while nothing took any time.
    pub fn scale(&self) -> i32 {
        if self.counts.is_empty() { 0 } else { self.scale }
    }

    /// The number of the first bucket, and the counts from there.
    pub fn buckets(&self) -> (i32, &[u64]) {
        (self.offset, &self.counts)
    }

    #[expect(clippy::cast_precision_loss, reason = "as the connector: sums are floats")]
    pub(super) fn record(&mut self, value: f64, times: u64) {
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        } else {
            (self.min, self.max) = (self.min.min(value), self.max.max(value));
        }
        self.count += times;
        if value == 0.0 {
            self.zeros += times;
            return;
        }
        self.sum += value * times as f64;
        let bucket = bucket_of(value, self.scale);
        let change = self.make_room(bucket, bucket);
        let bucket = if change > 0 { bucket_of(value, self.scale) } else { bucket };
        self.add(bucket, times);
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = Self { size: self.size, ..other.clone() };
            return;
        }
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        self.count += other.count;
        self.zeros += other.zeros;
        self.sum += other.sum;
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            (self.scale, self.offset) = (other.scale, other.offset);
            self.counts.clone_from(&other.counts);
            return;
        }
        self.coarsen((self.scale - other.scale).max(0));
        let last = other.offset + other.counts.len() as i32 - 1;
        let shift = other.scale - self.scale;
        self.make_room(other.offset >> shift, last >> shift);
        let shift = other.scale - self.scale;
        for (bucket, count) in (other.offset..).zip(&other.counts) {
            self.add(bucket >> shift, *count);
        }
    }

    /// Makes buckets coarser until these fit in, too; returns by how much.
    fn make_room(&mut self, low: i32, high: i32) -> i32 {
        if self.counts.is_empty() {
            self.offset = low;
        }
        let end = self.offset + (self.counts.len() as i32 - 1).max(0);
        let (mut low, mut high) = (low.min(self.offset), high.max(end));
        let mut change = 0;
        while i64::from(high) - i64::from(low) >= i64::from(self.size) {
            (low, high) = (low >> 1, high >> 1);
            change += 1;
        }
        self.coarsen(change);
        change
    }

    fn coarsen(&mut self, by: i32) {
        if by == 0 {
            return;
        }
        self.scale -= by;
        let first = self.offset >> by;
        let mut kept = 0;
        for place in 0..self.counts.len() {
            let bucket = (self.offset + place as i32) >> by;
            let target = (bucket - first) as usize;
            let count = self.counts[place];
            match target < kept {
                true => self.counts[target] += count,
                false => {
                    self.counts[target] = count;
                    kept = target + 1;
                }
            }
        }
        self.counts.truncate(kept);
        self.offset = first;
    }

    fn add(&mut self, bucket: i32, times: u64) {
        if self.counts.is_empty() {
            self.offset = bucket;
        }
        if bucket < self.offset {
            let missing = (self.offset - bucket) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.offset = bucket;
        }
        let place = (bucket - self.offset) as usize;
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += times;
    }
}

/// The bucket of a number above zero.
fn bucket_of(value: f64, scale: i32) -> i32 {
    const SIGNIFICAND: u64 = (1 << 52) - 1;
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1023;
    // Powers of two are the upper bounds of their buckets.
    let exact = bits & SIGNIFICAND == 0;
    if scale <= 0 {
        return (exponent - i32::from(exact)) >> -scale;
    }
    if exact {
        return (exponent << scale) - 1;
    }
    let factor = std::f64::consts::LOG2_E * f64::from(1_u32 << scale);
    (value.ln() * factor).floor() as i32
}
