//! Modules and their instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tine_tables::DatabaseSchema;
use tine_types::ModuleDef;

use crate::cache::CodeCache;
use crate::call::{
    CallContext, CallError, CallHost, HandlerIndex, HandlerOutcome, ProcedureIndex, ReducerIndex, ViewIndex,
    ViewOutcome,
};
use crate::diagnostic::{Diagnostic, SourceLocation};
use crate::engine::boot::SDK_EXPORTS;
use crate::engine::{Artifact, Engine, Function, Isolate, QuickJs, bundle};
use crate::isolation::{Isolation, ModuleSource, RemoteIsolate, WorkerPlace, describe};
use crate::source::bundle::{BundleError, SourceBundle};
use crate::source::link;

/// What an instance may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one instance, all of it: the engine's own (about 1 MiB) and what natives hold for it.
    pub memory_bytes: usize,
    /// Stack of one call. The thread needs about 256 KiB more than this.
    pub stack_bytes: usize,
    /// How long evaluating the module's top level may take.
    pub load_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 256 << 20, stack_bytes: 512 << 10, load_deadline: Duration::from_secs(2) }
    }
}

/// A module that was compiled; instances are made of it. Cheap to share, never changes.
pub struct CompiledModule {
    hash: [u8; 32],
    def: Arc<ModuleDef>,
    /// `None`: its code was never compiled here, and must not be.
    artifact: Option<Box<dyn Artifact>>,
    is_bundle: bool,
    /// What it was compiled of, for processes that compile it themselves.
    program: Arc<[u8]>,
}

/// Compiles a module: removes types, links its files, evaluates it once and reads its definition.
///
/// # Errors
/// See [`CompileError`]; all but bounds name a place in the source.
pub fn compile(bundle: &SourceBundle, limits: &Limits) -> Result<Arc<CompiledModule>, CompileError> {
    compile_with_cache(bundle, limits, None)
}

/// Like [`compile`]. A single file that imports the module ABI (`spacetime:sys@2.x`) is a bundle of the SpacetimeDB tool chain: it
/// runs as it is, and its compiled form is looked for in the cache first, and kept there.
///
/// # Errors
/// As there.
pub fn compile_with_cache(
    bundle: &SourceBundle,
    limits: &Limits,
    cache: Option<&CodeCache>,
) -> Result<Arc<CompiledModule>, CompileError> {
    bundle.check()?;
    let program: Arc<[u8]> = bundle.encode().into();
    let hash = *blake3::hash(&program).as_bytes();
    if bundle::is_candidate(bundle)
        && let Some((def, artifact)) = bundle::compile(bundle, &hash, limits, cache)?
    {
        return Ok(Arc::new(CompiledModule {
            hash,
            def: Arc::new(def),
            artifact: Some(Box::new(artifact)),
            is_bundle: true,
            program,
        }));
    }
    let linked = link::link(bundle, &SDK_EXPORTS).map_err(CompileError::Syntax)?;
    let (def, artifact) = QuickJs.compile(bundle, linked, limits)?;
    let artifact = Some(Box::new(artifact) as Box<dyn Artifact>);
    Ok(Arc::new(CompiledModule { hash, def: Arc::new(def), artifact, is_bundle: false, program }))
}

/// Like [`compile`], in a worker process: nothing of the module is parsed or evaluated here. Its instances can only be
/// [isolated](CompiledModule::instantiate_isolated) ones.
///
/// # Errors
/// As there; [`LoadError::Worker`].
pub fn compile_isolated(
    bundle: &SourceBundle,
    limits: &Limits,
    isolation: &Isolation,
) -> Result<Arc<CompiledModule>, CompileError> {
    bundle.check()?;
    let program: Arc<[u8]> = bundle.encode().into();
    let hash = *blake3::hash(&program).as_bytes();
    let (def, is_bundle) = describe(&program, limits, isolation)?;
    Ok(Arc::new(CompiledModule { hash, def: Arc::new(def), artifact: None, is_bundle, program }))
}

impl CompiledModule {
    /// BLAKE3 of the program bytes: equal for equal modules.
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// The module's definition. Reducers and procedures are called by their positions in it.
    pub fn def(&self) -> &Arc<ModuleDef> {
        &self.def
    }

    /// Whether it is a bundle of the SpacetimeDB tool chain, whose generator of random numbers goes on from call to call of an instance.
    pub fn is_bundle(&self) -> bool {
        self.is_bundle
    }

    /// Bytes of compiled code, besides the source.
    pub fn code_bytes(&self) -> usize {
        self.artifact.as_ref().map_or(0, |artifact| artifact.code_bytes())
    }

    /// Makes an instance for a database with `schema`, which must have every table of the module.
    ///
    /// # Errors
    /// Evaluating the module fails, or the schema lacks something. The time to evaluate is bounded by the limits.
    ///
    /// # Panics
    /// When it was compiled by [`compile_isolated`]: such code must not run here.
    pub fn instantiate(&self, schema: &DatabaseSchema, limits: &Limits) -> Result<Instance, LoadError> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let artifact = self.artifact.as_ref().expect("what was compiled in a worker runs in workers");
        let isolate = artifact.instantiate(&self.def, schema, limits, Arc::clone(&interrupt))?;
        Ok(Instance { isolate, interrupt: InterruptHandle { flag: interrupt, worker: None } })
    }

    /// The same in a worker process of its own. A call that crashes the engine, or that the engine cannot stop, costs that process.
    ///
    /// # Errors
    /// As for [`CompiledModule::instantiate`]; [`LoadError::Worker`].
    pub fn instantiate_isolated(
        &self,
        schema: &Arc<DatabaseSchema>,
        limits: &Limits,
        isolation: &Isolation,
    ) -> Result<Instance, LoadError> {
        let flag = Arc::new(AtomicBool::new(false));
        let source = ModuleSource { program: Arc::clone(&self.program), def: Arc::clone(&self.def) };
        let isolate = RemoteIsolate::load(source, Arc::clone(schema), limits, isolation, Arc::clone(&flag))?;
        let worker = Some(isolate.place());
        Ok(Instance { isolate: Box::new(isolate), interrupt: InterruptHandle { flag, worker } })
    }
}

impl std::fmt::Debug for CompiledModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledModule").field("hash", &self.hash).field("def", &self.def).finish_non_exhaustive()
    }
}

/// One instance of a module. It may move between threads and runs one call at a time.
pub struct Instance {
    isolate: Box<dyn Isolate>,
    interrupt: InterruptHandle,
}

impl Instance {
    /// Calls a reducer with its arguments (a BSATN product). Returns its result, which is empty.
    ///
    /// The host opens the transaction before and commits or rolls back after.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_reducer(
        &mut self,
        reducer: ReducerIndex,
        call: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError> {
        self.isolate.call(Function::Reducer(reducer.0), call, args, host)
    }

    /// Calls a procedure with its arguments (a BSATN product). Returns its result (BSATN of its return type). A transaction
    /// that the procedure leaves open is aborted.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_procedure(
        &mut self,
        procedure: ProcedureIndex,
        call: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError> {
        self.isolate.call(Function::Procedure(procedure.0), call, args, host)
    }

    /// Calls a view. It reads the tables of the open transaction and cannot change them; for an anonymous view the context's
    /// sender means nothing.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_view(
        &mut self,
        view: ViewIndex,
        call: &CallContext,
        host: &mut dyn CallHost,
    ) -> Result<ViewOutcome, CallError> {
        self.isolate.call_view(view.0, call, host)
    }

    /// Calls an HTTP handler with a request (BSATN of an `HttpRequest`) and its body. Like a procedure it opens transactions
    /// itself; one that it leaves open is aborted.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call_handler(
        &mut self,
        handler: HandlerIndex,
        call: &CallContext,
        request: &[u8],
        body: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<HandlerOutcome, CallError> {
        self.isolate.call_handler(handler.0, call, request, body, host)
    }

    /// Makes the instance as if no call had run in it, where that costs less than another instance: in a worker process, which goes on.
    /// `false`: only another instance is fresh.
    ///
    /// # Errors
    /// Evaluating the module fails; the instance must be replaced then.
    pub fn renew(&mut self) -> Result<bool, LoadError> {
        self.isolate.renew()
    }

    /// Memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.isolate.memory_bytes()
    }

    /// Whether the host must make a new instance before the next call, because a call was stopped in the middle.
    pub fn needs_replacement(&self) -> bool {
        self.isolate.is_spent()
    }

    /// A handle with which any thread can stop the running call.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        self.interrupt.clone()
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("memory_bytes", &self.memory_bytes()).finish_non_exhaustive()
    }
}

/// Stops the running call of an instance, as when its fork is deleted.
#[derive(Clone, Debug)]
pub struct InterruptHandle {
    flag: Arc<AtomicBool>,
    /// The process in which the instance runs, if it is not this one.
    worker: Option<WorkerPlace>,
}

impl InterruptHandle {
    /// Makes the running call, or the next one, fail with [`CallError::Interrupted`]. A call that ends sooner than the engine
    /// looks (within a millisecond) is not disturbed.
    pub fn interrupt(&self) {
        self.flag.store(true, Ordering::Relaxed);
        if let Some(worker) = &self.worker {
            worker.end();
        }
    }
}

/// Why a module cannot be compiled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The bundle breaks a bound or has no entry.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The source does not parse, or an import leads nowhere.
    #[error("{0}")]
    Syntax(Diagnostic),
    /// Evaluating the module failed.
    #[error(transparent)]
    Load(LoadError),
    /// The tables or functions that the module defines are not valid.
    #[error("the module's definition is not valid: {0}")]
    Definition(String),
}

impl CompileError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            CompileError::Bundle(error) => error.code(),
            CompileError::Syntax(_) => "TN0510",
            CompileError::Load(error) => error.code(),
            CompileError::Definition(_) => "TN0511",
        }
    }

    /// Where in the source it is, if that is known.
    pub fn location(&self) -> Option<&SourceLocation> {
        match self {
            CompileError::Syntax(diagnostic) => diagnostic.location.as_ref(),
            CompileError::Load(error) => error.location(),
            CompileError::Bundle(_) | CompileError::Definition(_) => None,
        }
    }
}

/// Why no instance of a module can be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The module's top level threw, or it exports something else than it may.
    #[error("{0}")]
    Thrown(Box<Diagnostic>),
    /// The module's top level ran longer than it may.
    #[error("loading the module ran out of time{}", place(location))]
    Deadline {
        /// Where it was stopped.
        location: Option<SourceLocation>,
    },
    /// The module needs more memory than it may have.
    #[error("loading the module ran out of memory{}", place(location))]
    OutOfMemory {
        /// Where, if it was an exception that told.
        location: Option<SourceLocation>,
    },
    /// The module's top level nested calls too deeply.
    #[error("loading the module nested too deeply{}", place(location))]
    StackOverflow {
        /// The innermost function.
        location: Option<SourceLocation>,
    },
    /// The database does not have the module's tables.
    #[error("{0}")]
    SchemaMismatch(String),
    /// The process in which the instance was to run did not see it through.
    #[error("the process that loads the module failed: {0}")]
    Worker(#[source] tine_sandbox::CallError),
}

fn place(location: &Option<SourceLocation>) -> String {
    location.as_ref().map(|location| format!(" at {location}")).unwrap_or_default()
}

impl LoadError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            LoadError::Thrown(_) => "TN0520",
            LoadError::Deadline { .. } => "TN0521",
            LoadError::OutOfMemory { .. } => "TN0522",
            LoadError::StackOverflow { .. } => "TN0523",
            LoadError::SchemaMismatch(_) => "TN0524",
            LoadError::Worker(error) => error.code(),
        }
    }

    /// Where in the source it is, if that is known.
    pub fn location(&self) -> Option<&SourceLocation> {
        match self {
            LoadError::Thrown(diagnostic) => diagnostic.location.as_ref(),
            LoadError::Deadline { location }
            | LoadError::OutOfMemory { location }
            | LoadError::StackOverflow { location } => location.as_ref(),
            LoadError::SchemaMismatch(_) | LoadError::Worker(_) => None,
        }
    }
}
