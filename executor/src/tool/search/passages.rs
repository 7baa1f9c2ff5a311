//! From a document to passages: parts of a section that are short enough to be read at once. Pure.

use common::limits::PASSAGE_CHARS_MAX;

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The line it starts at, from 1.
    pub(super) line: usize,
    /// Its text, at most [`PASSAGE_CHARS_MAX`] characters.
    pub(super) text: String,
    /// The heading it stands under, if any; it helps to find the part.
    pub(super) heading: String,
}

/// Splits a document: at every Markdown heading, and within a section between paragraphs, else between lines, else between
/// characters. Short paragraphs of a section stay together.
pub(super) fn split(text: &str) -> Vec<Part> {
    let mut splitter = Splitter::default();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        let (line, number) = (line.trim_end(), at + 1);
        let start = line.trim_start();
        if start.starts_with("```") || start.starts_with("~~~") {
            fenced = !fenced;
        }
        if !fenced && is_heading(line) {
            splitter.end_section();
            splitter.heading = line.trim_start_matches('#').trim().to_owned();
        }
        if start.is_empty() && !fenced {
            splitter.end_paragraph();
        } else {
            splitter.add_line(line, number);
        }
    }
    splitter.end_section();
    splitter.parts
}

/// `# Heading` to `###### Heading`.
fn is_heading(line: &str) -> bool {
    let rest = line.trim_start_matches('#');
    (1..=6).contains(&(line.len() - rest.len())) && rest.starts_with(' ')
}

#[derive(Default)]
struct Splitter {
    parts: Vec<Part>,
    heading: String,
    /// Whole paragraphs of the section that are not yet a part, and the line they start at.
    pending: Block,
    /// The paragraph that is being read.
    paragraph: Block,
}

/// Text that grows line by line.
#[derive(Default)]
struct Block {
    line: usize,
    text: String,
    chars: usize,
}

impl Block {
    fn add(&mut self, text: &str, chars: usize, line: usize, separator: &str) {
        if self.text.is_empty() {
            self.line = line;
        } else {
            self.text.push_str(separator);
            self.chars += separator.len();
        }
        self.text.push_str(text);
        self.chars += chars;
    }
}

impl Splitter {
    fn add_line(&mut self, line: &str, number: usize) {
        let chars = line.chars().count();
        if self.paragraph.chars + chars + 1 > PASSAGE_CHARS_MAX {
            self.end_paragraph();
        }
        if chars <= PASSAGE_CHARS_MAX {
            self.paragraph.add(line, chars, number, "\n");
            return;
        }
        self.end_section();
        for text in pieces(line) {
            self.parts.push(Part { line: number, text, heading: self.heading.clone() });
        }
    }

    fn end_paragraph(&mut self) {
        let paragraph = std::mem::take(&mut self.paragraph);
        if paragraph.text.is_empty() {
            return;
        }
        if self.pending.chars + paragraph.chars + 2 > PASSAGE_CHARS_MAX {
            self.end_part();
        }
        self.pending.add(&paragraph.text, paragraph.chars, paragraph.line, "\n\n");
    }

    fn end_part(&mut self) {
        let Block { line, text, .. } = std::mem::take(&mut self.pending);
        if !text.trim().is_empty() {
            self.parts.push(Part { line, text, heading: self.heading.clone() });
        }
    }

    fn end_section(&mut self) {
        self.end_paragraph();
        self.end_part();
    }
}

/// A line that is too long, in pieces that end at a space where there is one.
fn pieces(line: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = rest.char_indices().nth(PASSAGE_CHARS_MAX).map_or(rest.len(), |(end, _)| end);
        let end = if end == rest.len() { end } else { rest[..end].rfind(' ').filter(|space| *space > 0).unwrap_or(end) };
        pieces.push(rest[..end].trim_end().to_owned());
        rest = rest[end..].trim_start();
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects `text` to split into parts that start at these lines with these texts.
    fn check(text: &str, expected: &[(usize, &str)]) {
        let parts = split(text);
        let found: Vec<(usize, &str)> = parts.iter().map(|part| (part.line, part.text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn documents_split_at_headings_and_paragraphs() {
        check("", &[]);
        check("\n \n", &[]);
        check("one\ntwo\r\n\n\nthree", &[(1, "one\ntwo\n\nthree")]);
        check(
            "intro\n# A\ntext\n\n## B\n#hash\n####### seven",
            &[(1, "intro"), (2, "# A\ntext"), (5, "## B\n#hash\n####### seven")],
        );
        check("```\n# not a heading\n\ncode\n```\n# A", &[(1, "```\n# not a heading\n\ncode\n```"), (6, "# A")]);
        assert_eq!(split("# A b\nx\n\n## C\ny").iter().map(|part| part.heading.as_str()).collect::<Vec<_>>(), ["A b", "C"]);
    }

    #[test]
    fn long_sections_are_split_and_nothing_is_lost() {
        let (long, short) = ("word ".repeat(1_000), "é".repeat(600));
        let text = format!("{short}\n\n{short}\n{short}\n{long}\n{}", "x".repeat(2_500));
        let parts = split(&text);
        assert!(parts.iter().all(|part| part.text.chars().count() <= PASSAGE_CHARS_MAX));
        let solid = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(solid(&parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(" ")), solid(&text));
        let lines: Vec<usize> = parts.iter().map(|part| part.line).collect();
        assert_eq!(lines, [1, 3, 4, 5, 5, 5, 5, 5, 6, 6, 6]);
    }
}
