//! Where in the user's source something went wrong, and how it is shown.
//!
//! Every error that a module's author can cause carries a place in the file they wrote, never one in
//! the JavaScript that was generated from it, and a few characters of that line.

use std::fmt;

/// The longest piece of a source line that an excerpt shows, in characters; bundled or minified files have lines of megabytes.
const EXCERPT_CHARS_MAX: usize = 120;

/// The longest error message that is kept, in bytes; the rest is cut. A module can throw a string of any size.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// A place in a source file of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// Path of the file inside its bundle.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One frame of a stack trace, mapped to the user's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackFrame {
    /// Name of the function; empty for top-level code and nameless functions.
    pub function: String,
    /// Where in it.
    pub location: SourceLocation,
}

impl fmt::Display for StackFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.function.is_empty() {
            write!(f, "at {}", self.location)
        } else {
            write!(f, "at {} ({})", self.function, self.location)
        }
    }
}

/// A message with the place it is about and the text found there.
///
/// `Display` writes `file:line:column: message`, the excerpt with a caret, and the stack if it has more than one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong. For a thrown error: its name and message.
    pub message: String,
    /// Where, if known.
    pub location: Option<SourceLocation>,
    /// The source line there with a caret below it, two lines, indented.
    pub excerpt: Option<String>,
    /// The calls that led there, innermost first; empty if nothing was running.
    pub stack: Vec<StackFrame>,
}

impl Diagnostic {
    /// A message about no place in particular.
    pub(crate) fn bare(message: impl Into<String>) -> Diagnostic {
        Diagnostic { message: clip(message.into()), location: None, excerpt: None, stack: Vec::new() }
    }

    /// A message about the byte `offset` of `source`, the text of `file`.
    pub(crate) fn at_offset(message: impl Into<String>, file: &str, source: &str, offset: usize) -> Diagnostic {
        let location = locate(file, source, offset);
        let excerpt = excerpt(source, location.line, location.column);
        Diagnostic { message: clip(message.into()), location: Some(location), excerpt, stack: Vec::new() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if self.stack.len() > 1 {
            for frame in &self.stack {
                write!(f, "\n    {frame}")?;
            }
        }
        Ok(())
    }
}

/// Cuts a message at [`MESSAGE_BYTES_MAX`], on a character boundary.
pub(crate) fn clip(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
        message.truncate(end);
        message.push_str("...");
    }
    message
}

/// The line and column of a byte offset; an offset beyond the end is the end.
fn locate(file: &str, source: &str, offset: usize) -> SourceLocation {
    let mut end = offset.min(source.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    let before = &source[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    SourceLocation {
        file: file.to_owned(),
        line: before.matches('\n').count() as u32 + 1,
        column: before[line_start..].chars().count() as u32 + 1,
    }
}

/// The line with a caret below `column`, or `None` if the source has no such line.
pub(crate) fn excerpt(source: &str, line: u32, column: u32) -> Option<String> {
    let text = source.lines().nth(line.checked_sub(1)? as usize)?;
    let column = column.max(1) as usize - 1;
    let skip = column.saturating_sub(EXCERPT_CHARS_MAX / 2);
    let shown: String =
        text.chars().skip(skip).take(EXCERPT_CHARS_MAX).map(|c| if c == '\t' { ' ' } else { c }).collect();
    let gutter = line.to_string();
    Some(format!(
        "  {gutter} | {shown}\n  {blank} | {caret:>width$}",
        blank = " ".repeat(gutter.len()),
        caret = '^',
        width = column - skip + 1,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns() {
        let source = "one\n\ttwo é three\n";
        for (offset, line, column) in [(0, 1, 1), (2, 1, 3), (4, 2, 1), (5, 2, 2), (12, 2, 8), (999, 3, 1)] {
            let found = locate("a.ts", source, offset);
            assert_eq!((found.line, found.column), (line, column), "offset {offset}");
        }
    }

    #[test]
    fn excerpt_points_at_the_column() {
        let shown = excerpt("alpha\nbeta gamma\n", 2, 6).expect("line 2 exists");
        assert_eq!(shown, "  2 | beta gamma\n    |      ^");
        assert_eq!(excerpt("alpha", 3, 1), None);
        assert_eq!(excerpt("alpha", 0, 1), None);
    }

    #[test]
    fn excerpt_of_a_long_line_is_a_window() {
        let shown = excerpt(&format!("{}X{}", "a".repeat(5000), "b".repeat(5000)), 1, 5001).expect("line 1 exists");
        let (text, caret) = shown.split_once('\n').expect("two lines");
        assert!(text.len() < EXCERPT_CHARS_MAX + 10);
        assert_eq!(text.chars().nth(caret.len() - 1), Some('X'));
    }

    #[test]
    fn long_messages_are_cut_on_a_character() {
        let cut = clip("é".repeat(MESSAGE_BYTES_MAX));
        assert!(cut.len() <= MESSAGE_BYTES_MAX + 3 && cut.ends_with("é..."));
    }
}
