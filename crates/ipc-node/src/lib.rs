//! The native addon through which TypeScript uses shared memory. `sdks/typescript/src/native.ts` declares what it exports.
//!
//! It is as thin as it can be: JavaScript's side has promises, timers and types; this side has handles, and calls a JavaScript
//! function when something happened on another thread.
//!
//! # Terms of every export, which `SAFETY` comments refer to
//!
//! - Exports are called by Node on its own thread, with an environment and values that live during the call.
//! - Externals are made by [`value::external`] alone, and carry the type that they hold.

mod client;
mod notify;
mod server;
mod value;

use napi_sys::{napi_callback, napi_env, napi_value};

/// What Node calls when it loads the addon.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn napi_register_module_v1(env: napi_env, exports: napi_value) -> napi_value {
    let functions: [(&str, napi_callback); 16] = [
        ("connect", Some(client::connect)),
        ("call", Some(client::call)),
        ("stream", Some(client::stream)),
        ("streamTake", Some(client::stream_take)),
        ("streamCancel", Some(client::stream_cancel)),
        ("disconnect", Some(client::disconnect)),
        ("listen", Some(server::listen)),
        ("respond", Some(server::respond)),
        ("respondError", Some(server::respond_error)),
        ("respondStream", Some(server::respond_stream)),
        ("wantsStream", Some(server::wants_stream)),
        ("senderSend", Some(server::sender_send)),
        ("senderIsCancelled", Some(server::sender_is_cancelled)),
        ("senderFinish", Some(server::sender_finish)),
        ("senderFail", Some(server::sender_fail)),
        ("shutdown", Some(server::shutdown)),
    ];
    // SAFETY: Node has loaded this library, so its symbols are there; the rest by the terms.
    unsafe {
        napi_sys::setup();
        for (name, function) in functions {
            let mut made = std::ptr::null_mut();
            let length = name.len() as isize;
            napi_sys::napi_create_function(
                env,
                name.as_ptr().cast(),
                length,
                function,
                std::ptr::null_mut(),
                &mut made,
            );
            let name = std::ffi::CString::new(name).expect("names have no zero byte");
            napi_sys::napi_set_named_property(env, exports, name.as_ptr(), made);
        }
    }
    exports
}
