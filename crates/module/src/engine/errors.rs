//! Exceptions: throwing them from natives, and what those that nobody caught mean.

use tine_tables::TableError;

use super::program::Program;
use super::raw::{Cx, Exception, Value};
use super::state::Stop;
use crate::call::{CallError, SyscallError};
use crate::diagnostic::{Diagnostic, SourceLocation, clip};

/// The message of the engine's error for calls nested too deeply.
const STACK_OVERFLOW_MESSAGE: &str = "Maximum call stack size exceeded";

/// The language's classes of errors that natives throw.
#[derive(Clone, Copy)]
pub(super) enum ErrorClass {
    Type,
    Range,
    Plain,
}

/// Throws an error of the language.
#[cold]
pub(super) fn throw(cx: Cx<'_>, class: ErrorClass, message: &str) -> Exception {
    let boot = cx.state().boot();
    throw_new(
        cx,
        match class {
            ErrorClass::Type => boot.type_error,
            ErrorClass::Range => boot.range_error,
            ErrorClass::Plain => boot.error,
        },
        message,
    )
}

/// Throws the SDK's error for a code of the module ABI.
#[cold]
pub(super) fn throw_host(cx: Cx<'_>, error: &SyscallError) -> Exception {
    if let Some(bundle) = cx.state().bundle.get() {
        let class = match bundle.error_class(cx, error.code) {
            Ok(class) => class.unwrap_or(cx.state().boot().error),
            Err(exception) => return exception,
        };
        return throw_new(cx, class, &error.message);
    }
    let sdk = cx.state().boot().sdk();
    let class = sdk.error_classes.get(usize::from(error.code)).copied().flatten();
    throw_new(cx, class.unwrap_or(sdk.host_error), &error.message)
}

/// The class of errors whose text is for the caller.
fn sender_error(cx: Cx<'_>) -> Option<super::raw::Root> {
    match cx.state().bundle.get() {
        Some(bundle) => bundle.sender_error(),
        None => Some(cx.state().boot().sdk().sender_error),
    }
}

/// Throws what a failed table operation means: an error the module can handle, or the end of the call.
#[cold]
pub(super) fn throw_table(cx: Cx<'_>, error: &TableError) -> Exception {
    match error.syscall_code() {
        Some(code) => throw_host(cx, &SyscallError::new(code, error.to_string())),
        None => throw_fault(cx, with_sources(error)),
    }
}

/// Ends the call: the host cannot go on. No code of the module runs any more.
#[cold]
pub(super) fn throw_fault(cx: Cx<'_>, message: String) -> Exception {
    cx.state().set_fault(message);
    let boot = cx.state().boot();
    match cx.string("the host failed").and_then(|text| cx.borrow(boot.error).construct(&text)) {
        Ok(error) => cx.throw_uncatchable(error),
        Err(exception) => exception,
    }
}

fn throw_new(cx: Cx<'_>, class: super::raw::Root, message: &str) -> Exception {
    match cx.string(message).and_then(|text| cx.borrow(class).construct(&text)) {
        Ok(error) => cx.throw(error),
        Err(exception) => exception,
    }
}

/// An error with its causes.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What the pending exception, which nobody caught, says about the call.
///
/// Looking at it may run code of the user's (getters, proxies, `toString`), so the guard stays armed meanwhile.
pub(super) fn take(cx: Cx<'_>, program: &Program) -> CallError {
    let (value, _) = cx.take_exception();
    of_value(cx, program, &value)
}

/// Like [`take`], for an exception that was taken before.
pub(super) fn of_value(cx: Cx<'_>, program: &Program, value: &Value<'_>) -> CallError {
    if let Some(error) = stopped(cx, program, Some(value)) {
        return error;
    }
    let is_sender_error = sender_error(cx)
        .filter(|_| value.is_object())
        .is_some_and(|class| caught(cx, value.is_instance_of(class)).unwrap_or(false));
    let error = if is_sender_error {
        CallError::User(property(cx, value, cx.state().boot().atoms.message))
    } else {
        let diagnostic = describe(cx, program, value);
        if diagnostic.message.ends_with(STACK_OVERFLOW_MESSAGE) && value.is_error() {
            CallError::StackOverflow { location: diagnostic.location }
        } else {
            CallError::Thrown(Box::new(diagnostic))
        }
    };
    // The code that ran to describe it may have used up the rest of the time.
    stopped(cx, program, None).unwrap_or(error)
}

/// Whether the call was stopped rather than failing by itself.
pub(super) fn stopped(cx: Cx<'_>, program: &Program, exception: Option<&Value<'_>>) -> Option<CallError> {
    let state = cx.state();
    if let Some(fault) = state.take_fault() {
        return Some(CallError::Fatal(fault));
    }
    let stop = if state.heap.has_refused() { Stop::OutOfMemory } else { state.guard.stop()? };
    // The exception is the engine's own, so its stack is data.
    let location = exception.filter(|value| value.is_error()).and_then(|value| location(cx, program, value));
    Some(match stop {
        Stop::Deadline => CallError::Deadline { location },
        Stop::OutOfMemory => CallError::OutOfMemory { location },
        Stop::Interrupted => CallError::Interrupted { location },
    })
}

fn location(cx: Cx<'_>, program: &Program, error: &Value<'_>) -> Option<SourceLocation> {
    let stack = property(cx, error, cx.state().boot().atoms.stack);
    program.frames(&stack).into_iter().next().map(|frame| frame.location)
}

/// A thrown value as text with its place.
pub(super) fn describe(cx: Cx<'_>, program: &Program, value: &Value<'_>) -> Diagnostic {
    if !value.is_error() {
        let text = caught(cx, value.to_text()).unwrap_or_else(|| "a value that cannot be shown".to_owned());
        return Diagnostic::bare(format!("uncaught: {}", clip(text)));
    }
    let atoms = &cx.state().boot().atoms;
    let (name, message) = (property(cx, value, atoms.name), property(cx, value, atoms.message));
    let title = match (name.is_empty(), message.is_empty()) {
        (true, _) => message,
        (false, true) => name,
        (false, false) => format!("{name}: {message}"),
    };
    program.diagnostic(title, &property(cx, value, atoms.stack))
}

/// A property as text; empty if it is undefined or cannot be read.
fn property(cx: Cx<'_>, value: &Value<'_>, name: super::raw::Atom) -> String {
    let read = value.get(name).and_then(|found| if found.is_nullish() { Ok(String::new()) } else { found.to_text() });
    clip(caught(cx, read).unwrap_or_default())
}

/// Drops the exception of a failed operation.
fn caught<T>(cx: Cx<'_>, result: Result<T, Exception>) -> Option<T> {
    result.inspect_err(|_| drop(cx.take_exception())).ok()
}
