//! Making a fresh runtime into one that bundles run in: globals, the modules of the ABI, and the hooks of an evaluated bundle.

use std::cell::OnceCell;
use std::sync::OnceLock;

use super::super::boot::{compile_own_script, define_hidden_natives, prepare};
use super::super::context;
use super::super::raw::{Bytecode, Cx, JsResult, NativeFn, Root, Value, engine_version};
use super::{BundleState, Hooks, iterators, session, syscalls, text};

/// The boot script, as the body of one function.
const BOOT_SOURCE: &str = concat!(
    "(function (native) {\n\"use strict\";\n",
    include_str!("../../../sdk/bundle.js"),
    include_str!("../../../sdk/date.js"),
    "return { moduleHooks, start };\n})"
);

/// The versions of the module ABI that there are.
const SYS_2_0: &str = "spacetime:sys@2.0";
const SYS_2_1: &str = "spacetime:sys@2.1";

const EXPORTS_2_0: [&str; 24] = [
    "console_log",
    "console_timer_end",
    "console_timer_start",
    "datastore_delete_all_by_eq_bsatn",
    "datastore_delete_by_index_scan_point_bsatn",
    "datastore_delete_by_index_scan_range_bsatn",
    "datastore_index_scan_point_bsatn",
    "datastore_index_scan_range_bsatn",
    "datastore_insert_bsatn",
    "datastore_table_row_count",
    "datastore_table_scan_bsatn",
    "datastore_update_bsatn",
    "get_jwt_payload",
    "identity",
    "index_id_from_name",
    "moduleHooks",
    "procedure_abort_mut_tx",
    "procedure_commit_mut_tx",
    "procedure_http_request",
    "procedure_start_mut_tx",
    "row_iter_bsatn_advance",
    "row_iter_bsatn_close",
    "table_id_from_name",
    "volatile_nonatomic_schedule_immediate",
];

const EXPORTS_2_1: [&str; 1] = ["datastore_clear"];

/// What a module of the ABI exports; `None` if there is no such module or version.
pub(crate) fn exports(specifier: &str) -> Option<&'static [&'static str]> {
    match specifier {
        SYS_2_0 => Some(&EXPORTS_2_0),
        SYS_2_1 => Some(&EXPORTS_2_1),
        _ => None,
    }
}

/// The bundle's part of the state.
///
/// # Panics
/// Before [`boot`].
#[inline]
pub(super) fn state(cx: Cx<'_>) -> &BundleState {
    cx.state().bundle.get().expect("natives of bundles exist only in their instances")
}

/// Prepares a fresh runtime.
pub(super) fn boot(cx: Cx<'_>) -> JsResult<()> {
    prepare(cx)?;
    let native = cx.object()?;
    define_hidden_natives(cx, &native)?;
    native.define_named("now", cx.function("now", 0, 0, context::now)?)?;
    let parts = cx.run_script(boot_bytecode())?.call(&cx.undefined(), &[&native])?;
    let text = text::install(cx)?;
    let sys_2_0 = sys_2_0(cx)?;
    sys_2_0.define_named("moduleHooks", parts.get_named("moduleHooks")?)?;
    let sys_2_1 = cx.object()?;
    define(cx, &sys_2_1, "datastore_clear", 1, syscalls::table_clear)?;
    let bundle = BundleState {
        sys: [cx.root(sys_2_0), cx.root(sys_2_1)],
        start: cx.root(parts.get_named("start")?),
        hooks: OnceCell::new(),
        error_classes: Default::default(),
        text,
        iterators: Default::default(),
        timers: Default::default(),
    };
    assert!(cx.state().bundle.set(bundle).is_ok(), "a runtime is booted once");
    Ok(())
}

fn define<'js, F: NativeFn>(cx: Cx<'js>, sys: &Value<'js>, name: &str, length: u8, function: F) -> JsResult<()> {
    sys.define_named(name, cx.function(name, length, 0, function)?)
}

fn sys_2_0(cx: Cx<'_>) -> JsResult<Value<'_>> {
    let sys = cx.object()?;
    macro_rules! define {
        ($($name:literal $length:literal $function:expr,)*) => {
            $(define(cx, &sys, $name, $length, $function)?;)*
        };
    }
    define! {
        "table_id_from_name" 1 syscalls::table_id,
        "index_id_from_name" 1 syscalls::index_id,
        "datastore_table_row_count" 1 syscalls::table_row_count,
        "datastore_table_scan_bsatn" 1 syscalls::table_scan,
        "datastore_index_scan_point_bsatn" 3 syscalls::index_scan_point,
        "datastore_index_scan_range_bsatn" 6 syscalls::index_scan_range,
        "row_iter_bsatn_advance" 2 iterators::row_iter_advance,
        "row_iter_bsatn_close" 1 iterators::row_iter_close,
        "datastore_insert_bsatn" 3 syscalls::insert,
        "datastore_update_bsatn" 4 syscalls::update,
        "datastore_delete_by_index_scan_point_bsatn" 3 syscalls::delete_by_index_point,
        "datastore_delete_by_index_scan_range_bsatn" 6 syscalls::delete_by_index_range,
        "datastore_delete_all_by_eq_bsatn" 3 syscalls::delete_all_by_eq,
        "volatile_nonatomic_schedule_immediate" 2 session::schedule_immediate,
        "console_log" 2 session::console_log,
        "console_timer_start" 1 session::timer_start,
        "console_timer_end" 1 session::timer_end,
        "identity" 0 session::identity,
        "get_jwt_payload" 1 session::jwt_payload,
        "procedure_start_mut_tx" 0 session::begin_transaction,
        "procedure_commit_mut_tx" 0 session::commit_transaction,
        "procedure_abort_mut_tx" 0 session::abort_transaction,
        "procedure_http_request" 2 session::http_request,
    }
    Ok(sys)
}

/// Asks the evaluated bundle for its hooks.
pub(super) fn start<'js>(cx: Cx<'js>, namespace: &Value<'js>) -> JsResult<()> {
    let bundle = state(cx);
    let parts = cx.borrow(bundle.start).call(&cx.undefined(), &[namespace])?;
    let part = |name: &str| -> JsResult<Root> { Ok(cx.root(parts.get_named(name)?)) };
    let hooks = Hooks {
        this: part("hooks")?,
        describe: part("describe")?,
        error_constructor: part("errorConstructor")?,
        sender_error: part("senderError")?,
        call_reducer: part("callReducer")?,
        call_procedure: part("callProcedure")?,
        call_view: part("callView")?,
        call_view_anonymous: part("callViewAnonymous")?,
        call_handler: parts.get_named("callHandler").map(|hook| hook.is_function().then(|| cx.root(hook)))?,
    };
    assert!(bundle.hooks.set(hooks).is_ok(), "a bundle is started once");
    Ok(())
}

/// The hooks of a started bundle.
///
/// # Panics
/// Before [`start`].
pub(super) fn hooks(cx: Cx<'_>) -> &Hooks {
    state(cx).hooks.get().expect("instances are made of started bundles only")
}

fn boot_bytecode() -> &'static Bytecode {
    static BYTECODE: OnceLock<Bytecode> = OnceLock::new();
    BYTECODE.get_or_init(|| compile_own_script("tine:bundle", BOOT_SOURCE))
}

/// What bytecode of this engine can be read by: the engine's version, and bytecode that it makes of a script that does not
/// change, which shows its format and its numbering of names.
pub(super) fn engine_fingerprint() -> &'static [u8; 32] {
    static FINGERPRINT: OnceLock<[u8; 32]> = OnceLock::new();
    FINGERPRINT.get_or_init(|| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.update(engine_version().to_bytes_with_nul());
        hasher.update(boot_bytecode().bytes());
        hasher.update(std::env::consts::ARCH.as_bytes());
        *hasher.finalize().as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_abi_are_told_by_version() {
        assert_eq!(exports("spacetime:sys@2.1"), Some(&["datastore_clear"][..]));
        assert!(exports("spacetime:sys@2.0").is_some_and(|names| names.contains(&"moduleHooks")));
        for other in
            ["spacetime:sys@1.3", "spacetime:sys@2.2", "spacetime:sys@3.0", "spacetime:sys@", "spacetime:other@2.0"]
        {
            assert_eq!(exports(other), None, "{other}");
        }
    }
}
