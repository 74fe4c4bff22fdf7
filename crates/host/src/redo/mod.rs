//! Redo: looking at recorded calls, and running them again.
//!
//! Every call is in the log with what it was given: arguments, caller, time and seed. So history can be listed ([`history`]), checked
//! ([`verify`]: does the recorded code produce the recorded rows?), and run through other code ([`replay`]: what would last week's
//! traffic have done with the new module?).
//!
//! Calls run again on a [`replica::Replica`]: a fork of the store that no lane and no client knows of. Beside it a second, ephemeral
//! one is led along the recorded rows, so that every call is compared on exactly the state it had, however far the replay has gone
//! astray from it.
//!
//! They run in a worker process, whatever the database's setting: other code than the recorded one was published nowhere yet. Where no
//! worker can be locked in, they run where the database's calls do, and the report says so ([`RedoPlace`](crate::RedoPlace)).
//!
//! A difference is blamed on the code only if the recorded code, run again on the recorded state in an instance of its own, does what
//! was recorded. Otherwise the call depended on something that is not in the record, such as what an earlier call left in the
//! instance, and is *not reproducible*.

mod as_of;
mod difference;
mod dry_run;
mod history;
mod progress;
mod replay;
mod replica;
mod report;
mod timeline;
mod verify;

pub use dry_run::{DryRun, RowChanges};
pub use history::{HistoryEntry, HistoryRequest, TableCounts};
pub use progress::{RedoProgress, RedoStep};
pub use replay::{ReplayReport, ReplayRequest};
pub use report::{Example, FunctionReport, Outcome, TableDifference};
pub use verify::{VerifyReport, VerifyRequest};
