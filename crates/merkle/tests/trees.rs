//! Trees against a model that hashes every node of every state, with each hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tine_base::SystemEnv;
use tine_merkle::{
    AppendTree, Blake3, Digest, EMPTY, HashPool, IndexedKind, IndexedLeaf, IndexedTree, Insertion, Keyspaces,
    Poseidon2, ProofError, Sha256, TreeError, TreeHash, Witness, root_of,
};
use tine_store::{ForkId, KeyspaceId, Store, StoreOptions, Writer};

const KEYSPACES: Keyspaces =
    Keyspaces { nodes: KeyspaceId::new(1), keys: KeyspaceId::new(2), leaves: KeyspaceId::new(3) };

/// High enough for two records on a path, low enough to hash all of.
const HEIGHT: u32 = 6;

fn hashes() -> [Arc<dyn TreeHash>; 3] {
    [Arc::new(Sha256), Arc::new(Blake3), Arc::new(Poseidon2::new(7))]
}

fn pool() -> Arc<HashPool> {
    let spawn = |name: &str, body| std::thread::Builder::new().name(name.to_owned()).spawn(body);
    Arc::new(HashPool::start(1, &spawn).unwrap())
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv)).unwrap();
    (directory, store)
}

fn word(value: u64) -> Digest {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}

/// All nodes of a tree with these leaves, level by level.
fn levels(hash: &dyn TreeHash, leaves: &[Digest]) -> Vec<Vec<Digest>> {
    let mut level = leaves.to_vec();
    level.resize(1 << HEIGHT, EMPTY);
    let mut levels = vec![level];
    while levels.last().unwrap().len() > 1 {
        let below = levels.last().unwrap();
        levels.push(below.chunks(2).map(|pair| hash.inner(&pair[0], &pair[1])).collect());
    }
    levels
}

fn path(levels: &[Vec<Digest>], index: usize) -> Vec<Digest> {
    (0..HEIGHT as usize).map(|level| levels[level][(index >> level) ^ 1]).collect()
}

/// The leaves of an indexed tree as a list, changed as its documentation says.
#[derive(Clone)]
struct Model {
    kind: IndexedKind,
    leaves: Vec<Option<IndexedLeaf>>,
}

impl Model {
    fn nodes(&self, hash: &dyn TreeHash) -> Vec<Digest> {
        self.leaves.iter().map(|leaf| leaf.as_ref().map_or(EMPTY, |leaf| self.kind.node(hash, leaf))).collect()
    }

    fn low(&self, key: &Digest) -> usize {
        let below = self.leaves.iter().enumerate().filter_map(|(index, leaf)| Some((index, leaf.as_ref()?)));
        below.filter(|(_, leaf)| leaf.key <= *key).max_by_key(|(_, leaf)| leaf.key).unwrap().0
    }

    fn witness(&self, hash: &dyn TreeHash, index: usize) -> Witness {
        let leaf = self.leaves.get(index).copied().flatten().unwrap_or_default();
        Witness { leaf, index: index as u64, path: path(&levels(hash, &self.nodes(hash)), index) }
    }

    /// Relinks the low leaf or replaces its value. Returns the new leaf, if any.
    fn relink(&mut self, low: usize, entry: &Insertion, slot: usize) -> Option<IndexedLeaf> {
        let leaf = self.leaves[low].as_mut().unwrap();
        if leaf.key == entry.key {
            leaf.value = entry.value;
            return None;
        }
        let new = IndexedLeaf { key: entry.key, value: entry.value, ..*leaf };
        (leaf.next_index, leaf.next_key) = (slot as u64, entry.key);
        Some(new)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Each(Vec<(u64, u64)>),
    Batch(Vec<(u64, u64)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let entries = || proptest::collection::vec((0u64..24, 0u64..3), 0..9);
    proptest::collection::vec(prop_oneof![entries().prop_map(Step::Each), entries().prop_map(Step::Batch)], 1..8)
}

fn check_indexed(hash: &Arc<dyn TreeHash>, kind: IndexedKind, steps: &[Step]) {
    let (_directory, store) = store();
    let mut writer = store.writer(ForkId::MAIN).unwrap();
    let tree = IndexedTree::new(kind, HEIGHT, KEYSPACES, Arc::clone(hash), pool());
    tree.initialize(&mut writer, &[Insertion::default(), Insertion { key: word(1), value: EMPTY }]).unwrap();
    let linked = |key, next_index, next_key| Some(IndexedLeaf { key, value: EMPTY, next_index, next_key });
    let mut model = Model { kind, leaves: vec![linked(word(0), 1, word(1)), linked(word(1), 0, EMPTY)] };
    writer.commit(&[]).unwrap();
    for step in steps {
        let before = model.clone();
        let (is_batch, entries) = match step {
            Step::Each(entries) => (false, entries),
            Step::Batch(entries) => (true, entries),
        };
        let value = |value| if kind == IndexedKind::Map { word(value) } else { EMPTY };
        let entries: Vec<Insertion> =
            entries.iter().map(|(key, number)| Insertion { key: word(*key), value: value(*number) }).collect();
        let held = if is_batch {
            check_batch(hash, &tree, &mut writer, &mut model, &entries)
        } else {
            check_each(hash, &tree, &mut writer, &mut model, &entries)
        };
        if held {
            writer.commit(&[]).unwrap();
        } else {
            writer.rollback();
            model = before;
        }
        let all = levels(&**hash, &model.nodes(&**hash));
        let state = tree.state(&writer).unwrap();
        assert_eq!((state.size, state.root), (model.leaves.len() as u64, all[HEIGHT as usize][0]));
        check_proofs(hash, &tree, &writer, &model, &all);
    }
}

fn check_each(
    hash: &Arc<dyn TreeHash>,
    tree: &IndexedTree,
    writer: &mut Writer,
    model: &mut Model,
    entries: &[Insertion],
) -> bool {
    let result = tree.insert_each(writer, entries, true);
    let mut witnesses = Vec::new();
    for entry in entries.iter().filter(|entry| **entry != Insertion::default()) {
        let low = model.low(&entry.key);
        let is_present = model.leaves[low].unwrap().key == entry.key;
        if is_present && model.kind == IndexedKind::Set {
            assert!(matches!(result, Err(TreeError::AlreadyPresent { key }) if key == entry.key));
            return false;
        }
        if !is_present && model.leaves.len() == 1 << HEIGHT {
            assert!(matches!(result, Err(TreeError::Full { .. })));
            return false;
        }
        let low_witness = model.witness(&**hash, low);
        let slot = model.leaves.len();
        let new = model.relink(low, entry, slot);
        let slot_witness = new.map(|leaf| {
            let witness = model.witness(&**hash, slot);
            model.leaves.push(Some(leaf));
            witness
        });
        witnesses.push((low_witness, slot_witness));
    }
    let result = result.unwrap();
    assert_eq!(result.low_leaves.into_iter().zip(result.slots).collect::<Vec<_>>(), witnesses);
    true
}

fn check_batch(
    hash: &Arc<dyn TreeHash>,
    tree: &IndexedTree,
    writer: &mut Writer,
    model: &mut Model,
    entries: &[Insertion],
) -> bool {
    let result = tree.insert_batch(writer, entries, true);
    let start = model.leaves.len();
    if start + entries.len() > 1 << HEIGHT {
        assert!(matches!(result, Err(TreeError::Full { .. })));
        return false;
    }
    let mut sorted: Vec<(Insertion, usize)> = entries.iter().copied().zip(0..).collect();
    sorted.sort_by(|(a, at), (b, bt)| b.key.cmp(&a.key).then(at.cmp(bt)));
    let padding = Insertion::default();
    if sorted.windows(2).any(|pair| pair[0].0.key == pair[1].0.key && (pair[0].0 != padding || pair[1].0 != padding)) {
        assert!(matches!(result, Err(TreeError::DuplicateKey { .. })));
        return false;
    }
    let mut low_leaves = Vec::new();
    let mut new_leaves = vec![None; entries.len()];
    for (entry, position) in &sorted {
        if *entry == padding {
            low_leaves.push(None);
            continue;
        }
        let low = model.low(&entry.key);
        if model.kind == IndexedKind::Set && model.leaves[low].unwrap().key == entry.key {
            assert!(matches!(result, Err(TreeError::AlreadyPresent { key }) if key == entry.key));
            return false;
        }
        low_leaves.push(Some(model.witness(&**hash, low)));
        new_leaves[*position] = model.relink(low, entry, start + position);
    }
    let before_leaves = levels(&**hash, &model.nodes(&**hash));
    model.leaves.extend(new_leaves);
    let result = result.unwrap();
    assert_eq!(result.low_leaves, low_leaves);
    assert_eq!(result.sorted, sorted);
    assert_eq!(result.path, path(&before_leaves, start & ((1 << HEIGHT) - 1)));
    true
}

fn check_proofs(hash: &Arc<dyn TreeHash>, tree: &IndexedTree, writer: &Writer, model: &Model, all: &[Vec<Digest>]) {
    let root = all[HEIGHT as usize][0];
    for index in 0..model.leaves.len() {
        assert_eq!(tree.leaf(writer, index as u64).unwrap(), model.leaves[index]);
        assert_eq!(tree.path(writer, index as u64).unwrap(), path(all, index));
    }
    let present: BTreeMap<Digest, usize> =
        model.leaves.iter().enumerate().filter_map(|(index, leaf)| Some((leaf.as_ref()?.key, index))).collect();
    for key in (0..26).map(word) {
        assert_eq!(tree.index_of(writer, &key).unwrap(), present.get(&key).map(|index| *index as u64));
        let mut proof = tree.prove(writer, &key).unwrap();
        assert_eq!(proof.verify(&**hash, model.kind, HEIGHT, &root, &key), Ok(present.contains_key(&key)));
        proof.path[3][31] ^= 1;
        assert_eq!(proof.verify(&**hash, model.kind, HEIGHT, &root, &key), Err(ProofError::WrongRoot));
    }
    let proof = tree.prove(writer, &word(3)).unwrap();
    assert_eq!(proof.verify(&**hash, model.kind, HEIGHT + 1, &root, &word(3)), Err(ProofError::WrongHeight));
    let elsewhere = word(1 << 40);
    if proof.leaf.next_index != 0 {
        assert_eq!(proof.verify(&**hash, model.kind, HEIGHT, &root, &elsewhere), Err(ProofError::WrongLeaf));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn indexed_trees_are_what_the_model_says(steps in steps()) {
        for hash in hashes() {
            for kind in [IndexedKind::Set, IndexedKind::Map] {
                check_indexed(&hash, kind, &steps);
            }
        }
    }

    #[test]
    fn append_trees_are_what_the_model_says(batches in proptest::collection::vec(proptest::collection::vec(0u64..5, 0..20), 1..6)) {
        for hash in hashes() {
            let (_directory, store) = store();
            let mut writer = store.writer(ForkId::MAIN).unwrap();
            let tree = AppendTree::new(HEIGHT, KEYSPACES, Arc::clone(&hash), pool());
            let mut leaves: Vec<Digest> = Vec::new();
            for batch in &batches {
                let batch: Vec<Digest> = batch.iter().map(|value| word(*value)).collect();
                let result = tree.append(&mut writer, &batch);
                if leaves.len() + batch.len() > 1 << HEIGHT {
                    let is_full = matches!(result, Err(TreeError::Full { .. }));
                    prop_assert!(is_full);
                    continue;
                }
                leaves.extend(batch);
                let all = levels(&*hash, &leaves);
                prop_assert_eq!(result.unwrap().root, all[HEIGHT as usize][0]);
                for index in 0..1usize << HEIGHT {
                    prop_assert_eq!(tree.path(&writer, index as u64).unwrap(), path(&all, index));
                    let proof = tree.prove(&writer, index as u64).unwrap();
                    prop_assert_eq!(proof.is_some(), index < leaves.len());
                    if let Some(proof) = proof {
                        prop_assert_eq!(proof.verify(&*hash, HEIGHT, &all[HEIGHT as usize][0]), Ok(()));
                        prop_assert_eq!(root_of(&*hash, &leaves[index], proof.index, &proof.path), all[HEIGHT as usize][0]);
                    }
                }
                for value in 0..6 {
                    let first = leaves.iter().position(|leaf| *leaf == word(value) && value != 0);
                    prop_assert_eq!(tree.index_of(&writer, &word(value)).unwrap(), first.map(|index| index as u64));
                }
            }
        }
    }
}

/// A change that needs many hashes at a level is shared with the pool's thread, and comes out the same.
#[test]
fn large_changes_are_hashed_by_several_threads() {
    let hash: Arc<dyn TreeHash> = Arc::new(Poseidon2::new(7));
    let leaves: Vec<Digest> = (1..700).map(word).collect();
    let roots = [pool(), Arc::new(HashPool::inline())].map(|pool| {
        let (_directory, store) = store();
        let mut writer = store.writer(ForkId::MAIN).unwrap();
        let tree = AppendTree::new(20, KEYSPACES, Arc::clone(&hash), pool);
        tree.append(&mut writer, &leaves).unwrap()
    });
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn words_that_are_no_field_elements_are_refused() {
    let (_directory, store) = store();
    let mut writer = store.writer(ForkId::MAIN).unwrap();
    let hash: Arc<dyn TreeHash> = Arc::new(Poseidon2::new(7));
    let tree = AppendTree::new(HEIGHT, KEYSPACES, hash, pool());
    assert!(matches!(tree.append(&mut writer, &[word(1), [0xff; 32]]), Err(TreeError::BadWord { .. })));
    assert_eq!(tree.state(&writer).unwrap().size, 0);
}
