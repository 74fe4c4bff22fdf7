//! Statements that change rows: one transaction of the lane each, like a reducer, and announced to subscribers like one.

use bytes::Bytes;
use tine_query::{Caller, Modified, QueryError, Setting};
use tine_types::{AlgebraicType, ProductType};

use crate::client::{Requester, SqlRows};
use crate::meta::Meta;
use crate::record::{CallKind, CallParts};
use crate::worker::ForkWorker;
use crate::{CallFailure, HostError};

/// The answer to `SHOW row_limit`: one row, or none when there is no limit.
pub(crate) fn show_row_limit(limit: Option<u64>) -> SqlRows {
    SqlRows {
        columns: ProductType::named([("row_limit", AlgebraicType::U64)]),
        rows: limit.iter().map(|limit| Bytes::copy_from_slice(&limit.to_le_bytes())).collect(),
        modified: Modified::default(),
    }
}

impl ForkWorker {
    /// Runs a statement for which [`tine_query::writes`] holds. A refused one leaves no trace.
    pub fn run_statement(&mut self, requester: &Requester, text: &str) -> Result<SqlRows, CallFailure> {
        let modified = self.modify(&self.caller(requester.identity), text).inspect_err(|_| {
            self.tables_mut().rollback();
        })?;
        if self.tables_mut().writer_mut().has_changes() || modified != Modified::default() {
            let session = self.open_session(requester.identity, None, requester.jwt_payload.as_deref());
            let timestamp_micros = self.next_timestamp(i64::MIN);
            let commit = self.commit_call(&CallParts {
                kind: CallKind::Statement,
                function: "",
                arguments: text.as_bytes(),
                session,
                timestamp_micros,
                seed: 0,
                module: self.module.short_hash(),
                failure: None,
                is_fresh: true,
            })?;
            self.announce(commit.as_ref(), None);
        }
        Ok(SqlRows { columns: ProductType::unit(), rows: Vec::new(), modified })
    }

    fn modify(&mut self, caller: &Caller, text: &str) -> Result<Modified, HostError> {
        let limits = self.fork.host.options.query_limits;
        match Setting::parse(text)? {
            Some(Setting::SetRowLimit(_)) if !caller.is_owner => Err(QueryError::NotOwner.into()),
            Some(Setting::SetRowLimit(rows)) => {
                Meta::write_row_limit(self.tables_mut().writer_mut(), rows)?;
                Ok(Modified::default())
            }
            _ => Ok(tine_query::modify(text, caller, self.tables_mut(), limits)?),
        }
    }
}
