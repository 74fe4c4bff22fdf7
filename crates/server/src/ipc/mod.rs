//! The endpoint for programs on the same machine: the service of `tine-local` over sockets and shared memory.
//!
//! Requests are handled on the reactor's thread. Reads and short writes on an idle fork run right there, in the fork's lane; what may
//! wait for the disk, a compiler or another thread goes to the runtime. Replies go from whoever runs the work to the reactor.
//!
//! Invariants:
//! - Nothing here blocks the reactor's thread, except work that the lane's inline rule allows.
//! - A committed read that follows requests of its own connection to the same fork that are not answered yet is read in order with
//!   them: its reply could not be delivered sooner, and so never shows less than theirs (G4).
//! - What a connection made and did not give away ends with it.

mod service;
mod session;
mod subscribe;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tine_ipc::{ListenError, ListenOptions, PeerPolicy, Reactor, ReactorError, ReactorOptions, ReactorThread};
use tine_local::{SCHEMA_HASH, TineServer};

use crate::server::Shared;
use service::Service;

/// Why local programs cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// The reactor cannot be started.
    #[error("local programs cannot be served: {0}")]
    Reactor(#[from] ReactorError),
    /// A path cannot be listened on.
    #[error("cannot serve local programs at {path}: {source}", path = path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: ListenError,
    },
}

impl IpcError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            IpcError::Reactor(error) => error.code(),
            IpcError::Listen { source, .. } => source.code(),
        }
    }
}

/// The running endpoint.
pub(crate) struct Endpoint(ReactorThread);

impl Endpoint {
    /// Serves on all `paths`; must be called in the server's runtime.
    pub fn start(paths: &[PathBuf], shared: &Arc<Shared>) -> Result<Option<Endpoint>, IpcError> {
        if paths.is_empty() {
            return Ok(None);
        }
        let mut reactor = Reactor::new(ReactorOptions::default())?;
        let service = Arc::new(TineServer(Service::new(shared.clone())));
        for path in paths {
            let options = ListenOptions { policy: PeerPolicy::Anyone, ..ListenOptions::new(SCHEMA_HASH) };
            let listening = reactor.listen(path, options, service.clone());
            listening.map_err(|source| IpcError::Listen { path: path.clone(), source })?;
            tracing::info!(path = %path.display(), "serving local programs");
        }
        Ok(Some(Endpoint(reactor.spawn("tine-ipc")?)))
    }

    /// Stops taking requests, sends the replies there are, and ends. Blocks.
    pub fn stop(self, flush: Duration) {
        self.0.handle().shutdown(flush);
        // A panic was reported by its own hook.
        let _ = self.0.join();
    }
}

/// A path that ends in neither `.sock` nor `.shm` is refused before anything starts.
pub fn check_path(path: &Path) -> Result<(), String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("sock" | "shm") => Ok(()),
        _ => Err("the path must end in .sock (a Unix socket) or .shm (shared memory)".to_owned()),
    }
}
