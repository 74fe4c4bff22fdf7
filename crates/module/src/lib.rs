//! Modules: TypeScript or JavaScript that runs next to the data.
//!
//! A module is published as source ([`SourceBundle`]) and runs as it is: types are removed, relative imports are linked, and
//! the module SDK is built in under `tine:server`. There is no bundler, no package manager and no other program. [`compile`]
//! makes a [`CompiledModule`] with the module's definition; [`CompiledModule::instantiate`] makes an [`Instance`], which runs
//! calls one at a time against tables that its host lends it ([`CallHost`]).
//!
//! # Invariants
//!
//! 1. A call sees its [`CallContext`], its arguments and the tables; there is no clock, no randomness, no file and no network
//!    besides. (Module globals survive between calls of one instance; they are a cache, not state.)
//! 2. An instance never holds more memory than its limit, and a call ends soon after its deadline whatever the code does:
//!    the error that ends it cannot be caught.
//! 3. No input (source, arguments, rows, thrown values) panics. A panic of ours, or of the host, inside a call goes on to the
//!    caller of the call, with the engine's frames unwound.
//! 4. Errors name a place in the author's source.
//! 5. Bytecode is made by this build alone. It leaves the process only under a seal ([`CodeCache`]) and is never taken from users.
//!
//! # Where things are
//!
//! A bundle of the SpacetimeDB tool chain (one file that imports `spacetime:sys@2.x`) is the other kind of module: it brings its own SDK
//! and runs unchanged, see `engine::bundle`.
//!
//! `source` turns a bundle into linked JavaScript; `engine` compiles and runs it; `sdk/*.js` is the JavaScript part of the
//! SDK, and [`SERVER_TYPES`] its types for editors.

mod cache;
mod call;
mod check;
mod diagnostic;
mod engine;
pub mod isolation;
mod module;
mod source;

pub use cache::{CodeCache, CodeStorage};
pub use call::{
    CallContext, CallError, CallHost, HandlerIndex, HandlerOutcome, LogEntry, LogLevel, ProcedureIndex, ReducerIndex,
    SyscallError, ViewIndex, ViewOutcome, ViewRows,
};
pub use diagnostic::{Diagnostic, SourceLocation, StackFrame};
pub use module::{
    CompileError, CompiledModule, Instance, InterruptHandle, Limits, LoadError, compile, compile_isolated,
    compile_with_cache,
};
pub use source::bundle::{BUNDLE_BYTES_MAX, BUNDLE_FILES_MAX, BundleError, CollectError, SourceBundle};

/// Type declarations of `tine:server`, for editors: put this next to a module as `tine.d.ts`.
pub const SERVER_TYPES: &str = include_str!("../types/server.d.ts");
