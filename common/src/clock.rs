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

/// What another clock said, compared with this system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// How far the other clock is ahead, in milliseconds; negative: behind.
    pub ahead_ms: i64,
    /// How wrong that can be, in milliseconds: the way to and fro, and what the other clock does not tell.
    pub error_ms: u64,
}

impl Reading {
    /// The other clock said a time between `said_ms` and `said_ms + unsaid_ms`, in answer to what was sent at `sent_ms` and answered at
    /// `got_ms`.
    pub fn new(said_ms: u64, unsaid_ms: u64, sent_ms: u64, got_ms: u64) -> Self {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let way_ms = got_ms.saturating_sub(sent_ms);
        let ahead_ms = signed(said_ms.saturating_add(unsaid_ms / 2)).saturating_sub(signed(sent_ms.saturating_add(way_ms / 2)));
        Self { ahead_ms, error_ms: (way_ms + unsaid_ms).div_ceil(2) }
    }

    /// The same of a `Date` header, which tells whole seconds, and may be a second old: servers keep it.
    pub fn of_http_date(date: &str, sent_ms: u64, got_ms: u64) -> Option<Self> {
        Some(Self::new(http_date(date.trim())?.saturating_mul(1000), 2000, sent_ms, got_ms))
    }

    /// How far the clocks differ at the least, in milliseconds.
    pub fn differs_ms(&self) -> u64 {
        self.ahead_ms.unsigned_abs().saturating_sub(self.error_ms)
    }
}

/// Seconds since 1970 of an HTTP date (RFC 9110, IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`).
pub fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let parts: Vec<&str> = date.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = parts.as_slice() else { return None };
    let number = |text: &str, max: u64| text.parse::<u64>().ok().filter(|n| *n <= max);
    let (day, year) = (number(day, 31).filter(|day| *day > 0)?, number(year, 9999).filter(|year| *year >= 1970)?);
    let month = u64::try_from(MONTHS.iter().position(|name| name == month)?).ok()?;
    let (hour, minute, second) = (number(hour, 23)?, number(minute, 59)?, number(second, 60)?);
    // Days since 1970 in the calendar whose year starts in March, so that the leap day comes last.
    let (shifted_year, shifted_month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let leaps = shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    let days = shifted_year * 365 + leaps + (shifted_month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_as_well_as_it_can_be() {
        let reading = |ahead_ms, error_ms| Reading { ahead_ms, error_ms };
        assert_eq!(Reading::new(5_000, 0, 5_000, 5_000), reading(0, 0));
        assert_eq!(Reading::new(8_010, 0, 5_000, 5_021), reading(3_000, 11));
        assert_eq!(Reading::new(1_000, 0, 5_000, 5_000).differs_ms(), 4_000);
        assert_eq!(Reading::new(5_900, 0, 5_000, 7_000).differs_ms(), 0, "within the way to and fro");
        let date = "Thu, 01 Jan 1970 00:01:00 GMT";
        assert_eq!(Reading::of_http_date(date, 60_400, 60_400), Some(reading(600, 1000)));
        assert_eq!(Reading::of_http_date("yesterday", 0, 0), None);
    }

    #[test]
    fn http_dates_are_read() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
        ] {
            assert_eq!(http_date(text), Some(seconds), "{text}");
        }
        for bad in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1 1:1:1 GMT",
        ] {
            assert_eq!(http_date(bad), None, "{bad:?}");
        }
    }
}
