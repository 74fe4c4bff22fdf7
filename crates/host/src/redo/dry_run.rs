//! Running a reducer to see what it would change.

use serde_json::Value;
use tine_store::Lsn;
use tine_types::AlgebraicType;

use super::replica::{Replica, Scratch};
use super::report::changed_rows;
use super::timeline::Session;
use crate::client::{Actor, CallArguments};
use crate::host::Host;
use crate::record::{CallKind, CallRecord};
use crate::{CallFailure, HostError};

/// Rows shown per table and direction.
const ROWS_MAX: usize = 1_000;

/// Changed rows by table: `{table: {"inserted": [row, ..], "deleted": [row, ..]}}`.
pub type RowChanges = Value;

/// What a call would do.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The version it would run on.
    pub lsn: Lsn,
    /// The rows it would change, at most 1,000 in each list, or why it would fail.
    pub outcome: Result<RowChanges, CallFailure>,
}

impl Host {
    /// Runs a reducer on the newest version and drops what it did. Nothing is recorded, nobody is told, and its log is not kept.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotAuthorized`]: the rows may be private, so that only the owner may do this. Whatever
    /// is wrong with the call itself is in [`DryRun::outcome`].
    pub fn dry_run(
        &self,
        address: &str,
        actor: &Actor,
        function: &str,
        arguments: CallArguments,
    ) -> Result<DryRun, HostError> {
        let (database, fork) = self.locate(address)?;
        self.authorize(&database, actor, "dry-run a call")?;
        let base = database.store.snapshot(fork)?;
        let lsn = base.version().lsn;
        let scratch = Scratch::of(&database, &base, "dry-run")?;
        let mut replica = Replica::open(&database, scratch.fork, false)?;
        let module = replica.module.clone();
        let Some(function) = module.reducers.get(function).filter(|function| function.callable) else {
            return Ok(DryRun { lsn, outcome: Err(CallFailure::NoSuchFunction) });
        };
        let arguments = match arguments {
            CallArguments::Bsatn(bytes) => bytes,
            CallArguments::Json(value) => {
                let (ty, mut bytes) = (AlgebraicType::Product(function.parameters.clone()), Vec::new());
                match tine_types::json::json_to_bsatn(&ty, &value, &mut bytes) {
                    Ok(()) => bytes.into(),
                    Err(error) => {
                        return Ok(DryRun { lsn, outcome: Err(CallFailure::BadArguments(error.to_string())) });
                    }
                }
            }
        };
        let env = &self.shared().env;
        let mut seed = [0; 8];
        env.random_bytes(&mut seed);
        let call = CallRecord {
            kind: CallKind::Reducer,
            function: (&*function.name).into(),
            arguments,
            session: 0,
            timestamp_micros: env.now_micros(),
            seed: u64::from_le_bytes(seed),
            module: module.short_hash(),
            failure: None,
            is_fresh: true,
        };
        let session = Session { caller: actor.identity, connection: None, jwt_payload: "".into() };
        let outcome = match replica.execute(&call, Some(&session))? {
            Ok(changes) => Ok(changed_rows(&changes, &module.schema, ROWS_MAX)),
            Err(failure) => Err(failure.into_call_failure()),
        };
        replica.rollback();
        Ok(DryRun { lsn, outcome })
    }
}
