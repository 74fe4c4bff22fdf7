//! Who runs first where two want one core: the one who was woken, or the one who woke it.

/// How soon a thread runs that was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// At once, also where every core is busy.
    Now,
    /// When whoever runs there sleeps, or has had its time.
    AfterOthers,
}

/// Sets it for the thread `pid`, or for this one if that is 0. Where the kernel refuses, things stay as they were.
pub(crate) fn set(pid: i32, urgency: Urgency) {
    let policy = match urgency {
        Urgency::Now => libc::SCHED_OTHER,
        Urgency::AfterOthers => libc::SCHED_BATCH,
    };
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure lives on this stack and is only read.
    unsafe { libc::sched_setscheduler(pid, policy, &priority) };
}
