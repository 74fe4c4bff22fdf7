//! Text to tokens.
//!
//! - Identifiers are case sensitive; `"quoted"` ones may hold anything, `""` stands for `"`.
//!   Whether a bare word is a keyword is the parser's business: it depends on the place.
//! - Strings are `'…'` with `''` for `'`. Hexadecimal is `0x…` or `X'…'`.
//! - `-- …` to the end of the line and `/* … */` are blanks.
//! - Every token knows its place, so every later error can name it.

use crate::error::{Detail, Position, QueryError};

/// One token and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenKind {
    /// A bare word: keyword or identifier.
    Word(Box<str>),
    /// `"…"`, unescaped: always an identifier.
    Quoted(Box<str>),
    /// `'…'`, unescaped.
    Text(Box<str>),
    /// Digits with optional fraction and exponent, without sign.
    Number(Box<str>),
    /// Hexadecimal digits without `0x` or `X''`.
    Hex(Box<str>),
    /// `:name`.
    Parameter(Box<str>),
    /// Punctuation and operators.
    Symbol(Symbol),
    /// The end of the text.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    Open,
    Close,
    Comma,
    Dot,
    Star,
    Semicolon,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Plus,
    Minus,
    /// An operator the dialect does not have; kept so that the parser can say so.
    Other(char),
}

impl TokenKind {
    /// The token as an error message names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            TokenKind::Word(word) => format!("`{word}`"),
            TokenKind::Quoted(name) => format!("\"{name}\""),
            TokenKind::Text(_) => "a string".to_owned(),
            TokenKind::Number(digits) => format!("the number {digits}"),
            TokenKind::Hex(_) => "a hexadecimal literal".to_owned(),
            TokenKind::Parameter(name) => format!("`:{name}`"),
            TokenKind::Symbol(symbol) => format!("`{}`", symbol.as_text()),
            TokenKind::End => "the end of the query".to_owned(),
        }
    }
}

impl Symbol {
    fn as_text(self) -> String {
        match self {
            Symbol::Open => "(".into(),
            Symbol::Close => ")".into(),
            Symbol::Comma => ",".into(),
            Symbol::Dot => ".".into(),
            Symbol::Star => "*".into(),
            Symbol::Semicolon => ";".into(),
            Symbol::Equal => "=".into(),
            Symbol::NotEqual => "<>".into(),
            Symbol::Less => "<".into(),
            Symbol::LessEqual => "<=".into(),
            Symbol::Greater => ">".into(),
            Symbol::GreaterEqual => ">=".into(),
            Symbol::Plus => "+".into(),
            Symbol::Minus => "-".into(),
            Symbol::Other(character) => character.to_string(),
        }
    }
}

/// Splits `text` into tokens, the last of which is [`TokenKind::End`].
///
/// The caller has bounded the length of `text`; there are at most as many tokens as bytes, plus one.
pub(crate) fn tokenize(text: &str) -> Result<Vec<Token>, QueryError> {
    let mut lexer = Lexer { text, at: Position { offset: 0, line: 1, column: 1 } };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let position = lexer.at;
        let kind = lexer.next_kind()?;
        let end = kind == TokenKind::End;
        tokens.push(Token { kind, position });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: Position,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at.offset..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at.offset += character.len_utf8();
        if character == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(character)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let start = self.at.offset;
        while self.peek().is_some_and(&keep) {
            self.advance();
        }
        &self.text[start..self.at.offset]
    }

    fn skip_blanks(&mut self) -> Result<(), QueryError> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest().starts_with("--") {
                self.take_while(|character| character != '\n');
            } else if self.rest().starts_with("/*") {
                let start = self.at;
                let Some(length) = self.rest()[2..].find("*/") else {
                    return Err(QueryError::Syntax(Detail::new("unterminated comment", start)));
                };
                let end = start.offset + 2 + length + 2;
                while self.at.offset < end {
                    self.advance();
                }
            } else {
                return Ok(());
            }
        }
    }

    fn next_kind(&mut self) -> Result<TokenKind, QueryError> {
        let Some(character) = self.peek() else { return Ok(TokenKind::End) };
        let next_is_digit = || self.rest()[1..].starts_with(|c: char| c.is_ascii_digit());
        match character {
            '"' => Ok(TokenKind::Quoted(self.quoted('"')?)),
            '\'' => Ok(TokenKind::Text(self.quoted('\'')?)),
            'x' | 'X' if self.rest()[1..].starts_with('\'') => {
                self.advance();
                let start = self.at;
                let digits = self.quoted('\'')?;
                if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    Ok(TokenKind::Hex(digits))
                } else {
                    Err(QueryError::Syntax(Detail::new("X'…' holds a non-hexadecimal digit", start)))
                }
            }
            '0' if self.rest().starts_with("0x") || self.rest().starts_with("0X") => self.hex(),
            '0'..='9' => self.number(),
            '.' if next_is_digit() => self.number(),
            ':' => {
                let start = self.at;
                self.advance();
                let name = self.take_while(is_word_part);
                if name.is_empty() {
                    return Err(QueryError::Syntax(Detail::new("`:` without a name", start)));
                }
                Ok(TokenKind::Parameter(name.into()))
            }
            _ if is_word_start(character) => Ok(TokenKind::Word(self.take_while(is_word_part).into())),
            _ => Ok(TokenKind::Symbol(self.symbol(character))),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Box<str>, QueryError> {
        let start = self.at;
        self.advance();
        let mut content = String::new();
        loop {
            match self.advance() {
                Some(character) if character == quote => {
                    if self.peek() != Some(quote) {
                        return Ok(content.into());
                    }
                    self.advance();
                    content.push(quote);
                }
                Some(character) => content.push(character),
                None => {
                    let what = if quote == '"' { "quoted identifier" } else { "string" };
                    return Err(QueryError::Syntax(Detail::with_hint(
                        format!("unterminated {what}"),
                        start,
                        format!("close it with {quote}; write {quote}{quote} for a {quote} inside"),
                    )));
                }
            }
        }
    }

    fn hex(&mut self) -> Result<TokenKind, QueryError> {
        let start = self.at;
        self.advance();
        self.advance();
        let digits = self.take_while(is_word_part);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(QueryError::Syntax(Detail::new("`0x` needs hexadecimal digits", start)));
        }
        Ok(TokenKind::Hex(digits.into()))
    }

    fn number(&mut self) -> Result<TokenKind, QueryError> {
        let start = self.at;
        let digit = |character: char| character.is_ascii_digit();
        self.take_while(digit);
        if self.peek() == Some('.') {
            self.advance();
            self.take_while(digit);
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.advance();
            if matches!(self.peek(), Some('+' | '-')) {
                self.advance();
            }
            if self.take_while(digit).is_empty() {
                return Err(QueryError::Syntax(Detail::new("the exponent has no digits", start)));
            }
        }
        if self.peek().is_some_and(is_word_part) {
            return Err(QueryError::Syntax(Detail::with_hint(
                "a number runs into a word",
                start,
                "quote a name that starts with a digit: \"1st\"",
            )));
        }
        Ok(TokenKind::Number(self.text[start.offset..self.at.offset].into()))
    }

    fn symbol(&mut self, first: char) -> Symbol {
        self.advance();
        let mut followed_by = |next: char| {
            let hit = self.peek() == Some(next);
            if hit {
                self.advance();
            }
            hit
        };
        match first {
            '(' => Symbol::Open,
            ')' => Symbol::Close,
            ',' => Symbol::Comma,
            '.' => Symbol::Dot,
            '*' => Symbol::Star,
            ';' => Symbol::Semicolon,
            '=' => Symbol::Equal,
            '+' => Symbol::Plus,
            '-' => Symbol::Minus,
            '<' if followed_by('=') => Symbol::LessEqual,
            '<' if followed_by('>') => Symbol::NotEqual,
            '<' => Symbol::Less,
            '>' if followed_by('=') => Symbol::GreaterEqual,
            '>' => Symbol::Greater,
            '!' if followed_by('=') => Symbol::NotEqual,
            other => Symbol::Other(other),
        }
    }
}

fn is_word_start(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn is_word_part(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}
