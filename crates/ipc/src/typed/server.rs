//! Requests with types, and what answers them.

use std::{marker::PhantomData, time::Duration};

use tine_msgpack::{DecodeError, Reader, Value, decode_message, encode_response};

use super::ErrorResponse;
use crate::{ConnectionId, PeerCredentials, Request, StreamError, StreamSender};

/// A request whose name was read, and whose fields were not.
#[derive(Debug)]
pub struct Incoming<'a> {
    reader: Reader<'a>,
    responder: crate::Responder,
    error_name: &'static str,
    peer: PeerCredentials,
}

impl<'a> Incoming<'a> {
    /// Reads the name of a request. Data that is no request is answered with the service's error, and
    /// there is nothing left to do.
    pub fn open(
        request: &'a Request<'_>,
        responder: crate::Responder,
        error_name: &'static str,
    ) -> Option<(&'a str, Self)> {
        let mut reader = Reader::new(&request.payload);
        let name = tine_msgpack::read_request(&mut reader);
        let incoming = Self { reader, responder, error_name, peer: request.peer };
        match name {
            Ok(name) => Some((name, incoming)),
            Err(error) => {
                incoming.refuse(&error);
                None
            }
        }
    }

    /// Reads the fields. A request that lacks some is answered with the service's error.
    pub fn accept<Q: Value, R: Value>(mut self, response_name: &'static str) -> Option<(Q, Responder<R>)> {
        match decode_message(&mut self.reader) {
            Ok(request) => {
                let Self { responder, error_name, peer, .. } = self;
                Some((request, Responder { inner: responder, response_name, error_name, peer, response: PhantomData }))
            }
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    /// As [`Self::accept`], for a command that is answered with a stream.
    pub fn accept_stream<Q: Value, R: Value>(mut self, response_name: &'static str) -> Option<(Q, StreamResponder<R>)> {
        match decode_message(&mut self.reader) {
            Ok(request) => {
                let connection = self.responder.connection();
                let Self { responder, error_name, peer, .. } = self;
                let inner = responder.stream();
                let item = PhantomData;
                Some((request, StreamResponder { inner, response_name, error_name, connection, peer, item }))
            }
            Err(error) => {
                self.refuse(&error);
                None
            }
        }
    }

    /// Answers that the service has no such command.
    pub fn refuse_unknown(self, name: &str) {
        self.refuse(&DecodeError::unknown_message(name));
    }

    fn refuse(self, error: &DecodeError) {
        let payload = ErrorResponse::encode_plain(self.error_name, error.code(), &error.to_string());
        self.responder.ok_vec(payload);
    }
}

/// Answers one request, once, now or later, from any thread. Dropped, it answers with an error.
#[derive(Debug)]
#[must_use = "a request that is not answered fails"]
pub struct Responder<R> {
    inner: crate::Responder,
    response_name: &'static str,
    error_name: &'static str,
    peer: PeerCredentials,
    response: PhantomData<fn(R)>,
}

impl<R: Value> Responder<R> {
    /// Answers with a response.
    pub fn ok(self, response: &R) {
        self.inner.ok_vec(encode_response(self.response_name, response));
    }

    /// Answers with the service's error.
    pub fn err(self, message: impl Into<String>) {
        self.inner.ok_vec(encode_response(self.error_name, &ErrorResponse { message: message.into() }));
    }

    /// The connection that the request came on.
    pub fn connection(&self) -> ConnectionId {
        self.inner.connection()
    }

    /// The process at the other end.
    pub fn peer(&self) -> PeerCredentials {
        self.peer
    }
}

/// Answers one request with any number of responses, from any thread. Dropped, it ends with an error.
#[derive(Debug)]
#[must_use = "a request that is not answered fails"]
pub struct StreamResponder<R> {
    inner: StreamSender,
    response_name: &'static str,
    error_name: &'static str,
    connection: ConnectionId,
    peer: PeerCredentials,
    item: PhantomData<fn(R)>,
}

impl<R: Value> StreamResponder<R> {
    /// Sends a response, if the client has room for it. Never blocks.
    ///
    /// # Errors
    /// No room now, or no interest any more.
    pub fn send(&self, response: &R) -> Result<(), StreamError> {
        self.inner.send(&encode_response(self.response_name, response))
    }

    /// Sends a response, waiting for room; not for use where requests are handled.
    ///
    /// # Errors
    /// No room in time, or no interest any more.
    pub fn send_within(&self, response: &R, limit: Duration) -> Result<(), StreamError> {
        self.inner.send_timeout(&encode_response(self.response_name, response), limit)
    }

    /// Whether the client wants no further responses.
    pub fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }

    /// `waker` is called when the client has room again, or wants no more; it must not block.
    pub fn on_ready(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.inner.on_ready(waker);
    }

    /// Ends the stream.
    pub fn finish(self) {
        self.inner.finish(&[]);
    }

    /// Ends the stream with the service's error.
    pub fn err(self, message: impl Into<String>) {
        self.inner.finish(&encode_response(self.error_name, &ErrorResponse { message: message.into() }));
    }

    /// The connection that the request came on.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The process at the other end.
    pub fn peer(&self) -> PeerCredentials {
        self.peer
    }
}
