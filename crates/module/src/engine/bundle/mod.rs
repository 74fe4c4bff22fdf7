//! Bundles of the SpacetimeDB tool chain: modules that bring their own SDK and talk to the host through the functions of
//! `spacetime:sys@2.0` and `@2.1`.
//!
//! A bundle is one file of JavaScript. It differs from source modules in everything but the engine: the bundle encodes and decodes
//! rows itself, its functions are called through the hooks that its default export hands out, and its globals are those of the
//! reference host. What is the same is shared: limits, errors, the clock that stands still, the open transaction.
//!
//! # Invariants
//!
//! 1. Natives never run code of the user's: arguments that are not exactly of the type asked for are refused, not converted.
//! 2. While a native works on the bytes of an `ArrayBuffer`, no JavaScript runs. Pointers are asked for anew in every call.
//! 3. Iterators and timers belong to one call and are gone after it; ids of iterators are never used again in an instance.
//! 4. After a fault of the host, every native of the call throws what cannot be caught.
//!
//! # Where things are
//!
//! [`boot`] makes the realm; [`isolate`] runs calls; [`compile`] makes artifacts, with or without the cache; [`arguments`]
//! reads what natives are passed; [`functions`] knows the signatures; [`syscalls`] are those on tables, [`iterators`] those on rows, [`session`] all others;
//! [`text`] has the text codecs.

mod arguments;
mod boot;
mod compile;
mod functions;
mod isolate;
mod iterators;
mod session;
mod syscalls;
mod text;

use std::cell::OnceCell;

use super::raw::{Cx, JsResult, Loaded, Root};
use iterators::Iterators;
use session::Timers;

pub(crate) use compile::{compile, is_candidate};

/// The import specifiers of the module ABI begin so.
pub(crate) const SYS_PREFIX: &str = "spacetime:sys@";

/// Host error codes are below this.
const ERROR_CODES_MAX: usize = 32;

/// What an instance of a bundle knows besides the rest of its state.
pub(super) struct BundleState {
    /// What `spacetime:sys@2.0` and `@2.1` export.
    sys: [Root; 2],
    /// From the boot script.
    start: Root,
    hooks: OnceCell<Hooks>,
    /// Classes of host errors by code, as they are asked for.
    error_classes: [OnceCell<Root>; ERROR_CODES_MAX],
    text: text::TextClasses,
    iterators: Iterators,
    timers: Timers,
}

/// What the bundle's schema handed out. All functions need `this` as receiver.
struct Hooks {
    this: Root,
    describe: Root,
    error_constructor: Root,
    sender_error: Root,
    call_reducer: Root,
    call_procedure: Root,
    call_view: Root,
    call_view_anonymous: Root,
    /// Bundles of older SDKs have none.
    call_handler: Option<Root>,
}

impl BundleState {
    /// The ABI module with a name; the versions are 2.0 and 2.1.
    pub(super) fn load_module(&self, name: &str) -> Option<Loaded<'static>> {
        let exports = boot::exports(name)?;
        let minor = usize::from(name.ends_with('1'));
        Some(Loaded::Object(self.sys[minor], exports))
    }

    /// The class of errors meant for callers, once the bundle has been started.
    pub(super) fn sender_error(&self) -> Option<Root> {
        self.hooks.get().map(|hooks| hooks.sender_error)
    }

    /// The class of host errors with a code; `None` before the bundle has been started.
    pub(super) fn error_class(&self, cx: Cx<'_>, code: u16) -> JsResult<Option<Root>> {
        let Some(hooks) = self.hooks.get() else { return Ok(None) };
        let kept = self.error_classes.get(usize::from(code));
        if let Some(class) = kept.and_then(OnceCell::get) {
            return Ok(Some(*class));
        }
        let class = cx.borrow(hooks.error_constructor).call(&cx.borrow(hooks.this), &[&cx.int(code.into())])?;
        let class = cx.root(class);
        // Codes beyond the table do not exist; if they did, they would only not be remembered.
        Ok(Some(kept.map_or(class, |kept| *kept.get_or_init(|| class))))
    }
}
