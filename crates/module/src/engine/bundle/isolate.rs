//! Running an instance of a bundle: loading it into a runtime, and calls.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use tine_tables::ReadSet;
use tine_types::bsatn::validate_product;
use tine_types::{ConnectionId, Identity, ModuleDef};

use super::super::console;
use super::super::decode::big_from_text;
use super::super::errors;
use super::super::isolate::{load_error, run_entry};
use super::super::program::Program;
use super::super::raw::{Cx, Exception, JsResult, Root, Runtime, Value};
use super::super::state::{Modules, State};
use super::super::{Function, Isolate};
use super::boot::{self, hooks};
use super::functions::{Functions, View, handler_outcome};
use crate::call::{CallContext, CallError, CallHost, HandlerOutcome, LogLevel, ViewOutcome};
use crate::diagnostic::Diagnostic;
use crate::module::{Limits, LoadError};

/// Arguments up to this long are passed in a buffer that is used again; longer ones get their own.
const ARGUMENTS_KEPT_BYTES: usize = 4096;

/// For how many callers the numbers of sender and connection are kept. Beyond it the oldest are made again.
const CALLERS_MAX: usize = 1024;

/// Most failed jobs of one call that are logged; finalizers of iterators can be many.
const JOBS_LOGGED_MAX: u32 = 16;

/// One instance of a bundle.
pub(super) struct BundleIsolate {
    runtime: Runtime,
    program: Arc<Program>,
    functions: Functions,
    callers: Callers,
    arguments: Arguments,
    spent: bool,
}

/// Evaluates a bundle in a fresh runtime and asks it for its hooks.
pub(super) fn load(program: &Arc<Program>, limits: &Limits, interrupt: Arc<AtomicBool>) -> Result<Runtime, LoadError> {
    let state = State::new(limits.memory_bytes, Modules::Program(Arc::clone(program)), interrupt);
    let mut runtime = Runtime::new(limits.stack_bytes, state).ok_or(LoadError::OutOfMemory { location: None })?;
    runtime.state().guard.arm(Instant::now().checked_add(limits.load_deadline));
    let cx = runtime.enter();
    evaluate(cx, program)?;
    if let Some(error) = errors::stopped(cx, program, None) {
        return Err(load_error(error));
    }
    Ok(runtime)
}

fn evaluate(cx: Cx<'_>, program: &Program) -> Result<(), LoadError> {
    // Before the realm is ready, only memory can fail.
    boot::boot(cx).map_err(|Exception| LoadError::OutOfMemory { location: None })?;
    let namespace = run_entry(cx, program, "bundle")?;
    boot::start(cx, &namespace).map_err(|Exception| load_error(errors::take(cx, program)))
}

/// Reads the definition of a started bundle.
pub(super) fn describe(cx: Cx<'_>, program: &Program) -> Result<Vec<u8>, LoadError> {
    let hooks = hooks(cx);
    let described = cx.borrow(hooks.describe).call(&cx.borrow(hooks.this), &[]);
    let described = described.map_err(|Exception| load_error(errors::take(cx, program)))?;
    described.with_bytes(<[u8]>::to_vec).ok_or_else(|| {
        LoadError::Thrown(Box::new(Diagnostic::bare("__describe_module__ of the bundle did not return a Uint8Array")))
    })
}

impl BundleIsolate {
    /// Makes a loaded bundle callable.
    pub(super) fn new(
        mut runtime: Runtime,
        program: Arc<Program>,
        def: &Arc<ModuleDef>,
    ) -> Result<BundleIsolate, LoadError> {
        let functions = Functions::of(def).map_err(LoadError::SchemaMismatch)?;
        let cx = runtime.enter();
        let kept = (|| Ok((Callers::new(cx)?, Arguments::new(cx)?)))();
        let (callers, arguments) = kept.map_err(|Exception| load_error(errors::take(cx, &program)))?;
        runtime.state().guard.arm(None);
        Ok(BundleIsolate { runtime, program, functions, callers, arguments, spent: false })
    }

    /// Calls a hook of the bundle in a context and leaves the instance ready for the next call.
    fn run<T>(
        &mut self,
        context: &CallContext,
        host: &mut dyn CallHost,
        call: impl for<'js> FnOnce(Cx<'js>, &Functions, &Callers, &Arguments) -> JsResult<Value<'js>>,
        finish: impl for<'js> FnOnce(&Functions, Value<'js>) -> Result<T, String>,
    ) -> Result<T, CallError> {
        self.runtime.state().begin(context);
        let cx = self.runtime.enter();
        let (program, functions) = (&self.program, &self.functions);
        let state = cx.state();
        let outcome = state.call.context.lend(context, || {
            state.call.host.lend_host(host, || {
                let returned = call(cx, functions, &self.callers, &self.arguments);
                let outcome = finish_call(cx, program, returned, |returned| finish(functions, returned));
                if state.call.transaction_micros.take().is_some() {
                    // Left open by code that was stopped, or that ended without closing it. A refusal changes nothing.
                    let _ = state.call.host.with(|host| host.abort_transaction());
                }
                outcome
            })
        });
        let bundle = boot::state(cx);
        bundle.iterators.clear(&state.heap);
        bundle.timers.clear();
        state.resume_panic();
        self.spent |= bundle.iterators.is_worn();
        if let Err(error) = &outcome {
            // Jobs of a call that was stopped would run in the next one.
            self.spent |= error.replaces_instance() || cx.has_jobs();
        }
        outcome
    }
}

impl Isolate for BundleIsolate {
    fn call(
        &mut self,
        function: Function,
        context: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError> {
        let (id, params) = match function {
            Function::Reducer(id) => (id, self.functions.reducers.get(id as usize).map(|reducer| &reducer.params)),
            Function::Procedure(id) => {
                (id, self.functions.procedures.get(id as usize).map(|procedure| &procedure.called.params))
            }
        };
        let params = params.ok_or(CallError::NoSuchFunction)?;
        // The bundle's own decoder does not look for rubbish behind the arguments.
        validate_product(params, args).map_err(|source| self.functions.bad_arguments(function, source))?;
        let is_reducer = matches!(function, Function::Reducer(_));
        self.run(
            context,
            host,
            |cx, _, callers, arguments| {
                let hooks = hooks(cx);
                let (sender, connection) = callers.numbers(cx, context.sender, context.connection_id)?;
                let (hook, args) = match is_reducer {
                    true => (hooks.call_reducer, arguments.view(cx, args)?),
                    false => (hooks.call_procedure, cx.uint8_array(args)?),
                };
                let time = cx.big_i64(context.timestamp.micros())?;
                let (this, id) = (cx.borrow(hooks.this), cx.int(id as i32));
                cx.borrow(hook).call(&this, &[&id, &sender, &connection, &time, &args])
            },
            |functions, returned| match is_reducer {
                true if returned.is_undefined() => Ok(Bytes::new()),
                true => Err(format!("reducer `{}` returned a value", functions.reducers[id as usize].name)),
                false => functions.procedures[id as usize].result(&returned),
            },
        )
    }

    fn call_view(
        &mut self,
        view: u32,
        context: &CallContext,
        host: &mut dyn CallHost,
    ) -> Result<ViewOutcome, CallError> {
        let Some(&View { hook, is_anonymous, .. }) = self.functions.views.get(view as usize) else {
            return Err(CallError::NoSuchFunction);
        };
        let mut reads = ReadSet::default();
        let rows = self.run(
            context,
            host,
            |cx, _, callers, _| {
                let hooks = hooks(cx);
                let (this, id, args) = (cx.borrow(hooks.this), cx.int(hook as i32), cx.uint8_array(&[])?);
                let (returned, read) = cx.state().as_view(|| match is_anonymous {
                    true => cx.borrow(hooks.call_view_anonymous).call(&this, &[&id, &args]),
                    false => {
                        let (sender, _) = callers.numbers(cx, context.sender, context.connection_id)?;
                        cx.borrow(hooks.call_view).call(&this, &[&id, &sender, &args])
                    }
                });
                reads = read;
                returned?.get_named("data")
            },
            |functions, returned| functions.views[view as usize].rows(&returned),
        )?;
        Ok(ViewOutcome { rows, reads })
    }

    fn call_handler(
        &mut self,
        handler: u32,
        context: &CallContext,
        request: &[u8],
        body: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<HandlerOutcome, CallError> {
        if handler as usize >= self.functions.handlers.len() {
            return Err(CallError::NoSuchFunction);
        }
        self.run(
            context,
            host,
            |cx, _, _, _| {
                let hooks = hooks(cx);
                let Some(hook) = hooks.call_handler else {
                    let problem = "the bundle has HTTP handlers but no __call_http_handler__";
                    return Err(errors::throw(cx, errors::ErrorClass::Type, problem));
                };
                let (request, body) = (cx.uint8_array(request)?, cx.uint8_array(body)?);
                let time = cx.big_i64(context.timestamp.micros())?;
                cx.borrow(hook).call(&cx.borrow(hooks.this), &[&cx.int(handler as i32), &time, &request, &body])
            },
            |functions, returned| handler_outcome(&functions.handlers[handler as usize], &returned),
        )
    }

    fn memory_bytes(&self) -> usize {
        self.runtime.state().heap.used_bytes()
    }

    fn is_spent(&self) -> bool {
        self.spent
    }
}

/// What follows a hook's return, while the transaction is open: the jobs it left, and a look at its result. Jobs run also after an
/// exception; not after a stop, which was to end everything.
fn finish_call<'js, T>(
    cx: Cx<'js>,
    program: &Program,
    returned: JsResult<Value<'js>>,
    finish: impl FnOnce(Value<'js>) -> Result<T, String>,
) -> Result<T, CallError> {
    let outcome = returned.map_err(|Exception| errors::take(cx, program));
    if !outcome.as_ref().is_err_and(CallError::replaces_instance) {
        drain_jobs(cx, program)?;
    }
    let returned = outcome?;
    if let Some(error) = errors::stopped(cx, program, None) {
        return Err(error);
    }
    finish(returned).map_err(|problem| CallError::Thrown(Box::new(Diagnostic::bare(problem))))
}

/// Runs promise jobs and finalizers. One that throws harms no other and not the call; it is logged. (A rejected promise is no
/// throwing job.)
fn drain_jobs(cx: Cx<'_>, program: &Program) -> Result<(), CallError> {
    let mut logged = 0;
    while cx.has_jobs() {
        if cx.state().guard.should_stop() {
            return Err(errors::stopped(cx, program, None).expect("a guard that stops says why"));
        }
        if cx.run_job().is_ok() {
            continue;
        }
        let error = errors::take(cx, program);
        if error.replaces_instance() {
            return Err(error);
        }
        logged += 1;
        if logged <= JOBS_LOGGED_MAX {
            console::write(cx, LogLevel::Warn, format!("a job of the call failed: {error}"), "");
        }
    }
    Ok(())
}

/// Who calls, over which connection.
type Caller = (Identity, Option<ConnectionId>);

/// The numbers of the callers seen last. A number of 256 bits takes longer to make than most calls take to prepare.
struct Callers {
    /// A JavaScript array: sender and connection of each caller, one behind the other.
    numbers: Root,
    places: RefCell<HashMap<Caller, u32>>,
    /// Who is at which place.
    keys: RefCell<Vec<Caller>>,
    /// The place that is taken over next once all are taken.
    next: Cell<u32>,
    /// The last caller's place: most callers call more than once.
    last: Cell<Option<(Caller, u32)>>,
}

impl Callers {
    fn new(cx: Cx<'_>) -> JsResult<Callers> {
        Ok(Callers {
            numbers: cx.root(cx.array(Vec::new())?),
            places: Default::default(),
            keys: Default::default(),
            next: Cell::new(0),
            last: Cell::new(None),
        })
    }

    /// The numbers of a caller: its identity, and its connection or zero.
    fn numbers<'js>(
        &self,
        cx: Cx<'js>,
        sender: Identity,
        connection: Option<ConnectionId>,
    ) -> JsResult<(Value<'js>, Value<'js>)> {
        let key = (sender, connection);
        let place = match self.last.get() {
            Some((last, place)) if last == key => place,
            _ => {
                let known = self.places.borrow().get(&key).copied();
                let place = known.map_or_else(|| self.add(cx, key), Ok)?;
                self.last.set(Some((key, place)));
                place
            }
        };
        let numbers = cx.borrow(self.numbers);
        Ok((numbers.get_index(2 * place)?, numbers.get_index(2 * place + 1)?))
    }

    fn add(&self, cx: Cx<'_>, key: Caller) -> JsResult<u32> {
        let sender = big_from_text(cx, &format!("0x{}", key.0.to_hex()))?;
        let connection = big_from_text(cx, &format!("0x{:x}", key.1.map_or(0, |id| id.get())))?;
        let (mut keys, mut places) = (self.keys.borrow_mut(), self.places.borrow_mut());
        let place = if keys.len() < CALLERS_MAX { keys.len() as u32 } else { self.next.get() };
        let numbers = cx.borrow(self.numbers);
        numbers.set_index(2 * place, sender)?;
        numbers.set_index(2 * place + 1, connection)?;
        match keys.get_mut(place as usize) {
            Some(old) => {
                places.remove(old);
                *old = key;
                self.next.set((place + 1) % CALLERS_MAX as u32);
            }
            None => keys.push(key),
        }
        places.insert(key, place);
        Ok(place)
    }
}

/// The buffer that short arguments are passed in, and its views. The bundle decodes all arguments before code of the user's runs,
/// so the next call may use it again.
struct Arguments {
    data_view: Root,
    /// A JavaScript array of the buffer and of an array of views of its start, by their lengths.
    kept: Root,
}

const BUFFER: u32 = 0;
const VIEWS: u32 = 1;

impl Arguments {
    fn new(cx: Cx<'_>) -> JsResult<Arguments> {
        let data_view = cx.root(cx.global().get_named("DataView")?);
        Ok(Arguments { data_view, kept: cx.root(cx.array(Vec::new())?) })
    }

    /// A `DataView` over exactly `args`.
    fn view<'js>(&self, cx: Cx<'js>, args: &[u8]) -> JsResult<Value<'js>> {
        let length = args.len() as u32;
        if args.len() > ARGUMENTS_KEPT_BYTES {
            return self.new_view(cx, &cx.array_buffer(args)?, length);
        }
        let kept = cx.borrow(self.kept);
        let mut buffer = kept.get_index(BUFFER)?;
        let fill = |bytes: &mut [u8]| bytes[..args.len()].copy_from_slice(args);
        if buffer.with_array_buffer(fill).is_none() {
            // The first call, or a bundle that took the buffer's memory away: then its views are useless too.
            buffer = cx.array_buffer(&[0; ARGUMENTS_KEPT_BYTES])?;
            kept.set_index(BUFFER, buffer.clone())?;
            kept.set_index(VIEWS, cx.array(Vec::new())?)?;
            buffer.with_array_buffer(fill).expect("a new buffer has its memory");
        }
        let views = kept.get_index(VIEWS)?;
        let view = views.get_index(length)?;
        if !view.is_undefined() {
            return Ok(view);
        }
        let view = self.new_view(cx, &buffer, length)?;
        views.set_index(length, view.clone())?;
        Ok(view)
    }

    fn new_view<'js>(&self, cx: Cx<'js>, buffer: &Value<'js>, length: u32) -> JsResult<Value<'js>> {
        cx.borrow(self.data_view).construct_view(buffer, 0, length as i32)
    }
}
