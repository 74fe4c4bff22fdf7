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

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;

use rquickjs_sys as qjs;

use super::heap::Heap;
use super::state::State;

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
            let Some(context) = NonNull::new(qjs::JS_NewContext(runtime.as_ptr())) else {
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

    /// A JavaScript function that runs `F`. `length` is the number of arguments it shows, `magic` comes with each call.
    pub(super) fn function<F: NativeFn>(self, name: &str, length: u8, magic: u16, _: F) -> JsResult<Value<'js>> {
        self.native(name, length, magic, qjs::JSCFunctionEnum_JS_CFUNC_generic_magic, trampoline::<F> as *const c_void)
    }

    /// Like [`Cx::function`], for functions called with `new`.
    pub(super) fn constructor<F: NativeFn>(self, name: &str, length: u8, magic: u16, _: F) -> JsResult<Value<'js>> {
        self.native(
            name,
            length,
            magic,
            qjs::JSCFunctionEnum_JS_CFUNC_constructor_magic,
            trampoline::<F> as *const c_void,
        )
    }

    /// Like [`Cx::function`], for the `next` of an iterator: `None` ends it, and a `for` loop gets values without result objects.
    pub(super) fn iterator_next<F: NativeNext>(self, _: F) -> JsResult<Value<'js>> {
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

    /// Runs or compiles source text.
    fn eval(self, file: &str, code: &str, flags: u32) -> JsResult<Value<'js>> {
        let (file, code) = (c_string(file), c_string(code));
        let mut options = qjs::JSEvalOptions {
            version: qjs::JS_EVAL_OPTIONS_VERSION as c_int,
            eval_flags: flags as c_int,
            filename: file.as_ptr(),
            line_num: 1,
        };
        // SAFETY: the text ends with a zero byte behind its length, as the parser wants.
        self.check(unsafe { qjs::JS_Eval2(self.ptr(), code.as_ptr(), code.as_bytes().len() as _, &mut options) })
    }

    /// Compiles a script and returns its bytecode.
    pub(super) fn compile_script(self, file: &str, code: &str) -> JsResult<Vec<u8>> {
        let script = self.eval(file, code, qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY)?;
        self.bytecode_of(&script)
    }

    /// Compiles a module and returns its bytecode. Its imports are asked of the loader but not linked.
    pub(super) fn compile_module(self, file: &str, code: &str) -> JsResult<Vec<u8>> {
        let module = self.eval(file, code, qjs::JS_EVAL_TYPE_MODULE | qjs::JS_EVAL_FLAG_COMPILE_ONLY)?;
        self.bytecode_of(&module)
    }

    fn bytecode_of(self, compiled: &Value<'js>) -> JsResult<Vec<u8>> {
        let mut length = 0;
        let flags = (qjs::JS_WRITE_OBJ_BYTECODE | qjs::JS_WRITE_OBJ_STRIP_SOURCE) as c_int;
        // SAFETY: the value is alive; the result is a block of `length` bytes that is ours to free.
        unsafe {
            let bytes = qjs::JS_WriteObject(self.ptr(), &mut length, compiled.raw, flags);
            if bytes.is_null() {
                return Err(Exception);
            }
            let copy = std::slice::from_raw_parts(bytes, length as usize).to_vec();
            qjs::js_free(self.ptr(), bytes.cast());
            Ok(copy)
        }
    }

    fn read_bytecode(self, bytecode: &Bytecode) -> JsResult<Value<'js>> {
        // SAFETY: `Bytecode` is made by this build's engine only, so reading it cannot go wrong; it is copied.
        self.check(unsafe {
            qjs::JS_ReadObject(
                self.ptr(),
                bytecode.0.as_ptr(),
                bytecode.0.len() as _,
                qjs::JS_READ_OBJ_BYTECODE as c_int,
            )
        })
    }

    /// Runs a script and returns its value.
    pub(super) fn run_script(self, bytecode: &Bytecode) -> JsResult<Value<'js>> {
        let script = self.read_bytecode(bytecode)?;
        // SAFETY: the call takes the reference over.
        self.check(unsafe { qjs::JS_EvalFunction(self.ptr(), script.into_raw()) })
    }

    /// Loads, links and evaluates a module with its imports. Returns its namespace and the promise of its evaluation.
    pub(super) fn run_module(self, bytecode: &Bytecode) -> JsResult<(Value<'js>, Value<'js>)> {
        let module = self.read_bytecode(bytecode)?;
        // SAFETY: the value is a module, so its pointer is a module definition; the context keeps it alive. Evaluating takes the
        // reference over.
        unsafe {
            self.check_int(qjs::JS_ResolveModule(self.ptr(), module.raw))?;
            let definition = qjs::JS_VALUE_GET_PTR(module.raw).cast::<qjs::JSModuleDef>();
            let promise = self.check(qjs::JS_EvalFunction(self.ptr(), module.into_raw()))?;
            let namespace = self.check(qjs::JS_GetModuleNamespace(self.ptr(), definition))?;
            Ok((namespace, promise))
        }
    }

    /// Sets how imports are found: [`State::resolve_import`] and [`State::load_module`].
    pub(super) fn enable_modules(self) {
        // SAFETY: both callbacks find what they need through the context.
        unsafe {
            qjs::JS_SetModuleLoaderFunc(
                self.runtime(),
                Some(normalize_module),
                Some(load_module),
                std::ptr::null_mut(),
            );
        }
    }

    /// Sets what becomes of promises that are rejected without handler: [`State::promise_rejected`].
    pub(super) fn watch_rejections(self) {
        // SAFETY: the callback finds what it needs through the context.
        unsafe { qjs::JS_SetHostPromiseRejectionTracker(self.runtime(), Some(promise_rejected), std::ptr::null_mut()) };
    }
}

/// Bytecode that this build's engine made: the engine trusts it. It is this process's own, or has come back from where this
/// server's processes keep it, under a seal that only they can make ([`crate::CodeCache`]).
pub(super) struct Bytecode(Vec<u8>);

impl Bytecode {
    /// Vouches that `bytes` came from [`Cx::compile_script`] or [`Cx::compile_module`] of this build.
    pub(super) fn trusted(bytes: Vec<u8>) -> Bytecode {
        Bytecode(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The engine's version.
pub(super) fn engine_version() -> &'static CStr {
    // SAFETY: the engine returns a constant string.
    unsafe { CStr::from_ptr(qjs::JS_GetVersion()) }
}

/// What the loader found under a module's name.
pub(super) enum Loaded<'a> {
    /// A file's bytecode.
    File(&'a Bytecode),
    /// A module whose exports are the properties of an object.
    Object(Root, &'a [&'static str]),
    /// A module without exports, good enough to compile against.
    Stub,
    /// Nothing.
    Missing,
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

unsafe extern "C" fn normalize_module(
    context: *mut qjs::JSContext,
    base: *const c_char,
    name: *const c_char,
    _: *mut c_void,
) -> *mut c_char {
    // SAFETY: called inside a `Cx`'s life with two C strings; the result is a C string in engine memory.
    unsafe {
        let cx = Cx { context: NonNull::new_unchecked(context), marker: PhantomData };
        let (base, name) = (CStr::from_ptr(base).to_string_lossy(), CStr::from_ptr(name).to_string_lossy());
        let resolved = c_string(&cx.state().resolve_import(&base, &name));
        let bytes = resolved.as_bytes_with_nul();
        let copy = qjs::js_malloc(context, bytes.len() as _).cast::<u8>();
        if !copy.is_null() {
            copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        copy.cast()
    }
}

unsafe extern "C" fn load_module(
    context: *mut qjs::JSContext,
    name: *const c_char,
    _: *mut c_void,
) -> *mut qjs::JSModuleDef {
    // SAFETY: called inside a `Cx`'s life with a C string. A module value points at its definition, which the context owns too.
    unsafe {
        let cx = Cx { context: NonNull::new_unchecked(context), marker: PhantomData };
        let text = CStr::from_ptr(name).to_string_lossy();
        match cx.state().load_module(&text) {
            Loaded::File(bytecode) => match cx.read_bytecode(bytecode) {
                Ok(module) => qjs::JS_VALUE_GET_PTR(module.raw).cast(),
                Err(Exception) => std::ptr::null_mut(),
            },
            Loaded::Object(_, names) => {
                let module = qjs::JS_NewCModule(context, name, Some(export_sdk));
                if !module.is_null() {
                    for name in names {
                        qjs::JS_AddModuleExport(context, module, c_string(name).as_ptr());
                    }
                }
                module
            }
            Loaded::Stub => qjs::JS_NewCModule(context, name, Some(export_nothing)),
            Loaded::Missing => {
                qjs::JS_ThrowReferenceError(context, c"cannot find module '%s'".as_ptr(), name);
                std::ptr::null_mut()
            }
        }
    }
}

unsafe extern "C" fn export_nothing(_: *mut qjs::JSContext, _: *mut qjs::JSModuleDef) -> c_int {
    0
}

unsafe extern "C" fn export_sdk(context: *mut qjs::JSContext, module: *mut qjs::JSModuleDef) -> c_int {
    // SAFETY: called inside a `Cx`'s life, for a module made in `load_module`.
    let cx = Cx { context: unsafe { NonNull::new_unchecked(context) }, marker: PhantomData };
    // SAFETY: the name is an atom that belongs to the module; the reference returned is given back by `Name`.
    let name = Name { atom: unsafe { qjs::JS_GetModuleName(context, module) }, cx };
    let Ok(name) = name.to_text() else { return -1 };
    let Loaded::Object(root, names) = cx.state().load_module(&name) else { return -1 };
    for name in names {
        let Ok(value) = cx.borrow(root).get_named(name) else { return -1 };
        // SAFETY: the call takes the reference over; the export was declared.
        if unsafe { qjs::JS_SetModuleExport(context, module, c_string(name).as_ptr(), value.into_raw()) } < 0 {
            return -1;
        }
    }
    0
}

unsafe extern "C" fn promise_rejected(
    context: *mut qjs::JSContext,
    _: qjs::JSValue,
    reason: qjs::JSValue,
    is_handled: bool,
    _: *mut c_void,
) {
    // SAFETY: called inside a `Cx`'s life; the engine owns the reason.
    let cx = Cx { context: unsafe { NonNull::new_unchecked(context) }, marker: PhantomData };
    if !is_handled {
        cx.state().promise_rejected(&cx.borrow_raw(reason));
    }
}

unsafe extern "C" fn free_block(runtime: *mut qjs::JSRuntime, value: qjs::JSValue) {
    let mut class = 0;
    // SAFETY: only classes that own a block have this finalizer; null if making the block failed.
    unsafe { qjs::js_free_rt(runtime, qjs::JS_GetAnyOpaque(value, &mut class)) };
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: this value owns one reference, given back once.
        unsafe {
            if qjs::JS_VALUE_HAS_REF_COUNT(self.raw) {
                qjs::JS_FreeValue(self.cx.ptr(), self.raw);
            }
        }
    }
}

impl Clone for Value<'_> {
    fn clone(&self) -> Self {
        // SAFETY: the value is alive.
        self.cx.own(unsafe { qjs::JS_DupValue(self.cx.ptr(), self.raw) })
    }
}

impl<'js> Deref for Borrowed<'js> {
    type Target = Value<'js>;

    fn deref(&self) -> &Value<'js> {
        &self.0
    }
}

impl<'js> Value<'js> {
    fn into_raw(self) -> qjs::JSValue {
        ManuallyDrop::new(self).raw
    }

    pub(super) fn cx(&self) -> Cx<'js> {
        self.cx
    }

    #[inline]
    pub(super) fn kind(&self) -> Kind {
        // SAFETY: reads the part of the value that its tag names.
        unsafe {
            match qjs::JS_VALUE_GET_TAG(self.raw) {
                qjs::JS_TAG_INT => Kind::Int(qjs::JS_VALUE_GET_INT(self.raw)),
                qjs::JS_TAG_STRING | qjs::JS_TAG_STRING_ROPE => Kind::String,
                qjs::JS_TAG_OBJECT => Kind::Object,
                qjs::JS_TAG_SHORT_BIG_INT => Kind::ShortBigInt(qjs::JS_VALUE_GET_INT(self.raw)),
                qjs::JS_TAG_BIG_INT => Kind::BigInt,
                qjs::JS_TAG_BOOL => Kind::Bool(qjs::JS_VALUE_GET_BOOL(self.raw)),
                qjs::JS_TAG_UNDEFINED => Kind::Undefined,
                qjs::JS_TAG_NULL => Kind::Null,
                qjs::JS_TAG_SYMBOL => Kind::Symbol,
                tag if qjs::JS_TAG_IS_FLOAT64(tag) => Kind::Float(qjs::JS_VALUE_GET_FLOAT64(self.raw)),
                _ => Kind::Other,
            }
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        self.kind() == Kind::Undefined
    }

    pub(super) fn is_nullish(&self) -> bool {
        matches!(self.kind(), Kind::Undefined | Kind::Null)
    }

    pub(super) fn is_object(&self) -> bool {
        self.kind() == Kind::Object
    }

    pub(super) fn is_function(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsFunction(self.cx.ptr(), self.raw) }
    }

    pub(super) fn is_array(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsArray(self.raw) }
    }

    pub(super) fn is_error(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsError(self.raw) }
    }

    /// Whether it is a promise, and if so whether it is settled (`Some(true)`: with a value).
    pub(super) fn promise(&self) -> Option<Option<bool>> {
        // SAFETY: the value is alive.
        unsafe {
            if !qjs::JS_IsPromise(self.raw) {
                return None;
            }
            Some(match qjs::JS_PromiseState(self.cx.ptr(), self.raw) {
                qjs::JSPromiseStateEnum_JS_PROMISE_FULFILLED => Some(true),
                qjs::JSPromiseStateEnum_JS_PROMISE_REJECTED => Some(false),
                _ => None,
            })
        }
    }

    /// The value or reason of a settled promise.
    pub(super) fn promise_result(&self) -> Value<'js> {
        // SAFETY: the value is alive.
        self.cx.own(unsafe { qjs::JS_PromiseResult(self.cx.ptr(), self.raw) })
    }

    /// `value instanceof class`.
    pub(super) fn is_instance_of(&self, class: Root) -> JsResult<bool> {
        // SAFETY: both are alive.
        self.cx.check_int(unsafe { qjs::JS_IsInstanceOf(self.cx.ptr(), self.raw, class.0) })
    }

    pub(super) fn strictly_equals(&self, other: &Value<'js>) -> bool {
        // SAFETY: both are alive; the call only looks at them.
        unsafe { qjs::JS_IsStrictEqual(self.cx.ptr(), self.raw, other.raw) }
    }

    /// Reads a property.
    #[inline]
    pub(super) fn get(&self, name: Atom) -> JsResult<Value<'js>> {
        // SAFETY: value and atom are alive.
        self.cx.check(unsafe { qjs::JS_GetProperty(self.cx.ptr(), self.raw, name.0) })
    }

    pub(super) fn get_named(&self, name: &str) -> JsResult<Value<'js>> {
        // SAFETY: value and name are alive.
        self.cx.check(unsafe { qjs::JS_GetPropertyStr(self.cx.ptr(), self.raw, c_string(name).as_ptr()) })
    }

    pub(super) fn get_index(&self, index: u32) -> JsResult<Value<'js>> {
        // SAFETY: the value is alive.
        self.cx.check(unsafe { qjs::JS_GetPropertyUint32(self.cx.ptr(), self.raw, index) })
    }

    /// The `length` of an array.
    pub(super) fn length(&self) -> JsResult<u64> {
        let mut length = 0;
        // SAFETY: the value is alive.
        self.cx.check_int(unsafe { qjs::JS_GetLength(self.cx.ptr(), self.raw, &mut length) })?;
        Ok(u64::try_from(length).unwrap_or(0))
    }

    /// Defines an own property as in an object literal.
    #[inline]
    pub(super) fn define(&self, name: Atom, value: Value<'js>) -> JsResult<()> {
        // SAFETY: object and atom are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValue(self.cx.ptr(), self.raw, name.0, value.into_raw(), PLAIN)
        })?;
        Ok(())
    }

    pub(super) fn define_named(&self, name: &str, value: Value<'js>) -> JsResult<()> {
        // SAFETY: object and name are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValueStr(self.cx.ptr(), self.raw, c_string(name).as_ptr(), value.into_raw(), PLAIN)
        })?;
        Ok(())
    }

    /// Defines a property that enumeration does not show, as globals are.
    pub(super) fn define_hidden(&self, name: &str, value: Value<'js>) -> JsResult<()> {
        let flags = (qjs::JS_PROP_CONFIGURABLE | qjs::JS_PROP_WRITABLE) as c_int;
        // SAFETY: object and name are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValueStr(self.cx.ptr(), self.raw, c_string(name).as_ptr(), value.into_raw(), flags)
        })?;
        Ok(())
    }

    /// `!!value`. Runs no code.
    pub(super) fn is_truthy(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_ToBool(self.cx.ptr(), self.raw) > 0 }
    }

    /// Defines an own property whose name is a string or symbol.
    pub(super) fn define_value(&self, name: &Value<'js>, value: Value<'js>) -> JsResult<()> {
        let name = name.property_name()?;
        // SAFETY: object and atom are alive; the call takes the value's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyValue(self.cx.ptr(), self.raw, name.atom, value.into_raw(), PLAIN)
        })?;
        Ok(())
    }

    /// Defines a hidden accessor.
    pub(super) fn define_getter(&self, name: Atom, getter: Value<'js>) -> JsResult<()> {
        let flags = qjs::JS_PROP_CONFIGURABLE as c_int;
        // SAFETY: object and atom are alive; the call takes the getter's reference over.
        self.cx.check_int(unsafe {
            qjs::JS_DefinePropertyGetSet(self.cx.ptr(), self.raw, name.0, getter.into_raw(), qjs::JS_UNDEFINED, flags)
        })?;
        Ok(())
    }

    /// Links a constructor and its prototype.
    pub(super) fn set_constructor_of(&self, prototype: &Value<'js>) -> JsResult<()> {
        // SAFETY: both are alive.
        self.cx.check_int(unsafe { qjs::JS_SetConstructor(self.cx.ptr(), self.raw, prototype.raw) })?;
        Ok(())
    }

    /// `Object.freeze`.
    pub(super) fn freeze(&self) -> JsResult<()> {
        // SAFETY: the object is alive.
        self.cx.check_int(unsafe { qjs::JS_FreezeObject(self.cx.ptr(), self.raw) })?;
        Ok(())
    }

    /// Forbids new properties.
    pub(super) fn prevent_extensions(&self) -> JsResult<()> {
        // SAFETY: the object is alive.
        self.cx.check_int(unsafe { qjs::JS_PreventExtensions(self.cx.ptr(), self.raw) })?;
        Ok(())
    }

    /// Calls a function.
    pub(super) fn call(&self, this: &Value<'js>, args: &[&Value<'js>]) -> JsResult<Value<'js>> {
        let mut raw = [qjs::JS_UNDEFINED; CALL_ARGS_MAX];
        assert!(args.len() <= CALL_ARGS_MAX, "{} arguments", args.len());
        for (slot, arg) in raw.iter_mut().zip(args) {
            *slot = arg.raw;
        }
        // SAFETY: function, receiver and arguments are alive during the call, which takes none of the references.
        self.cx.check(unsafe { qjs::JS_Call(self.cx.ptr(), self.raw, this.raw, args.len() as c_int, raw.as_mut_ptr()) })
    }

    /// `new`.
    pub(super) fn construct(&self, arg: &Value<'js>) -> JsResult<Value<'js>> {
        let mut raw = [arg.raw];
        // SAFETY: as for `call`.
        self.cx.check(unsafe { qjs::JS_CallConstructor(self.cx.ptr(), self.raw, 1, raw.as_mut_ptr()) })
    }

    /// `new DataView(buffer, 0, length)` and its like: `new` with three arguments.
    pub(super) fn construct_view(&self, buffer: &Value<'js>, offset: i32, length: i32) -> JsResult<Value<'js>> {
        let mut raw = [buffer.raw, self.cx.int(offset).raw, self.cx.int(length).raw];
        // SAFETY: as for `call`.
        self.cx.check(unsafe { qjs::JS_CallConstructor(self.cx.ptr(), self.raw, 3, raw.as_mut_ptr()) })
    }

    /// Passes the bytes of a plain `ArrayBuffer` to `use_bytes`, which must not run JavaScript; `None` if it is another
    /// value or its memory was taken away.
    #[inline]
    pub(super) fn with_array_buffer<T>(&self, use_bytes: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        // SAFETY: the value is alive; the size is written by the call. An exception that a failed call leaves is dropped.
        let (start, size) = unsafe {
            if !qjs::JS_IsArrayBuffer(self.raw) {
                return None;
            }
            let mut size = 0;
            let start = qjs::JS_GetArrayBuffer(self.cx.ptr(), &mut size, self.raw);
            (start, size as usize)
        };
        if start.is_null() {
            self.cx.take_exception();
            return None;
        }
        if size == 0 {
            return Some(use_bytes(&mut []));
        }
        // SAFETY: the engine owns `size` bytes there; nothing can free or move them, and nobody else reads or writes them, while
        // no JavaScript runs.
        Some(use_bytes(unsafe { std::slice::from_raw_parts_mut(start, size) }))
    }

    /// Whether it is a `DataView`.
    pub(super) fn is_data_view(&self) -> bool {
        // SAFETY: the value is alive.
        unsafe { qjs::JS_IsDataView(self.raw) }
    }

    /// Sets an element of an array.
    pub(super) fn set_index(&self, index: u32, value: Value<'js>) -> JsResult<()> {
        // SAFETY: the array is alive; the call takes the value's reference over.
        self.cx.check_int(unsafe { qjs::JS_SetPropertyUint32(self.cx.ptr(), self.raw, index, value.into_raw()) })?;
        Ok(())
    }

    /// Passes `String(value)` to `use_text`. Lone surrogates become U+FFFD.
    pub(super) fn with_text<T>(&self, use_text: impl FnOnce(&str) -> T) -> JsResult<T> {
        let mut length = 0;
        // SAFETY: the result is null or a block of `length` bytes, valid until it is freed below. The engine writes UTF-8 except
        // that lone surrogates are written like other characters.
        unsafe {
            let text = qjs::JS_ToCStringLen(self.cx.ptr(), &raw mut length, self.raw);
            if text.is_null() {
                return Err(Exception);
            }
            let bytes = std::slice::from_raw_parts(text.cast::<u8>(), length);
            let result = match std::str::from_utf8(bytes) {
                Ok(text) => use_text(text),
                Err(_) => use_text(&replace_surrogates(bytes)),
            };
            qjs::JS_FreeCString(self.cx.ptr(), text);
            Ok(result)
        }
    }

    /// `String(value)`.
    pub(super) fn to_text(&self) -> JsResult<String> {
        self.with_text(str::to_owned)
    }

    /// Whether a property name and this value, a string, are the same.
    pub(super) fn property_name(&self) -> JsResult<Name<'js>> {
        // SAFETY: the value is alive; 0 is the null atom.
        let atom = unsafe { qjs::JS_ValueToAtom(self.cx.ptr(), self.raw) };
        if atom == 0 { Err(Exception) } else { Ok(Name { atom, cx: self.cx }) }
    }

    /// The low 64 bits of a big integer.
    pub(super) fn big_int_bits(&self) -> JsResult<u64> {
        let mut bits = 0;
        // SAFETY: the value is alive.
        self.cx.check_int(unsafe { qjs::JS_ToBigUint64(self.cx.ptr(), &mut bits, self.raw) })?;
        Ok(bits)
    }

    /// `Number(value)`.
    pub(super) fn to_number(&self) -> JsResult<f64> {
        let mut number = 0.0;
        // SAFETY: the value is alive.
        self.cx.check_int(unsafe { qjs::JS_ToFloat64(self.cx.ptr(), &mut number, self.raw) })?;
        Ok(number)
    }

    /// The word of an object of `class`; `None` for anything else.
    #[inline]
    pub(super) fn word(&self, class: ClassId) -> Option<u64> {
        self.opaque(class).map(|word| word as usize as u64)
    }

    /// The block of an object of `class`; `None` for anything else.
    #[inline]
    pub(super) fn block<const N: usize>(&self, class: ClassId) -> Option<[u8; N]> {
        let block = self.opaque(class).filter(|block| !block.is_null())?;
        // SAFETY: objects of a class hold blocks of one size, and callers name a class with its size.
        Some(unsafe { block.cast::<[u8; N]>().read_unaligned() })
    }

    /// The address of an object's block, which lives as long as the object.
    fn opaque(&self, class: ClassId) -> Option<*mut c_void> {
        let mut actual = 0;
        // SAFETY: the value is alive; non-objects have class 0.
        let opaque = unsafe { qjs::JS_GetAnyOpaque(self.raw, &mut actual) };
        (actual == class.0).then_some(opaque)
    }

    /// Passes the bytes of a `Uint8Array`, `ArrayBuffer` or other view to `use_bytes`, which must not run JavaScript;
    /// `None` if it is none of those.
    pub(super) fn with_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (start, length, _buffer) = self.byte_range()?;
        // SAFETY: `byte_range` gives a live range; nothing can free or move it while no JavaScript runs.
        Some(use_bytes(unsafe { slice(start, length) }))
    }

    /// Passes the bytes of a typed array to `fill`, which must not run JavaScript; `false` if it is none.
    pub(super) fn fill_bytes(&self, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some((start, length, _buffer)) = self.byte_range() else { return false };
        if length > 0 {
            // SAFETY: as in `with_bytes`; no other reference to the range exists while no JavaScript runs.
            fill(unsafe { std::slice::from_raw_parts_mut(start, length) });
        }
        true
    }

    /// Start and length of the memory behind a buffer or view, and the buffer that keeps it alive.
    fn byte_range(&self) -> Option<(*mut u8, usize, Value<'js>)> {
        if !self.is_object() {
            return None;
        }
        // SAFETY: the value is an alive object; the sizes are written by the calls. Failed calls leave an exception, which is dropped.
        unsafe {
            let mut size = 0;
            if qjs::JS_IsArrayBuffer(self.raw) {
                let start = qjs::JS_GetArrayBuffer(self.cx.ptr(), &mut size, self.raw);
                return Some((start, size as usize, self.clone()));
            }
            if qjs::JS_GetTypedArrayType(self.raw) < 0 {
                return None;
            }
            let (mut offset, mut length) = (0, 0);
            let buffer =
                qjs::JS_GetTypedArrayBuffer(self.cx.ptr(), self.raw, &mut offset, &mut length, std::ptr::null_mut());
            let Ok(buffer) = self.cx.check(buffer) else {
                self.cx.take_exception();
                return None;
            };
            let start = qjs::JS_GetArrayBuffer(self.cx.ptr(), &mut size, buffer.raw);
            if offset as usize + length as usize > size as usize {
                return None;
            }
            Some((start.wrapping_add(offset as usize), length as usize, buffer))
        }
    }
}

/// The most arguments that natives pass to JavaScript.
const CALL_ARGS_MAX: usize = 5;

/// # Safety
/// `length` bytes from `start` are alive, or `length` is 0.
unsafe fn slice<'a>(start: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: see above.
    if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(start, length) } }
}

/// Replaces the encodings of lone surrogates, three bytes each, by that of U+FFFD.
fn replace_surrogates(bytes: &[u8]) -> String {
    let mut copy = bytes.to_vec();
    for start in 0..copy.len().saturating_sub(2) {
        if copy[start] == 0xed && copy[start + 1] >= 0xa0 {
            copy[start..start + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
    String::from_utf8_lossy(&copy).into_owned()
}

/// A property name that is given back when dropped.
pub(super) struct Name<'js> {
    atom: qjs::JSAtom,
    cx: Cx<'js>,
}

impl Name<'_> {
    pub(super) fn is(&self, atom: Atom) -> bool {
        self.atom == atom.0
    }

    fn to_text(&self) -> JsResult<String> {
        // SAFETY: the atom is alive.
        self.cx.check(unsafe { qjs::JS_AtomToString(self.cx.ptr(), self.atom) })?.to_text()
    }
}

impl Drop for Name<'_> {
    fn drop(&mut self) {
        // SAFETY: this owns one reference to the atom.
        unsafe { qjs::JS_FreeAtom(self.cx.ptr(), self.atom) };
    }
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

/// One call of a native.
pub(super) struct Call<'js> {
    pub(super) cx: Cx<'js>,
    /// What the function was made with.
    pub(super) magic: u16,
    this: qjs::JSValue,
    count: usize,
    args: *const qjs::JSValue,
}

impl<'js> Call<'js> {
    /// The receiver; for a constructor the `new.target`.
    pub(super) fn this(&self) -> Borrowed<'js> {
        self.cx.borrow_raw(self.this)
    }

    /// An argument; undefined if there are fewer.
    #[inline]
    pub(super) fn arg(&self, index: usize) -> Borrowed<'js> {
        // SAFETY: the engine passed `count` arguments, alive during the call, which a `Call` does not outlive.
        let raw = if index < self.count { unsafe { *self.args.add(index) } } else { qjs::JS_UNDEFINED };
        self.cx.borrow_raw(raw)
    }
}

/// A native function. Implemented by `fn` items and closures that capture nothing.
pub(super) trait NativeFn: Copy + 'static {
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
pub(super) trait NativeNext: Copy + 'static {
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
