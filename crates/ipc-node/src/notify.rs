//! Calling JavaScript from other threads.

use std::{ffi::c_void, ptr::null_mut};

use napi_sys::{napi_env, napi_threadsafe_function, napi_value};

use crate::value;

type Work = Box<dyn FnOnce(napi_env, napi_value) + Send>;

/// A JavaScript function that any thread may have called. While it lives, so does the event loop, unless it is [idle](Self::idle).
pub struct Notifier {
    function: napi_threadsafe_function,
}

// SAFETY: that is what Node makes threadsafe functions for.
unsafe impl Send for Notifier {}
// SAFETY: as above.
unsafe impl Sync for Notifier {}

impl Notifier {
    pub fn new(env: napi_env, function: napi_value) -> Notifier {
        let mut made = null_mut();
        // SAFETY: by the crate's terms. The queue is unbounded: what fills it is bounded by requests in flight.
        unsafe {
            napi_sys::napi_create_threadsafe_function(
                env,
                function,
                null_mut(),
                value::text(env, "tine-ipc"),
                0,
                1,
                null_mut(),
                None,
                null_mut(),
                Some(run),
                &mut made,
            );
        }
        Notifier { function: made }
    }

    /// Lets the event loop end although this lives.
    pub fn idle(self, env: napi_env) -> Notifier {
        // SAFETY: the function lives, and this is Node's thread.
        unsafe { napi_sys::napi_unref_threadsafe_function(env, self.function) };
        self
    }

    /// Has `work` run on Node's thread, with the JavaScript function.
    pub fn send(&self, work: impl FnOnce(napi_env, napi_value) + Send + 'static) {
        let work: Box<Work> = Box::new(Box::new(work));
        let data = Box::into_raw(work);
        // SAFETY: the function lives as long as this does.
        let status = unsafe {
            napi_sys::napi_call_threadsafe_function(
                self.function,
                data.cast(),
                napi_sys::ThreadsafeFunctionCallMode::nonblocking,
            )
        };
        if status != 0 {
            // SAFETY: Node did not take it: it is shutting down.
            drop(unsafe { Box::from_raw(data) });
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        // SAFETY: released once; calls that were made are still delivered.
        unsafe {
            napi_sys::napi_release_threadsafe_function(self.function, napi_sys::ThreadsafeFunctionReleaseMode::release);
        }
    }
}

unsafe extern "C" fn run(env: napi_env, function: napi_value, _: *mut c_void, data: *mut c_void) {
    // SAFETY: made by `send`, and delivered once.
    let work = unsafe { Box::from_raw(data.cast::<Work>()) };
    // Without an environment Node is shutting down, and nobody listens.
    if !env.is_null() {
        work(env, function);
    }
}
