//! Every decision of a simulated world, drawn from its seed.

use std::time::Duration;

use common::ids::Ids;

/// A seeded source of decisions. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Ids);

impl Dice {
    /// The same decisions for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Ids::seeded(seed))
    }

    /// True with the probability `p`.
    pub(crate) fn chance(&self, p: f64) -> bool {
        p > 0.0 && self.0.fraction() < p
    }

    /// A number in [0, n); 0 for n = 0.
    pub(crate) fn below(&self, n: usize) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a small number")]
        let drawn = (self.0.fraction() * n as f64) as usize;
        drawn.min(n.saturating_sub(1))
    }

    /// A number in [from, to].
    pub(crate) fn between(&self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A time from `from` to `to` milliseconds.
    pub(crate) fn millis(&self, from: usize, to: usize) -> Duration {
        Duration::from_millis(self.between(from, to) as u64)
    }

    /// A new generator that this one determines.
    pub(crate) fn seed(&self) -> u64 {
        (self.below(1 << 30) as u64) << 30 | self.below(1 << 30) as u64
    }
}
