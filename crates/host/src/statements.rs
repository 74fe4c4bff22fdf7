//! Statements that change rows: one transaction of the lane each, like a reducer, and announced to subscribers like one.

use tine_query::Modified;
use tine_types::ProductType;

use crate::client::{Requester, SqlRows};
use crate::record::{CallKind, CallParts};
use crate::worker::ForkWorker;
use crate::{CallFailure, HostError};

impl ForkWorker {
    /// Runs a statement for which [`tine_query::writes`] holds. A refused one leaves no trace but its record.
    pub fn run_statement(&mut self, requester: &Requester, text: &str) -> Result<SqlRows, CallFailure> {
        let (caller, limits) = (self.caller(requester.identity), self.fork.host.options.query_limits);
        let modified = match tine_query::modify(text, &caller, self.tables_mut(), limits) {
            Ok(modified) => modified,
            Err(error) => {
                self.tables_mut().rollback();
                return Err(CallFailure::from_host(&HostError::Query(error)));
            }
        };
        if modified != Modified::default() {
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
            })?;
            self.announce(commit.as_ref(), None);
        }
        Ok(SqlRows { columns: ProductType::unit(), rows: Vec::new(), modified })
    }
}
