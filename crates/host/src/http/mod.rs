//! HTTP of modules: requests that handlers answer, and requests that procedures send.
//!
//! A handler is a procedure that anybody may call: it has no sender, runs on the procedures' threads, and opens transactions itself.

mod rules;
mod send;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tine_module::HandlerOutcome;
use tine_types::Identity;
use tine_types::http::{HttpRequest, HttpResponse, HttpVersion};
use tine_types::module_def::HttpMethod;

use crate::CallFailure;
use crate::cancel::Cancellation;
use crate::client::{ReplyTo, Requester};
use crate::jobs::Job;
use crate::procedures::{ProcedureReply, Work};
use crate::worker::ForkWorker;

pub use rules::{BadHttpRule, HttpRule};
pub(crate) use send::Client;

/// A request to a module's HTTP handlers.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// Its method.
    pub method: String,
    /// The path below `/route`, with its leading slash and without the query; empty for `/route` itself.
    pub path: String,
    /// Path and query as the handler is to see them.
    pub uri: String,
    /// The version of HTTP it came with.
    pub version: HttpVersion,
    /// Its header fields in order.
    pub headers: Vec<(String, Bytes)>,
    /// Its body.
    pub body: Bytes,
}

/// What a handler answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status code, from 100 to 599.
    pub status: u16,
    /// Header fields in order.
    pub headers: Vec<(String, Bytes)>,
    /// Body.
    pub body: Bytes,
}

impl ForkWorker {
    /// Starts the handler that a request is routed to.
    pub fn start_handler(&mut self, call: HttpCall, cancellation: Arc<Cancellation>, reply: ReplyTo<HttpAnswer>) {
        let started = Instant::now();
        let module = self.module.clone();
        let method = HttpMethod::named(&call.method);
        let Some(route) = module.route(&method, &call.path) else {
            return self.reply(reply, Err(CallFailure::NoSuchFunction), started.elapsed());
        };
        let request = HttpRequest {
            method,
            headers: call.headers.into_iter().map(|(name, value)| (name.into(), value.to_vec().into())).collect(),
            timeout: None,
            uri: call.uri.into(),
            version: call.version,
        };
        let nobody = Requester { identity: Identity::from_le_bytes([0; 32]), jwt_payload: None };
        let work = Work::Handler { handler: route.handler, name: route.name.clone(), body: call.body };
        self.start_work(work, nobody, None, request.encode().into(), cancellation, ProcedureReply::Http(reply));
    }
}

/// Takes a handler's response for the server.
pub(crate) fn answer(outcome: HandlerOutcome) -> Result<HttpAnswer, CallFailure> {
    let refused = |message: String| CallFailure::Failed { code: "TN0638", message };
    let response = HttpResponse::decode(&outcome.response)
        .map_err(|error| refused(format!("the handler answered with a malformed response: {error}")))?;
    if !(100..=599).contains(&response.code) {
        return Err(refused(format!("the handler answered with the status {}, which is none", response.code)));
    }
    let headers = response.headers.into_iter().map(|(name, value)| (name.into(), Bytes::from(value.into_vec())));
    Ok(HttpAnswer { status: response.code, headers: headers.collect(), body: outcome.body })
}

impl crate::handle::ForkHandle {
    /// Sends a request to the module's HTTP handlers. Where no route leads, the reply is [`CallFailure::NoSuchFunction`].
    ///
    /// The guard tells that somebody waits: keep it until the reply came.
    pub fn http(&self, call: HttpCall, reply: ReplyTo<HttpAnswer>) -> crate::CallGuard {
        let cancellation = Arc::new(Cancellation::default());
        let guard = crate::CallGuard(cancellation.clone());
        let deadline = Instant::now() + crate::handle::LANE_WITHIN;
        self.submit(Job::Http { call: Box::new(call), deadline, cancellation, reply });
        guard
    }
}
