//! Whether the clocks agree. Pure.

use common::clock::{Reading, millis};
use common::limits::CLOCK_SKEW_MAX;

use super::check::Check;
use crate::text::span;

const NAME: &str = "clock";

/// This machine's clock against those of others, by name.
pub(super) fn check(readings: &[(String, Reading)]) -> Check {
    if readings.is_empty() {
        return Check::skipped(NAME, "no other clock could be read");
    }
    let lines: Vec<String> = readings.iter().map(|(whose, reading)| line(whose, reading)).collect();
    let far = readings.iter().any(|(_, reading)| reading.differs_ms() > millis(CLOCK_SKEW_MAX));
    if !far {
        return Check::ok(NAME, lines.join("\n"));
    }
    let why = "leases and deadlines of steps go by the time of Redis, so that nothing is lost; \
               ages, durations and waiting times that are shown are wrong by as much, and the answer may come late for a deadline";
    Check::warning(NAME, format!("{}\n{why}", lines.join("\n")), "sudo timedatectl set-ntp true")
}

fn line(whose: &str, reading: &Reading) -> String {
    let error = span(reading.error_ms);
    match reading.ahead_ms {
        ahead if ahead.unsigned_abs() <= reading.error_ms => format!("{whose} has the same time (± {error})"),
        ahead if ahead > 0 => format!("{whose} is {} ahead (± {error})", span(ahead.unsigned_abs())),
        behind => format!("{whose} is {} behind (± {error})", span(behind.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Status;
    use super::*;

    #[test]
    fn clocks_that_differ_are_worth_a_warning() {
        let reading = |ahead_ms, error_ms| ("Redis".to_owned(), Reading { ahead_ms, error_ms });
        let said = |readings: &[(String, Reading)]| {
            let check = check(readings);
            (check.status, check.found.lines().next().unwrap_or_default().to_owned())
        };
        assert_eq!(said(&[]), (Status::Skipped, "no other clock could be read".into()));
        assert_eq!(said(&[reading(2, 3)]), (Status::Ok, "Redis has the same time (± 3 ms)".into()));
        assert_eq!(said(&[reading(2_400, 500)]), (Status::Ok, "Redis is 2.4 s ahead (± 500 ms)".into()));
        assert_eq!(said(&[reading(2_600, 500)]), (Status::Warning, "Redis is 2.6 s ahead (± 500 ms)".into()));
        assert_eq!(said(&[reading(-90_000, 1)]), (Status::Warning, "Redis is 1 min 30 s behind (± 1 ms)".into()));
        assert_eq!(said(&[reading(0, 0), reading(-90_000, 1)]).0, Status::Warning);
    }
}
