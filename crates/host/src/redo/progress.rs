//! Telling whoever waits how far a long run is, and being told to stop.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Time between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Events between two looks at the clock.
const EVENTS_PER_LOOK: u64 = 64;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedoProgress {
    /// Calls and other commits that were gone through.
    pub events: u64,
    /// Calls that were run again.
    pub calls: u64,
    /// The last recorded LSN that was gone through.
    pub lsn: u64,
    /// The first one of the run.
    pub from: u64,
    /// The last one of the run.
    pub to: u64,
}

/// Takes reports; [`ControlFlow::Break`] stops the run at the next call.
pub type RedoStep<'a> = &'a mut dyn FnMut(RedoProgress) -> ControlFlow<()>;

/// Counts a run and reports it now and then.
pub(super) struct Reporter<'a> {
    pub progress: RedoProgress,
    step: RedoStep<'a>,
    reported: Instant,
}

impl<'a> Reporter<'a> {
    pub fn new(from: u64, to: u64, step: RedoStep<'a>) -> Reporter<'a> {
        let progress = RedoProgress { events: 0, calls: 0, lsn: from.saturating_sub(1), from, to };
        Reporter { progress, step, reported: Instant::now() }
    }

    /// Notes one event; break: somebody wants the run to stop.
    pub fn passed(&mut self, lsn: u64, is_call: bool) -> ControlFlow<()> {
        self.progress.events += 1;
        self.progress.calls += u64::from(is_call);
        self.progress.lsn = self.progress.lsn.max(lsn);
        if !self.progress.events.is_multiple_of(EVENTS_PER_LOOK) || self.reported.elapsed() < REPORT_EVERY {
            return ControlFlow::Continue(());
        }
        self.report()
    }

    /// Reports now.
    pub fn report(&mut self) -> ControlFlow<()> {
        self.reported = Instant::now();
        (self.step)(self.progress)
    }
}
