//! Telling systemd how far the server is: `Type=notify` units.
//!
//! The protocol is one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names; a name
//! that begins with `@` is in Linux's abstract namespace. Nobody answers, and a server that cannot tell
//! runs all the same, so failing is only logged.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The server takes requests.
pub const READY: &str = "READY=1";
/// The server is about to end.
pub const STOPPING: &str = "STOPPING=1";

/// Sends `state` to the service manager, if there is one that wants to know.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, socket = %socket.display(), state, "the service manager cannot be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A full queue must not hold up the server.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::{READY, STOPPING, send};

    #[test]
    fn states_arrive_on_sockets_of_both_kinds() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let name = format!("tine-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&abstract_address).expect("bound");
        let at_name = format!("@{name}");
        for (socket, address) in [(&by_path, path.as_os_str()), (&by_name, at_name.as_ref())] {
            for state in [READY, STOPPING] {
                send(address, state).expect("sent");
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer).expect("received");
                assert_eq!(&buffer[..length], state.as_bytes());
            }
        }
        assert!(send(folder.path().join("nobody").as_os_str(), READY).is_err());
    }
}
