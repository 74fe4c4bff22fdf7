//! The loop that owns all sockets and rings.
//!
//! One thread waits for everything: listeners and sockets, the bells of clients with rings, and the bell of the queue through which
//! other threads hand in answers. Rings that were busy a moment ago are *hot*: they are looked at in every pass, and for a moment
//! longer ([`AdaptiveSpin`]) before the thread sleeps. Before it sleeps, each hot ring and the queue are armed, which makes the other
//! side ring; what stays armed need not be armed again, so sleeping costs what was busy, not what is connected.
//!
//! Invariants:
//! - The thread sleeps only when every ring it may read, every ring it waits for space in, and the queue are armed.
//! - Nothing in the loop blocks but the one wait for events, and that has a limit.
//! - A connection gets one scratch buffer's worth of reading per pass, so that a flood delays its neighbours by that much.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tine_base::descriptors::{PeerCredentials, peer_credentials};
use tine_base::event::Event;
use tine_base::spin::AdaptiveSpin;

use super::connection::Connection;
use super::exchange::{Pass, Service};
use super::responder::{Inline, Message, Shared};
use super::{ConnectionEvent, ConnectionId, Handler, ListenOptions, ReactorOptions};
use crate::error::{CloseReason, HandshakeError, ListenError, ReactorError};
use crate::frame::{Framing, HEADER_BYTES, Header, Kind};
use crate::handshake::encode_refusal;
use crate::inbound::Scratch;
use crate::link::{Poller, Socket};
use crate::outbound::Sink;
use crate::path::{ListenSocket, transport};
use crate::queue::Queue;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// Passes over busy rings between two looks at sockets.
const PASSES_PER_POLL: u32 = 16;
/// Passes without a byte after which a ring is no longer looked at while others are busy.
const IDLE_PASSES_MAX: u32 = 64;
/// Connections accepted before the others get their turn.
const ACCEPTS_PER_EVENT: usize = 64;
/// How often connections are looked at that are in the middle of something.
const CLOCK_PERIOD: Duration = Duration::from_millis(250);
/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// More clients than this have no place in a token.
const CLIENTS_MAX: u32 = 1 << 20;

/// What an epoll event is about; packed into its number with the generation above, so that events of the dead are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Queue,
    Listener(u32),
    Socket(ConnectionId),
    Bell(ConnectionId),
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, slot, generation) = match self {
            Token::Queue => (0, 0, 0),
            Token::Listener(number) => (1, number, 0),
            Token::Socket(id) => (2, id.slot, id.generation),
            Token::Bell(id) => (3, id.slot, id.generation),
        };
        u64::from(generation) << 32 | u64::from(slot) << 2 | kind
    }

    fn unpack(token: u64) -> Token {
        let id = ConnectionId { slot: (token as u32) >> 2, generation: (token >> 32) as u32 };
        match token & 3 {
            0 => Token::Queue,
            1 => Token::Listener(id.slot),
            2 => Token::Socket(id),
            _ => Token::Bell(id),
        }
    }
}

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

struct Listener {
    socket: ListenSocket,
    service: Arc<Service>,
    /// Not watched for now, because the process has no descriptors left.
    resting: bool,
}

/// What a reactor has done so far, and does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorCounters {
    /// Connections now.
    pub connections: u64,
    /// Connections ever made.
    pub accepted: u64,
    /// Connections that did not get in.
    pub refused: u64,
    /// Waits for events.
    pub waits: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    waits: AtomicU64,
}

/// Controls a running reactor from anywhere.
#[derive(Clone, Debug)]
pub struct ReactorHandle {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

impl ReactorHandle {
    /// Makes the reactor stop: no new connection, no new request; what is in flight is answered and written, for at most
    /// `flush_limit`.
    pub fn shutdown(&self, flush_limit: Duration) {
        self.shared.send(Message::Shutdown(flush_limit));
    }

    /// What it has done so far.
    pub fn counters(&self) -> ReactorCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReactorCounters {
            connections: read(&self.counters.connections),
            accepted: read(&self.counters.accepted),
            refused: read(&self.counters.refused),
            waits: read(&self.counters.waits),
        }
    }
}

/// Serves any number of paths from one thread.
pub struct Reactor {
    poller: Poller,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    clients_max: u32,
    listeners: Vec<Listener>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Rings that are looked at in every pass, with the number of passes for which they have been silent.
    hot: Vec<(ConnectionId, u32)>,
    /// Sockets with frames held back.
    ready: Vec<ConnectionId>,
    spin: AdaptiveSpin,
    scratch: Scratch,
    pass: Pass,
    messages: Vec<Message>,
    queue_armed: bool,
    /// A connection may be in the middle of something.
    timed: bool,
    last_clock: Instant,
    stop_at: Option<Instant>,
}

impl Reactor {
    /// A reactor that serves nothing yet.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    ///
    /// # Panics
    /// When `clients_max` is zero or above 2^20.
    pub fn new(options: ReactorOptions) -> Result<Reactor, ReactorError> {
        assert!((1..=CLIENTS_MAX).contains(&options.clients_max), "1 to 2^20 clients");
        let shared = Arc::new(Shared { queue: Queue::new(), event: Event::new()? });
        let poller = Poller::new()?;
        poller.add(&shared.event.as_fd(), (libc::EPOLLIN | libc::EPOLLET) as u32, Token::Queue.pack())?;
        let cores = options.cores.unwrap_or_else(|| tine_base::cpu::budget().cores.get());
        Ok(Reactor {
            poller,
            shared,
            counters: Arc::default(),
            clients_max: options.clients_max,
            listeners: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hot: Vec::new(),
            ready: Vec::new(),
            spin: AdaptiveSpin::new(cores),
            scratch: Scratch::new(),
            pass: Pass::default(),
            messages: Vec::new(),
            queue_armed: false,
            timed: false,
            last_clock: Instant::now(),
            stop_at: None,
        })
    }

    /// Serves `path`, which ends in `.sock` or `.shm`. Clients can connect from now on, and are served when the reactor runs.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn listen(
        &mut self,
        path: &Path,
        options: ListenOptions,
        handler: Arc<dyn Handler>,
    ) -> Result<(), ListenError> {
        let transport = transport(path)?;
        options.check(transport)?;
        let socket = ListenSocket::bind(path)?;
        let token = Token::Listener(self.listeners.len() as u32).pack();
        self.poller
            .add(&socket, libc::EPOLLIN as u32, token)
            .map_err(|source| ListenError::Io { path: path.to_owned(), source })?;
        let service = Arc::new(Service { handler, options, transport });
        self.listeners.push(Listener { socket, service, resting: false });
        Ok(())
    }

    /// Controls the reactor while it runs.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle { shared: self.shared.clone(), counters: self.counters.clone() }
    }

    /// Runs on a thread of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn(self, name: &str) -> Result<ReactorThread, ReactorError> {
        let handle = self.handle();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || self.run())?;
        Ok(ReactorThread { handle, thread: Some(thread) })
    }

    /// Runs on this thread until [`ReactorHandle::shutdown`].
    ///
    /// # Errors
    /// When the system refuses to wait, which has no cure.
    pub fn run(mut self) -> Result<(), ReactorError> {
        let shared = self.shared.clone();
        let _inline = Inline::enter(&shared);
        let outcome = self.run_loop();
        let stop = CloseReason::Shutdown;
        for slot in 0..self.slots.len() {
            if let Some(connection) = self.slots[slot].connection.take() {
                connection.close(&stop);
            }
        }
        self.counters.connections.store(0, Ordering::Relaxed);
        drop(shared.queue.close());
        outcome
    }

    fn run_loop(&mut self) -> Result<(), ReactorError> {
        let mut passes = 0u32;
        loop {
            let mut moved = self.take_messages();
            moved |= self.work_ready();
            moved |= self.work_hot();
            moved |= self.send_strays();
            if self.is_finished() {
                return Ok(());
            }
            if moved && !(self.hot.is_empty() && self.ready.is_empty()) {
                passes = passes.wrapping_add(1);
                if passes.is_multiple_of(PASSES_PER_POLL) {
                    self.poll(Duration::ZERO)?;
                }
                continue;
            }
            if !self.hot.is_empty() && self.spin() {
                continue;
            }
            if self.arm() {
                let sleep = self.sleep();
                self.poll(sleep)?;
            }
        }
    }

    /// Handles what other threads have handed in.
    fn take_messages(&mut self) -> bool {
        if !self.shared.queue.may_have_items() {
            return false;
        }
        let mut messages = std::mem::take(&mut self.messages);
        self.shared.queue.take(&mut messages);
        // Whoever put them there may have taken the announcement of a sleep with it.
        self.queue_armed = false;
        let moved = !messages.is_empty();
        for message in messages.drain(..) {
            match message {
                Message::Answer(answer, payload) => self.answer(answer, payload),
                Message::Shutdown(limit) => self.begin_shutdown(limit),
            }
        }
        self.messages = messages;
        moved
    }

    fn answer(&mut self, answer: super::responder::Answer, payload: Vec<u8>) {
        let id = answer.request.connection;
        self.with(id, |connection, _| connection.answer(answer, payload));
    }

    /// Lets a connection do something, and then sees to it that it is watched as it needs, or closed.
    fn with(
        &mut self,
        id: ConnectionId,
        work: impl FnOnce(&mut Connection, (&mut Scratch, &mut Pass)) -> Result<(), CloseReason>,
    ) {
        let Some(slot) = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation) else {
            return;
        };
        let Some(connection) = &mut slot.connection else { return };
        let had_rings = connection.has_rings();
        match work(connection, (&mut self.scratch, &mut self.pass)) {
            Ok(()) => {
                let watched = self.watch(id, had_rings);
                if let Err(error) = watched {
                    self.close(id, &error.into());
                }
            }
            Err(reason) => self.close(id, &reason),
        }
    }

    /// Asks for the events that the connection needs now.
    fn watch(&mut self, id: ConnectionId, had_rings: bool) -> std::io::Result<()> {
        let Some(connection) = &mut self.slots[id.slot as usize].connection else { return Ok(()) };
        self.timed |= connection.is_timed();
        if connection.has_rings() && !had_rings {
            let bell = connection.bell().expect("rings come with bells").as_fd();
            self.poller.add(&bell, (libc::EPOLLIN | libc::EPOLLET) as u32, Token::Bell(id).pack())?;
        }
        let interest = connection.wanted_interest();
        if interest != connection.state.interest {
            self.poller.change(connection.socket(), interest, Token::Socket(id).pack())?;
            connection.state.interest = interest;
        }
        if connection.has_rings() {
            if !connection.state.hot && (!connection.state.armed || connection.wants_space()) {
                connection.state.hot = true;
                self.hot.push((id, 0));
            }
        } else if connection.is_held_back() && !connection.state.listed {
            connection.state.listed = true;
            self.ready.push(id);
        }
        Ok(())
    }

    fn close(&mut self, id: ConnectionId, reason: &CloseReason) {
        let slot = &mut self.slots[id.slot as usize];
        let Some(connection) = slot.connection.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
        if matches!(reason, CloseReason::Handshake(_)) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        connection.close(reason);
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.as_deref_mut()
    }

    /// Goes on with sockets that have frames held back.
    fn work_ready(&mut self) -> bool {
        let ready = std::mem::take(&mut self.ready);
        for &id in &ready {
            if let Some(connection) = self.connection(id) {
                connection.state.listed = false;
                self.with(id, |connection, (scratch, pass)| connection.work(scratch, pass).map(drop));
            }
        }
        !ready.is_empty()
    }

    /// Looks at every hot ring; those that stay silent while others are busy are armed and left alone.
    fn work_hot(&mut self) -> bool {
        let mut any = false;
        let mut position = 0;
        while let Some(&(id, silent)) = self.hot.get(position) {
            let mut moved = false;
            self.with(id, |connection, (scratch, pass)| {
                moved = connection.work(scratch, pass)?;
                Ok(())
            });
            any |= moved;
            let silent = if moved { 0 } else { silent + 1 };
            self.hot[position].1 = silent;
            if self.connection(id).is_none() || silent >= IDLE_PASSES_MAX && self.arm_one(id) {
                self.hot.swap_remove(position);
            } else {
                position += 1;
            }
        }
        any
    }

    /// Arms one hot ring; true: it is quiet, and no longer hot (or gone).
    fn arm_one(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return true };
        match connection.arm() {
            Ok(quiet) => {
                connection.state.hot = !quiet;
                quiet
            }
            Err(reason) => {
                self.close(id, &reason);
                true
            }
        }
    }

    fn spin(&mut self) -> bool {
        let (slots, hot, queue) = (&mut self.slots, &self.hot, &self.shared.queue);
        self.spin.wait(|| {
            queue.may_have_items()
                || hot.iter().any(|(id, _)| {
                    slots[id.slot as usize].connection.as_mut().is_some_and(|connection| connection.ring_has_work())
                })
        })
    }

    /// Arms everything. False: something is there already.
    fn arm(&mut self) -> bool {
        let mut hot = std::mem::take(&mut self.hot);
        hot.retain(|&(id, _)| !self.arm_one(id));
        hot.append(&mut self.hot);
        self.hot = hot;
        if !self.hot.is_empty() || !self.ready.is_empty() {
            return false;
        }
        self.queue_armed = self.queue_armed && !self.shared.queue.may_have_items() || self.shared.queue.arm();
        self.queue_armed
    }

    fn sleep(&self) -> Duration {
        let mut sleep = if self.timed { CLOCK_PERIOD } else { SLEEP_MAX };
        if let Some(at) = self.stop_at {
            sleep = sleep.min(at.saturating_duration_since(Instant::now())).min(CLOCK_PERIOD);
        }
        sleep
    }

    fn poll(&mut self, limit: Duration) -> Result<(), ReactorError> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        self.counters.waits.fetch_add(1, Ordering::Relaxed);
        let count = self.poller.wait(&mut events, limit)?.len();
        for event in &events[..count] {
            match Token::unpack(event.u64) {
                Token::Queue => self.queue_armed = false,
                Token::Listener(number) => self.accept(number),
                Token::Socket(id) => self.socket_event(id, event.events),
                Token::Bell(id) => {
                    if let Some(connection) = self.connection(id) {
                        connection.state.armed = false;
                        self.with(id, |_, _| Ok(()));
                    }
                }
            }
        }
        if (self.timed || self.stop_at.is_some()) && self.last_clock.elapsed() >= CLOCK_PERIOD {
            self.check_clock();
        }
        Ok(())
    }

    fn socket_event(&mut self, id: ConnectionId, events: u32) {
        self.with(id, |connection, (scratch, pass)| {
            if connection.has_rings() {
                return connection.look_at_socket();
            }
            connection.work(scratch, pass)?;
            // The other side is gone altogether, and there is nothing to read that would say so.
            let gone = events & (libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 && events & libc::EPOLLIN as u32 == 0;
            if gone { Err(CloseReason::ClientGone) } else { Ok(()) }
        });
    }

    fn accept(&mut self, number: u32) {
        for _ in 0..ACCEPTS_PER_EVENT {
            let Some(listener) = self.listeners.get(number as usize) else { return };
            let service = listener.service.clone();
            match listener.socket.accept() {
                Ok(socket) => self.admit(socket, service),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // A connection that ended before it was accepted.
                Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
                Err(_) => {
                    // No descriptors are left: trying again at once would keep the thread busy for nothing.
                    let listener = &mut self.listeners[number as usize];
                    listener.resting = self.poller.change(&listener.socket, 0, Token::Listener(number).pack()).is_ok();
                    self.timed = true;
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, service: Arc<Service>) {
        let Ok(peer) = peer_credentials(socket.as_fd()) else { return };
        let open = self.slots.len() - self.free.len();
        if !service.options.policy.admits(peer.uid) {
            return self.turn_away(&socket, &service, peer, HandshakeError::User { uid: peer.uid });
        }
        if open >= self.clients_max as usize {
            let error = HandshakeError::Full { clients_max: self.clients_max };
            return self.turn_away(&socket, &service, peer, error);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            let generation = service.options.counters_start as u32;
            self.slots.push(Slot { generation, connection: None });
            self.slots.len() as u32 - 1
        });
        let id = ConnectionId { slot, generation: self.slots[slot as usize].generation };
        if self.poller.add(&socket, libc::EPOLLIN as u32, Token::Socket(id).pack()).is_err() {
            self.free.push(slot);
            return;
        }
        let connection = Connection::new(id, peer, socket, service, self.shared.clone());
        self.slots[slot as usize].connection = Some(Box::new(connection));
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        self.timed = true;
    }

    fn turn_away(&mut self, socket: &OwnedFd, service: &Service, peer: PeerCredentials, error: HandshakeError) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        if !service.options.plain {
            let payload = encode_refusal(&error, service.options.schema);
            let header = Header { kind: Kind::Refused, id: 0, payload_bytes: payload.len() as u32 };
            let mut frame = Framing::Full.encode(header, &mut [0; HEADER_BYTES]).to_vec();
            frame.extend_from_slice(&payload);
            // A fresh socket has room for it; if the client is gone already, there is nobody to tell.
            let _ = Socket(socket.as_fd()).write(&[std::io::IoSlice::new(&frame)]);
        }
        service.handler.event(ConnectionEvent::Refused { peer, error: &error });
    }

    /// Sends answers that were given on this thread in the turn of another connection, or in none.
    fn send_strays(&mut self) -> bool {
        let mut moved = false;
        loop {
            self.pass.collect_strays();
            if self.pass.strays.is_empty() {
                return moved;
            }
            moved = true;
            for (answer, payload) in std::mem::take(&mut self.pass.strays) {
                self.answer(answer, payload);
            }
        }
    }

    fn check_clock(&mut self) {
        let now = Instant::now();
        self.last_clock = now;
        self.timed = false;
        for slot in 0..self.slots.len() {
            let generation = self.slots[slot].generation;
            let Some(connection) = &mut self.slots[slot].connection else { continue };
            self.timed |= connection.is_timed();
            let checked = connection.check_time(now);
            if let Err(reason) = checked {
                self.close(ConnectionId { slot: slot as u32, generation }, &reason);
            }
        }
        for (number, listener) in self.listeners.iter_mut().enumerate().filter(|(_, listener)| listener.resting) {
            let token = Token::Listener(number as u32).pack();
            listener.resting = self.poller.change(&listener.socket, libc::EPOLLIN as u32, token).is_err();
            self.timed |= listener.resting;
        }
    }

    fn begin_shutdown(&mut self, limit: Duration) {
        let stop_at = Instant::now() + limit;
        self.stop_at = Some(self.stop_at.map_or(stop_at, |earlier| earlier.min(stop_at)));
        // Removes the files, too.
        self.listeners.clear();
        for slot in 0..self.slots.len() {
            let id = ConnectionId { slot: slot as u32, generation: self.slots[slot].generation };
            self.with(id, |connection, _| {
                connection.shut_down();
                Ok(())
            });
        }
    }

    /// Whether a shutdown has nothing left to do, or no time.
    fn is_finished(&mut self) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        self.slots.iter().filter_map(|slot| slot.connection.as_ref()).all(|connection| connection.is_done())
            || Instant::now() >= stop_at
    }
}

/// A reactor on a thread of its own. Dropping it stops it at once.
#[derive(Debug)]
pub struct ReactorThread {
    handle: ReactorHandle,
    thread: Option<std::thread::JoinHandle<Result<(), ReactorError>>>,
}

impl ReactorThread {
    /// Controls the reactor.
    pub fn handle(&self) -> &ReactorHandle {
        &self.handle
    }

    /// Waits until the reactor has stopped.
    ///
    /// # Errors
    /// What stopped it, if that was not asked for.
    pub fn join(mut self) -> Result<(), ReactorError> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), ReactorError> {
        match self.thread.take().map(std::thread::JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for ReactorThread {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
        if let Some(thread) = self.thread.take() {
            // Its error has nobody to go to; a panic has been printed.
            let _ = thread.join();
        }
    }
}
