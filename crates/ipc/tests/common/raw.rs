//! Speaking the protocol by hand, well or badly.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tine_base::descriptors::receive_with_descriptors;
use tine_base::event::Event;
use tine_base::memory::SharedMemory;

use super::SOON;

pub const REQUEST: u8 = 1;
pub const REPLY: u8 = 16;
pub const ERROR: u8 = 17;
pub const CLOSING: u8 = 20;
pub const HELLO: u8 = 32;
pub const WELCOME: u8 = 33;
pub const REFUSED: u8 = 34;

pub fn frame(kind: u8, id: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, id, payload.len() as u32).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

pub fn header(kind: u8, id: u64, payload_bytes: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&payload_bytes.to_le_bytes());
    bytes[4] = kind;
    bytes[8..].copy_from_slice(&id.to_le_bytes());
    bytes
}

/// A Hello of version 1 with these flags: 1 completion order, 2 shared memory.
pub fn hello(flags: u32, schema: [u8; 32]) -> Vec<u8> {
    let mut payload = b"TINE-IPC".to_vec();
    payload.extend_from_slice(&[1, 0, 1, 0]);
    payload.extend_from_slice(&flags.to_le_bytes());
    payload.extend_from_slice(&schema);
    payload.extend_from_slice(&(64u32 << 20).to_le_bytes());
    frame(HELLO, 0, &payload)
}

/// A connected socket on which no read waits for ever.
pub fn connect(path: &Path) -> UnixStream {
    let socket = UnixStream::connect(path).expect("connected");
    socket.set_read_timeout(Some(SOON)).expect("option");
    socket.set_write_timeout(Some(SOON)).expect("option");
    socket
}

/// The next frame; None: the other side has closed.
pub fn read_frame(socket: &mut UnixStream) -> Option<(u8, u64, Vec<u8>)> {
    let mut header = [0; 16];
    match socket.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no frame in time"),
        Err(_) => return None,
    }
    let mut payload = vec![0; u32::from_le_bytes(header[..4].try_into().expect("four")) as usize];
    socket.read_exact(&mut payload).expect("a whole frame");
    Some((header[4], u64::from_le_bytes(header[8..].try_into().expect("eight")), payload))
}

/// Connects and shakes hands for a socket.
pub fn open(path: &Path) -> UnixStream {
    let mut socket = connect(path);
    socket.write_all(&hello(0, [3; 32])).expect("written");
    assert_eq!(read_frame(&mut socket).expect("an answer").0, WELCOME);
    socket
}

/// The code of an error frame.
pub fn code(payload: &[u8]) -> String {
    let length = usize::from(u16::from_le_bytes([payload[0], payload[1]]));
    String::from_utf8(payload[2..2 + length].to_vec()).expect("text")
}

/// A client of shared memory that may write what it likes.
pub struct RawRings {
    pub socket: UnixStream,
    pub memory: SharedMemory,
    pub server_bell: Event,
    pub others: Vec<OwnedFd>,
}

pub fn open_rings(path: &Path) -> RawRings {
    let mut socket = connect(path);
    socket.write_all(&hello(2, [3; 32])).expect("written");
    let mut header = [0; 16];
    let (read, mut descriptors) = receive_with_descriptors(socket.as_fd(), &mut header, 4).expect("received");
    assert_eq!((read, header[4], descriptors.len()), (16, WELCOME, 4));
    let mut payload = vec![0; u32::from_le_bytes(header[..4].try_into().expect("four")) as usize];
    socket.read_exact(&mut payload).expect("the welcome");
    let others = descriptors.split_off(2);
    let server_bell = Event::adopt(descriptors.pop().expect("a bell")).expect("adopted");
    let memory = SharedMemory::open(descriptors.pop().expect("memory"), 1 << 30).expect("mapped");
    RawRings { socket, memory, server_bell, others }
}

impl RawRings {
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.memory.bytes());
        // SAFETY: inside the region; the server must cope with whatever is written, at any time.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.address().as_ptr().add(offset), bytes.len())
        };
    }
}
