//! Where a module's code runs.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tine_module::isolation::Isolation;
use tine_module::{CodeCache, CompileError, CompiledModule, Instance, Limits, SourceBundle};
use tine_sandbox::Sandbox;

use crate::HostError;
use crate::module::ActiveModule;

/// Where the instances of a module run. A version says it or leaves it to the server; forks inherit what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IsolationMode {
    /// Beside the data, contained by the engine: the fastest.
    #[default]
    InProcess,
    /// Each in a worker process of its own: what the engine fails to contain costs a call.
    Process,
}

impl IsolationMode {
    const ALL: [IsolationMode; 2] = [IsolationMode::InProcess, IsolationMode::Process];

    /// The mode as it is written.
    pub fn name(self) -> &'static str {
        match self {
            IsolationMode::InProcess => "in-process",
            IsolationMode::Process => "process",
        }
    }
}

impl fmt::Display for IsolationMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A text that names no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected in-process or process")]
pub struct BadIsolationMode;

impl FromStr for IsolationMode {
    type Err = BadIsolationMode;

    fn from_str(text: &str) -> Result<IsolationMode, BadIsolationMode> {
        IsolationMode::ALL.into_iter().find(|mode| mode.name() == text).ok_or(BadIsolationMode)
    }
}

/// How long a redo waits to learn whether workers can be locked in; the server finds out when it starts.
const LEVEL_WITHIN: Duration = Duration::from_secs(5);

/// Where recorded calls run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedoPlace {
    /// In worker processes, whatever the database's setting: what is tried out is least known.
    Workers,
    /// Where the database's other calls run, because no worker can be locked in here.
    WithCalls {
        /// Why none can.
        reason: String,
    },
}

/// Compiles modules and makes their instances where they are to run.
pub(crate) struct InstanceMaker {
    limits: Limits,
    default: IsolationMode,
    sandbox: Option<Arc<Sandbox>>,
    /// Begun with the first isolated instance: most servers have none, and its spares are processes.
    isolation: OnceLock<Isolation>,
}

impl InstanceMaker {
    pub fn new(limits: Limits, default: IsolationMode, sandbox: Option<Arc<Sandbox>>) -> Result<Self, HostError> {
        let maker = InstanceMaker { limits, default, sandbox, isolation: OnceLock::new() };
        maker.check(None)?;
        Ok(maker)
    }

    /// Whether modules that ask for this can run here.
    pub fn check(&self, asked: Option<IsolationMode>) -> Result<(), HostError> {
        match self.mode(asked) {
            IsolationMode::Process if self.sandbox.is_none() => Err(HostError::NoWorkers),
            IsolationMode::Process | IsolationMode::InProcess => Ok(()),
        }
    }

    /// Where modules that ask for this run.
    pub fn mode(&self, asked: Option<IsolationMode>) -> IsolationMode {
        asked.unwrap_or(self.default)
    }

    /// Where recorded calls run again.
    pub fn redo_place(&self) -> RedoPlace {
        let reason = match self.sandbox.as_deref().map(|sandbox| sandbox.level(LEVEL_WITHIN)) {
            Some(Some(level)) if level.is_full() => return RedoPlace::Workers,
            Some(Some(level)) => format!("workers cannot be locked in here: {level}"),
            Some(None) => "the process that starts workers does not answer".to_owned(),
            None => "this server starts no worker processes".to_owned(),
        };
        RedoPlace::WithCalls { reason }
    }

    /// Compiles a module where its instances are to run, which evaluates its top level.
    pub fn compile(
        &self,
        bundle: &SourceBundle,
        mode: IsolationMode,
        cache: Option<&CodeCache>,
    ) -> Result<Arc<CompiledModule>, HostError> {
        let compiled: Result<_, CompileError> = match mode {
            IsolationMode::InProcess => tine_module::compile_with_cache(bundle, &self.limits, cache),
            IsolationMode::Process => tine_module::compile_isolated(bundle, &self.limits, self.isolation()?),
        };
        Ok(compiled?)
    }

    pub fn make(&self, module: &ActiveModule) -> Result<Instance, HostError> {
        match self.mode(module.isolation) {
            IsolationMode::InProcess => Ok(module.compiled.instantiate(&module.schema, &self.limits)?),
            IsolationMode::Process => {
                Ok(module.compiled.instantiate_isolated(&module.schema, &self.limits, self.isolation()?)?)
            }
        }
    }

    fn isolation(&self) -> Result<&Isolation, HostError> {
        if let Some(isolation) = self.isolation.get() {
            return Ok(isolation);
        }
        let sandbox = self.sandbox.as_ref().ok_or(HostError::NoWorkers)?;
        let started = Isolation::start(sandbox, &self.limits).map_err(|_| HostError::NoWorkers)?;
        // A second thread that was as quick has made a pool without a worker.
        Ok(self.isolation.get_or_init(|| started))
    }
}

#[cfg(test)]
mod tests {
    use super::IsolationMode;

    #[test]
    fn modes_are_read_as_they_are_written() {
        for mode in IsolationMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("processes".parse::<IsolationMode>().is_err());
    }
}
