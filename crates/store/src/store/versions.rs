//! Older versions of forks, and forks made from them.

use std::sync::Arc;

use super::{LOG_WAIT_MAX, Shared, Store, check_name};
use crate::diff::newest_common;
use crate::draft::Draft;
use crate::error::{ForkError, HistoryError, StoreError, WriteError};
use crate::fork::{Fork, Lineage};
use crate::history::VersionAt;
use crate::ids::{DurableTicket, ForkId, Lsn, Version};
use crate::log::{RangeReader, RecordRef, Step};
use crate::options::{Durability, ForkInfo, ForkOptions};
use crate::read::{ApplyError, Published, Snapshot, apply};
use crate::store::table::{Entry, Name, Table};

impl Store {
    /// Makes a fork of the last published version of `parent`. Takes the same time however much it holds.
    ///
    /// # Errors
    /// The name is taken or too long, the parent does not exist, or the store cannot write.
    pub fn fork(&self, parent: ForkId, options: ForkOptions) -> Result<(ForkInfo, DurableTicket), ForkError> {
        let origin = |table: &Table| {
            let fork = &table.get(parent).ok_or(StoreError::NoSuchFork(parent))?.fork;
            Ok(Origin {
                base: fork.published.lock().clone(),
                lineage: Arc::clone(fork.lineage()),
                durable: fork.is_durable(),
            })
        };
        self.fork_of(Some(&origin), options)
    }

    /// Makes a fork of an older version, which stays as it is whatever becomes of its own fork.
    ///
    /// # Errors
    /// As for [`Store::fork`], and if a durable fork is to be made of a version that is not retained any more.
    pub fn fork_from(&self, base: &Snapshot, options: ForkOptions) -> Result<(ForkInfo, DurableTicket), ForkError> {
        let version = base.version();
        let durable = options.durability == Durability::Durable;
        let origin = |table: &Table| {
            let named = || self.0.kept_under_name(version);
            let base = base.published().clone();
            let Some(entry) = table.get(version.fork) else {
                let lineage = named().ok_or(StoreError::NoSuchFork(version.fork))?.lineage;
                return Ok(Origin { base, lineage, durable: true });
            };
            let fork = &entry.fork;
            // What the images and the log have from then on is what a restart finds the version in.
            if durable && fork.is_durable() && version.lsn < fork.history().oldest() && named().is_none() {
                return Err(ForkError::NotRetained { fork: fork.id, oldest: fork.history().oldest() });
            }
            Ok(Origin { base, lineage: Arc::clone(fork.lineage()), durable: fork.is_durable() })
        };
        self.fork_of(Some(&origin), options)
    }

    /// Makes a fork that starts from the empty state, at LSN 0, like the store's first one.
    ///
    /// # Errors
    /// As for [`Store::fork`].
    pub fn fork_empty(&self, options: ForkOptions) -> Result<(ForkInfo, DurableTicket), ForkError> {
        self.fork_of(None, options)
    }

    fn fork_of(
        &self,
        origin: Option<&FindOrigin<'_>>,
        options: ForkOptions,
    ) -> Result<(ForkInfo, DurableTicket), ForkError> {
        let ForkOptions { name, durability, expires_at_micros } = options;
        check_name(&name)?;
        self.0.queue.health()?;
        let created_at_micros = match durability {
            Durability::Durable => self.0.env.now_micros(),
            Durability::Ephemeral => self.0.env.now_micros_coarse(),
        };
        // Between looking whether a name is free and taking it, a record may be logged, for which the table is not held.
        let is_made_at_once = durability == Durability::Ephemeral && name.is_empty();
        let mut admin = (!is_made_at_once).then(|| self.0.admin.lock());
        let mut table = self.0.table.write();
        let id = loop {
            match table.take_id() {
                Some(id) => break id,
                None => drop(table),
            }
            admin = admin.or_else(|| Some(self.0.admin.lock()));
            self.0.reserve_fork_ids()?;
            table = self.0.table.write();
        };
        table.check_free(&name)?;
        let (mut durability, mut line, mut head) = (durability, None, None);
        if let Some(origin) = origin {
            let Origin { base, lineage, durable } = origin(&table)?;
            if !durable {
                durability = Durability::Ephemeral;
            }
            line = Some((lineage, base.lsn));
            head = Some(base);
        }
        let mut head = head.unwrap_or_else(|| Published::empty(&self.0.pages, DurableTicket::NONE));
        let parent = line.as_ref().map(|(origin, lsn)| Version { fork: origin.fork(), lsn: *lsn });
        let mut ticket = DurableTicket::NONE;
        if durability == Durability::Durable {
            // Nothing waits with the table held, and with `admin` held nobody takes the name.
            drop(table);
            let name = &name;
            ticket = self.0.queue.append(&RecordRef::ForkCreated {
                fork: id,
                name,
                created_at_micros,
                parent,
                expires_at_micros,
            })?;
            head.ticket = ticket;
            table = self.0.table.write();
        }
        let head_lsn = head.lsn;
        let fork = Fork::new(id, line, durability, created_at_micros, expires_at_micros, head);
        table.insert(Entry { fork: Arc::new(fork), name: Name::new(&name) });
        let info = ForkInfo { id, name, parent, head: head_lsn, durability, created_at_micros, expires_at_micros };
        Ok((info, ticket))
    }

    /// Drops `replaced` and gives its name to `fork`, in one record: after a crash either both happened or neither.
    ///
    /// Both must be durable, or both ephemeral, or the log would tell half of it.
    ///
    /// # Errors
    /// A fork does not exist, they differ in durability, or the store cannot write.
    pub fn replace_fork(&self, replaced: ForkId, fork: ForkId) -> Result<DurableTicket, ForkError> {
        self.0.queue.health()?;
        let admin = self.0.admin.lock();
        let (old, new) = (self.0.find(replaced)?, self.0.find(fork)?);
        if old.is_durable() != new.is_durable() || replaced == fork {
            return Err(ForkError::CannotReplace { replaced, fork });
        }
        let mut ticket = DurableTicket::NONE;
        {
            let mut dropped = old.dropped.lock();
            if old.is_durable() {
                ticket = self.0.queue.append(&RecordRef::ForkReplaced { fork, replaced })?;
            }
            *dropped = true;
        }
        let entry = {
            let mut table = self.0.table.write();
            let entry = table.remove(replaced).expect("forks are dropped under the admin lock");
            table.rename(fork, entry.name.as_str());
            entry
        };
        drop(admin);
        self.0.close_history(&old);
        // Frees what only this fork held, without a lock.
        drop((entry, old));
        Ok(ticket)
    }

    /// An older version of a fork, or of the forks it was made from: a fork shares its parent's past. Behind the history
    /// only versions with a name are left, which are found by their number.
    ///
    /// Takes under a microsecond for one at hand (see [`StoreOptions::pins_max`](crate::StoreOptions)); any other is
    /// made by applying logged commits to the nearest one before it, a few microseconds each.
    ///
    /// # Errors
    /// It is not retained, there is no such version yet, or the log cannot be read.
    pub fn snapshot_at(&self, id: ForkId, at: VersionAt) -> Result<Snapshot, HistoryError> {
        let asked = self.0.find(id)?;
        let head = asked.published.lock().clone();
        if let VersionAt::Lsn(wanted) = at
            && wanted > head.lsn
        {
            return Err(HistoryError::NoSuchVersion { fork: id, head: head.lsn });
        }
        let mut fork = Arc::clone(&asked);
        let mut oldest = fork.history().oldest();
        loop {
            let head = fork.published.lock().clone();
            if let Some(nearest) = nearest(&fork, &head, at) {
                return self.reach(&fork, nearest, &head, at);
            }
            // As `Shared::oldest` goes: a parent may no longer retain the version that the fork was made from, and if that
            // was the parent's own origin, what is before it is another's.
            let parent = fork.parent().filter(|parent| parent.lsn == oldest);
            let Some(parent) = parent.and_then(|parent| self.0.find(parent.fork).ok()) else {
                if let VersionAt::Lsn(lsn) = at
                    && let Some(named) = self.0.named_at(asked.lineage(), lsn)
                {
                    return Ok(Snapshot::new(named.version, named.state));
                }
                return Err(HistoryError::NotRetained { fork: id, oldest: self.0.oldest(&asked) });
            };
            fork = parent;
            oldest = oldest.min(fork.history().oldest());
        }
    }

    /// The newest version that the histories of two versions have in common: what a merge of one into the other starts
    /// from. It can be read with [`Store::snapshot_at`] of either fork, as far as it is retained. `None` if the two
    /// began apart.
    ///
    /// # Errors
    /// A fork does not exist.
    pub fn common_base(&self, left: Version, right: Version) -> Result<Option<Version>, StoreError> {
        let line = |version: Version| Ok::<_, StoreError>(self.0.find(version.fork)?.lineage().line(version.lsn));
        Ok(newest_common(&line(left)?, &line(right)?))
    }

    /// The oldest LSN of a fork's past that can be asked for; every one from it to the head is retained, except on an
    /// ephemeral fork.
    ///
    /// # Errors
    /// The fork does not exist.
    pub fn oldest_retained(&self, id: ForkId) -> Result<Lsn, StoreError> {
        Ok(self.0.oldest(&*self.0.find(id)?))
    }

    /// Gives up the versions that fell out of the history's window since the last call, with their memory.
    pub fn trim_history(&self) {
        self.0.trim_history();
    }

    /// Brings `state`, a version of `fork`, to the one asked for.
    fn reach(
        &self,
        fork: &Fork,
        mut state: Published,
        head: &Published,
        at: VersionAt,
    ) -> Result<Snapshot, HistoryError> {
        let id = fork.id;
        if state.lsn != head.lsn && at != VersionAt::Lsn(state.lsn) {
            if !fork.is_durable() {
                return Err(HistoryError::NotRetained { fork: id, oldest: head.lsn });
            }
            self.0.replay(id, &mut state, head, at)?;
        }
        Ok(Snapshot::new(Version { fork: id, lsn: state.lsn }, state))
    }
}

/// What a fork is made from.
struct Origin {
    base: Published,
    lineage: Arc<Lineage>,
    durable: bool,
}

/// Finds it, with the table held.
type FindOrigin<'a> = dyn Fn(&Table) -> Result<Origin, ForkError> + 'a;

/// The newest version at hand that is not behind the one asked for.
fn nearest(fork: &Fork, head: &Published, at: VersionAt) -> Option<Published> {
    if at.includes(head.lsn, head.timestamp_micros) { Some(head.clone()) } else { fork.history().nearest(at) }
}

impl Shared {
    /// Applies the commits of a fork that the log has after `state`, up to the version asked for or `head`.
    fn replay(&self, id: ForkId, state: &mut Published, head: &Published, at: VersionAt) -> Result<(), HistoryError> {
        // Records that are still on their way to the disk cannot be read.
        self.queue.wait_durable(head.ticket, LOG_WAIT_MAX)?;
        let first = state.ticket.get() + 1;
        let Some(place) = self.queue.places.at_or_before(first) else { return Ok(()) };
        let mut reader = RangeReader::open(Arc::clone(&self.env), &self.log_directory, place)?;
        let mut scratch = Vec::new();
        let mut draft = Draft::new(Arc::clone(&state.state), false);
        let mut refused: Option<WriteError> = None;
        let result = reader.visit(head.ticket.get(), &mut |sequence, record| {
            let RecordRef::Commit { version, timestamp_micros, operations, .. } = record else {
                return Ok(Step::Continue);
            };
            if version.fork != id || sequence < first {
                return Ok(Step::Continue);
            }
            if !at.includes(version.lsn, timestamp_micros) {
                return Ok(Step::Stop);
            }
            if version.lsn.get() != state.lsn.get() + 1 {
                return Err("a commit does not follow the one before it on its fork");
            }
            apply(&mut draft, operations, &mut scratch).map_err(|error| match error {
                ApplyError::BadRecord => "a record cannot be decoded",
                ApplyError::Write(error) => {
                    refused = Some(error);
                    "a commit cannot be applied"
                }
            })?;
            (state.lsn, state.timestamp_micros) = (version.lsn, timestamp_micros);
            state.ticket = DurableTicket::new(sequence);
            Ok(if at == VersionAt::Lsn(version.lsn) { Step::Stop } else { Step::Continue })
        });
        if let Some(error) = refused {
            return Err(error.into());
        }
        result?;
        state.state = draft.freeze();
        Ok(())
    }

    /// Follows a fork's origins as far back as they are retained.
    fn oldest(&self, fork: &Fork) -> Lsn {
        let mut oldest = fork.history().oldest();
        let mut parent = fork.parent();
        while let Some(version) = parent.filter(|parent| parent.lsn == oldest) {
            let Ok(fork) = self.find(version.fork) else { break };
            oldest = oldest.min(fork.history().oldest());
            parent = fork.parent();
        }
        oldest
    }

    pub(crate) fn trim_history(&self) {
        let forks: Vec<Arc<Fork>> = self.table.read().iter().map(|entry| Arc::clone(&entry.fork)).collect();
        let now_micros = self.env.now_micros();
        let log_start = self.queue.places.sequence_within(self.retention.window_bytes);
        for fork in forks {
            if let Some(history) = fork.known_history() {
                let head = fork.published.lock().clone();
                self.retention.trim(fork.id, history, &head, now_micros, log_start);
            }
        }
        self.pages.arena.trim();
        if let Some(images) = &self.images {
            images.pager.trim(&self.pages.arena);
        }
    }
}
