//! `tine call`

use std::{io::Read, time::Instant};

use serde_json::{Value, json};
use tine_client::ClientError;

use super::Context;
use crate::{args::CallArgs, failure::Failure, output::duration_text};

/// Code of a call that the module refused by throwing a `SenderError`.
const SENDER_ERROR: &str = "TN0623";
/// Bound on arguments read from standard input, in bytes: the server takes no more.
const INPUT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Calls a reducer or procedure and prints what it returns.
///
/// # Errors
/// Arguments that are not JSON, and the client's errors.
pub fn run(context: &Context, args: &CallArgs) -> Result<(), Failure> {
    let arguments = arguments(args)?;
    if args.dry_run {
        let ran = context.http.dry_run(&args.database, &args.function, &arguments);
        return dry_run(context, &ran.map_err(|error| explain(error, &args.database))?);
    }
    let start = Instant::now();
    let called = context.http.call(&args.database, &args.function, &arguments);
    let called = called.map_err(|error| explain(error, &args.database))?;
    let took_us = start.elapsed().as_micros() as u64;
    if context.output.is_json() {
        return context.output.json(&json!({
            "function": args.function, "value": called.value, "server_us": called.duration_us, "took_us": took_us,
        }));
    }
    if let Some(value) = called.value {
        return context.output.line(&format!("{value:#}"));
    }
    context.output.line(&format!("{}: done in {}", args.function, duration_text(took_us)))
}

/// Shows what a call would change.
fn dry_run(context: &Context, ran: &Value) -> Result<(), Failure> {
    if context.output.is_json() {
        return context.output.json(ran);
    }
    let tables = ran["rows"].as_object().into_iter().flatten();
    let mut lines = Vec::new();
    for (name, rows) in tables {
        for (sign, list) in [("-", "deleted"), ("+", "inserted")] {
            let rows = rows[list].as_array().into_iter().flatten();
            lines.extend(rows.map(|row| format!("{sign} {name} {row}")));
        }
    }
    if lines.is_empty() {
        lines.push("it would change nothing".to_owned());
    }
    context.output.lines(lines)
}

/// Advice that fits calls.
fn explain(error: ClientError, database: &str) -> Failure {
    let next = match error.status() {
        Some(404) => format!("`tine describe {database}` shows its functions, `tine list` the databases"),
        Some(400) => format!("`tine describe {database} FUNCTION` shows its parameters"),
        // The module said no in its own words; its log has nothing to add.
        Some(530) if error.shown_code() == SENDER_ERROR => return Failure::Client { source: error, next: None },
        Some(530) => format!("`tine logs {database}` shows what the module logged"),
        _ => return error.into(),
    };
    Failure::Client { source: error, next: Some(next) }
}

/// The argument list: an array, or an object by parameter name.
fn arguments(args: &CallArgs) -> Result<Value, Failure> {
    let Some(all) = &args.args else {
        return Ok(Value::Array(args.arguments.iter().map(|text| argument(text)).collect()));
    };
    let text = if all == "-" { read_input()? } else { all.clone() };
    let parsed: Value =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("--args is not JSON: {error}")))?;
    if parsed.is_array() || parsed.is_object() {
        return Ok(parsed);
    }
    Err(Failure::Usage {
        message: "--args is neither a JSON array nor an object".to_owned(),
        next: Some(format!("for one argument: --args '[{parsed}]'")),
    })
}

/// One argument: JSON, or else a string, so that `Ada` needs no quotes inside quotes.
fn argument(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|source| Failure::File { path: "standard input".into(), source })?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::usage(format!("standard input holds more than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CallArgs, arguments};

    fn args(arguments: &[&str], args: Option<&str>) -> CallArgs {
        CallArgs {
            database: "db".into(),
            function: "add".into(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            args: args.map(str::to_owned),
            dry_run: false,
        }
    }

    #[test]
    fn argument_lists() {
        let table = [
            (args(&["Ada", "36", "\"36\"", "true", "[1,2]"], None), json!(["Ada", 36, "36", true, [1, 2]])),
            (args(&["18446744073709551615"], None), json!([18_446_744_073_709_551_615_u64])),
            (args(&[], None), json!([])),
            (args(&[], Some("{\"name\": \"Ada\"}")), json!({"name": "Ada"})),
            (args(&[], Some("[1]")), json!([1])),
        ];
        for (given, expected) in table {
            assert_eq!(arguments(&given).expect("fine"), expected);
        }
        for wrong in ["1", "{", "\"x\""] {
            assert_eq!(arguments(&args(&[], Some(wrong))).expect_err(wrong).exit() as u8, 2);
        }
    }
}
