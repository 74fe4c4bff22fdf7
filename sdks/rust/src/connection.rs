//! One WebSocket to one database or fork.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tine_types::{
    ConnectionId, Identity, Timestamp,
    protocol::{ClientMessage, ProcedureStatus, QueryRows, ReducerOutcome, ServerMessage, TransactionUpdate},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        http::{HeaderValue, Request, Response, header},
        protocol::WebSocketConfig,
    },
};

use crate::{
    address::{ServerAddress, encode_segment},
    error::{CallFailure, ClientError},
    halves::{Receiver, Sender, split},
    http::reply::refusal_text,
};

/// The protocol this client speaks.
const SUBPROTOCOL: &str = "v3.bsatn.spacetimedb";
/// Largest server message taken, in bytes: an initial subscription may be large, a runaway is not read.
const SERVER_MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Read buffer, in bytes. The WebSocket library clears it before every read, so a larger one costs more
/// than the system calls it spares; frames larger than it are read in several steps.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How long connecting may take in all: TCP, the handshake, and the first message.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How long the server may refuse to take bytes, and how long a reply may take.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Servers ping every 15 s; three missed pings mean that nobody is there.
const SILENCE_LIMIT_DEFAULT: Duration = Duration::from_secs(45);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Server address, `http://host:port`.
    pub url: String,
    /// Name or identity of a database, or `name@fork`.
    pub database: String,
    /// Identity token; without one the server makes a new anonymous identity.
    pub token: Option<String>,
    /// Whether replies and updates wait until they are on stable storage; the server's default is yes.
    pub confirmed: Option<bool>,
    /// A connection id of the client's choice; the server makes one otherwise.
    pub connection_id: Option<ConnectionId>,
    /// Bound on connecting: TCP, handshake and first message together.
    pub connect_timeout: Duration,
    /// Bound on each send, and on each reply the request helpers wait for.
    pub request_timeout: Duration,
    /// A connection on which nothing arrives for this long, not even a ping, is given up.
    pub silence_limit: Duration,
}

impl ConnectOptions {
    /// The default options for a database of a server.
    pub fn new(url: impl Into<String>, database: impl Into<String>) -> ConnectOptions {
        ConnectOptions {
            url: url.into(),
            database: database.into(),
            token: None,
            confirmed: None,
            connection_id: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            silence_limit: SILENCE_LIMIT_DEFAULT,
        }
    }

    /// The same with a token.
    pub fn with_token(mut self, token: impl Into<String>) -> ConnectOptions {
        self.token = Some(token.into());
        self
    }

    /// The same with confirmed delivery on or off.
    pub fn with_confirmed(mut self, confirmed: bool) -> ConnectOptions {
        self.confirmed = Some(confirmed);
        self
    }
}

/// What a reducer call that succeeded brought back.
#[derive(Debug)]
pub struct ReducerReply {
    /// When the reducer ran.
    pub timestamp: Timestamp,
    /// BSATN of the reducer's return value, usually empty.
    pub return_value: Bytes,
    /// The changes of the call that concern this connection's own subscriptions.
    pub update: TransactionUpdate,
}

/// An established connection. See the crate's page for the rules it keeps.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    receiver: Receiver,
    identity: Identity,
    connection_id: ConnectionId,
    token: String,
    request_timeout: Duration,
    next_request_id: u32,
}

impl Connection {
    /// Connects and waits for the server's greeting.
    ///
    /// # Errors
    /// [`ClientError::Connect`] when no server is there, [`ClientError::Refused`] when it says no (404:
    /// no such database; 401: bad token), [`ClientError::Closed`] when the module's connect hook
    /// refused, [`ClientError::Deadline`] when it takes too long.
    pub async fn connect(options: ConnectOptions) -> Result<Connection, ClientError> {
        let limit = options.connect_timeout;
        match timeout(limit, Connection::establish(options)).await {
            Ok(connected) => connected,
            Err(_) => Err(ClientError::Deadline { waiting_for: "connecting", after: limit }),
        }
    }

    async fn establish(options: ConnectOptions) -> Result<Connection, ClientError> {
        let address = ServerAddress::parse(&options.url)?;
        let request = handshake_request(&address, &options)?;
        let connect_error =
            |source: std::io::Error| ClientError::Connect { url: options.url.clone(), source: source.into() };
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(connect_error)?;
        stream.set_nodelay(true).map_err(connect_error)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(SERVER_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(SERVER_MESSAGE_BYTES_MAX));
        let (socket, response) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|e| handshake_error(&options.url, e))?;
        check_subprotocol(&response)?;
        Connection::greet(socket, &options).await
    }

    async fn greet(socket: WebSocketStream<TcpStream>, options: &ConnectOptions) -> Result<Connection, ClientError> {
        let (sender, mut receiver) = split(socket, options.request_timeout, options.silence_limit);
        match receiver.recv().await {
            Ok(ServerMessage::InitialConnection { identity, connection_id, token }) => Ok(Connection {
                sender,
                receiver,
                identity,
                connection_id,
                token,
                request_timeout: options.request_timeout,
                next_request_id: 0,
            }),
            Ok(_) => Err(ClientError::Protocol("the first message was not the greeting".to_owned())),
            Err(ClientError::Closed { close_code: None, reason }) if reason.is_empty() => Err(ClientError::Closed {
                close_code: None,
                reason: "before the greeting; the module's connect hook may have refused".to_owned(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Who the server takes this connection for.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The id of this connection.
    pub fn connection_id(&self) -> ConnectionId {
        self.connection_id
    }

    /// The token to come back with as the same identity.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A request id that this connection has not used yet.
    pub fn next_request_id(&mut self) -> u32 {
        let id = self.next_request_id;
        self.next_request_id = self.next_request_id.wrapping_add(1);
        id
    }

    /// Sends messages in one frame (or as few as their size allows) without waiting for replies.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn send(&mut self, messages: &[ClientMessage]) -> Result<(), ClientError> {
        self.sender.send(messages).await
    }

    /// The next message, in order of arrival.
    ///
    /// # Errors
    /// As [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<ServerMessage, ClientError> {
        self.receiver.recv().await
    }

    /// The next message, or [`ClientError::Deadline`].
    ///
    /// # Errors
    /// As [`Receiver::recv_until`].
    pub async fn recv_until(&mut self, deadline: Instant) -> Result<ServerMessage, ClientError> {
        self.receiver.recv_until(deadline).await
    }

    /// Every message that is here already, at least one.
    ///
    /// # Errors
    /// As [`Receiver::recv_batch`].
    pub async fn recv_batch(&mut self, out: &mut Vec<ServerMessage>) -> Result<usize, ClientError> {
        self.receiver.recv_batch(out).await
    }

    /// Both halves, for a task that writes beside a task that reads.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Both halves, borrowed: for one task that needs both at once.
    pub fn halves(&mut self) -> (&mut Sender, &mut Receiver) {
        (&mut self.sender, &mut self.receiver)
    }

    /// Closes the connection in order and waits, shortly, until the server agreed.
    ///
    /// # Errors
    /// Whatever but a close ends the connection first.
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.sender.close().await?;
        let deadline = Instant::now() + self.request_timeout;
        loop {
            match self.receiver.recv_until(deadline).await {
                Ok(_) => {}
                Err(ClientError::Closed { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Calls a reducer with BSATN arguments and waits for its result.
    ///
    /// # Errors
    /// [`ClientError::Call`] when the call failed; the connection stays usable after that.
    pub async fn call_reducer(&mut self, reducer: &str, args: Bytes) -> Result<ReducerReply, ClientError> {
        let request_id = self.next_request_id();
        let message = ClientMessage::CallReducer { request_id, reducer: reducer.into(), args };
        let reply = self
            .request(
                message,
                |reply| matches!(reply, ServerMessage::ReducerResult { request_id: id, .. } if *id == request_id),
            )
            .await?;
        let ServerMessage::ReducerResult { timestamp, outcome, .. } = reply else {
            unreachable!("the filter lets only reducer results through");
        };
        let failed = |failure, message| Err(ClientError::Call { function: reducer.to_owned(), failure, message });
        match outcome {
            ReducerOutcome::Ok { return_value, update } => Ok(ReducerReply { timestamp, return_value, update }),
            ReducerOutcome::OkEmpty => Ok(ReducerReply {
                timestamp,
                return_value: Bytes::new(),
                update: TransactionUpdate { query_sets: Vec::new() },
            }),
            ReducerOutcome::Err(error) => failed(CallFailure::Sender, error_text(&error)),
            ReducerOutcome::InternalError(message) => failed(CallFailure::Internal, message),
        }
    }

    /// Calls a procedure with BSATN arguments and waits for the BSATN of what it returns.
    ///
    /// # Errors
    /// [`ClientError::Call`] when the call failed; the connection stays usable after that.
    pub async fn call_procedure(&mut self, procedure: &str, args: Bytes) -> Result<Bytes, ClientError> {
        let request_id = self.next_request_id();
        let message = ClientMessage::CallProcedure { request_id, procedure: procedure.into(), args };
        let reply = self
            .request(
                message,
                |reply| matches!(reply, ServerMessage::ProcedureResult { request_id: id, .. } if *id == request_id),
            )
            .await?;
        match reply {
            ServerMessage::ProcedureResult { status: ProcedureStatus::Returned(value), .. } => Ok(value),
            ServerMessage::ProcedureResult { status: ProcedureStatus::InternalError(message), .. } => {
                Err(ClientError::Call { function: procedure.to_owned(), failure: CallFailure::Internal, message })
            }
            _ => unreachable!("the filter lets only procedure results through"),
        }
    }

    /// Subscribes to a set of queries and waits for its first rows. Later changes arrive through
    /// [`Connection::recv`] under the same `query_set_id`.
    ///
    /// # Errors
    /// [`ClientError::Query`] when the server refuses a query.
    pub async fn subscribe(&mut self, query_set_id: u32, queries: &[&str]) -> Result<QueryRows, ClientError> {
        let request_id = self.next_request_id();
        let queries = queries.iter().map(|query| Box::from(*query)).collect();
        let message = ClientMessage::Subscribe { request_id, query_set_id, queries };
        let reply = self
            .request(message, |reply| match reply {
                ServerMessage::SubscribeApplied { request_id: id, .. } => *id == request_id,
                ServerMessage::SubscriptionError { request_id: id, .. } => *id == Some(request_id),
                _ => false,
            })
            .await?;
        match reply {
            ServerMessage::SubscribeApplied { rows, .. } => Ok(rows),
            ServerMessage::SubscriptionError { error, .. } => Err(ClientError::Query { message: error }),
            _ => unreachable!("the filter lets only subscription replies through"),
        }
    }

    /// Ends a set of queries and waits until the server has dropped it; nothing of it follows.
    ///
    /// # Errors
    /// [`ClientError::Query`] when the server knows no such set.
    pub async fn unsubscribe(&mut self, query_set_id: u32) -> Result<(), ClientError> {
        let request_id = self.next_request_id();
        let message = ClientMessage::Unsubscribe { request_id, query_set_id, send_dropped_rows: false };
        let reply = self
            .request(message, |reply| match reply {
                ServerMessage::UnsubscribeApplied { request_id: id, .. } => *id == request_id,
                ServerMessage::SubscriptionError { request_id: id, .. } => *id == Some(request_id),
                _ => false,
            })
            .await?;
        match reply {
            ServerMessage::SubscriptionError { error, .. } => Err(ClientError::Query { message: error }),
            _ => Ok(()),
        }
    }

    /// Runs one query and waits for its rows.
    ///
    /// # Errors
    /// [`ClientError::Query`] when the server refuses the query.
    pub async fn one_off_query(&mut self, query: &str) -> Result<QueryRows, ClientError> {
        let request_id = self.next_request_id();
        let message = ClientMessage::OneOffQuery { request_id, query: query.into() };
        let reply = self
            .request(
                message,
                |reply| matches!(reply, ServerMessage::OneOffQueryResult { request_id: id, .. } if *id == request_id),
            )
            .await?;
        match reply {
            ServerMessage::OneOffQueryResult { result, .. } => result.map_err(|message| ClientError::Query { message }),
            _ => unreachable!("the filter lets only query results through"),
        }
    }

    /// Sends one message and waits for the message that `is_reply` recognises; others are set aside.
    async fn request(
        &mut self,
        message: ClientMessage,
        is_reply: impl Fn(&ServerMessage) -> bool,
    ) -> Result<ServerMessage, ClientError> {
        let limit = self.request_timeout;
        self.sender.send(std::slice::from_ref(&message)).await?;
        let receiver = &mut self.receiver;
        let wait = async {
            loop {
                let arrived = receiver.recv_fresh().await?;
                if is_reply(&arrived) {
                    return Ok(arrived);
                }
                receiver.set_aside(arrived)?;
            }
        };
        match timeout(limit, wait).await {
            Ok(reply) => reply,
            Err(_) => Err(ClientError::Deadline { waiting_for: "the reply", after: limit }),
        }
    }
}

/// The text in a reducer's error value: a BSATN string, or whatever readable bytes came instead.
fn error_text(error: &[u8]) -> String {
    let text = match error.split_at_checked(4) {
        Some((length, text)) if length == (text.len() as u32).to_le_bytes().as_slice() => text,
        _ => error,
    };
    String::from_utf8_lossy(text).into_owned()
}

fn handshake_request(address: &ServerAddress, options: &ConnectOptions) -> Result<Request<()>, ClientError> {
    let mut path = format!("/v1/database/{}/subscribe?compression=None", encode_segment(&options.database));
    if let Some(confirmed) = options.confirmed {
        path.push_str(if confirmed { "&confirmed=true" } else { "&confirmed=false" });
    }
    if let Some(connection_id) = options.connection_id {
        path.push_str("&connection_id=");
        path.push_str(&connection_id.to_hex());
    }
    let bad = |reason| ClientError::BadUrl { url: options.url.clone(), reason };
    let mut request =
        address.websocket(&path).into_client_request().map_err(|_| bad("it does not form a WebSocket address"))?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(token) = &options.token {
        let value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| bad("the token has characters that no token has"))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    Ok(request)
}

fn check_subprotocol<B>(response: &Response<B>) -> Result<(), ClientError> {
    let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL).map(HeaderValue::as_bytes);
    if chosen == Some(SUBPROTOCOL.as_bytes()) {
        Ok(())
    } else {
        Err(ClientError::Protocol(format!("the server does not speak {SUBPROTOCOL}")))
    }
}

fn handshake_error(url: &str, error: tungstenite::Error) -> ClientError {
    match error {
        tungstenite::Error::Http(response) => {
            let status = response.status();
            let header = response.headers().get(crate::http::reply::ERROR_CODE_HEADER);
            let header = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = response.body().as_deref().unwrap_or_default();
            let (server_code, message) = refusal_text(status.as_u16(), header, &String::from_utf8_lossy(body));
            ClientError::Refused { status: status.as_u16(), server_code, message }
        }
        tungstenite::Error::Protocol(error) => ClientError::Protocol(error.to_string()),
        other => ClientError::Connect { url: url.to_owned(), source: Box::new(other) },
    }
}

#[cfg(test)]
mod tests {
    use super::error_text;

    #[test]
    fn reducer_errors_read_as_text() {
        let table: [(&[u8], &str); 4] =
            [(b"\x02\0\0\0no", "no"), (b"plain", "plain"), (b"\x09\0\0\0no", "\u{9}\0\0\0no"), (b"", "")];
        for (bytes, expected) in table {
            assert_eq!(error_text(bytes), expected);
        }
    }
}
