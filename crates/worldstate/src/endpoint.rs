//! The service behind listeners of [`tine_ipc`].

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tine_ipc::{
    ConnectionEvent, ConnectionId, Handler, ListenError, ListenOptions, Reactor, ReactorError, ReactorHandle,
    ReactorOptions, ReactorThread, Request, Responder,
};

use crate::service::{SCHEMA_HASH, Service, WorldStateServer};
use crate::trees::TreeId;
use crate::types::Reply;
use crate::wire::{Action, Encoder, decode, error_reply};
use crate::world::{Session, World};

/// The largest request: a block with as many leaves as a transaction of the store takes.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// How long a client may leave its replies unread, or a frame half sent, before it is closed.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Clients at once.
const CLIENTS_MAX: u32 = 4096;

/// Why listeners could not be started or ended.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// A path cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The thread that serves connections failed.
    #[error("connections cannot be served: {0}")]
    Reactor(#[from] ReactorError),
}

impl EndpointError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            EndpointError::Listen(error) => error.code(),
            EndpointError::Reactor(error) => error.code(),
        }
    }
}

/// Listeners that are being set up.
pub struct Endpoint {
    world: World,
    reactor: Reactor,
    /// Told when a client asks for the end.
    shutdown: Arc<dyn Fn() + Send + Sync>,
}

/// Running listeners. Dropping this stops them at once.
pub struct Serving {
    reactor: ReactorThread,
}

impl Endpoint {
    /// Nothing is listened on yet. `shutdown` is called when a client asks for the end.
    ///
    /// # Errors
    /// The system refuses what a reactor needs.
    pub fn new(world: &World, shutdown: impl Fn() + Send + Sync + 'static) -> Result<Endpoint, EndpointError> {
        let options = ReactorOptions { clients_max: CLIENTS_MAX, ..ReactorOptions::default() };
        Ok(Endpoint { world: world.clone(), reactor: Reactor::new(options)?, shutdown: Arc::new(shutdown) })
    }

    /// Listens for clients of the server that this one stands in for. `map_bytes` is what they are told of the disk.
    ///
    /// # Errors
    /// The path cannot be listened on.
    pub fn listen_plain(&mut self, path: &Path, map_bytes: [u64; TreeId::COUNT]) -> Result<(), EndpointError> {
        let options = ListenOptions {
            message_bytes_max: REQUEST_BYTES_MAX,
            request_bytes_max: 2 * u64::from(REQUEST_BYTES_MAX),
            stall_limit: STALL_LIMIT,
            ..ListenOptions::plain()
        };
        let service = PlainService {
            world: self.world.clone(),
            sessions: Sessions::default(),
            encoder: Encoder { map_bytes },
            shutdown: Arc::clone(&self.shutdown),
        };
        Ok(self.reactor.listen(path, options, Arc::new(service))?)
    }

    /// Listens for clients of the schema: in shared memory if `path` ends in `.shm`, on a socket if it ends in `.sock`.
    ///
    /// # Errors
    /// The path cannot be listened on.
    pub fn listen(&mut self, path: &Path) -> Result<(), EndpointError> {
        let options = ListenOptions {
            message_bytes_max: REQUEST_BYTES_MAX,
            request_bytes_max: 2 * u64::from(REQUEST_BYTES_MAX),
            stall_limit: STALL_LIMIT,
            ..ListenOptions::new(SCHEMA_HASH)
        };
        Ok(self.reactor.listen(path, options, Arc::new(WorldStateServer(Service::new(&self.world))))?)
    }

    /// Serves connections on a thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self) -> Result<Serving, EndpointError> {
        Ok(Serving { reactor: self.reactor.spawn("tine-world-ipc")? })
    }
}

impl Serving {
    /// Stops taking requests and ends when the replies that are ready are written, or after `limit`.
    ///
    /// # Errors
    /// What had stopped the listeners before.
    pub fn stop(self, limit: Duration) -> Result<(), EndpointError> {
        self.reactor.handle().shutdown(limit);
        Ok(self.reactor.join()?)
    }

    /// Controls the thread.
    pub fn handle(&self) -> &ReactorHandle {
        self.reactor.handle()
    }
}

/// The sessions of a listener's connections.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<ConnectionId, Arc<Session>>>);

impl Sessions {
    pub(crate) fn of(&self, world: &World, connection: ConnectionId) -> Arc<Session> {
        Arc::clone(self.0.lock().entry(connection).or_insert_with(|| world.session()))
    }

    pub(crate) fn event(&self, world: &World, event: &ConnectionEvent<'_>) {
        if let ConnectionEvent::Closed { connection, .. } = event {
            let session = self.0.lock().remove(connection);
            if let Some(session) = session {
                world.end_session(&session);
            }
        }
    }
}

struct PlainService {
    world: World,
    sessions: Sessions,
    encoder: Encoder,
    shutdown: Arc<dyn Fn() + Send + Sync>,
}

impl Handler for PlainService {
    fn call(&self, request: Request<'_>, responder: Responder) {
        let decoded = match decode(&request.payload) {
            Ok(decoded) => decoded,
            Err(error) => return responder.ok_vec(error_reply(&error.to_string())),
        };
        let (encoder, name) = (self.encoder, decoded.name);
        match decoded.action {
            Action::Command(command) => {
                let session = self.sessions.of(&self.world, request.connection);
                let reply = Box::new(move |result| responder.ok_vec(encoder.reply(name, &result)));
                self.world.call(&session, command, reply);
            }
            Action::Shutdown => {
                responder.ok_vec(encoder.reply(name, &Ok(Reply::Done)));
                (self.shutdown)();
            }
        }
    }

    fn event(&self, event: ConnectionEvent<'_>) {
        self.sessions.event(&self.world, &event);
    }

    fn plain_error(&self, _code: &str, message: &str) -> Option<Vec<u8>> {
        Some(error_reply(message))
    }
}
