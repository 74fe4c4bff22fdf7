//! What travels between a server and the process that runs a module for it. BSATN, between two processes of one program, so without
//! versions: the server reads it as hostile input all the same, because the code that writes it runs beside foreign code.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tine_tables::{IndexId, TableId};
use tine_types::bsatn::{BsatnWrite, DecodeError, Reader};

use crate::call::{CallContext, CallError, LogEntry, LogLevel, SyscallError};
use crate::diagnostic::{Diagnostic, SourceLocation, StackFrame, clip};
use crate::module::{CompileError, Limits, LoadError};

/// Most frames of a stack that are read of a worker; the engine itself reports at most ten.
const FRAMES_MAX: usize = 64;

/// Statuses of a reply, its first byte.
pub(super) mod reply {
    pub(in crate::isolation) const DONE: u8 = 0;
    /// The worker is new: it has no module.
    pub(in crate::isolation) const NEEDS_MODULE: u8 = 1;
    pub(in crate::isolation) const FAILED: u8 = 2;
}

/// Statuses of an answer, its first byte.
pub(super) mod answer {
    pub(in crate::isolation) const DONE: u8 = 0;
    pub(in crate::isolation) const REFUSED: u8 = 1;
    pub(in crate::isolation) const BROKEN: u8 = 2;
    pub(in crate::isolation) const NO_TRANSACTION: u8 = 3;
    pub(in crate::isolation) const OUT_OF_MEMORY: u8 = 4;
}

/// Parts of what a request is about that a worker asks for when the request did not bring them.
pub(super) mod input {
    /// The program, or the arguments of a call.
    pub(in crate::isolation) const FIRST: u8 = 0;
    /// The schema, or the body of a handler's request.
    pub(in crate::isolation) const SECOND: u8 = 1;
}

/// What is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    Reducer(u32),
    Procedure(u32),
    View(u32),
    Handler(u32),
}

/// A request, without what is fetched by [`Ask::Input`].
pub(super) enum Order<'a> {
    /// Compile and evaluate the program that is the first input, and tell what it defines.
    Describe(Limits),
    /// Make an instance of the program and schema that are the inputs.
    Load(Limits),
    /// Make another instance of the same, instead of the one there is.
    Renew(Limits),
    /// Run a call. Arguments that are not here are the first input; a handler's body is the second.
    Call { callee: Callee, context: CallContext, arguments: Option<&'a [u8]> },
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Replaces `out` by the request to make an instance.
pub(super) fn encode_load(limits: &Limits, out: &mut Vec<u8>) {
    encode_limits(0, limits, out);
}

/// Replaces `out` by the request to describe a program.
pub(super) fn encode_describe(limits: &Limits, out: &mut Vec<u8>) {
    encode_limits(2, limits, out);
}

/// Replaces `out` by the request to make a fresh instance of what is loaded.
pub(super) fn encode_renew(limits: &Limits, out: &mut Vec<u8>) {
    encode_limits(3, limits, out);
}

fn encode_limits(tag: u8, limits: &Limits, out: &mut Vec<u8>) {
    out.clear();
    out.put_u8(tag);
    out.put_u64(limits.memory_bytes as u64);
    out.put_u64(limits.stack_bytes as u64);
    out.put_u64(micros(limits.load_deadline));
}

/// Replaces `out` by the start of a request to run a call. If `has_arguments` they follow.
pub(super) fn encode_call(callee: Callee, context: &CallContext, has_arguments: bool, out: &mut Vec<u8>) {
    out.clear();
    out.put_u8(1);
    let (kind, index) = match callee {
        Callee::Reducer(index) => (0, index),
        Callee::Procedure(index) => (1, index),
        Callee::View(index) => (2, index),
        Callee::Handler(index) => (3, index),
    };
    out.put_u8(kind);
    out.put_u32(index);
    out.put_identity(&context.sender);
    out.put_bool(context.connection_id.is_some());
    if let Some(id) = context.connection_id {
        out.put_connection_id(id);
    }
    out.put_timestamp(context.timestamp);
    out.put_u64(context.seed);
    out.put_identity(&context.database_identity);
    out.put_u64(micros(context.deadline));
    out.put_bool(context.jwt_payload.is_some());
    if let Some(payload) = &context.jwt_payload {
        out.put_str(payload);
    }
    out.put_bool(has_arguments);
}

impl<'a> Order<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Order<'a>, DecodeError> {
        let reader = &mut Reader::new(bytes);
        let limits = |reader: &mut Reader<'_>| {
            Ok(Limits {
                memory_bytes: reader.u64()? as usize,
                stack_bytes: reader.u64()? as usize,
                load_deadline: Duration::from_micros(reader.u64()?),
            })
        };
        match reader.tag(4)? {
            0 => return Ok(Order::Load(limits(reader)?)),
            3 => return Ok(Order::Renew(limits(reader)?)),
            2 => return Ok(Order::Describe(limits(reader)?)),
            _ => {}
        }
        let (kind, index) = (reader.tag(4)?, reader.u32()?);
        let callee = match kind {
            0 => Callee::Reducer(index),
            1 => Callee::Procedure(index),
            2 => Callee::View(index),
            _ => Callee::Handler(index),
        };
        let context = CallContext {
            sender: reader.identity()?,
            connection_id: if reader.bool()? { Some(reader.connection_id()?) } else { None },
            timestamp: reader.timestamp()?,
            seed: reader.u64()?,
            database_identity: reader.identity()?,
            deadline: Duration::from_micros(reader.u64()?),
            jwt_payload: if reader.bool()? { Some(Arc::from(reader.str()?)) } else { None },
        };
        let arguments = if reader.bool()? { Some(reader.rest()) } else { None };
        Ok(Order::Call { callee, context, arguments })
    }
}

/// A range of an index, as [`tine_tables::TableRead::index_range`] takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange<'a> {
    /// BSATN of the first columns.
    pub prefix: &'a [u8],
    /// How many columns those are.
    pub prefix_columns: usize,
    /// Where the next column begins.
    pub start: Bound<&'a [u8]>,
    /// Where it ends.
    pub end: Bound<&'a [u8]>,
}

/// What a worker asks of its server while a call runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// Answered with the part's bytes.
    Input(u8),
    /// Answered with the generated values.
    Insert(TableId, &'a [u8]),
    /// Answered with the generated values.
    Update(TableId, IndexId, &'a [u8]),
    /// Deletes a row. This and the others that delete are answered with the number of rows.
    DeleteRow(TableId, &'a [u8]),
    /// Deletes the rows of a BSATN array.
    DeleteRows(TableId, &'a [u8]),
    /// Deletes by the value of an index.
    DeletePoint(IndexId, &'a [u8]),
    /// Deletes by a range of an index.
    DeleteRange(IndexId, IndexRange<'a>),
    /// Deletes all rows.
    Clear(TableId),
    /// Answered with the number of rows.
    Count(TableId),
    /// All rows. This and the other scans are answered with rows, each with its length before it.
    Scan(TableId),
    /// The rows with a value of an index.
    Point(IndexId, &'a [u8]),
    /// The rows in a range of an index.
    Range(IndexId, IndexRange<'a>),
    /// A line of the module's console.
    Log(LogEntry),
    /// Answered with the transaction's time.
    Begin,
    /// Ends it.
    Commit,
    /// Gives it up.
    Abort,
    /// Queues a call of a reducer.
    Schedule(&'a str, &'a [u8]),
    /// Answered with the response, with its length before it, and the body.
    Http(&'a [u8], &'a [u8]),
}

const ASKS: usize = 18;

fn put_bound(bound: Bound<&[u8]>, out: &mut Vec<u8>) {
    match bound {
        Bound::Unbounded => out.put_u8(0),
        Bound::Included(value) => {
            out.put_u8(1);
            out.put_bytes(value);
        }
        Bound::Excluded(value) => {
            out.put_u8(2);
            out.put_bytes(value);
        }
    }
}

fn bound<'a>(reader: &mut Reader<'a>) -> Result<Bound<&'a [u8]>, DecodeError> {
    Ok(match reader.tag(3)? {
        0 => Bound::Unbounded,
        1 => Bound::Included(reader.bytes()?),
        _ => Bound::Excluded(reader.bytes()?),
    })
}

fn put_range(range: &IndexRange<'_>, out: &mut Vec<u8>) {
    out.put_bytes(range.prefix);
    out.put_u32(range.prefix_columns as u32);
    put_bound(range.start, out);
    put_bound(range.end, out);
}

fn range<'a>(reader: &mut Reader<'a>) -> Result<IndexRange<'a>, DecodeError> {
    Ok(IndexRange {
        prefix: reader.bytes()?,
        prefix_columns: reader.u32()? as usize,
        start: bound(reader)?,
        end: bound(reader)?,
    })
}

impl<'a> Ask<'a> {
    /// Replaces `out` by the encoded form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        fn put(out: &mut Vec<u8>, tag: u8, id: u32, rest: &[u8]) {
            out.put_u8(tag);
            out.put_u32(id);
            out.extend_from_slice(rest);
        }
        out.clear();
        match self {
            Ask::Input(part) => {
                out.put_u8(0);
                out.put_u8(*part);
            }
            Ask::Insert(table, row) => put(out, 1, table.get(), row),
            Ask::Update(table, index, row) => {
                put(out, 2, table.get(), &[]);
                out.put_u32(index.get());
                out.extend_from_slice(row);
            }
            Ask::DeleteRow(table, row) => put(out, 3, table.get(), row),
            Ask::DeleteRows(table, rows) => put(out, 4, table.get(), rows),
            Ask::DeletePoint(index, key) => put(out, 5, index.get(), key),
            Ask::DeleteRange(index, range) => {
                put(out, 6, index.get(), &[]);
                put_range(range, out);
            }
            Ask::Clear(table) => put(out, 7, table.get(), &[]),
            Ask::Count(table) => put(out, 8, table.get(), &[]),
            Ask::Scan(table) => put(out, 9, table.get(), &[]),
            Ask::Point(index, key) => put(out, 10, index.get(), key),
            Ask::Range(index, range) => {
                put(out, 11, index.get(), &[]);
                put_range(range, out);
            }
            Ask::Log(entry) => {
                out.put_u8(12);
                out.put_u8(entry.level as u8);
                out.put_str(&entry.message);
                put_text(entry.file.as_deref(), out);
                out.put_bool(entry.line.is_some());
                out.put_u32(entry.line.unwrap_or(0));
                put_text(entry.function.as_deref(), out);
            }
            Ask::Begin => out.put_u8(13),
            Ask::Commit => out.put_u8(14),
            Ask::Abort => out.put_u8(15),
            Ask::Schedule(function, arguments) => {
                out.put_u8(16);
                out.put_str(function);
                out.extend_from_slice(arguments);
            }
            Ask::Http(request, body) => {
                out.put_u8(17);
                out.put_bytes(request);
                out.extend_from_slice(body);
            }
        }
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Ask<'a>, DecodeError> {
        let reader = &mut Reader::new(bytes);
        let table = |reader: &mut Reader<'_>| reader.u32().map(TableId::new);
        let index = |reader: &mut Reader<'_>| reader.u32().map(IndexId::new);
        Ok(match reader.tag(ASKS)? {
            0 => Ask::Input(reader.u8()?),
            1 => Ask::Insert(table(reader)?, reader.rest()),
            2 => Ask::Update(table(reader)?, index(reader)?, reader.rest()),
            3 => Ask::DeleteRow(table(reader)?, reader.rest()),
            4 => Ask::DeleteRows(table(reader)?, reader.rest()),
            5 => Ask::DeletePoint(index(reader)?, reader.rest()),
            6 => Ask::DeleteRange(index(reader)?, range(reader)?),
            7 => Ask::Clear(table(reader)?),
            8 => Ask::Count(table(reader)?),
            9 => Ask::Scan(table(reader)?),
            10 => Ask::Point(index(reader)?, reader.rest()),
            11 => Ask::Range(index(reader)?, range(reader)?),
            12 => Ask::Log(LogEntry {
                level: LogLevel::from_abi(reader.u8()?.into()),
                message: clip(reader.str()?.to_owned()),
                file: text(reader)?.map(clip),
                line: {
                    let is_known = reader.bool()?;
                    Some(reader.u32()?).filter(|_| is_known)
                },
                function: text(reader)?.map(clip),
            }),
            13 => Ask::Begin,
            14 => Ask::Commit,
            15 => Ask::Abort,
            16 => Ask::Schedule(reader.str()?, reader.rest()),
            _ => Ask::Http(reader.bytes()?, reader.rest()),
        })
    }
}

/// Why a worker's question has no answer.
#[derive(Debug)]
pub enum Refusal {
    /// The module sees this as an exception.
    Refused(SyscallError),
    /// No transaction is open.
    NoTransaction,
    /// The server cannot go on with the call.
    Broken(String),
    /// The rows would need more memory than the instance may have.
    OutOfMemory,
}

impl Refusal {
    /// Replaces `out` by the answer that says so.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Refusal::Refused(error) => {
                out.put_u8(answer::REFUSED);
                out.put_u16(error.code);
                out.put_str(&error.message);
            }
            Refusal::NoTransaction => out.put_u8(answer::NO_TRANSACTION),
            Refusal::Broken(problem) => {
                out.put_u8(answer::BROKEN);
                out.put_str(problem);
            }
            Refusal::OutOfMemory => out.put_u8(answer::OUT_OF_MEMORY),
        }
    }

    /// What stands behind an answer's status, or the refusal that it is.
    pub(super) fn split(answer: &[u8]) -> Result<&[u8], Refusal> {
        let decode = || -> Result<Result<(), Refusal>, DecodeError> {
            let reader = &mut Reader::new(answer);
            Ok(match reader.u8()? {
                answer::DONE => Ok(()),
                answer::REFUSED => Err(Refusal::Refused(SyscallError::new(reader.u16()?, reader.str()?))),
                answer::BROKEN => Err(Refusal::Broken(reader.str()?.to_owned())),
                answer::NO_TRANSACTION => Err(Refusal::NoTransaction),
                _ => Err(Refusal::OutOfMemory),
            })
        };
        decode().expect("a server answers in its own format")?;
        Ok(&answer[1..])
    }
}

fn put_text(text: Option<&str>, out: &mut Vec<u8>) {
    out.put_bool(text.is_some());
    out.put_str(text.unwrap_or_default());
}

fn text(reader: &mut Reader<'_>) -> Result<Option<String>, DecodeError> {
    let is_known = reader.bool()?;
    Ok(Some(reader.str()?.to_owned()).filter(|_| is_known))
}

fn put_location(location: Option<&SourceLocation>, out: &mut Vec<u8>) {
    out.put_bool(location.is_some());
    if let Some(location) = location {
        out.put_str(&location.file);
        out.put_u32(location.line);
        out.put_u32(location.column);
    }
}

fn location(reader: &mut Reader<'_>) -> Result<Option<SourceLocation>, DecodeError> {
    if !reader.bool()? {
        return Ok(None);
    }
    Ok(Some(SourceLocation { file: clip(reader.str()?.to_owned()), line: reader.u32()?, column: reader.u32()? }))
}

fn put_diagnostic(diagnostic: &Diagnostic, out: &mut Vec<u8>) {
    out.put_str(&diagnostic.message);
    put_location(diagnostic.location.as_ref(), out);
    put_text(diagnostic.excerpt.as_deref(), out);
    out.put_len(diagnostic.stack.len());
    for frame in &diagnostic.stack {
        out.put_str(&frame.function);
        put_location(Some(&frame.location), out);
    }
}

fn diagnostic(reader: &mut Reader<'_>) -> Result<Diagnostic, DecodeError> {
    let message = clip(reader.str()?.to_owned());
    let (place, excerpt) = (location(reader)?, text(reader)?.map(clip));
    let mut stack = Vec::new();
    for _ in 0..reader.array_len(1)?.min(FRAMES_MAX) {
        let function = clip(reader.str()?.to_owned());
        if let Some(location) = location(reader)? {
            stack.push(StackFrame { function, location });
        }
    }
    Ok(Diagnostic { message, location: place, excerpt, stack })
}

/// How a call failed in a worker.
pub(super) enum CallFailed {
    /// So.
    Known(CallError),
    /// The arguments do not fit; the server knows what is wrong with them.
    BadArguments(String),
}

/// Appends why a program cannot be compiled.
pub(super) fn put_compile_error(error: CompileError, out: &mut Vec<u8>) {
    match error {
        CompileError::Syntax(diagnostic) => {
            out.put_u8(0);
            put_diagnostic(&diagnostic, out);
        }
        CompileError::Load(error) => {
            out.put_u8(1);
            put_error(&load_failed(error), out);
        }
        CompileError::Definition(problem) => {
            out.put_u8(2);
            out.put_str(&problem);
        }
        // The server has checked the bounds of what it sends.
        CompileError::Bundle(error) => {
            out.put_u8(2);
            out.put_str(&error.to_string());
        }
    }
}

/// Reads what [`put_compile_error`] wrote.
pub(super) fn compile_error(reader: &mut Reader<'_>) -> Result<CompileError, DecodeError> {
    Ok(match reader.tag(3)? {
        0 => CompileError::Syntax(diagnostic(reader)?),
        1 => match error(reader)? {
            CallFailed::Known(error) => CompileError::Load(load_error(error)),
            CallFailed::BadArguments(function) => CompileError::Definition(function),
        },
        _ => CompileError::Definition(clip(reader.str()?.to_owned())),
    })
}

/// A failure to load as one of a call, for the way.
pub(super) fn load_failed(error: LoadError) -> CallError {
    match error {
        LoadError::Thrown(diagnostic) => CallError::Thrown(diagnostic),
        LoadError::Deadline { location } => CallError::Deadline { location },
        LoadError::OutOfMemory { location } => CallError::OutOfMemory { location },
        LoadError::StackOverflow { location } => CallError::StackOverflow { location },
        error => CallError::Fatal(error.to_string()),
    }
}

/// Undoes [`load_failed`].
pub(super) fn load_error(error: CallError) -> LoadError {
    match error {
        CallError::Thrown(diagnostic) => LoadError::Thrown(diagnostic),
        CallError::Deadline { location } => LoadError::Deadline { location },
        CallError::OutOfMemory { location } => LoadError::OutOfMemory { location },
        CallError::StackOverflow { location } => LoadError::StackOverflow { location },
        error => LoadError::SchemaMismatch(error.to_string()),
    }
}

/// Appends how a call failed.
pub(super) fn put_error(error: &CallError, out: &mut Vec<u8>) {
    let (tag, place) = match error {
        CallError::User(text) => {
            out.put_u8(0);
            return out.put_str(text);
        }
        CallError::Thrown(diagnostic) => {
            out.put_u8(1);
            return put_diagnostic(diagnostic, out);
        }
        CallError::ReturnedPromise { function } => {
            out.put_u8(5);
            return out.put_str(function);
        }
        CallError::BadArguments { function, .. } => {
            out.put_u8(6);
            return out.put_str(function);
        }
        CallError::NoSuchFunction => return out.put_u8(7),
        CallError::Fatal(problem) => {
            out.put_u8(9);
            return out.put_str(problem);
        }
        CallError::Worker(error) => {
            out.put_u8(9);
            return out.put_str(&error.to_string());
        }
        CallError::Deadline { location } => (2, location),
        CallError::OutOfMemory { location } => (3, location),
        CallError::StackOverflow { location } => (4, location),
        CallError::Interrupted { location } => (8, location),
    };
    out.put_u8(tag);
    put_location(place.as_ref(), out);
}

/// Reads what [`put_error`] wrote.
pub(super) fn error(reader: &mut Reader<'_>) -> Result<CallFailed, DecodeError> {
    let tag = reader.tag(10)?;
    Ok(CallFailed::Known(match tag {
        0 => CallError::User(clip(reader.str()?.to_owned())),
        1 => CallError::Thrown(Box::new(diagnostic(reader)?)),
        2 => CallError::Deadline { location: location(reader)? },
        3 => CallError::OutOfMemory { location: location(reader)? },
        4 => CallError::StackOverflow { location: location(reader)? },
        5 => CallError::ReturnedPromise { function: clip(reader.str()?.to_owned()) },
        6 => return Ok(CallFailed::BadArguments(clip(reader.str()?.to_owned()))),
        7 => CallError::NoSuchFunction,
        8 => CallError::Interrupted { location: location(reader)? },
        _ => CallError::Fatal(clip(reader.str()?.to_owned())),
    }))
}
