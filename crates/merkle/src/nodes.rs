//! Nodes in the store, four levels to a record.
//!
//! Group `(g, i)` holds the nodes of levels 4g to 4g+3 below node `i` of level 4g+4: sixteen, eight, four and two of
//! them. Its record is four counts, one per level from the lowest, and then as many nodes of each level from the left:
//! trees fill from the left, so what is missing is at the right, and it is empty. The key is the group's level and its
//! position, big-endian and without leading zeros behind a length, so that short keys stay in order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tine_store::{KeyspaceId, Read};

use crate::{Digest, EMPTY, TreeError, TreeWrite};

/// Levels of nodes in one record.
pub(crate) const GROUP_LEVELS: u32 = 4;

const GROUP_NODES: usize = 30;
/// Where the nodes of each level of a group start in memory.
const STARTS: [usize; GROUP_LEVELS as usize] = [0, 16, 24, 28];

/// The place of a node inside its group.
struct Place {
    group: u8,
    position: u64,
    /// Level inside the group.
    level: usize,
    slot: usize,
}

impl Place {
    fn of(level: u32, index: u64) -> Place {
        let inside = level % GROUP_LEVELS;
        let below = GROUP_LEVELS - inside;
        Place {
            group: (level / GROUP_LEVELS) as u8,
            position: index >> below,
            level: inside as usize,
            slot: (index & ((1 << below) - 1)) as usize,
        }
    }
}

/// The key of a group: at most ten bytes.
fn key(group: u8, position: u64) -> ([u8; 10], usize) {
    let mut key = [0; 10];
    let digits = position.to_be_bytes();
    let zeros = position.leading_zeros() as usize / 8;
    let length = 8 - zeros;
    key[0] = group;
    key[1] = length as u8;
    key[2..2 + length].copy_from_slice(&digits[zeros..]);
    (key, 2 + length)
}

/// A group as it is stored.
pub(crate) struct GroupRef<'a> {
    counts: [u8; GROUP_LEVELS as usize],
    nodes: &'a [Digest],
}

impl<'a> GroupRef<'a> {
    fn decode(bytes: &'a [u8]) -> Result<GroupRef<'a>, TreeError> {
        let damaged = TreeError::Damaged("the nodes do not fit their counts");
        let Some((counts, nodes)) = bytes.split_first_chunk() else { return Err(damaged) };
        let (nodes, rest) = nodes.as_chunks::<32>();
        let total: usize = counts.iter().map(|count| usize::from(*count)).sum();
        let fits = counts.iter().zip([16, 8, 4, 2]).all(|(count, most)| *count <= most);
        if !rest.is_empty() || nodes.len() != total || !fits {
            return Err(damaged);
        }
        Ok(GroupRef { counts: *counts, nodes })
    }

    /// The group that holds nodes of `level`; `None` if nothing of it is stored.
    pub(crate) fn read(
        reader: &'a impl Read,
        keyspace: KeyspaceId,
        level: u32,
        index: u64,
    ) -> Result<Option<GroupRef<'a>>, TreeError> {
        let place = Place::of(level, index);
        let (key, length) = key(place.group, place.position);
        reader.get(keyspace, &key[..length])?.map(|bytes| GroupRef::decode(bytes.as_slice())).transpose()
    }

    /// A node of the group, which is the one that `level` and `index` are in.
    pub(crate) fn node(&self, level: u32, index: u64) -> Option<&'a Digest> {
        let place = Place::of(level, index);
        let start: usize = self.counts[..place.level].iter().map(|count| usize::from(*count)).sum();
        (place.slot < usize::from(self.counts[place.level])).then(|| &self.nodes[start + place.slot])
    }
}

struct Group {
    counts: [u8; GROUP_LEVELS as usize],
    nodes: Box<[Digest; GROUP_NODES]>,
    is_changed: bool,
}

impl Group {
    fn load(stored: Option<GroupRef<'_>>) -> Group {
        let mut group =
            Group { counts: [0; GROUP_LEVELS as usize], nodes: Box::new([EMPTY; GROUP_NODES]), is_changed: false };
        if let Some(stored) = stored {
            group.counts = stored.counts;
            let mut rest = stored.nodes;
            for (start, count) in STARTS.into_iter().zip(stored.counts) {
                let (level, above) = rest.split_at(usize::from(count));
                group.nodes[start..start + level.len()].copy_from_slice(level);
                rest = above;
            }
        }
        group
    }

    fn encode(&self, record: &mut Vec<u8>) {
        record.clear();
        record.extend_from_slice(&self.counts);
        for (start, count) in STARTS.into_iter().zip(self.counts) {
            record.extend_from_slice(self.nodes[start..start + usize::from(count)].as_flattened());
        }
    }
}

/// The groups that one change of a tree touches.
pub(crate) struct Nodes<'t> {
    keyspace: KeyspaceId,
    /// The empty subtrees by height.
    empty: &'t [Digest],
    groups: HashMap<(u8, u64), Group>,
}

impl<'t> Nodes<'t> {
    pub(crate) fn new(keyspace: KeyspaceId, empty: &'t [Digest]) -> Nodes<'t> {
        Nodes { keyspace, empty, groups: HashMap::new() }
    }

    fn group(&mut self, reader: &impl Read, level: u32, index: u64) -> Result<&mut Group, TreeError> {
        let place = Place::of(level, index);
        Ok(match self.groups.entry((place.group, place.position)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Group::load(GroupRef::read(reader, self.keyspace, level, index)?)),
        })
    }

    pub(crate) fn get(&mut self, reader: &impl Read, level: u32, index: u64) -> Result<Digest, TreeError> {
        let empty = self.empty[level as usize];
        let place = Place::of(level, index);
        let group = self.group(reader, level, index)?;
        let is_there = place.slot < usize::from(group.counts[place.level]);
        Ok(if is_there { group.nodes[STARTS[place.level] + place.slot] } else { empty })
    }

    /// Sets a node. Those between the last one of its level and this one, if any, become empty ones.
    pub(crate) fn set(&mut self, reader: &impl Read, level: u32, index: u64, node: Digest) -> Result<(), TreeError> {
        let empty = self.empty[level as usize];
        let place = Place::of(level, index);
        let group = self.group(reader, level, index)?;
        let start = STARTS[place.level];
        for slot in usize::from(group.counts[place.level])..place.slot {
            group.nodes[start + slot] = empty;
        }
        group.counts[place.level] = group.counts[place.level].max(place.slot as u8 + 1);
        group.nodes[start + place.slot] = node;
        group.is_changed = true;
        Ok(())
    }

    /// Writes what changed.
    pub(crate) fn write(self, writer: &mut impl TreeWrite) -> Result<(), TreeError> {
        let mut changed: Vec<((u8, u64), Group)> =
            self.groups.into_iter().filter(|(_, group)| group.is_changed).collect();
        // In key order, neighbours share the pages they lie on.
        changed.sort_unstable_by_key(|(place, _)| *place);
        let mut record = Vec::new();
        for ((group, position), nodes) in changed {
            nodes.encode(&mut record);
            let (key, length) = key(group, position);
            writer.put(self.keyspace, &key[..length], &record)?;
        }
        Ok(())
    }
}
