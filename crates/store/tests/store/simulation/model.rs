//! What a store should be: one map per version, and what was true after every record of the log.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use tine_store::{CheckpointId, Direction, Fault, ForkId, KeyspaceId, Lsn, Read, Version};

pub use crate::support::State;

/// Keyspaces that are written to.
pub const KEYSPACES: std::ops::Range<u32> = 16..18;

/// A fork as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub name: String,
    pub parent: Option<Version>,
    pub head: Lsn,
    pub state: Arc<State>,
}

/// The durable forks, and the numbers given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    pub forks: BTreeMap<ForkId, Logged>,
    pub names: BTreeMap<String, (Version, Arc<State>)>,
    pub next_keyspace: u32,
}

/// A fork as its writer and its readers see it.
pub struct Line {
    pub name: String,
    pub durable: bool,
    pub parent: Option<Version>,
    pub committed: Arc<State>,
    pub head: Lsn,
    pub published: Arc<State>,
    pub published_lsn: Lsn,
    pub timestamp_micros: i64,
    pub checkpoints: Vec<(CheckpointId, Arc<State>)>,
}

#[derive(Default)]
pub struct Model {
    pub lines: BTreeMap<ForkId, Line>,
    pub names: BTreeMap<String, (Version, Arc<State>)>,
    /// By the number of the record after which it was so, from the newest confirmed one on.
    worlds: BTreeMap<u64, World>,
    /// Of forks that are gone, too: others begin with them.
    versions: BTreeMap<Version, Arc<State>>,
    pub next_keyspace: u32,
    /// Everything up to this record was reported durable.
    pub confirmed: u64,
    /// The record that the last opening ended with.
    pub opened: u64,
    /// The greatest fork number there ever was.
    pub last_fork: ForkId,
}

impl Line {
    pub fn begin(name: String, durable: bool, parent: Option<Version>, state: Arc<State>, head: Lsn) -> Line {
        Line {
            name,
            durable,
            parent,
            committed: Arc::clone(&state),
            head,
            published: state,
            published_lsn: head,
            timestamp_micros: 0,
            checkpoints: Vec::new(),
        }
    }

    pub fn publish(&mut self) {
        self.published = Arc::clone(&self.committed);
        self.published_lsn = self.head;
    }
}

impl Model {
    /// Notes that a record was handed to the log, and what is true after it.
    pub fn logged(&mut self, ticket: u64) {
        let durable = self.lines.iter().filter(|(_, line)| line.durable);
        let logged = |line: &Line| Logged {
            name: line.name.clone(),
            parent: line.parent,
            head: line.head,
            state: Arc::clone(&line.committed),
        };
        let forks = durable.map(|(id, line)| (*id, logged(line))).collect();
        let names = self.names.clone();
        self.worlds.insert(ticket, World { forks, names, next_keyspace: self.next_keyspace });
    }

    /// Notes that everything up to a record is durable.
    pub fn confirm(&mut self, ticket: u64) {
        assert!(ticket >= self.confirmed, "what is durable stays so");
        self.confirmed = ticket;
        if let Some(oldest) = self.worlds.range(..=ticket).next_back().map(|(ticket, _)| *ticket) {
            self.worlds = self.worlds.split_off(&oldest);
        }
    }

    pub fn committed(&mut self, fork: ForkId, lsn: Lsn, timestamp_micros: i64, state: State) -> Result<(), String> {
        let line = self.lines.get_mut(&fork).expect("it has a writer");
        if lsn.get() != line.head.get() + 1 || timestamp_micros <= line.timestamp_micros {
            return Err(format!("{fork} went from {} to {lsn} at {timestamp_micros}", line.head));
        }
        let state = Arc::new(state);
        (line.head, line.timestamp_micros, line.committed) = (lsn, timestamp_micros, Arc::clone(&state));
        self.versions.insert(Version { fork, lsn }, state);
        Ok(())
    }

    pub fn add(&mut self, fork: ForkId, line: Line) -> Result<(), String> {
        if fork <= self.last_fork {
            return Err(format!("{fork} is not above {}, which was used", self.last_fork));
        }
        self.last_fork = fork;
        self.versions.insert(Version { fork, lsn: line.head }, Arc::clone(&line.committed));
        self.lines.insert(fork, line);
        Ok(())
    }

    /// The content of a version of a fork's past, which may be one of its ancestors'.
    pub fn version(&self, fork: ForkId, lsn: Lsn) -> Option<&Arc<State>> {
        let mut fork = fork;
        loop {
            if let Some(state) = self.versions.get(&Version { fork, lsn }) {
                return Some(state);
            }
            fork = self.lines.get(&fork)?.parent?.fork;
        }
    }

    /// The store was opened with everything up to a record, and nothing else.
    pub fn rewind(&mut self, recovered: u64) -> Result<World, String> {
        if recovered < self.confirmed {
            return Err(format!("record {} was confirmed, {recovered} is the last one there", self.confirmed));
        }
        let world = self.worlds.range(..=recovered).next_back().map(|(_, world)| world.clone()).unwrap_or_default();
        self.worlds = BTreeMap::from([(recovered, world.clone())]);
        self.next_keyspace = world.next_keyspace;
        self.names = world.names.clone();
        let mut lines = std::mem::take(&mut self.lines);
        for (id, logged) in &world.forks {
            let Logged { name, parent, head, state } = logged.clone();
            // Commit times must go on above those that survived, which are at most those before.
            let known = lines.remove(id).filter(|line| line.head == head).map_or(0, |line| line.timestamp_micros);
            let line = Line { timestamp_micros: known, ..Line::begin(name, true, parent, state, head) };
            self.lines.insert(*id, line);
        }
        let lines = &self.lines;
        self.versions.retain(|version, _| lines.get(&version.fork).is_none_or(|line| version.lsn <= line.head));
        Ok(world)
    }
}

/// Everything in the keyspaces that are written to, forwards, backwards and by key.
pub fn read_state(reader: &impl Read) -> Result<State, Fault> {
    let mut state = State::new();
    for number in KEYSPACES {
        let keyspace = KeyspaceId::new(number);
        let mut backwards = State::new();
        for (direction, into) in [(Direction::Forward, &mut state), (Direction::Reverse, &mut backwards)] {
            let mut cursor = reader.range(keyspace, Bound::Unbounded, Bound::Unbounded, direction);
            while let Some((key, value)) = cursor.next()? {
                into.insert((number, key.to_vec()), value.to_vec());
            }
        }
        assert_eq!(backwards.len() as u64, reader.len(keyspace));
        for ((_, key), value) in &backwards {
            assert_eq!(state.get(&(number, key.clone())), Some(value));
            assert_eq!(reader.get(keyspace, key)?.as_deref(), Some(&**value));
        }
    }
    Ok(state)
}
