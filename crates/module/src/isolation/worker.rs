//! The process in which an instance runs: it compiles a program, and runs calls whose tables are its server's.

use std::sync::Arc;

use tine_sandbox::{Never, Rejected, Request, Start};
use tine_tables::{DatabaseSchema, TableWriter};
use tine_types::Timestamp;
use tine_types::bsatn::{BsatnWrite, Reader};

use super::RemoteTables;
use super::wire::{self, Ask, Callee, Order, Refusal, input, reply};
use crate::call::{
    CallContext, CallError, CallHost, HandlerIndex, LogEntry, ProcedureIndex, ReducerIndex, SyscallError, ViewIndex,
    ViewRows,
};
use crate::module::{CompileError, CompiledModule, Instance, Limits, compile};
use crate::source::bundle::SourceBundle;
use crate::source::strip::parse_on_callers_stack;

/// A buffer that grew beyond this is given back after its call.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What a worker has once it was told what to run.
struct Loaded {
    compiled: Arc<CompiledModule>,
    instance: Instance,
    schema: Arc<DatabaseSchema>,
}

#[derive(Default)]
struct Buffers {
    question: Vec<u8>,
    answer: Vec<u8>,
    reply: Vec<u8>,
}

/// What every worker runs.
pub(super) fn serve(start: Start) -> Never {
    // A worker has one thread, with the large stack that `tine-sandbox` gives it.
    parse_on_callers_stack();
    let mut loaded = None;
    let mut buffers = Buffers::default();
    start.harden().serve(move |request| {
        let written = handle(request, &mut loaded, &mut buffers);
        for buffer in [&mut buffers.question, &mut buffers.answer, &mut buffers.reply] {
            if buffer.capacity() > KEPT_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
        written
    })
}

fn handle(request: &mut Request<'_>, loaded: &mut Option<Loaded>, buffers: &mut Buffers) -> Result<(), Rejected> {
    let order = Order::decode(request.bytes()).map_err(|error| Rejected(error.to_string()))?;
    let Buffers { question, answer, reply } = buffers;
    reply.clear();
    match order {
        Order::Describe(limits) => {
            let mut border =
                Border { request, schema: None, ends_transactions: false, in_transaction: false, question, answer };
            let program = border.input(input::FIRST);
            let bundle = SourceBundle::decode(program).map_err(|error| Rejected(error.to_string()))?;
            match compile(&bundle, &limits) {
                Ok(compiled) => {
                    reply.put_u8(reply::DONE);
                    reply.put_bool(compiled.is_bundle());
                    reply.extend_from_slice(&compiled.def().encode());
                }
                Err(error) => {
                    reply.put_u8(reply::FAILED);
                    wire::put_compile_error(error, reply);
                }
            }
        }
        Order::Load(limits) => {
            // At most one module ever comes; a second one would be another attempt with the same.
            *loaded = None;
            let made = {
                let mut border =
                    Border { request, schema: None, ends_transactions: false, in_transaction: false, question, answer };
                let program = border.input(input::FIRST).to_vec();
                let schema = border.input(input::SECOND);
                make(&program, schema, &limits)
            };
            *loaded = loaded_or_failed(made, reply);
        }
        Order::Renew(limits) => match loaded.take() {
            None => reply.put_u8(reply::NEEDS_MODULE),
            Some(Loaded { compiled, instance, schema }) => {
                // First, so that there is never memory of two.
                drop(instance);
                let made = compiled.instantiate(&schema, &limits).map_err(wire::load_failed);
                *loaded = loaded_or_failed(made.map(|instance| Loaded { compiled, instance, schema }), reply);
            }
        },
        Order::Call { callee, context, arguments } => match loaded {
            None => reply.put_u8(reply::NEEDS_MODULE),
            Some(Loaded { instance, schema, .. }) => {
                let ends_transactions = matches!(callee, Callee::Procedure(_) | Callee::Handler(_));
                let in_transaction = !ends_transactions;
                let mut border =
                    Border { request, schema: Some(schema), ends_transactions, in_transaction, question, answer };
                let outcome = run(instance, callee, &context, arguments, &mut border);
                match outcome {
                    Ok(result) => {
                        begin_reply(reply::DONE, instance, reply);
                        reply.extend_from_slice(&result);
                    }
                    Err(error) => {
                        begin_reply(reply::FAILED, instance, reply);
                        wire::put_error(&error, reply);
                    }
                }
            }
        },
    }
    request.write(reply).map_err(|full| Rejected(full.to_string()))
}

/// Writes what came of making an instance, and returns it.
fn loaded_or_failed(made: Result<Loaded, CallError>, reply: &mut Vec<u8>) -> Option<Loaded> {
    match made {
        Ok(made) => {
            begin_reply(reply::DONE, &made.instance, reply);
            Some(made)
        }
        Err(error) => {
            reply.put_u8(reply::FAILED);
            reply.put_u64(0);
            reply.put_bool(true);
            wire::put_error(&error, reply);
            None
        }
    }
}

fn begin_reply(status: u8, instance: &Instance, out: &mut Vec<u8>) {
    out.put_u8(status);
    out.put_u64(instance.memory_bytes() as u64);
    out.put_bool(instance.needs_replacement());
}

/// Compiles a program that its server has compiled before, and makes the instance.
fn make(program: &[u8], schema: &[u8], limits: &Limits) -> Result<Loaded, CallError> {
    let unusable = |error: &dyn std::error::Error| CallError::Fatal(error.to_string());
    let bundle = SourceBundle::decode(program).map_err(|error| unusable(&error))?;
    let schema = DatabaseSchema::decode(schema).map_err(|error| unusable(&error))?;
    let compiled = compile(&bundle, limits).map_err(|error| match error {
        CompileError::Load(error) => wire::load_failed(error),
        error => unusable(&error),
    })?;
    let instance = compiled.instantiate(&schema, limits).map_err(wire::load_failed)?;
    Ok(Loaded { compiled, instance, schema: Arc::new(schema) })
}

/// Runs a call and returns its result as the reply has it.
fn run(
    instance: &mut Instance,
    callee: Callee,
    context: &CallContext,
    arguments: Option<&[u8]>,
    border: &mut Border<'_, '_>,
) -> Result<Vec<u8>, CallError> {
    let fetched;
    let arguments = match arguments {
        Some(arguments) => arguments,
        None => {
            fetched = border.input(input::FIRST).to_vec();
            &fetched
        }
    };
    let mut out = Vec::new();
    match callee {
        Callee::Reducer(index) => {
            instance.call_reducer(ReducerIndex(index), context, arguments, border)?;
        }
        Callee::Procedure(index) => {
            out = instance.call_procedure(ProcedureIndex(index), context, arguments, border)?.into();
        }
        Callee::View(index) => match instance.call_view(ViewIndex(index), context, border)?.rows {
            ViewRows::Rows(rows) => {
                out.put_u8(0);
                out.extend_from_slice(&rows);
            }
            ViewRows::Query(query) => {
                out.put_u8(1);
                out.put_str(&query);
            }
        },
        Callee::Handler(index) => {
            let body = border.input(input::SECOND).to_vec();
            let outcome = instance.call_handler(HandlerIndex(index), context, arguments, &body, border)?;
            out.put_bytes(&outcome.response);
            out.extend_from_slice(&outcome.body);
        }
    }
    Ok(out)
}

/// The way to whoever waits for a request.
struct Border<'a, 'worker> {
    request: &'a mut Request<'worker>,
    /// `None` while there is no instance, which needs no tables either.
    schema: Option<&'a Arc<DatabaseSchema>>,
    /// Whether the call begins and ends its transactions itself; others have one from start to end.
    ends_transactions: bool,
    /// Whether there are tables now.
    in_transaction: bool,
    question: &'a mut Vec<u8>,
    answer: &'a mut Vec<u8>,
}

impl Border<'_, '_> {
    fn input(&mut self, part: u8) -> &[u8] {
        self.ask(&Ask::Input(part)).expect("a server has the parts of its requests")
    }

    /// Like `ask`, with what a module may see of a refusal.
    fn host_ask(&mut self, ask: &Ask<'_>) -> Result<&[u8], SyscallError> {
        let failed = |problem: &str| SyscallError::new(SyscallError::HOST_CALL_FAILURE, problem);
        self.ask(ask).map_err(|refusal| match refusal {
            Refusal::Refused(error) => error,
            Refusal::Broken(problem) => failed(&problem),
            Refusal::NoTransaction => failed("no transaction is open"),
            Refusal::OutOfMemory => failed("out of memory"),
        })
    }
}

impl RemoteTables for Border<'_, '_> {
    fn schema(&self) -> &Arc<DatabaseSchema> {
        self.schema.expect("calls run in an instance, which has a schema")
    }

    fn ask(&mut self, ask: &Ask<'_>) -> Result<&[u8], Refusal> {
        ask.encode(self.question);
        self.request.call(self.question, self.answer).expect("requests to run modules are attended");
        Refusal::split(self.answer)
    }
}

impl CallHost for Border<'_, '_> {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        None
    }

    fn remote_tables(&mut self) -> Option<&mut dyn RemoteTables> {
        if self.in_transaction { Some(self) } else { None }
    }

    fn log(&mut self, entry: LogEntry) {
        // A line that the server does not take is no reason to stop.
        let _ = self.ask(&Ask::Log(entry));
    }

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        let time = self.host_ask(&Ask::Begin)?;
        let time = Reader::new(time).timestamp().expect("a server answers with a time");
        self.in_transaction = true;
        Ok(time)
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        // A commit that is refused ends it too.
        self.in_transaction &= !self.ends_transactions;
        self.host_ask(&Ask::Commit).map(drop)
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        self.in_transaction &= !self.ends_transactions;
        self.host_ask(&Ask::Abort).map(drop)
    }

    fn schedule_immediate(&mut self, function: &str, arguments: Vec<u8>) -> Result<(), SyscallError> {
        self.host_ask(&Ask::Schedule(function, &arguments)).map(drop)
    }

    fn http_request(&mut self, request: &[u8], body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SyscallError> {
        let reader = &mut Reader::new(self.host_ask(&Ask::Http(request, body))?);
        let response = reader.bytes().expect("a server answers with a response").to_vec();
        Ok((response, reader.rest().to_vec()))
    }
}
