//! Running an instance: loading a program into a runtime, and calls.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use tine_tables::DatabaseSchema;
use tine_types::bsatn::{DecodeError, Reader, validate_product};
use tine_types::{ModuleDef, ProductType};

use super::boot;
use super::decode::{DecodeFailure, decode_product};
use super::encode::encode;
use super::errors;
use super::plan::Plan;
use super::program::Program;
use super::raw::{Cx, Exception, JsResult, Root, Runtime, Value};
use super::state::{Modules, State};
use super::tables::{self, BuildError, ParamsPlan};
use super::{Function, Isolate};
use crate::call::{CallContext, CallError, CallHost};
use crate::diagnostic::Diagnostic;
use crate::module::{Limits, LoadError};

/// One instance of a program.
pub(super) struct QuickJsIsolate {
    runtime: Runtime,
    program: Arc<Program>,
    def: Arc<ModuleDef>,
    reducers: Vec<FunctionPlan>,
    procedures: Vec<FunctionPlan>,
    reducer_context: Root,
    procedure_context: Root,
    spent: bool,
}

/// A function that can be called, with the codec of its parameters and of its result.
struct FunctionPlan {
    function: Root,
    params: ParamsPlan,
    /// `None` for reducers, whose result is dropped.
    result: Option<Plan>,
}

/// A runtime with a program evaluated in it.
pub(super) struct Loaded {
    pub(super) runtime: Runtime,
    pub(super) program: Arc<Program>,
    /// What the SDK's `register` returned.
    pub(super) registered: Root,
}

/// Evaluates a program in a fresh runtime and registers what it exports.
pub(super) fn load(program: &Arc<Program>, limits: &Limits, interrupt: Arc<AtomicBool>) -> Result<Loaded, LoadError> {
    let state = State::new(limits.memory_bytes, Modules::Program(Arc::clone(program)), interrupt);
    let mut runtime = Runtime::new(limits.stack_bytes, state).ok_or(LoadError::OutOfMemory { location: None })?;
    runtime.state().guard.arm(Instant::now().checked_add(limits.load_deadline));
    let cx = runtime.enter();
    let registered = evaluate(cx, program)?;
    let registered = cx.root(registered);
    if let Some(error) = errors::stopped(cx, program, None) {
        return Err(load_error(error));
    }
    Ok(Loaded { runtime, program: Arc::clone(program), registered })
}

fn evaluate<'js>(cx: Cx<'js>, program: &Program) -> Result<Value<'js>, LoadError> {
    // Before the SDK is there, only memory can fail.
    boot::boot(cx).map_err(|Exception| LoadError::OutOfMemory { location: None })?;
    let namespace = run_entry(cx, program, "module")?;
    let register = cx.borrow(cx.state().boot().sdk().register);
    register.call(&cx.undefined(), &[&namespace]).map_err(|Exception| load_error(errors::take(cx, program)))
}

/// Evaluates a program's entry to its end in a booted realm and returns its namespace. `kind` is what messages call the program.
pub(super) fn run_entry<'js>(cx: Cx<'js>, program: &Program, kind: &str) -> Result<Value<'js>, LoadError> {
    cx.enable_modules();
    let failed = |Exception| load_error(errors::take(cx, program));
    let (namespace, promise) = cx.run_module(&program.files[&program.entry].bytecode).map_err(failed)?;
    while cx.run_job().map_err(failed)? {}
    match promise.promise() {
        Some(Some(false)) => return Err(load_error(errors::of_value(cx, program, &promise.promise_result()))),
        Some(None) => {
            let error = errors::stopped(cx, program, None).map(load_error);
            let problem = format!("the {kind} awaits something at its top level that never happens");
            return Err(error.unwrap_or_else(|| LoadError::Thrown(Box::new(Diagnostic::bare(problem)))));
        }
        _ => {}
    }
    Ok(namespace)
}

/// The same failure, of loading rather than of a call.
pub(super) fn load_error(error: CallError) -> LoadError {
    match error {
        CallError::Deadline { location } => LoadError::Deadline { location },
        CallError::OutOfMemory { location } => LoadError::OutOfMemory { location },
        CallError::StackOverflow { location } => LoadError::StackOverflow { location },
        CallError::Thrown(diagnostic) => LoadError::Thrown(diagnostic),
        other => LoadError::Thrown(Box::new(Diagnostic::bare(other.to_string()))),
    }
}

impl QuickJsIsolate {
    /// Makes the loaded program callable: plans its functions and makes the handles of its tables.
    pub(super) fn new(
        loaded: Loaded,
        def: &Arc<ModuleDef>,
        schema: &DatabaseSchema,
    ) -> Result<QuickJsIsolate, LoadError> {
        let Loaded { mut runtime, program, registered } = loaded;
        let cx = runtime.enter();
        let parts = prepare(cx, def, schema, registered).map_err(|error| match error {
            BuildError::Exception => load_error(errors::take(cx, &program)),
            BuildError::Mismatch(problem) => LoadError::SchemaMismatch(problem),
        })?;
        runtime.state().guard.arm(None);
        Ok(QuickJsIsolate {
            runtime,
            program,
            def: Arc::clone(def),
            reducers: parts.reducers,
            procedures: parts.procedures,
            reducer_context: parts.reducer_context,
            procedure_context: parts.procedure_context,
            spent: false,
        })
    }
}

/// What [`prepare`] makes.
struct Parts {
    reducers: Vec<FunctionPlan>,
    procedures: Vec<FunctionPlan>,
    reducer_context: Root,
    procedure_context: Root,
}

fn prepare(cx: Cx<'_>, def: &ModuleDef, schema: &DatabaseSchema, registered: Root) -> Result<Parts, BuildError> {
    let registered = cx.borrow(registered);
    let (reducers, procedures) = (registered.get_named("reducers")?, registered.get_named("procedures")?);
    let params = |product: &ProductType| -> Result<ParamsPlan, BuildError> {
        let inlined = def.typespace.inline_product(product);
        let inlined = inlined.map_err(|error| BuildError::Mismatch(format!("a parameter's type: {error}")))?;
        Ok(ParamsPlan::new(cx, &inlined)?)
    };
    let reducers = def.reducers.iter().enumerate().map(|(index, reducer)| {
        let function = cx.root(reducers.get_index(index as u32)?);
        Ok(FunctionPlan { function, params: params(&reducer.params)?, result: None })
    });
    let procedures = def.procedures.iter().enumerate().map(|(index, procedure)| {
        let function = cx.root(procedures.get_index(index as u32)?);
        let result = def.typespace.inline(&procedure.return_type);
        let result = result.map_err(|error| BuildError::Mismatch(format!("a procedure's result: {error}")))?;
        Ok(FunctionPlan { function, params: params(&procedure.params)?, result: Some(Plan::new(cx, &result)?) })
    });
    let (reducers, procedures) =
        (reducers.collect::<Result<Vec<_>, BuildError>>()?, procedures.collect::<Result<Vec<_>, BuildError>>()?);
    let db = tables::build(cx, def, schema)?;
    let contexts = cx.borrow(cx.state().boot().sdk().make_contexts).call(&cx.undefined(), &[&db])?;
    let context = |name| -> JsResult<Root> { Ok(cx.root(contexts.get_named(name)?)) };
    Ok(Parts { reducers, procedures, reducer_context: context("reducer")?, procedure_context: context("procedure")? })
}

impl Isolate for QuickJsIsolate {
    fn call(
        &mut self,
        function: Function,
        context: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError> {
        let (plan, ctx, name, params) = match function {
            Function::Reducer(index) => {
                let plan = self.reducers.get(index as usize).ok_or(CallError::NoSuchFunction)?;
                let reducer = &self.def.reducers[index as usize];
                (plan, self.reducer_context, &*reducer.source_name, &reducer.params)
            }
            Function::Procedure(index) => {
                let plan = self.procedures.get(index as usize).ok_or(CallError::NoSuchFunction)?;
                let procedure = &self.def.procedures[index as usize];
                (plan, self.procedure_context, &*procedure.source_name, &procedure.params)
            }
        };
        if plan.params.check_first {
            let params = self.def.typespace.inline_product(params).expect("planned, so it can be inlined");
            validate_product(&params, args).map_err(|source| bad_arguments(name, source))?;
        }
        self.runtime.state().begin(context);
        let cx = self.runtime.enter();
        let state = cx.state();
        let outcome = state.call.context.lend(context, || {
            state.call.host.lend_host(host, || {
                let outcome = run(cx, &self.program, name, plan, ctx, args);
                if state.call.transaction_micros.take().is_some() {
                    // Only code that was stopped leaves one open. That the host refuses to abort it changes nothing.
                    let _ = state.call.host.with(|host| host.abort_transaction());
                }
                outcome
            })
        });
        state.scans.clear(&state.heap);
        // If a native panicked, that goes on from here, and the instance is not to be used again.
        let spent = std::mem::replace(&mut self.spent, true);
        state.resume_panic();
        self.spent = spent;
        if let Err(error) = &outcome {
            // Jobs of a call that failed would run in the next one.
            self.spent |= error.replaces_instance() || cx.has_jobs();
        }
        outcome
    }

    fn memory_bytes(&self) -> usize {
        self.runtime.state().heap.used_bytes()
    }

    fn is_spent(&self) -> bool {
        self.spent
    }
}

/// One call, from arguments to result.
fn run(
    cx: Cx<'_>,
    program: &Program,
    name: &str,
    plan: &FunctionPlan,
    ctx: Root,
    args: &[u8],
) -> Result<Bytes, CallError> {
    let failed = |Exception| errors::take(cx, program);
    let mut reader = Reader::new(args);
    let args = match decode_product(cx, &plan.params.plan, &mut reader) {
        Ok(args) => args,
        Err(DecodeFailure::Exception) => return Err(failed(Exception)),
        Err(DecodeFailure::Malformed(source)) => return Err(bad_arguments(name, source)),
    };
    reader.finish().map_err(|source| bad_arguments(name, source))?;
    let returned = cx.borrow(plan.function).call(&cx.undefined(), &[&cx.borrow(ctx), &args]).map_err(failed)?;
    let guard = &cx.state().guard;
    while cx.has_jobs() && guard.stop().is_none() {
        cx.run_job().map_err(failed)?;
    }
    if let Some(error) = errors::stopped(cx, program, None) {
        return Err(error);
    }
    if returned.promise().is_some() {
        return Err(CallError::ReturnedPromise { function: name.to_owned() });
    }
    let Some(result) = &plan.result else { return Ok(Bytes::new()) };
    let mut bytes = Vec::new();
    let what = format!("the result of `{name}`");
    encode(result, &returned, &mut bytes).map_err(|error| failed(error.throw(cx, &what)))?;
    Ok(bytes.into())
}

#[cold]
fn bad_arguments(function: &str, source: DecodeError) -> CallError {
    CallError::BadArguments { function: function.to_owned(), source }
}
