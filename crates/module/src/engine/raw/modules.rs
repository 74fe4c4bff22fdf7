//! Compiling, loading and linking modules.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use rquickjs_sys as qjs;

use super::value::Name;
use super::{Cx, Exception, JsResult, Root, Value, c_string};

impl<'js> Cx<'js> {
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
    pub(in crate::engine) fn compile_script(self, file: &str, code: &str) -> JsResult<Vec<u8>> {
        let script = self.eval(file, code, qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_COMPILE_ONLY)?;
        self.bytecode_of(&script)
    }

    /// Compiles a module and returns its bytecode. Its imports are asked of the loader but not linked.
    pub(in crate::engine) fn compile_module(self, file: &str, code: &str) -> JsResult<Vec<u8>> {
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
    pub(in crate::engine) fn run_script(self, bytecode: &Bytecode) -> JsResult<Value<'js>> {
        let script = self.read_bytecode(bytecode)?;
        // SAFETY: the call takes the reference over.
        self.check(unsafe { qjs::JS_EvalFunction(self.ptr(), script.into_raw()) })
    }

    /// Loads, links and evaluates a module with its imports. Returns its namespace and the promise of its evaluation.
    pub(in crate::engine) fn run_module(self, bytecode: &Bytecode) -> JsResult<(Value<'js>, Value<'js>)> {
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
    pub(in crate::engine) fn enable_modules(self) {
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
    pub(in crate::engine) fn watch_rejections(self) {
        // SAFETY: the callback finds what it needs through the context.
        unsafe { qjs::JS_SetHostPromiseRejectionTracker(self.runtime(), Some(promise_rejected), std::ptr::null_mut()) };
    }
}

/// Bytecode that this build's engine made: the engine trusts it. It is this process's own, or has come back from where this
/// server's processes keep it, under a seal that only they can make ([`crate::CodeCache`]).
pub(in crate::engine) struct Bytecode(Vec<u8>);

impl Bytecode {
    /// Vouches that `bytes` came from [`Cx::compile_script`] or [`Cx::compile_module`] of this build.
    pub(in crate::engine) fn trusted(bytes: Vec<u8>) -> Bytecode {
        Bytecode(bytes)
    }

    pub(in crate::engine) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(in crate::engine) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The engine's version.
pub(in crate::engine) fn engine_version() -> &'static CStr {
    // SAFETY: the engine returns a constant string.
    unsafe { CStr::from_ptr(qjs::JS_GetVersion()) }
}

/// What the loader found under a module's name.
pub(in crate::engine) enum Loaded<'a> {
    /// A file's bytecode.
    File(&'a Bytecode),
    /// A module whose exports are the properties of an object.
    Object(Root, &'a [&'static str]),
    /// A module without exports, good enough to compile against.
    Stub,
    /// Nothing.
    Missing,
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
