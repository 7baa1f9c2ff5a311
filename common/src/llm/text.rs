//! Cutting and reading texts of unknown origin. Pure.

/// `text`, cut at a character boundary to at most `bytes_max` bytes; what was cut is said at its end.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    // The note itself must fit in: 40 bytes are enough for any count.
    let mut end = bytes_max.saturating_sub(40);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} … [{} more bytes cut]", &text[..end], text.len() - end)
}
