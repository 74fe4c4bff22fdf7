//! Safe handles to QuickJS: contexts, values, atoms and native functions.
//!
//! Terms used in the `SAFETY` comments of this file:
//!
//! * A [`Cx`] proves that its runtime is alive and that this thread has it to itself: one is only made by
//!   [`Runtime::enter`], which borrows the runtime mutably, and for natives, which run inside such a call.
//! * A [`Value`] owns one reference to a JavaScript value and gives it back when dropped. A *borrowed* value
//!   ([`Borrowed`]) does not own one; somebody up the stack does.
//! * A [`Root`] or an [`Atom`] is owned by the runtime's list of roots and lives until the runtime is dropped, which frees
//!   the roots first, then the context, then the runtime. (A runtime with living values aborts the process.)
//! * A pending exception is stored in the context; [`Exception`] stands for it. Whoever gets one passes it on or takes it.

mod modules;
mod native;
mod value;

use std::cell::RefCell;
use std::ffi::{CString, c_int, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use rquickjs_sys as qjs;

use super::heap::Heap;
use super::state::State;

pub(super) use modules::{Bytecode, Loaded, engine_version};
pub(super) use native::{Call, NativeFn};

/// An exception is pending in the context.
#[derive(Debug)]
#[must_use]
pub(super) struct Exception;

/// What operations that run JavaScript return.
pub(super) type JsResult<T> = Result<T, Exception>;

/// One JavaScript runtime with one context.
pub(super) struct Runtime {
    runtime: NonNull<qjs::JSRuntime>,
    context: NonNull<qjs::JSContext>,
    roots: Box<Roots>,
    // Holds the heap, which the runtime allocates from until `drop` has freed it.
    state: Box<State>,
}

/// References that are held until the runtime is dropped.
#[derive(Default)]
struct Roots {
    values: RefCell<Vec<qjs::JSValue>>,
    atoms: RefCell<Vec<qjs::JSAtom>>,
}

/// What the context's opaque pointer leads to.
struct Anchor {
    state: *const State,
    roots: *const Roots,
}

// SAFETY: QuickJS keeps nothing per thread: a runtime may be used by any thread as long as by one at a time and with
// the top of that thread's stack told to it, which `enter` does. All references into the runtime (roots, state, heap) are
// owned by this struct and move with it; handles (`Cx`, `Value`) are neither `Send` nor able to outlive `enter`'s borrow.
unsafe impl Send for Runtime {}

impl Runtime {
    /// Makes a runtime whose memory is capped, with the language's own globals.
    ///
    /// # Errors
    /// `None` if the cap is too small for that.
    pub(super) fn new(stack_bytes: usize, state: State) -> Option<Runtime> {
        let state = Box::new(state);
        let opaque = (&raw const state.heap).cast_mut().cast::<c_void>();
        let roots = Box::<Roots>::default();
        // SAFETY: the functions are those of this heap, which outlives the runtime. A runtime without context is freed again.
        // The anchor is freed in `drop`.
        unsafe {
            let runtime = NonNull::new(qjs::JS_NewRuntime2(&Heap::FUNCTIONS, opaque))?;
            qjs::JS_SetMaxStackSize(runtime.as_ptr(), stack_bytes as _);
            let Some(context) = new_context(runtime) else {
                qjs::JS_FreeRuntime(runtime.as_ptr());
                return None;
            };
            let anchor = Box::new(Anchor { state: &raw const *state, roots: &raw const *roots });
            qjs::JS_SetContextOpaque(context.as_ptr(), Box::into_raw(anchor).cast());
            let guard = (&raw const state.guard).cast_mut().cast();
            qjs::JS_SetInterruptHandler(runtime.as_ptr(), Some(interrupted), guard);
            Some(Runtime { runtime, context, roots, state })
        }
    }

    /// Makes the runtime usable by this thread.
    pub(super) fn enter(&mut self) -> Cx<'_> {
        // SAFETY: the runtime is alive and borrowed by this call alone.
        unsafe { qjs::JS_UpdateStackTop(self.runtime.as_ptr()) };
        Cx { context: self.context, marker: PhantomData }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

/// What of the language's library a context gets: all that `JS_NewContext` adds but `performance`, `atob` and `btoa`, which modules
/// do not have.
const LIBRARY: [unsafe extern "C" fn(*mut qjs::JSContext) -> c_int; 10] = [
    qjs::JS_AddIntrinsicBaseObjects,
    qjs::JS_AddIntrinsicDate,
    qjs::JS_AddIntrinsicEval,
    qjs::JS_AddIntrinsicRegExp,
    qjs::JS_AddIntrinsicJSON,
    qjs::JS_AddIntrinsicProxy,
    qjs::JS_AddIntrinsicMapSet,
    qjs::JS_AddIntrinsicTypedArrays,
    qjs::JS_AddIntrinsicPromise,
    qjs::JS_AddIntrinsicWeakRef,
];

/// Makes a context; `None` if memory does not suffice.
///
/// # Safety
/// The runtime is alive and used by nobody else.
unsafe fn new_context(runtime: NonNull<qjs::JSRuntime>) -> Option<NonNull<qjs::JSContext>> {
    // SAFETY: the runtime is alive; parts are added to a context that has the basic objects, each once and in the engine's own order.
    unsafe {
        let context = NonNull::new(qjs::JS_NewContextRaw(runtime.as_ptr()))?;
        if LIBRARY.iter().any(|add| add(context.as_ptr()) < 0) {
            qjs::JS_FreeContext(context.as_ptr());
            return None;
        }
        Some(context)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let context = self.context.as_ptr();
        // SAFETY: no handle is left, as they borrow the runtime; what is left are the roots, which go first, as the module doc says.
        // The anchor goes after the last finalizer ran.
        unsafe {
            qjs::JS_UpdateStackTop(self.runtime.as_ptr());
            for value in self.roots.values.take() {
                qjs::JS_FreeValue(context, value);
            }
            for atom in self.roots.atoms.take() {
                qjs::JS_FreeAtom(context, atom);
            }
            for slot in self.state.slots() {
                slot.clear(context);
            }
            let anchor = qjs::JS_GetContextOpaque(context).cast::<Anchor>();
            qjs::JS_FreeContext(context);
            qjs::JS_FreeRuntime(self.runtime.as_ptr());
            drop(Box::from_raw(anchor));
        }
    }
}

unsafe extern "C" fn interrupted(_: *mut qjs::JSRuntime, guard: *mut c_void) -> c_int {
    // SAFETY: the pointer was set by `Runtime::new` to a part of the boxed state.
    let guard = unsafe { &*guard.cast::<super::state::Guard>() };
    c_int::from(guard.should_stop())
}

/// Access to the runtime for as long as `'js`.
#[derive(Clone, Copy)]
pub(super) struct Cx<'js> {
    context: NonNull<qjs::JSContext>,
    // Invariant in the lifetime, and neither Send nor Sync.
    marker: PhantomData<*mut &'js ()>,
}

/// A value owned by the runtime's roots.
#[derive(Clone, Copy)]
pub(super) struct Root(qjs::JSValue);

// SAFETY: a root is a name for something that its runtime owns; without a `Cx` of that runtime, which is for one thread
// at a time, nothing can be done with it.
unsafe impl Send for Root {}

/// A property name, owned by the runtime's roots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Atom(qjs::JSAtom);

/// One owned reference to a value.
pub(super) struct Value<'js> {
    raw: qjs::JSValue,
    cx: Cx<'js>,
}

/// A value that somebody else owns.
pub(super) struct Borrowed<'js>(ManuallyDrop<Value<'js>>);

/// What kind of value it is, with the value where it is at hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Undefined,
    Null,
    Bool(bool),
    Int(i32),
    Float(f64),
    String,
    Symbol,
    /// A big integer that the engine keeps in the value itself.
    ShortBigInt(i32),
    BigInt,
    Object,
    Other,
}

/// The classes of objects that natives define.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassId(qjs::JSClassID);

/// Times are kept in the word of an object.
const _: () = assert!(size_of::<usize>() == 8, "64-bit targets only");

/// Property flags: as in an object literal.
const PLAIN: c_int = qjs::JS_PROP_C_W_E as c_int;

impl<'js> Cx<'js> {
    fn ptr(self) -> *mut qjs::JSContext {
        self.context.as_ptr()
    }

    fn runtime(self) -> *mut qjs::JSRuntime {
        // SAFETY: the context is alive.
        unsafe { qjs::JS_GetRuntime(self.ptr()) }
    }

    fn anchor(self) -> &'js Anchor {
        // SAFETY: set in `Runtime::new` and freed after the context.
        unsafe { &*qjs::JS_GetContextOpaque(self.ptr()).cast::<Anchor>() }
    }

    /// The instance's state.
    pub(super) fn state(self) -> &'js State {
        // SAFETY: the runtime owns the state and outlives 'js.
        unsafe { &*self.anchor().state }
    }

    fn own(self, raw: qjs::JSValue) -> Value<'js> {
        Value { raw, cx: self }
    }

    fn check(self, raw: qjs::JSValue) -> JsResult<Value<'js>> {
        // SAFETY: looks at the tag only.
        if unsafe { qjs::JS_IsException(raw) } { Err(Exception) } else { Ok(self.own(raw)) }
    }

    fn check_int(self, result: c_int) -> JsResult<bool> {
        if result < 0 { Err(Exception) } else { Ok(result != 0) }
    }

    pub(super) fn undefined(self) -> Value<'js> {
        self.own(qjs::JS_UNDEFINED)
    }

    pub(super) fn null(self) -> Value<'js> {
        self.own(qjs::JS_NULL)
    }

    pub(super) fn bool(self, value: bool) -> Value<'js> {
        self.own(if value { qjs::JS_TRUE } else { qjs::JS_FALSE })
    }

    pub(super) fn int(self, value: i32) -> Value<'js> {
        self.own(qjs::JS_MKVAL(qjs::JS_TAG_INT, value))
    }

    pub(super) fn number(self, value: f64) -> Value<'js> {
        self.own(qjs::JS_NewFloat64(value))
    }

    pub(super) fn big_i64(self, value: i64) -> JsResult<Value<'js>> {
        // SAFETY: the context is alive.
        self.check(unsafe { qjs::JS_NewBigInt64(self.ptr(), value) })
    }

    pub(super) fn big_u64(self, value: u64) -> JsResult<Value<'js>> {
        // SAFETY: the context is alive.
        self.check(unsafe { qjs::JS_NewBigUint64(self.ptr(), value) })
    }

    pub(super) fn string(self, text: &str) -> JsResult<Value<'js>> {
        // SAFETY: pointer and length are those of the text, which is UTF-8.
        self.check(unsafe { qjs::JS_NewStringLen(self.ptr(), text.as_ptr().cast(), text.len() as _) })
    }

    pub(super) fn object(self) -> JsResult<Value<'js>> {
        // SAFETY: the context is alive.
        self.check(unsafe { qjs::JS_NewObject(self.ptr()) })
    }

    /// An object whose prototype is `prototype` (or null).
    pub(super) fn object_with_prototype(self, prototype: &Value<'js>) -> JsResult<Value<'js>> {
        // SAFETY: the context and the prototype are alive; the call takes no reference of ours.
        self.check(unsafe { qjs::JS_NewObjectProto(self.ptr(), prototype.raw) })
    }

    /// An array of these values, which it takes over.
    pub(super) fn array(self, values: Vec<Value<'js>>) -> JsResult<Value<'js>> {
        let raw: Vec<qjs::JSValue> = values.into_iter().map(Value::into_raw).collect();
        // SAFETY: the call takes the references over, also when it fails. A length fits: each value takes 16 bytes of capped memory.
        self.check(unsafe { qjs::JS_NewArrayFrom(self.ptr(), raw.len() as c_int, raw.as_ptr()) })
    }

    /// A `Uint8Array` with a copy of these bytes.
    pub(super) fn uint8_array(self, bytes: &[u8]) -> JsResult<Value<'js>> {
        // SAFETY: pointer and length are those of the slice, which is copied.
        self.check(unsafe { qjs::JS_NewUint8ArrayCopy(self.ptr(), bytes.as_ptr(), bytes.len() as _) })
    }

    /// An `ArrayBuffer` with a copy of these bytes.
    pub(super) fn array_buffer(self, bytes: &[u8]) -> JsResult<Value<'js>> {
        // SAFETY: pointer and length are those of the slice, which is copied.
        self.check(unsafe { qjs::JS_NewArrayBufferCopy(self.ptr(), bytes.as_ptr(), bytes.len() as _) })
    }

    pub(super) fn global(self) -> Value<'js> {
        // SAFETY: the context is alive.
        self.own(unsafe { qjs::JS_GetGlobalObject(self.ptr()) })
    }

    /// A property name that lives as long as the runtime.
    pub(super) fn atom(self, name: &str) -> JsResult<Atom> {
        // SAFETY: pointer and length are those of the text. 0 is the null atom.
        let atom = unsafe { qjs::JS_NewAtomLen(self.ptr(), name.as_ptr().cast(), name.len() as _) };
        if atom == 0 {
            return Err(Exception);
        }
        // SAFETY: the roots outlive 'js.
        unsafe { &*self.anchor().roots }.atoms.borrow_mut().push(atom);
        Ok(Atom(atom))
    }

    /// Keeps a value for as long as the runtime lives.
    pub(super) fn root(self, value: Value<'js>) -> Root {
        let raw = value.into_raw();
        // SAFETY: the roots outlive 'js.
        unsafe { &*self.anchor().roots }.values.borrow_mut().push(raw);
        Root(raw)
    }

    /// A new reference to a root.
    pub(super) fn local(self, root: Root) -> Value<'js> {
        // SAFETY: roots are alive as long as the runtime.
        self.own(unsafe { qjs::JS_DupValue(self.ptr(), root.0) })
    }

    /// A root without a reference of its own.
    pub(super) fn borrow(self, root: Root) -> Borrowed<'js> {
        self.borrow_raw(root.0)
    }

    fn borrow_raw(self, raw: qjs::JSValue) -> Borrowed<'js> {
        Borrowed(ManuallyDrop::new(self.own(raw)))
    }

    /// Takes the pending exception. The second result tells whether JavaScript was forbidden to catch it.
    pub(super) fn take_exception(self) -> (Value<'js>, bool) {
        // SAFETY: the context is alive; the flag is about the value just taken.
        let value = self.own(unsafe { qjs::JS_GetException(self.ptr()) });
        let uncatchable = value.is_object() && unsafe { qjs::JS_IsUncatchableError(value.raw) };
        (value, uncatchable)
    }

    /// Throws a value.
    pub(super) fn throw(self, value: Value<'js>) -> Exception {
        // SAFETY: the call takes the reference over.
        unsafe { qjs::JS_Throw(self.ptr(), value.into_raw()) };
        Exception
    }

    /// Throws an error that `catch` and `finally` do not see.
    pub(super) fn throw_uncatchable(self, value: Value<'js>) -> Exception {
        if value.is_object() {
            // SAFETY: the value is an object of this context.
            unsafe { qjs::JS_SetUncatchableError(self.ptr(), value.raw) };
        }
        self.throw(value)
    }

    /// Lets no cycles be collected until [`Cx::resume_collecting`].
    pub(super) fn pause_collecting(self) {
        // SAFETY: the runtime is alive.
        unsafe { qjs::JS_SetGCThreshold(self.runtime(), usize::MAX as _) };
    }

    /// Collects cycles again, the first time when the heap has grown by half, as after a collection.
    pub(super) fn resume_collecting(self) {
        let used_bytes = self.state().heap.used_bytes();
        // SAFETY: the runtime is alive.
        unsafe { qjs::JS_SetGCThreshold(self.runtime(), (used_bytes + used_bytes / 2) as _) };
    }

    /// Whether promise jobs wait.
    pub(super) fn has_jobs(self) -> bool {
        // SAFETY: the runtime is alive.
        unsafe { qjs::JS_IsJobPending(self.runtime()) }
    }

    /// Runs one promise job. `false` if there was none.
    pub(super) fn run_job(self) -> JsResult<bool> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the runtime is alive and has one context.
        self.check_int(unsafe { qjs::JS_ExecutePendingJob(self.runtime(), &mut context) })
    }

    /// Registers a class of objects that hold a word, or a block of engine memory if `owns_block`.
    pub(super) fn new_class(self, name: &str, owns_block: bool) -> JsResult<ClassId> {
        let name = c_string(name);
        let mut id = 0;
        let definition = qjs::JSClassDef {
            class_name: name.as_ptr(),
            finalizer: if owns_block { Some(free_block) } else { None },
            gc_mark: None,
            call: None,
            exotic: std::ptr::null_mut(),
        };
        // SAFETY: the definition is read during the call.
        unsafe {
            qjs::JS_NewClassID(self.runtime(), &mut id);
            self.check_int(qjs::JS_NewClass(self.runtime(), id, &definition))?;
        }
        Ok(ClassId(id))
    }

    /// Sets the prototype of new objects of a class.
    pub(super) fn set_class_prototype(self, class: ClassId, prototype: Value<'js>) {
        // SAFETY: the class was registered with this runtime; the call takes the reference over.
        unsafe { qjs::JS_SetClassProto(self.ptr(), class.0, prototype.into_raw()) };
    }

    /// An object of a class that holds a word.
    pub(super) fn word_object(self, class: ClassId, word: u64) -> JsResult<Value<'js>> {
        let object = self.class_object(class)?;
        // SAFETY: the object is of a class without finalizer, so the word is never followed.
        unsafe { qjs::JS_SetOpaque(object.raw, word as usize as *mut c_void) };
        Ok(object)
    }

    /// An object of a class that holds `block`. The object has its own copy.
    pub(super) fn block_object<const N: usize>(self, class: ClassId, block: [u8; N]) -> JsResult<Value<'js>> {
        let object = self.class_object(class)?;
        // SAFETY: the block has room for `N` bytes; it belongs to the object, whose class frees it.
        unsafe {
            let memory = qjs::js_malloc(self.ptr(), N as _);
            if memory.is_null() {
                return Err(Exception);
            }
            memory.cast::<[u8; N]>().write_unaligned(block);
            qjs::JS_SetOpaque(object.raw, memory);
        }
        Ok(object)
    }

    fn class_object(self, class: ClassId) -> JsResult<Value<'js>> {
        // SAFETY: the class was registered with this runtime.
        self.check(unsafe { qjs::JS_NewObjectClass(self.ptr(), class.0 as _) })
    }
}

fn c_string(text: &str) -> CString {
    // Names and source text with a zero byte inside are cut there; the parser of TypeScript has refused such text before.
    CString::new(text).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut bytes = error.into_vec();
        bytes.truncate(end);
        CString::new(bytes).unwrap_or_default()
    })
}

unsafe extern "C" fn free_block(runtime: *mut qjs::JSRuntime, value: qjs::JSValue) {
    let mut class = 0;
    // SAFETY: only classes that own a block have this finalizer; null if making the block failed.
    unsafe { qjs::js_free_rt(runtime, qjs::JS_GetAnyOpaque(value, &mut class)) };
}

/// A place for one value that changes while the runtime lives. Every slot is listed by [`State::slots`].
pub(super) struct Slot(std::cell::Cell<qjs::JSValue>);

impl Slot {
    pub(super) const fn empty() -> Slot {
        Slot(std::cell::Cell::new(qjs::JS_UNDEFINED))
    }

    pub(super) fn set(&self, value: Value<'_>) {
        let cx = value.cx;
        drop(cx.own(self.0.replace(value.into_raw())));
    }

    /// A new reference to the value; undefined if there is none.
    pub(super) fn get<'js>(&self, cx: Cx<'js>) -> Value<'js> {
        // SAFETY: the slot owns a reference.
        cx.own(unsafe { qjs::JS_DupValue(cx.ptr(), self.0.get()) })
    }

    /// # Safety
    /// `context` is alive and the one that the slot's values belong to.
    unsafe fn clear(&self, context: *mut qjs::JSContext) {
        // SAFETY: see above.
        unsafe { qjs::JS_FreeValue(context, self.0.replace(qjs::JS_UNDEFINED)) };
    }
}
