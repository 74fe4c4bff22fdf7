//! The server's side of an isolated instance: it sends calls, and answers what they ask while it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tine_sandbox::{Abort, CallError as WorkerError, CallOptions, Death, Keyed, KillCause, RequestWriter};
use tine_tables::{DatabaseSchema, ReadSet, RowCursor, TableError, TableRead, TableWriter};
use tine_types::bsatn::{BsatnWrite, DecodeError, Reader, validate, validate_product};
use tine_types::http::{HttpRequest, HttpResponse};
use tine_types::{AlgebraicType, ModuleDef, ProductType, Timestamp};

use super::wire::{self, Ask, CallFailed, Callee, Refusal, answer, input, reply};
use super::{Isolation, PIECE_BYTES, WorkerPlace};
use crate::call::{CallContext, CallError, CallHost, HandlerOutcome, LogEntry, SyscallError, ViewOutcome, ViewRows};
use crate::check::check;
use crate::engine::{Function, Isolate, LOG_LINES_MAX, with_sources};
use crate::module::{CompileError, Limits, LoadError};

/// How much longer than the engine's own deadline a call may take before its worker is killed.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);
/// No call may run longer.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Launching a worker and compiling a module, beside evaluating it twice.
const LOAD_GRACE: Duration = Duration::from_secs(15);
/// How often a call whose worker was gone before it began is sent again.
const TRIES_MAX: u32 = 3;

/// What instances are made of.
pub(crate) struct ModuleSource {
    pub(crate) program: Arc<[u8]>,
    pub(crate) def: Arc<ModuleDef>,
}

/// An instance in another process.
pub(crate) struct RemoteIsolate {
    place: WorkerPlace,
    keyed: Keyed,
    source: ModuleSource,
    schema: Arc<DatabaseSchema>,
    limits: Limits,
    /// What procedures return, by their numbers.
    results: Vec<AlgebraicType>,
    /// What views return, by their numbers.
    views: Vec<AlgebraicType>,
    interrupt: Arc<AtomicBool>,
    memory_bytes: usize,
    spent: bool,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl RemoteIsolate {
    /// Makes an instance in a worker of its own.
    pub(crate) fn load(
        source: ModuleSource,
        schema: Arc<DatabaseSchema>,
        limits: &Limits,
        isolation: &Isolation,
        interrupt: Arc<AtomicBool>,
    ) -> Result<RemoteIsolate, LoadError> {
        let (results, views) =
            result_types(&source.def).map_err(|error| LoadError::SchemaMismatch(error.to_string()))?;
        let place = isolation.place();
        let mut isolate = RemoteIsolate {
            keyed: place.pool.key(place.key),
            place,
            source,
            schema,
            limits: limits.clone(),
            results,
            views,
            interrupt,
            memory_bytes: 0,
            spent: false,
            request: Vec::new(),
            reply: Vec::new(),
        };
        isolate.send_module()?;
        Ok(isolate)
    }

    pub(crate) fn place(&self) -> WorkerPlace {
        self.place.clone()
    }

    /// Has a new worker make the instance.
    fn send_module(&mut self) -> Result<(), LoadError> {
        wire::encode_load(&self.limits, &mut self.request);
        let schema = self.schema.encode();
        let program = Arc::clone(&self.source.program);
        let timeout = load_timeout(&self.limits);
        self.exchange([&program, &schema], &[], false, timeout, &mut NoHost).map_err(not_loaded)?;
        self.read_loaded()
    }

    /// Reads whether an instance was made.
    fn read_loaded(&mut self) -> Result<(), LoadError> {
        let mut read = |reader: &mut Reader<'_>| -> Result<Result<(), LoadError>, DecodeError> {
            if reader.u8()? == reply::DONE {
                self.memory_bytes = (reader.u64()? as usize).min(self.limits.memory_bytes);
                return Ok(Ok(()));
            }
            let (_, _) = (reader.u64()?, reader.bool()?);
            Ok(Err(match wire::error(reader)? {
                CallFailed::Known(error) => wire::load_error(error),
                CallFailed::BadArguments(_) => LoadError::Worker(garbage()),
            }))
        };
        read(&mut Reader::new(&self.reply)).unwrap_or_else(|_| Err(LoadError::Worker(garbage())))
    }

    /// Sends the request in `self.request` with `inline` behind it, answers what its worker asks, and leaves the reply in `self.reply`.
    /// Returns what was read.
    fn exchange(
        &mut self,
        inputs: [&[u8]; 2],
        inline: &[u8],
        is_view: bool,
        timeout: Duration,
        host: &mut dyn CallHost,
    ) -> Result<ReadSet, WorkerError> {
        let RemoteIsolate { request, interrupt, schema, limits, keyed, reply, .. } = self;
        let mut attendant = Attendant {
            host,
            inputs,
            views_schema: is_view.then_some(&**schema),
            interrupt,
            rows_bytes_max: limits.memory_bytes,
            reads: ReadSet::default(),
            log_lines: 0,
            generated: Vec::new(),
        };
        attendant.send(keyed, &[request, inline], timeout, reply)?;
        Ok(attendant.reads)
    }

    /// Runs a call; its result is the rest of `self.reply` from the place that is returned.
    fn run(
        &mut self,
        callee: Callee,
        context: &CallContext,
        arguments: &[u8],
        body: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<(usize, ReadSet), CallError> {
        // Whatever ends this call early, a panic of the host included, leaves the worker in its middle.
        self.spent = true;
        let is_view = matches!(callee, Callee::View(_));
        let timeout = context.deadline.min(DEADLINE_MAX) + DEADLINE_GRACE;
        for _ in 0..TRIES_MAX {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(CallError::Interrupted { location: None });
            }
            wire::encode_call(callee, context, true, &mut self.request);
            let mut inline = arguments;
            if self.request.len() + arguments.len() > PIECE_BYTES as usize {
                wire::encode_call(callee, context, false, &mut self.request);
                inline = &[];
            }
            let inputs = {
                let mut inputs: [&[u8]; 2] = [&[]; 2];
                inputs[usize::from(input::FIRST)] = arguments;
                inputs[usize::from(input::SECOND)] = body;
                inputs
            };
            let reads = self.exchange(inputs, inline, is_view, timeout, host).map_err(|error| self.failed(error))?;
            if self.reply.first() != Some(&reply::NEEDS_MODULE) {
                return self.read_reply(callee, arguments).map(|position| (position, reads));
            }
            self.send_module().map_err(|error| match error {
                LoadError::Worker(error) => self.failed(error),
                LoadError::Deadline { location } => CallError::Deadline { location },
                error => CallError::Fatal(error.to_string()),
            })?;
        }
        // Workers for it come and go: there are more instances at work than workers.
        Err(CallError::Worker(WorkerError::Cancelled(KillCause::Evicted)))
    }

    /// Reads the head of a reply, or the failure that it is.
    fn read_reply(&mut self, callee: Callee, arguments: &[u8]) -> Result<usize, CallError> {
        let reader = &mut Reader::new(&self.reply);
        let mut read = || -> Result<(u8, u64, bool), DecodeError> { Ok((reader.u8()?, reader.u64()?, reader.bool()?)) };
        let (status, memory, spent) = read().map_err(|_| CallError::Worker(garbage()))?;
        let failure = match status {
            reply::DONE => None,
            reply::FAILED => Some(wire::error(reader).map_err(|_| CallError::Worker(garbage()))?),
            _ => return Err(CallError::Worker(garbage())),
        };
        let position = reader.position();
        (self.memory_bytes, self.spent) = ((memory as usize).min(self.limits.memory_bytes), spent);
        match failure {
            None => Ok(position),
            Some(CallFailed::Known(error)) => Err(error),
            Some(CallFailed::BadArguments(function)) => {
                Err(match wrong_arguments(&self.source.def, callee, arguments) {
                    Some(source) => CallError::BadArguments { function, source },
                    None => CallError::Worker(garbage()),
                })
            }
        }
    }

    /// What a call that has no reply failed of.
    fn failed(&self, error: WorkerError) -> CallError {
        match error {
            WorkerError::TimedOut => CallError::Deadline { location: None },
            WorkerError::ReplyTooLarge { .. } => CallError::OutOfMemory { location: None },
            WorkerError::Cancelled(_) if self.interrupt.load(Ordering::Relaxed) => {
                CallError::Interrupted { location: None }
            }
            error => CallError::Worker(error),
        }
    }

    /// A result that is not what the worker promised.
    fn refuse<T>(&mut self) -> Result<T, CallError> {
        self.spent = true;
        Err(CallError::Worker(garbage()))
    }
}

impl Drop for RemoteIsolate {
    fn drop(&mut self) {
        self.place.end();
    }
}

impl Isolate for RemoteIsolate {
    fn call(
        &mut self,
        function: Function,
        context: &CallContext,
        args: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<Bytes, CallError> {
        let callee = match function {
            Function::Reducer(index) => Callee::Reducer(index),
            Function::Procedure(index) => Callee::Procedure(index),
        };
        let (position, _) = self.run(callee, context, args, &[], host)?;
        let result = &self.reply[position..];
        let is_valid = match function {
            Function::Reducer(_) => result.is_empty(),
            Function::Procedure(index) => {
                self.results.get(index as usize).is_some_and(|ty| validate(ty, result).is_ok())
            }
        };
        if is_valid { Ok(Bytes::copy_from_slice(result)) } else { self.refuse() }
    }

    fn call_view(
        &mut self,
        view: u32,
        context: &CallContext,
        host: &mut dyn CallHost,
    ) -> Result<ViewOutcome, CallError> {
        let (position, reads) = self.run(Callee::View(view), context, &[], &[], host)?;
        let result = &self.reply[position..];
        let rows = match result.split_first() {
            Some((0, rows)) if self.views.get(view as usize).is_some_and(|ty| validate(ty, rows).is_ok()) => {
                Some(ViewRows::Rows(Bytes::copy_from_slice(rows)))
            }
            Some((1, query)) => Reader::new(query).str().ok().map(|query| ViewRows::Query(query.to_owned())),
            _ => None,
        };
        match rows {
            Some(rows) => Ok(ViewOutcome { rows, reads }),
            None => self.refuse(),
        }
    }

    fn call_handler(
        &mut self,
        handler: u32,
        context: &CallContext,
        request: &[u8],
        body: &[u8],
        host: &mut dyn CallHost,
    ) -> Result<HandlerOutcome, CallError> {
        let (position, _) = self.run(Callee::Handler(handler), context, request, body, host)?;
        let reader = &mut Reader::new(&self.reply[position..]);
        let response = reader.bytes().ok().filter(|response| HttpResponse::decode(response).is_ok());
        match response.map(Bytes::copy_from_slice) {
            Some(response) => Ok(HandlerOutcome { response, body: Bytes::copy_from_slice(reader.rest()) }),
            None => self.refuse(),
        }
    }

    fn renew(&mut self) -> Result<bool, LoadError> {
        wire::encode_renew(&self.limits, &mut self.request);
        let timeout = load_timeout(&self.limits);
        // What ends this early leaves the worker in its middle, as with calls.
        self.spent = true;
        self.exchange([&[]; 2], &[], false, timeout, &mut NoHost).map_err(not_loaded)?;
        match self.reply.first() == Some(&reply::NEEDS_MODULE) {
            true => self.send_module()?,
            false => self.read_loaded()?,
        }
        self.spent = false;
        Ok(true)
    }

    fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    fn is_spent(&self) -> bool {
        self.spent
    }
}

fn load_timeout(limits: &Limits) -> Duration {
    (2 * limits.load_deadline).min(DEADLINE_MAX) + LOAD_GRACE
}

fn not_loaded(error: WorkerError) -> LoadError {
    match error {
        WorkerError::TimedOut => LoadError::Deadline { location: None },
        WorkerError::ReplyTooLarge { .. } => LoadError::OutOfMemory { location: None },
        error => LoadError::Worker(error),
    }
}

/// Has a worker compile and evaluate a program. Returns what it defines, checked here, and whether it is a bundle.
pub(crate) fn describe(
    program: &[u8],
    limits: &Limits,
    isolation: &Isolation,
) -> Result<(ModuleDef, bool), CompileError> {
    let place = isolation.place();
    let mut request = Vec::new();
    wire::encode_describe(limits, &mut request);
    let mut attendant = Attendant {
        host: &mut NoHost,
        inputs: [program, &[]],
        views_schema: None,
        interrupt: &AtomicBool::new(false),
        // A definition comes out of the instance's memory. A message about too little of that needs some all the same.
        rows_bytes_max: limits.memory_bytes.max(PIECE_BYTES as usize),
        reads: ReadSet::default(),
        log_lines: 0,
        generated: Vec::new(),
    };
    let mut reply = Vec::new();
    let sent = attendant.send(&place.pool.key(place.key), &[&request], load_timeout(limits), &mut reply);
    // It ran foreign code for this one purpose.
    place.end();
    sent.map_err(|error| CompileError::Load(not_loaded(error)))?;
    read_description(&reply).unwrap_or_else(|_| Err(CompileError::Load(LoadError::Worker(garbage()))))
}

fn read_description(reply: &[u8]) -> Result<Result<(ModuleDef, bool), CompileError>, DecodeError> {
    let reader = &mut Reader::new(reply);
    if reader.u8()? != reply::DONE {
        return wire::compile_error(reader).map(Err);
    }
    let is_bundle = reader.bool()?;
    let def = ModuleDef::decode(reader.rest()).map_err(|error| CompileError::Definition(with_sources(&error)));
    Ok(def.and_then(|def| check(&def).map(|()| (def, is_bundle))))
}

/// What a worker did that says something else than it may.
fn garbage() -> WorkerError {
    WorkerError::Died(Death::Killed(KillCause::Protocol))
}

/// The types of what procedures and views return, without references, by their numbers.
fn result_types(def: &ModuleDef) -> Result<(Vec<AlgebraicType>, Vec<AlgebraicType>), tine_types::TypeError> {
    let (mut results, mut views) = (Vec::new(), Vec::new());
    for (_, module) in def.flatten() {
        for procedure in &module.procedures {
            results.push(module.typespace.inline(&procedure.return_type)?);
        }
        for view in &module.views {
            let row = view.row_type(&module.typespace)?.unwrap_or_else(|| ProductType { elements: Default::default() });
            views.push(AlgebraicType::Array(Box::new(AlgebraicType::Product(row))));
        }
    }
    Ok((results, views))
}

/// What is wrong with the arguments of a call, if something is.
fn wrong_arguments(def: &ModuleDef, callee: Callee, arguments: &[u8]) -> Option<DecodeError> {
    let (Callee::Reducer(index) | Callee::Procedure(index)) = callee else {
        return HttpRequest::decode(arguments).err();
    };
    let modules = def.flatten();
    let is_reducer = matches!(callee, Callee::Reducer(_));
    let mut params = modules.iter().flat_map(|(_, module)| {
        let reducers = module.reducers.iter().filter(move |_| is_reducer).map(|reducer| &reducer.params);
        let procedures = module.procedures.iter().filter(move |_| !is_reducer).map(|procedure| &procedure.params);
        reducers.chain(procedures).map(move |params| (module, params))
    });
    let (module, params) = params.nth(index as usize)?;
    match module.typespace.inline(&AlgebraicType::Product(params.clone())) {
        Ok(AlgebraicType::Product(params)) => validate_product(&params, arguments).err(),
        _ => None,
    }
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Refusal {
        match error.syscall_code() {
            Some(code) => Refusal::Refused(SyscallError::new(code, error.to_string())),
            None => Refusal::Broken(with_sources(&error)),
        }
    }
}

impl From<SyscallError> for Refusal {
    fn from(error: SyscallError) -> Refusal {
        Refusal::Refused(error)
    }
}

/// Answers what a worker asks during one request.
struct Attendant<'a> {
    host: &'a mut dyn CallHost,
    inputs: [&'a [u8]; 2],
    /// Of a view, whose reads are noted.
    views_schema: Option<&'a DatabaseSchema>,
    interrupt: &'a AtomicBool,
    /// Rows of one answer may have so many bytes: more would not fit in the instance.
    rows_bytes_max: usize,
    reads: ReadSet,
    log_lines: u32,
    generated: Vec<u8>,
}

impl Attendant<'_> {
    /// Sends a request, given in pieces, answers what its worker asks, and leaves the reply in `reply`.
    fn send(
        &mut self,
        keyed: &Keyed,
        request: &[&[u8]],
        timeout: Duration,
        reply: &mut Vec<u8>,
    ) -> Result<(), WorkerError> {
        let options =
            CallOptions::new(PIECE_BYTES, PIECE_BYTES).timeout(timeout).attended(PIECE_BYTES, self.rows_bytes_max);
        let fill = |writer: &mut RequestWriter<'_>| request.iter().for_each(|piece| writer.write(piece));
        keyed.call_attended(options, fill, |question, answer| self.answer(question, answer), reply).map(drop)
    }

    fn answer(&mut self, question: &[u8], out: &mut Vec<u8>) -> Result<(), Abort> {
        if self.interrupt.load(Ordering::Relaxed) {
            return Err(Abort);
        }
        let ask = Ask::decode(question).map_err(|_| Abort)?;
        out.clear();
        out.put_u8(answer::DONE);
        if let Err(refusal) = self.serve(ask, out)? {
            refusal.encode(out);
        }
        Ok(())
    }

    fn serve(&mut self, ask: Ask<'_>, out: &mut Vec<u8>) -> Result<Result<(), Refusal>, Abort> {
        let done = match ask {
            Ask::Input(part) => {
                let part = self.inputs.get(usize::from(part)).ok_or(Abort)?;
                out.extend_from_slice(part);
                Ok(())
            }
            Ask::Log(entry) => {
                self.log_lines = self.log_lines.saturating_add(1);
                // The engine counts too, and says so once; a worker that does not is not listened to.
                if self.log_lines <= LOG_LINES_MAX + 1 {
                    self.host.log(entry);
                }
                Ok(())
            }
            Ask::Begin => self.host.begin_transaction().map(|time| out.put_timestamp(time)),
            Ask::Commit => self.host.commit_transaction(),
            Ask::Abort => self.host.abort_transaction(),
            Ask::Schedule(function, arguments) => self.host.schedule_immediate(function, arguments.to_vec()),
            Ask::Http(request, body) => self.host.http_request(request, body).map(|(response, body)| {
                out.put_bytes(&response);
                out.extend_from_slice(&body);
            }),
            ask if is_write(&ask) && self.views_schema.is_some() => return Err(Abort),
            ask => return Ok(self.ask_tables(&ask, out)),
        };
        Ok(done.map_err(Refusal::from))
    }

    fn ask_tables(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
        let Some(tables) = self.host.tables() else { return Err(Refusal::NoTransaction) };
        if let Some(schema) = self.views_schema {
            note(&mut self.reads, schema, ask)?;
        }
        match ask {
            Ask::Insert(table, row) => {
                tables.insert(*table, row, &mut self.generated)?;
                out.extend_from_slice(&self.generated);
            }
            Ask::Update(table, index, row) => {
                tables.update(*table, *index, row, &mut self.generated)?;
                out.extend_from_slice(&self.generated);
            }
            Ask::Scan(table) => copy_rows(tables.scan(*table), self.rows_bytes_max, out)?,
            Ask::Point(index, key) => copy_rows(tables.index_point(*index, key)?, self.rows_bytes_max, out)?,
            Ask::Range(index, range) => {
                let rows = tables.index_range(*index, range.prefix, range.prefix_columns, range.start, range.end)?;
                copy_rows(rows, self.rows_bytes_max, out)?;
            }
            ask => out.put_u64(count(tables, ask)?),
        }
        Ok(())
    }
}

/// Runs an operation that is answered with a number.
fn count(tables: &mut TableWriter, ask: &Ask<'_>) -> Result<u64, TableError> {
    Ok(match ask {
        Ask::DeleteRow(table, row) => tables.delete_row(*table, row)?.into(),
        Ask::DeleteRows(table, rows) => tables.delete_rows(*table, rows)?.into(),
        Ask::DeletePoint(index, key) => tables.delete_by_index_point(*index, key)?.into(),
        Ask::DeleteRange(index, range) => {
            tables.delete_by_index_range(*index, range.prefix, range.prefix_columns, range.start, range.end)?.into()
        }
        Ask::Clear(table) => tables.clear(*table)?,
        Ask::Count(table) => tables.row_count(*table),
        other => unreachable!("{other:?} is answered otherwise"),
    })
}

fn is_write(ask: &Ask<'_>) -> bool {
    match ask {
        Ask::Insert(..)
        | Ask::Update(..)
        | Ask::DeleteRow(..)
        | Ask::DeleteRows(..)
        | Ask::DeletePoint(..)
        | Ask::DeleteRange(..)
        | Ask::Clear(_) => true,
        Ask::Input(_)
        | Ask::Count(_)
        | Ask::Scan(_)
        | Ask::Point(..)
        | Ask::Range(..)
        | Ask::Log(_)
        | Ask::Begin
        | Ask::Commit
        | Ask::Abort
        | Ask::Schedule(..)
        | Ask::Http(..) => false,
    }
}

/// Notes what a view reads.
fn note(reads: &mut ReadSet, schema: &DatabaseSchema, ask: &Ask<'_>) -> Result<(), TableError> {
    match ask {
        Ask::Count(table) | Ask::Scan(table) => {
            reads.note_table(*table);
            Ok(())
        }
        Ask::Point(index, key) => reads.note_point(schema, *index, key),
        Ask::Range(index, range) => {
            reads.note_range(schema, *index, range.prefix, range.prefix_columns, range.start, range.end)
        }
        _ => Ok(()),
    }
}

/// Appends all rows of a cursor, each with its length before it.
fn copy_rows(mut rows: RowCursor<'_>, bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    while let Some(row) = rows.next()? {
        if out.len() + row.len() > bytes_max {
            return Err(Refusal::OutOfMemory);
        }
        out.put_bytes(row);
    }
    Ok(())
}

/// Who answers while a module loads: it has no tables and asks for nothing but itself.
struct NoHost;

fn nothing_runs() -> SyscallError {
    SyscallError::new(SyscallError::NOT_IN_TRANSACTION, "no call is running")
}

impl CallHost for NoHost {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        None
    }

    fn log(&mut self, _entry: LogEntry) {}

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        Err(nothing_runs())
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        Err(nothing_runs())
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        Err(nothing_runs())
    }
}
