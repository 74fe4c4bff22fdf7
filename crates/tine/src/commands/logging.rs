//! The server's own log: what is logged, and in which form.
//!
//! What is logged: `TINE_LOG` or, without it, `RUST_LOG`, in the notation of
//! `tracing_subscriber::EnvFilter` (`info,tine_server=debug`); else `--log-level`; else the default of
//! the verb. The variables win because they say more than one level can, and are set for a reason when
//! they are set at all. A variable that cannot be read as a filter is an error, not a silent default.
//!
//! Everything goes to standard error, one event a line. Events of a request carry its span with the
//! request id, which is also the reply's `x-request-id`.

use std::io;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::{failure::Failure, terminal::Palette};

/// Variables with a filter, the first that is set wins.
const VARIABLES: [&str; 2] = ["TINE_LOG", "RUST_LOG"];

/// Options of every verb that runs a server.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LogArgs {
    /// Least level that is logged, unless TINE_LOG or RUST_LOG hold a filter [default: info]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Form of the server's own log on standard error
    #[arg(long, value_enum, value_name = "FORM", default_value_t, env = "TINE_LOG_FORMAT", hide_env_values = true)]
    pub log_format: LogFormat,
}

/// Levels, from nothing to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Forms of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: timestamp, level, target, message, fields, and the spans around it.
    Json,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Sends the log to standard error; `default` is what is logged unless the options or variables say otherwise.
///
/// # Errors
/// A variable whose text is no filter.
pub fn start(args: &LogArgs, default: LogLevel) -> Result<(), Failure> {
    let set =
        VARIABLES.into_iter().find_map(|name| Some((name, std::env::var(name).ok().filter(|text| !text.is_empty())?)));
    let filter = filter(set, args.log_level.unwrap_or(default))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Somebody else's subscriber (in a test) may be there already.
    let _ = match args.log_format {
        LogFormat::Text => builder.with_ansi(Palette::of(&io::stderr()).is_colored()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}

fn filter(variable: Option<(&str, String)>, level: LogLevel) -> Result<EnvFilter, Failure> {
    let Some((name, text)) = variable else { return Ok(EnvFilter::new(level.name())) };
    EnvFilter::try_new(&text).map_err(|error| Failure::Usage {
        message: format!("the variable {name} holds no filter: {error}"),
        next: Some(
            "write it as LEVEL or TARGET=LEVEL, separated by commas, for example info,tine_server=debug".to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{LogLevel, filter};

    #[test]
    fn a_variable_wins_over_the_level_and_must_be_a_filter() {
        let shown = |variable: Option<&str>| {
            filter(variable.map(|text| ("RUST_LOG", text.to_owned())), LogLevel::Warn).map(|filter| filter.to_string())
        };
        assert_eq!(shown(None).expect("a filter"), "warn");
        assert_eq!(shown(Some("tine_host=debug")).expect("a filter"), "tine_host=debug");
        let failure = shown(Some("tine_host=loud")).expect_err("no filter");
        assert!(failure.to_string().contains("RUST_LOG"), "{failure}");
    }
}
