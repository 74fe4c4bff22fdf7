//! Standard output: text for people, or JSON for programs.

use std::{
    cell::RefCell,
    io::{self, BufWriter, Stdout, Write},
};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Columns of a table are cut at this many characters, so that one long value does not push the
/// others off the screen; an identity (64 digits) fits, and `--json` never cuts.
const CELL_CHARACTERS_MAX: usize = 64;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people.
    Table,
    /// One JSON document; one object per line where output streams.
    Json,
    /// One JSON object per line, also for the elements of lists.
    Ndjson,
}

/// Where results go.
pub struct Output {
    format: Format,
    stdout: RefCell<BufWriter<Stdout>>,
}

impl Output {
    /// Output in the chosen form.
    pub fn new(format: Format) -> Output {
        Output { format, stdout: RefCell::new(BufWriter::new(io::stdout())) }
    }

    /// Whether JSON was asked for, in either form.
    pub fn is_json(&self) -> bool {
        self.format != Format::Table
    }

    /// Whether elements of lists go on lines of their own.
    pub fn is_ndjson(&self) -> bool {
        self.format == Format::Ndjson
    }

    /// Writes a list: as one object with the list below `name`, or each element on its line.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn json_list(&self, name: &str, elements: Vec<Value>) -> Result<(), Failure> {
        match self.format {
            Format::Ndjson => self.lines(elements.iter().map(Value::to_string)),
            _ => self.json(&json!({ name: elements })),
        }
    }

    /// Writes a line and shows it at once.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.lines([text])
    }

    /// Writes a JSON value on one line.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn json(&self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Writes lines and shows them together.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn lines<S: AsRef<str>>(&self, lines: impl IntoIterator<Item = S>) -> Result<(), Failure> {
        let mut stdout = self.stdout.borrow_mut();
        for line in lines {
            writeln!(stdout, "{}", line.as_ref()).map_err(Failure::Output)?;
        }
        stdout.flush().map_err(Failure::Output)
    }

    /// Writes a table.
    ///
    /// # Errors
    /// When nobody takes the output.
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.lines(table.lines())
    }
}

/// A table of text. Numbers are aligned to the right.
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<S: Into<String>>(headers: impl IntoIterator<Item = S>) -> Table {
        Table { headers: headers.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| cut(cell.into())).collect();
        cells.resize(self.headers.len(), String::new());
        self.rows.push(cells);
    }

    /// The table as lines of text without trailing blanks.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.headers.len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.headers[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let format = |cells: &[String]| {
            let padded = cells.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().join("  ");
        let mut lines = vec![format(&self.headers), rule];
        lines.extend(self.rows.iter().map(|row| format(row)));
        lines
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells =
            self.rows.iter().map(|row| row[column].as_str()).filter(|cell| !cell.is_empty() && *cell != "-");
        let is_number = |cell: &str| cell.parse::<f64>().is_ok();
        cells.next().is_some_and(is_number) && cells.all(is_number)
    }
}

fn cut(cell: String) -> String {
    let cell = if cell.contains(char::is_control) { cell.escape_debug().to_string() } else { cell };
    if cell.chars().count() <= CELL_CHARACTERS_MAX {
        return cell;
    }
    let mut short: String = cell.chars().take(CELL_CHARACTERS_MAX - 1).collect();
    short.push('…');
    short
}

/// Text that came from a module or another user, safe for a terminal: control characters would
/// otherwise move the cursor or change its colours.
pub fn printable(text: &str) -> String {
    let is_harmful = |character: char| character.is_control() && character != '\n' && character != '\t';
    if !text.contains(is_harmful) {
        return text.to_owned();
    }
    text.chars()
        .map(
            |character| {
                if is_harmful(character) { character.escape_debug().to_string() } else { character.to_string() }
            },
        )
        .collect()
}

/// A duration in the unit that suits it.
pub fn duration_text(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} us"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{Table, duration_text, printable};

    #[test]
    fn tables_align() {
        let mut table = Table::new(["name", "head"]);
        table.row(["main", "7"]);
        table.row(["a-long-name", "1204"]);
        table.row(["short"]);
        assert_eq!(
            table.lines(),
            ["name         head", "-----------  ----", "main            7", "a-long-name  1204", "short",]
        );
    }

    #[test]
    fn cells_are_cut_and_escaped() {
        let mut table = Table::new(["text"]);
        table.row(["a\nb"]);
        table.row(["x".repeat(200)]);
        let lines = table.lines();
        assert_eq!(lines[2], "a\\nb");
        assert_eq!(lines[3].chars().count(), super::CELL_CHARACTERS_MAX);
        assert!(lines[3].ends_with('…'));
    }

    #[test]
    fn terminal_control_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\n\tc"), "a\\u{1b}[2Jb\n\tc");
    }

    #[test]
    fn durations() {
        for (microseconds, text) in [(0, "0 us"), (999, "999 us"), (1_500, "1.5 ms"), (2_340_000, "2.34 s")] {
            assert_eq!(duration_text(microseconds), text);
        }
    }
}
