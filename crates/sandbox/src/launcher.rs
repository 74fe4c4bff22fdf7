//! The server's hold on its zygote.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tine_base::descriptors::receive_with_descriptors;

use crate::harden::check;
use crate::wire::{LAUNCH_DESCRIPTORS, Launch, MESSAGE_BYTES_MAX, Report, socket_pair, unblock};
use crate::zygote;

/// A zygote process.
#[derive(Debug)]
pub(crate) struct Zygote {
    child: Child,
    pidfd: OwnedFd,
    socket: OwnedFd,
}

/// What came from the zygote's socket.
#[derive(Debug)]
pub(crate) enum News {
    Report(Report, Option<OwnedFd>),
    Nothing,
    /// The zygote is gone or talks nonsense.
    Lost,
}

impl Zygote {
    /// Starts the program as a zygote. Without a hook between fork and exec, so that this thread alone is held up, and not for long,
    /// whatever the size of this process.
    pub(crate) fn start(program: &Path) -> io::Result<Zygote> {
        let (socket, theirs) = socket_pair()?;
        unblock(&socket)?;
        let child = Command::new(program)
            .arg0("tine-zygote")
            .arg(zygote::ARGUMENT)
            .arg(std::process::id().to_string())
            .env_clear()
            // Not to be ended by a terminal's interrupt, which is for the server to act on.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let pidfd = pidfd_open(child.id() as i32)?;
        Ok(Zygote { child, pidfd, socket })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Asks for a worker.
    pub(crate) fn launch(&self, launch: &Launch, descriptors: [&dyn AsFd; LAUNCH_DESCRIPTORS]) -> io::Result<()> {
        zygote::send_launch(self.socket.as_fd(), launch, descriptors.map(|descriptor| descriptor.as_fd()))
    }

    pub(crate) fn news(&self) -> News {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        match receive_with_descriptors(self.socket.as_fd(), &mut buffer, 1) {
            Ok((0, _)) => News::Lost,
            Ok((received, mut descriptors)) => match Report::decode(&buffer[..received]) {
                Some(report) => News::Report(report, descriptors.pop()),
                None => News::Lost,
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                News::Nothing
            }
            Err(_) => News::Lost,
        }
    }

    /// Kills it; reaping is the caller's, by [`Zygote::try_reap`].
    pub(crate) fn kill(&mut self) {
        // Fails only when it is reaped already.
        let _ = self.child.kill();
    }

    /// Whether it ended, and is reaped now.
    pub(crate) fn try_reap(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// A descriptor that means a process, also when its number is used again.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes plain numbers; the descriptor returned is ours alone.
    unsafe {
        let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        check(descriptor as libc::c_int)?;
        Ok(OwnedFd::from_raw_fd(descriptor as RawFd))
    }
}

/// Whether the process is a child of this one that is not reaped.
pub(crate) fn is_child(pidfd: &OwnedFd) -> bool {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is valid for a whole `siginfo_t`, which is not read.
    unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, info.as_mut_ptr(), flags) == 0 }
}
