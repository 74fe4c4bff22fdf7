//! Exports for clients.

use std::{path::Path, sync::Arc, thread, time::Duration};

use napi_sys::{napi_callback_info, napi_env, napi_value};
use tine_ipc::{CallError, Client, ClientStream, ConnectOptions, StreamItem};

use crate::{
    notify::Notifier,
    value::{self, Failure, export},
};

/// How long the request of a stream may wait for room.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// Code and words of an error.
pub fn parts(error: &CallError) -> (String, String) {
    match error {
        CallError::Remote { code, message } if !code.is_empty() => (code.clone(), message.clone()),
        error => (error.code().to_owned(), error.to_string()),
    }
}

fn closed() -> Failure {
    Failure::new("TN0920", "the connection was closed here")
}

/// `connect(path, schema, limitMs, messageBytesMax, done)`; connects on a thread of its own.
pub unsafe extern "C" fn connect(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms.
    unsafe {
        export(env, info, |arguments| {
            let path = arguments.text(0)?;
            let mut options = ConnectOptions::new(arguments.schema(1)?);
            options.limit = Duration::from_millis(arguments.number(2)?.into());
            options.message_bytes_max = arguments.number(3)?;
            options.completion_order = true;
            let done = Notifier::new(env, arguments.value(4));
            thread::spawn(move || {
                let connected = Client::connect(Path::new(&path), &options);
                done.send(move |env, function| {
                    let undefined = value::undefined(env);
                    match connected {
                        Ok(client) => {
                            value::invoke(env, function, &[undefined, undefined, value::external(env, client)])
                        }
                        Err(error) => {
                            let (code, message) =
                                (value::text(env, error.code()), value::text(env, &error.to_string()));
                            value::invoke(env, function, &[code, message, undefined]);
                        }
                    }
                });
            });
            Ok(value::undefined(env))
        })
    }
}

/// `call(client, request, done)`
pub unsafe extern "C" fn call(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a client.
    unsafe {
        export(env, info, |arguments| {
            let client = arguments.handle::<Client>(0)?.lock().clone().ok_or_else(closed)?;
            let done = Notifier::new(env, arguments.value(2));
            let submitted = client.submit(arguments.bytes(1)?, move |result| {
                done.send(move |env, function| {
                    let undefined = value::undefined(env);
                    match result {
                        Ok(reply) => value::invoke(env, function, &[undefined, undefined, value::buffer(env, &reply)]),
                        Err(error) => {
                            let (code, message) = parts(&error);
                            let shown = [value::text(env, &code), value::text(env, &message), undefined];
                            value::invoke(env, function, &shown);
                        }
                    }
                });
            });
            submitted.map_err(|error| {
                let (code, message) = parts(&error);
                Failure { code, message }
            })?;
            Ok(value::undefined(env))
        })
    }
}

/// `stream(client, request, credit, ready)`
pub unsafe extern "C" fn stream(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the first argument is a client.
    unsafe {
        export(env, info, |arguments| {
            let client = arguments.handle::<Client>(0)?.lock().clone().ok_or_else(closed)?;
            let opened = client.stream(arguments.bytes(1)?, arguments.number(2)?, SEND_LIMIT).map_err(|error| {
                let (code, message) = parts(&error);
                Failure { code, message }
            })?;
            let ready = Arc::new(Notifier::new(env, arguments.value(3)));
            opened.on_ready(move || ready.send(|env, function| value::invoke(env, function, &[])));
            Ok(value::external(env, opened))
        })
    }
}

/// `streamTake(stream)`
pub unsafe extern "C" fn stream_take(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the argument is a stream.
    unsafe {
        export(env, info, |arguments| {
            let stream = arguments.handle::<ClientStream>(0)?.lock();
            let Some(stream) = stream.as_ref() else { return Ok(value::undefined(env)) };
            Ok(match stream.try_next() {
                None => value::undefined(env),
                Some(Ok(StreamItem::Item(item))) => value::object(env, &[(c"item", value::buffer(env, &item))]),
                Some(Ok(StreamItem::End(last))) => value::object(env, &[(c"last", value::buffer(env, &last))]),
                Some(Err(error)) => {
                    let (code, message) = parts(&error);
                    let shown = [(c"code", value::text(env, &code)), (c"message", value::text(env, &message))];
                    value::object(env, &shown)
                }
            })
        })
    }
}

/// `streamCancel(stream)`
pub unsafe extern "C" fn stream_cancel(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the argument is a stream.
    unsafe {
        export(env, info, |arguments| {
            let stream = arguments.handle::<ClientStream>(0)?.lock().take();
            drop(stream);
            Ok(value::undefined(env))
        })
    }
}

/// `disconnect(client)`
pub unsafe extern "C" fn disconnect(env: napi_env, info: napi_callback_info) -> napi_value {
    // SAFETY: by the crate's terms; the argument is a client.
    unsafe {
        export(env, info, |arguments| {
            let client = arguments.handle::<Client>(0)?.lock().take();
            drop(client);
            Ok(value::undefined(env))
        })
    }
}
