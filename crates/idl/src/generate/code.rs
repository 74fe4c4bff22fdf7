//! Lines with indentation.

/// Collects the lines of a file.
pub(super) struct Code {
    text: String,
    depth: usize,
    indent: &'static str,
    /// Longest line that the language's formatter keeps.
    width_max: usize,
}

impl Code {
    pub fn new(indent: &'static str, width_max: usize) -> Self {
        Self { text: String::new(), depth: 0, indent, width_max }
    }

    pub fn finish(self) -> String {
        self.text
    }

    /// One line, or none that is indented when the text is empty.
    pub fn line(&mut self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if !text.is_empty() {
            for _ in 0..self.depth {
                self.text.push_str(self.indent);
            }
            self.text.push_str(text);
        }
        self.text.push('\n');
    }

    /// An empty line.
    pub fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A line after which the following are indented.
    pub fn open(&mut self, text: impl AsRef<str>) {
        self.line(text);
        self.depth += 1;
    }

    /// A line that ends the indentation.
    pub fn close(&mut self, text: impl AsRef<str>) {
        self.depth -= 1;
        self.line(text);
    }

    /// A line that ends one indentation and starts the next.
    pub fn turn(&mut self, text: impl AsRef<str>) {
        self.depth -= 1;
        self.open(text);
    }

    /// Indents the following lines.
    pub fn indent(&mut self) {
        self.depth += 1;
    }

    /// Ends an indentation without a line.
    pub fn dedent(&mut self) {
        self.depth -= 1;
    }

    /// Documentation, each line behind a marker.
    pub fn docs(&mut self, marker: &str, lines: &[String]) {
        for line in lines {
            self.line(format!("{marker} {}", plain(line)).trim_end());
        }
    }

    /// Whether a text fits the rest of a line.
    pub fn fits(&self, text: &str) -> bool {
        self.depth * self.indent.len() + text.chars().count() <= self.width_max
    }

    /// A call or a signature on one line, or else with each argument on its own.
    pub fn call(&mut self, head: &str, arguments: &[String], tail: &str) {
        self.call_within(head, arguments, tail, self.width_max, true);
    }

    /// As [`Self::call`] for a text that opens a block.
    pub fn open_call(&mut self, head: &str, arguments: &[String], tail: &str) {
        self.call(head, arguments, tail);
        self.depth += 1;
    }

    /// As [`Self::call`], with a bound for the arguments together, and with or without a comma behind
    /// the last of several lines.
    pub fn call_within(
        &mut self,
        head: &str,
        arguments: &[String],
        tail: &str,
        arguments_max: usize,
        last_comma: bool,
    ) {
        let joined = arguments.join(", ");
        let line = format!("{head}{joined}{tail}");
        if arguments.is_empty() || (joined.chars().count() <= arguments_max && self.fits(&line)) {
            self.line(line);
            return;
        }
        self.open(head);
        for (index, argument) in arguments.iter().enumerate() {
            let is_last = index + 1 == arguments.len();
            self.line(if is_last && !last_comma { argument.clone() } else { format!("{argument},") });
        }
        self.close(tail);
    }
}

/// A line of documentation without what could end a comment or confuse a compiler.
pub(super) fn plain(line: &str) -> String {
    line.chars().filter(|character| !character.is_control() && !"\u{2028}\u{2029}".contains(*character)).collect()
}
