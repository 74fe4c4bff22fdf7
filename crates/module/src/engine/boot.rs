//! Making a fresh runtime into one that modules run in: our globals, the value classes and the SDK.

use std::cell::OnceCell;
use std::sync::OnceLock;

use super::raw::{Atom, Bytecode, Call, ClassId, Cx, JsResult, Root, Runtime, Value};
use super::state::{Modules, State};
use super::{console, context, rows, values};
use crate::source::resolve::SDK_MODULE;

/// The SDK, as the body of one function: its parts share their names.
const SDK_SOURCE: &str = concat!(
    "(function (native) {\n\"use strict\";\n",
    include_str!("../../sdk/globals.js"),
    include_str!("../../sdk/date.js"),
    include_str!("../../sdk/values.js"),
    include_str!("../../sdk/types.js"),
    include_str!("../../sdk/parts.js"),
    include_str!("../../sdk/schema.js"),
    include_str!("../../sdk/context.js"),
    "})"
);

/// The parts of the SDK that wait until they are used, by the numbers that `parts.js` gives them: file names and sources.
const SDK_PARTS: [(&str, &str); 2] =
    [("tine:query", include_str!("../../sdk/query.js")), ("tine:http", include_str!("../../sdk/http.js"))];

/// The script that writes module definitions.
const DESCRIBE_SOURCE: &str = include_str!("../../sdk/describe.js");

/// What `tine:server` exports.
pub(crate) const SDK_EXPORTS: [&str; 31] = [
    "ArrayBuilder",
    "BooleanExpr",
    "CaseConversionPolicy",
    "ColumnBuilder",
    "ConnectionId",
    "Headers",
    "Identity",
    "OptionBuilder",
    "ProductBuilder",
    "Range",
    "Request",
    "ResultBuilder",
    "Router",
    "RowBuilder",
    "ScheduleAt",
    "SenderError",
    "SpacetimeHostError",
    "SumBuilder",
    "SyncResponse",
    "TimeDuration",
    "Timestamp",
    "TypeBuilder",
    "Uuid",
    "and",
    "errors",
    "not",
    "or",
    "schema",
    "t",
    "table",
    "toCamelCase",
];

/// Memory for compiling the SDK, which happens once per process.
const COMPILE_MEMORY_BYTES: usize = 64 << 20;

/// Stack for the same.
const COMPILE_STACK_BYTES: usize = 512 << 10;

/// The most host error codes, see [`Sdk::error_classes`].
const ERROR_CODES_MAX: u32 = 32;

/// Names that natives read and write.
pub(super) struct Atoms {
    pub(super) tag: Atom,
    pub(super) value: Atom,
    pub(super) ok: Atom,
    pub(super) err: Atom,
    pub(super) name: Atom,
    pub(super) message: Atom,
    pub(super) stack: Atom,
    pub(super) identity: Atom,
    pub(super) connection_id: Atom,
    pub(super) uuid: Atom,
    pub(super) timestamp: Atom,
    pub(super) time_duration: Atom,
}

/// The classes that natives define.
pub(super) struct Classes {
    pub(super) identity: ClassId,
    pub(super) connection_id: ClassId,
    pub(super) uuid: ClassId,
    pub(super) timestamp: ClassId,
    pub(super) time_duration: ClassId,
    pub(super) rows: ClassId,
}

/// What is looked up before any code of the user's can change it.
pub(super) struct Boot {
    pub(super) atoms: Atoms,
    pub(super) classes: Classes,
    pub(super) error: Root,
    pub(super) type_error: Root,
    pub(super) range_error: Root,
    pub(super) big_int: Root,
    pub(super) big_int_to_string: Root,
    sdk: OnceCell<Sdk>,
}

/// What the SDK's script returned.
pub(super) struct Sdk {
    /// The exports of `tine:server`.
    pub(super) exports: Root,
    /// Registers the exports of a module.
    pub(super) register: Root,
    /// Makes the `ctx` objects.
    pub(super) make_contexts: Root,
    /// The SQL of a query that a view returns.
    pub(super) query_sql: Root,
    /// Runs an HTTP handler.
    pub(super) call_handler: Root,
    /// The bounds of a `Range`.
    pub(super) range_bounds: Root,
    /// The class of errors meant for callers.
    pub(super) sender_error: Root,
    /// The class of host errors without a class of their own.
    pub(super) host_error: Root,
    /// Classes of host errors by code.
    pub(super) error_classes: Vec<Option<Root>>,
}

impl Boot {
    /// What the SDK's script returned.
    ///
    /// # Panics
    /// Before it ran.
    pub(super) fn sdk(&self) -> &Sdk {
        self.sdk.get().expect("the SDK is loaded before anything else runs")
    }
}

/// Looks up in a fresh runtime what natives need.
pub(super) fn prepare(cx: Cx<'_>) -> JsResult<&Boot> {
    let global = cx.global();
    let get = |name: &str| Ok(cx.root(global.get_named(name)?));
    let big_int = global.get_named("BigInt")?;
    let boot = Boot {
        atoms: atoms(cx)?,
        classes: classes(cx)?,
        error: get("Error")?,
        type_error: get("TypeError")?,
        range_error: get("RangeError")?,
        big_int_to_string: cx.root(big_int.get_named("prototype")?.get_named("toString")?),
        big_int: cx.root(big_int),
        sdk: OnceCell::new(),
    };
    Ok(cx.state().boot.get_or_init(|| boot))
}

/// Loads the SDK into a fresh runtime.
pub(super) fn boot(cx: Cx<'_>) -> JsResult<()> {
    let boot = prepare(cx)?;
    // What is made here stays: looking for cycles in it would find none.
    cx.pause_collecting();
    let native = cx.object()?;
    define_hidden_natives(cx, &native)?;
    values::install(cx, &native)?;
    context::install(cx, &native)?;
    console::install(cx, &native)?;
    rows::install(cx, &native)?;
    native.define_named("part", cx.function("part", 1, 0, run_part)?)?;
    let parts = cx.run_script(&sdk_code().main)?.call(&cx.undefined(), &[&native])?;
    let part = |name: &str| Ok(cx.root(parts.get_named(name)?));
    cx.set_class_prototype(boot.classes.rows, parts.get_named("rowsPrototype")?);
    let by_code = parts.get_named("errorByCode")?;
    let error_classes = (0..ERROR_CODES_MAX).map(|code| {
        let class = by_code.get_index(code)?;
        Ok((!class.is_undefined()).then(|| cx.root(class)))
    });
    let sdk = Sdk {
        exports: part("exports")?,
        register: part("register")?,
        make_contexts: part("makeContexts")?,
        query_sql: part("querySql")?,
        call_handler: part("callHandler")?,
        range_bounds: part("rangeBounds")?,
        sender_error: part("SenderError")?,
        host_error: part("SpacetimeHostError")?,
        error_classes: error_classes.collect::<JsResult<_>>()?,
    };
    assert!(boot.sdk.set(sdk).is_ok(), "a runtime is booted once");
    cx.resume_collecting();
    Ok(())
}

/// Adds to the object that our scripts get what defines properties as the language's own are: `hidden(target, name, value)`, and
/// `hiddenMembers(target, members)` for those of an object literal.
pub(super) fn define_hidden_natives<'js>(cx: Cx<'js>, native: &Value<'js>) -> JsResult<()> {
    native.define_named("hidden", cx.function("hidden", 3, 0, hidden_property)?)?;
    native.define_named("hiddenMembers", cx.function("hiddenMembers", 2, 0, hidden_members)?)
}

fn hidden_property<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.arg(0).define_hidden_value(&call.arg(1), call.arg(2).clone())?;
    Ok(call.cx.undefined())
}

fn hidden_members<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    call.arg(0).define_hidden_members(&call.arg(1))?;
    Ok(call.cx.undefined())
}

/// `part(number)`: the function that makes a part of the SDK.
fn run_part<'js>(call: &Call<'js>) -> JsResult<Value<'js>> {
    let number = call.arg(0).to_number()? as usize;
    call.cx.run_script(&sdk_code().parts[number])
}

/// Runs the script that describes a registered module and returns what it returns.
pub(super) fn run_describe<'js>(cx: Cx<'js>, registered: &Value<'js>) -> JsResult<Value<'js>> {
    static BYTECODE: OnceLock<Bytecode> = OnceLock::new();
    let bytecode = BYTECODE.get_or_init(|| compile_own_script("tine:describe", DESCRIBE_SOURCE));
    cx.run_script(bytecode)?.call(&cx.undefined(), &[registered])
}

fn atoms(cx: Cx<'_>) -> JsResult<Atoms> {
    Ok(Atoms {
        tag: cx.atom("tag")?,
        value: cx.atom("value")?,
        ok: cx.atom("ok")?,
        err: cx.atom("err")?,
        name: cx.atom("name")?,
        message: cx.atom("message")?,
        stack: cx.atom("stack")?,
        identity: cx.atom("__identity__")?,
        connection_id: cx.atom("__connection_id__")?,
        uuid: cx.atom("__uuid__")?,
        timestamp: cx.atom("__timestamp_micros_since_unix_epoch__")?,
        time_duration: cx.atom("__time_duration_micros__")?,
    })
}

fn classes(cx: Cx<'_>) -> JsResult<Classes> {
    Ok(Classes {
        identity: cx.new_class("Identity", true)?,
        connection_id: cx.new_class("ConnectionId", true)?,
        uuid: cx.new_class("Uuid", true)?,
        timestamp: cx.new_class("Timestamp", false)?,
        time_duration: cx.new_class("TimeDuration", false)?,
        rows: cx.new_class("Rows", false)?,
    })
}

/// The SDK, compiled.
struct SdkCode {
    main: Bytecode,
    parts: [Bytecode; SDK_PARTS.len()],
}

/// Compiles all of the SDK the first time, so that no call finds a part of it to compile.
fn sdk_code() -> &'static SdkCode {
    static CODE: OnceLock<SdkCode> = OnceLock::new();
    CODE.get_or_init(|| SdkCode {
        main: compile_own_script(SDK_MODULE, SDK_SOURCE),
        parts: SDK_PARTS.map(|(name, source)| compile_own_script(name, source)),
    })
}

/// Compiles a script of ours.
///
/// # Panics
/// If it does not compile, which the tests rule out.
pub(super) fn compile_own_script(name: &str, source: &str) -> Bytecode {
    let state = State::new(COMPILE_MEMORY_BYTES, Modules::Stubs, Default::default());
    let mut runtime = Runtime::new(COMPILE_STACK_BYTES, state).expect("memory for one runtime");
    let cx = runtime.enter();
    match cx.compile_script(name, source) {
        Ok(bytes) => Bytecode::trusted(bytes),
        Err(_) => {
            let (error, _) = cx.take_exception();
            let stack = error.get_named("stack").and_then(|stack| stack.to_text()).unwrap_or_default();
            panic!("{name} does not compile: {}\n{stack}", error.to_text().unwrap_or_default());
        }
    }
}
