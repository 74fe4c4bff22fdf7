//! Queries of an older version.

use tine_query::Caller;
use tine_store::{Lsn, VersionAt};
use tine_tables::TableSnapshot;

use crate::HostError;
use crate::client::{Requester, SqlRows};
use crate::host::Host;
use crate::meta::Meta;
use crate::reads::View;

impl Host {
    /// Answers a SELECT from a version of the fork at `address`, with the module and its rules of that version. A committed read: it
    /// waits for nobody. Returns the version, too.
    ///
    /// # Errors
    /// [`HostError::NotFound`], [`HostError::NotRetained`], [`HostError::NoSuchVersion`], [`HostError::InFuture`],
    /// [`HostError::BeforeFirstModule`], [`HostError::Call`] for whatever is wrong with the statement; one that changes rows is refused.
    pub fn select_as_of(
        &self,
        address: &str,
        requester: &Requester,
        text: &str,
        at: VersionAt,
    ) -> Result<(SqlRows, Lsn), HostError> {
        let (database, fork) = self.locate(address)?;
        let version = self.version(&database, fork, at)?;
        let lsn = version.version().lsn;
        let meta = Meta::read(&version)?.ok_or(HostError::BeforeFirstModule(lsn.get()))?;
        let module = database.host.modules.of_version(&meta)?;
        let view = View {
            tables: TableSnapshot::new(version, module.schema.clone()),
            module,
            owner: database.owner,
            database: database.identity,
            limits: database.host.options.query_limits,
        };
        let caller = Caller { identity: requester.identity, is_owner: requester.identity == database.owner };
        Ok((view.select(text, &caller)?, lsn))
    }
}
