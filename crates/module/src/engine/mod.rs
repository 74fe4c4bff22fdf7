//! JavaScript engines.
//!
//! The rest of the crate knows an engine by two small traits: [`Engine`] compiles linked source, [`Isolate`] runs one
//! instance. There is one engine, QuickJS; the traits are where a compiling engine or WebAssembly would enter.
//!
//! Inside: [`raw`] holds the engine's handles and nearly all unsafe code; [`heap`] is its memory; [`state`] what an instance
//! knows; [`boot`] turns a fresh runtime into one for modules; [`plan`], [`encode`] and [`decode`] are the codec of values;
//! [`access`] is where tables are reached; [`tables`], [`rows`], [`scan`], [`values`], [`context`] and [`http`] and [`console`] are what modules can call; [`isolate`] runs calls.
//! [`bundle`] has what is different for bundles of the SpacetimeDB tool chain.

mod access;
pub(crate) mod boot;
pub(crate) mod bundle;
mod compile;
mod console;
mod context;
mod decode;
mod encode;
mod errors;
mod heap;
mod http;
mod isolate;
mod lent;
mod plan;
mod program;
mod raw;
mod rows;
mod scan;
mod state;
mod tables;
mod values;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use tine_tables::DatabaseSchema;
use tine_types::ModuleDef;

use crate::call::{CallContext, CallError, CallHost, HandlerOutcome, ViewOutcome};
use crate::module::{CompileError, Limits, LoadError};
use crate::source::bundle::SourceBundle;
use crate::source::link::LinkedProgram;

pub(crate) use compile::QuickJs;
pub(crate) use console::LOG_LINES_MAX;
pub(crate) use errors::with_sources;

/// A function to call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Function {
    /// By its position among the reducers.
    Reducer(u32),
    /// By its position among the procedures.
    Procedure(u32),
}

/// Compiles modules.
pub(crate) trait Engine {
    /// What instances are made of.
    type Artifact: Artifact;

    /// Compiles a program, evaluates it once and reads its definition.
    ///
    /// # Errors
    /// Text that the engine does not understand, code that fails while it is evaluated, a definition that is not valid.
    fn compile(
        &self,
        bundle: &SourceBundle,
        program: LinkedProgram,
        limits: &Limits,
    ) -> Result<(ModuleDef, Self::Artifact), CompileError>;
}

/// A compiled module; shared by its instances and by threads.
pub(crate) trait Artifact: Send + Sync {
    /// Makes an instance.
    ///
    /// # Errors
    /// Evaluating the module fails, or the schema is not the module's.
    fn instantiate(
        &self,
        def: &Arc<ModuleDef>,
        schema: &DatabaseSchema,
        limits: &Limits,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Box<dyn Isolate>, LoadError>;

    /// Bytes that the artifact holds besides its source.
    fn code_bytes(&self) -> usize;
}

/// One instance of a module.
pub(crate) trait Isolate: Send {
    /// Calls a function with its arguments (a BSATN product) and returns its result (BSATN).
    ///
    /// # Errors
    /// See [`CallError`].
    fn call(
        &mut self,
        function: Function,
        context: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError>;

    /// Calls a view, by its position among all views. It cannot change tables.
    ///
    /// # Errors
    /// See [`CallError`].
    fn call_view(
        &mut self,
        view: u32,
        context: &CallContext,
        host: &mut dyn CallHost,
    ) -> Result<ViewOutcome, CallError>;

    /// Calls an HTTP handler with a request (BSATN of an `HttpRequest`) and its body.
    ///
    /// # Errors
    /// See [`CallError`].
    fn call_handler(
        &mut self,
        handler: u32,
        context: &CallContext,
        request: &[u8],
        body: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<HandlerOutcome, CallError>;

    /// Makes the isolate as if no call had run in it, if it can; `false`: only another one is fresh.
    ///
    /// # Errors
    /// Those of [`Artifact::instantiate`].
    fn renew(&mut self) -> Result<bool, LoadError> {
        Ok(false)
    }

    /// Memory in use, in bytes.
    fn memory_bytes(&self) -> usize;

    /// Whether a call was stopped in the middle, so that the instance must not be used again.
    fn is_spent(&self) -> bool;
}
