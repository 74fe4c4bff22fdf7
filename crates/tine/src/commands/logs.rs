//! `tine logs`

use serde_json::json;
use tine_client::http::LogRecord;
use tine_types::Timestamp;

use super::Context;
use crate::{args::LogsArgs, failure::Failure, output::printable};

/// Prints the log's last lines, and new ones if asked.
///
/// # Errors
/// The client's.
pub fn run(context: &Context, args: &LogsArgs) -> Result<(), Failure> {
    if args.follow {
        for record in context.http.follow_logs(&args.database, Some(args.lines))? {
            print(context, &record?)?;
        }
        return Ok(());
    }
    for record in context.http.logs(&args.database, Some(args.lines))? {
        print(context, &record)?;
    }
    Ok(())
}

fn print(context: &Context, record: &LogRecord) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.json(&json!({
            "level": record.level, "ts": record.ts, "message": record.message,
            "function": record.function, "filename": record.filename, "line_number": record.line_number,
            "trace": record.trace,
        }));
    }
    context.output.line(&text(record))
}

fn text(record: &LogRecord) -> String {
    let time = Timestamp::from_micros(record.ts).to_rfc3339();
    let place = match (&record.filename, record.line_number) {
        (Some(file), Some(line)) => format!("  ({file}:{line})"),
        (Some(file), None) => format!("  ({file})"),
        _ => String::new(),
    };
    let function = record.function.as_deref().map(|function| format!("{function}: ")).unwrap_or_default();
    format!("{time} {:<5} {function}{}{place}", record.level.to_uppercase(), printable(&record.message))
}

#[cfg(test)]
mod tests {
    use super::{LogRecord, text};

    #[test]
    fn lines() {
        let mut record = LogRecord {
            level: "Warn".into(),
            ts: 1_000_000,
            message: "low\u{1b}[0m".into(),
            function: Some("sell".into()),
            filename: Some("index.ts".into()),
            line_number: Some(7),
            trace: None,
        };
        assert_eq!(text(&record), "1970-01-01T00:00:01.000000Z WARN  sell: low\\u{1b}[0m  (index.ts:7)");
        (record.function, record.filename, record.line_number) = (None, None, None);
        assert_eq!(text(&record), "1970-01-01T00:00:01.000000Z WARN  low\\u{1b}[0m");
    }
}
