//! What the demo says: progress while it runs, then the outcome as a table or as JSON.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    check::{Books, LedgerCheck},
    fork_maker::ForkTime,
};

/// Where progress goes: standard output, or standard error when JSON is asked for.
pub struct Screen {
    started: Instant,
    json: bool,
    colour: bool,
}

impl Screen {
    /// A screen that begins counting time now.
    pub fn new(json: bool) -> Screen {
        let terminal = if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Screen { started: Instant::now(), json, colour: terminal && std::env::var_os("NO_COLOR").is_none() }
    }

    /// One line of progress with the time since the start in front.
    pub fn say(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.raw(&format!("{} {text}", self.dim(&format!("{seconds:6.1} s"))));
    }

    /// The beginning of an act.
    pub fn act(&self, text: &str) {
        self.say(&self.bold(text));
    }

    /// A line without the time.
    pub fn raw(&self, text: &str) {
        // A closed pipe is no reason to stop: the exit status is the result.
        let _ = if self.json { writeln!(std::io::stderr(), "{text}") } else { writeln!(std::io::stdout(), "{text}") };
    }

    /// A mark for a check.
    pub fn mark(&self, holds: bool) -> String {
        match (holds, self.colour) {
            (true, true) => "\x1b[32m✓\x1b[0m".to_owned(),
            (false, true) => "\x1b[31m✗\x1b[0m".to_owned(),
            (true, false) => "✓".to_owned(),
            (false, false) => "✗".to_owned(),
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn dim(&self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How one fork did under its rules.
pub struct Outcome {
    pub fork: String,
    pub rules: String,
    /// How long making the fork took; none for `main`.
    pub fork_time: Option<ForkTime>,
    pub before: Books,
    pub after: Books,
    pub calls_per_second: f64,
    pub latency_us: (u32, u32),
}

impl Outcome {
    fn cells(&self, screen: &Screen) -> [String; 9] {
        let (units, coins) = self.after.volume_since(&self.before);
        let fees = self.after.fees - self.before.fees;
        let price = self.after.price_level_since(&self.before);
        [
            self.fork.clone(),
            self.rules.clone(),
            self.fork_time.as_ref().map_or_else(|| "-".to_owned(), ForkTime::server_text),
            format!("{:.0}", self.calls_per_second),
            (self.after.sales() - self.before.sales()).to_string(),
            units.to_string(),
            price.map_or_else(|| "-".to_owned(), |level| format!("{level:.0} %")),
            if coins == 0 { "-".to_owned() } else { format!("{fees} ({:.1} %)", fees as f64 * 100.0 / coins as f64) },
            format!("{:.3} {}", self.after.inequality(), screen.mark(self.after.balanced())),
        ]
    }

    fn json(&self) -> Value {
        let (units, coins) = self.after.volume_since(&self.before);
        json!({
            "fork": self.fork,
            "rules": self.rules,
            "fork_time_us": self.fork_time.as_ref().map(|time| time.server_us),
            "fork_round_trip_us": self.fork_time.as_ref().map(|time| time.round_trip.as_micros() as u64),
            "calls_per_second": self.calls_per_second.round(),
            "latency_p50_us": self.latency_us.0,
            "latency_p99_us": self.latency_us.1,
            "sales": self.after.sales() - self.before.sales(),
            "crates": units,
            "coins": coins,
            "price_level_percent": self.after.price_level_since(&self.before),
            "fees": self.after.fees - self.before.fees,
            "inequality": self.after.inequality(),
            "balanced": self.after.balanced(),
        })
    }
}

/// How the crash went.
pub struct Crash {
    /// Calls a second when the server was killed.
    pub calls_per_second: f64,
    /// From starting the new process until it accepted connections.
    pub ready_after: Duration,
    pub ledger: LedgerCheck,
    /// Whether the books of every fork balance after the restart.
    pub balanced: bool,
    /// Whether trading, with its scheduled calls, went on after the restart.
    pub resumed: bool,
}

impl Crash {
    /// Whether nothing confirmed was lost and the invariants hold.
    pub fn survived(&self) -> bool {
        self.ledger.holds() && self.balanced && self.resumed && self.ledger.confirmed > 0
    }
}

/// Everything the demo found out.
pub struct Report {
    pub outcomes: Vec<Outcome>,
    pub crash: Crash,
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.after.balanced()) && self.crash.survived()
    }

    /// The report as one JSON object.
    pub fn json(&self) -> Value {
        json!({
            "passed": self.passed(),
            "outcomes": self.outcomes.iter().map(Outcome::json).collect::<Vec<_>>(),
            "crash": {
                "calls_per_second": self.crash.calls_per_second.round(),
                "ready_after_ms": self.crash.ready_after.as_millis() as u64,
                "confirmed": self.crash.ledger.confirmed,
                "missing": self.crash.ledger.missing,
                "foreign": self.crash.ledger.foreign,
                "committed_unacknowledged": self.crash.ledger.unacknowledged,
                "balanced": self.crash.balanced,
                "resumed": self.crash.resumed,
            },
        })
    }
}

/// The outcomes as a table.
pub fn table(outcomes: &[Outcome], screen: &Screen) -> String {
    let head = ["fork", "rules", "made in", "calls/s", "sales", "crates", "prices", "fees", "gini, books"];
    let rows: Vec<[String; 9]> = outcomes.iter().map(|outcome| outcome.cells(screen)).collect();
    let visible =
        |cell: &str| cell.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "").chars().count();
    let width =
        |column: usize| rows.iter().map(|row| visible(&row[column])).chain([head[column].len()]).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let mut text = String::new();
    let mut line = |cells: &[&str]| {
        text.push_str("         ");
        for (column, cell) in cells.iter().enumerate() {
            let space = " ".repeat(widths[column] - visible(cell));
            // Names to the left, numbers to the right.
            let (before, after) = if column < 2 { ("", space.as_str()) } else { (space.as_str(), "") };
            let _ = write!(text, " {before}{cell}{after} ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(&head);
    line(&widths.each_ref().map(|width| "─".repeat(*width)).each_ref().map(String::as_str));
    for row in &rows {
        line(&row.each_ref().map(String::as_str));
    }
    text
}
