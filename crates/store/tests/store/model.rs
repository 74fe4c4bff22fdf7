//! Random operations on several forks against one map per fork, with every snapshot taken along the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tine_base::SystemEnv;
use tine_store::{CheckpointId, Durability, ForkId, KeyspaceId, Read, Savepoint, Snapshot, Store, Writer};

use crate::support::{State, assert_equals_log, content, fork_options, open};

#[derive(Clone, Debug)]
enum Step {
    Put { fork: usize, keyspace: u32, key: Vec<u8>, value: Vec<u8> },
    Delete { fork: usize, keyspace: u32, key: Vec<u8> },
    Savepoint { fork: usize },
    RollbackTo { fork: usize },
    Rollback { fork: usize },
    Commit { fork: usize },
    Publish { fork: usize },
    Release { fork: usize },
    Fork { parent: usize, durable: bool },
    Rename { fork: usize },
    Drop { fork: usize },
    Keep { fork: usize },
    Begin { fork: usize },
    CommitCheckpoint { fork: usize, depth: usize },
    Revert { fork: usize, depth: usize },
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..40, prop_oneof![9 => Just(0_usize), 1 => Just(300)]).prop_map(|(number, padding)| {
        let mut key = vec![number];
        key.resize(1 + padding, number);
        key
    })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..4, prop_oneof![12 => Just(5_usize), 4 => 0_usize..200, 1 => 1000_usize..3000])
        .prop_map(|(byte, length)| vec![byte; length])
}

fn step() -> impl Strategy<Value = Step> {
    let fork = 0_usize..6;
    prop_oneof![
        40 => (fork.clone(), 16_u32..18, key(), value())
            .prop_map(|(fork, keyspace, key, value)| Step::Put { fork, keyspace, key, value }),
        15 => (fork.clone(), 16_u32..18, key()).prop_map(|(fork, keyspace, key)| Step::Delete { fork, keyspace, key }),
        4 => fork.clone().prop_map(|fork| Step::Savepoint { fork }),
        4 => fork.clone().prop_map(|fork| Step::RollbackTo { fork }),
        2 => fork.clone().prop_map(|fork| Step::Rollback { fork }),
        15 => fork.clone().prop_map(|fork| Step::Commit { fork }),
        6 => fork.clone().prop_map(|fork| Step::Publish { fork }),
        3 => fork.clone().prop_map(|fork| Step::Release { fork }),
        6 => (fork.clone(), any::<bool>()).prop_map(|(parent, durable)| Step::Fork { parent, durable }),
        1 => fork.clone().prop_map(|fork| Step::Rename { fork }),
        3 => fork.clone().prop_map(|fork| Step::Drop { fork }),
        4 => fork.clone().prop_map(|fork| Step::Keep { fork }),
        5 => fork.clone().prop_map(|fork| Step::Begin { fork }),
        3 => (fork.clone(), 0_usize..3).prop_map(|(fork, depth)| Step::CommitCheckpoint { fork, depth }),
        4 => (fork, 0_usize..3).prop_map(|(fork, depth)| Step::Revert { fork, depth }),
        1 => Just(Step::Reopen),
    ]
}

/// What a fork should be.
struct Model {
    name: String,
    durable: bool,
    working: State,
    committed: State,
    published: State,
    lsn: u64,
    published_lsn: u64,
    timestamp_micros: i64,
    /// Writes of the transaction that changed something.
    writes: usize,
    savepoints: Vec<(Savepoint, State, usize)>,
    checkpoints: Vec<(CheckpointId, State)>,
}

struct World {
    directory: tempfile::TempDir,
    store: Store,
    writers: BTreeMap<ForkId, Writer>,
    forks: BTreeMap<ForkId, Model>,
    kept: Vec<(Snapshot, State)>,
    names: u64,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = open(directory.path()).expect("open");
        let main = Model {
            name: "main".to_owned(),
            durable: true,
            working: State::new(),
            committed: State::new(),
            published: State::new(),
            lsn: 0,
            published_lsn: 0,
            timestamp_micros: 0,
            writes: 0,
            savepoints: Vec::new(),
            checkpoints: Vec::new(),
        };
        let forks = BTreeMap::from([(ForkId::MAIN, main)]);
        World { directory, store, writers: BTreeMap::new(), forks, kept: Vec::new(), names: 0 }
    }

    fn pick(&self, index: usize) -> Option<ForkId> {
        self.forks.keys().nth(index % self.forks.len().max(1)).copied()
    }

    fn with(&mut self, index: usize, act: impl FnOnce(&mut Writer, &mut Model)) {
        let Some(id) = self.pick(index) else { return };
        let store = &self.store;
        let writer = self.writers.entry(id).or_insert_with(|| store.writer(id).expect("writer"));
        let model = self.forks.get_mut(&id).expect("picked from the forks");
        act(writer, model);
        assert_eq!(writer.version().lsn.get(), model.lsn);
        assert_eq!(writer.has_changes(), model.writes > 0);
    }

    fn check_pages(&self) {
        if let Err(detail) = self.store.check_pages() {
            panic!("{detail}");
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Put { fork, keyspace, key, value } => self.with(fork, |writer, model| {
                let existed = writer.put(KeyspaceId::new(keyspace), &key, &value).expect("put");
                let old = model.working.insert((keyspace, key), value.clone());
                assert_eq!(existed, old.is_some());
                model.writes += usize::from(old.as_ref() != Some(&value));
            }),
            Step::Delete { fork, keyspace, key } => self.with(fork, |writer, model| {
                let existed = writer.delete(KeyspaceId::new(keyspace), &key).expect("delete");
                assert_eq!(existed, model.working.remove(&(keyspace, key)).is_some());
                model.writes += usize::from(existed);
            }),
            Step::Savepoint { fork } => self.with(fork, |writer, model| {
                model.savepoints.push((writer.savepoint(), model.working.clone(), model.writes));
            }),
            Step::RollbackTo { fork } => self.with(fork, |writer, model| {
                if let Some((savepoint, state, writes)) = model.savepoints.pop() {
                    writer.rollback_to(savepoint);
                    (model.working, model.writes) = (state, writes);
                    assert!(content(writer) == model.working);
                }
            }),
            Step::Rollback { fork } => self.with(fork, |writer, model| {
                writer.rollback();
                model.end(false);
            }),
            Step::Commit { fork } => self.with(fork, commit),
            Step::Publish { fork } => self.with(fork, |writer, model| {
                if model.writes == 0 {
                    writer.publish();
                    model.publish();
                }
            }),
            Step::Release { fork } => self.release(fork),
            Step::Fork { parent, durable } => self.fork(parent, durable),
            Step::Rename { fork } => self.rename(fork),
            Step::Drop { fork } => self.drop_fork(fork),
            Step::Keep { fork } => {
                if let Some(id) = self.pick(fork) {
                    let snapshot = self.store.snapshot(id).expect("snapshot");
                    assert_eq!(snapshot.version().lsn.get(), self.forks[&id].published_lsn);
                    self.kept.push((snapshot, self.forks[&id].published.clone()));
                }
            }
            Step::Begin { fork } => self.with(fork, |writer, model| {
                commit_open(writer, model);
                model.checkpoints.push((writer.begin_checkpoint().expect("begin"), model.committed.clone()));
            }),
            Step::CommitCheckpoint { fork, depth } => self.with(fork, |writer, model| {
                commit_open(writer, model);
                if depth < model.checkpoints.len() {
                    writer.commit_checkpoint(model.checkpoints[depth].0).expect("open");
                    model.checkpoints.truncate(depth);
                }
            }),
            Step::Revert { fork, depth } => self.with(fork, |writer, model| revert(writer, model, depth)),
            Step::Reopen => self.reopen(),
        }
    }

    fn release(&mut self, index: usize) {
        let Some(id) = self.pick(index) else { return };
        if self.writers.remove(&id).is_some() {
            let model = self.forks.get_mut(&id).expect("picked from the forks");
            model.end(false);
            model.publish();
        }
    }

    fn fork(&mut self, parent: usize, durable: bool) {
        let Some(parent) = self.pick(parent) else { return };
        if self.forks.len() >= 6 {
            return;
        }
        self.names += 1;
        let name = format!("fork{}", self.names);
        let durability = if durable { Durability::Durable } else { Durability::Ephemeral };
        let (info, _) = self.store.fork(parent, fork_options(&name, durability)).expect("fork");
        let base = &self.forks[&parent];
        assert_eq!(info.head.get(), base.published_lsn);
        assert!(!self.forks.contains_key(&info.id));
        let model = Model {
            name,
            durable: durable && base.durable,
            working: base.published.clone(),
            committed: base.published.clone(),
            published: base.published.clone(),
            lsn: base.published_lsn,
            published_lsn: base.published_lsn,
            timestamp_micros: 0,
            writes: 0,
            savepoints: Vec::new(),
            checkpoints: Vec::new(),
        };
        assert_eq!(info.durability == Durability::Durable, model.durable);
        self.forks.insert(info.id, model);
    }

    fn rename(&mut self, index: usize) {
        let Some(id) = self.pick(index) else { return };
        self.names += 1;
        let name = format!("renamed{}", self.names);
        self.store.rename_fork(id, &name).expect("rename");
        assert_eq!(self.store.fork_named(&name), Some(id));
        let model = self.forks.get_mut(&id).expect("picked from the forks");
        assert_eq!(self.store.fork_named(&std::mem::replace(&mut model.name, name)), None);
    }

    fn drop_fork(&mut self, index: usize) {
        let Some(id) = self.pick(index) else { return };
        if self.forks.len() > 1 {
            self.store.drop_fork(id).expect("drop");
            self.store.drop_fork(id).expect("dropping again is fine");
            self.forks.remove(&id);
            self.writers.remove(&id);
            self.store.snapshot(id).expect_err("it is gone");
        }
    }

    fn reopen(&mut self) {
        for index in 0..self.forks.len() {
            self.release(index);
        }
        self.store.close().expect("close");
        self.store = open(self.directory.path()).expect("open");
        self.forks.retain(|_, model| model.durable);
        for model in self.forks.values_mut() {
            model.checkpoints.clear();
        }
        assert_eq!(self.store.recovery_report().truncated_bytes, 0);
        self.check();
    }

    fn check(&self) {
        let infos = self.store.forks();
        assert!(infos.iter().map(|info| info.id).eq(self.forks.keys().copied()));
        for info in infos {
            let model = &self.forks[&info.id];
            assert_eq!(info.name, model.name);
            assert_eq!(info.head.get(), model.published_lsn);
            assert!(content(&self.store.snapshot(info.id).expect("snapshot")) == model.published);
            if let Some(writer) = self.writers.get(&info.id) {
                assert!(content(writer) == model.working);
            }
        }
        for (snapshot, state) in &self.kept {
            assert!(content(snapshot) == *state, "{snapshot:?} changed");
        }
    }
}

impl Model {
    fn end(&mut self, commit: bool) {
        if commit {
            self.committed = self.working.clone();
        } else {
            self.working = self.committed.clone();
        }
        self.writes = 0;
        self.savepoints.clear();
    }

    fn publish(&mut self) {
        self.published = self.committed.clone();
        self.published_lsn = self.lsn;
    }

    fn committed_at(&mut self, lsn: u64, timestamp_micros: i64) {
        assert_eq!(lsn, self.lsn + 1);
        assert!(timestamp_micros > self.timestamp_micros, "commit times strictly increase");
        (self.lsn, self.timestamp_micros) = (lsn, timestamp_micros);
    }
}

fn commit(writer: &mut Writer, model: &mut Model) {
    // A clock that stands still.
    let commit = writer.commit_at(1_000, b"call").expect("commit");
    assert_eq!(commit.changed, model.writes > 0);
    if commit.changed {
        model.committed_at(commit.lsn.get(), commit.timestamp_micros);
    }
    assert_eq!(commit.durable.get() > 0, model.durable);
    model.end(true);
}

/// Checkpoints begin and end between transactions.
fn commit_open(writer: &mut Writer, model: &mut Model) {
    if model.writes > 0 {
        commit(writer, model);
    }
}

fn revert(writer: &mut Writer, model: &mut Model, depth: usize) {
    commit_open(writer, model);
    if depth >= model.checkpoints.len() {
        return;
    }
    let (id, state) = model.checkpoints[depth].clone();
    model.checkpoints.truncate(depth);
    let (commit, changes) = writer.revert_checkpoint(id, b"revert").expect("open");
    assert_eq!(commit.changed, model.committed != state);
    if commit.changed {
        model.committed_at(commit.lsn.get(), commit.timestamp_micros);
    }
    for change in changes {
        let key = (change.keyspace.get(), change.key.to_vec());
        assert_ne!(change.old, change.new);
        assert_eq!(model.committed.get(&key).map(Vec::as_slice), change.old.as_deref());
        match change.new {
            Some(value) => model.committed.insert(key, value.to_vec()),
            None => model.committed.remove(&key),
        };
    }
    assert!(model.committed == state, "the changes lead to the earlier state");
    assert!(content(writer) == state);
    model.working = state;
    model.savepoints.clear();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn forks_behave_as_maps(steps in prop::collection::vec(step(), 1..220)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
            world.check_pages();
        }
        world.check();
        world.reopen();
        assert_equals_log(&world.store, world.directory.path(), Arc::new(SystemEnv));
        // The trees are still sound to write to.
        let ids: Vec<ForkId> = world.forks.keys().copied().collect();
        for id in ids {
            let mut writer = world.store.writer(id).expect("writer");
            for (keyspace, key) in world.forks[&id].committed.keys() {
                prop_assert!(writer.delete(KeyspaceId::new(*keyspace), key).expect("delete"));
            }
            prop_assert!((0..40).all(|keyspace| writer.len(KeyspaceId::new(keyspace)) == 0));
        }
    }
}
