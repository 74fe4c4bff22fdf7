//! Writing rows, and checkpoints.

use bytes::Bytes;
use tine_store::{CheckpointId, WriteError};
use tine_tables::{ChangeSet, TableError, TableRead};
use tine_types::bsatn::BsatnWrite;

use super::read::{index, key_type};
use super::{LocalReply, LocalWrite, RowForm, decode, encode, no_table};
use crate::client::Requester;
use crate::meta::{META, Meta};
use crate::record::{CallKind, CallParts};
use crate::worker::{ForkWorker, table_failure};
use crate::{CallFailure, HostError};

impl ForkWorker {
    /// Runs a local program's write; a refused one leaves no trace.
    pub(crate) fn write_locally(
        &mut self,
        requester: &Requester,
        form: RowForm,
        write: &LocalWrite,
    ) -> Result<LocalReply, CallFailure> {
        let (reply, operation, table, count) = match write {
            LocalWrite::Insert { table, rows } => (self.insert_rows(form, table, rows), "insert", table, rows.len()),
            LocalWrite::Delete { table, index, keys } => {
                (self.delete_keys(form, table, index.as_deref(), keys), "delete", table, keys.len())
            }
            LocalWrite::BeginCheckpoint => return self.begin_checkpoint(),
            LocalWrite::CommitCheckpoint(id) => return self.commit_checkpoint(*id),
            LocalWrite::RevertCheckpoint(id) => return self.revert_checkpoint(requester, *id),
        };
        let reply = reply.inspect_err(|_| self.tables_mut().rollback())?;
        if reply.changed > 0 {
            let mut arguments = Vec::new();
            arguments.put_str(table);
            arguments.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
            let session = self.open_session(requester.identity, None, requester.jwt_payload.as_deref());
            let timestamp_micros = self.next_timestamp(i64::MIN);
            let commit = self.commit_call(&CallParts {
                kind: CallKind::Rows,
                function: operation,
                arguments: &arguments,
                session,
                timestamp_micros,
                seed: 0,
                module: self.module.short_hash(),
                failure: None,
                is_fresh: true,
            })?;
            self.announce(commit.as_ref(), None);
        }
        Ok(reply)
    }

    fn insert_rows(&mut self, form: RowForm, name: &str, rows: &[Bytes]) -> Result<LocalReply, CallFailure> {
        let tables = self.tables_mut();
        let table = tables.schema().table_named(name).cloned().ok_or_else(|| no_table(name))?;
        let ty = tine_types::AlgebraicType::Product(table.row_type.clone());
        let (mut reply, mut generated) = (LocalReply::default(), Vec::new());
        for row in rows {
            let row = encode(form, &ty, row, "row")?;
            let written = tables.insert(table.id, &row, &mut generated).map_err(|error| refused(&error))?;
            reply.changed += u64::from(written.changed);
            reply.rows.push(decode(form, &table, written.row)?);
        }
        Ok(reply)
    }

    fn delete_keys(
        &mut self,
        form: RowForm,
        name: &str,
        wanted: Option<&str>,
        keys: &[Bytes],
    ) -> Result<LocalReply, CallFailure> {
        let tables = self.tables_mut();
        let table = tables.schema().table_named(name).cloned().ok_or_else(|| no_table(name))?;
        let index = index(&table, wanted)?;
        let ty = key_type(&table, index, index.columns.len());
        let mut reply = LocalReply::default();
        for key in keys {
            let key = encode(form, &ty, key, "key")?;
            let deleted = tables.delete_by_index_point(index.id, &key).map_err(|error| refused(&error))?;
            reply.changed += u64::from(deleted);
        }
        Ok(reply)
    }

    fn begin_checkpoint(&mut self) -> Result<LocalReply, CallFailure> {
        let begun = self.tables_mut().writer_mut().begin_checkpoint();
        let checkpoint = Some(begun.map_err(|error| checkpoint_failure(&error))?);
        Ok(LocalReply { checkpoint, ..LocalReply::default() })
    }

    fn commit_checkpoint(&mut self, id: CheckpointId) -> Result<LocalReply, CallFailure> {
        let committed = self.tables_mut().writer_mut().commit_checkpoint(id);
        committed.map_err(|error| checkpoint_failure(&error))?;
        Ok(LocalReply::default())
    }

    fn revert_checkpoint(&mut self, requester: &Requester, id: CheckpointId) -> Result<LocalReply, CallFailure> {
        let session = self.open_session(requester.identity, None, requester.jwt_payload.as_deref());
        let timestamp_micros = self.next_timestamp(i64::MIN);
        let mut record = Vec::new();
        CallParts {
            kind: CallKind::Reverted,
            function: "",
            arguments: &id.get().to_le_bytes(),
            session,
            timestamp_micros,
            seed: 0,
            module: self.module.short_hash(),
            failure: None,
            is_fresh: true,
        }
        .encode(&mut record);
        let reverted = self.tables_mut().writer_mut().revert_checkpoint(id, &record);
        let (commit, changes) = reverted.map_err(|error| checkpoint_failure(&error))?;
        // Views are made anew: what they read may have changed anywhere.
        let (seen, _) = self.put_views_away();
        if changes.iter().any(|change| change.keyspace == META) {
            self.take_back_module()?;
        }
        let changed = ChangeSet::of_store_changes(&self.module.schema, &changes);
        let rows = changed.tables.iter().map(|table| table.inserts.len().max(table.deletes.len()) as u64).sum();
        if commit.changed {
            self.enter_commit((commit, changed));
        }
        self.recompile(&Default::default(), &seen);
        Ok(LocalReply { changed: rows, ..LocalReply::default() })
    }

    /// Runs the module that the version has again after a publish was taken back.
    fn take_back_module(&mut self) -> Result<(), CallFailure> {
        let meta = Meta::read(self.tables().store())?.ok_or(HostError::Damaged("module"))?;
        let module = self.fork.host.modules.of_version(&meta)?;
        self.drop_instance();
        self.set_schema(module.schema.clone());
        self.module = module.clone();
        let fork = self.fork.clone();
        fork.activate(module, self.tables())?;
        let reason = "the module was taken back to an earlier one: connect again";
        self.clients.disconnect_all(&crate::client::CloseReason::ModuleExited(reason));
        Ok(())
    }
}

/// What a program is told of rows that the tables refuse: they are its own input.
fn refused(error: &TableError) -> CallFailure {
    match error {
        TableError::Store(_) | TableError::Write(WriteError::Store(_)) | TableError::Damaged { .. } => {
            table_failure(error)
        }
        error => CallFailure::Failed { code: error.code(), message: error.to_string() },
    }
}

fn checkpoint_failure(error: &WriteError) -> CallFailure {
    CallFailure::Failed { code: error.code(), message: error.to_string() }
}
