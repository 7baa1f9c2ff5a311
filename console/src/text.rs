//! Numbers, times and foreign text as people read them. Pure.

use console::{measure_text_width, strip_ansi_codes, truncate_str};

/// A time span: `12 ms`, `3.1 s`, `2 min 05 s`, `1 h 02 min`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {:02} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A time span that is still running: whole seconds up to a minute.
pub(crate) fn rough(ms: u64) -> String {
    if ms < 60_000 { format!("{} s", ms / 1_000) } else { span(ms) }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Billionths as a decimal number: `0.0123`.
pub(crate) fn amount(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A moment in UTC: `2026-11-03 04:29:31`.
pub(crate) fn moment(ms: u64) -> String {
    let (seconds, days) = (ms / 1_000 % 86_400, ms / 86_400_000);
    let (year, month, day) = date(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Whether a character could move the cursor, change colours, reorder or otherwise lie to who reads a terminal.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// Text from a model, a tool or a submitter as one line that a terminal can be given: white space folded, no controls.
pub(crate) fn one_line(text: &str) -> String {
    let spaced: String = strip_ansi_codes(text).chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The same for text of several lines: only line ends and tabs stay of the controls.
pub(crate) fn for_terminal(text: &str) -> String {
    strip_ansi_codes(text).chars().filter(|c| *c == '\n' || *c == '\t' || !is_unsafe(*c)).collect()
}

/// At most `width` columns of `text`, cut with an ellipsis.
pub(crate) fn cut(text: &str, width: usize) -> String {
    truncate_str(text, width, "…").into_owned()
}

/// `text` filled with spaces up to `width` columns.
pub(crate) fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(columns(text));
    format!("{text}{}", " ".repeat(missing))
}

/// The columns that `text` takes in a terminal.
pub(crate) fn columns(text: &str) -> usize {
    measure_text_width(text)
}

/// `1 step`, `2 steps`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// Rows under each other, columns two spaces apart, nothing at the end of a line. The last column is as wide as it likes.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let widths: [usize; N] = std::array::from_fn(|i| rows.iter().map(|row| columns(&row[i])).max().unwrap_or(0));
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| pad(cell, width)).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (125_000, "2 min 05 s"),
            (3_720_000, "1 h 02 min"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn lists_and_amounts_read_well() {
        let words = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([0, 1, 2, 3].map(|n| list(&words[..n])), ["", "a", "a and b", "a, b and c"]);
        for (nanos, text) in
            [(0, "0"), (1, "0.000000001"), (12_300_000, "0.0123"), (10_000_000_000, "10"), (1_500_000_000, "1.5")]
        {
            assert_eq!(amount(nanos), text);
        }
    }

    #[test]
    fn moments_are_dates() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_251_199_999, "2024-02-29 23:59:59"),
            (1_793_680_171_000, "2026-11-03 04:29:31"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(moment(ms), text);
        }
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\r\n  c\u{202e}d\u{9b}e"), "ab c d e");
        assert_eq!(for_terminal("a\n\tb\x1b]0;title\x07c\r\x1b[31"), "a\n\tbc");
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
        assert!(columns(&cut("計算する計算する", 7)) <= 7);
        assert_eq!(columns(&pad("計算", 6)), 6);
    }
}
