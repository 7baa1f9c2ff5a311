//! Chance that can be replayed: the same throws for the same seed, in every version of this program.

use std::time::Duration;

/// A generator (SplitMix64). Not secret, not shared: everybody who throws has one of their own.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// The throws of `seed` for `whom`: streams of different names have nothing to do with each other.
    pub(super) fn new(seed: u64, whom: &str) -> Self {
        Self(seed ^ hash(whom))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high - low) + 1;
        low + u32::try_from(self.next() % span).unwrap_or(0)
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub(super) fn percent(&mut self, percent: u32) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of them.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.between(0, u32::try_from(of.len()).unwrap_or(1) - 1) as usize]
    }

    /// A time from `low` to `high` milliseconds.
    pub(super) fn millis(&mut self, low: u32, high: u32) -> Duration {
        Duration::from_millis(self.between(low, high).into())
    }

    /// The same cards in another order.
    pub(super) fn shuffled<T: Copy>(&mut self, cards: &[T]) -> Vec<T> {
        let mut cards = cards.to_vec();
        for at in (1..cards.len()).rev() {
            let other = self.between(0, u32::try_from(at).unwrap_or(0)) as usize;
            cards.swap(at, other);
        }
        cards
    }
}

/// FNV-1a: the same on every machine, so that two sides that never meet can agree on it.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
