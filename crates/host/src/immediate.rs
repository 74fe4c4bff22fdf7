//! Calls that a module queues for right after the running one, by the module ABI's `volatile_nonatomic_schedule_immediate`.
//!
//! Volatile: they are in no table, so an end of the server loses them. Not atomic: they run even when the call that queued them fails.
//! They stand in the lane like any other write, and the lane's bounds are theirs.

use tine_lanes::SubmitError;
use tine_module::SyscallError;

use crate::client::Requester;
use crate::fork::Fork;
use crate::jobs::Job;
use crate::procedures::ProcedureReply;
use crate::record::CallKind;
use crate::worker::{ForkWorker, Invocation};

impl Fork {
    /// Queues a call of a function by the database itself.
    pub(crate) fn schedule_immediate(&self, function: &str, arguments: Vec<u8>) -> Result<(), SyscallError> {
        let refuse = |problem: String| Err(SyscallError::new(SyscallError::HOST_CALL_FAILURE, problem));
        let module = self.module();
        if !module.reducers.contains_key(function) && !module.procedures.contains_key(function) {
            return refuse(format!("the module has no function `{function}`"));
        }
        match self.lane().submit(Job::Immediate { function: function.into(), arguments: arguments.into() }) {
            Ok(()) => Ok(()),
            Err(SubmitError::Full(_)) => refuse("too many requests wait on this fork".to_owned()),
            Err(SubmitError::Closed(_)) => refuse("the fork is closing".to_owned()),
        }
    }
}

impl ForkWorker {
    /// Runs a queued call; what becomes of it is in the module's log.
    pub fn run_immediate(&mut self, name: &str, arguments: bytes::Bytes) {
        let module = self.module.clone();
        let requester = Requester { identity: self.fork.database_identity, jwt_payload: None };
        if let Some(function) = module.procedures.get(name) {
            let nobody = ProcedureReply::Nobody;
            return self.start_procedure(function.clone(), requester, None, arguments, Default::default(), nobody);
        }
        // A module published in between may have it no more.
        let Some(function) = module.reducers.get(name) else { return };
        let executed = self.execute(
            function,
            &Invocation {
                kind: CallKind::Scheduled,
                sender: requester.identity,
                connection: None,
                jwt_payload: None,
                session: 0,
                arguments: &arguments,
                not_before_micros: i64::MIN,
            },
        );
        if let Ok(committed) = executed.result {
            self.announce(committed.commit.as_ref(), None);
        }
    }
}
