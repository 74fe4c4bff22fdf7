//! Calls with types.

use std::{future::poll_fn, marker::PhantomData, path::Path, sync::Arc, task::Poll, time::Duration};

use parking_lot::Mutex;

use tine_msgpack::{Value, encode_request};

use super::{ServiceError, decode_response};
use crate::{CallError, Client, ClientStream, ConnectError, ConnectOptions, StreamItem};

/// A connection to a service. Clones share it.
#[derive(Clone, Debug)]
pub struct Connection {
    client: Client,
    error_name: &'static str,
}

impl Connection {
    /// Connects. `error_name` is the name of the service's error message.
    ///
    /// # Errors
    /// No server, another schema, or no answer in time.
    pub fn open(path: &Path, options: &ConnectOptions, error_name: &'static str) -> Result<Self, ConnectError> {
        Ok(Self { client: Client::connect(path, options)?, error_name })
    }

    /// Sends a request, and resolves to its response.
    ///
    /// # Errors
    /// The service's, the transport's, and a response that is none.
    pub async fn call<Q: Value, R: Value>(
        &self,
        request_name: &str,
        request: &Q,
        response_name: &str,
    ) -> Result<R, ServiceError> {
        let payload = self.client.call_async(&encode_request(request_name, request)).await?;
        decode_response(&payload, response_name, self.error_name)
    }

    /// Sends a request and waits for its response on this thread.
    ///
    /// # Errors
    /// The service's, the transport's, no response in time, and a response that is none.
    pub fn call_within<Q: Value, R: Value>(
        &self,
        request_name: &str,
        request: &Q,
        response_name: &str,
        limit: Duration,
    ) -> Result<R, ServiceError> {
        let payload = self.client.call(&encode_request(request_name, request), limit)?;
        decode_response(&payload, response_name, self.error_name)
    }

    /// Sends a request that is answered with any number of responses, of which at most `credit` are
    /// under way before they are taken.
    ///
    /// # Errors
    /// The transport's.
    pub fn stream<Q: Value, R: Value>(
        &self,
        request_name: &str,
        request: &Q,
        response_name: &'static str,
        credit: u32,
    ) -> Result<ItemStream<R>, ServiceError> {
        let stream = self.client.stream(&encode_request(request_name, request), credit, SEND_LIMIT)?;
        Ok(ItemStream {
            stream,
            response_name,
            error_name: self.error_name,
            waker: Arc::default(),
            is_watched: false,
            item: PhantomData,
        })
    }
}

/// How long sending the request of a stream may wait for room.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The responses of one request, in order. Dropping it cancels what has not come.
#[derive(Debug)]
pub struct ItemStream<R> {
    stream: ClientStream,
    response_name: &'static str,
    error_name: &'static str,
    /// Who polls [`Self::next`].
    waker: Arc<Mutex<Option<std::task::Waker>>>,
    is_watched: bool,
    item: PhantomData<fn() -> R>,
}

impl<R: Value> ItemStream<R> {
    /// The next response; `None` is the end.
    ///
    /// # Errors
    /// The service's, the transport's, and a response that is none.
    pub async fn next(&mut self) -> Result<Option<R>, ServiceError> {
        if !self.is_watched {
            self.is_watched = true;
            let waker = self.waker.clone();
            self.stream.on_ready(move || {
                let waiting = waker.lock().take();
                if let Some(waiting) = waiting {
                    waiting.wake();
                }
            });
        }
        let arrived = poll_fn(|context| {
            // Registered before looking: what arrives in between wakes.
            *self.waker.lock() = Some(context.waker().clone());
            self.stream.try_next().map_or(Poll::Pending, Poll::Ready)
        });
        let arrived = arrived.await;
        self.decode(arrived)
    }

    /// Waits for the next response on this thread; `None` is the end.
    ///
    /// # Errors
    /// The service's, the transport's, no response in time, and a response that is none.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<R>, ServiceError> {
        let arrived = self.stream.next(limit);
        self.decode(arrived)
    }

    fn decode(&self, arrived: Result<StreamItem, CallError>) -> Result<Option<R>, ServiceError> {
        match arrived? {
            StreamItem::Item(payload) => decode_response(&payload, self.response_name, self.error_name).map(Some),
            // The end is empty, or the service's error.
            StreamItem::End(last) if last.is_empty() => Ok(None),
            StreamItem::End(last) => decode_response(&last, self.response_name, self.error_name).map(Some),
        }
    }
}
