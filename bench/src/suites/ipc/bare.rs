//! What the transports are compared with: the least that can be done on the same primitives, and nothing else.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tine_base::{futex, memory::SharedMemory};

/// Bytes of a message.
pub const MESSAGE_BYTES: usize = 64;
/// Bytes of a bare frame: a length and a message.
pub const FRAME_BYTES: usize = 4 + MESSAGE_BYTES;
/// Looks at the word before sleeping on it.
const SPINS: u32 = 500;

/// Receives once; zero is the end.
pub fn receive(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe the buffer.
    let count = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Sends all of it, with one system call unless the kernel takes less.
pub fn send(socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // SAFETY: pointer and length describe the bytes.
        let count = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        bytes = &bytes[usize::try_from(count).map_err(|_| io::Error::last_os_error())?..];
    }
    Ok(())
}

/// An epoll loop that sends back what it receives, until all its clients have gone.
pub fn echo_server(path: &Path, clients: usize) -> io::Result<JoinHandle<io::Result<()>>> {
    let listener = UnixListener::bind(path)?;
    Ok(std::thread::spawn(move || {
        // SAFETY: takes plain numbers; the kernel has just opened the descriptor for us.
        let poller = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        let mut sockets = Vec::new();
        for number in 0..clients {
            let (socket, _) = listener.accept()?;
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number as u64 };
            // SAFETY: the event lives on this stack; both descriptors are open.
            unsafe { libc::epoll_ctl(poller.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &mut event) };
            sockets.push(Some(socket));
        }
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        let mut buffer = vec![0; 64 * 1024];
        while sockets.iter().any(Option::is_some) {
            // SAFETY: pointer and count describe the events.
            let ready = unsafe { libc::epoll_wait(poller.as_raw_fd(), events.as_mut_ptr(), 64, 10_000) };
            for event in &events[..usize::try_from(ready).unwrap_or(0)] {
                let place = &mut sockets[event.u64 as usize];
                let Some(socket) = place else { continue };
                match receive(socket, &mut buffer)? {
                    0 => *place = None,
                    count => send(socket, &buffer[..count])?,
                }
            }
        }
        Ok(())
    }))
}

/// A word that says whose turn it is, and the message behind it.
#[repr(C)]
struct Slot {
    /// 0: idle; 1: a request is there; 2: a reply is there.
    state: AtomicU32,
    /// Who waits for that turn sleeps on the state.
    sleeping: [AtomicU32; 2],
    message: std::cell::UnsafeCell<[u8; MESSAGE_BYTES]>,
}

/// One slot in shared memory with a thread that answers: the floor of what shared memory can do.
pub struct BareSlot {
    memory: Arc<SharedMemory>,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

fn slot(memory: &SharedMemory) -> &Slot {
    // SAFETY: the region is page-aligned, zero at first and larger than a slot; a message is touched only by whose turn it is.
    unsafe { memory.address().cast::<Slot>().as_ref() }
}

impl Slot {
    fn sleeping(&self, state: u32) -> &AtomicU32 {
        &self.sleeping[state as usize - 1]
    }

    fn turn(&self, state: u32) {
        self.state.store(state, Ordering::SeqCst);
        if self.sleeping(state).load(Ordering::SeqCst) != 0 {
            futex::wake(&self.state, 1);
        }
    }

    /// Waits for a turn; false: stopped.
    fn wait_for(&self, wanted: u32, stop: &AtomicBool) -> bool {
        loop {
            for _ in 0..SPINS {
                if self.state.load(Ordering::Acquire) == wanted {
                    return true;
                }
                std::hint::spin_loop();
            }
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            self.sleeping(wanted).store(1, Ordering::SeqCst);
            let seen = self.state.load(Ordering::SeqCst);
            if seen != wanted {
                futex::wait(&self.state, seen, Duration::from_millis(100));
            }
            self.sleeping(wanted).store(0, Ordering::SeqCst);
        }
    }
}

impl BareSlot {
    pub fn start() -> io::Result<BareSlot> {
        let memory = Arc::new(SharedMemory::create("bare", size_of::<Slot>())?);
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (memory.clone(), stop.clone());
        let server = std::thread::spawn(move || {
            let slot = slot(&served);
            while slot.wait_for(1, &stopped) {
                // SAFETY: the request is there, so it is this side's turn.
                unsafe { (*slot.message.get())[0] ^= 1 };
                slot.turn(2);
            }
        });
        Ok(BareSlot { memory, stop, server: Some(server) })
    }

    pub fn call(&self, request: &[u8; MESSAGE_BYTES]) -> [u8; MESSAGE_BYTES] {
        let slot = slot(&self.memory);
        // SAFETY: no request is there, so it is this side's turn; the same when the reply is.
        unsafe { *slot.message.get() = *request };
        slot.turn(1);
        assert!(slot.wait_for(2, &self.stop), "the server answers until it is stopped");
        // SAFETY: as above.
        unsafe { *slot.message.get() }
    }
}

impl Drop for BareSlot {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}
