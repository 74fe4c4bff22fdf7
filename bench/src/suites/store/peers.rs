//! The embedded databases, each as its documentation recommends for one writer without a sync.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use heed::types::Bytes;
use heed::{EnvFlags, EnvOpenOptions};
use redb::{Durability, ReadableDatabase, TableDefinition};

use super::data::{Key, Value};

/// Address space of the LMDB map: several times what the records take.
const LMDB_MAP_BYTES: usize = 4 << 30;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Records per transaction while filling.
const FILL: usize = 100_000;

/// LMDB.
pub struct Lmdb {
    env: heed::Env,
    records: heed::Database<Bytes, Bytes>,
}

impl Lmdb {
    /// A new one with these records.
    pub fn fill(path: &Path, records: impl Iterator<Item = (Key, Value)>) -> anyhow::Result<Lmdb> {
        std::fs::create_dir_all(path)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(LMDB_MAP_BYTES);
        // SAFETY: nobody else opens this new directory, and what a crash of this process leaves there is not read again.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP);
            options.open(path)?
        };
        let mut transaction = env.write_txn()?;
        let database: heed::Database<Bytes, Bytes> = env.create_database(&mut transaction, None)?;
        for (key, value) in records {
            database.put(&mut transaction, &key, &value)?;
        }
        transaction.commit()?;
        Ok(Lmdb { env, records: database })
    }

    /// Runs `work` with a function that says whether a key is there, all in one read transaction.
    pub fn read(&self, work: impl FnOnce(&dyn Fn(&Key) -> bool)) -> anyhow::Result<()> {
        let transaction = self.env.read_txn()?;
        work(&|key| {
            self.records.get(&transaction, key).is_ok_and(|value| value.is_some_and(|value| value.len() == 64))
        });
        Ok(())
    }

    /// One transaction.
    pub fn commit(&self, records: &[(Key, Value)]) -> anyhow::Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in records {
            self.records.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }
}

/// redb.
pub struct Redb(redb::Database);

impl Redb {
    /// A new one with these records.
    pub fn fill(path: &Path, mut records: impl Iterator<Item = (Key, Value)>) -> anyhow::Result<Redb> {
        let redb = Redb(redb::Database::create(path)?);
        loop {
            let batch: Vec<(Key, Value)> = records.by_ref().take(FILL).collect();
            if batch.is_empty() {
                return Ok(redb);
            }
            redb.write(&batch, Durability::Immediate)?;
        }
    }

    /// One transaction.
    pub fn commit(&self, records: &[(Key, Value)]) -> anyhow::Result<()> {
        self.write(records, Durability::None)
    }

    fn write(&self, records: &[(Key, Value)], durability: Durability) -> anyhow::Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in records {
                table.insert(&key[..], &value[..])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Whether a key is there.
    pub fn contains(&self, key: &Key) -> anyhow::Result<bool> {
        Ok(self.0.begin_read()?.open_table(TABLE)?.get(&key[..])?.is_some())
    }
}

/// fjall.
pub struct Fjall {
    records: Keyspace,
    /// Closes with this.
    _database: Database,
}

impl Fjall {
    /// A new one with these records.
    pub fn fill(path: &Path, records: impl Iterator<Item = (Key, Value)>) -> anyhow::Result<Fjall> {
        let database = Database::builder(path).open()?;
        let keyspace = database.keyspace("records", KeyspaceCreateOptions::default)?;
        for (key, value) in records {
            keyspace.insert(key, value)?;
        }
        Ok(Fjall { records: keyspace, _database: database })
    }

    /// One write, which goes to the journal's buffer.
    pub fn commit(&self, (key, value): (Key, Value)) -> anyhow::Result<()> {
        Ok(self.records.insert(key, value)?)
    }
}
