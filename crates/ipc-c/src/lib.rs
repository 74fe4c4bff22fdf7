//! `libtine_ipc`: the transport for languages that speak C. `include/tine_ipc.h` is the interface, and
//! says what each function does.
//!
//! # Terms of every function, which its `SAFETY` comments refer to
//!
//! - *Handles* come from this library, have not been closed, and are not closed while used. Null is an
//!   error (TN1064), or nothing, never undefined.
//! - *Ranges* of bytes are readable for their length during the call; one of length 0 may be null.
//! - *Places* for results are writable.
//! - *Texts* end with a zero byte.
//!
//! A panic ends the process: it cannot cross the border, and would be a mistake of this library.

mod client;
mod memory;
mod server;

use std::{cell::RefCell, ffi::CString, ffi::c_char};

/// What a function came to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Nothing came in time.
    Wait = 1,
    /// There will be no more.
    End = 2,
    /// It failed.
    Error = 3,
}

/// The code of wrong arguments.
const CODE_ARGUMENT: &str = "TN1064";

thread_local! {
    static LAST_ERROR: RefCell<(CString, CString)> = RefCell::default();
}

/// Notes why the call of this thread failed.
fn failed(code: &str, message: &str) -> Status {
    // A zero byte would end the text early.
    let text = |text: &str| CString::new(text.replace('\0', " ")).expect("it has no zero byte");
    LAST_ERROR.set((text(code), text(message)));
    Status::Error
}

/// A null where something is needed.
fn missing(what: &str) -> Status {
    failed(CODE_ARGUMENT, &format!("{what} is null or not text"))
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn tine_error_code() -> *const c_char {
    LAST_ERROR.with_borrow(|(code, _)| code.as_ptr())
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn tine_error_message() -> *const c_char {
    LAST_ERROR.with_borrow(|(_, message)| message.as_ptr())
}
