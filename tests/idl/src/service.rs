//! A server that echoes.

use std::{
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use tine_ipc::{
    StreamError,
    typed::{Responder, StreamResponder},
};

use crate::echo::*;

/// How long the sender of a stream waits for room before it looks whether anybody is there.
const ROOM: Duration = Duration::from_millis(100);

/// Answers some requests at once, and some from another thread.
pub struct Echo {
    later: Sender<(EchoSame, Responder<EchoSameResponse>)>,
}

impl Echo {
    /// A service with a thread for what is answered later.
    pub fn start() -> Echo {
        let (later, requests) = channel::<(EchoSame, Responder<EchoSameResponse>)>();
        thread::spawn(move || {
            for (request, responder) in requests {
                responder.ok(&EchoSameResponse { data: request.data });
            }
        });
        Echo { later }
    }
}

/// A response with the fields of its request.
macro_rules! same {
    ($response:ident, $request:ident, $($field:ident),*) => { $response { $($field: $request.$field),* } };
}

impl EchoHandler for Echo {
    fn scalars(&self, request: EchoScalars, responder: Responder<EchoScalarsResponse>) {
        let response = same!(EchoScalarsResponse, request, flag, small, medium, large, huge, ratio, text, data, digest);
        responder.ok(&response);
    }

    fn optionals(&self, request: EchoOptionals, responder: Responder<EchoOptionalsResponse>) {
        responder.ok(&same!(EchoOptionalsResponse, request, flag, count, text, data, hash, shape, numbers));
    }

    fn lists(&self, request: EchoLists, responder: Responder<EchoListsResponse>) {
        responder.ok(&same!(EchoListsResponse, request, tree_id, hashes, pair, octets, rows, blobs, shapes));
    }

    fn bytes(&self, request: EchoBytes, responder: Responder<EchoBytesResponse>) {
        responder.ok(&EchoBytesResponse { data: request.data });
    }

    fn same(&self, request: EchoSame, responder: Responder<EchoSameResponse>) {
        // When the thread is gone, so is the responder, and its client learns it.
        let _ = self.later.send((request, responder));
    }

    fn nothing(&self, _request: EchoNothing, responder: Responder<EchoNothingResponse>) {
        responder.ok(&EchoNothingResponse {});
    }

    fn fail(&self, request: EchoFail, responder: Responder<EchoFailResponse>) {
        responder.err(request.message);
    }

    fn count(&self, request: EchoCount, responder: StreamResponder<EchoCountResponse>) {
        thread::spawn(move || {
            let times = request.times.unwrap_or(u64::MAX);
            for value in (request.from..).take(usize::try_from(times).unwrap_or(usize::MAX)) {
                loop {
                    match responder.send_within(&EchoCountResponse { value }, ROOM) {
                        Ok(()) => break,
                        Err(StreamError::NoCredit) => {}
                        Err(_) => return,
                    }
                }
            }
            responder.finish();
        });
    }
}
