//! What programs beside the server may do with a fork besides calling its module: read and write rows by key, and nest checkpoints.
//!
//! Reads are ordered by default (they see every write before them on the lane), or committed: then they look at the newest published
//! version and wait for nobody. Writes are one transaction each, announced to subscribers like any other. Who may do this is decided
//! by whoever lets a program in: it acts as the owner, and sees all tables.

mod read;
mod write;

pub(crate) use read::read;

use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use tine_store::{CheckpointId, ForkInfo, Lsn};
use tine_tables::{TableRead, TableSchema, TableSnapshot};
use tine_types::{AlgebraicType, ProductType};

use crate::client::{ReplyTo, Requester};
use crate::handle::ForkHandle;
use crate::jobs::Job;
use crate::{CallFailure, HostError};

/// Rows that one read returns at most.
pub const LOCAL_ROWS_MAX: usize = 100_000;

/// Bytes of rows after which a read returns what it has.
pub const LOCAL_BYTES_MAX: usize = 16 << 20;

/// How rows and keys are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowForm {
    /// BSATN: a row is the product of its columns, a key the values of the index's columns.
    #[default]
    Bsatn,
    /// JSON text: a row is an object by column, a key an array of values.
    Json,
}

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalBound {
    /// The value of the index column after the prefix.
    pub value: Bytes,
    /// Whether rows with that value belong to the range.
    pub is_included: bool,
}

/// What is read.
#[derive(Clone, Debug)]
pub enum LocalRead {
    /// The rows whose columns of an index, the primary key without one, have the values of `key`.
    Get {
        /// Table.
        table: Box<str>,
        /// Index; `None` for the primary key.
        index: Option<Box<str>>,
        /// Values of all of its columns.
        key: Bytes,
    },
    /// The rows of a table, or those of an index whose first columns have given values and whose next column lies in a range.
    Scan {
        /// Table.
        table: Box<str>,
        /// Index; `None` for the primary key, or for all rows when neither prefix nor bounds are given.
        index: Option<Box<str>>,
        /// Values of the index's first columns; may be empty.
        prefix: Bytes,
        /// Where the range begins.
        lower: Option<LocalBound>,
        /// Where it ends.
        upper: Option<LocalBound>,
        /// Most rows to return.
        limit: usize,
    },
}

/// What is written.
#[derive(Clone, Debug)]
pub enum LocalWrite {
    /// Inserts rows; all or none.
    Insert {
        /// Table.
        table: Box<str>,
        /// The rows; columns with a sequence that hold 0 get the next value.
        rows: Vec<Bytes>,
    },
    /// Deletes rows by the values of an index's columns; all or none.
    Delete {
        /// Table.
        table: Box<str>,
        /// Index; `None` for the primary key.
        index: Option<Box<str>>,
        /// Keys; one that matches no row is no error.
        keys: Vec<Bytes>,
    },
    /// Begins a checkpoint inside of those that are open.
    BeginCheckpoint,
    /// Ends a checkpoint, and those inside of it, and keeps what was written.
    CommitCheckpoint(CheckpointId),
    /// Ends a checkpoint, and those inside of it, and brings back the state at its beginning, in one more commit.
    RevertCheckpoint(CheckpointId),
}

impl LocalWrite {
    /// Memory that it keeps while it waits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            LocalWrite::Insert { rows: parts, .. } | LocalWrite::Delete { keys: parts, .. } => {
                parts.iter().map(|part| part.len() + size_of::<Bytes>()).sum()
            }
            _ => 0,
        }
    }
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct LocalReply {
    /// Rows that were read, or inserted with what sequences gave them.
    pub rows: Vec<Bytes>,
    /// Whether there are more rows than were returned.
    pub has_more: bool,
    /// Rows that were inserted or deleted.
    pub changed: u64,
    /// The checkpoint that was begun.
    pub checkpoint: Option<CheckpointId>,
}

impl ForkHandle {
    /// Reads in the lane's order. May run before this returns.
    pub fn local_read(&self, form: RowForm, read: LocalRead, reply: ReplyTo<LocalReply>) {
        self.submit(Job::LocalRead { form, read, reply });
    }

    /// Reads the newest published version, at once.
    ///
    /// # Errors
    /// What is wrong with the request; a fork that is gone.
    pub fn local_read_committed(&self, form: RowForm, read: &LocalRead) -> Result<(LocalReply, Lsn), CallFailure> {
        let snapshot = self.fork.store.snapshot(self.fork.id).map_err(HostError::Store)?;
        let lsn = snapshot.version().lsn;
        // A publish may be under way: the schema belongs to the version, not to the fork.
        let schema = self.fork.module().schema.clone();
        Ok((self::read(&TableSnapshot::new(snapshot, schema), form, read)?, lsn))
    }

    /// Writes in the lane's order, as one transaction. May run before this returns.
    pub fn local_write(&self, requester: Requester, form: RowForm, write: LocalWrite, reply: ReplyTo<LocalReply>) {
        let deadline = Instant::now() + crate::handle::LANE_WITHIN;
        self.submit(Job::LocalWrite { requester, form, write, deadline, reply });
    }

    /// Waits until everything committed on this fork so far is on stable storage. Blocks.
    ///
    /// # Errors
    /// The store failed, or took too long.
    pub fn sync(&self) -> Result<(), HostError> {
        self.wait_durable(self.fork.store.stats().appended)
    }

    /// The tables of the newest version, each with its row type.
    pub fn tables(&self) -> Vec<(String, ProductType)> {
        let module = self.fork.module();
        module.schema.tables().iter().map(|table| (table.name.to_string(), table.row_type.clone())).collect()
    }

    /// What is known of the fork now.
    ///
    /// # Errors
    /// It is gone.
    pub fn info(&self) -> Result<ForkInfo, HostError> {
        self.fork.store.fork_info(self.fork.id).ok_or(HostError::Closed)
    }
}

/// Waits for a reply on another thread than the lane's.
pub fn wait_for<T: Send + 'static>(ask: impl FnOnce(ReplyTo<T>)) -> Result<crate::Reply<T>, HostError> {
    let (answered, answer) = mpsc::sync_channel(1);
    // Nobody may wait any more: then the answer is dropped.
    ask(Box::new(move |reply| drop(answered.send(reply))));
    answer.recv_timeout(crate::handle::LANE_WITHIN).map_err(|_| HostError::Overloaded("the fork's lane"))
}

fn no_table(name: &str) -> CallFailure {
    CallFailure::BadArguments(format!("no table `{name}`"))
}

/// Rows or key values in BSATN.
fn encode(form: RowForm, ty: &AlgebraicType, bytes: &Bytes, what: &str) -> Result<Bytes, CallFailure> {
    match form {
        RowForm::Bsatn => Ok(bytes.clone()),
        RowForm::Json => {
            let bad = |problem: String| CallFailure::BadArguments(format!("{what}: {problem}"));
            let value = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
            let mut encoded = Vec::new();
            tine_types::json::json_to_bsatn(ty, &value, &mut encoded).map_err(|error| bad(error.to_string()))?;
            Ok(encoded.into())
        }
    }
}

/// A row as it is returned.
fn decode(form: RowForm, table: &TableSchema, row: &[u8]) -> Result<Bytes, CallFailure> {
    match form {
        RowForm::Bsatn => Ok(Bytes::copy_from_slice(row)),
        RowForm::Json => {
            let ty = AlgebraicType::Product(table.row_type.clone());
            match tine_types::json::bsatn_to_json(&ty, &mut tine_types::bsatn::Reader::new(row)) {
                Ok(value) => Ok(value.to_string().into()),
                // A committed read beside a publish may see the rows of one version with the schema of the other.
                Err(_) => Err(CallFailure::from_host(&HostError::Damaged("row"))),
            }
        }
    }
}

/// A table by name.
fn table<'t>(tables: &'t (impl TableRead + ?Sized), name: &str) -> Result<&'t TableSchema, CallFailure> {
    tables.schema().table_named(name).map(|table| &**table).ok_or_else(|| no_table(name))
}
