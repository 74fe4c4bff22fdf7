//! Paths: which transport they mean, and taking one over without taking it from a live server.
//!
//! A socket file outlives its server, so a file alone says nothing. Whoever wants to listen takes a lock on the directory for the
//! moment it needs, tries to connect, and only replaces a file behind which nobody answers. The lock is the kernel's and needs no
//! file, so there is nothing to clean up.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{ListenError, PathError};
use crate::link::checked;

/// Connections the kernel holds for a server that is busy.
const BACKLOG: libc::c_int = 1024;
/// How long somebody else may take to open a socket in the same directory.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
/// Sockets may be used by their owner only.
const MODE: libc::mode_t = 0o600;

/// What a path says about how to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `.sock`: frames go through the socket.
    Socket,
    /// `.shm`: frames go through shared memory, which the socket hands over.
    SharedMemory,
}

/// Which transport a path means, by its suffix.
///
/// # Errors
/// [`PathError`] for any other suffix, and for a path that is longer than the 107 bytes the kernel has room for.
pub fn transport(path: &Path) -> Result<Transport, PathError> {
    let fits = address(path).is_some();
    match path.extension().and_then(OsStr::to_str) {
        Some("sock") if fits => Ok(Transport::Socket),
        Some("shm") if fits => Ok(Transport::SharedMemory),
        _ => Err(PathError(path.to_owned())),
    }
}

fn address(path: &Path) -> Option<libc::sockaddr_un> {
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return None;
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (target, &byte) in address.sun_path.iter_mut().zip(bytes) {
        *target = byte as libc::c_char;
    }
    Some(address)
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes plain numbers; the kernel has just opened the descriptor for us.
    unsafe {
        let descriptor = checked(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Connects a stream socket to `path`. Blocks only while the server's backlog is full, and then for `limit` at most.
pub(crate) fn connect(path: &Path, limit: Duration) -> io::Result<OwnedFd> {
    let address = address(path).ok_or(io::ErrorKind::InvalidInput)?;
    let socket = socket()?;
    set_send_limit(&socket, limit)?;
    // SAFETY: pointer and length describe the address on this stack.
    checked(unsafe {
        libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    })?;
    Ok(socket)
}

/// How long a blocking `connect` (and `send`, which is not used here) may take.
fn set_send_limit(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    let limit = libc::timeval {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(limit.subsec_micros().max(1)),
    };
    set_option(socket, libc::SO_SNDTIMEO, &limit)
}

/// How long a blocking `recv` waits.
pub(crate) fn set_receive_limit(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    let limit = libc::timeval {
        tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(limit.subsec_micros().max(1)),
    };
    set_option(socket, libc::SO_RCVTIMEO, &limit)
}

fn set_option<T>(socket: &OwnedFd, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`.
    checked(unsafe {
        let value: *const T = value;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value.cast(), size_of::<T>() as libc::socklen_t)
    })
    .map(drop)
}

/// A listening socket. Dropping it removes its file, if the file is still its own.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl ListenSocket {
    /// Listens at `path`, replacing what a dead server left there.
    pub fn bind(path: &Path) -> Result<ListenSocket, ListenError> {
        let io_error = |source: io::Error| ListenError::Io { path: path.to_owned(), source };
        let address = address(path).ok_or_else(|| PathError(path.to_owned()))?;
        let _lock = lock_directory(path).map_err(io_error)?;
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(error)),
            Ok(status) if !status.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
            Ok(_) => match connect(path, LOCK_PAUSE) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(io_error)?;
                }
                // Any other answer, a full backlog too, is a sign of life.
                _ => return Err(ListenError::InUse(path.to_owned())),
            },
        }
        let socket = socket().map_err(io_error)?;
        let open = || -> io::Result<(u64, u64)> {
            // SAFETY: plain numbers, and pointer and length of the address on this stack. The mode of the socket before it is bound
            // is the mode its file gets, less the umask: nobody else can connect, at no moment.
            unsafe {
                checked(libc::fchmod(socket.as_raw_fd(), MODE))?;
                let bytes = size_of_val(&address) as libc::socklen_t;
                checked(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), bytes))?;
                checked(libc::listen(socket.as_raw_fd(), BACKLOG))?;
                let flags = checked(libc::fcntl(socket.as_raw_fd(), libc::F_GETFL))?;
                checked(libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
            }
            let status = std::fs::symlink_metadata(path)?;
            Ok((status.dev(), status.ino()))
        };
        let file = open().map_err(io_error)?;
        Ok(ListenSocket { socket, path: path.to_owned(), file })
    }

    /// The next connection; `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        // SAFETY: no address is asked for; the kernel has just opened the descriptor for us.
        unsafe {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let descriptor =
                checked(libc::accept4(self.socket.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags))?;
            Ok(OwnedFd::from_raw_fd(descriptor))
        }
    }
}

impl AsRawFd for ListenSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for ListenSocket {
    fn drop(&mut self) {
        let Ok(_lock) = lock_directory(&self.path) else { return };
        let own = std::fs::symlink_metadata(&self.path).is_ok_and(|status| (status.dev(), status.ino()) == self.file);
        if own {
            // A file that cannot be removed is replaced by the next server.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Holds the lock on the directory of `path` until the file is closed.
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory)?;
    let started = Instant::now();
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(_) if started.elapsed() < LOCK_LIMIT => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn suffixes_say_how_to_talk() {
        for (path, expected) in [
            ("/run/a.sock", Some(Transport::Socket)),
            ("a.shm", Some(Transport::SharedMemory)),
            ("a.socket", None),
            ("sock", None),
            ("", None),
        ] {
            assert_eq!(transport(Path::new(path)).ok(), expected, "{path}");
        }
        assert!(transport(Path::new(&format!("/{}.sock", "x".repeat(120)))).is_err());
    }

    #[test]
    fn the_dead_are_replaced_and_the_living_are_not() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("a.sock");
        let first = ListenSocket::bind(&path).expect("free");
        assert_eq!(std::fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
        assert_eq!(ListenSocket::bind(&path).expect_err("in use").code(), "TN0902");
        connect(&path, Duration::from_secs(1)).expect("the first one still listens");
        drop(first);
        assert!(!path.exists(), "an orderly end leaves nothing");
        // What a killed server leaves: a file, and nobody behind it.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        let second = ListenSocket::bind(&path).expect("taken over");
        // A file that somebody else put there meanwhile stays.
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "mine").expect("written");
        drop(second);
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "mine");
        assert_eq!(ListenSocket::bind(&path).expect_err("no socket").code(), "TN0903");
        let missing = directory.path().join("missing").join("a.sock");
        assert_eq!(ListenSocket::bind(&missing).expect_err("no directory").code(), "TN0905");
    }
}
