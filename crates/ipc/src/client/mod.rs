//! The calling side: blocking calls from any number of threads, callbacks, futures, streams.

mod completions;
mod entries;
mod future;
mod inner;
mod link;
mod stream;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{CallError, ConnectError};
use crate::frame::Kind;
use crate::handshake::SchemaHash;
use crate::server::MESSAGE_BYTES_MAX;
pub use completions::{Completion, CompletionQueue};
pub use future::CallFuture;
pub use inner::CallResult;
use inner::{Inner, Pending, borrow_waiter, return_waiter};
pub use stream::{ClientStream, StreamItem};

/// How long a submission may wait for room to write.
const SUBMIT_LIMIT: Duration = Duration::from_secs(5);

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// What this client was made from.
    pub schema: SchemaHash,
    /// Replies as they are ready, instead of in the order of the requests.
    pub completion_order: bool,
    /// No handshake, bare frames: for servers made for such clients. Sockets only.
    pub plain: bool,
    /// How long connecting may take altogether.
    pub limit: Duration,
    /// Largest reply that is taken.
    pub message_bytes_max: u32,
    /// Cores this process may use, which decides whether spinning can pay; `None`: find out.
    pub cores: Option<usize>,
    /// Id of the first request; for tests of wrapping.
    #[doc(hidden)]
    pub first_id: u64,
}

impl ConnectOptions {
    /// For a server of this schema.
    pub fn new(schema: SchemaHash) -> Self {
        ConnectOptions {
            schema,
            completion_order: false,
            plain: false,
            limit: Duration::from_secs(5),
            message_bytes_max: MESSAGE_BYTES_MAX,
            cores: None,
            first_id: 1,
        }
    }

    /// For a server without handshake.
    pub fn plain() -> Self {
        ConnectOptions { plain: true, ..ConnectOptions::new(SchemaHash::ANY) }
    }
}

/// A connection to a service. Clones are the same connection, which ends with the last of them.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

struct Handle {
    inner: Arc<Inner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.fail(CallError::Disconnected { reason: "this side closed it".into() });
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("closed", &self.closed()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the service at `path`, which ends in `.sock` or `.shm`.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(path: &Path, options: &ConnectOptions) -> Result<Client, ConnectError> {
        let parts = link::connect(path, options)?;
        Ok(Client { handle: Arc::new(Handle { inner: Arc::new(Inner::new(parts)) }) })
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    /// Sends a request and waits up to `limit` for its reply.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(&self, payload: &[u8], limit: Duration) -> CallResult {
        let inner = self.inner();
        if let Some(result) = inner.call_directly(payload, limit) {
            return result;
        }
        let waiter = borrow_waiter();
        let result = inner.request(Kind::Request, payload, Pending::Waiter(waiter.clone()), limit).and_then(|id| {
            inner.wait_until(&waiter, limit, || waiter.take()).unwrap_or_else(|| {
                inner.forget(id);
                Err(CallError::TimedOut)
            })
        });
        return_waiter(waiter);
        result
    }

    /// Sends a request. `done` is called exactly once with the outcome, on the thread that reads the connection: it must not block.
    /// If this returns an error, `done` may have been called with it, or dropped.
    ///
    /// # Errors
    /// [`CallError`]: the request was not sent.
    pub fn submit(&self, payload: &[u8], done: impl FnOnce(CallResult) + Send + 'static) -> Result<(), CallError> {
        self.inner().request(Kind::Request, payload, Pending::Callback(Box::new(done)), SUBMIT_LIMIT).map(drop)
    }

    /// Sends a request; the future is its reply, on any executor. Dropping the future gives the call up.
    pub fn call_async(&self, payload: &[u8]) -> CallFuture {
        CallFuture::new(self, payload)
    }

    /// Sends a request that is answered by a stream. At most `window` items are on their way or waiting here.
    ///
    /// # Errors
    /// [`CallError`]: the request was not sent.
    pub fn stream(&self, payload: &[u8], window: u32, limit: Duration) -> Result<ClientStream, CallError> {
        ClientStream::open(self.inner(), payload, window, limit)
    }

    /// A queue of outcomes, for event loops and other languages.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn completions(&self) -> std::io::Result<CompletionQueue> {
        CompletionQueue::new(self.clone())
    }

    /// Why the connection has ended, if it is known to have.
    pub fn closed(&self) -> Option<CallError> {
        self.inner().closed()
    }
}
