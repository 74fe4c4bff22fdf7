//! The zygote: a copy of the program that does nothing but start workers.
//!
//! It is a fresh execution of the program, not a fork of the server: its memory holds nothing of the server's, it has one thread
//! however many the server has, and it is small, so that a fork of it costs tens of microseconds whatever the server's size. It makes
//! workers the *server's* children (`CLONE_PARENT`), so that the server reaps them and a zygote that dies takes nobody along.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use seccompiler::BpfProgram;
use tine_base::descriptors::{receive_with_descriptors, send_with_descriptors};

use crate::entry::Entry;
use crate::harden;
use crate::level::{Level, Probe};
use crate::schedule::{self, Urgency};
use crate::wire::{LAUNCH_DESCRIPTORS, Launch, MESSAGE_BYTES_MAX, Report};
use crate::worker::Start;

/// The argument that turns a program into its own zygote; the server's process id follows.
pub(crate) const ARGUMENT: &str = "--tine-sandbox-zygote";
/// Where the zygote finds its socket: its standard input, since that is what a spawned program can be handed.
const SOCKET: RawFd = 0;
/// Memory a self-test may use.
const PROBE_MEMORY_BYTES: u64 = 64 << 20;

/// Serves the server until it is gone, then exits.
pub(crate) fn run(server_pid: i32, entries: &[Entry]) -> ! {
    harden::set_name(c"tine-zygote");
    // The supervisor, which started this process, is patient; workers are not.
    schedule::set(0, Urgency::Now);
    // SAFETY: the server passed its socket as this descriptor and nothing else in this process refers to it.
    let socket = unsafe { OwnedFd::from_raw_fd(SOCKET) };
    match serve(socket, server_pid, entries) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("the zygote ends: {error}");
            std::process::exit(1)
        }
    }
}

fn serve(socket: OwnedFd, server_pid: i32, entries: &[Entry]) -> io::Result<()> {
    let inherited = harden::zygote()?;
    // After the change of credentials, which takes the setting back.
    harden::die_with(server_pid)?;
    let filter = harden::filter().ok();
    let level = self_test(inherited, filter.as_ref());
    send_with_descriptors(socket.as_fd(), &Report::Hello(level).encode(), &[])?;
    loop {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let (received, descriptors) = receive_with_descriptors(socket.as_fd(), &mut buffer, LAUNCH_DESCRIPTORS)?;
        if received == 0 {
            return Ok(());
        }
        let launch = Launch::decode(&buffer[..received]).ok_or_else(|| io::Error::other("a message makes no sense"))?;
        let [region, event, stderr]: [OwnedFd; LAUNCH_DESCRIPTORS] =
            descriptors.try_into().map_err(|_| io::Error::other("a launch comes with three descriptors"))?;
        let entry = entries.iter().find(|entry| entry.name() == launch.entry);
        let report = match (entry, clone_sibling()) {
            (None, _) => Report::Failed { launch: launch.launch, error: libc::ENOENT },
            (Some(_), Err(error)) => {
                Report::Failed { launch: launch.launch, error: error.raw_os_error().unwrap_or(libc::EIO) }
            }
            (Some(entry), Ok(Cloned::Child)) => {
                drop(socket);
                entry.run(Start { launch, region, event, stderr, filter })
            }
            (Some(_), Ok(Cloned::Parent { pid, pidfd })) => {
                let report = Report::Launched { launch: launch.launch, pid };
                send_with_descriptors(socket.as_fd(), &report.encode(), &[pidfd.as_fd()])?;
                continue;
            }
        };
        send_with_descriptors(socket.as_fd(), &report.encode(), &[])?;
    }
}

enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Forks a process that is a child of this one's parent.
fn clone_sibling() -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero `clone_args` is a valid request for a plain fork.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    // SAFETY: without shared memory this is a fork: the child continues on a copy of this stack. This process has one thread, so no
    // lock is held by anybody else. The pidfd, when there is one, is ours alone.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>());
        match pid {
            0 => Ok(Cloned::Child),
            1.. => Ok(Cloned::Parent { pid: pid as i32, pidfd: OwnedFd::from_raw_fd(pidfd) }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Tries every forbidden call in a process of its own that is hardened like a worker.
fn self_test(inherited: harden::Inherited, filter: Option<&BpfProgram>) -> Level {
    let mut level = Level {
        landlock_abi: inherited.landlock_abi,
        namespaces: inherited.namespaces,
        seccomp: filter.is_some(),
        tried: 0,
        refused: 0,
    };
    for probe in Probe::ALL {
        match try_probe(probe, filter) {
            Ok(ProbeEnd::Possible) => level.tried |= probe.bit(),
            Ok(ProbeEnd::Refused) => {
                level.tried |= probe.bit();
                level.refused |= probe.bit();
            }
            Ok(ProbeEnd::NotHardened) | Err(_) => level.seccomp = false,
        }
    }
    level
}

enum ProbeEnd {
    Possible,
    Refused,
    NotHardened,
}

fn try_probe(probe: Probe, filter: Option<&BpfProgram>) -> io::Result<ProbeEnd> {
    /// Exit statuses of the process that tries.
    const POSSIBLE: i32 = 10;
    const REFUSED: i32 = 11;
    const NOT_HARDENED: i32 = 12;
    // SAFETY: this process has one thread; the child ends without running anything of the parent's.
    let child = unsafe { libc::fork() };
    harden::check(child)?;
    if child == 0 {
        let hardened = harden::limits(PROBE_MEMORY_BYTES).is_ok() && apply(filter).is_ok();
        let status = match hardened {
            false => NOT_HARDENED,
            true if probe.attempt() => POSSIBLE,
            true => REFUSED,
        };
        // SAFETY: ends the process.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: the child is ours and the pointer valid. It computes for microseconds and cannot wait for anything.
    harden::check(unsafe { libc::waitpid(child, &mut status, 0) })?;
    Ok(match (libc::WIFEXITED(status), libc::WEXITSTATUS(status)) {
        (true, POSSIBLE) => ProbeEnd::Possible,
        (true, REFUSED) => ProbeEnd::Refused,
        (true, _) => ProbeEnd::NotHardened,
        (false, _) => ProbeEnd::Refused,
    })
}

fn apply(filter: Option<&BpfProgram>) -> Result<(), seccompiler::Error> {
    filter.map_or(Ok(()), |filter| seccompiler::apply_filter(filter))
}

/// The socket as the server's side of a launch needs it.
pub(crate) fn send_launch(
    socket: BorrowedFd<'_>,
    launch: &Launch,
    descriptors: [BorrowedFd<'_>; LAUNCH_DESCRIPTORS],
) -> io::Result<()> {
    send_with_descriptors(socket, &launch.encode(), &descriptors).map(drop)
}
