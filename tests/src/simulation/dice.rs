//! Random numbers that are the same on every machine: SplitMix64.

/// A stream of random numbers from one seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed. Seeds that follow each other give streams that do not.
    pub fn new(seed: u64) -> Self {
        let mut seed = Self(seed);
        seed.fork().fork()
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low + 1)
    }

    /// A place in a list of `len`.
    pub fn below(&mut self, len: usize) -> usize {
        (self.roll() % len as u64) as usize
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }

    /// Another stream, so that what one part rolls does not shift what another gets.
    pub fn fork(&mut self) -> Self {
        Self(self.roll())
    }
}
