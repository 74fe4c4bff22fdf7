//! One client as the reactor sees it: what comes in through a socket or a ring and what goes out, and when to look at it again.
//!
//! Invariant: nothing here blocks, and no fault of a client is more than a [`CloseReason`] of this connection.

use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use tine_base::descriptors::{PeerCredentials, send_with_descriptors};
use tine_base::event::Event;

use super::exchange::{Core, Pass, Phase, Service, SharedSide, WelcomeFrame};
use super::responder::{Answer, Shared};
use super::{ConnectionEvent, ConnectionId};
use crate::error::CloseReason;
use crate::frame::{Framing, Header, Kind, encode_error};
use crate::handshake::HANDSHAKE_BYTES_MAX;
use crate::inbound::{Arrival, Inbound, InboundError, Progress, Scratch};
use crate::link::{RingSink, RingSource, Socket, ring_fault};
use crate::outbound::Outbound;
use crate::ring::Consumer;

/// The end of a ring that is read.
struct Incoming {
    consumer: Consumer,
    /// Wakes the client's writer.
    client_space_bell: Event,
}

/// One client. Sockets and rings are kept apart from the rest, so that frames are handled while they are being read.
pub(crate) struct Connection {
    socket: OwnedFd,
    inbound: Inbound,
    incoming: Option<Incoming>,
    core: Core,
    pub state: ReactorState,
    /// `received` when stalls were last looked for.
    received_before: u64,
    shutting_down: bool,
}

/// What the reactor notes about a connection.
pub(crate) struct ReactorState {
    /// Epoll events asked for on the socket.
    pub interest: u32,
    /// On the list of rings to look at.
    pub hot: bool,
    /// The client will ring when it writes.
    pub armed: bool,
    /// On the list of connections with frames held back.
    pub listed: bool,
    /// Since when no byte has moved although one should.
    pub stalled_since: Option<Instant>,
}

impl Connection {
    pub fn new(
        id: ConnectionId,
        peer: PeerCredentials,
        socket: OwnedFd,
        service: Arc<Service>,
        reactor: Arc<Shared>,
    ) -> Self {
        let options = &service.options;
        let (phase, inbound, framing) = if options.plain {
            let inbound = Inbound::new(Framing::Plain(Kind::Request), options.message_bytes_max);
            (Phase::Open, inbound, Framing::Plain(Kind::Reply))
        } else {
            (Phase::Handshake, Inbound::new(Framing::Full, HANDSHAKE_BYTES_MAX), Framing::Full)
        };
        if phase == Phase::Open {
            service.handler.event(ConnectionEvent::Opened { connection: id, peer });
        }
        let core = Core::new(id, peer, service, reactor, phase, framing);
        let state = ReactorState {
            interest: libc::EPOLLIN as u32,
            hot: false,
            armed: false,
            listed: false,
            stalled_since: None,
        };
        Connection { socket, inbound, incoming: None, core, state, received_before: 0, shutting_down: false }
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// The bell that the client rings, if it has rings.
    pub fn bell(&self) -> Option<&Event> {
        self.core.shared_side.as_ref().map(|side| &side.own_bell)
    }

    /// Whether requests come through a ring.
    pub fn has_rings(&self) -> bool {
        self.incoming.is_some()
    }

    /// Whether a pass over the rings would move something; faults are found by the moving.
    pub fn ring_has_work(&mut self) -> bool {
        let may_read = self.core.may_read();
        may_read && self.incoming.as_mut().is_some_and(|end| end.consumer.available() != Ok(0))
            || self.wants_space() && self.core.shared_side.as_mut().is_some_and(|side| side.outgoing.free(1) != Ok(0))
    }

    /// Something waits for space in a ring.
    pub fn wants_space(&self) -> bool {
        self.has_rings() && !self.core.outbound.is_empty()
    }

    /// Frames wait here that no event will announce.
    pub fn is_held_back(&self) -> bool {
        self.inbound.is_held_back() && self.core.may_read()
    }

    /// Epoll events to ask for on the socket.
    pub fn wanted_interest(&self) -> u32 {
        let read = self.has_rings() || self.core.may_read();
        let write = !self.has_rings() && !self.core.outbound.is_empty();
        (u32::from(read) * libc::EPOLLIN as u32) | (u32::from(write) * libc::EPOLLOUT as u32)
    }

    /// Reads what has come, answers what can be answered, writes what can be written. True: something moved.
    pub fn work(&mut self, scratch: &mut Scratch, pass: &mut Pass) -> Result<bool, CloseReason> {
        let received_before = self.inbound.received;
        let mut moved = !self.core.outbound.is_empty() && self.flush()?;
        if self.core.may_read() {
            let held_before = self.inbound.is_held_back();
            let core = &mut self.core;
            let sink = |arrival: Arrival<'_>| core.arrive(arrival, pass);
            let progress = match &mut self.incoming {
                Some(Incoming { consumer, client_space_bell }) => {
                    self.inbound.fill(&mut RingSource { consumer, bell: client_space_bell }, scratch, sink)
                }
                None => self.inbound.fill(&mut Socket(self.socket.as_fd()), scratch, sink),
            };
            if progress.map_err(inbound_reason)? == Progress::Ended {
                self.core.phase = Phase::Ending;
            }
            self.settle()?;
            moved |= held_before || received_before != self.inbound.received;
        }
        self.check_end()?;
        Ok(moved)
    }

    /// Sends an answer from another thread, or one that was given in another connection's turn.
    pub fn answer(&mut self, answer: Answer, payload: Vec<u8>) -> Result<(), CloseReason> {
        self.core.answer(answer, Cow::Owned(payload));
        self.settle()?;
        self.check_end()
    }

    /// A client that has said all it had to say, and has got all its answers, is done.
    fn check_end(&self) -> Result<(), CloseReason> {
        let ended = self.core.phase == Phase::Ending && !self.shutting_down;
        if ended && self.is_done() { Err(CloseReason::ClientGone) } else { Ok(()) }
    }

    /// Acts on what frames and answers have brought about.
    fn settle(&mut self) -> Result<(), CloseReason> {
        if let Some(frame) = self.core.welcome.take() {
            self.welcome(frame)?;
        }
        let flushed = self.flush();
        match self.core.closing.take() {
            Some(reason) => Err(reason),
            None => flushed.map(drop),
        }
    }

    fn welcome(&mut self, frame: WelcomeFrame) -> Result<(), CloseReason> {
        let WelcomeFrame { bytes, region } = frame;
        let options = &self.core.service.options;
        let descriptors: Vec<_> = region
            .iter()
            .flat_map(|(region, bells)| std::iter::once(region.memory.as_fd()).chain(bells.iter().map(AsFd::as_fd)))
            .collect();
        // The first frame on a fresh socket always fits its buffer.
        if send_with_descriptors(self.socket.as_fd(), &bytes, &descriptors)? != bytes.len() {
            return Err(CloseReason::Stalled);
        }
        self.inbound.set_limit(options.message_bytes_max);
        if let Some((region, [own_bell, client_bytes_bell, client_space_bell])) = region {
            if self.inbound.is_partial() {
                return Err(CloseReason::Unexpected("bytes on the socket after the handshake".into()));
            }
            self.inbound = Inbound::new(Framing::Full, options.message_bytes_max);
            self.core.shared_side = Some(SharedSide { outgoing: region.rings.outgoing, own_bell, client_bytes_bell });
            self.incoming = Some(Incoming { consumer: region.rings.incoming, client_space_bell });
        }
        let (connection, peer) = (self.core.id, self.core.peer);
        self.core.opened = true;
        self.core.service.handler.event(ConnectionEvent::Opened { connection, peer });
        Ok(())
    }

    /// Writes what the other side takes; true: something moved.
    fn flush(&mut self) -> Result<bool, CloseReason> {
        let core = &mut self.core;
        let before = core.outbound.bytes();
        match &mut core.shared_side {
            Some(side) if before == 0 => {
                if side.outgoing.show() {
                    side.client_bytes_bell.ring();
                }
            }
            Some(SharedSide { outgoing, client_bytes_bell, .. }) => {
                let mut sink = RingSink { producer: outgoing, bell: client_bytes_bell };
                core.outbound.flush(&mut sink).map_err(io_reason)?;
            }
            None => {
                core.outbound.flush(&mut Socket(self.socket.as_fd())).map_err(io_reason)?;
            }
        }
        let waiting = core.waiting_bytes();
        if waiting > core.service.options.reply_bytes_max {
            return Err(CloseReason::TooSlow { bytes: waiting });
        }
        let moved = core.outbound.bytes() < before;
        core.flushed |= moved;
        Ok(moved)
    }

    /// Makes sure that the client rings when there is something to do. False: there is something already.
    pub fn arm(&mut self) -> Result<bool, CloseReason> {
        let (Some(end), Some(side)) = (&mut self.incoming, &mut self.core.shared_side) else { return Ok(true) };
        let mut quiet = true;
        if !self.core.outbound.is_empty() {
            quiet &= side.outgoing.arm()?;
        }
        if self.core.may_read() {
            if end.consumer.release() {
                end.client_space_bell.ring();
            }
            quiet &= !self.inbound.is_held_back() && end.consumer.arm()?;
            self.state.armed = quiet;
        }
        Ok(quiet)
    }

    /// The client's socket has an event although requests come through a ring: it is gone, or it breaks the rules.
    pub fn look_at_socket(&mut self) -> Result<(), CloseReason> {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match Socket(self.socket.as_fd()).receive(&mut byte, libc::MSG_DONTWAIT) {
            Ok(0) => Err(CloseReason::ClientGone),
            Ok(_) => Err(CloseReason::Unexpected("bytes on the socket after the handshake".into())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(io_reason(error)),
        }
    }

    /// The server shuts down: no further request is read.
    pub fn shut_down(&mut self) {
        self.core.phase = Phase::Ending;
        self.shutting_down = true;
    }

    /// Nothing is in flight, nothing waits to be written.
    pub fn is_done(&self) -> bool {
        self.core.in_flight == 0 && self.core.outbound.is_empty()
    }

    /// Whether the connection must be watched by the clock.
    pub fn is_timed(&self) -> bool {
        self.core.phase == Phase::Handshake || self.inbound.is_partial() || !self.core.outbound.is_empty()
    }

    /// Looks whether the client has stopped in the middle of something.
    pub fn check_time(&mut self, now: Instant) -> Result<(), CloseReason> {
        let moved = std::mem::take(&mut self.core.flushed) || self.inbound.received != self.received_before;
        self.received_before = self.inbound.received;
        // Requests that are not read because replies wait are no fault of the frame they came in.
        let stuck = self.is_timed() && (self.core.may_read() || !self.core.outbound.is_empty());
        if !stuck || (moved && self.core.phase != Phase::Handshake) {
            self.state.stalled_since = None;
            return Ok(());
        }
        let since = *self.state.stalled_since.get_or_insert(now);
        let options = &self.core.service.options;
        let limit = if self.core.phase == Phase::Handshake { options.handshake_limit } else { options.stall_limit };
        if now.duration_since(since) >= limit { Err(CloseReason::Stalled) } else { Ok(()) }
    }

    /// Says goodbye as far as the socket takes it without waiting, and forgets the client.
    pub fn close(mut self, reason: &CloseReason) {
        for stream in self.core.streams.values() {
            stream.cancel();
        }
        let told = !matches!(reason, CloseReason::ClientGone) && self.core.opened && self.core.framing == Framing::Full;
        if told {
            let payload = encode_error(reason.code(), &reason.to_string());
            let header = Header { kind: Kind::Closing, id: 0, payload_bytes: payload.len() as u32 };
            if self.has_rings() {
                self.core.outbound = Outbound::default();
            }
            self.core.outbound.push(Framing::Full, header, &payload);
        }
        // Whether the last words arrive is up to the client.
        let _ = self.core.outbound.flush(&mut Socket(self.socket.as_fd()));
        let handler = &self.core.service.handler;
        match reason {
            CloseReason::Handshake(error) => handler.event(ConnectionEvent::Refused { peer: self.core.peer, error }),
            _ if self.core.opened => handler.event(ConnectionEvent::Closed { connection: self.core.id, reason }),
            _ => {}
        }
    }
}

fn io_reason(error: std::io::Error) -> CloseReason {
    match (ring_fault(&error), error.kind()) {
        (Some(fault), _) => fault.into(),
        (None, std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset) => CloseReason::ClientGone,
        (None, _) => error.into(),
    }
}

fn inbound_reason(error: InboundError) -> CloseReason {
    match error {
        InboundError::Frame(error) => error.into(),
        InboundError::Read(error) => io_reason(error),
    }
}
