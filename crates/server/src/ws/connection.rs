//! One client's connection: one task, one hand-written loop.
//!
//! Each turn of the loop takes every frame that has arrived, hands the messages in them to the host as
//! one batch, takes whatever the lanes have put into the outbox (often the replies to that very batch,
//! when the host ran it on this thread), packs what may go out into as few frames as possible and
//! flushes once. The task sleeps when a whole turn found nothing to do.
//!
//! Invariants:
//! * Messages leave in the order the host delivered them. On a confirmed connection a message whose
//!   log position is not durable holds back itself and all behind it, and nothing else: reading, pings
//!   and closing go on.
//! * A protocol violation is answered after the replies of everything before it.
//! * Whatever the client does or fails to do, the task ends within the timeouts of `Limits`.
//!
//! `WebSocketStream` of tokio-tungstenite is used directly: axum's wrapper owns the upgrade and boxes
//! the stream, and this loop needs to cut payloads into fragments and to see when the socket is full.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tine_host::{CloseReason, Connection, Delivery, Durability, HostError};
use tine_types::protocol::{ClientMessage, ServerMessage, decode_client_message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::close::{Answer, Violation, host_close_frame};
use super::compression::Compression;
use super::handshake::Protocol;
use super::json::JsonSession;
use super::outbox::{Ending, Outbox, weight};
use super::payload::PayloadWriter;
use super::timers::{Timeout, Timers};
use crate::limits::{COMPRESSED_PER_TURN_BYTES_MAX, FRAGMENT_BYTES_MAX, PAYLOAD_REQUESTS_MAX};
use crate::limits::{READ_BATCH_BYTES_MAX, READ_BATCH_FRAMES_MAX, READ_BATCH_REQUESTS_MAX};
use crate::metrics::Metrics;
use crate::server::Shared;

/// Turns without sleeping before other tasks get the thread.
const TURNS_MAX: usize = 32;
/// Bytes read and thrown away at a time while waiting for the client to close.
const DISCARD_BYTES: usize = 4096;

/// Where the connection is in its life. It only moves downwards.
enum Phase {
    /// Reading and writing.
    Open,
    /// Nothing is read any more; what was delivered goes out, then this close frame. With `replies`,
    /// the answers to what was submitted are awaited too.
    Draining { frame: CloseFrame, replies: bool },
    /// A close frame was sent or received; waiting for the other side.
    Closing,
    /// Nothing more to do.
    Done,
}

/// The state of one connection. See the module documentation.
pub(crate) struct ConnectionTask<S> {
    socket: WebSocketStream<S>,
    /// The stream of messages ended; what still arrives is thrown away.
    read_ended: bool,
    protocol: Protocol,
    phase: Phase,
    session: Option<Connection>,
    outbox: Arc<Outbox>,
    /// Taken from the outbox, not yet encoded.
    ready: VecDeque<Delivery>,
    inbound: Vec<ClientMessage>,
    /// Replies the host still owes; starts at one for `InitialConnection`.
    owed: u64,
    /// `None`: deliver at once.
    durable: Option<watch::Receiver<Durability>>,
    /// What `durable` said when last asked.
    durability: Option<Durability>,
    /// Nobody updates `durable` any more.
    durable_abandoned: bool,
    waits_for_durable: bool,
    writer: PayloadWriter,
    /// Compressed since the task last let others have the thread, in bytes.
    compressed_bytes: usize,
    /// Present when the client speaks JSON.
    json: Option<Box<JsonSession>>,
    /// Frames were handed to the socket and not flushed.
    unflushed: bool,
    timers: Timers,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionTask<S> {
    pub fn new(
        socket: WebSocketStream<S>,
        (protocol, compression): (Protocol, Compression),
        session: Connection,
        outbox: Arc<Outbox>,
        durable: Option<watch::Receiver<Durability>>,
        timers: Timers,
        shared: Arc<Shared>,
    ) -> Self {
        ConnectionTask {
            socket,
            read_ended: false,
            protocol,
            phase: Phase::Open,
            session: Some(session),
            outbox,
            ready: VecDeque::new(),
            inbound: Vec::new(),
            owed: 1,
            durable,
            durability: None,
            durable_abandoned: false,
            waits_for_durable: false,
            writer: PayloadWriter::new(protocol, compression),
            compressed_bytes: 0,
            json: None,
            unflushed: false,
            timers,
            metrics: shared.metrics.clone(),
            shared,
        }
    }

    /// The same connection, for a client that speaks JSON if there is a session for that.
    pub fn speaking(mut self, json: Option<JsonSession>) -> Self {
        self.json = json.map(Box::new);
        self
    }

    /// Serves the connection to its end.
    pub async fn run(mut self) {
        let mut durable = self.durable.clone();
        let mut sleep = pin!(tokio::time::sleep_until(self.timers.next()));
        loop {
            // Polled only while a message waits for durability. The future is made anew each time it
            // fired; an advance in between is not lost, because the receiver remembers what it saw.
            let mut advanced = pin!(async {
                match &mut durable {
                    Some(durable) => durable.changed().await.is_ok(),
                    None => false,
                }
            });
            let outcome = poll_fn(|context| {
                if self.poll_turns(context, sleep.as_mut()).is_ready() {
                    return Poll::Ready(Outcome::Done);
                }
                if !self.waits_for_durable {
                    return Poll::Pending;
                }
                advanced.as_mut().poll(context).map(|alive| if alive { Outcome::Advanced } else { Outcome::Abandoned })
            })
            .await;
            match outcome {
                Outcome::Done => return,
                Outcome::Advanced => {}
                Outcome::Abandoned => self.durable_abandoned = true,
            }
        }
    }

    /// Runs turns until one finds nothing to do.
    fn poll_turns(&mut self, context: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<()> {
        self.outbox.awake();
        self.compressed_bytes = 0;
        for _ in 0..TURNS_MAX {
            let mut progress = self.receive(context);
            progress |= self.collect(context);
            progress |= self.transmit(context);
            progress |= self.check_timers(context, sleep.as_mut());
            if matches!(self.phase, Phase::Done) {
                return Poll::Ready(());
            }
            if !progress {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the frames that arrived and submits their messages. Returns whether anything happened.
    fn receive(&mut self, context: &mut Context<'_>) -> bool {
        match self.phase {
            Phase::Open => {}
            Phase::Closing => return self.await_close(context),
            Phase::Draining { .. } | Phase::Done => return false,
        }
        let mut frames = 0;
        let mut bytes = 0;
        let mut ending = None;
        while ending.is_none()
            && frames < READ_BATCH_FRAMES_MAX
            && bytes < READ_BATCH_BYTES_MAX
            && self.inbound.len() < READ_BATCH_REQUESTS_MAX
        {
            match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(Message::Binary(payload)))) => {
                    bytes += payload.len();
                    ending = self.decode(&payload).err();
                }
                Poll::Ready(Some(Ok(Message::Close(_)))) => ending = Some(Violation::Closed),
                Poll::Ready(Some(Ok(Message::Text(text)))) => {
                    bytes += text.len();
                    ending = self.decode_text(&text).err();
                }
                Poll::Ready(Some(Ok(_))) => self.unflushed = true,
                Poll::Ready(Some(Err(error))) => ending = Some(Violation::Socket(error)),
                Poll::Ready(None) => ending = Some(Violation::Gone),
            }
            frames += 1;
        }
        if frames == 0 {
            return false;
        }
        self.timers.received(Instant::now());
        self.metrics.client_bytes.add(bytes as u64);
        self.submit();
        if let Some(violation) = ending {
            self.end(violation);
        }
        true
    }

    fn decode_text(&mut self, text: &str) -> Result<(), Violation> {
        let json = self.json.as_mut().ok_or(Violation::Text)?;
        json.decode(text, &mut self.inbound).map_err(Violation::Malformed)
    }

    /// Decodes the messages of one payload into `inbound`; those before a bad one stay there.
    fn decode(&mut self, payload: &Bytes) -> Result<(), Violation> {
        if self.json.is_some() {
            return Err(Violation::Malformed("binary messages are not part of this protocol".to_owned()));
        }
        if payload.is_empty() {
            return Err(Violation::Malformed("empty payload".to_owned()));
        }
        let mut position = 0;
        let first = self.inbound.len();
        while position < payload.len() {
            if self.inbound.len() - first == PAYLOAD_REQUESTS_MAX {
                self.inbound.truncate(first);
                return Err(Violation::TooManyRequests);
            }
            match decode_client_message(payload, &mut position) {
                Ok(message) => self.inbound.push(message),
                Err(error) => return Err(Violation::Malformed(error.to_string())),
            }
            if self.protocol == Protocol::V2 {
                break;
            }
        }
        Ok(())
    }

    fn submit(&mut self) {
        if self.inbound.is_empty() {
            return;
        }
        let count = self.inbound.len() as u64;
        self.metrics.client_messages.add(count);
        self.owed += count;
        let Some(session) = &mut self.session else { return self.inbound.clear() };
        match self.shared.stalls.watch(|| session.submit(&mut self.inbound)) {
            Ok(()) => {}
            Err(HostError::Overloaded(_)) => self.end(Violation::TooManyRequests),
            // The host closes the outbox too, with the reason for the client.
            Err(error) => tracing::debug!(%error, "requests were not taken"),
        }
        if self.inbound.capacity() > 4 * READ_BATCH_REQUESTS_MAX {
            self.inbound = Vec::new();
        }
    }

    /// Decides how the connection ends after `violation`.
    fn end(&mut self, violation: Violation) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.read_ended = matches!(violation, Violation::Socket(_));
        match violation.answer() {
            Answer::Drop => self.finish(),
            Answer::FinishHandshake => self.enter_closing(),
            Answer::CloseNow(frame) => {
                self.metrics.clients_overloading.increment();
                self.begin_close(frame);
            }
            Answer::CloseAfterReplies(frame) => {
                self.metrics.clients_malformed.increment();
                self.drain(frame, true);
            }
        }
    }

    /// Moves what the lanes delivered into `ready`.
    fn collect(&mut self, context: &mut Context<'_>) -> bool {
        if !matches!(self.phase, Phase::Open | Phase::Draining { .. }) {
            return false;
        }
        let known = self.ready.len();
        let (found, ending) = self.outbox.take(&mut self.ready, context);
        for delivery in self.ready.range(known..) {
            if is_reply(&delivery.message) {
                self.owed = self.owed.saturating_sub(1);
            }
        }
        match ending {
            None => {}
            Some(Ending::Overflow | Ending::Abort | Ending::Close(CloseReason::Refused(_))) => self.finish(),
            Some(Ending::Close(reason)) => return self.drain(host_close_frame(&reason), false) || found,
        }
        found
    }

    /// Writes what may go out. Returns whether anything was written.
    fn transmit(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        while matches!(self.phase, Phase::Open | Phase::Draining { .. } | Phase::Closing) {
            if self.compressed_bytes > COMPRESSED_PER_TURN_BYTES_MAX {
                context.waker().wake_by_ref();
                break;
            }
            if let Err(error) = self.fill() {
                tracing::debug!(%error, "client cannot be written to");
                self.finish();
                return true;
            }
            if !self.unflushed {
                break;
            }
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Pending => {
                    self.timers.write_blocked(Instant::now());
                    return progress;
                }
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.timers.write_flowed();
                    self.metrics.flushes.increment();
                    progress = true;
                }
                Poll::Ready(Err(_)) => {
                    self.finish();
                    return true;
                }
            }
        }
        self.finish_draining() || progress
    }

    /// Hands frames to the socket's buffer until it holds a fragment's worth or nothing is left.
    fn fill(&mut self) -> Result<(), SocketError> {
        if matches!(self.phase, Phase::Closing) || self.unflushed && self.timers.is_write_blocked() {
            return Ok(());
        }
        let mut bytes = 0;
        while bytes < FRAGMENT_BYTES_MAX && self.compressed_bytes <= COMPRESSED_PER_TURN_BYTES_MAX {
            self.pack();
            let Some(frame) = self.writer.next_frame() else { break };
            bytes += frame.len();
            self.compressed_bytes += self.writer.take_compressed_bytes();
            Pin::new(&mut self.socket).start_send(frame)?;
            self.unflushed = true;
        }
        self.metrics.server_bytes.add(bytes as u64);
        Ok(())
    }

    /// Encodes what is ready into the payload being packed.
    fn pack(&mut self) {
        let mut messages = 0;
        let mut bytes = 0;
        while self.writer.has_room() {
            let Some(delivery) = self.next_deliverable() else { break };
            match &mut self.json {
                None => self.writer.push(&delivery.message),
                Some(json) => {
                    if let Some(text) = json.encode(&delivery.message) {
                        self.writer.push_text(text);
                    }
                }
            }
            messages += 1;
            bytes += weight(&delivery.message);
        }
        if messages > 0 {
            self.outbox.release(messages, bytes);
            self.metrics.server_messages.add(messages as u64);
        }
    }

    /// The next message, unless it waits for durability.
    fn next_deliverable(&mut self) -> Option<Delivery> {
        self.waits_for_durable = false;
        let front = self.ready.front()?;
        if let (Some(durable), Some(ticket)) = (&self.durable, front.durable)
            && self.durability.is_none_or(|known| known.ticket < ticket)
        {
            let current = *durable.borrow();
            self.durability = Some(current);
            if current.ticket < ticket {
                if current.failed || self.durable_abandoned {
                    self.begin_close(host_close_frame(&CloseReason::NotDurable));
                } else {
                    self.waits_for_durable = true;
                }
                return None;
            }
        }
        self.ready.pop_front()
    }

    /// Stops reading; the close frame follows what was delivered. Returns whether this was news.
    fn drain(&mut self, frame: CloseFrame, replies: bool) -> bool {
        match &mut self.phase {
            Phase::Open => {}
            // The host closes: what it still owes will not come.
            Phase::Draining { replies: awaited, .. } if *awaited && !replies => {
                *awaited = false;
                return true;
            }
            _ => return false,
        }
        self.timers.drain(Instant::now());
        self.phase = Phase::Draining { frame, replies };
        true
    }

    /// Sends the close frame when everything before it is out.
    fn finish_draining(&mut self) -> bool {
        let Phase::Draining { frame, replies } = &self.phase else { return false };
        let all_out = self.ready.is_empty() && self.writer.is_empty() && !self.unflushed;
        if !all_out || (*replies && self.owed > 0) {
            return false;
        }
        let frame = frame.clone();
        self.begin_close(frame);
        true
    }

    /// Sends a close frame now, dropping what was not yet written.
    fn begin_close(&mut self, frame: CloseFrame) {
        if matches!(self.phase, Phase::Closing | Phase::Done) {
            return;
        }
        // Within a fragmented payload a close frame may stand between two fragments.
        match Pin::new(&mut self.socket).start_send(Message::Close(Some(frame))) {
            Ok(()) => self.enter_closing(),
            Err(_) => self.finish(),
        }
    }

    fn enter_closing(&mut self) {
        self.disconnect();
        self.unflushed = true;
        self.waits_for_durable = false;
        self.timers.closing(Instant::now());
        self.phase = Phase::Closing;
    }

    fn finish(&mut self) {
        self.disconnect();
        self.phase = Phase::Done;
    }

    /// Tells the host that the client is gone; its disconnect hook may run here.
    fn disconnect(&mut self) {
        let session = self.session.take();
        self.shared.stalls.watch(|| drop(session));
    }

    /// Reads and throws away until the other side closes. Without it the system would answer the data
    /// still arriving with a reset, which may overtake the close frame.
    fn await_close(&mut self, context: &mut Context<'_>) -> bool {
        while !self.read_ended {
            match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(SocketError::Capacity(_) | SocketError::Protocol(_)))) => self.read_ended = true,
                Poll::Ready(None | Some(Err(_))) => {
                    self.finish();
                    return true;
                }
            }
        }
        let mut scratch = [0u8; DISCARD_BYTES];
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(self.socket.get_mut()).poll_read(context, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => true,
            Poll::Ready(_) => {
                self.finish();
                true
            }
        }
    }

    fn check_timers(&mut self, context: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> bool {
        let next = self.timers.next();
        if next < sleep.deadline() || sleep.is_elapsed() {
            sleep.as_mut().reset(next);
        }
        if sleep.as_mut().poll(context).is_pending() {
            return false;
        }
        match self.timers.due(Instant::now()) {
            None => {}
            Some(Timeout::Ping) => {
                if !matches!(self.phase, Phase::Open) || self.timers.is_write_blocked() {
                    return true;
                }
                match Pin::new(&mut self.socket).start_send(Message::Ping(Bytes::new())) {
                    Ok(()) => self.unflushed = true,
                    Err(_) => self.finish(),
                }
            }
            Some(Timeout::Idle) => {
                self.metrics.clients_idle.increment();
                self.finish();
            }
            Some(Timeout::Write) => {
                self.metrics.clients_stalled.increment();
                self.finish();
            }
            Some(Timeout::Drain) => {
                let Phase::Draining { frame, .. } = &self.phase else { return true };
                let frame = frame.clone();
                self.begin_close(frame);
            }
            Some(Timeout::Close) => self.finish(),
        }
        true
    }
}

/// Why `run` was woken.
enum Outcome {
    Done,
    Advanced,
    Abandoned,
}

/// Whether the message answers a request (or the connect itself) and so pays off what is owed.
fn is_reply(message: &ServerMessage) -> bool {
    !matches!(message, ServerMessage::TransactionUpdate(_) | ServerMessage::SubscriptionError { request_id: None, .. })
}
