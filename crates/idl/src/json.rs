//! JSON with comments, keeping what a schema compiler needs and a JSON library throws away: where each
//! value is, which names an object repeats, and the comments.
//!
//! A comment documents a member when it ends on the line before it, or starts on the line where its
//! value ends. A block of comments that a blank line separates from the member documents nothing; it
//! is a remark to the reader of the file.

use crate::{Position, Problem, SchemaError};

/// Nesting of objects and arrays. A schema needs five levels.
const DEPTH_MAX: usize = 16;

/// A value and where it starts.
#[derive(Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub position: Position,
}

/// What a schema can hold; numbers and arrays are only told apart to name them in errors.
#[derive(Debug)]
pub(crate) enum Value {
    Object(Vec<Member>),
    Array,
    String(String),
    Number,
    Boolean(bool),
    Null,
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object(_) => "an object",
            Self::Array => "an array",
            Self::String(_) => "a string",
            Self::Number => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A named value of an object, in the order of the file.
#[derive(Debug)]
pub(crate) struct Member {
    pub name: String,
    pub position: Position,
    /// Lines of the comments that document it.
    pub docs: Vec<String>,
    pub node: Node,
}

/// Parses a whole file: its one value, and the lines of the comments at its head.
pub(crate) fn parse(text: &str) -> Result<(Node, Vec<String>), SchemaError> {
    let mut parser = Parser { text, offset: 0, line: 1, line_start: 0, comments: Vec::new() };
    parser.trivia()?;
    let head = parser.comments_before(parser.line);
    let node = parser.value(0)?;
    parser.trivia()?;
    match parser.peek() {
        None => Ok((node, head)),
        Some(_) => Err(parser.error("the end of the file")),
    }
}

/// One comment, without its markers.
struct Comment {
    first_line: u32,
    last_line: u32,
    lines: Vec<String>,
}

struct Parser<'a> {
    text: &'a str,
    offset: usize,
    line: u32,
    line_start: usize,
    /// Comments that no member has taken yet.
    comments: Vec<Comment>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.offset..].chars().next()
    }

    fn position(&self) -> Position {
        let column = self.text[self.line_start..self.offset].chars().count() as u32 + 1;
        Position { line: self.line, column }
    }

    fn error(&self, expected: &str) -> SchemaError {
        let found = match self.peek() {
            Some(character) if character.is_control() => format!("`{}`", character.escape_debug()),
            Some(character) => format!("`{character}`"),
            None => "the end of the file".to_owned(),
        };
        self.problem(Problem::Syntax { expected: expected.to_owned(), found })
    }

    fn problem(&self, problem: Problem) -> SchemaError {
        SchemaError { problem, position: self.position() }
    }

    /// Takes one character, keeping count of lines.
    fn bump(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.offset += character.len_utf8();
        if character == '\n' {
            self.line += 1;
            self.line_start = self.offset;
        }
        Some(character)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.bump();
        }
        found
    }

    /// Passes over blanks and comments; comments are kept.
    fn trivia(&mut self) -> Result<(), SchemaError> {
        loop {
            let rest = &self.text[self.offset..];
            if rest.starts_with("//") {
                self.line_comment();
            } else if rest.starts_with("/*") {
                self.block_comment()?;
            } else if matches!(self.peek(), Some(' ' | '\t' | '\r' | '\n' | '\u{feff}')) {
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    fn line_comment(&mut self) {
        let end = self.text[self.offset..].find('\n').map_or(self.text.len(), |length| self.offset + length);
        let body = self.text[self.offset + 2..end].trim_start_matches('/').trim().to_owned();
        self.comments.push(Comment { first_line: self.line, last_line: self.line, lines: vec![body] });
        self.offset = end;
    }

    fn block_comment(&mut self) -> Result<(), SchemaError> {
        let Some(length) = self.text[self.offset + 2..].find("*/") else {
            self.offset = self.text.len();
            return Err(self.error("`*/`"));
        };
        let first_line = self.line;
        let body = &self.text[self.offset + 2..self.offset + 2 + length];
        let lines = body.lines().map(|line| line.trim().trim_start_matches('*').trim().to_owned());
        let mut lines: Vec<String> = lines.collect();
        while lines.first().is_some_and(String::is_empty) {
            lines.remove(0);
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        let end = self.offset + 2 + length + 2;
        while self.offset < end {
            self.bump();
        }
        self.comments.push(Comment { first_line, last_line: self.line, lines });
        Ok(())
    }

    /// The block of comments that ends right before `line`. All comments so far are given up.
    fn comments_before(&mut self, line: u32) -> Vec<String> {
        let mut wanted_line = line;
        let mut taken: Vec<Comment> = Vec::new();
        for comment in std::mem::take(&mut self.comments).into_iter().rev() {
            if comment.last_line != wanted_line && comment.last_line + 1 != wanted_line {
                break;
            }
            wanted_line = comment.first_line;
            taken.push(comment);
        }
        taken.into_iter().rev().flat_map(|comment| comment.lines).collect()
    }

    /// The comments behind a value on its last line.
    fn comments_behind(&mut self, line: u32) -> Vec<String> {
        let behind = self.comments.iter().take_while(|comment| comment.first_line == line).count();
        self.comments.drain(..behind).flat_map(|comment| comment.lines).collect()
    }

    fn value(&mut self, depth: usize) -> Result<Node, SchemaError> {
        let position = self.position();
        if depth > DEPTH_MAX {
            return Err(self.problem(Problem::TooDeep { max: DEPTH_MAX }));
        }
        let value = match self.peek() {
            Some('{') => Value::Object(self.object(depth)?),
            Some('[') => self.array(depth)?,
            Some('"') => Value::String(self.string()?),
            Some('-' | '0'..='9') => self.number()?,
            Some('a'..='z') => self.word()?,
            _ => return Err(self.error("a value")),
        };
        Ok(Node { value, position })
    }

    fn object(&mut self, depth: usize) -> Result<Vec<Member>, SchemaError> {
        self.bump();
        let mut members: Vec<Member> = Vec::new();
        loop {
            self.trivia()?;
            if self.take('}') {
                return Ok(members);
            }
            let mut docs = self.comments_before(self.line);
            let position = self.position();
            if self.peek() != Some('"') {
                return Err(self.error("a name in quotes, or `}`"));
            }
            let name = self.string()?;
            if members.iter().any(|member| member.name == name) {
                return Err(SchemaError { problem: Problem::DuplicateName { name }, position });
            }
            self.trivia()?;
            if !self.take(':') {
                return Err(self.error("`:`"));
            }
            self.trivia()?;
            self.comments.clear();
            let node = self.value(depth + 1)?;
            let last_line = self.line;
            self.comments.clear();
            self.trivia()?;
            let has_more = self.take(',');
            self.trivia()?;
            docs.extend(self.comments_behind(last_line));
            members.push(Member { name, position, docs, node });
            if !has_more && self.peek() != Some('}') {
                return Err(self.error("`,` or `}`"));
            }
        }
    }

    /// Arrays have no place in a schema, but the error that says so should point at one, not into it.
    fn array(&mut self, depth: usize) -> Result<Value, SchemaError> {
        self.bump();
        loop {
            self.trivia()?;
            if self.take(']') {
                return Ok(Value::Array);
            }
            self.value(depth + 1)?;
            self.trivia()?;
            if !self.take(',') && self.peek() != Some(']') {
                return Err(self.error("`,` or `]`"));
            }
        }
    }

    fn string(&mut self) -> Result<String, SchemaError> {
        self.bump();
        let mut text = String::new();
        loop {
            match self.peek() {
                None | Some('\0'..='\u{1f}') => return Err(self.error("`\"`")),
                Some('"') => {
                    self.bump();
                    return Ok(text);
                }
                Some('\\') => {
                    self.bump();
                    text.push(self.escape()?);
                }
                Some(character) => {
                    self.bump();
                    text.push(character);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, SchemaError> {
        let escaped = match self.peek() {
            Some(character @ ('"' | '\\' | '/')) => character,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                // Names and types of a schema are ASCII; a surrogate pair could only be part of an error.
                let digits = self.text.get(self.offset + 1..self.offset + 5);
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
                let Some(character) = code else { return Err(self.error("four hexadecimal digits of a character")) };
                self.offset += 5;
                return Ok(character);
            }
            _ => return Err(self.error("an escape")),
        };
        self.bump();
        Ok(escaped)
    }

    fn number(&mut self) -> Result<Value, SchemaError> {
        let start = self.offset;
        while matches!(self.peek(), Some('-' | '+' | '.' | 'e' | 'E' | '0'..='9')) {
            self.bump();
        }
        match self.text[start..self.offset].parse::<f64>() {
            Ok(_) => Ok(Value::Number),
            Err(_) => Err(self.error("a number")),
        }
    }

    fn word(&mut self) -> Result<Value, SchemaError> {
        for (word, value) in [("true", Value::Boolean(true)), ("false", Value::Boolean(false)), ("null", Value::Null)] {
            if self.text[self.offset..].starts_with(word) {
                self.offset += word.len();
                return Ok(value);
            }
        }
        Err(self.error("a value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Vec<(String, Vec<String>)> {
        let (node, _) = parse(text).expect("it parses");
        let Value::Object(members) = node.value else { panic!("not an object") };
        members.into_iter().map(|member| (member.name, member.docs)).collect()
    }

    #[test]
    fn comments_document_the_member_they_are_next_to() {
        let text = "// head\n{\n  // far\n\n  // one\n  // two\n  \"a\": 1, // behind a\n  \"b\": { // inside\n  },\n\
                    /* block\n   * of two */\n  \"c\": true // last\n}";
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            members(text),
            [
                ("a".to_owned(), lines(&["one", "two", "behind a"])),
                ("b".to_owned(), lines(&[])),
                ("c".to_owned(), lines(&["block", "of two", "last"])),
            ]
        );
        assert_eq!(parse(text).expect("it parses").1, ["head"]);
    }

    #[test]
    fn errors_say_where() {
        for (text, line, column, message) in [
            ("", 1, 1, "expected a value, found the end of the file"),
            ("{\n  \"a\" 1}", 2, 7, "expected `:`, found `1`"),
            ("{\"a\": 1 \"b\": 2}", 1, 9, "expected `,` or `}`, found `\"`"),
            ("{\"a\": 1, \"a\": 2}", 1, 10, "`a` is there twice"),
            ("{} x", 1, 4, "expected the end of the file, found `x`"),
            ("{\"ü\": nul}", 1, 7, "expected a value, found `n`"),
            ("{\"a\": \"b", 1, 9, "expected `\"`, found the end of the file"),
            ("/* open", 1, 8, "expected `*/`, found the end of the file"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.position.line, error.position.column), (line, column), "{text}");
            assert_eq!(error.problem.to_string(), message, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(&deep), Err(SchemaError { problem: Problem::TooDeep { .. }, .. })));
    }
}
