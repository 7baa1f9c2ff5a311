//! What time it is: the one place that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A wall clock.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system's.
    System,
    /// Starts at `epoch_ms` when made, and follows Tokio's clock, which a test may pause.
    Tokio {
        /// Milliseconds since 1970 at `started`.
        epoch_ms: u64,
        /// When the clock was made.
        started: Instant,
    },
}

impl Clock {
    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        match self {
            Clock::System => {
                #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
                let now = SystemTime::now();
                now.duration_since(UNIX_EPOCH).map_or(0, millis)
            }
            Clock::Tokio { epoch_ms, started } => epoch_ms + millis(started.elapsed()),
        }
    }
}

/// A duration in whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
