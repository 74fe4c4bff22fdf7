//! One client as the reactor sees it: frames in, requests to the handler, answers back in order.
//!
//! Invariants:
//! - Each request has a place. With ordered replies, what belongs to a place is sent only after everything of the places before it;
//!   a stream takes its place when it is opened, and its items follow freely.
//! - Reading stops while more than [`PAUSE_BYTES`] wait to be written, or, for a plain client, while its requests fill its quota: who
//!   does not read cannot ask.
//! - Nothing here blocks, and no fault of a client is more than a [`CloseReason`] of this connection.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use tine_base::descriptors::{PeerCredentials, send_with_descriptors};
use tine_base::event::Event;

use super::responder::{Answer, AnswerKind, Body, Inline, RequestKey, Responder, Shared, Ticket};
use super::stream::StreamState;
use super::{ConnectionEvent, ConnectionId, Handler, ListenOptions, Request};
use crate::error::{CODE_OVERLOADED, CODE_TOO_LARGE, CloseReason, HandshakeError};
use crate::frame::{Framing, HEADER_BYTES, Header, Kind, decode_error, encode_error};
use crate::handshake::{HANDSHAKE_BYTES_MAX, Hello, Welcome, encode_refusal};
use crate::inbound::{Arrival, Flow, Inbound, InboundError, Progress, Scratch};
use crate::link::{RingSink, RingSource, Socket, ring_fault};
use crate::outbound::Outbound;
use crate::path::Transport;
use crate::region::{Facts, Region};
use crate::ring::{Consumer, Producer};

/// Bytes that may wait to be written before no more requests are read: one pass of the largest ring's worth of small replies.
const PAUSE_BYTES: usize = 1024 * 1024;

/// What all connections of one listener share.
pub(crate) struct Service {
    pub handler: Arc<dyn Handler>,
    pub options: ListenOptions,
    pub transport: Transport,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The Hello has not come.
    Handshake,
    Open,
    /// The client sends no more, or may not: what is in flight is answered, then the connection ends.
    Ending,
}

/// The rings of one client but for the end that is read, and the bells.
struct SharedSide {
    outgoing: Producer,
    own_bell: Event,
    /// Wakes the client's reader.
    client_bytes_bell: Event,
}

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

/// Everything but the receiving half.
struct Core {
    id: ConnectionId,
    peer: PeerCredentials,
    service: Arc<Service>,
    reactor: Arc<Shared>,
    phase: Phase,
    /// The handler knows of the connection.
    opened: bool,
    shared_side: Option<SharedSide>,
    /// Made by the handshake, for the connection to send and take over.
    welcome: Option<(Vec<u8>, Option<(Region, [Event; 3])>)>,
    framing: Framing,
    outbound: Outbound,
    /// Bytes were handed to the other side since stalls were last looked for.
    flushed: bool,
    /// Largest payload the client takes.
    reply_bytes_max: u32,
    ordered: Option<Order>,
    next_place: u64,
    in_flight: u32,
    in_flight_bytes: u64,
    streams: HashMap<u64, Arc<StreamState>>,
    closing: Option<CloseReason>,
}

/// Replies that wait for earlier ones.
#[derive(Default)]
struct Order {
    /// Place of the front.
    first: u64,
    held: VecDeque<Held>,
    bytes: usize,
}

#[derive(Default)]
struct Held {
    /// The place's answer is here, or its stream is open.
    ready: bool,
    frames: Vec<(AnswerKind, u64, Vec<u8>)>,
}

/// Buffers of the reactor that every connection uses in turn.
#[derive(Default)]
pub(crate) struct Pass {
    answers: Vec<(Answer, Body)>,
    bytes: Vec<u8>,
    /// Answers that were given while another connection's request was handled.
    pub strays: Vec<(Answer, Vec<u8>)>,
}

impl Pass {
    /// Collects what was answered on this thread outside of any connection's turn.
    pub fn collect_strays(&mut self) {
        if !Inline::take(&mut self.answers, &mut self.bytes) {
            return;
        }
        for (answer, body) in self.answers.drain(..) {
            self.strays.push((answer, owned(body, &self.bytes)));
        }
    }
}

fn owned(body: Body, bytes: &[u8]) -> Vec<u8> {
    match body {
        Body::Range(range) => bytes[range].to_vec(),
        Body::Owned(bytes) => bytes,
    }
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
        let start = options.counters_start;
        let core = Core {
            id,
            peer,
            reactor,
            phase,
            opened: phase == Phase::Open,
            shared_side: None,
            welcome: None,
            framing,
            outbound: Outbound::default(),
            flushed: false,
            reply_bytes_max: u32::MAX,
            ordered: Some(Order { first: start, ..Order::default() }),
            next_place: start,
            in_flight: 0,
            in_flight_bytes: 0,
            streams: HashMap::new(),
            closing: None,
            service,
        };
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
        u32::from(read) * libc::EPOLLIN as u32 | u32::from(write) * libc::EPOLLOUT as u32
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
        if let Some((frame, region)) = self.core.welcome.take() {
            self.welcome(&frame, region)?;
        }
        let flushed = self.flush();
        match self.core.closing.take() {
            Some(reason) => Err(reason),
            None => flushed.map(drop),
        }
    }

    fn welcome(&mut self, frame: &[u8], region: Option<(Region, [Event; 3])>) -> Result<(), CloseReason> {
        let options = &self.core.service.options;
        let descriptors: Vec<_> = region
            .iter()
            .flat_map(|(region, bells)| std::iter::once(region.memory.as_fd()).chain(bells.iter().map(AsFd::as_fd)))
            .collect();
        // The first frame on a fresh socket always fits its buffer.
        if send_with_descriptors(self.socket.as_fd(), frame, &descriptors)? != frame.len() {
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
        let stuck = self.is_timed() && !(self.core.outbound.is_empty() && !self.core.may_read());
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

impl Core {
    fn waiting_bytes(&self) -> usize {
        self.outbound.bytes() + self.ordered.as_ref().map_or(0, |order| order.bytes)
    }

    fn may_read(&self) -> bool {
        let options = &self.service.options;
        self.phase != Phase::Ending
            && self.waiting_bytes() <= PAUSE_BYTES
            && (!options.plain
                || self.in_flight < options.requests_max && self.in_flight_bytes < options.request_bytes_max)
    }

    fn arrive(&mut self, arrival: Arrival<'_>, pass: &mut Pass) -> Flow {
        match arrival {
            Arrival::Frame(header, payload) => match (self.phase, header.kind) {
                (Phase::Open, Kind::Request) => self.request(header.id, payload, None, pass),
                (Phase::Open, Kind::StreamRequest) => self.stream_request(header.id, payload, pass),
                (Phase::Open, Kind::Cancel) => {
                    if let Some(stream) = self.streams.get(&header.id) {
                        stream.cancel();
                    }
                }
                (Phase::Open, Kind::Credit) => self.credit(header.id, &payload),
                (Phase::Handshake, Kind::Hello) => self.hello(&payload),
                (Phase::Handshake, _) => {
                    self.refuse(HandshakeError::NotThisProtocol("the first frame is not a handshake".into()));
                }
                (_, kind) => self.unexpected(format!("a client does not send frames of kind {kind:?} here")),
            },
            Arrival::TooLarge(header) => match (self.phase, header.kind) {
                (Phase::Open, Kind::Request | Kind::StreamRequest) => {
                    let limit = self.service.options.message_bytes_max;
                    let text = format!("a request of {} bytes where {limit} are allowed", header.payload_bytes);
                    let request = self.enter(header.id, 0);
                    self.answer_error(request, CODE_TOO_LARGE, &text);
                }
                (_, kind) => self.unexpected(format!("a frame of kind {kind:?} is too large")),
            },
        }
        let go_on = self.closing.is_none() && self.welcome.is_none() && self.may_read();
        if go_on { Flow::Continue } else { Flow::Pause }
    }

    fn unexpected(&mut self, text: String) {
        let reason = CloseReason::Unexpected(text);
        self.closing.get_or_insert(reason);
    }

    /// Takes the next place for a request.
    fn enter(&mut self, id: u64, bytes: u32) -> RequestKey {
        let request = RequestKey { connection: self.id, place: self.next_place, id, bytes };
        self.next_place = self.next_place.wrapping_add(1);
        if let Some(order) = &mut self.ordered {
            order.held.push_back(Held::default());
        }
        self.in_flight += 1;
        self.in_flight_bytes += u64::from(bytes);
        request
    }

    fn answer_error(&mut self, request: RequestKey, code: &str, message: &str) {
        let answer = Answer { request, kind: AnswerKind::Error };
        self.answer(answer, Cow::Owned(encode_error(code, message)));
    }

    fn request(&mut self, id: u64, payload: Cow<'_, [u8]>, stream: Option<Arc<StreamState>>, pass: &mut Pass) {
        let request = self.enter(id, payload.len() as u32);
        let options = &self.service.options;
        let over = self.in_flight > options.requests_max || self.in_flight_bytes > options.request_bytes_max;
        if over && !options.plain {
            let text = format!(
                "more than {} requests or {} bytes of requests are in flight",
                options.requests_max, options.request_bytes_max
            );
            return self.answer_error(request, CODE_OVERLOADED, &text);
        }
        if let Some(stream) = &stream
            && self.streams.insert(id, stream.clone()).is_some()
        {
            return self.unexpected(format!("the id {id} names two streams"));
        }
        let responder = Responder::new(Ticket { shared: self.reactor.clone(), request, stream });
        let asked = Request { payload, connection: self.id, peer: self.peer };
        let handler = &self.service.handler;
        // What a handler leaves behind when it panics is its own; the responder has answered on its way out.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| handler.call(asked, responder)));
        self.take_inline(pass);
    }

    /// Sends what was answered on this thread.
    fn take_inline(&mut self, pass: &mut Pass) {
        if !Inline::take(&mut pass.answers, &mut pass.bytes) {
            return;
        }
        for (answer, body) in pass.answers.drain(..) {
            if answer.request.connection != self.id {
                pass.strays.push((answer, owned(body, &pass.bytes)));
                continue;
            }
            match body {
                Body::Range(range) => self.answer(answer, Cow::Borrowed(&pass.bytes[range])),
                Body::Owned(bytes) => self.answer(answer, Cow::Owned(bytes)),
            }
        }
    }

    fn stream_request(&mut self, id: u64, payload: Cow<'_, [u8]>, pass: &mut Pass) {
        let Some((credit, rest)) = payload.split_first_chunk::<4>() else {
            return self.unexpected("a call for a stream without credit".into());
        };
        let stream = Arc::new(StreamState::new(u32::from_le_bytes(*credit), self.reply_bytes_max as usize));
        self.request(id, Cow::Borrowed(rest), Some(stream), pass);
    }

    fn credit(&mut self, id: u64, payload: &[u8]) {
        let Ok(items) = payload.try_into() else { return self.unexpected("credit is four bytes".into()) };
        // Credit for a stream that has just ended crosses its end on the way.
        if let Some(stream) = self.streams.get(&id) {
            stream.add_credit(u32::from_le_bytes(items));
        }
    }

    fn refuse(&mut self, error: HandshakeError) {
        let payload = encode_refusal(&error, self.service.options.schema);
        self.send(Kind::Refused, 0, Cow::Owned(payload));
        self.closing.get_or_insert(error.into());
    }

    fn hello(&mut self, payload: &[u8]) {
        let options = &self.service.options;
        let shared_memory = self.service.transport == Transport::SharedMemory;
        let hello = match Hello::accept(payload, options.schema, shared_memory) {
            Ok(hello) => hello,
            Err(error) => return self.refuse(error),
        };
        let region = shared_memory.then(|| -> std::io::Result<_> {
            let start = options.counters_start as u32;
            let facts = Facts::new(options.ring_bytes, self.id.slot, self.id.generation, start);
            Ok((Region::create(facts)?, [Event::new()?, Event::new()?, Event::new()?]))
        });
        let region = match region.transpose() {
            Ok(region) => region,
            Err(error) => {
                self.closing = Some(error.into());
                return;
            }
        };
        let welcome = Welcome {
            completion_order: hello.completion_order,
            shared_memory,
            schema: options.schema,
            payload_bytes_max: options.message_bytes_max,
            requests_max: options.requests_max,
            request_bytes_max: options.request_bytes_max,
            slot: self.id.slot,
            generation: self.id.generation,
        };
        let payload = welcome.encode();
        let header = Header { kind: Kind::Welcome, id: 0, payload_bytes: payload.len() as u32 };
        let mut frame = Framing::Full.encode(header, &mut [0; HEADER_BYTES]).to_vec();
        frame.extend_from_slice(&payload);
        self.reply_bytes_max = hello.payload_bytes_max;
        if hello.completion_order {
            self.ordered = None;
        }
        self.phase = Phase::Open;
        self.welcome = Some((frame, region));
    }

    fn answer(&mut self, answer: Answer, payload: Cow<'_, [u8]>) {
        let Answer { request, kind } = answer;
        if kind.is_last() {
            assert!(self.in_flight > 0, "a request is answered once");
            self.in_flight -= 1;
            self.in_flight_bytes -= u64::from(request.bytes);
            self.streams.remove(&request.id);
        }
        let Some(order) = &mut self.ordered else { return self.emit(kind, request.id, payload) };
        let offset = request.place.wrapping_sub(order.first);
        if offset >= order.held.len() as u64 {
            return self.emit(kind, request.id, payload);
        }
        let takes_place = matches!(kind, AnswerKind::Reply | AnswerKind::Error | AnswerKind::StreamOpened);
        if offset == 0 && takes_place {
            order.held.pop_front();
            order.first = order.first.wrapping_add(1);
            self.emit(kind, request.id, payload);
            return self.release();
        }
        let held = &mut order.held[offset as usize];
        held.ready |= takes_place;
        order.bytes += payload.len() + HEADER_BYTES;
        held.frames.push((kind, request.id, payload.into_owned()));
    }

    /// Sends what only waited for its turn.
    fn release(&mut self) {
        while let Some(order) = &mut self.ordered
            && order.held.front().is_some_and(|held| held.ready)
        {
            let held = order.held.pop_front().expect("there is a front");
            order.first = order.first.wrapping_add(1);
            for (kind, id, payload) in held.frames {
                if let Some(order) = &mut self.ordered {
                    order.bytes -= payload.len() + HEADER_BYTES;
                }
                self.emit(kind, id, Cow::Owned(payload));
            }
        }
    }

    fn emit(&mut self, kind: AnswerKind, id: u64, payload: Cow<'_, [u8]>) {
        let Some(frame) = kind.frame() else { return };
        if payload.len() as u64 > u64::from(self.reply_bytes_max) && frame != Kind::Error {
            let text = format!("an answer of {} bytes where the client takes {}", payload.len(), self.reply_bytes_max);
            return self.send(Kind::Error, id, Cow::Owned(encode_error(CODE_TOO_LARGE, &text)));
        }
        if frame == Kind::Error && self.framing != Framing::Full {
            let (code, message) = decode_error(&payload);
            match self.service.handler.plain_error(&code, &message) {
                Some(payload) => self.send(Kind::Reply, id, Cow::Owned(payload)),
                None => {
                    self.closing.get_or_insert(CloseReason::Untold(format!("{message} ({code})")));
                }
            }
            return;
        }
        self.send(frame, id, payload);
    }

    /// Writes a frame to the ring if it fits at once, else puts it where frames wait.
    fn send(&mut self, kind: Kind, id: u64, payload: Cow<'_, [u8]>) {
        let header = Header { kind, id, payload_bytes: payload.len() as u32 };
        if let Some(side) = &mut self.shared_side
            && self.outbound.is_empty()
        {
            let mut bytes = [0; HEADER_BYTES];
            match side.outgoing.write_whole(Framing::Full.encode(header, &mut bytes), &payload) {
                Ok(true) => return,
                Ok(false) => {}
                Err(fault) => {
                    self.closing.get_or_insert(fault.into());
                    return;
                }
            }
        }
        match payload {
            Cow::Borrowed(bytes) => self.outbound.push(self.framing, header, bytes),
            Cow::Owned(bytes) => self.outbound.push_vec(self.framing, header, bytes),
        }
    }
}
