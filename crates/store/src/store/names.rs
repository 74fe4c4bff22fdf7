//! Named versions: kept until their name is given up, whatever becomes of their fork, its history and the log.
//!
//! Names are changed with `admin` held, so that what is imaged is as of one moment, and logged before they count.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{FORK_NAME_BYTES_MAX, Store};
use crate::error::NameError;
use crate::fork::Lineage;
use crate::ids::{DurableTicket, Lsn, Version};
use crate::log::RecordRef;
use crate::options::NamedVersion;
use crate::read::{Published, Snapshot};

/// Most named versions of a store: every one keeps pages, and a line in each manifest.
pub const NAMED_VERSIONS_MAX: usize = 4096;

/// The named versions of a store, by name.
pub(crate) type Names = BTreeMap<Arc<str>, Named>;

/// A version that its name keeps.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) version: Version,
    pub(crate) state: Published,
    /// Of its fork, which may be gone.
    pub(crate) lineage: Arc<Lineage>,
}

impl Named {
    /// Whether it is the version that a fork has at `lsn`, be it its own or one of its ancestors'.
    pub(super) fn is_at(&self, lineage: &Lineage, lsn: Lsn) -> bool {
        let owner = |lineage: &Lineage| lineage.line(lsn).first().copied();
        self.version.lsn == lsn && owner(&self.lineage) == owner(lineage)
    }
}

impl Store {
    /// Gives a version a name, unique in the store. It is kept from now on, also across restarts, when it is older than
    /// the history and when its fork is gone, until [`Store::forget_version_name`]. It can be read, and forks be made of it.
    ///
    /// # Errors
    /// The name is taken or too long, there are too many, the version is of an ephemeral fork or not retained any more,
    /// or the store cannot write.
    pub fn name_version(&self, snapshot: &Snapshot, name: &str) -> Result<DurableTicket, NameError> {
        if name.len() > FORK_NAME_BYTES_MAX {
            return Err(NameError::NameTooLong { bytes: name.len(), limit: FORK_NAME_BYTES_MAX });
        }
        self.0.queue.health()?;
        let version = snapshot.version();
        let _admin = self.0.admin.lock();
        let known = self.0.kept_under_name(version);
        let lineage = match (self.0.find(version.fork), known) {
            (Ok(fork), _) if !fork.is_durable() => return Err(NameError::NotDurable(fork.id)),
            (Ok(fork), None) if version.lsn < fork.history().oldest() => {
                return Err(NameError::NotRetained { fork: fork.id, oldest: fork.history().oldest() });
            }
            (Ok(fork), _) => Arc::clone(fork.lineage()),
            (Err(_), Some(known)) => known.lineage,
            (Err(gone), None) => return Err(gone.into()),
        };
        {
            let names = self.0.names.lock();
            if names.contains_key(name) {
                return Err(NameError::Taken(name.to_owned()));
            }
            if names.len() >= NAMED_VERSIONS_MAX {
                return Err(NameError::TooMany { limit: NAMED_VERSIONS_MAX });
            }
        }
        let ticket = self.0.queue.append(&RecordRef::VersionNamed { version, name })?;
        let named = Named { version, state: snapshot.published().clone(), lineage };
        self.0.names.lock().insert(name.into(), named);
        Ok(ticket)
    }

    /// Gives a version's name up. The version is kept only if something else keeps it.
    ///
    /// # Errors
    /// There is no such name, or the store cannot write.
    pub fn forget_version_name(&self, name: &str) -> Result<DurableTicket, NameError> {
        self.0.queue.health()?;
        let _admin = self.0.admin.lock();
        if !self.0.names.lock().contains_key(name) {
            return Err(NameError::NoSuchName(name.to_owned()));
        }
        let ticket = self.0.queue.append(&RecordRef::VersionNameForgotten { name })?;
        // What only the name kept is freed outside of the lock.
        let forgotten = self.0.names.lock().remove(name);
        drop(forgotten);
        Ok(ticket)
    }

    /// All named versions, by name.
    pub fn named_versions(&self) -> Vec<NamedVersion> {
        self.0.names.lock().iter().map(|(name, named)| NamedVersion::of(name, named)).collect()
    }

    /// The version with that name.
    pub fn named_version(&self, name: &str) -> Option<Snapshot> {
        let named = self.0.names.lock().get(name).cloned()?;
        Some(Snapshot::new(named.version, named.state))
    }
}

impl super::Shared {
    /// The entry of a name that keeps a version, if one does.
    pub(super) fn kept_under_name(&self, version: Version) -> Option<Named> {
        self.names.lock().values().find(|named| named.version == version).cloned()
    }

    /// The named version that a fork has at `lsn`, if that has a name.
    pub(super) fn named_at(&self, lineage: &Lineage, lsn: Lsn) -> Option<Named> {
        self.names.lock().values().find(|named| named.is_at(lineage, lsn)).cloned()
    }
}
