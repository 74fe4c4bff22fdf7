//! The console and the text codecs.

use std::time::Instant;

use super::errors::{self, ErrorClass};
use super::raw::{Call, Cx, JsResult, Kind, Value};
use crate::call::{LogEntry, LogLevel};
use crate::diagnostic::clip;

/// Most lines that one call may log; what comes after is counted once and dropped. A loop that logs must not fill the disk.
pub(crate) const LOG_LINES_MAX: u32 = 1000;

/// Most timers that may run at once; more than a function can mean.
pub(super) const TIMERS_MAX: usize = 1024;

/// Adds the natives of this file to the object that the SDK gets.
pub(super) fn install<'js>(cx: Cx<'js>, native: &Value<'js>) -> JsResult<()> {
    native.define_named("log", cx.function("log", 2, 0, log)?)?;
    native.define_named("startTimer", cx.function("startTimer", 1, 0, start_timer)?)?;
    native.define_named("readTimer", cx.function("readTimer", 3, 0, read_timer)?)?;
    native.define_named("encodeUtf8", cx.function("encodeUtf8", 1, 0, encode_utf8)?)?;
    native.define_named("decodeUtf8", cx.function("decodeUtf8", 3, 0, decode_utf8)?)?;
    cx.watch_rejections();
    Ok(())
}

/// `log(level, message)`
fn log<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let level = match call.arg(0).kind() {
        Kind::Int(level) => LogLevel::from_abi(level as u32),
        _ => LogLevel::Info,
    };
    log_here(call.cx, level, call.arg(1).to_text()?)?;
    Ok(call.cx.undefined())
}

/// Logs a line with the place in the module that called.
pub(super) fn log_here(cx: Cx<'_>, level: LogLevel, message: String) -> JsResult<()> {
    let boot = cx.state().boot();
    // The stack of a new error tells who called.
    let here = cx.borrow(boot.error).construct(&cx.undefined())?;
    let stack = here.get(boot.atoms.stack)?.to_text()?;
    write(cx, level, message, &stack);
    Ok(())
}

/// What a timer's line says of the time that has passed.
pub(super) fn elapsed_text(started: Instant) -> String {
    format!("{:.3} ms", started.elapsed().as_secs_f64() * 1e3)
}

/// `startTimer(label)`. Time passes for the log alone: nothing of it reaches the module, whose clock stands still.
fn start_timer<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, label) = (call.cx, call.arg(0).to_text()?);
    let mut timers = cx.state().call.timers.borrow_mut();
    let problem = if timers.iter().any(|(running, _)| *running == label) {
        format!("timer '{label}' already exists")
    } else if timers.len() >= TIMERS_MAX {
        format!("more than {TIMERS_MAX} console timers run")
    } else {
        timers.push((label, Instant::now()));
        return Ok(cx.undefined());
    };
    drop(timers);
    log_here(cx, LogLevel::Warn, problem)?;
    Ok(cx.undefined())
}

/// `readTimer(label, text, ends)`: logs the time since the timer began, and the text behind it.
fn read_timer<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let (cx, label, text) = (call.cx, call.arg(0).to_text()?, call.arg(1).to_text()?);
    let mut timers = cx.state().call.timers.borrow_mut();
    let place = timers.iter().position(|(running, _)| *running == label);
    let started = place.map(|place| match call.arg(2).kind() {
        Kind::Bool(true) => timers.swap_remove(place).1,
        _ => timers[place].1,
    });
    drop(timers);
    match started {
        None => log_here(cx, LogLevel::Warn, format!("timer '{label}' does not exist"))?,
        Some(started) => {
            let line = format!("{label}: {} {text}", elapsed_text(started));
            log_here(cx, LogLevel::Info, line.trim_end().to_owned())?;
        }
    }
    Ok(cx.undefined())
}

/// Logs that a promise was rejected without anybody looking.
pub(super) fn log_rejection(reason: &Value<'_>) {
    let cx = reason.cx();
    let Some(program) = cx.state().program() else { return };
    let diagnostic = errors::describe(cx, program, reason);
    write(cx, LogLevel::Warn, format!("unhandled promise rejection: {diagnostic}"), "");
}

pub(super) fn write(cx: Cx<'_>, level: LogLevel, message: String, stack: &str) {
    let lines = &cx.state().call.log_lines;
    lines.set(lines.get().saturating_add(1));
    let (level, message) = match lines.get() {
        count if count <= LOG_LINES_MAX => (level, clip(message)),
        count if count == LOG_LINES_MAX + 1 => {
            (LogLevel::Warn, format!("more than {LOG_LINES_MAX} lines in one call, the rest is dropped"))
        }
        _ => return,
    };
    let frame = cx.state().program().and_then(|program| program.frames(stack).into_iter().next());
    let (file, line, function) = match frame {
        Some(frame) => (Some(frame.location.file), Some(frame.location.line), Some(frame.function)),
        None => (None, None, None),
    };
    let entry = LogEntry { level, message, file, line, function: function.filter(|name| !name.is_empty()) };
    // Without a host, as while a module loads, there is nobody to log to.
    cx.state().call.host.with(|host| host.log(entry));
}

/// `encodeUtf8(text)`
fn encode_utf8<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.arg(0).with_text(|text| call.cx.uint8_array(text.as_bytes()))?
}

/// `decodeUtf8(bytes, fatal, ignoreBom)`
fn decode_utf8<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let is_set = |index| call.arg(index).kind() == Kind::Bool(true);
    decode(call.cx, &call.arg(0), is_set(1), is_set(2))
}

/// The text behind a buffer or view. Bytes that are not UTF-8 throw if `fatal`, else they are replaced.
pub(super) fn decode<'js>(cx: Cx<'js>, bytes: &Value<'js>, fatal: bool, keep_bom: bool) -> JsResult<Value<'js>> {
    let decoded = bytes.with_bytes(|bytes| {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| !keep_bom).unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(cx.string(text)),
            Err(_) if fatal => Err("the bytes are not UTF-8"),
            Err(_) => Ok(cx.string(&String::from_utf8_lossy(bytes))),
        }
    });
    match decoded {
        Some(Ok(text)) => text,
        Some(Err(problem)) => Err(errors::throw(cx, ErrorClass::Type, problem)),
        None => Err(errors::throw(cx, ErrorClass::Type, "decode() needs an ArrayBuffer or a view")),
    }
}
