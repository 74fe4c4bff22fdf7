//! An audit log: entries are appended to a Merkle tree in a store, and whoever keeps only the root can check later that
//! an entry is in the log, and that the log was not rewritten.
//!
//! Run with `cargo run -p tine-merkle --example audit_log`.

use std::sync::Arc;

use tine_base::SystemEnv;
use tine_merkle::{AppendTree, Digest, HashPool, Keyspaces, Proof, Sha256, TreeHash};
use tine_store::{ForkId, KeyspaceId, Store, StoreOptions};

const HEIGHT: u32 = 32;
const TREE: Keyspaces = Keyspaces { nodes: KeyspaceId::new(1), keys: KeyspaceId::new(2), leaves: KeyspaceId::new(3) };
/// The entries themselves, by index.
const ENTRIES: KeyspaceId = KeyspaceId::new(4);

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(StoreOptions::new(directory.path()), Arc::new(SystemEnv))?;
    let tree = AppendTree::new(HEIGHT, TREE, Arc::new(Sha256), Arc::new(HashPool::inline()));

    // The keeper of the log appends entries, each in a transaction with its leaf.
    let mut writer = store.writer(ForkId::MAIN)?;
    let mut published = None;
    for (index, entry) in ["alice opened the vault", "bob took 3 coins", "alice closed the vault"].iter().enumerate() {
        writer.put(ENTRIES, &(index as u64).to_be_bytes(), entry.as_bytes())?;
        published = Some(tree.append(&mut writer, &[leaf(entry)])?);
        writer.commit(&[])?;
    }
    let state = published.expect("there are entries");
    println!("the keeper publishes the root of {} entries", state.size);

    // The auditor keeps the root and asks for an entry with its proof.
    let proof: Proof = tree.prove(&writer, 1)?.expect("there is an entry");
    assert_eq!(proof.leaf, leaf("bob took 3 coins"));
    proof.verify(&Sha256, HEIGHT, &state.root)?;
    println!("entry 1 is in the log");

    // A rewritten entry has another leaf, whose path leads elsewhere.
    let forged = Proof { leaf: leaf("bob took 1 coin"), ..proof };
    let refused = forged.verify(&Sha256, HEIGHT, &state.root).expect_err("it is not in the log");
    println!("a forged entry is refused: {refused}");
    Ok(())
}
