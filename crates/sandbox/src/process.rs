//! A worker process as the server sees it.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use tine_base::event::Event;
use tine_base::slots::HostEnd;

use crate::error::{Death, KillCause};
use crate::key::Key;
use crate::metrics::add;
use crate::pool::PoolShared;
use crate::schedule::{self, Urgency};

/// Names one worker process for as long as the sandbox lives; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// A worker that was launched and not yet reaped. Its memory is unmapped by the supervisor, never by a caller.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: WorkerId,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) end: HostEnd,
    pub(crate) event: Event,
    pub(crate) pool: Arc<PoolShared>,
    /// Whom it works for, once and for ever.
    pub(crate) key: OnceLock<Arc<Key>>,
    /// When its end was decided or noticed.
    pub(crate) ended: Mutex<Option<Instant>>,
    /// A [`KillCause`], or 0.
    killed: AtomicU8,
    /// What [`Process::set_hot`] last said.
    is_hot: AtomicBool,
}

impl Process {
    pub(crate) fn new(
        id: WorkerId,
        pid: i32,
        pidfd: OwnedFd,
        end: HostEnd,
        event: Event,
        pool: Arc<PoolShared>,
    ) -> Process {
        Process {
            id,
            pid,
            pidfd,
            end,
            event,
            pool,
            key: OnceLock::new(),
            ended: Mutex::new(None),
            killed: AtomicU8::new(0),
            is_hot: AtomicBool::new(false),
        }
    }

    /// Whether many short requests come that nobody attends. The worker then does not interrupt the thread that woke it: more is to
    /// come from there, and the two take turns less often. One that is asked now and then runs at once, also where every core is
    /// busy. For the supervisor, who reaps: until then nobody else can have the process's number.
    pub(crate) fn set_hot(&self, is_hot: bool) {
        if self.is_hot.swap(is_hot, Ordering::Relaxed) == is_hot {
            return;
        }
        self.end.set_hot(is_hot);
        schedule::set(self.pid, if is_hot { Urgency::AfterOthers } else { Urgency::Now });
    }

    /// Kills the process; the supervisor reaps it. The first cause counts.
    pub(crate) fn kill(&self, cause: KillCause) {
        if self.killed.compare_exchange(0, cause as u8, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return;
        }
        *self.ended.lock() = Some(Instant::now());
        add(&self.pool.sandbox.metrics.kills[cause as usize], 1);
        // SAFETY: takes plain numbers and a null where that is allowed. The descriptor means this process even after it ended, when
        // the call fails and nothing is left to do.
        unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, none, 0);
        }
    }

    /// Why this server killed it, if it did.
    pub(crate) fn kill_cause(&self) -> Option<KillCause> {
        let killed = self.killed.load(Ordering::Acquire);
        KillCause::ALL.into_iter().find(|&cause| cause as u8 == killed)
    }

    /// Collects the exit status, if the process has ended.
    pub(crate) fn try_reap(&self) -> Option<Death> {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the pointer is valid for a whole `siginfo_t`, which an all-zero pattern is a value of; the fields read are those
        // that the kernel fills for a child.
        let (pid, code, status) = unsafe {
            let flags = libc::WEXITED | libc::WNOHANG;
            let id = self.pidfd.as_raw_fd() as libc::id_t;
            if libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), flags) != 0 {
                // Only who reaped it before makes this fail: a host that waits for children that are not its own.
                return Some(Death::Exited(-1));
            }
            let info = info.assume_init();
            (info.si_pid(), info.si_code, info.si_status())
        };
        if pid == 0 {
            return None;
        }
        Some(match (self.kill_cause(), code) {
            (Some(cause), _) => Death::Killed(cause),
            (None, libc::CLD_EXITED) => Death::Exited(status),
            (None, _) if status == libc::SIGSYS => Death::Forbidden,
            (None, _) => Death::Signalled(status),
        })
    }

    /// Takes the replies that are there; for whoever waits for the event, which is rung at the next one.
    pub(crate) fn drain(self: &Arc<Self>) {
        while self.drain_once() {}
    }

    /// Takes the replies that are there. `true`: several came together, and no ring was asked for.
    pub(crate) fn drain_once(self: &Arc<Self>) -> bool {
        let Some(key) = self.key.get() else { return false };
        loop {
            let bits = self.end.take_completed();
            if bits == 0 && self.end.arm() {
                return false;
            }
            if bits != 0 {
                key.completed(self, bits);
            }
            if bits.count_ones() > 1 {
                return true;
            }
        }
    }
}

/// What a worker uses, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes, shared pages included.
    pub resident_bytes: u64,
    /// Processor time in microseconds.
    pub cpu_us: u64,
}

impl Usage {
    /// Of a process that is alive; `None` when it cannot be read.
    pub(crate) fn of(pid: i32) -> Option<Usage> {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let resident_pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which is in parentheses and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        // SAFETY: takes a plain number.
        let ticks_per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|&n| n > 0)?;
        Some(Usage {
            resident_bytes: resident_pages * tine_base::memory::page_bytes() as u64,
            cpu_us: ticks * 1_000_000 / ticks_per_second,
        })
    }
}
