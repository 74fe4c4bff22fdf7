//! The worker's side: from a fresh fork to serving requests behind a filter of system calls.

use std::io::Write as _;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use seccompiler::BpfProgram;
use tine_base::slots::{GuestEnd, GuestSlot, Turn};

use crate::entry::Never;
use crate::harden;
use crate::wire::Launch;

/// In the word by which a worker reports, beside its process id: requests are taken.
pub(crate) const READY: u32 = 1 << 31;
/// An idle worker looks for requests this often even when nobody woke it.
const IDLE_WAIT: Duration = Duration::from_secs(3_600);
/// Replies that make a worker tell its server before the rest of the batch is done: so many of them are worth a wake-up, and the
/// server goes on with them meanwhile.
const REPLIES_PER_EVENT: u32 = 8;

/// After so many lone replies in a row there is one caller, who waits for each before it sends the next request.
const LONE_REPLIES: u32 = 16;

/// Statuses of a reply.
pub(crate) mod status {
    /// The reply is what was asked for.
    pub(crate) const DONE: u32 = 0;
    /// The reply says what is wrong with the request.
    pub(crate) const REJECTED: u32 = 1;
    /// The reply did not fit.
    pub(crate) const TOO_LARGE: u32 = 2;
    /// A part belongs to a call, not to the reply.
    pub(crate) const CALL: u32 = 3;
}

/// Exit statuses by which a worker says why it gave up.
const EXIT_NOT_HARDENED: i32 = 70;
const EXIT_PANIC: i32 = 71;
const EXIT_HOST_GONE: i32 = 72;

/// A worker that is not locked in yet. It has one thread and must not start another.
#[derive(Debug)]
pub struct Start {
    pub(crate) launch: Launch,
    pub(crate) region: OwnedFd,
    pub(crate) event: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) filter: Option<BpfProgram>,
}

impl Start {
    /// Locks this process in and reports to the server. What was allocated and prepared before stays.
    ///
    /// Ends the process when a step fails: a worker that is not locked in must not serve.
    pub fn harden(self) -> Worker {
        match self.try_harden() {
            Ok(worker) => worker,
            Err(error) => {
                eprintln!("a worker could not be locked in: {error}");
                exit(EXIT_NOT_HARDENED)
            }
        }
    }

    fn try_harden(self) -> std::io::Result<Worker> {
        let Start { launch, region, event, stderr, filter } = self;
        harden::set_name(c"tine-worker");
        // First the region: a zygote that dies now leaves the server a way to find this process.
        let end: &'static GuestEnd = Box::leak(Box::new(GuestEnd::open(region, launch.shape)?));
        // SAFETY: has no arguments.
        let pid = unsafe { libc::getpid() } as u32;
        end.set_ready(pid);
        harden::die_with(launch.server_pid)?;
        // SAFETY: all descriptors are open; the targets are standard ones, or one that nothing but `event` can be at.
        unsafe {
            harden::check(libc::dup2(stderr.as_raw_fd(), 1))?;
            harden::check(libc::dup2(stderr.as_raw_fd(), harden::STDERR))?;
            harden::check(libc::dup2(event.into_raw_fd(), harden::EVENT))?;
        }
        // Closed below with everything else.
        let _ = stderr.into_raw_fd();
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            exit(EXIT_PANIC)
        }));
        harden::limits(launch.memory_bytes)?;
        harden::close_descriptors()?;
        if let Some(filter) = &filter {
            seccompiler::apply_filter(filter).map_err(std::io::Error::other)?;
        }
        end.set_ready(pid | READY);
        ring();
        Ok(Worker { end, spins: launch.spins })
    }
}

/// A worker that is locked in.
#[derive(Debug)]
pub struct Worker {
    end: &'static GuestEnd,
    spins: u32,
}

/// What is wrong with a request, in words for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected(pub String);

/// The reply area is full, and nobody attends who would take a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply does not fit in the room that the request left for it")]
pub struct ReplyFull;

/// Nobody attends the request, so there is nobody to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this request was sent without an attendant, so it cannot call back")]
pub struct Unattended;

impl Worker {
    /// Serves requests, one after the other, until the server kills this process.
    ///
    /// A panic of `handler` ends the process: what it leaves behind is of no use to later requests.
    pub fn serve(self, mut handler: impl FnMut(&mut Request<'_>) -> Result<(), Rejected>) -> Never {
        let mut replies = 0;
        // Wakes in a row with one reply each.
        let mut lone = 0u32;
        // Who attends a request is a thread that mostly has the next one ready; others take long enough to sleep.
        let mut spins = 0;
        loop {
            if replies > 0 && self.end.must_notify() {
                ring();
            }
            lone = if replies == 1 && spins == 0 { lone.saturating_add(1) } else { 0 };
            if lone >= LONE_REPLIES && self.end.is_hot() {
                // Who waits for this reply sends the next request within microseconds. Where it waits for this core it gets it now, and
                // need not wake anybody then; elsewhere this returns at once.
                std::thread::yield_now();
            }
            replies = 0;
            let mut bits = self.end.take_submitted(spins, IDLE_WAIT);
            while bits != 0 {
                let slot = bits.trailing_zeros();
                bits &= bits - 1;
                if slot >= tine_base::slots::SLOTS_MAX {
                    continue;
                }
                let Some(slot) = self.end.begin(slot) else { continue };
                spins = if slot.is_attended() { self.spins } else { 0 };
                self.serve_one(slot, &mut handler);
                replies += 1;
                if replies % REPLIES_PER_EVENT == 0 && self.end.must_notify() {
                    ring();
                }
            }
        }
    }

    fn serve_one(&self, slot: GuestSlot<'_>, handler: &mut impl FnMut(&mut Request<'_>) -> Result<(), Rejected>) {
        let mut request = Request { slot, spins: self.spins, reply_bytes: 0, is_full: false };
        let outcome = handler(&mut request);
        let status = match outcome {
            Ok(()) if request.is_full => status::TOO_LARGE,
            Ok(()) => status::DONE,
            Err(Rejected(message)) => {
                // Only what did not leave yet can be replaced, and the message is of more use than half a reply.
                request.reply_bytes = 0;
                let room = request.slot.reply_capacity().min(message.len());
                request.slot.reply_area()[..room].copy_from_slice(&message.as_bytes()[..room]);
                request.reply_bytes = room;
                status::REJECTED
            }
        };
        let bytes = request.reply_bytes as u32;
        request.slot.complete(bytes, status);
    }
}

/// A request that this worker works on.
#[derive(Debug)]
pub struct Request<'worker> {
    slot: GuestSlot<'worker>,
    spins: u32,
    reply_bytes: usize,
    is_full: bool,
}

impl<'worker> Request<'worker> {
    /// What the sender wrote.
    pub fn bytes(&self) -> &'worker [u8] {
        self.slot.request()
    }

    /// Bytes that the reply may have; one that is attended may have more.
    pub fn reply_capacity(&self) -> usize {
        self.slot.reply_capacity()
    }

    /// Appends to the reply.
    ///
    /// # Errors
    /// [`ReplyFull`]; the sender gets an error then, whatever is returned.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), ReplyFull> {
        loop {
            let from = self.reply_bytes;
            let area = self.slot.reply_area();
            let count = bytes.len().min(area.len() - from);
            area[from..from + count].copy_from_slice(&bytes[..count]);
            self.reply_bytes += count;
            bytes = &bytes[count..];
            if bytes.is_empty() {
                return Ok(());
            }
            if !self.slot.is_attended() || self.slot.reply_capacity() == 0 {
                self.is_full = true;
                return Err(ReplyFull);
            }
            self.flush();
        }
    }

    /// Lets `fill` write the reply in place, in all of the reply area; it returns the length.
    ///
    /// # Panics
    /// When something was written before, or the length is out of bounds.
    pub fn write_in_place(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) {
        assert_eq!(self.reply_bytes, 0, "the reply was begun in another way");
        let area = self.slot.reply_area();
        let room = area.len();
        let bytes = fill(area);
        assert!(bytes <= room, "a reply of {bytes} bytes in {room}");
        self.reply_bytes = bytes;
    }

    /// Calls the server, which answers into `answer` (cleared first).
    ///
    /// # Errors
    /// [`Unattended`]: nobody is there to answer.
    pub fn call(&mut self, mut payload: &[u8], answer: &mut Vec<u8>) -> Result<(), Unattended> {
        if !self.slot.is_attended() || self.slot.reply_capacity() == 0 {
            return Err(Unattended);
        }
        if self.reply_bytes > 0 {
            self.flush();
        }
        answer.clear();
        let room = self.slot.reply_capacity();
        while payload.len() > room {
            self.slot.reply_area().copy_from_slice(&payload[..room]);
            payload = &payload[room..];
            self.pass(Turn::Part, room, status::CALL);
        }
        self.slot.reply_area()[..payload.len()].copy_from_slice(payload);
        let spins = self.spins;
        let mut left = pass(&mut self.slot, Turn::Call, payload.len(), status::CALL, spins, answer);
        while left > 0 {
            left = pass(&mut self.slot, Turn::More, 0, status::CALL, spins, answer);
        }
        Ok(())
    }

    /// Hands over what was written of the reply.
    fn flush(&mut self) {
        self.pass(Turn::Part, self.reply_bytes, status::DONE);
        self.reply_bytes = 0;
    }

    fn pass(&mut self, turn: Turn, bytes: usize, status: u32) {
        pass(&mut self.slot, turn, bytes, status, self.spins, &mut Vec::new());
    }
}

/// Passes the turn and appends the answer; returns how much of it is left. A server that gave up is about to kill this process.
fn pass(slot: &mut GuestSlot<'_>, turn: Turn, bytes: usize, status: u32, spins: u32, answer: &mut Vec<u8>) -> u32 {
    match slot.pass(turn, bytes as u32, status, spins) {
        Ok((piece, left)) => {
            answer.extend_from_slice(piece);
            left
        }
        Err(_) => exit(EXIT_HOST_GONE),
    }
}

fn ring() {
    let one = 1u64;
    // SAFETY: the pointer and length describe `one`; the descriptor is the event's.
    let _ = unsafe { libc::write(harden::EVENT, (&raw const one).cast(), size_of::<u64>()) };
}

/// Ends this process without running what was registered to run at its end: that belongs to the zygote.
fn exit(status: i32) -> ! {
    let _ = std::io::stderr().flush();
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}
