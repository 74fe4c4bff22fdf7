//! What `tine dev` tells: lines for people, or one JSON object per event.

use std::{io, time::Duration};

use serde_json::{Value, json};
use tine_client::ClientError;
use tine_host::{LogLevel, LogRecord, MAIN};
use tine_types::Timestamp;

use super::{
    CLEAR_WORD,
    project::Project,
    server::{DevServer, PAGES_PATH},
};
use crate::{
    failure::Failure,
    output::{Output, duration_text, printable},
    terminal::{Palette, Style},
};

/// Tells what happens.
pub struct Reporter<'a> {
    output: &'a Output,
    palette: Palette,
}

impl<'a> Reporter<'a> {
    /// Tells it there.
    pub fn new(output: &'a Output) -> Reporter<'a> {
        Reporter { output, palette: Palette::of(&io::stdout()) }
    }

    /// The server takes requests.
    pub fn listening(&self, server: &DevServer, project: &Project) -> Result<(), Failure> {
        let page = project.pages.as_ref().map(|_| format!("{}{PAGES_PATH}", server.url()));
        if self.output.is_json() {
            return self.output.json(&json!({
                "event": "listening", "url": server.url(), "database": project.database, "page": page,
                "data_dir": server.data_dir(), "token": server.throwaway_token(),
                "took_ms": server.took().as_millis() as u64,
            }));
        }
        let data = match server.throwaway_token() {
            Some(_) => "temporary, deleted at the end".to_owned(),
            None => Project::shown(server.data_dir()),
        };
        let name = self.palette.paint(Style::Bold, &project.database);
        let address = |text: &str| self.palette.paint(Style::Cyan, text);
        let mut lines = vec![format!("tine dev: {name} from {}", Project::shown(&project.entry))];
        lines.push(format!("  server  {}", address(server.url())));
        lines.extend(page.map(|page| format!("  page    {}", address(&page))));
        lines.push(format!("  data    {data}"));
        self.output.lines(lines)
    }

    /// A module took over.
    pub fn published(&self, database: &str, is_new: bool, files: usize, took: Duration) -> Result<(), Failure> {
        let took_us = took.as_micros() as u64;
        if self.output.is_json() {
            return self.output.json(&json!({
                "event": "published", "database": database, "new": is_new, "files": files, "took_us": took_us,
            }));
        }
        let kind = if is_new { " with new data" } else { "" };
        let done = self.palette.paint(Style::Green, "published");
        let plural = if files == 1 { "" } else { "s" };
        self.output.line(&format!("{done} {database}{kind} from {files} file{plural} in {}", duration_text(took_us)))
    }

    /// A save was not published; what ran goes on.
    pub fn failed(&self, failure: &Failure) -> Result<(), Failure> {
        self.problem("error", failure.code(), &failure.to_string(), None, None)
    }

    /// The rows do not fit; somebody has to decide.
    pub fn incompatible(&self, error: &ClientError, plan: Option<&str>, can_ask: bool) -> Result<(), Failure> {
        let next = match can_ask {
            true => format!("save a module that fits, or type `{CLEAR_WORD}` and Enter to delete all rows"),
            false => "save a module that fits, or start with --yes=clear to delete all rows".to_owned(),
        };
        self.problem("incompatible", error.shown_code(), &error.to_string(), plan, Some(&next))
    }

    /// The rows do not fit, and are about to be deleted as agreed.
    pub fn clearing(&self, error: &ClientError, plan: Option<&str>) -> Result<(), Failure> {
        let next = Some("deleting all rows, as --yes says");
        self.problem("incompatible", error.shown_code(), &error.to_string(), plan, next)
    }

    /// `plan` says in several lines what `message` says in one; people get the better of the two.
    fn problem(
        &self,
        event: &str,
        code: &str,
        message: &str,
        plan: Option<&str>,
        next: Option<&str>,
    ) -> Result<(), Failure> {
        if self.output.is_json() {
            let event = json!({ "event": event, "code": code, "message": message, "plan": plan, "next": next });
            return self.output.json(&event);
        }
        let head = self.palette.paint(Style::Red, &format!("error[{code}]"));
        let text = printable(plan.unwrap_or(message).trim_end());
        let next = next.map(|next| format!("  next: {next}"));
        self.output.lines([format!("{head}: {text}")].into_iter().chain(next))
    }

    /// The page was read again.
    pub fn pages(&self, count: usize) -> Result<(), Failure> {
        if self.output.is_json() {
            return self.output.json(&json!({ "event": "pages", "files": count }));
        }
        let plural = if count == 1 { "" } else { "s" };
        self.output.line(&format!("{} {count} file{plural} of the page", self.palette.paint(Style::Green, "read")))
    }

    /// A line of the module's log.
    pub fn logged(&self, record: &LogRecord) -> Result<(), Failure> {
        if self.output.is_json() {
            let mut line = record.to_json();
            line["event"] = Value::from("log");
            return self.output.json(&line);
        }
        self.output.line(&self.log_text(record))
    }

    fn log_text(&self, record: &LogRecord) -> String {
        let time = Timestamp::from_micros(record.timestamp_micros).to_rfc3339();
        let time = self.palette.paint(Style::Dim, time.get(11..23).unwrap_or(&time));
        let style = match record.level {
            LogLevel::Panic | LogLevel::Error => Style::Red,
            LogLevel::Warn => Style::Yellow,
            LogLevel::Info => Style::Green,
            LogLevel::Debug | LogLevel::Trace => Style::Dim,
        };
        let level = self.palette.paint(style, &format!("{:<5}", record.level.name().to_uppercase()));
        let fork = if &*record.fork == MAIN { String::new() } else { format!("[{}] ", record.fork) };
        let function = if record.function.is_empty() { String::new() } else { format!("{}: ", record.function) };
        // The trace of a failed call has the message, the line of the source and the calls that led there.
        let text = printable(record.trace.as_deref().unwrap_or(&record.message));
        let place = match (&record.trace, &record.location) {
            (None, Some((file, line))) => self.palette.paint(Style::Dim, &format!("  ({file}:{line})")),
            _ => String::new(),
        };
        format!("{time} {level} {fork}{function}{text}{place}")
    }

    /// Lines are missing.
    pub fn log_overran(&self, count: u64) -> Result<(), Failure> {
        if self.output.is_json() {
            return self.output.json(&json!({ "event": "log", "level": "Warn", "lost": count }));
        }
        self.output.line(&self.palette.paint(Style::Yellow, &format!("{count} lines of the log were too fast to show")))
    }

    /// The end begins.
    pub fn stopping(&self) -> Result<(), Failure> {
        if self.output.is_json() {
            self.output.json(&json!({ "event": "stopping" }))
        } else {
            self.output.line("ending")
        }
    }
}

#[cfg(test)]
mod tests {
    use tine_host::{LogLevel, LogRecord};

    use super::Reporter;
    use crate::output::{Format, Output};

    #[test]
    fn log_lines() {
        let output = Output::new(Format::Table);
        let reporter = Reporter::new(&output);
        let mut record = LogRecord {
            level: LogLevel::Info,
            timestamp_micros: 1_500_000,
            fork: "main".into(),
            function: "add".into(),
            location: Some(("index.ts".into(), 7)),
            message: "hello\u{1b}[2J".into(),
            trace: None,
        };
        assert_eq!(reporter.log_text(&record), "00:00:01.500 INFO  add: hello\\u{1b}[2J  (index.ts:7)");
        record.fork = "exp1".into();
        record.level = LogLevel::Panic;
        record.trace = Some("index.ts:7:3: oh\n  7 | x\n    | ^".into());
        let text = reporter.log_text(&record);
        assert_eq!(text, "00:00:01.500 PANIC [exp1] add: index.ts:7:3: oh\n  7 | x\n    | ^");
    }
}
