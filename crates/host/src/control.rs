//! The control store: which databases exist, what they are called and who owns them. Itself a store, so it has the same log,
//! recovery and poisoning as any database.
//!
//! Format of a row (BSATN), keyed by the database's identity: `u8` version, owner, array of names, creation time in microseconds,
//! whether the database is locked. Version 1 had an option of one name, and no lock; it is still read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tine_base::Env;
use tine_store::{
    Direction, ForkId, ImagePlace, KeyspaceId, LogRecord, LogRecordKind, Operation, Read, Store, StoreOptions, Writer,
};
use tine_types::Identity;
use tine_types::bsatn::{BsatnWrite, DecodeError, Reader};

use crate::HostError;

const DATABASES: KeyspaceId = KeyspaceId::new(1);
const ROW_VERSION: u8 = 2;
const ROW_VERSION_ONE_NAME: u8 = 1;

/// Names of one database; nobody needs more than a few, and each is looked at on every change of names.
pub(crate) const NAMES_MAX: usize = 64;

/// How long a change of the control store may take to reach stable storage before the request fails.
const DURABLE_WITHIN: Duration = Duration::from_secs(30);

/// What the control store keeps of a database.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseRow {
    pub identity: Identity,
    pub owner: Identity,
    /// The first is the one it is shown by.
    pub names: Vec<Arc<str>>,
    pub created_micros: i64,
    /// Refuses to be deleted and to start over.
    pub locked: bool,
}

/// Length of a name in BSATN.
const NAME_SIZE_MIN: usize = 4;

impl DatabaseRow {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![ROW_VERSION];
        out.put_identity(&self.owner);
        out.put_len(self.names.len());
        self.names.iter().for_each(|name| out.put_str(name));
        out.put_i64(self.created_micros);
        out.put_bool(self.locked);
        out
    }

    fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(value);
        let version = reader.u8()?;
        if version != ROW_VERSION && version != ROW_VERSION_ONE_NAME {
            return Err(DecodeError::InvalidTag { position: 0, tag: version });
        }
        let owner = reader.identity()?;
        let count = match version {
            ROW_VERSION_ONE_NAME => usize::from(reader.option()?),
            _ => reader.array_len(NAME_SIZE_MIN)?,
        };
        let names = (0..count).map(|_| Ok(reader.str()?.into())).collect::<Result<_, DecodeError>>()?;
        let row = DatabaseRow {
            identity: Reader::new(key).identity()?,
            owner,
            names,
            created_micros: reader.i64()?,
            locked: version == ROW_VERSION && reader.bool()?,
        };
        reader.finish()?;
        Ok(row)
    }
}

/// A database that the control store's log tells of.
#[derive(Clone, Debug)]
pub struct RecordedDatabase {
    /// Its identity.
    pub identity: Identity,
    /// The name it is shown by, if it has one.
    pub name: Option<Arc<str>>,
    /// Its folder, from the data directory.
    pub folder: PathBuf,
}

/// The databases that a part of the control store's log tells of, in the order of their identities. For
/// tools that look at a data directory without opening it, while a server has it open or not.
///
/// # Errors
/// [`HostError::Damaged`] for a row that cannot be decoded.
pub fn recorded_databases(records: impl Iterator<Item = LogRecord>) -> Result<Vec<RecordedDatabase>, HostError> {
    let mut rows = BTreeMap::new();
    for record in records {
        let LogRecordKind::Commit { version, operations, .. } = record.kind else { continue };
        let of_rows = |operation: &Operation| version.fork == ForkId::MAIN && operation.keyspace == DATABASES;
        for operation in operations.into_iter().filter(of_rows) {
            match operation.value {
                Some(value) => rows.insert(operation.key, value),
                None => rows.remove(&operation.key),
            };
        }
    }
    let decode = |(key, value): (&bytes::Bytes, &bytes::Bytes)| {
        let row = DatabaseRow::decode(key, value).map_err(|_| HostError::Damaged("database row"))?;
        let folder = Path::new("databases").join(row.identity.to_hex());
        Ok(RecordedDatabase { identity: row.identity, name: row.names.into_iter().next(), folder })
    };
    rows.iter().map(decode).collect()
}

pub(crate) struct Control {
    store: Store,
    writer: Writer,
}

impl Control {
    /// Opens the store and reads all rows.
    pub fn open(directory: std::path::PathBuf, env: Arc<dyn Env>) -> Result<(Self, Vec<DatabaseRow>), HostError> {
        // Small, and tools read it as a log from its first record on: nothing of it may ever be left to images.
        let options = StoreOptions { images: ImagePlace::Nowhere, ..StoreOptions::new(directory) };
        let store = Store::open(options, env)?;
        let main = store.fork_named(crate::names::MAIN).unwrap_or(ForkId::MAIN);
        let writer = store.writer(main)?;
        let mut rows = Vec::new();
        let mut cursor =
            writer.range(DATABASES, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, Direction::Forward);
        while let Some((key, value)) = cursor.next().map_err(|fault| HostError::Table(fault.into()))? {
            rows.push(DatabaseRow::decode(key, value).map_err(|_| HostError::Damaged("database row"))?);
        }
        drop(cursor);
        Ok((Control { store, writer }, rows))
    }

    /// Adds or replaces a row; durable when this returns.
    pub fn put(&mut self, row: &DatabaseRow) -> Result<(), HostError> {
        let put = self.writer.put(DATABASES, row.identity.as_le_bytes(), &row.encode());
        self.finish(put.map(drop))
    }

    /// Removes a row; durable when this returns.
    pub fn remove(&mut self, identity: Identity) -> Result<(), HostError> {
        let deleted = self.writer.delete(DATABASES, identity.as_le_bytes());
        self.finish(deleted.map(drop))
    }

    fn finish(&mut self, edit: Result<(), tine_store::WriteError>) -> Result<(), HostError> {
        let committed = edit.and_then(|()| self.writer.commit(&[]));
        let commit = match committed {
            Ok(commit) => commit,
            Err(error) => {
                self.writer.rollback();
                return Err(HostError::Table(error.into()));
            }
        };
        self.writer.publish();
        Ok(self.store.wait_durable(commit.durable, DURABLE_WITHIN)?)
    }

    pub fn health(&self) -> Result<(), HostError> {
        Ok(self.store.health()?)
    }

    pub fn close(&self) -> Result<(), HostError> {
        Ok(self.store.close()?)
    }
}
