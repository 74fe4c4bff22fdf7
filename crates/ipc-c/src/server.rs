//! Servers. Each function does what the header says.
//!
//! Requests go from the reactor's thread into a queue, from which the program's threads take them.

use std::{
    collections::VecDeque,
    ffi::c_char,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use transport::{
    Handler, ListenOptions, PeerCredentials, Reactor, ReactorOptions, ReactorThread, Request, Responder, StreamError,
    StreamSender,
};

use crate::{
    Status, failed,
    memory::{Bytes, give, handle, put, range, schema, take, text},
    missing,
};

/// Requests that wait for a thread of the program. Beyond, they are refused: the program is too slow.
const QUEUE_MAX: usize = 65_536;

/// Code of requests that are refused because too many wait.
const CODE_OVERLOADED: &str = "TN0925";

/// Most clients that a server may have.
const CLIENTS_MAX: u32 = 1 << 20;

struct Waiting {
    payload: Vec<u8>,
    responder: Responder,
    peer: PeerCredentials,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Waiting>,
    is_closed: bool,
}

/// What the reactor and the program's threads share.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Shared {
    fn close(&self) {
        // What waits is dropped, which answers it with an error.
        let waiting = {
            let mut queue = self.queue.lock();
            queue.is_closed = true;
            std::mem::take(&mut queue.requests)
        };
        self.arrived.notify_all();
        drop(waiting);
    }
}

struct Receiver(Arc<Shared>);

impl Handler for Receiver {
    fn call(&self, request: Request<'_>, responder: Responder) {
        let mut queue = self.0.queue.lock();
        if queue.is_closed || queue.requests.len() >= QUEUE_MAX {
            drop(queue);
            responder.err(CODE_OVERLOADED, "the service has more requests than it can keep");
            return;
        }
        queue.requests.push_back(Waiting { payload: request.payload.into_owned(), responder, peer: request.peer });
        drop(queue);
        self.0.arrived.notify_one();
    }
}

/// A server.
pub struct ServerHandle {
    shared: Arc<Shared>,
    reactor: ReactorThread,
}

/// A request, as the header has it.
#[repr(C)]
pub struct CRequest {
    payload: Bytes,
    responder: *mut Responder,
    uid: u32,
    pid: i32,
    wants_stream: i32,
}

fn listen(path: &str, options: ListenOptions, clients_max: u32) -> Result<ServerHandle, Status> {
    let shared = Arc::new(Shared::default());
    let reactor_options =
        ReactorOptions { clients_max: clients_max.clamp(1, CLIENTS_MAX), ..ReactorOptions::default() };
    let no_reactor = |error: transport::ReactorError| failed(error.code(), &error.to_string());
    let mut reactor = Reactor::new(reactor_options).map_err(no_reactor)?;
    let receiver = Arc::new(Receiver(shared.clone()));
    reactor.listen(Path::new(path), options, receiver).map_err(|error| failed(error.code(), &error.to_string()))?;
    Ok(ServerHandle { shared, reactor: reactor.spawn("tine-ipc").map_err(no_reactor)? })
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_listen(
    path: *const c_char,
    schema_hash: *const u8,
    clients_max: u32,
    server: *mut *mut ServerHandle,
) -> Status {
    // SAFETY: a text, and null or 32 bytes, by the terms.
    let (Some(path), schema) = (unsafe { (text(path), schema(schema_hash)) }) else { return missing("the path") };
    match listen(path, ListenOptions::new(schema), clients_max) {
        Ok(listening) => {
            // SAFETY: a place by the terms.
            unsafe { put(server, give(listening)) };
            Status::Ok
        }
        Err(status) => status,
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_next(server: *mut ServerHandle, limit_ms: u32, request: *mut CRequest) -> Status {
    // SAFETY: a handle by the terms.
    let Some(server) = (unsafe { handle(server) }) else { return missing("the server") };
    let until = Instant::now() + Duration::from_millis(limit_ms.into());
    let mut queue = server.shared.queue.lock();
    let waiting = loop {
        if let Some(waiting) = queue.requests.pop_front() {
            break waiting;
        }
        if queue.is_closed {
            return Status::End;
        }
        if server.shared.arrived.wait_until(&mut queue, until).timed_out() && queue.requests.is_empty() {
            return if queue.is_closed { Status::End } else { Status::Wait };
        }
    };
    drop(queue);
    let wants_stream = i32::from(waiting.responder.wants_stream());
    let taken = CRequest {
        payload: waiting.payload.into(),
        responder: give(waiting.responder),
        uid: waiting.peer.uid,
        pid: waiting.peer.pid,
        wants_stream,
    };
    // SAFETY: a place by the terms.
    unsafe { put(request, taken) };
    Status::Ok
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_shutdown(server: *mut ServerHandle, flush_ms: u32) {
    // SAFETY: a handle by the terms.
    if let Some(server) = unsafe { handle(server) } {
        server.shared.close();
        server.reactor.handle().shutdown(Duration::from_millis(flush_ms.into()));
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_server_close(server: *mut ServerHandle, flush_ms: u32) {
    // SAFETY: a handle that is not used again, by the terms.
    unsafe {
        tine_server_shutdown(server, flush_ms);
        if let Some(server) = take(server) {
            // Why it stopped has nobody to be told to.
            let _ = server.reactor.join();
        }
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_responder_ok(responder: *mut Responder, payload: *const u8, length: usize) {
    // SAFETY: a handle that is not used again, and a range, by the terms.
    let (responder, payload) = unsafe { (take(responder), range(payload, length)) };
    if let (Some(responder), Some(payload)) = (responder, payload) {
        responder.ok(payload);
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_responder_error(responder: *mut Responder, code: *const c_char, message: *const c_char) {
    // SAFETY: a handle that is not used again, and texts, by the terms.
    let (responder, code, message) = unsafe { (take(responder), text(code), text(message)) };
    if let Some(responder) = responder {
        responder.err(code.unwrap_or_default(), message.unwrap_or_default());
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_responder_drop(responder: *mut Responder) {
    // SAFETY: a handle that is not used again, by the terms.
    drop(unsafe { take(responder) });
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_responder_stream(responder: *mut Responder) -> *mut StreamSender {
    // SAFETY: a handle that is not used again, by the terms.
    unsafe { take(responder) }.map_or(std::ptr::null_mut(), |responder| give(responder.stream()))
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_sender_send(
    sender: *mut StreamSender,
    item: *const u8,
    length: usize,
    limit_ms: u32,
) -> Status {
    // SAFETY: a handle and a range by the terms.
    let (Some(sender), Some(item)) = (unsafe { (handle(sender), range(item, length)) }) else {
        return missing("the sender or the item");
    };
    match sender.send_timeout(item, Duration::from_millis(limit_ms.into())) {
        Ok(()) => Status::Ok,
        Err(StreamError::NoCredit) => Status::Wait,
        Err(StreamError::Cancelled) => Status::End,
        Err(error) => failed(error.code(), &error.to_string()),
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_sender_finish(sender: *mut StreamSender, last: *const u8, length: usize) {
    // SAFETY: a handle that is not used again, and a range, by the terms.
    let (sender, last) = unsafe { (take(sender), range(last, length)) };
    if let (Some(sender), Some(last)) = (sender, last) {
        sender.finish(last);
    }
}

/// See the header.
///
/// # Safety
/// The crate's terms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tine_sender_fail(sender: *mut StreamSender, code: *const c_char, message: *const c_char) {
    // SAFETY: a handle that is not used again, and texts, by the terms.
    let (sender, code, message) = unsafe { (take(sender), text(code), text(message)) };
    if let Some(sender) = sender {
        sender.fail(code.unwrap_or_default(), message.unwrap_or_default());
    }
}
