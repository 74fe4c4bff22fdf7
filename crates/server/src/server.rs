//! Starting, accepting and stopping.
//!
//! One task accepts; each connection is one task, first speaking HTTP and, after an upgrade, replaced
//! by the task of a WebSocket. hyper is driven directly rather than through `axum::serve`, because
//! bounds on connections and on the time a request head may take, and an end to draining, belong to it.
//!
//! Shutting down: the listener closes; requests in work are finished until the deadline; WebSockets
//! are closed with 1001 after what was delivered to them; what remains at the deadline is dropped;
//! then the host flushes and releases the data directory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tine_base::Env;
use tine_host::{ClientSink as _, CloseReason, Host, HostOptions};
use tine_sandbox::Sandbox;
use tine_store::RecoveryProgress;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::auth::Authenticator;
use crate::error::{RequestError, ServerError};
use crate::http;
use crate::ipc::Endpoint;
use crate::limits::{Limits, REQUEST_HEAD_BYTES_MAX};
use crate::metrics::Metrics;
use crate::pages::{Page, Pages};
use crate::stall::StallWatch;
use crate::ws::Outbox;

/// Pause after the system refused to accept, usually for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long dropped tasks get to notice.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Settings of the host, the data directory among them.
    pub host: HostOptions,
    /// Bounds of the network side.
    pub limits: Limits,
    /// Pages served beside the API.
    pub pages: Vec<Page>,
    /// Issuers whose tokens are accepted beside the server's own, as their tokens name them (`iss`).
    pub trusted_issuers: Vec<String>,
    /// Worker processes; without them, nothing that needs one works.
    pub sandbox: Option<Arc<Sandbox>>,
    /// Where programs on the same machine are served: paths that end in `.sock` or `.shm`.
    pub ipc: Vec<PathBuf>,
}

impl ServerOptions {
    /// The defaults for an address and a data directory.
    pub fn new(listen: SocketAddr, directory: PathBuf) -> ServerOptions {
        ServerOptions {
            listen,
            host: HostOptions::new(directory),
            limits: Limits::default(),
            pages: Vec::new(),
            trusted_issuers: Vec::new(),
            sandbox: None,
            ipc: Vec::new(),
        }
    }

    /// Lets everybody with a token create databases, not only the administrator.
    pub fn open_publish(mut self, open: bool) -> ServerOptions {
        self.host.open_publish = open;
        self
    }
}

/// How far shutting down has come; tasks only ever see it grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lifecycle {
    Running,
    /// Finish what is in work, begin nothing.
    Draining,
    /// Drop everything.
    Aborted,
}

/// What all requests share.
pub(crate) struct Shared {
    pub host: Host,
    pub auth: Authenticator,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    pub pages: Pages,
    pub sandbox: Option<Arc<Sandbox>>,
    pub env: Arc<dyn Env>,
    pub lifecycle: watch::Sender<Lifecycle>,
    /// Around everything that may run a lane on this thread.
    pub stalls: StallWatch,
    /// Where the server listens.
    pub address: SocketAddr,
    /// Outboxes of open WebSockets, to close them when the server stops.
    clients: Mutex<HashMap<u64, Arc<Outbox>>>,
    next_id: AtomicU64,
    blocking: Semaphore,
}

impl Shared {
    /// A number for a request or client, for spans and the client table.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers an open WebSocket until the guard is dropped.
    pub fn register_client(self: &Arc<Self>, outbox: Arc<Outbox>) -> ClientGuard {
        let id = self.next_id();
        self.clients.lock().insert(id, outbox.clone());
        self.metrics.clients.increment();
        if self.is_stopping() {
            outbox.close(SHUTTING_DOWN);
        }
        ClientGuard { shared: self.clone(), id }
    }

    /// Whether the server no longer takes requests.
    pub fn is_stopping(&self) -> bool {
        *self.lifecycle.borrow() != Lifecycle::Running
    }

    /// Runs work that may wait for the disk or burn a core, on a thread for that.
    pub async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T, RequestError>
    where
        T: Send + 'static,
        F: FnOnce(&Host) -> Result<T, RequestError> + Send + 'static,
    {
        let _permit = self.blocking.acquire().await.map_err(|_| RequestError::ShuttingDown)?;
        let host = self.host.clone();
        let joined = tokio::task::spawn_blocking(move || work(&host)).await;
        joined.map_err(|_| RequestError::Dropped)?
    }

    /// Work of [`Self::blocking`] that still has a free place.
    pub fn blocking_places_free(&self) -> usize {
        self.blocking.available_permits()
    }

    fn close_clients(&self, each: impl Fn(&Outbox)) {
        // Cloned, because closing wakes tasks that may end and want the lock.
        let clients: Vec<Arc<Outbox>> = self.clients.lock().values().cloned().collect();
        clients.iter().for_each(|outbox| each(outbox));
    }
}

const SHUTTING_DOWN: CloseReason = CloseReason::ModuleExited("the server is shutting down");

/// Forgets a WebSocket when its task ends.
pub(crate) struct ClientGuard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for ClientGuard {
    fn drop(&mut self) {
        self.shared.clients.lock().remove(&self.id);
        self.shared.metrics.clients.subtract(1);
    }
}

/// Counts an open connection; a WebSocket keeps the one of the request it grew out of.
pub(crate) struct ConnectionPermit {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
    /// Dropped last of all tasks' copies, it tells shutdown that nothing is left.
    _lifecycle: watch::Receiver<Lifecycle>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.metrics.connections.subtract(1);
    }
}

/// A running server. Dropping it without [`Server::shutdown`] leaves it running until the runtime ends.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    ipc: Option<Endpoint>,
}

impl Server {
    /// Opens the data directory, recovers its databases, and serves. `progress` is called while logs
    /// are read.
    ///
    /// Must be called in a tokio runtime with time and I/O. Recovery blocks a thread of the runtime's
    /// blocking pool.
    ///
    /// # Errors
    /// [`ServerError`]: the directory is in use or damaged, a key file is unusable, or the address is
    /// taken.
    pub async fn start(
        options: ServerOptions,
        env: Arc<dyn Env>,
        progress: impl FnMut(RecoveryProgress) + Send + 'static,
    ) -> Result<Server, ServerError> {
        let listen_error = |source| ServerError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let (host_options, trusted, host_env) = (options.host, options.trusted_issuers, env.clone());
        let opened = tokio::task::spawn_blocking(move || open(host_options, &trusted, host_env, progress)).await;
        let (host, auth) = opened.map_err(|_| ServerError::Panicked)??;
        let metrics: Arc<Metrics> = Arc::default();
        let stalls = StallWatch::start(&*env, metrics.clone()).map_err(ServerError::Thread)?;
        let shared = Arc::new(Shared {
            host,
            auth,
            metrics,
            stalls,
            address,
            pages: Pages::new(options.pages),
            sandbox: options.sandbox,
            env,
            lifecycle: watch::Sender::new(Lifecycle::Running),
            clients: Mutex::default(),
            next_id: AtomicU64::new(1),
            blocking: Semaphore::new(options.limits.blocking_requests_max),
            limits: options.limits,
        });
        let ipc = Endpoint::start(&options.ipc, &shared).map_err(ServerError::Ipc)?;
        let router = http::router(shared.clone());
        let accepting = tokio::spawn(accept(listener, router, shared.clone()));
        tracing::info!(%address, "listening");
        Ok(Server { address, shared, accepting, ipc })
    }

    /// The address the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The host, for programs that embed the server.
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// Serves other pages beside the API from now on.
    pub fn set_pages(&self, pages: Vec<Page>) {
        self.shared.pages.replace(pages);
    }

    /// Stops accepting, finishes what is in work within `deadline`, closes every WebSocket with 1001,
    /// makes everything durable and releases the data directory.
    ///
    /// # Errors
    /// When the last commits could not be made durable.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ServerError> {
        self.shared.lifecycle.send_replace(Lifecycle::Draining);
        let _ = self.accepting.await;
        if let Some(ipc) = self.ipc {
            // A panic was reported by its own hook.
            let _ = tokio::task::spawn_blocking(move || ipc.stop(deadline)).await;
        }
        self.shared.close_clients(|outbox| outbox.close(SHUTTING_DOWN));
        // Every connection holds a receiver: none left means none open.
        let drained = tokio::time::timeout(deadline, self.shared.lifecycle.closed()).await;
        if drained.is_err() {
            tracing::warn!("connections are still open at the deadline and are dropped");
            self.shared.lifecycle.send_replace(Lifecycle::Aborted);
            self.shared.close_clients(Outbox::abort);
            let _ = tokio::time::timeout(ABORT_WAIT, self.shared.lifecycle.closed()).await;
        }
        let host = self.shared.host.clone();
        let closed = tokio::task::spawn_blocking(move || host.shutdown()).await;
        closed.map_err(|_| ServerError::Panicked)?.map_err(ServerError::Host)
    }
}

fn open(
    options: HostOptions,
    trusted_issuers: &[String],
    env: Arc<dyn Env>,
    mut progress: impl FnMut(RecoveryProgress),
) -> Result<(Host, Authenticator), ServerError> {
    // The host first: it locks the directory, so that two servers cannot both make keys.
    let directory = options.directory.clone();
    let host = Host::open_with_progress(options, env.clone(), &mut progress)?;
    let auth = Authenticator::open(&directory, trusted_issuers, env)?;
    Ok((host, auth))
}

async fn accept(listener: TcpListener, router: Router, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(shared.limits.connections_max));
    let mut lifecycle = shared.lifecycle.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = lifecycle.wait_for(|state| *state != Lifecycle::Running) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let Ok(permit) = places.clone().try_acquire_owned() else {
            shared.metrics.connections_refused.increment();
            continue;
        };
        shared.metrics.connections.increment();
        let permit = Arc::new(ConnectionPermit {
            metrics: shared.metrics.clone(),
            _permit: permit,
            _lifecycle: shared.lifecycle.subscribe(),
        });
        let span = tracing::debug_span!("connection", %peer);
        tokio::spawn(serve(stream, router.clone(), shared.clone(), permit).instrument(span));
    }
}

/// Serves HTTP on one connection until it ends or becomes a WebSocket.
async fn serve(stream: TcpStream, router: Router, shared: Arc<Shared>, permit: Arc<ConnectionPermit>) {
    // Replies are whole when they are written: waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%error, "connection lost");
    }
    let mut lifecycle = shared.lifecycle.subscribe();
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request| {
        request.extensions_mut().insert(permit.clone());
        routes.call(request)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_timeout)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut known = Lifecycle::Running;
    loop {
        let changed = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            changed = lifecycle.wait_for(|state| *state > known) => changed.map(|state| *state),
        };
        match changed {
            Ok(Lifecycle::Draining) => connection.as_mut().graceful_shutdown(),
            _ => return,
        }
        known = Lifecycle::Draining;
    }
}
