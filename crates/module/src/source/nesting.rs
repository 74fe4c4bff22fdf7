//! How deeply source text nests, before anything recursive looks at it.
//!
//! The parser and all that works on its tree recurse as deep as the text nests, without a bound of their own: a few hundred
//! kilobytes of `[` would overflow any stack and end the process. So the text is weighed first, and then parsed on a stack
//! that is large enough for the heaviest text that passes.
//!
//! The weight of a place is what could nest there: every open bracket and every `<` counts [`BRACKET_WEIGHT`], and every byte
//! before it in its run counts one. A run is the text of one bracket level since something that chains (`a => a => ...`,
//! `a = a = ...`, `if ... else if ...`) cannot cross: a `;`, a `,`, or the beginning of a new statement. Invariant: the weight is never less than the depth of the tree. Where the
//! scan cannot know what it sees (a `/` after `)` may divide or begin a regular expression), it believes opening brackets and
//! not closing ones.

/// The most weight that text may have. Hand-written code stays in the hundreds; at this weight parsing needs about 40 MiB of
/// stack, several times that without optimisation.
const WEIGHT_MAX: usize = 64 << 10;

/// What an open bracket weighs. A bracket costs the parser far more stack than a link of a chain, and the engine accepts no
/// more than about a thousand anyway.
const BRACKET_WEIGHT: usize = 32;

/// The stack for parsing text of the greatest weight. Only what is used takes memory.
pub(super) const PARSER_STACK_BYTES: usize = 512 << 20;

/// Why text is not parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    /// Byte offset of the place where the weight passes the bound.
    pub offset: usize,
}

/// Weighs text.
///
/// # Errors
/// The first place that is too heavy.
pub(super) fn check(source: &str) -> Result<(), TooDeep> {
    let mut scan = Scan {
        bytes: source.as_bytes(),
        at: 0,
        levels: Vec::new(),
        outer: 0,
        run: 0,
        has_angle: false,
        previous: Token::Operator,
    };
    while scan.at < scan.bytes.len() {
        scan.step();
        if scan.outer + scan.run > WEIGHT_MAX {
            return Err(TooDeep { offset: scan.at.min(source.len()) });
        }
    }
    Ok(())
}

/// Words that go on with what stands before them. As names (`a.in`) they may also be values.
const CONTINUING_WORDS: [&[u8]; 9] =
    [b"else", b"in", b"of", b"instanceof", b"as", b"satisfies", b"is", b"extends", b"while"];

/// Words that begin something that goes on behind them, likewise.
const PREFIX_WORDS: [&[u8]; 17] = [
    b"return",
    b"typeof",
    b"case",
    b"delete",
    b"void",
    b"throw",
    b"new",
    b"do",
    b"await",
    b"yield",
    b"default",
    b"keyof",
    b"infer",
    b"readonly",
    b"unique",
    b"asserts",
    b"async",
];

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#') || byte >= 0x80
}

/// What the last token says about a `/` behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// The end of a value: it divides.
    Value,
    /// A regular expression begins.
    Operator,
    /// Either.
    Unknown,
}

/// One open bracket.
struct Level {
    /// The byte that closes it; for the expression of a template `$`.
    closer: u8,
    /// The run that it interrupts, and whether there was a `<` in it.
    run: usize,
    has_angle: bool,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    levels: Vec<Level>,
    /// Weight of all levels but the innermost.
    outer: usize,
    /// Length of the innermost run.
    run: usize,
    /// Whether a `<` was seen in it: a comma may then separate type arguments.
    has_angle: bool,
    previous: Token,
}

impl Scan<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Takes one token.
    fn step(&mut self) {
        let byte = self.peek(0);
        match byte {
            b'\n' => {
                self.at += 1;
                if self.previous == Token::Value && self.new_word_follows() {
                    self.end_run();
                }
            }
            b' ' | b'\t' | b'\r' => self.at += 1,
            b'/' => self.slash(),
            b'\'' | b'"' => self.string(byte),
            b'`' => {
                self.at += 1;
                self.template();
            }
            b'(' => self.open(b')'),
            b'[' => self.open(b']'),
            b'{' => self.open(b'}'),
            b')' | b']' | b'}' => self.close(byte),
            b';' | b',' => self.separator(byte),
            _ if is_word_byte(byte) => self.word(),
            _ => {
                if byte == b'<' {
                    // It may open type arguments, for which the parser tries twice.
                    self.has_angle = true;
                    self.run += BRACKET_WEIGHT;
                }
                // After `++` and `--` a value has ended or begins; no regular expression can follow either way.
                let doubled = matches!(byte, b'+' | b'-') && self.at > 0 && self.bytes[self.at - 1] == byte;
                self.previous = if doubled { Token::Unknown } else { Token::Operator };
                self.advance(1);
            }
        }
    }

    /// Passes over bytes of the run.
    fn advance(&mut self, count: usize) {
        self.at += count;
        self.run += count;
    }

    fn open(&mut self, closer: u8) {
        self.levels.push(Level { closer, run: self.run, has_angle: self.has_angle });
        self.outer += self.run + BRACKET_WEIGHT;
        (self.run, self.has_angle) = (0, false);
        self.previous = Token::Operator;
        self.at += 1;
    }

    /// Closes the nearest bracket of its kind and those inside it, which were text in truth. One without a bracket closes
    /// nothing.
    fn close(&mut self, closer: u8) {
        self.previous = if closer == b']' { Token::Value } else { Token::Unknown };
        let matches = |level: &Level| level.closer == closer || (level.closer == b'$' && closer == b'}');
        let Some(found) = self.levels.iter().rposition(matches) else { return self.advance(1) };
        while self.levels.len() > found + 1 {
            self.leave();
        }
        let in_template = self.levels[found].closer == b'$';
        self.leave();
        self.advance(1);
        if closer == b'}' && !in_template && self.new_word_follows() {
            self.end_run();
        }
        if in_template {
            self.template();
        }
    }

    fn leave(&mut self) {
        let level = self.levels.pop().expect("only open levels are left");
        self.outer -= level.run + BRACKET_WEIGHT;
        // What was inside is over; what led to it goes on.
        self.run = level.run;
        self.has_angle = level.has_angle;
    }

    fn separator(&mut self, byte: u8) {
        self.advance(1);
        self.previous = Token::Operator;
        let ends_run = if byte == b',' { !self.has_angle } else { !self.else_follows() };
        if ends_run {
            self.end_run();
        }
    }

    fn end_run(&mut self) {
        (self.run, self.has_angle) = (0, false);
    }

    /// The text behind white space.
    fn next_text(&self) -> &[u8] {
        let rest = &self.bytes[self.at..];
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
        &rest[start..]
    }

    /// Whether the next word is `else`, or a comment hides it.
    fn else_follows(&self) -> bool {
        let next = self.next_text();
        next.starts_with(b"else") || next.starts_with(b"/")
    }

    /// Whether a word follows that goes on with nothing, so that a statement has ended.
    fn new_word_follows(&self) -> bool {
        let next = self.next_text();
        let length = next.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(next.len());
        length > 0 && !CONTINUING_WORDS.contains(&&next[..length])
    }

    fn word(&mut self) {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| !is_word_byte(*byte)).unwrap_or(rest.len());
        let word = &rest[..length];
        let is_operator = CONTINUING_WORDS.contains(&word) || PREFIX_WORDS.contains(&word);
        self.previous = if is_operator { Token::Unknown } else { Token::Value };
        self.advance(length);
    }

    fn string(&mut self, quote: u8) {
        self.previous = Token::Value;
        self.advance(1);
        loop {
            match self.peek(0) {
                // A string ends with its line; whatever is wrong is the parser's to say.
                0 | b'\n' => return,
                b'\\' => self.at += 2,
                byte if byte == quote => return self.advance(1),
                _ => self.at += 1,
            }
        }
    }

    /// The text of a template, up to its end or the next `${`.
    fn template(&mut self) {
        self.previous = Token::Value;
        self.run += 1;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'\\', _) => self.at += 2,
                (b'`', _) => return self.advance(1),
                (b'$', b'{') => {
                    self.at += 1;
                    return self.open(b'$');
                }
                _ => self.at += 1,
            }
        }
    }

    fn slash(&mut self) {
        match (self.peek(1), self.previous) {
            (b'/', _) => self.at += self.line_length(),
            (b'*', _) => {
                let rest = &self.bytes[self.at + 2..];
                let end = rest.windows(2).position(|pair| pair == b"*/");
                self.at = end.map_or(self.bytes.len(), |end| self.at + end + 4);
            }
            (_, Token::Value) => {
                self.previous = Token::Operator;
                self.advance(1);
            }
            (_, Token::Operator) => self.regular_expression(),
            (_, Token::Unknown) => self.ambiguous(),
        }
    }

    fn line_length(&self) -> usize {
        let rest = &self.bytes[self.at..];
        rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    }

    fn regular_expression(&mut self) {
        self.previous = Token::Value;
        self.advance(1);
        let mut in_class = false;
        loop {
            match self.peek(0) {
                0 | b'\n' => return,
                b'\\' => self.at += 2,
                b'/' if !in_class => return self.advance(1),
                byte => {
                    in_class = (in_class || byte == b'[') && byte != b']';
                    self.at += 1;
                }
            }
        }
    }

    /// A `/` that may divide or begin a regular expression. If the line has no second one, it divides. Else the rest of the line
    /// counts as code that only opens; and if text of several lines may begin there, all that follows might be misread, so the
    /// text is made too heavy.
    fn ambiguous(&mut self) {
        let bytes = self.bytes;
        let line = &bytes[self.at..self.at + self.line_length()];
        if !line[1..].contains(&b'/') {
            self.previous = Token::Operator;
            return self.advance(1);
        }
        if line.contains(&b'`') || line[1..].windows(2).any(|pair| pair == b"/*") {
            self.run += WEIGHT_MAX + 1;
            return;
        }
        for &byte in line {
            match byte {
                b'(' => self.open(b')'),
                b'[' => self.open(b']'),
                b'{' => self.open(b'}'),
                _ => self.advance(1),
            }
        }
        self.previous = Token::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way to nest that the grammar has, `n` deep.
    fn shapes(n: usize) -> Vec<(&'static str, String)> {
        let around = |before: &str, inner: &str, after: &str| format!("{}{inner}{}", before.repeat(n), after.repeat(n));
        vec![
            ("paren", around("(", "1", ")")),
            ("array", around("[", "1", "]")),
            ("object", format!("x={}", around("{a:", "1", "}"))),
            ("block", around("{", "", "}")),
            ("not", around("!", "1", "")),
            ("plus", format!("1{}", "+1".repeat(n))),
            ("member", format!("x{}", ".a".repeat(n))),
            ("call", format!("x{}", "()".repeat(n))),
            ("index", format!("x{}", "[0]".repeat(n))),
            ("arrow", around("a=>", "1", "")),
            ("conditional", around("1?2:", "1", "")),
            ("else if", format!("if(1);{}", "else if(1);".repeat(n))),
            ("else with comment", format!("if(1);{}", "/**/else if(1);".repeat(n))),
            ("if", around("if(1)", ";", "")),
            ("generic", format!("type X={}", around("A<", "1", ">"))),
            ("generic list", format!("type X={}", around("A<1,", "1", ">"))),
            ("array type", format!("type X=A{}", "[]".repeat(n))),
            ("template", around("`${", "1", "}`")),
            ("tagged template", format!("x{}", "``".repeat(n))),
            ("assign", around("a=", "1", "")),
            ("label", around("a:", ";", "")),
            ("await", around("await ", "1", "")),
            ("new", around("new ", "A", "")),
            ("function type", around("()=>", "1", "")),
            ("hidden in regex", "if(1)/)/.x,(".repeat(n)),
            ("hidden behind a quote", "if(1)/'/.x,(//'\n".repeat(n)),
            ("hidden in a template", "if(1)/`/.x;(`)`\n".repeat(n)),
            ("hidden in a comment", "if(1)/ /*/.x,( //*/)\n".repeat(n)),
            ("hidden in strings", "(')',".repeat(n)),
            ("hidden behind a name", "a.return/1/(')',1/(".repeat(n)),
            ("hidden behind increments", "a++/')'/(".repeat(n)),
            ("if on lines", around("if(1)\n", ";", "")),
            ("new on lines", around("new\n", "A", "")),
            ("in on lines", format!("x={{}}{}", "\nin\n{}".repeat(n))),
        ]
    }

    #[test]
    fn every_way_to_nest_weighs() {
        for (name, text) in shapes(80_000) {
            assert!(check(&text).is_err(), "{name}");
        }
        for (name, text) in shapes(100) {
            let hidden_multiline = name == "hidden in a template" || name == "hidden in a comment";
            assert!(check(&text).is_ok() || hidden_multiline, "{name}");
        }
    }

    /// Whatever the parser says, it lives to say it, and soon.
    fn assert_lives(name: &str, text: &str) {
        let started = std::time::Instant::now();
        let _ = crate::source::strip::strip("deep.ts", text);
        assert!(started.elapsed().as_secs() < 20, "{name}: {:?}", started.elapsed());
    }

    #[test]
    fn what_passes_can_be_parsed() {
        for n in [500, 1_000, 1_900] {
            for (name, text) in shapes(n) {
                assert_lives(name, &text);
            }
        }
        let longest = |link: &str| link.repeat((WEIGHT_MAX - 100) / link.len());
        for link in ["a=>", "a=", "1?2:", "!", "+1", ".a", "a:", "new ", "A<", "if(1)", "-"] {
            for text in
                [format!("x={}1", longest(link)), format!("x{}", longest(link)), format!("type X={}1", longest(link))]
            {
                assert_lives(link, &text);
            }
        }
    }

    #[test]
    fn ordinary_code_is_light() {
        let statement = "export function f(a: number[]): Map<string, number> { return new Map([[`${a[0] / 2}`, (a.length) / 2]]) }\n";
        let lines = "const x = { text: \":( unbalanced {\", re: /[(]\\//g, n: (1 + 2) / 3 };\n";
        let data = format!("const data = [{}];\n", "[1, 'a (', { b: 2 }],\n".repeat(20_000));
        for text in [statement.repeat(1_000), lines.repeat(5_000), data] {
            assert_eq!(check(&text), Ok(()));
        }
        for text in [
            include_str!("../../sdk/globals.js"),
            include_str!("../../sdk/schema.js"),
            include_str!("../../sdk/describe.js"),
            include_str!("../../types/server.d.ts"),
        ] {
            assert_eq!(check(text), Ok(()));
        }
    }
}
