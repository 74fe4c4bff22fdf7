//! Running an instance: loading a program into a runtime, and calls.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use tine_tables::DatabaseSchema;
use tine_types::bsatn::{BsatnWrite, DecodeError, Reader, validate_product};
use tine_types::http::HttpRequest;
use tine_types::{AlgebraicType, ModuleDef, ProductType, TypeError};

use super::boot;
use super::decode::{DecodeFailure, decode_product};
use super::encode::encode;
use super::errors;
use super::plan::Plan;
use super::program::Program;
use super::raw::{Cx, Exception, JsResult, Root, Runtime, Value};
use super::state::{Modules, State};
use super::tables::{self, BuildError, ParamsPlan};
use super::{Function, Isolate, http};
use crate::call::{CallContext, CallError, CallHost, HandlerOutcome, ViewOutcome, ViewRows};
use crate::diagnostic::Diagnostic;
use crate::module::{Limits, LoadError};

/// One instance of a program.
pub(super) struct QuickJsIsolate {
    runtime: Runtime,
    program: Arc<Program>,
    functions: Functions,
    spent: bool,
}

/// What can be called, with submodules flattened.
#[derive(Default)]
struct Functions {
    reducers: Vec<FunctionPlan>,
    procedures: Vec<FunctionPlan>,
    views: Vec<ViewPlan>,
    /// Only the root module has some.
    handlers: Vec<Target>,
}

/// A function with the `ctx` of its module.
struct Target {
    name: Box<str>,
    function: Root,
    context: Root,
}

/// A function that can be called, with the codec of its parameters and of its result.
struct FunctionPlan {
    target: Target,
    params: ParamsPlan,
    /// What the arguments are checked against before they are built, where that is needed.
    check: Option<ProductType>,
    /// `None` for reducers, whose result is dropped.
    result: Option<Plan>,
}

struct ViewPlan {
    target: Target,
    row: Plan,
    /// Whether it returns one row or nothing rather than an array.
    is_option: bool,
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
        let functions = Functions::of(cx, def, schema, registered).map_err(|error| match error {
            BuildError::Exception => load_error(errors::take(cx, &program)),
            BuildError::Mismatch(problem) => LoadError::SchemaMismatch(problem),
        })?;
        runtime.state().guard.arm(None);
        Ok(QuickJsIsolate { runtime, program, functions, spent: false })
    }

    /// Runs a call in a context and leaves the instance ready for the next one.
    fn run<T>(
        &mut self,
        context: &CallContext,
        host: &mut dyn CallHost,
        call: impl FnOnce(Cx<'_>, &Program, &Functions) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        self.runtime.state().begin(context);
        let cx = self.runtime.enter();
        let state = cx.state();
        let outcome = state.call.context.lend(context, || {
            state.call.host.lend_host(host, || {
                let outcome = call(cx, &self.program, &self.functions);
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
}

/// Functions of one kind as the SDK lists them: pairs of a function and the place of its module.
struct Listed<'a, 'js> {
    cx: Cx<'js>,
    pairs: Value<'js>,
    contexts: &'a Value<'js>,
}

impl Listed<'_, '_> {
    /// The function with a number, with its module's context of the given kind, which is made now if no other function has it.
    fn target(&self, number: usize, name: String, context: &str) -> JsResult<Target> {
        let pair = self.pairs.get_index(number as u32)?;
        let place = pair.get_index(1)?.to_number()? as u32;
        let context = self.contexts.get_index(place)?.get_named(context)?.call(&self.cx.undefined(), &[])?;
        let function = self.cx.root(pair.get_index(0)?);
        Ok(Target { name: name.into(), function, context: self.cx.root(context) })
    }
}

impl Functions {
    fn of(cx: Cx<'_>, def: &ModuleDef, schema: &DatabaseSchema, registered: Root) -> Result<Functions, BuildError> {
        let registered = cx.borrow(registered);
        let handles = tables::build(cx, def, schema)?;
        let make_contexts = cx.borrow(cx.state().boot().sdk().make_contexts);
        let contexts = make_contexts.call(&cx.undefined(), &[&registered, &handles])?;
        let list = |kind: &str| -> JsResult<Listed<'_, '_>> {
            Ok(Listed { cx, pairs: registered.get_named(kind)?, contexts: &contexts })
        };
        let [reducers, procedures, views, handlers] =
            [list("reducers")?, list("procedures")?, list("views")?, list("handlers")?];
        let mut functions = Functions::default();
        let unusable = |error: TypeError| BuildError::Mismatch(format!("a function's type: {error}"));
        for (prefix, module) in def.flatten() {
            let types = &module.typespace;
            for reducer in &module.reducers {
                let name = format!("{prefix}{}", reducer.source_name);
                let target = reducers.target(functions.reducers.len(), name, "reducer")?;
                let params = types.inline_product(&reducer.params).map_err(unusable)?;
                functions.reducers.push(FunctionPlan::new(cx, target, params, None)?);
            }
            for procedure in &module.procedures {
                let name = format!("{prefix}{}", procedure.source_name);
                let target = procedures.target(functions.procedures.len(), name, "procedure")?;
                let params = types.inline_product(&procedure.params).map_err(unusable)?;
                let result = Plan::new(cx, &types.inline(&procedure.return_type).map_err(unusable)?)?;
                functions.procedures.push(FunctionPlan::new(cx, target, params, Some(result))?);
            }
            for view in &module.views {
                let name = format!("{prefix}{}", view.source_name);
                let context = if view.is_anonymous { "anonymousView" } else { "view" };
                let row = view.row_type(types).map_err(unusable)?;
                let row = row.ok_or_else(|| BuildError::Mismatch(format!("the view `{name}` returns no rows")))?;
                let target = views.target(functions.views.len(), name, context)?;
                let is_option = types.inline(&view.return_type).map_err(unusable)?.is_option();
                let row = Plan::new(cx, &AlgebraicType::Product(row))?;
                functions.views.push(ViewPlan { target, row, is_option });
            }
        }
        for (number, handler) in def.http_handlers.iter().enumerate() {
            functions.handlers.push(handlers.target(number, handler.source_name.to_string(), "procedure")?);
        }
        Ok(functions)
    }
}

impl FunctionPlan {
    fn new(cx: Cx<'_>, target: Target, params: ProductType, result: Option<Plan>) -> JsResult<FunctionPlan> {
        let plan = ParamsPlan::new(cx, &params)?;
        let check = plan.check_first.then_some(params);
        Ok(FunctionPlan { target, params: plan, check, result })
    }
}

impl Isolate for QuickJsIsolate {
    fn call(
        &mut self,
        function: Function,
        context: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError> {
        let functions = &self.functions;
        let plan = match function {
            Function::Reducer(index) => functions.reducers.get(index as usize),
            Function::Procedure(index) => functions.procedures.get(index as usize),
        };
        let plan = plan.ok_or(CallError::NoSuchFunction)?;
        if let Some(params) = &plan.check {
            validate_product(params, args).map_err(|source| bad_arguments(&plan.target.name, source))?;
        }
        self.run(context, host, |cx, program, functions| match function {
            Function::Reducer(index) => run(cx, program, &functions.reducers[index as usize], args),
            Function::Procedure(index) => run(cx, program, &functions.procedures[index as usize], args),
        })
    }

    fn call_view(
        &mut self,
        view: u32,
        context: &CallContext,
        host: &mut dyn CallHost,
    ) -> Result<ViewOutcome, CallError> {
        if view as usize >= self.functions.views.len() {
            return Err(CallError::NoSuchFunction);
        }
        self.run(context, host, |cx, program, functions| {
            let (rows, reads) = cx.state().as_view(|| run_view(cx, program, &functions.views[view as usize]));
            Ok(ViewOutcome { rows: rows?, reads })
        })
    }

    fn call_handler(
        &mut self,
        handler: u32,
        context: &CallContext,
        request: &[u8],
        body: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<HandlerOutcome, CallError> {
        let target = self.functions.handlers.get(handler as usize).ok_or(CallError::NoSuchFunction)?;
        let request = HttpRequest::decode(request).map_err(|source| bad_arguments(&target.name, source))?;
        self.run(context, host, |cx, program, functions| {
            let failed = |Exception| errors::take(cx, program);
            let target = &functions.handlers[handler as usize];
            let request = http::handler_request(cx, &request, body).map_err(failed)?;
            let (function, ctx) = (cx.borrow(target.function), cx.borrow(target.context));
            let call = cx.borrow(cx.state().boot().sdk().call_handler);
            let returned = call.call(&cx.undefined(), &[&function, &ctx, &request]);
            let returned = settle(cx, program, &target.name, returned)?;
            http::handler_outcome(&returned).map_err(failed)
        })
    }

    fn memory_bytes(&self) -> usize {
        self.runtime.state().heap.used_bytes()
    }

    fn is_spent(&self) -> bool {
        self.spent
    }
}

/// One call, from arguments to result.
fn run(cx: Cx<'_>, program: &Program, plan: &FunctionPlan, args: &[u8]) -> Result<Bytes, CallError> {
    let failed = |Exception| errors::take(cx, program);
    let target = &plan.target;
    let name = &target.name;
    let mut reader = Reader::new(args);
    let args = match decode_product(cx, &plan.params.plan, &mut reader) {
        Ok(args) => args,
        Err(DecodeFailure::Exception) => return Err(failed(Exception)),
        Err(DecodeFailure::Malformed(source)) => return Err(bad_arguments(name, source)),
    };
    reader.finish().map_err(|source| bad_arguments(name, source))?;
    let returned = cx.borrow(target.function).call(&cx.undefined(), &[&cx.borrow(target.context), &args]);
    let returned = settle(cx, program, name, returned)?;
    let Some(result) = &plan.result else { return Ok(Bytes::new()) };
    let mut bytes = Vec::new();
    let what = format!("the result of `{name}`");
    encode(result, &returned, &mut bytes).map_err(|error| failed(error.throw(cx, &what)))?;
    Ok(bytes.into())
}

/// Runs the jobs that a call left, and sees whether it was stopped or returned what nobody would wait for.
fn settle<'js>(
    cx: Cx<'js>,
    program: &Program,
    name: &str,
    returned: JsResult<Value<'js>>,
) -> Result<Value<'js>, CallError> {
    let failed = |Exception| errors::take(cx, program);
    let returned = returned.map_err(failed)?;
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
    Ok(returned)
}

/// A view's rows, or the query that it returned instead.
fn run_view(cx: Cx<'_>, program: &Program, plan: &ViewPlan) -> Result<ViewRows, CallError> {
    let failed = |Exception| errors::take(cx, program);
    let target = &plan.target;
    let returned = cx.borrow(target.function).call(&cx.undefined(), &[&cx.borrow(target.context)]);
    let returned = settle(cx, program, &target.name, returned)?;
    let sql = cx.borrow(cx.state().boot().sdk().query_sql).call(&cx.undefined(), &[&returned]).map_err(failed)?;
    if !sql.is_undefined() {
        return sql.to_text().map(ViewRows::Query).map_err(failed);
    }
    let what = format!("the result of the view `{}`", target.name);
    let mut bytes = Vec::new();
    let mut encode_row = |row: &Value<'_>| -> Result<(), CallError> {
        encode(&plan.row, row, &mut bytes).map_err(|error| failed(error.throw(cx, &what)))
    };
    let count = match (plan.is_option, returned.is_nullish()) {
        (true, true) => 0,
        (true, false) => {
            encode_row(&returned)?;
            1
        }
        (false, _) if returned.is_array() => {
            let count = returned.length().map_err(failed)?;
            for index in 0..count as u32 {
                encode_row(&returned.get_index(index).map_err(failed)?)?;
            }
            count as u32
        }
        (false, _) => {
            let problem = format!("{what} is neither an array of rows nor a query of ctx.from");
            return Err(CallError::Thrown(Box::new(Diagnostic::bare(problem))));
        }
    };
    let mut rows = Vec::with_capacity(4 + bytes.len());
    rows.put_u32(count);
    rows.extend_from_slice(&bytes);
    Ok(ViewRows::Rows(rows.into()))
}

#[cold]
fn bad_arguments(function: &str, source: DecodeError) -> CallError {
    CallError::BadArguments { function: function.to_owned(), source }
}
