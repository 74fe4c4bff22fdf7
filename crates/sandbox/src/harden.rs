//! Locking processes in.
//!
//! What can be inherited is done once, by the zygote: namespaces, capabilities, no_new_privs and landlock cost a worker nothing. What
//! depends on the worker, or would stop the zygote from working, is done in the worker, in this order: death with the server, limits,
//! descriptors, and last the filter of system calls, after which nothing can be opened, started, signalled or traced.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Where a worker's standard error goes.
pub(crate) const STDERR: RawFd = 2;
/// Where a worker keeps the event that it rings.
pub(crate) const EVENT: RawFd = 3;

/// What the zygote achieved for itself and all its children.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited {
    pub(crate) namespaces: bool,
    pub(crate) landlock_abi: u32,
}

/// Gives up everything a zygote does not need. Each step that the machine does not allow is left out and reported.
pub(crate) fn zygote() -> io::Result<Inherited> {
    let spaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    // SAFETY: takes plain numbers; this process has one thread.
    let namespaces = unsafe { libc::unshare(spaces) } == 0;
    drop_capabilities()?;
    // SAFETY: takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    Ok(Inherited { namespaces, landlock_abi: landlock() })
}

fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, which has two groups of three words.
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    let sets = [0u32; 6];
    // SAFETY: both arrays have the layout and size that this version of the call reads.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) } as libc::c_int)
}

/// Denies all access to files (and, where known, ports, abstract sockets and signals) for this process and its children. Returns the
/// version in force, 0 if there is none.
fn landlock() -> u32 {
    #[derive(Default)]
    #[repr(C)]
    struct Ruleset {
        files: u64,
        ports: u64,
        scopes: u64,
    }
    const CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: asks for the version only, which takes no structure.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, CREATE_RULESET_VERSION)
    };
    let Ok(version @ 1..) = u32::try_from(version) else { return 0 };
    // The rights each version knows; a right that a kernel does not know is an error, so newer ones are left out.
    let file_rights = match version {
        1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let ruleset = Ruleset {
        files: (1 << file_rights) - 1,
        ports: if version >= 4 { 0b11 } else { 0 },
        scopes: if version >= 6 { 0b11 } else { 0 },
    };
    let bytes: usize = match version {
        1..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    // SAFETY: `bytes` is at most the size of the structure; the descriptor returned is ours alone.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const ruleset, bytes, 0u32);
        if descriptor < 0 {
            return 0;
        }
        let descriptor = OwnedFd::from_raw_fd(descriptor as RawFd);
        match libc::syscall(libc::SYS_landlock_restrict_self, descriptor.as_raw_fd(), 0u32) {
            0 => version,
            _ => 0,
        }
    }
}

/// Makes this process die with its parent, which must be `parent`.
///
/// # Errors
/// When the parent is already another one, or the kernel refuses.
pub(crate) fn die_with(parent: i32) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    // A parent that died before the call above sends no signal any more.
    // SAFETY: has no arguments.
    if unsafe { libc::getppid() } != parent {
        return Err(io::Error::other("the parent is gone"));
    }
    Ok(())
}

/// Names this process for `ps`; at most 15 bytes are kept.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the string ends with zero and is only read. A name is cosmetic, so failing is of no interest.
    let _ = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// How far a worker's stack may grow: parsers of foreign text recurse. The kernel keeps at least 128 MiB of addresses free below it.
const STACK_BYTES: u64 = 112 << 20;

/// Lets the stack grow as far as is allowed here. Only what is used takes memory.
fn raise_stack_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the structure, which lives on this stack. A stack that stays as it is is no danger.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_STACK, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(STACK_BYTES);
            libc::setrlimit(libc::RLIMIT_STACK, &limit);
        }
    }
}

/// Limits of a worker whose private memory may grow to `memory_bytes`.
pub(crate) fn limits(memory_bytes: u64) -> io::Result<()> {
    raise_stack_limit();
    let limits = [
        (libc::RLIMIT_DATA, memory_bytes),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_NOFILE, EVENT as u64 + 1),
    ];
    for (resource, value) in limits {
        let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
        // SAFETY: the structure lives on this stack and is only read.
        check(unsafe { libc::setrlimit(resource, &limit) })?;
    }
    Ok(())
}

/// Closes every descriptor but standard output and error and the event.
pub(crate) fn close_descriptors() -> io::Result<()> {
    // SAFETY: takes plain numbers. Descriptors owned by values of this process are closed behind their backs, which is why this runs
    // only where nothing is dropped any more: a hardened worker ends by exiting.
    unsafe {
        libc::close(0);
        check(libc::syscall(libc::SYS_close_range, EVENT as u32 + 1, u32::MAX, 0u32) as libc::c_int)
    }
}

/// The filter of a worker's system calls. Kills by default.
///
/// Besides computing, a worker may wait on a word, grow its memory, tell the time, write to its log and ring its event.
pub(crate) fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let free = [
        libc::SYS_futex,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_sched_yield,
        libc::SYS_getcpu,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_getrandom,
    ];
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        free.into_iter().map(|call| (call, Vec::new())).collect();
    let is = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    let masked = |argument, mask, value| condition(argument, SeccompCmpOp::MaskedEq(mask), value);
    let descriptors = [1, STDERR as u64, EVENT as u64];
    let writes = descriptors.map(|descriptor| SeccompRule::new(vec![is(0, descriptor)?]));
    rules.insert(libc::SYS_write, writes.into_iter().collect::<Result<_, _>>()?);
    let not_executable = || masked(2, libc::PROT_EXEC as u64, 0);
    let anonymous = (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE) as u64;
    let mapping = SeccompRule::new(vec![not_executable()?, masked(3, anonymous, anonymous)?])?;
    rules.insert(libc::SYS_mmap, vec![mapping]);
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![not_executable()?])?]);
    // Allocators name their mappings.
    rules.insert(libc::SYS_prctl, vec![SeccompRule::new(vec![is(0, libc::PR_SET_VMA as u64)?])?]);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

pub(crate) fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
