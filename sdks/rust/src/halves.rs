//! The two halves of a connection. Each may be used by its own task; neither ever blocks the other.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tine_types::protocol::{ClientMessage, ServerMessage, decode_server_message};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message},
};

use crate::{
    error::ClientError,
    frame::{Frame, strip_compression_tag},
};

/// How many messages may be set aside while a request waits for its reply. A caller that hits this
/// does not read its updates; without a bound it would keep them all in memory.
pub(crate) const STASH_MESSAGES_MAX: usize = 65_536;

type Socket = WebSocketStream<TcpStream>;

/// The writing half of a connection.
#[derive(Debug)]
pub struct Sender {
    sink: SplitSink<Socket, Message>,
    timeout: Duration,
}

impl Sender {
    /// Sends messages, packed into as few frames as the frame target size allows.
    ///
    /// # Errors
    /// [`ClientError::Deadline`] when the server takes nothing for too long, and the errors of a
    /// broken socket. After an error the connection is of no further use.
    pub async fn send(&mut self, messages: &[ClientMessage]) -> Result<(), ClientError> {
        let mut frame = Frame::default();
        for message in messages {
            if frame.is_full() {
                self.send_frame(std::mem::take(&mut frame)).await?;
            }
            match frame.push(message) {
                Err(ClientError::MessageTooLarge { .. }) if !frame.is_empty() => {
                    self.send_frame(std::mem::take(&mut frame)).await?;
                    frame.push(message)?;
                }
                pushed => pushed?,
            }
        }
        self.send_frame(frame).await
    }

    /// Sends a frame that the caller packed. An empty frame is not sent: the protocol forbids it.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_frame(&mut self, frame: Frame) -> Result<(), ClientError> {
        if frame.is_empty() {
            return Ok(());
        }
        self.write(Message::Binary(frame.into_bytes())).await
    }

    /// Sends raw bytes as one binary WebSocket message: for tests of a server's defences.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send_raw(&mut self, payload: Bytes) -> Result<(), ClientError> {
        self.write(Message::Binary(payload)).await
    }

    /// Starts an orderly close. The receiving half sees [`ClientError::Closed`] once the server agreed.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn close(&mut self) -> Result<(), ClientError> {
        match self.write(Message::Close(None)).await {
            Err(ClientError::Closed { .. }) => Ok(()),
            other => other,
        }
    }

    async fn write(&mut self, message: Message) -> Result<(), ClientError> {
        match timeout(self.timeout, self.sink.send(message)).await {
            Ok(sent) => sent.map_err(socket_error),
            Err(_) => Err(ClientError::Deadline { waiting_for: "sending", after: self.timeout }),
        }
    }
}

/// The reading half of a connection.
///
/// Every method is safe to cancel: a message is either handed out or still there for the next call.
#[derive(Debug)]
pub struct Receiver {
    stream: SplitStream<Socket>,
    /// The frame being decoded; messages before `position` were handed out.
    frame: Bytes,
    position: usize,
    /// Messages set aside by a request helper, oldest first.
    stash: VecDeque<ServerMessage>,
    silence_limit: Duration,
}

impl Receiver {
    /// The next message, in the order of arrival.
    ///
    /// # Errors
    /// [`ClientError::Closed`] at the end of the connection, [`ClientError::Silent`] when not even a
    /// ping arrives for the connection's silence limit, [`ClientError::Protocol`] on nonsense.
    pub async fn recv(&mut self) -> Result<ServerMessage, ClientError> {
        match self.stash.pop_front() {
            Some(message) => Ok(message),
            None => self.recv_fresh().await,
        }
    }

    /// As [`Receiver::recv`], but gives up at `deadline`.
    ///
    /// # Errors
    /// As [`Receiver::recv`], and [`ClientError::Deadline`].
    pub async fn recv_until(&mut self, deadline: Instant) -> Result<ServerMessage, ClientError> {
        let after = deadline.saturating_duration_since(Instant::now());
        match timeout(after, self.recv()).await {
            Ok(received) => received,
            Err(_) => Err(ClientError::Deadline { waiting_for: "a message", after }),
        }
    }

    /// Appends to `out` every message that is here already, at least one: it waits for a frame only
    /// when nothing is left of the last one. Returns how many were appended.
    ///
    /// # Errors
    /// As [`Receiver::recv`]. Messages in front of an undecodable one are appended first.
    pub async fn recv_batch(&mut self, out: &mut Vec<ServerMessage>) -> Result<usize, ClientError> {
        let before = out.len();
        out.extend(self.stash.drain(..));
        if out.len() == before && self.position == self.frame.len() {
            self.next_frame().await?;
        }
        while self.position < self.frame.len() {
            out.push(self.decode()?);
        }
        Ok(out.len() - before)
    }

    /// The next message that no request helper has set aside.
    pub(crate) async fn recv_fresh(&mut self) -> Result<ServerMessage, ClientError> {
        if self.position == self.frame.len() {
            self.next_frame().await?;
        }
        self.decode()
    }

    /// Keeps a message for a later [`Receiver::recv`].
    pub(crate) fn set_aside(&mut self, message: ServerMessage) -> Result<(), ClientError> {
        if self.stash.len() == STASH_MESSAGES_MAX {
            return Err(ClientError::Backlog { limit: STASH_MESSAGES_MAX });
        }
        self.stash.push_back(message);
        Ok(())
    }

    fn decode(&mut self) -> Result<ServerMessage, ClientError> {
        let decoded = decode_server_message(&self.frame, &mut self.position);
        decoded.map_err(|error| {
            // What follows an undecodable message cannot be found: drop the frame.
            self.position = self.frame.len();
            ClientError::Protocol(error.to_string())
        })
    }

    /// Waits for the next frame with at least one message in it.
    async fn next_frame(&mut self) -> Result<(), ClientError> {
        loop {
            let arrived = timeout(self.silence_limit, self.stream.next()).await;
            let arrived = arrived.map_err(|_| ClientError::Silent { after: self.silence_limit })?;
            match arrived {
                None => return Err(ClientError::Closed { close_code: None, reason: String::new() }),
                Some(Err(error)) => return Err(socket_error(error)),
                Some(Ok(Message::Binary(frame))) => {
                    self.frame = strip_compression_tag(frame)?;
                    self.position = 0;
                    if self.frame.is_empty() {
                        return Err(ClientError::Protocol("a frame without a message".to_owned()));
                    }
                    return Ok(());
                }
                Some(Ok(Message::Text(_))) => return Err(ClientError::Protocol("a text frame".to_owned())),
                Some(Ok(Message::Close(frame))) => {
                    let (close_code, reason) = match frame {
                        Some(frame) => (Some(u16::from(frame.code)), frame.reason.to_string()),
                        None => (None, String::new()),
                    };
                    return Err(ClientError::Closed { close_code, reason });
                }
                // The library answers pings by itself; either shows that the server lives.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            }
        }
    }
}

/// Splits an established socket.
pub(crate) fn split(socket: Socket, send_timeout: Duration, silence_limit: Duration) -> (Sender, Receiver) {
    let (sink, stream) = socket.split();
    let receiver = Receiver { stream, frame: Bytes::new(), position: 0, stash: VecDeque::new(), silence_limit };
    (Sender { sink, timeout: send_timeout }, receiver)
}

fn socket_error(error: tungstenite::Error) -> ClientError {
    use tungstenite::{Error, error::ProtocolError};
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => {
            ClientError::Closed { close_code: None, reason: String::new() }
        }
        Error::Io(io) if is_disconnect(&io) => ClientError::Closed { close_code: None, reason: io.to_string() },
        Error::Protocol(error) => ClientError::Protocol(error.to_string()),
        Error::Capacity(error) => ClientError::Protocol(error.to_string()),
        other => ClientError::Transport(Box::new(other)),
    }
}

fn is_disconnect(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
