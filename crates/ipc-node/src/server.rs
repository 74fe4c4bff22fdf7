//! Exports for servers.

use std::{path::Path, sync::Arc, thread, time::Duration};

use napi_sys::{napi_callback_info, napi_env, napi_value};
use tine_ipc::{
    Handler, ListenOptions, Reactor, ReactorOptions, ReactorThread, Request, Responder, StreamError, StreamSender,
};

use crate::{
    notify::Notifier,
    value::{self, Arguments, Failure, export},
};

/// Most clients that a server may have.
const CLIENTS_MAX: u32 = 1 << 20;

/// What became of an item: the numbers of `native.ts`.
const SENT: i32 = 0;
const NO_CREDIT: i32 = 1;
const NOT_WANTED: i32 = 2;

/// Hands requests to JavaScript.
struct Receiver {
    requests: Notifier,
}

impl Handler for Receiver {
    fn call(&self, request: Request<'_>, responder: Responder) {
        let payload = request.payload.into_owned();
        self.requests.send(move |env, function| {
            let responder = value::external(env, responder);
            value::invoke(env, function, &[responder, value::buffer(env, &payload)]);
        });
    }
}

/// `listen(path, schema, clientsMax, messageBytesMax, request)`
pub unsafe extern "C" fn listen(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms.
    unsafe {
        export(env, info, |arguments| {
            let path = arguments.text(0)?;
            let mut options = ListenOptions::new(arguments.schema(1)?);
            let clients_max = arguments.number(2)?.clamp(1, CLIENTS_MAX);
            options.message_bytes_max = arguments.number(3)?;
            options.request_bytes_max = options.request_bytes_max.max(options.message_bytes_max.into());
            let no_reactor = |error: tine_ipc::ReactorError| Failure::new(error.code(), error.to_string());
            let reactor_options = ReactorOptions { clients_max, ..ReactorOptions::default() };
            let mut reactor = Reactor::new(reactor_options).map_err(no_reactor)?;
            let receiver = Arc::new(Receiver { requests: Notifier::new(env, arguments.value(4)) });
            reactor
                .listen(Path::new(&path), options, receiver)
                .map_err(|error| Failure::new(error.code(), error.to_string()))?;
            Ok(value::external(env, reactor.spawn("tine-ipc").map_err(no_reactor)?))
        })
    }
}

/// Takes what answers a request.
///
/// # Safety
/// The first argument is a responder.
unsafe fn responder(arguments: &Arguments) -> Result<Responder, Failure> {
    // SAFETY: by the caller.
    let responder = unsafe { arguments.handle::<Responder>(0)? }.lock().take();
    responder.ok_or_else(|| Failure::new("TN1064", "a request is answered once"))
}

/// `respond(responder, payload)`
pub unsafe extern "C" fn respond(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a responder.
    unsafe {
        export(env, info, |arguments| {
            let payload = arguments.bytes(1)?;
            responder(arguments)?.ok(payload);
            Ok(value::undefined(env))
        })
    }
}

/// `respondError(responder, code, message)`
pub unsafe extern "C" fn respond_error(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a responder.
    unsafe {
        export(env, info, |arguments| {
            let (code, message) = (arguments.text(1)?, arguments.text(2)?);
            responder(arguments)?.err(&code, &message);
            Ok(value::undefined(env))
        })
    }
}

/// `wantsStream(responder)`
pub unsafe extern "C" fn wants_stream(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the argument is a responder.
    unsafe {
        export(env, info, |arguments| {
            let wants = arguments.handle::<Responder>(0)?.lock().as_ref().is_some_and(Responder::wants_stream);
            Ok(value::boolean(env, wants))
        })
    }
}

/// `respondStream(responder, ready)`
pub unsafe extern "C" fn respond_stream(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a responder.
    unsafe {
        export(env, info, |arguments| {
            let sender = responder(arguments)?.stream();
            // The listener keeps the event loop alive; a stream that was given up must not.
            let ready = Notifier::new(env, arguments.value(1)).idle(env);
            sender.on_ready(move || ready.send(|env, function| value::invoke(env, function, &[])));
            Ok(value::external(env, sender))
        })
    }
}

/// `senderSend(sender, item)`
pub unsafe extern "C" fn sender_send(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a sender.
    unsafe {
        export(env, info, |arguments| {
            let sender = arguments.handle::<StreamSender>(0)?.lock();
            let sent = sender
                .as_ref()
                .map_or(Err(StreamError::Cancelled), |sender| sender.send(arguments.bytes(1).unwrap_or(&[])));
            match sent {
                Ok(()) => Ok(value::number(env, SENT)),
                Err(StreamError::NoCredit) => Ok(value::number(env, NO_CREDIT)),
                Err(StreamError::Cancelled) => Ok(value::number(env, NOT_WANTED)),
                Err(error) => Err(Failure::new(error.code(), error.to_string())),
            }
        })
    }
}

/// `senderIsCancelled(sender)`
pub unsafe extern "C" fn sender_is_cancelled(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the argument is a sender.
    unsafe {
        export(env, info, |arguments| {
            let sender = arguments.handle::<StreamSender>(0)?.lock();
            Ok(value::boolean(env, sender.as_ref().is_none_or(StreamSender::is_cancelled)))
        })
    }
}

/// `senderFinish(sender, last)`
pub unsafe extern "C" fn sender_finish(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a sender.
    unsafe {
        export(env, info, |arguments| {
            let last = arguments.bytes(1)?;
            if let Some(sender) = arguments.handle::<StreamSender>(0)?.lock().take() {
                sender.finish(last);
            }
            Ok(value::undefined(env))
        })
    }
}

/// `senderFail(sender, code, message)`
pub unsafe extern "C" fn sender_fail(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a sender.
    unsafe {
        export(env, info, |arguments| {
            let (code, message) = (arguments.text(1)?, arguments.text(2)?);
            if let Some(sender) = arguments.handle::<StreamSender>(0)?.lock().take() {
                sender.fail(&code, &message);
            }
            Ok(value::undefined(env))
        })
    }
}

/// `shutdown(server, flushMs, done)`; waits on a thread of its own.
pub unsafe extern "C" fn shutdown(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a server.
    unsafe {
        export(env, info, |arguments| {
            let flush_limit = Duration::from_millis(arguments.number(1)?.into());
            let server = arguments.handle::<ReactorThread>(0)?.lock().take();
            let done = Notifier::new(env, arguments.value(2));
            thread::spawn(move || {
                let ended = server.map_or(Ok(()), |server| {
                    server.handle().shutdown(flush_limit);
                    server.join()
                });
                done.send(move |env, function| match ended {
                    Ok(()) => value::invoke(env, function, &[]),
                    Err(error) => {
                        let shown = [value::text(env, error.code()), value::text(env, &error.to_string())];
                        value::invoke(env, function, &shown);
                    }
                });
            });
            Ok(value::undefined(env))
        })
    }
}
