//! The one answer to a request, from whatever thread has it.
//!
//! An answer given on the reactor's own thread, which is the case while a handler runs, is left in a buffer of that thread and written
//! in the same pass: no lock, no wake-up, no allocation. From any other thread it goes through the reactor's queue.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tine_base::event::Event;

use super::ConnectionId;
use super::stream::{StreamSender, StreamState};
use crate::error::{CODE_DROPPED, CODE_NOT_STREAMED};
use crate::frame::{Kind, encode_error};
use crate::queue::Queue;

/// What reaches the reactor from outside of its loop.
#[derive(Debug)]
pub(crate) enum Message {
    Answer(Answer, Vec<u8>),
    /// Stop; flush for this long.
    Shutdown(Duration),
}

/// A frame for a client, but for its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub request: RequestKey,
    pub kind: AnswerKind,
}

/// Which request an answer belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestKey {
    pub connection: ConnectionId,
    /// Number of the request on its connection; wraps.
    pub place: u64,
    /// What the client calls it.
    pub id: u64,
    /// What the request counted towards the client's quota.
    pub bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    Reply,
    Error,
    /// The request is answered by a stream: its place in the order is taken, its items follow.
    StreamOpened,
    Item,
    StreamEnd,
    StreamError,
}

impl AnswerKind {
    /// Kind of the frame; none for what only the reactor needs to know.
    pub fn frame(self) -> Option<Kind> {
        match self {
            AnswerKind::Reply => Some(Kind::Reply),
            AnswerKind::Error | AnswerKind::StreamError => Some(Kind::Error),
            AnswerKind::StreamOpened => None,
            AnswerKind::Item => Some(Kind::Item),
            AnswerKind::StreamEnd => Some(Kind::End),
        }
    }

    /// One of several of the same request.
    fn is_of_stream(self) -> bool {
        !matches!(self, AnswerKind::Reply | AnswerKind::Error)
    }

    /// Nothing follows for the request.
    pub fn is_last(self) -> bool {
        !matches!(self, AnswerKind::StreamOpened | AnswerKind::Item)
    }
}

/// The part of a reactor that others hold on to.
#[derive(Debug)]
pub(crate) struct Shared {
    pub queue: Queue<Message>,
    pub event: Event,
}

impl Shared {
    pub fn send(&self, message: Message) {
        if self.queue.push(message) {
            self.event.ring();
        }
    }

    /// Hands an answer over, in the cheapest way there is from this thread. What belongs to a stream always takes the queue: one item
    /// may come from the reactor's thread while the one before it, sent from another, still waits there.
    pub fn answer(self: &Arc<Self>, answer: Answer, payload: Cow<'_, [u8]>) {
        if answer.kind.is_of_stream() {
            return self.send(Message::Answer(answer, payload.into_owned()));
        }
        let mut payload = Some(payload);
        INLINE.with_borrow_mut(|inline| {
            if inline.reactor == Arc::as_ptr(self)
                && let Some(payload) = payload.take()
            {
                inline.add(answer, payload);
            }
        });
        if let Some(payload) = payload {
            self.send(Message::Answer(answer, payload.into_owned()));
        }
    }
}

/// Answers given on the reactor's thread, until it takes them.
pub(crate) struct Inline {
    /// Whose thread this is; null on all others.
    reactor: *const Shared,
    pub answers: Vec<(Answer, Body)>,
    pub bytes: Vec<u8>,
}

/// Where the payload of an inline answer is.
pub(crate) enum Body {
    /// In [`Inline::bytes`].
    Range(std::ops::Range<usize>),
    Owned(Vec<u8>),
}

/// Bytes that the inline buffer keeps between passes.
const INLINE_BYTES_KEPT: usize = 64 * 1024;

thread_local! {
    static INLINE: RefCell<Inline> =
        const { RefCell::new(Inline { reactor: std::ptr::null(), answers: Vec::new(), bytes: Vec::new() }) };
}

impl Inline {
    fn add(&mut self, answer: Answer, payload: Cow<'_, [u8]>) {
        let body = match payload {
            Cow::Owned(bytes) => Body::Owned(bytes),
            Cow::Borrowed(bytes) => {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(bytes);
                Body::Range(start..self.bytes.len())
            }
        };
        self.answers.push((answer, body));
    }

    /// Marks this thread as the reactor's for as long as the guard lives.
    pub fn enter(shared: &Arc<Shared>) -> InlineGuard {
        INLINE.with_borrow_mut(|inline| {
            assert!(inline.reactor.is_null(), "a thread runs one reactor");
            inline.reactor = Arc::as_ptr(shared);
        });
        InlineGuard
    }

    /// Swaps the answers given so far with the empty vectors passed in. False: there are none.
    pub fn take(answers: &mut Vec<(Answer, Body)>, bytes: &mut Vec<u8>) -> bool {
        assert!(answers.is_empty(), "what was taken is handled before more is");
        INLINE.with_borrow_mut(|inline| {
            if inline.answers.is_empty() {
                return false;
            }
            bytes.clear();
            bytes.shrink_to(INLINE_BYTES_KEPT);
            std::mem::swap(&mut inline.answers, answers);
            std::mem::swap(&mut inline.bytes, bytes);
            true
        })
    }
}

/// Ends what [`Inline::enter`] began.
pub(crate) struct InlineGuard;

impl Drop for InlineGuard {
    fn drop(&mut self) {
        INLINE.with_borrow_mut(|inline| {
            *inline = Inline { reactor: std::ptr::null(), answers: Vec::new(), bytes: Vec::new() }
        });
    }
}

/// Answers one request, exactly once, from any thread. Dropped without an answer, it answers with an error of its own (TN0926).
#[derive(Debug)]
#[must_use = "a request that is not answered fails with TN0926"]
pub struct Responder {
    ticket: Option<Ticket>,
}

/// The right to answer a request.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub shared: Arc<Shared>,
    pub request: RequestKey,
    pub stream: Option<Arc<StreamState>>,
}

impl Ticket {
    pub fn answer(&self, kind: AnswerKind, payload: Cow<'_, [u8]>) {
        self.shared.answer(Answer { request: self.request, kind }, payload);
    }
}

impl Responder {
    pub(crate) fn new(ticket: Ticket) -> Self {
        Responder { ticket: Some(ticket) }
    }

    fn take(&mut self) -> Ticket {
        self.ticket.take().expect("only the methods that consume a responder take its ticket")
    }

    /// Answers with these bytes.
    pub fn ok(mut self, payload: &[u8]) {
        self.take().answer(AnswerKind::Reply, Cow::Borrowed(payload));
    }

    /// Answers with these bytes, which are not copied if there are many.
    pub fn ok_vec(mut self, payload: Vec<u8>) {
        self.take().answer(AnswerKind::Reply, Cow::Owned(payload));
    }

    /// Answers with an error.
    pub fn err(mut self, code: &str, message: &str) {
        self.take().answer(AnswerKind::Error, Cow::Owned(encode_error(code, message)));
    }

    /// Answers with a stream of items. If the client asked for none, it gets an error (TN0927) and nothing that is sent reaches it.
    pub fn stream(mut self) -> StreamSender {
        let ticket = self.take();
        match ticket.stream.clone() {
            Some(state) => {
                ticket.answer(AnswerKind::StreamOpened, Cow::Borrowed(&[]));
                StreamSender::new(Some(ticket), state)
            }
            None => {
                let error =
                    encode_error(CODE_NOT_STREAMED, "this command answers with a stream, and was not called for one");
                ticket.answer(AnswerKind::Error, Cow::Owned(error));
                StreamSender::new(None, Arc::new(StreamState::cancelled()))
            }
        }
    }

    /// Whether the client called for a stream.
    pub fn wants_stream(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.stream.is_some())
    }

    /// The connection the request came on.
    pub fn connection(&self) -> ConnectionId {
        self.ticket.as_ref().expect("a responder that is alive has its ticket").request.connection
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let error = encode_error(CODE_DROPPED, "the service dropped the request without an answer");
            ticket.answer(AnswerKind::Error, Cow::Owned(error));
        }
    }
}
