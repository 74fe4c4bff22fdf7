//! What a version says about itself: its program, its schema, on which fork its schedules run and its settings, as rows of one keyspace. Code and
//! schema are part of a version: a fork copies them, a rollback undoes them.

use std::sync::Arc;

use tine_store::{ForkId, KeyspaceId, Read, Writer};
use tine_tables::DatabaseSchema;

use crate::{HostError, IsolationMode};

/// Below the store's first allocated keyspace.
pub(crate) const META: KeyspaceId = KeyspaceId::new(1);

const PROGRAM: &[u8] = b"program";
const SCHEMA: &[u8] = b"schema";
/// How many rows a query of others than the owner may look at, as `u64`; no row, no limit.
const ROW_LIMIT: &[u8] = b"row-limit";
/// Where the module runs, by the name of the mode; no row, where the server says.
const ISOLATION: &[u8] = b"isolation";
/// The id of the fork whose schedules run. A new fork inherits the row but has another id, so its schedules are paused (G10).
const SCHEDULES_RUN_ON: &[u8] = b"schedules-run-on";

pub(crate) struct Meta {
    pub program: Vec<u8>,
    pub schema: Arc<DatabaseSchema>,
    pub schedules_run_on: ForkId,
    pub isolation: Option<IsolationMode>,
}

impl Meta {
    /// Reads the rows; `None` on a version before the first publish.
    pub fn read(version: &(impl Read + ?Sized)) -> Result<Option<Meta>, HostError> {
        let row = |key: &[u8]| -> Result<Option<Vec<u8>>, HostError> {
            let value = version.get(META, key).map_err(|fault| HostError::Table(fault.into()))?;
            Ok(value.map(|value| value.to_vec()))
        };
        let Some(program) = row(PROGRAM)? else { return Ok(None) };
        let schema = row(SCHEMA)?.ok_or(HostError::Damaged("schema"))?;
        let schema = DatabaseSchema::decode(&schema).map_err(|_| HostError::Damaged("schema"))?;
        let schedules_run_on = Meta::read_schedules_run_on(version)?.ok_or(HostError::Damaged("schedule state"))?;
        let isolation = row(ISOLATION)?.map(|name| std::str::from_utf8(&name).ok()?.parse().ok());
        let isolation = isolation.map(|mode| mode.ok_or(HostError::Damaged("isolation"))).transpose()?;
        Ok(Some(Meta { program, schema: Arc::new(schema), schedules_run_on, isolation }))
    }

    /// On which fork the schedules of a version run; `None` before the first publish.
    pub fn read_schedules_run_on(version: &(impl Read + ?Sized)) -> Result<Option<ForkId>, HostError> {
        let value = version.get(META, SCHEDULES_RUN_ON).map_err(|fault| HostError::Table(fault.into()))?;
        let Some(value) = value else { return Ok(None) };
        let number = value.as_slice().try_into().map_err(|_| HostError::Damaged("schedule state"))?;
        Ok(Some(ForkId::new(u64::from_le_bytes(number))))
    }

    /// How many rows a query of others than the owner may look at.
    pub fn read_row_limit(version: &(impl Read + ?Sized)) -> Result<Option<u64>, HostError> {
        let value = version.get(META, ROW_LIMIT).map_err(|fault| HostError::Table(fault.into()))?;
        let Some(value) = value else { return Ok(None) };
        let number = value.as_slice().try_into().map_err(|_| HostError::Damaged("row limit"))?;
        Ok(Some(u64::from_le_bytes(number)))
    }

    /// Sets that limit in the open transaction of `writer`.
    pub fn write_row_limit(writer: &mut Writer, limit: u64) -> Result<(), HostError> {
        let put = writer.put(META, ROW_LIMIT, &limit.to_le_bytes());
        put.map(drop).map_err(|error| HostError::Table(error.into()))
    }

    /// Has the schedules run on a fork, in the open transaction of `writer`.
    pub fn write_schedules_run_on(writer: &mut Writer, fork: ForkId) -> Result<(), HostError> {
        let put = writer.put(META, SCHEDULES_RUN_ON, &fork.get().to_le_bytes());
        put.map(drop).map_err(|error| HostError::Table(error.into()))
    }

    /// Writes the rows into the open transaction of `writer`.
    pub fn write(&self, writer: &mut Writer) -> Result<(), HostError> {
        let schema = self.schema.encode();
        let isolation = self.isolation.map(|mode| (ISOLATION, mode.name().as_bytes()));
        let rows: [(&[u8], &[u8]); 2] = [(PROGRAM, &self.program), (SCHEMA, &schema)];
        for (key, value) in rows.into_iter().chain(isolation) {
            writer.put(META, key, value).map_err(|error| HostError::Table(error.into()))?;
        }
        Meta::write_schedules_run_on(writer, self.schedules_run_on)
    }
}
