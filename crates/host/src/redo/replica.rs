//! A fork of the store on which recorded calls run again, without a lane, clients or schedules.

use std::sync::Arc;

use bytes::Bytes;
use tine_module::{CallContext, CallError, CallHost, Instance, LoadError, LogEntry, SyscallError};
use tine_query::Caller;
use tine_sandbox::CallError as WorkerError;
use tine_store::{Change, Durability, ForkId, ForkOptions, Lsn, Operation, Read, Snapshot, Store};
use tine_tables::{ChangeSet, TableChanges, TableRead, TableWriter};
use tine_types::{Identity, Timestamp};

use super::timeline::{Event, Session};
use crate::database::Database;
use crate::host::HostShared;
use crate::meta::{META, Meta};
use crate::module::ActiveModule;
use crate::record::{CallKind, CallRecord};
use crate::worker::table_failure;
use crate::{CallFailure, HostError, IsolationMode};

/// See the module documentation.
pub(super) struct Replica {
    host: Arc<HostShared>,
    database: Identity,
    owner: Identity,
    tables: Option<TableWriter>,
    pub module: Arc<ActiveModule>,
    /// Whether calls run in a worker whatever the version says.
    in_worker: bool,
    instance: Option<Instance>,
    /// Whether a call ran in it.
    is_used: bool,
}

/// Why a call failed when it ran again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub code: &'static str,
    pub message: String,
}

/// Why a run has no changes.
enum Trouble {
    /// The call failed.
    Call(Failure),
    /// The worker did not see it through.
    Worker(WorkerError),
}

impl Failure {
    pub fn into_call_failure(self) -> CallFailure {
        match self.code == user_code() {
            true => CallFailure::User(self.message),
            false => CallFailure::Failed { code: self.code, message: self.message },
        }
    }
}

/// A fork that is dropped with this value.
pub(super) struct Scratch {
    store: Store,
    pub fork: ForkId,
}

impl Scratch {
    /// An ephemeral fork of a version, under a name that no client can say.
    pub fn of(database: &Database, base: &Snapshot, name: &str) -> Result<Scratch, HostError> {
        let mut token = [0; 8];
        database.host.env.random_bytes(&mut token);
        let options = ForkOptions {
            name: format!("~{name}:{:016x}", u64::from_le_bytes(token)),
            durability: Durability::Ephemeral,
            expires_at_micros: None,
        };
        let (info, _) = database.store.fork_from(base, options)?;
        Ok(Scratch { store: database.store.clone(), fork: info.id })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A store that failed holds no ephemeral fork beyond its own end.
        let _ = self.store.drop_fork(self.fork);
    }
}

impl Replica {
    /// Opens a fork of the database for writing; nobody else may have its writer. Calls run in a worker, or where each version says.
    pub fn open(database: &Database, fork: ForkId, in_worker: bool) -> Result<Replica, HostError> {
        let writer = database.store.writer(fork)?;
        let meta = Meta::read(&writer)?.ok_or(HostError::BeforeFirstModule(writer.version().lsn.get()))?;
        let module = module_of(&database.host, &meta, in_worker)?;
        let tables = Some(TableWriter::new(writer, module.schema.clone()));
        let (host, owner) = (database.host.clone(), database.owner);
        Ok(Replica {
            host,
            database: database.identity,
            owner,
            tables,
            module,
            in_worker,
            instance: None,
            is_used: false,
        })
    }

    pub fn tables(&mut self) -> &mut TableWriter {
        self.tables.as_mut().expect("the writer is only away while the schema changes")
    }

    /// The newest commit.
    pub fn head(&mut self) -> Lsn {
        self.tables().writer_mut().version().lsn
    }

    /// Takes the code and schema that the version has now.
    pub fn reload(&mut self) -> Result<(), HostError> {
        let writer = self.tables.take().expect("the writer is only away while the schema changes").into_writer();
        let meta = Meta::read(&writer)?.ok_or(HostError::Damaged("module"))?;
        self.instance = None;
        self.module = module_of(&self.host, &meta, self.in_worker)?;
        self.tables = Some(TableWriter::new(writer, self.module.schema.clone()));
        Ok(())
    }

    /// Makes recorded writes part of the open transaction. Returns the rows that they change.
    pub fn apply(&mut self, operations: &[Operation]) -> Result<ChangeSet, HostError> {
        let mut changes: Vec<Change> = Vec::with_capacity(operations.len());
        let writer = self.tables().writer_mut();
        for operation in operations {
            let (keyspace, key) = (operation.keyspace, &operation.key);
            let old = writer.get(keyspace, key).map_err(|fault| HostError::Table(fault.into()))?;
            let old = old.map(|value| Bytes::copy_from_slice(&value));
            match &operation.value {
                Some(value) => writer.put(keyspace, key, value).map(drop),
                None => writer.delete(keyspace, key).map(drop),
            }
            .map_err(|error| HostError::Table(error.into()))?;
            changes.push(Change { keyspace, key: key.clone(), old, new: operation.value.clone() });
        }
        Ok(ChangeSet::of_store_changes(&self.module.schema, &changes))
    }

    /// Runs a recorded reducer or statement in the open transaction, which is rolled back if it fails. Bundles carry a generator of
    /// random numbers from call to call, so each of their calls has an instance of its own.
    ///
    /// # Errors
    /// Nothing of the call: that it could not be run.
    pub fn execute(
        &mut self,
        call: &CallRecord,
        session: Option<&Session>,
    ) -> Result<Result<ChangeSet, Failure>, HostError> {
        let mut ran = self.run(call, session);
        if matches!(ran, Err(Trouble::Worker(_))) {
            // A worker may have died of something else, such as an operator's kill; of its call it dies again.
            self.tables().rollback();
            ran = self.run(call, session);
        }
        let trouble = match ran {
            Ok(()) => return Ok(Ok(self.tables().take_changes())),
            Err(trouble) => trouble,
        };
        self.tables().rollback();
        match trouble {
            Trouble::Call(failure) => Ok(Err(failure)),
            Trouble::Worker(error @ WorkerError::Died(_)) => {
                Ok(Err(Failure { code: error.code(), message: error.to_string() }))
            }
            Trouble::Worker(error) => Err(HostError::RedoWorker(error)),
        }
    }

    fn run(&mut self, call: &CallRecord, session: Option<&Session>) -> Result<(), Trouble> {
        match call.kind {
            CallKind::Statement => self.run_statement(call, session).map_err(Trouble::Call),
            _ => self.run_reducer(call, session),
        }
    }

    fn run_statement(&mut self, call: &CallRecord, session: Option<&Session>) -> Result<(), Failure> {
        let identity = session.map_or(self.database, |session| session.caller);
        let caller = Caller { identity, is_owner: identity == self.owner };
        let limits = self.host.options.query_limits;
        let text = std::str::from_utf8(&call.arguments).map_err(|_| failure(&HostError::Damaged("statement")))?;
        tine_query::modify(text, &caller, self.tables(), limits).map(drop).map_err(|error| failure(&error.into()))
    }

    fn run_reducer(&mut self, call: &CallRecord, session: Option<&Session>) -> Result<(), Trouble> {
        let module = self.module.clone();
        let Some(function) = module.reducers.get(&*call.function) else {
            let error = CallFailure::NoSuchFunction;
            let message = format!("no reducer `{}`", call.function);
            return Err(Trouble::Call(Failure { code: error.code(), message }));
        };
        let mut instance = self.take_instance().map_err(|error| match error {
            HostError::Load(LoadError::Worker(error)) => Trouble::Worker(error),
            error => Trouble::Call(failure(&error)),
        })?;
        let context = CallContext {
            sender: session.map_or(self.database, |session| session.caller),
            connection_id: session.and_then(|session| session.connection),
            timestamp: Timestamp::from_micros(call.timestamp_micros),
            seed: call.seed,
            database_identity: self.database,
            deadline: self.host.options.reducer_deadline,
            jwt_payload: session.map(|session| session.jwt_payload.clone()).filter(|payload| !payload.is_empty()),
        };
        let mut host = ReplicaHost(self.tables.as_mut().expect("the writer is only away while the schema changes"));
        let outcome = instance.call_reducer(function.index, &context, &call.arguments, &mut host);
        if !instance.needs_replacement() {
            self.instance = Some(instance);
            self.is_used = true;
        }
        outcome.map(drop).map_err(|error| match error {
            CallError::Worker(error) => Trouble::Worker(error),
            CallError::User(message) => Trouble::Call(Failure { code: user_code(), message }),
            error => Trouble::Call(Failure { code: error.code(), message: error.to_string() }),
        })
    }

    /// The instance for the next call: one without a past, where the past would show.
    fn take_instance(&mut self) -> Result<Instance, HostError> {
        let must_be_fresh = self.module.compiled.is_bundle() && std::mem::take(&mut self.is_used);
        match self.instance.take() {
            Some(mut instance) if must_be_fresh => match instance.renew()? {
                true => Ok(instance),
                false => self.host.instances.make(&self.module),
            },
            Some(instance) => Ok(instance),
            None => self.host.instances.make(&self.module),
        }
    }

    /// Runs a recorded call like [`Replica::execute`]. If the record says that the row of a one-shot schedule went with it, so it does here.
    pub fn execute_adopting(
        &mut self,
        event: &Event,
        call: &CallRecord,
        recorded: &ChangeSet,
    ) -> Result<Result<ChangeSet, Failure>, HostError> {
        let mut done = self.execute(call, event.session.as_ref())?;
        if let (CallKind::Scheduled, Ok(changes)) = (call.kind, &mut done) {
            let of_schedule = |changed: &&TableChanges| {
                let table = self.module.schema.table(changed.table);
                table.is_some_and(|table| table.schedule.is_some()) && changed.deletes.contains(&call.arguments)
            };
            let table = recorded.tables.iter().find(of_schedule).map(|changed| changed.table);
            if let Some(table) = table
                && self.tables().delete_row(table, &call.arguments)?
            {
                let deletes = vec![call.arguments.clone()];
                changes.tables.push(TableChanges { table, inserts: Vec::new(), deletes });
            }
        }
        Ok(done)
    }

    /// The next call gets an instance that was never used.
    pub fn drop_instance(&mut self) {
        self.instance = None;
    }

    /// The tables with what the open transaction changed.
    pub fn read(&self) -> &dyn TableRead {
        self.tables.as_ref().expect("the writer is only away while the schema changes")
    }

    /// Moves sequences on to where recorded writes left them, unless they are further already.
    pub fn raise_sequences(&mut self, operations: &[Operation]) -> Result<(), HostError> {
        let keyspace = self.module.schema.sequences_keyspace();
        let state =
            |value: &[u8]| value.try_into().map(i128::from_le_bytes).map_err(|_| HostError::Damaged("sequence"));
        let writer = self.tables().writer_mut();
        for operation in operations.iter().filter(|operation| operation.keyspace == keyspace) {
            let Some(value) = &operation.value else { continue };
            let present = writer.get(keyspace, &operation.key).map_err(|fault| HostError::Table(fault.into()))?;
            if present
                .map(|present| state(&present))
                .transpose()?
                .is_none_or(|present| present < state(value).unwrap_or(present))
            {
                writer.put(keyspace, &operation.key, value).map_err(|error| HostError::Table(error.into()))?;
            }
        }
        Ok(())
    }

    /// Removes a setting from the version, in a commit of its own.
    pub fn forget(&mut self, key: &[u8]) -> Result<(), HostError> {
        let now = self.host.env.now_micros();
        self.tables().writer_mut().delete(META, key).map_err(|error| HostError::Table(error.into()))?;
        self.commit(&[], now)
    }

    /// Ends the open transaction at the recorded time.
    pub fn commit(&mut self, record: &[u8], timestamp_micros: i64) -> Result<(), HostError> {
        let committed = self.tables().commit(record, timestamp_micros);
        committed.map(drop).map_err(|error| HostError::Call(table_failure(&error)))
    }

    pub fn rollback(&mut self) {
        self.tables().rollback();
    }
}

/// Whether recorded writes change what a version says about itself: its code, schema or settings.
pub(super) fn is_administration(operations: &[Operation]) -> bool {
    operations.iter().any(|operation| operation.keyspace == META)
}

/// The code under which a failure that the module threw on purpose is recorded.
fn user_code() -> &'static str {
    CallFailure::User(String::new()).code()
}

fn failure(error: &HostError) -> Failure {
    Failure { code: error.code(), message: error.to_string() }
}

fn module_of(host: &HostShared, meta: &Meta, in_worker: bool) -> Result<Arc<ActiveModule>, HostError> {
    let isolation = if in_worker { Some(IsolationMode::Process) } else { meta.isolation };
    host.modules.of_version_in(meta, isolation)
}

/// What the syscalls of a call that runs again act on. What it logs was logged when it ran first, and what it asked to be run was
/// recorded on its own.
struct ReplicaHost<'a>(&'a mut TableWriter);

impl CallHost for ReplicaHost<'_> {
    fn tables(&mut self) -> Option<&mut TableWriter> {
        Some(self.0)
    }

    fn log(&mut self, _entry: LogEntry) {}

    fn begin_transaction(&mut self) -> Result<Timestamp, SyscallError> {
        Err(SyscallError::new(SyscallError::WOULD_BLOCK_TRANSACTION, "a reducer is one transaction itself"))
    }

    fn commit_transaction(&mut self) -> Result<(), SyscallError> {
        Err(crate::worker::not_a_procedure())
    }

    fn abort_transaction(&mut self) -> Result<(), SyscallError> {
        Err(crate::worker::not_a_procedure())
    }

    fn schedule_immediate(&mut self, _function: &str, _arguments: Vec<u8>) -> Result<(), SyscallError> {
        Ok(())
    }
}
