//! What the endpoint knows of a connection: who it is, and which forks it has opened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tine_host::{Actor, ForkHandle, Host, Requester};
use tine_types::Identity;

use super::subscribe::Subscription;

/// Forks that a connection may have open.
const FORKS_MAX: usize = 65_536;

/// Subscriptions that a connection may have.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1_024;

/// A fork that a connection has opened.
#[derive(Clone)]
pub(super) struct OpenFork {
    pub handle: ForkHandle,
    /// The connection made it, and it ends with it.
    pub is_owned: bool,
    /// Requests of the connection to this fork that are not answered.
    pending: Arc<AtomicUsize>,
}

impl OpenFork {
    pub fn new(handle: ForkHandle, is_owned: bool) -> OpenFork {
        OpenFork { handle, is_owned, pending: Arc::default() }
    }

    /// Counts a request until the value is dropped.
    pub fn begin(&self) -> Pending {
        // SYNC: pairs with the subtraction in Pending::drop. Only the reactor's thread adds and looks.
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(self.pending.clone())
    }

    /// Whether earlier requests are still being worked on.
    pub fn is_busy(&self) -> bool {
        // SYNC: a zero means that each reply was handed over, and with it what it shows was published.
        self.pending.load(Ordering::Acquire) > 0
    }
}

/// A request that is not answered yet.
pub(super) struct Pending(Arc<AtomicUsize>);

impl Drop for Pending {
    fn drop(&mut self) {
        // SYNC: pairs with the load in OpenFork::is_busy.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A connection.
pub(super) struct Session {
    /// Whether the program's user is the one that runs the server.
    is_same_user: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who it said to be, with the payload of the token.
    identity: Option<(Identity, Arc<str>)>,
    forks: HashMap<u32, OpenFork>,
    last_fork: u32,
    subscriptions: Vec<Arc<Subscription>>,
}

impl Session {
    pub fn new(is_same_user: bool) -> Session {
        Session { is_same_user, state: Mutex::default() }
    }

    pub fn authenticate(&self, identity: Identity, jwt_payload: Arc<str>) {
        self.state.lock().identity = Some((identity, jwt_payload));
    }

    /// Who calls. A program of the server's user that has not said otherwise is each database's owner.
    pub fn requester(&self, owner: Identity) -> Result<Requester, &'static str> {
        match &self.state.lock().identity {
            Some((identity, payload)) => Ok(Requester { identity: *identity, jwt_payload: Some(payload.clone()) }),
            None if self.is_same_user => Ok(Requester { identity: owner, jwt_payload: None }),
            None => Err("TN0704: another user's program has to authenticate first"),
        }
    }

    /// Who administrates.
    pub fn actor(&self, owner: Identity) -> Result<Actor, &'static str> {
        let requester = self.requester(owner)?;
        let is_admin = self.is_same_user && self.state.lock().identity.is_none();
        Ok(Actor { identity: requester.identity, is_admin })
    }

    /// Refuses rows and checkpoints to all but the owner: they go past the module and its rules.
    pub fn owner(&self, fork: &OpenFork) -> Result<Requester, &'static str> {
        let requester = self.requester(fork.handle.owner())?;
        match requester.identity == fork.handle.owner() {
            true => Ok(requester),
            false => Err("TN0604: only the database's owner reads and writes its rows by key"),
        }
    }

    /// Gives a fork a number.
    pub fn add_fork(&self, fork: OpenFork) -> Result<u32, &'static str> {
        let mut state = self.state.lock();
        if state.forks.len() >= FORKS_MAX {
            return Err("TN0607: too many forks are open on this connection: close some");
        }
        loop {
            state.last_fork = state.last_fork.wrapping_add(1);
            let number = state.last_fork;
            if let Entry::Vacant(place) = state.forks.entry(number) {
                place.insert(fork);
                return Ok(number);
            }
        }
    }

    pub fn fork(&self, number: u32) -> Result<OpenFork, &'static str> {
        self.state
            .lock()
            .forks
            .get(&number)
            .cloned()
            .ok_or("TN0601: no fork with that number is open on this connection")
    }

    pub fn remove_fork(&self, number: u32) -> Option<OpenFork> {
        self.state.lock().forks.remove(&number)
    }

    pub fn add_subscription(&self, subscription: Arc<Subscription>) -> Result<(), &'static str> {
        let mut state = self.state.lock();
        state.subscriptions.retain(|subscription| !subscription.is_over());
        if state.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err("TN0607: too many subscriptions on this connection: cancel some");
        }
        state.subscriptions.push(subscription);
        Ok(())
    }

    /// Ends everything that belongs to the connection. Blocks.
    pub fn end(&self, host: &Host) {
        let State { forks, subscriptions, .. } = std::mem::take(&mut *self.state.lock());
        subscriptions.iter().for_each(|subscription| subscription.end());
        for fork in forks.into_values().filter(|fork| fork.is_owned) {
            drop_fork(host, &fork.handle);
        }
    }
}

/// Drops a fork that its connection owns; whoever dropped it before did no wrong.
pub(super) fn drop_fork(host: &Host, handle: &ForkHandle) {
    let actor = Actor { identity: handle.owner(), is_admin: true };
    if let Err(error) = host.fork_delete(&handle.fork_identity().to_hex(), &actor) {
        tracing::debug!(fork = %handle.fork_identity().to_hex(), %error, "a fork of a local program was gone before it");
    }
}
