//! The natives that are not about tables: the console, identities, the caller's token, and what procedures do to transactions.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use super::super::console::{self, TIMERS_MAX};
use super::super::context::ask_host;
use super::super::decode::big_from_text;
use super::super::errors::{self, ErrorClass};
use super::super::raw::{Call, Cx, JsResult, Value};
use super::arguments::argument;
use super::boot::state;
use crate::call::{LogLevel, SyscallError};

/// Console timers of the running call.
#[derive(Default)]
pub(super) struct Timers {
    running: RefCell<Vec<(u32, String, Instant)>>,
    last_id: Cell<u32>,
}

impl Timers {
    pub(super) fn clear(&self) {
        self.running.borrow_mut().clear();
    }
}

/// Throws if the host has failed earlier in the call: nothing of it may go on.
#[inline]
pub(super) fn refuse_after_fault(cx: Cx<'_>) -> JsResult<()> {
    if cx.state().has_fault() { Err(errors::throw_fault(cx, String::new())) } else { Ok(()) }
}

/// `console_log(level, message)`
pub(super) fn console_log<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    refuse_after_fault(call.cx)?;
    let level = LogLevel::from_abi(argument(call, 0, "level").u32()?);
    console::log_here(call.cx, level, argument(call, 1, "message").text()?)?;
    Ok(call.cx.undefined())
}

/// `console_timer_start(name)`
pub(super) fn timer_start<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    refuse_after_fault(cx)?;
    let name = argument(call, 0, "name").text()?;
    let timers = &state(cx).timers;
    let mut running = timers.running.borrow_mut();
    if running.len() >= TIMERS_MAX {
        drop(running);
        let problem = format!("more than {TIMERS_MAX} console timers run");
        return Err(errors::throw_host(cx, &SyscallError::new(SyscallError::HOST_CALL_FAILURE, problem)));
    }
    // Ids stay small integers; after two thousand million timers they begin again.
    let id = (timers.last_id.get() + 1) & (i32::MAX as u32);
    timers.last_id.set(id);
    running.push((id, name, Instant::now()));
    Ok(cx.int(id as i32))
}

/// `console_timer_end(id)`: logs the time.
pub(super) fn timer_end<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    refuse_after_fault(cx)?;
    let id = argument(call, 0, "timer").u32()?;
    let mut running = state(cx).timers.running.borrow_mut();
    let place = running.iter().position(|(running, _, _)| *running == id);
    let ended = place.map(|place| running.swap_remove(place));
    drop(running);
    let Some((_, name, started)) = ended else {
        let problem = "there is no such console timer: it ended, or its call did";
        return Err(errors::throw_host(cx, &SyscallError::new(SyscallError::NO_SUCH_CONSOLE_TIMER, problem)));
    };
    console::log_here(cx, LogLevel::Info, format!("{name}: {}", console::elapsed_text(started)))?;
    Ok(cx.undefined())
}

/// `identity()`: the database's, as a number.
pub(super) fn identity<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    refuse_after_fault(cx)?;
    match cx.state().call.context.with(|context| context.database_identity) {
        Some(identity) => big_from_text(cx, &format!("0x{}", identity.to_hex())),
        None => {
            Err(errors::throw(cx, ErrorClass::Plain, "no call is running: a bundle has no identity while it loads"))
        }
    }
}

/// `get_jwt_payload(connectionId)`: the claims of the caller's token as JSON text; empty if there are none, or for a connection
/// that is not the caller's.
pub(super) fn jwt_payload<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    refuse_after_fault(cx)?;
    let asked = argument(call, 0, "connection").u128()?;
    let payload = cx.state().call.context.with(|context| {
        let is_caller = context.connection_id.is_some_and(|id| id.get() == asked);
        context.jwt_payload.clone().filter(|_| is_caller)
    });
    cx.uint8_array(payload.flatten().as_deref().unwrap_or("").as_bytes())
}

/// `procedure_start_mut_tx()`: the time of the transaction.
pub(super) fn begin_transaction<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let time = ask_host(call.cx, |host| host.begin_transaction())?;
    call.cx.state().call.transaction_micros.set(Some(time.micros()));
    call.cx.big_i64(time.micros())
}

/// `procedure_commit_mut_tx()`
pub(super) fn commit_transaction<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.state().call.transaction_micros.set(None);
    ask_host(call.cx, |host| host.commit_transaction())?;
    Ok(call.cx.undefined())
}

/// `procedure_abort_mut_tx()`
pub(super) fn abort_transaction<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.cx.state().call.transaction_micros.set(None);
    ask_host(call.cx, |host| host.abort_transaction())?;
    Ok(call.cx.undefined())
}

/// `procedure_http_request(request, body)`: `[response, body]`.
pub(super) fn http_request<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let cx = call.cx;
    let request = argument(call, 0, "request").uint8_array()?;
    let is_text = call.arg(1).kind() == super::super::raw::Kind::String;
    let body = if is_text {
        argument(call, 1, "body").text()?.into_bytes()
    } else {
        argument(call, 1, "body").uint8_array()?
    };
    let (response, body) = ask_host(cx, |host| host.http_request(&request, &body))?;
    cx.array(vec![cx.uint8_array(&response)?, cx.uint8_array(&body)?])
}

/// `volatile_nonatomic_schedule_immediate(name, args)`
pub(super) fn schedule_immediate<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let function = argument(call, 0, "name").text()?;
    let arguments = argument(call, 1, "arguments").uint8_array()?;
    ask_host(call.cx, |host| host.schedule_immediate(&function, arguments))?;
    Ok(call.cx.undefined())
}
