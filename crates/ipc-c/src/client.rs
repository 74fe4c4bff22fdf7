//! Clients. Each function does what the header says.

use std::{
    ffi::{c_char, c_int},
    os::fd::{AsFd, AsRawFd},
    path::Path,
    time::Duration,
};

use transport::{CallError, CallResult, Client, ClientStream, CompletionQueue, ConnectOptions, StreamItem};

use crate::{
    Status, failed,
    memory::{Bytes, give, handle, put, range, schema, take, text},
    missing,
};

/// A connection, and the outcomes of what was submitted on it.
#[derive(Debug)]
pub struct ClientHandle {
    client: Client,
    completions: CompletionQueue,
}

fn refused(error: &CallError) -> Status {
    match error {
        CallError::Remote { code, message } if !code.is_empty() => failed(code, message),
        error => failed(error.code(), &error.to_string()),
    }
}

fn milliseconds(limit_ms: u32) -> Duration {
    Duration::from_millis(limit_ms.into())
}

/// Gives a reply away.
///
/// # Safety
/// `place` is a place, as the crate's terms say.
unsafe fn replied(result: CallResult, place: *mut Bytes) -> Status {
    match result {
        Ok(reply) => {
            // SAFETY: a place by the caller.
            unsafe { put(place, reply.into()) };
            Status::Ok
        }
        Err(error) => refused(&error),
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_connect(
    path: *const c_char,
    schema_hash: *const u8,
    limit_ms: u32,
    client: *mut *mut ClientHandle,
) -> Status {
    // SAFETY: a text, and null or 32 bytes, by the terms.
    let (Some(path), schema) = (unsafe { (text(path), schema(schema_hash)) }) else { return missing("the path") };
    let mut options = ConnectOptions::new(schema);
    options.limit = milliseconds(limit_ms);
    // Calls of several threads share the connection, and must not wait for one another.
    options.completion_order = true;
    let connected = match Client::connect(Path::new(path), &options) {
        Ok(client) => client,
        Err(error) => return failed(error.code(), &error.to_string()),
    };
    let completions = match connected.completions() {
        Ok(completions) => completions,
        Err(error) => return failed("TN0905", &format!("{path}: {error}")),
    };
    // SAFETY: a place by the terms.
    unsafe { put(client, give(ClientHandle { client: connected, completions })) };
    Status::Ok
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_call(
    client: *mut ClientHandle,
    request: *const u8,
    length: usize,
    limit_ms: u32,
    reply: *mut Bytes,
) -> Status {
    // SAFETY: a handle, a range and a place by the terms.
    unsafe {
        put(reply, Bytes::NONE);
        let (Some(client), Some(request)) = (handle(client), range(request, length)) else {
            return missing("the client or the request");
        };
        replied(client.client.call(request, milliseconds(limit_ms)), reply)
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_submit(
    client: *mut ClientHandle,
    token: u64,
    request: *const u8,
    length: usize,
) -> Status {
    // SAFETY: a handle and a range by the terms.
    let (Some(client), Some(request)) = (unsafe { (handle(client), range(request, length)) }) else {
        return missing("the client or the request");
    };
    match client.completions.submit(token, request) {
        Ok(()) => Status::Ok,
        Err(error) => refused(&error),
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_poll(
    client: *mut ClientHandle,
    limit_ms: u32,
    token: *mut u64,
    reply: *mut Bytes,
) -> Status {
    // SAFETY: a handle and places by the terms.
    unsafe {
        put(reply, Bytes::NONE);
        let Some(client) = handle(client) else { return missing("the client") };
        let Some(completion) = client.completions.poll(milliseconds(limit_ms)) else { return Status::Wait };
        put(token, completion.token);
        replied(completion.result, reply)
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_descriptor(client: *mut ClientHandle) -> c_int {
    // SAFETY: a handle by the terms.
    unsafe { handle(client) }.map_or(-1, |client| client.completions.as_fd().as_raw_fd())
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_close(client: *mut ClientHandle) {
    // SAFETY: a handle that is not used again, by the terms.
    drop(unsafe { take(client) });
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_client_stream(
    client: *mut ClientHandle,
    request: *const u8,
    length: usize,
    credit: u32,
    limit_ms: u32,
    stream: *mut *mut ClientStream,
) -> Status {
    // SAFETY: a handle and a range by the terms.
    let (Some(client), Some(request)) = (unsafe { (handle(client), range(request, length)) }) else {
        return missing("the client or the request");
    };
    match client.client.stream(request, credit, milliseconds(limit_ms)) {
        Ok(opened) => {
            // SAFETY: a place by the terms.
            unsafe { put(stream, give(opened)) };
            Status::Ok
        }
        Err(error) => refused(&error),
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_stream_next(stream: *mut ClientStream, limit_ms: u32, item: *mut Bytes) -> Status {
    // SAFETY: a handle and a place by the terms.
    unsafe {
        put(item, Bytes::NONE);
        let Some(stream) = handle(stream) else { return missing("the stream") };
        match stream.next(milliseconds(limit_ms)) {
            Ok(StreamItem::Item(bytes)) => {
                put(item, bytes.into());
                Status::Ok
            }
            Ok(StreamItem::End(last)) => {
                put(item, last.into());
                Status::End
            }
            Err(error) => refused(&error),
        }
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_stream_close(stream: *mut ClientStream) {
    // SAFETY: a handle that is not used again, by the terms.
    drop(unsafe { take(stream) });
}
