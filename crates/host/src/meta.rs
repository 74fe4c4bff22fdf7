//! What a version says about itself: its program, its schema and on which fork its schedules run, as rows of one keyspace. Code and
//! schema are part of a version: a fork copies them, a rollback undoes them.

use std::sync::Arc;

use tine_store::{ForkId, KeyspaceId, Read, Writer};
use tine_tables::DatabaseSchema;

use crate::HostError;

/// Below the store's first allocated keyspace.
const META: KeyspaceId = KeyspaceId::new(1);

const PROGRAM: &[u8] = b"program";
const SCHEMA: &[u8] = b"schema";
/// The id of the fork whose schedules run. A new fork inherits the row but has another id, so its schedules are paused (G10).
const SCHEDULES_RUN_ON: &[u8] = b"schedules-run-on";

pub(crate) struct Meta {
    pub program: Vec<u8>,
    pub schema: Arc<DatabaseSchema>,
    pub schedules_run_on: ForkId,
}

impl Meta {
    /// Reads the rows; `None` on a version before the first publish.
    pub fn read(version: &impl Read) -> Result<Option<Meta>, HostError> {
        let row = |key: &[u8]| -> Result<Option<Vec<u8>>, HostError> {
            let value = version.get(META, key).map_err(|fault| HostError::Table(fault.into()))?;
            Ok(value.map(|value| value.to_vec()))
        };
        let Some(program) = row(PROGRAM)? else { return Ok(None) };
        let schema = row(SCHEMA)?.ok_or(HostError::Damaged("schema"))?;
        let schema = DatabaseSchema::decode(&schema).map_err(|_| HostError::Damaged("schema"))?;
        let run_on = row(SCHEDULES_RUN_ON)?.ok_or(HostError::Damaged("schedule state"))?;
        let run_on = u64::from_le_bytes(run_on.try_into().map_err(|_| HostError::Damaged("schedule state"))?);
        Ok(Some(Meta { program, schema: Arc::new(schema), schedules_run_on: ForkId::new(run_on) }))
    }

    /// Writes the rows into the open transaction of `writer`.
    pub fn write(&self, writer: &mut Writer) -> Result<(), HostError> {
        let run_on = self.schedules_run_on.get().to_le_bytes();
        let rows: [(&[u8], &[u8]); 3] =
            [(PROGRAM, &self.program), (SCHEMA, &self.schema.encode()), (SCHEDULES_RUN_ON, &run_on)];
        for (key, value) in rows {
            writer.put(META, key, value).map_err(|error| HostError::Table(error.into()))?;
        }
        Ok(())
    }
}
