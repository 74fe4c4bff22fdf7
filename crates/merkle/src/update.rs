//! Changing leaves.
//!
//! A change is a sequence of events, each of which gives one leaf a new node; some events are *witnessed*: their path
//! is wanted as it was at their time. All leaves are known beforehand, so the sequence can be worked through level by
//! level instead of event by event. At each level, the value of a node after event `t` depends on its two children
//! after `t`: one that the event changed, and its sibling, as the latest event before left it. So all hashes of a level
//! are independent of one another.
//!
//! Many of them are not needed. Let event `t+1` meet the path of event `t` at level `c`. From there on it overwrites
//! what `t` would have written before anyone reads it; below, each value of `t` is either read as a sibling later or is
//! the last of its node. So event `t` is worked out up to level `c - 1` and no further, and only the last event reaches
//! the root.

use std::collections::HashMap;
use std::sync::Arc;

use tine_store::Read;

use crate::nodes::Nodes;
use crate::{Digest, EMPTY, HashPool, TreeError, TreeHash};

/// One leaf gets a new node.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    pub(crate) index: u64,
    pub(crate) node: Digest,
    pub(crate) is_witnessed: bool,
}

/// What a change needs to know of its tree.
pub(crate) struct Change<'a> {
    pub(crate) hash: &'a Arc<dyn TreeHash>,
    pub(crate) pool: &'a HashPool,
    pub(crate) height: u32,
}

/// The first level at which the two leaves have the same node.
fn meeting_level(a: u64, b: u64) -> u32 {
    u64::BITS - (a ^ b).leading_zeros()
}

impl Change<'_> {
    /// Applies `events`, of which there is at least one, to `nodes`. Returns the new root and the paths of the witnessed
    /// events in their order.
    pub(crate) fn apply(
        &self,
        reader: &impl Read,
        nodes: &mut Nodes<'_>,
        events: &[Event],
    ) -> Result<(Digest, Vec<Vec<Digest>>), TreeError> {
        let count = events.len();
        // Event t has a value at the levels below this.
        let mut levels: Vec<u32> = events.windows(2).map(|pair| meeting_level(pair[0].index, pair[1].index)).collect();
        levels.push(self.height + 1);
        let mut values: Vec<Digest> = events.iter().map(|event| event.node).collect();
        let mut paths: Vec<Vec<Digest>> = vec![Vec::new(); count];
        for (path, event) in paths.iter_mut().zip(events) {
            if event.is_witnessed {
                path.reserve_exact(self.height as usize);
            }
        }
        let mut active: Vec<usize> = (0..count).collect();
        let mut latest: HashMap<u64, Digest> = HashMap::new();
        let mut pairs: Vec<[Digest; 2]> = Vec::new();
        for level in 0..self.height {
            active.retain(|&event| events[event].is_witnessed || levels[event] > level);
            latest.clear();
            pairs.clear();
            for &event in &active {
                let index = events[event].index >> level;
                let sibling = match latest.get(&(index ^ 1)) {
                    Some(node) => *node,
                    None => nodes.get(reader, level, index ^ 1)?,
                };
                if events[event].is_witnessed {
                    paths[event].push(sibling);
                }
                if levels[event] > level {
                    latest.insert(index, values[event]);
                }
                if levels[event] > level + 1 {
                    let own = values[event];
                    pairs.push(if index & 1 == 0 { [own, sibling] } else { [sibling, own] });
                }
            }
            for (index, node) in &latest {
                nodes.set(reader, level, *index, *node)?;
            }
            let parents = self.pool.inner_each(self.hash, &pairs);
            let rising = active.iter().filter(|event| levels[**event] > level + 1);
            for (&event, parent) in rising.zip(parents) {
                values[event] = parent;
            }
        }
        let root = values.last().copied().unwrap_or(EMPTY);
        let paths =
            paths.into_iter().zip(events).filter(|(_, event)| event.is_witnessed).map(|(path, _)| path).collect();
        Ok((root, paths))
    }
}
