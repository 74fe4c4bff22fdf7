//! What differs between two versions, and joining two lines of history.
//!
//! A diff skips what the versions share, so it costs what changed. A merge takes each change that one side made since
//! the common base and looks what the other side did to that key: nothing, the same, or something else, and that is a
//! conflict. Conflicts are data: nothing is applied while any is undecided. Merging knows records only. Whoever keeps
//! indexes in keyspaces of their own merges the rows with [`merge_changes`] and derives the rest from them: two indexes
//! merged on their own could agree with no set of rows.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use crate::error::{Fault, MergeError};
use crate::ids::{KeyspaceId, Version};
use crate::overlay::{Overlay, OverlayCursor};
use crate::read::{Read, Snapshot, StateRef, ValueRef};
use crate::tree::{TreeDiff, TreeDifference, TreeRoot};
use crate::writer::{Change, Writer};

/// Conflicts that a merge collects before it gives up looking for more.
pub const CONFLICTS_MAX: usize = 10_000;

/// A key whose values differ between two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value in the version that was asked.
    pub old: Option<&'a [u8]>,
    /// Its value in the version it was compared with.
    pub new: Option<&'a [u8]>,
}

/// The differences of two versions of a keyspace in key order; see [`Snapshot::diff`].
pub struct Diff<'a> {
    keyspace: KeyspaceId,
    old: StateRef<'a>,
    new: StateRef<'a>,
    /// `None` until the first step, and if the trees are the same.
    trees: Option<TreeDiff<'a>>,
    /// A difference of the trees that comes later.
    pending: Option<TreeDifference<'a>>,
    /// Keys about which the trees do not say everything.
    old_overlaid: Option<OverlayCursor<'a>>,
    new_overlaid: Option<OverlayCursor<'a>>,
    fault: Option<Fault>,
}

impl Snapshot {
    /// What changed in a keyspace from this version to another of the same store. Skips what the two share, wherever they
    /// come from. Versions of different stores share nothing that could be compared by name; compare them with cursors.
    ///
    /// # Panics
    /// If the versions are of different stores.
    pub fn diff<'a>(&'a self, to: &'a Snapshot, keyspace: KeyspaceId) -> Diff<'a> {
        let (old, new) = (&self.published().state, &to.published().state);
        assert!(std::sync::Arc::ptr_eq(old.pages(), new.pages()), "versions of one store are compared");
        let (old, new) = (StateRef::of_version(old), StateRef::of_version(new));
        let root = |state: StateRef<'_>| state.tree(keyspace).unwrap_or_default();
        let (trees, fault) = match open_trees(old, root(old), root(new)) {
            Ok(trees) => (trees, None),
            Err(fault) => (None, Some(fault)),
        };
        let cursor = |overlay: Option<&'a Overlay>| {
            overlay.map(|overlay| overlay.cursor(keyspace, Bound::Unbounded, Bound::Unbounded, false))
        };
        let same = match (old.overlay, new.overlay) {
            (Some(left), Some(right)) => std::ptr::eq(left, right),
            _ => false,
        };
        let (old_overlaid, new_overlaid) =
            if same && trees.is_none() { (None, None) } else { (cursor(old.overlay), cursor(new.overlay)) };
        Diff { keyspace, old, new, trees, pending: None, old_overlaid, new_overlaid, fault }
    }

    /// The keyspaces in which this version and another of the same store may differ, in order.
    pub fn changed_keyspaces(&self, to: &Snapshot) -> Vec<KeyspaceId> {
        let (old, new) = (&self.published().state, &to.published().state);
        let (old, new) = (StateRef::of_version(old), StateRef::of_version(new));
        let named = |state: StateRef<'_>| {
            let overlaid = state.overlay.into_iter().flat_map(Overlay::keyspaces);
            state.trees.iter().map(|(keyspace, _)| *keyspace).chain(overlaid).collect::<Vec<_>>()
        };
        let mut keyspaces = named(old);
        keyspaces.extend(named(new));
        keyspaces.sort_unstable();
        keyspaces.dedup();
        keyspaces.retain(|keyspace| {
            let overlaid = [old, new].iter().any(|state| {
                state.overlay.is_some_and(|overlay| overlay.keyspaces().any(|overlaid| overlaid == *keyspace))
            });
            overlaid || old.tree(*keyspace) != new.tree(*keyspace)
        });
        keyspaces
    }
}

fn open_trees(state: StateRef<'_>, old: TreeRoot, new: TreeRoot) -> Result<Option<TreeDiff<'_>>, Fault> {
    if old.page == new.page { Ok(None) } else { TreeDiff::new(state.arena, old, new).map(Some) }
}

impl<'a> Diff<'a> {
    /// The next difference; `None` at the end.
    ///
    /// # Errors
    /// [`Fault`] if a state cannot be reached.
    #[allow(clippy::should_implement_trait)] // As for `Cursor`.
    pub fn next(&mut self) -> Result<Option<Difference<'a>>, Fault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        loop {
            if self.pending.is_none()
                && let Some(trees) = &mut self.trees
            {
                self.pending = trees.next()?;
            }
            let Some(overlaid) = self.next_overlaid() else {
                return Ok(self.pending.take().map(|(key, old, new)| Difference { key, old, new }));
            };
            let order = self.pending.map_or(Ordering::Greater, |(key, _, _)| key.cmp(overlaid));
            if order == Ordering::Less {
                return Ok(self.pending.take().map(|(key, old, new)| Difference { key, old, new }));
            }
            if order == Ordering::Equal {
                self.pending = None;
            }
            self.pass_overlaid(overlaid);
            let old = self.old.get(self.keyspace, overlaid)?.map(ValueRef::as_slice);
            let new = self.new.get(self.keyspace, overlaid)?.map(ValueRef::as_slice);
            if old != new {
                return Ok(Some(Difference { key: overlaid, old, new }));
            }
        }
    }

    /// The next key that either overlay has.
    fn next_overlaid(&self) -> Option<&'a [u8]> {
        let peek = |cursor: &Option<OverlayCursor<'a>>| cursor.as_ref()?.peek().map(|(key, _)| key);
        match (peek(&self.old_overlaid), peek(&self.new_overlaid)) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        }
    }

    fn pass_overlaid(&mut self, key: &[u8]) {
        for cursor in [&mut self.old_overlaid, &mut self.new_overlaid].into_iter().flatten() {
            if cursor.peek().is_some_and(|(at, _)| at == key) {
                cursor.advance();
            }
        }
    }
}

/// A key that both sides of a merge changed, each to something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: Bytes,
    /// Its value in the common base.
    pub base: Option<Bytes>,
    /// Its value where the merge goes to.
    pub ours: Option<Bytes>,
    /// Its value where the merge comes from.
    pub theirs: Option<Bytes>,
}

/// What to do about a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Nothing: it is reported, and nothing of the merge is applied.
    Undecided,
    /// Keep our value, or its absence.
    Ours,
    /// Take theirs.
    Theirs,
    /// Set another value.
    Value(Bytes),
}

/// Decides conflicts. Any function of a [`Conflict`] to a [`Resolution`] is one.
pub trait MergePolicy {
    /// What to do about one.
    fn resolve(&mut self, conflict: &Conflict) -> Resolution;
}

impl<F: FnMut(&Conflict) -> Resolution> MergePolicy for F {
    fn resolve(&mut self, conflict: &Conflict) -> Resolution {
        self(conflict)
    }
}

/// The changes that bring to `ours` what was done from `base` to `theirs` in some keyspaces, in order of keyspace and key.
/// Nothing is applied. Changes that `ours` has already are left out.
///
/// # Errors
/// There are undecided conflicts, or a state cannot be reached.
///
/// # Panics
/// If `base` and `theirs` are of different stores.
pub fn merge_changes(
    ours: &dyn Read,
    base: &Snapshot,
    theirs: &Snapshot,
    keyspaces: &[KeyspaceId],
    policy: &mut dyn MergePolicy,
) -> Result<Vec<Change>, MergeError> {
    let mut changes = Vec::new();
    let mut conflicts = Vec::new();
    for keyspace in keyspaces {
        let mut diff = base.diff(theirs, *keyspace);
        while let Some(difference) = diff.next()? {
            let present = ours.get(*keyspace, difference.key)?.map(ValueRef::as_slice);
            if present == difference.new {
                continue;
            }
            let copied = |value: Option<&[u8]>| value.map(Bytes::copy_from_slice);
            let key = Bytes::copy_from_slice(difference.key);
            let (old, theirs) = (copied(present), copied(difference.new));
            let new = if present == difference.old {
                theirs
            } else {
                let (base, ours) = (copied(difference.old), old.clone());
                let conflict = Conflict { keyspace: *keyspace, key: key.clone(), base, ours, theirs };
                match policy.resolve(&conflict) {
                    Resolution::Ours => continue,
                    Resolution::Theirs => conflict.theirs,
                    Resolution::Value(value) => Some(value),
                    Resolution::Undecided => {
                        conflicts.push(conflict);
                        if conflicts.len() == CONFLICTS_MAX {
                            return Err(MergeError::Conflicts(conflicts));
                        }
                        continue;
                    }
                }
            };
            if old != new {
                changes.push(Change { keyspace: *keyspace, key, old, new });
            }
        }
    }
    if conflicts.is_empty() { Ok(changes) } else { Err(MergeError::Conflicts(conflicts)) }
}

impl Writer {
    /// Applies to the open transaction what was done from `base` to `theirs` in every keyspace, and returns what that
    /// changed. The caller commits. Whoever keeps indexes in keyspaces of their own uses [`merge_changes`] instead.
    ///
    /// # Errors
    /// There are undecided conflicts, a state cannot be reached, or a write was refused. Nothing was applied.
    ///
    /// # Panics
    /// As [`merge_changes`].
    pub fn merge(
        &mut self,
        base: &Snapshot,
        theirs: &Snapshot,
        policy: &mut dyn MergePolicy,
    ) -> Result<Vec<Change>, MergeError> {
        let keyspaces = base.changed_keyspaces(theirs);
        let changes = merge_changes(self, base, theirs, &keyspaces, policy)?;
        let savepoint = self.savepoint();
        for change in &changes {
            let written = match &change.new {
                Some(value) => self.put(change.keyspace, &change.key, value),
                None => self.delete(change.keyspace, &change.key),
            };
            if let Err(error) = written {
                self.rollback_to(savepoint);
                return Err(error.into());
            }
        }
        Ok(changes)
    }
}

/// Where two lines of history, each from its version back to the beginning, part: the newest version that both have.
pub(crate) fn newest_common(left: &[Version], right: &[Version]) -> Option<Version> {
    left.iter().find_map(|version| {
        let other = right.iter().find(|other| other.fork == version.fork)?;
        Some(Version { fork: version.fork, lsn: version.lsn.min(other.lsn) })
    })
}
