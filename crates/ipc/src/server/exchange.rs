//! What one client and its service say to each other, apart from how it gets there: the handshake, requests to the handler, answers
//! back in order.
//!
//! Invariants:
//! - Each request has a place. With ordered replies, what belongs to a place is sent only after everything of the places before it;
//!   a stream takes its place when it is opened, and its items follow freely.
//! - Reading stops while more than [`PAUSE_BYTES`] wait to be written, or, for a plain client, while its requests fill its quota: who
//!   does not read cannot ask.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tine_base::descriptors::PeerCredentials;
use tine_base::event::Event;

use super::responder::{Answer, AnswerKind, Body, Inline, RequestKey, Responder, Shared, Ticket};
use super::stream::StreamState;
use super::{ConnectionId, Handler, ListenOptions, Request};
use crate::error::{CODE_OVERLOADED, CODE_TOO_LARGE, CloseReason, HandshakeError};
use crate::frame::{Framing, HEADER_BYTES, Header, Kind, decode_error, encode_error};
use crate::handshake::{Hello, Welcome, encode_refusal};
use crate::inbound::{Arrival, Flow};
use crate::outbound::Outbound;
use crate::path::Transport;
use crate::region::{Facts, Region};
use crate::ring::Producer;

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
pub(super) struct SharedSide {
    pub outgoing: Producer,
    pub own_bell: Event,
    /// Wakes the client's reader.
    pub client_bytes_bell: Event,
}

/// What a handshake has made: the frame, and for shared memory the region and the bells that travel with it: the server's, the
/// client's for bytes, the client's for space.
pub(super) struct WelcomeFrame {
    pub bytes: Vec<u8>,
    pub region: Option<(Region, [Event; 3])>,
}

/// One client's conversation.
pub(super) struct Core {
    pub id: ConnectionId,
    pub peer: PeerCredentials,
    pub service: Arc<Service>,
    reactor: Arc<Shared>,
    pub phase: Phase,
    /// The handler knows of the connection.
    pub opened: bool,
    pub shared_side: Option<SharedSide>,
    /// Made by the handshake, for the connection to send and take over.
    pub welcome: Option<WelcomeFrame>,
    pub framing: Framing,
    pub outbound: Outbound,
    /// Bytes were handed to the other side since stalls were last looked for.
    pub flushed: bool,
    /// Largest payload the client takes.
    reply_bytes_max: u32,
    ordered: Option<Order>,
    next_place: u64,
    pub in_flight: u32,
    in_flight_bytes: u64,
    pub streams: HashMap<u64, Arc<StreamState>>,
    pub closing: Option<CloseReason>,
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

impl Core {
    pub fn new(
        id: ConnectionId,
        peer: PeerCredentials,
        service: Arc<Service>,
        reactor: Arc<Shared>,
        phase: Phase,
        framing: Framing,
    ) -> Core {
        let start = service.options.counters_start;
        Core {
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
        }
    }

    pub fn waiting_bytes(&self) -> usize {
        self.outbound.bytes() + self.ordered.as_ref().map_or(0, |order| order.bytes)
    }

    pub fn may_read(&self) -> bool {
        let options = &self.service.options;
        self.phase != Phase::Ending
            && self.waiting_bytes() <= PAUSE_BYTES
            && (!options.plain
                || self.in_flight < options.requests_max && self.in_flight_bytes < options.request_bytes_max)
    }

    pub fn arrive(&mut self, arrival: Arrival<'_>, pass: &mut Pass) -> Flow {
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
        self.welcome = Some(WelcomeFrame { bytes: frame, region });
    }

    pub fn answer(&mut self, answer: Answer, payload: Cow<'_, [u8]>) {
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
