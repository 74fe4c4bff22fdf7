//! An audit log: entries are appended to a Merkle tree in a store, and whoever keeps only roots can check later that an
//! entry is in the log, that the log was not rewritten since, and that somebody has no entry at all.
//!
//! Run with `cargo run -p tine-merkle --example audit_log`.

use std::sync::Arc;

use tine_base::SystemEnv;
use tine_merkle::{
    AppendTree, Digest, EMPTY, HashPool, IndexedKind, IndexedTree, Insertion, Keyspaces, Proof, Sha256, TreeHash,
    TreeState, root_of,
};
use tine_store::{ForkId, KeyspaceId, Store, StoreOptions, Writer};

const HEIGHT: u32 = 32;
const LOG: Keyspaces = Keyspaces { nodes: KeyspaceId::new(1), keys: KeyspaceId::new(2), leaves: KeyspaceId::new(3) };
const NAMES: Keyspaces = Keyspaces { nodes: KeyspaceId::new(4), keys: KeyspaceId::new(5), leaves: KeyspaceId::new(6) };
/// The entries themselves, by index.
const ENTRIES: KeyspaceId = KeyspaceId::new(7);

const BEFORE: [(&str, &str); 3] =
    [("alice", "opened the vault"), ("bob", "took 3 coins"), ("alice", "closed the vault")];
const AFTER: [(&str, &str); 2] = [("carol", "opened the vault"), ("carol", "took 1 coin")];

/// Who keeps the log: the list of entries, and the set of those who have any.
struct Keeper {
    log: AppendTree,
    names: IndexedTree,
    writer: Writer,
}

/// The leaf of an entry of any length: words of 32 bytes, the last one padded, and the length.
fn leaf(entry: &str) -> Digest {
    let mut words: Vec<Digest> = entry
        .as_bytes()
        .chunks(32)
        .map(|chunk| {
            let mut word = [0; 32];
            word[..chunk.len()].copy_from_slice(chunk);
            word
        })
        .collect();
    let mut length = [0; 32];
    length[24..].copy_from_slice(&(entry.len() as u64).to_be_bytes());
    words.push(length);
    Sha256.leaf(&words)
}

/// A name as a key.
fn name_key(name: &str) -> Digest {
    Sha256.leaf(&[leaf(name)])
}

impl Keeper {
    /// Appends entries, each in one transaction with its name. Returns what is published: the states of both trees.
    fn append(&mut self, entries: &[(&str, &str)]) -> Result<[TreeState; 2], Box<dyn std::error::Error>> {
        for (name, deed) in entries {
            let entry = format!("{name} {deed}");
            let index = self.log.state(&self.writer)?.size;
            self.writer.put(ENTRIES, &index.to_be_bytes(), entry.as_bytes())?;
            self.log.append(&mut self.writer, &[leaf(&entry)])?;
            let key = name_key(name);
            if self.names.index_of(&self.writer, &key)?.is_none() {
                self.names.insert_each(&mut self.writer, &[Insertion { key, value: EMPTY }], false)?;
            }
            self.writer.commit(&[])?;
        }
        self.writer.publish();
        Ok([self.log.state(&self.writer)?, self.names.state(&self.writer)?])
    }
}

/// Whether two states of a list have the same leaves up to the size of the first. Shown by the path of the first index
/// beyond them in both: what is left of it is the same, and in the first nothing is right of it.
fn is_extended(before: (&TreeState, &[Digest]), after: (&TreeState, &[Digest], &Digest)) -> bool {
    let size = before.0.size;
    let mut empty = EMPTY;
    for (level, (old, new)) in before.1.iter().zip(after.1).enumerate() {
        let is_left = size >> level & 1 == 1;
        let holds = if is_left { old == new } else { *old == empty };
        if !holds {
            return false;
        }
        empty = Sha256.inner(&empty, &empty);
    }
    let (before_root, after_root) =
        (root_of(&Sha256, &EMPTY, size, before.1), root_of(&Sha256, after.2, size, after.1));
    [before.1.len(), after.1.len()] == [HEIGHT as usize; 2]
        && before_root == before.0.root
        && after_root == after.0.root
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv))?;
    let pool = Arc::new(HashPool::inline());
    let mut writer = store.writer(ForkId::MAIN)?;
    let names = IndexedTree::new(IndexedKind::Set, HEIGHT, NAMES, Arc::new(Sha256), Arc::clone(&pool));
    names.initialize(&mut writer, &[Insertion::default()])?;
    let mut keeper = Keeper { log: AppendTree::new(HEIGHT, LOG, Arc::new(Sha256), pool), names, writer };

    let [log, names] = keeper.append(&BEFORE)?;
    println!("the keeper publishes the root of {} entries", log.size);

    // The auditor keeps the roots and asks for an entry with its proof.
    let proof: Proof = keeper.log.prove(&keeper.writer, 1)?.expect("there is an entry");
    assert_eq!(proof.leaf, leaf("bob took 3 coins"));
    proof.verify(&Sha256, HEIGHT, &log.root)?;
    println!("entry 1 is in the log");

    // A rewritten entry has another leaf, whose path leads elsewhere.
    let forged = Proof { leaf: leaf("bob took 1 coin"), ..proof };
    let refused = forged.verify(&Sha256, HEIGHT, &log.root).expect_err("it is not in the log");
    println!("a forged entry is refused: {refused}");

    // A name is in the set, or its neighbours in the order of the keys show that it is not.
    for (name, is_there) in [("bob", true), ("mallory", false)] {
        let key = name_key(name);
        let proof = keeper.names.prove(&keeper.writer, &key)?;
        assert_eq!(proof.verify(&Sha256, IndexedKind::Set, HEIGHT, &names.root, &key), Ok(is_there));
        println!("{name} has {} in the log", if is_there { "entries" } else { "no entry" });
    }

    // The log goes on, and the auditor checks that it is the same one. A version of the store stays what it was.
    let version = store.snapshot(ForkId::MAIN)?;
    let [longer, _] = keeper.append(&AFTER)?;
    let path_before = keeper.log.path(&version, log.size)?;
    let next = keeper.log.prove(&keeper.writer, log.size)?.expect("the log went on");
    assert!(is_extended((&log, &path_before), (&longer, &next.path, &next.leaf)));
    println!("the log of {} entries begins with those {}", longer.size, log.size);
    let rewritten = TreeState { root: name_key("rewritten"), ..longer };
    assert!(!is_extended((&log, &path_before), (&rewritten, &next.path, &next.leaf)));
    Ok(())
}

#[test]
fn the_log_is_audited() {
    main().expect("every proof holds");
}
