//! What happens by itself: forks expire, and versions fall out of the history's window.
//!
//! One thread sleeps until the next fork is due. It may wait for the work that runs on an expiring fork, so it does nothing that
//! others wait for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tine_base::Env;
use tine_store::ForkId;
use tine_types::Identity;

use crate::HostError;
use crate::host::{Host, WeakHost};

/// The longest sleep: a wall clock that jumps, and a host that was dropped, are noticed this soon.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// How often histories are trimmed: they hold a week, so this is soon enough, and it looks at every fork.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// How long after a failure an expired fork is deleted again, in microseconds.
const RETRY_MICROS: i64 = 10_000_000;

/// A fork and when it expires.
type Expiry = (i64, Identity, ForkId);

#[derive(Default)]
struct State {
    /// At most one entry per fork.
    due: BTreeSet<Expiry>,
    stopping: bool,
}

/// See the module documentation.
#[derive(Default)]
pub(crate) struct Housekeeping {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Housekeeping {
    pub fn start(&self, env: &Arc<dyn Env>, host: WeakHost) -> Result<(), HostError> {
        let (state, clock) = (self.state.clone(), env.clone());
        let thread = env
            .spawn("tine-housekeeping", Box::new(move || run(&state, &*clock, &host)))
            .map_err(|source| HostError::Io { action: "starting the housekeeping thread".to_owned(), source })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Has a fork deleted at its time.
    pub fn expire_at(&self, micros: i64, database: Identity, fork: ForkId) {
        let (state, changed) = &*self.state;
        state.lock().due.insert((micros, database, fork));
        changed.notify_one();
    }

    pub fn stop(&self) {
        let (state, changed) = &*self.state;
        state.lock().stopping = true;
        changed.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic was already reported by the thread's own hook.
            let _ = thread.join();
        }
    }
}

fn run(shared: &(Mutex<State>, Condvar), env: &dyn Env, host: &WeakHost) {
    let (state, changed) = shared;
    let mut trimmed_ns = env.monotonic_ns();
    loop {
        let due = {
            let mut state = state.lock();
            if state.stopping {
                return;
            }
            let now = env.now_micros();
            let wait = state.due.first().map_or(SLEEP_MAX, |(micros, ..)| {
                Duration::from_micros(u64::try_from(micros.saturating_sub(now)).unwrap_or(0)).min(SLEEP_MAX)
            });
            if !wait.is_zero() {
                changed.wait_for(&mut state, wait);
            }
            let now = env.now_micros();
            state.due.first().is_some_and(|(micros, ..)| *micros <= now).then(|| state.due.pop_first()).flatten()
        };
        let Some(host) = host.upgrade() else { return };
        if let Some((_, database, fork)) = due
            && let Err(error) = host.expire(database, fork)
        {
            tracing::warn!(database = %database.to_hex(), fork = fork.get(), %error, "an expired fork could not be deleted; trying again");
            state.lock().due.insert((env.now_micros().saturating_add(RETRY_MICROS), database, fork));
        }
        host.weigh_histories();
        if env.monotonic_ns().saturating_sub(trimmed_ns) >= TRIM_EVERY.as_nanos() as u64 {
            trimmed_ns = env.monotonic_ns();
            host.trim_histories();
        }
    }
}

impl Host {
    /// Deletes a fork whose time is over. Connections do not extend it.
    fn expire(&self, database: Identity, fork: ForkId) -> Result<(), HostError> {
        let Some(database) = self.database_of(database) else { return Ok(()) };
        let _one_at_a_time = self.changing();
        let Some(info) = database.store.fork_info(fork) else { return Ok(()) };
        if database.is_main(fork) {
            return Ok(());
        }
        database.delete_fork(fork)?;
        self.fork_removed(&database, fork);
        self.metrics().forks_expired.add(1);
        tracing::info!(fork = %database.address(&info.name), "the fork has expired");
        Ok(())
    }

    fn weigh_histories(&self) {
        let (mut pins, mut bytes) = (0, 0);
        for database in self.all_databases() {
            let stats = database.store.stats();
            pins += stats.pins;
            bytes += stats.pin_bytes;
        }
        let as_gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics().history_pins.set(as_gauge(pins));
        self.metrics().history_pin_bytes.set(as_gauge(bytes));
    }

    fn trim_histories(&self) {
        for database in self.all_databases() {
            database.store.trim_history();
        }
    }
}
