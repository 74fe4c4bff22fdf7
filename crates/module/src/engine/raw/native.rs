//! Functions that JavaScript calls and Rust runs.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;

use rquickjs_sys as qjs;

use super::{Borrowed, Cx, Exception, JsResult, Value, c_string};

impl<'js> Cx<'js> {
    /// A JavaScript function that runs `F`. `length` is the number of arguments it shows, `magic` comes with each call.
    pub(in crate::engine) fn function<F: NativeFn>(
        self,
        name: &str,
        length: u8,
        magic: u16,
        _: F,
    ) -> JsResult<Value<'js>> {
        self.native(name, length, magic, qjs::JSCFunctionEnum_JS_CFUNC_generic_magic, trampoline::<F> as *const c_void)
    }

    /// Like [`Cx::function`], for functions called with `new`.
    pub(in crate::engine) fn constructor<F: NativeFn>(
        self,
        name: &str,
        length: u8,
        magic: u16,
        _: F,
    ) -> JsResult<Value<'js>> {
        self.native(
            name,
            length,
            magic,
            qjs::JSCFunctionEnum_JS_CFUNC_constructor_magic,
            trampoline::<F> as *const c_void,
        )
    }

    /// Like [`Cx::function`], for the `next` of an iterator: `None` ends it, and a `for` loop gets values without result objects.
    pub(in crate::engine) fn iterator_next<F: NativeNext>(self, _: F) -> JsResult<Value<'js>> {
        self.native("next", 0, 0, qjs::JSCFunctionEnum_JS_CFUNC_iterator_next, next_trampoline::<F> as *const c_void)
    }

    fn native(
        self,
        name: &str,
        length: u8,
        magic: u16,
        prototype: qjs::JSCFunctionEnum,
        function: *const c_void,
    ) -> JsResult<Value<'js>> {
        let name = c_string(name);
        // SAFETY: callers pair the function with the prototype that has its signature; all of these take `magic` or ignore it.
        self.check(unsafe {
            let function = std::mem::transmute::<*const c_void, qjs::JSCFunction>(function);
            qjs::JS_NewCFunction2(
                self.ptr(),
                function,
                name.as_ptr(),
                c_int::from(length),
                prototype,
                c_int::from(magic as i16),
            )
        })
    }
}

/// One call of a native.
pub(in crate::engine) struct Call<'js> {
    pub(in crate::engine) cx: Cx<'js>,
    /// What the function was made with.
    pub(in crate::engine) magic: u16,
    this: qjs::JSValue,
    count: usize,
    args: *const qjs::JSValue,
}

impl<'js> Call<'js> {
    /// The receiver; for a constructor the `new.target`.
    pub(in crate::engine) fn this(&self) -> Borrowed<'js> {
        self.cx.borrow_raw(self.this)
    }

    /// An argument; undefined if there are fewer.
    #[inline]
    pub(in crate::engine) fn arg(&self, index: usize) -> Borrowed<'js> {
        // SAFETY: the engine passed `count` arguments, alive during the call, which a `Call` does not outlive.
        let raw = if index < self.count { unsafe { *self.args.add(index) } } else { qjs::JS_UNDEFINED };
        self.cx.borrow_raw(raw)
    }
}

/// A native function. Implemented by `fn` items and closures that capture nothing.
pub(in crate::engine) trait NativeFn: Copy + 'static {
    fn run<'js>(self, call: &Call<'js>) -> JsResult<Value<'js>>;
}

impl<F> NativeFn for F
where
    F: for<'a, 'js> Fn(&'a Call<'js>) -> JsResult<Value<'js>> + Copy + 'static,
{
    #[inline(always)]
    fn run<'js>(self, call: &Call<'js>) -> JsResult<Value<'js>> {
        self(call)
    }
}

/// A native `next`.
pub(in crate::engine) trait NativeNext: Copy + 'static {
    fn run<'js>(self, call: &Call<'js>) -> JsResult<Option<Value<'js>>>;
}

impl<F> NativeNext for F
where
    F: for<'a, 'js> Fn(&'a Call<'js>) -> JsResult<Option<Value<'js>>> + Copy + 'static,
{
    #[inline(always)]
    fn run<'js>(self, call: &Call<'js>) -> JsResult<Option<Value<'js>>> {
        self(call)
    }
}

/// The value of a function type that has only one: such functions need no pointer.
fn the<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "natives capture nothing") };
    // SAFETY: a value of size zero has no bytes to get wrong, and `F: Copy` has no drop; `fn` items and closures
    // without captures have no other invariant.
    unsafe { NonNull::<F>::dangling().read() }
}

/// Runs `body` and turns its result into what the engine expects. A panic is kept and thrown on once the engine's frames are gone.
fn guarded<'js, T>(cx: Cx<'js>, body: impl FnOnce() -> JsResult<T>) -> JsResult<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => {
            cx.state().set_panic(payload);
            // SAFETY: the context is alive. An error object is wanted because only those can be uncatchable.
            let error = cx.check(unsafe { qjs::JS_NewError(cx.ptr()) })?;
            Err(cx.throw_uncatchable(error))
        }
    }
}

unsafe extern "C" fn trampoline<F: NativeFn>(
    context: *mut qjs::JSContext,
    this: qjs::JSValue,
    count: c_int,
    args: *mut qjs::JSValue,
    magic: c_int,
) -> qjs::JSValue {
    // SAFETY: the engine calls this inside a `Cx`'s life, with `count` arguments.
    let cx = Cx { context: unsafe { NonNull::new_unchecked(context) }, marker: PhantomData };
    let call = Call { cx, magic: magic as u16, this, count: count as usize, args };
    match guarded(cx, || the::<F>().run(&call)) {
        Ok(value) => value.into_raw(),
        Err(Exception) => qjs::JS_EXCEPTION,
    }
}

unsafe extern "C" fn next_trampoline<F: NativeNext>(
    context: *mut qjs::JSContext,
    this: qjs::JSValue,
    count: c_int,
    args: *mut qjs::JSValue,
    done: *mut c_int,
    _magic: c_int,
) -> qjs::JSValue {
    // SAFETY: the engine calls this inside a `Cx`'s life, with `count` arguments and room for `done`.
    let cx = Cx { context: unsafe { NonNull::new_unchecked(context) }, marker: PhantomData };
    let call = Call { cx, magic: 0, this, count: count as usize, args };
    let result = guarded(cx, || the::<F>().run(&call));
    // SAFETY: as above.
    unsafe { done.write(c_int::from(!matches!(result, Ok(Some(_))))) };
    match result {
        Ok(Some(value)) => value.into_raw(),
        Ok(None) => qjs::JS_UNDEFINED,
        Err(Exception) => {
            // SAFETY: as above; an exception is told by the result alone.
            unsafe { done.write(0) };
            qjs::JS_EXCEPTION
        }
    }
}
