//! A pool of hardened worker processes.
//!
//! Code that is not contained by an engine runs in processes of its own, which can do nothing but compute and answer: no files, no
//! sockets, no processes, a bounded heap, and a death whenever the server wants. A request costs a few microseconds, a worker that is
//! needed at once some tens, a worker that misbehaves its own requests and nothing else.
//!
//! ```no_run
//! use std::time::Duration;
//! use tine_sandbox::{CallOptions, Entry, PoolOptions, Sandbox, SandboxOptions, WorkerKey};
//!
//! let echo = |start: tine_sandbox::Start| {
//!     start.harden().serve(|request| {
//!         let bytes = request.bytes();
//!         request.write(bytes).map_err(|full| tine_sandbox::Rejected(full.to_string()))
//!     })
//! };
//! tine_sandbox::init(&[Entry::new("echo", echo)]);
//! let sandbox = Sandbox::start(SandboxOptions::default())?;
//! let pool = sandbox.pool(PoolOptions::new("echo"))?;
//! let reply = pool.key(WorkerKey(1)).call_blocking(CallOptions::new(5, 5), |request| request.write(b"hello"))?;
//! assert_eq!(reply.bytes, b"hello");
//! sandbox.shut_down(Duration::from_secs(5))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! [`Sandbox::start`] executes the program once more, as a *zygote*: one thread, little memory, nothing of the server's. The zygote
//! gives up what it can (namespaces, capabilities, files) and forks workers on demand, which harden themselves further and report
//! ready. A *pool* keeps spares that belong to nobody, and gives one to a *key* when its first request comes; the worker then works
//! for that key until its end. However many callers come first, one worker is started.
//!
//! Requests travel through memory shared with the worker ([`tine_base::slots`]), each in a slot of its own: a caller that goes away
//! leaves a slot behind that is free again once the worker is done with it, and nobody else notices. A request is written only when
//! it has a slot, so the bytes in flight are bounded by the shared memory. One thread, the *supervisor*, watches deadlines for all,
//! kills, and reaps through pidfds; callers never wait for a process.
//!
//! # Blame
//!
//! When a worker dies, the request it had begun is answered with [`CallError::Died`]; requests it had not begun are innocent, and are
//! tried again by themselves, each alone in a new worker. [`CallError::Rejected`] is the worker's own word that the input is wrong.
//!
//! # Invariants
//!
//! - Nothing of a worker is trusted after its first request: what it writes is read once, copied, and then checked.
//! - A worker serves one key and never another.
//! - No caller blocks a thread, other than in the forms that say so.
//! - Every child is reaped by this crate; [`Sandbox::shut_down`] returns when all are. They die with the server, however it ends.

mod call;
mod entry;
mod epoll;
mod error;
mod harden;
mod key;
mod launcher;
mod level;
mod log;
mod metrics;
mod pool;
mod process;
mod sandbox;
mod schedule;
mod supervisor;
mod tickets;
mod wire;
mod worker;
mod zygote;

pub use tine_base::slots::{BadShape, Shape};

pub use call::{Abort, Call, CallOptions, Keyed, Reply, RequestWriter};
pub use entry::{Entry, Never, init};
pub use error::{CallError, Death, KillCause, LaunchError, StartError, StillRunning};
pub use level::{Level, Probe};
pub use metrics::{Counted, HISTOGRAM_BUCKETS, Histogram, Metrics};
pub use pool::{Completions, Driver, LogLine, LogSink, Pool, PoolOptions, WorkerKey, WorkerState};
pub use process::{Usage, WorkerId};
pub use sandbox::{Sandbox, SandboxOptions};
pub use worker::{Rejected, ReplyFull, Request, Start, Unattended, Worker};
