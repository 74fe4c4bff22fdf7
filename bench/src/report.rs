//! Results, as a table or as one JSON object per line.

use std::io::{self, Write};

use serde::Serialize;

use crate::peers::Peer;

/// What a case must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// More is better.
    AtLeast(f64),
    /// Less is better.
    AtMost(f64),
}

impl Target {
    fn value(self) -> f64 {
        match self {
            Target::AtLeast(value) | Target::AtMost(value) => value,
        }
    }

    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtLeast(target) => value >= target,
            Target::AtMost(target) => value <= target,
        }
    }

    fn sign(self) -> char {
        match self {
            Target::AtLeast(_) => '≥',
            Target::AtMost(_) => '≤',
        }
    }
}

/// One measured case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Suite the case belongs to.
    pub suite: &'static str,
    /// Name of the case.
    pub case: &'static str,
    /// The median of the rounds.
    pub value: f64,
    /// Unit of all values of the case.
    pub unit: &'static str,
    /// What it is compared with.
    pub peer: Option<Peer>,
    /// What it must reach.
    pub target: Target,
}

/// Collects cases and prints them.
pub struct Reporter {
    json: bool,
    cases: Vec<Case>,
}

impl Reporter {
    /// Prints JSON lines as they come, or a table at the end.
    pub fn new(json: bool) -> Reporter {
        Reporter { json, cases: Vec::new() }
    }

    /// States the conditions.
    pub fn conditions(&self, line: &str) {
        if self.json {
            eprintln!("conditions: {line}");
        } else {
            println!("conditions: {line}");
        }
    }

    /// Says what is going on, on standard error.
    pub fn progress(&self, text: &str) {
        eprintln!("  {text}");
    }

    /// Takes a result.
    pub fn record(&mut self, case: Case) -> io::Result<()> {
        if self.json {
            writeln!(io::stdout(), "{}", as_json(&case))?;
        }
        self.cases.push(case);
        Ok(())
    }

    /// Prints the table and returns the number of missed targets.
    pub fn finish(self) -> io::Result<usize> {
        if !self.json {
            let mut stdout = io::stdout().lock();
            for line in table(&self.cases) {
                writeln!(stdout, "{line}")?;
            }
        }
        Ok(self.cases.iter().filter(|case| !case.target.is_met(case.value)).count())
    }
}

/// A line of `--json`, in this order.
#[derive(Serialize)]
struct Line {
    suite: &'static str,
    case: &'static str,
    value: f64,
    unit: &'static str,
    peer: Option<&'static str>,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    target: f64,
    met: bool,
}

fn as_json(case: &Case) -> String {
    let line = Line {
        suite: case.suite,
        case: case.case,
        value: rounded(case.value),
        unit: case.unit,
        peer: case.peer.map(|peer| peer.name),
        peer_value: case.peer.map(|peer| rounded(peer.value)),
        ratio: case.peer.map(|peer| rounded(case.value / peer.value)),
        target: case.target.value(),
        met: case.target.is_met(case.value),
    };
    serde_json::to_string(&line).expect("text and finite numbers are JSON")
}

/// Four significant digits: no run repeats better than that.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn table(cases: &[Case]) -> Vec<String> {
    let mut rows = vec![["case", "value", "unit", "target", "met", "peer", "ratio"].map(str::to_owned)];
    for case in cases {
        rows.push([
            format!("{}/{}", case.suite, case.case),
            number(case.value),
            case.unit.to_owned(),
            format!("{} {}", case.target.sign(), number(case.target.value())),
            if case.target.is_met(case.value) { "yes".to_owned() } else { "NO".to_owned() },
            case.peer.map_or_else(|| "-".to_owned(), |peer| format!("{} ({})", number(peer.value), peer.name)),
            case.peer.map_or_else(|| "-".to_owned(), |peer| format!("{:.2}", case.value / peer.value)),
        ]);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let is_right = |column: usize| matches!(column, 1 | 3 | 6);
    let format_row = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if is_right(column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(format_row).collect()
}

/// Thousands separated; fractions only where they say something.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{}", rounded(value));
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0.0 { format!("-{out}") } else { out }
}

/// The median; the mean of the middle two of an even count.
///
/// # Panics
/// Without values: every case has at least one round.
pub fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "a case without rounds");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::{Case, Target, as_json, median, number, rounded, table};
    use crate::peers::Peer;

    fn case(value: f64, target: Target, peer: Option<Peer>) -> Case {
        Case { suite: "reducers", case: "insert_source", value, unit: "calls/s", peer, target }
    }

    #[test]
    fn numbers() {
        for (value, text) in [
            (0.0, "0"),
            (0.98765, "0.9877"),
            (12.3456, "12.35"),
            (145_000.4, "145,000"),
            (1_234_567.0, "1,234,567"),
            (999.6, "1,000"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(rounded(123_456.0), 123_500.0);
        for (values, expected) in [(&[3.0, 1.0, 2.0][..], 2.0), (&[4.0, 1.0][..], 2.5), (&[7.0][..], 7.0)] {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn json_lines_have_the_agreed_keys() {
        let line = as_json(&case(100_000.0, Target::AtLeast(90_000.0), Some(Peer { name: "p", value: 200_000.0 })));
        assert_eq!(
            line,
            r#"{"suite":"reducers","case":"insert_source","value":100000.0,"unit":"calls/s","peer":"p","peer_value":200000.0,"ratio":0.5,"target":90000.0,"met":true}"#
        );
        let line = as_json(&case(61.0, Target::AtMost(60.0), None));
        assert!(line.contains(r#""peer":null,"peer_value":null,"ratio":null,"target":60.0,"met":false"#), "{line}");
    }

    #[test]
    fn tables_mark_what_is_missed() {
        let lines = table(&[case(1.0, Target::AtLeast(2.0), None), case(3.0, Target::AtLeast(2.0), None)]);
        assert!(lines[1].contains(" NO ") && lines[2].contains(" yes "), "{lines:#?}");
    }
}
