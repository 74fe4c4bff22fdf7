//! Passing open descriptors over a Unix socket, and knowing who is on its other end.
//!
//! Invariants:
//! - Descriptors are received close-on-exec, owned from the moment the kernel hands them over, and never more than asked for: what is
//!   over is closed by the kernel, and the call fails.
//! - Nothing here raises SIGPIPE.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors in one message at most: enough for a region and a bell per direction, with room to grow.
pub const DESCRIPTORS_MAX: usize = 8;

/// Room for the control message that carries [`DESCRIPTORS_MAX`] descriptors, aligned as its header needs.
#[repr(align(16))]
struct ControlBuffer([u8; 128]);

/// Who is on the other end of a connected Unix socket, as the kernel saw it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    /// Process.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Sends `bytes` with `descriptors` attached to the first of them. Returns how many bytes went out, at least one.
///
/// # Errors
/// What the kernel says. `InvalidInput` for no bytes (descriptors need one to travel with) or more than [`DESCRIPTORS_MAX`]
/// descriptors.
pub fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "descriptors need a byte and a message has a fixed number of them",
        ));
    }
    let payload_bytes = size_of_val(descriptors) as libc::c_uint;
    let mut control = ControlBuffer([0; 128]);
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is valid and empty.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    // SAFETY: the control buffer is aligned and larger than CMSG_SPACE of the most descriptors allowed, so that the header and the
    // numbers written behind it are inside; the message refers to buffers on this stack for the length of the call only.
    let sent = unsafe {
        if !descriptors.is_empty() {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(payload_bytes) as _;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload_bytes) as _;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (position, descriptor) in descriptors.iter().enumerate() {
                data.add(position).write_unaligned(descriptor.as_raw_fd());
            }
        }
        libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives bytes into `buffer` and the descriptors that came with them, at most `descriptors_max`. Zero bytes: the other side has
/// closed.
///
/// # Errors
/// What the kernel says. `InvalidData` when more descriptors came than allowed; all of them are closed then.
///
/// # Panics
/// When `descriptors_max` is above [`DESCRIPTORS_MAX`].
pub fn receive_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors_max: usize,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    assert!(descriptors_max <= DESCRIPTORS_MAX, "a message has a fixed number of descriptors");
    let mut control = ControlBuffer([0; 128]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut descriptors = Vec::new();
    // SAFETY: the message refers to buffers on this stack for the length of the call; the kernel writes whole control messages into
    // the control buffer and says how long they are; each number it passes is a descriptor that it has just opened for us alone.
    let (received, flags) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as libc::c_uint) as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let payload_bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for position in 0..payload_bytes / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(data.add(position).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
        (received as usize, message.msg_flags)
    };
    if flags & libc::MSG_CTRUNC != 0 || descriptors.len() > descriptors_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more descriptors came than are allowed here"));
    }
    Ok((received, descriptors))
}

/// Who made the other end of a connected Unix socket.
///
/// # Errors
/// What the kernel says, for example for a socket that is not connected.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: pointer and length describe a `ucred` on this stack.
    let status = unsafe {
        let target: *mut libc::ucred = &mut credentials;
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, target.cast(), &mut bytes)
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCredentials { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pipe_travels_over_a_socket() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let sent = send_with_descriptors(left.as_fd(), b"with", &[writer.as_fd()]).expect("sent");
        assert_eq!(sent, 4);
        drop(writer);
        let mut buffer = [0; 16];
        let (received, mut descriptors) = receive_with_descriptors(right.as_fd(), &mut buffer, 1).expect("received");
        assert_eq!(&buffer[..received], b"with");
        let mut far = std::fs::File::from(descriptors.pop().expect("one descriptor"));
        far.write_all(b"hello").expect("the pipe is open");
        drop(far);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[test]
    fn descriptors_that_nobody_asked_for_are_closed() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        send_with_descriptors(left.as_fd(), b"x", &[writer.as_fd(), writer.as_fd()]).expect("sent");
        drop(writer);
        let error = receive_with_descriptors(right.as_fd(), &mut [0; 16], 1).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // The end of the pipe shows that no copy of the writing end is left.
        assert_eq!(reader.read(&mut [0; 1]).expect("read"), 0);
    }

    #[test]
    fn the_end_of_a_peer_is_no_signal() {
        let (left, right) = UnixStream::pair().expect("pair");
        drop(right);
        let error = send_with_descriptors(left.as_fd(), b"x", &[]).expect_err("closed");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(receive_with_descriptors(left.as_fd(), &mut [0; 4], 0).expect("end").0, 0);
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (left, _right) = UnixStream::pair().expect("pair");
        let credentials = peer_credentials(left.as_fd()).expect("credentials");
        assert_eq!(credentials.pid, std::process::id() as i32);
    }
}
