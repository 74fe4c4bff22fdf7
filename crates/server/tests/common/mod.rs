//! A server of this process on a free port, and the plainest possible clients: bytes over TCP for
//! HTTP, tungstenite for WebSocket frames.

// Each test binary uses a part of this.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tine_base::SystemEnv;
use tine_server::{Limits, Server, ServerOptions};
use tine_types::protocol::{ClientMessage, ServerMessage, decode_server_message, encode_client_message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// A module with what the tests call.
pub const MODULE: &str = r#"
import { schema, SenderError, t, table } from "tine:server";

const person = table({ public: true }, { id: t.u32().primaryKey(), name: t.string(), bestFriend: t.option(t.u32()) });
const mark = table({ public: true }, {
  id: t.u64().primaryKey().autoInc(), who: t.identity(), at: t.timestamp(), big: t.i128(), ratio: t.f64(),
  tags: t.array(t.string()), raw: t.array(t.u8()), good: t.bool(),
});
const secret = table({}, { id: t.u32().primaryKey() });
const db = schema({ person, mark, secret });
export default db;

export const add = db.reducer({ id: t.u32(), name: t.string() }, (ctx, { id, name }) => {
  if (name === "") throw new SenderError("a name is needed");
  ctx.db.person.insert({ id, name, bestFriend: undefined });
});
export const befriend = db.reducer({ id: t.u32(), friend: t.option(t.u32()) }, (ctx, { id, friend }) => {
  const row = ctx.db.person.id.find(id);
  if (!row) throw new SenderError(`there is no person ${id}`);
  ctx.db.person.id.update({ ...row, bestFriend: friend });
});
export const remove = db.reducer({ id: t.u32() }, (ctx, { id }) => { ctx.db.person.id.delete(id); });
export const addMark = db.reducer(
  { big: t.i128(), ratio: t.f64(), tags: t.array(t.string()), raw: t.array(t.u8()), good: t.bool() },
  (ctx, mark) => { ctx.db.mark.insert({ id: 0n, who: ctx.sender, at: ctx.timestamp, ...mark }); }
);
export const setUp = db.init(() => {});
export const noop = db.reducer({}, () => {});
export const say = db.reducer({ text: t.string() }, (ctx, { text }) => { console.log(text); });
export const spin = db.reducer({}, () => { for (;;) {} });
export const fail = db.reducer({}, () => { throw new Error("broken"); });
export const wide = db.reducer({ from: t.u32(), count: t.u32(), bytes: t.u32() }, (ctx, { from, count, bytes }) => {
  for (let id = from; id < from + count; id++) ctx.db.person.insert({ id, name: "x".repeat(bytes), bestFriend: undefined });
});
export const twice = db.procedure({ number: t.u64() }, t.u64(), (ctx, { number }) => number * 2n);
"#;

/// How long a test waits for anything.
const WAIT: Duration = Duration::from_secs(20);

/// A running server and the folder of its data.
pub struct TestServer {
    pub server: Server,
    pub folder: TempDir,
    pub address: SocketAddr,
    pub admin_token: String,
}

/// An HTTP reply, read to the end.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(": ")?;
            own.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl TestServer {
    pub async fn start() -> TestServer {
        TestServer::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ServerOptions)) -> TestServer {
        let folder = tempfile::tempdir().expect("a folder");
        let mut options = ServerOptions::new("127.0.0.1:0".parse().expect("an address"), folder.path().to_path_buf());
        options.limits = Limits::default();
        change(&mut options);
        let server = Server::start(options, Arc::new(SystemEnv), |_| {}).await.expect("the server starts");
        let admin_token = std::fs::read_to_string(folder.path().join("keys/admin-token")).expect("an admin token");
        TestServer { address: server.address(), server, folder, admin_token }
    }

    /// Starts a server with [`MODULE`] published as `people`.
    pub async fn with_people() -> TestServer {
        let server = TestServer::start().await;
        server.publish_people().await;
        server
    }

    pub async fn publish_people(&self) {
        let reply = self
            .http("PUT", "/v1/database/people", &[("content-type", "text/typescript"), self.admin()], MODULE.as_bytes())
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// The header that makes a request the owner's.
    pub fn admin(&self) -> (&str, &str) {
        // `authorization: Bearer` with the admin token would do too; this one works beside another token.
        ("tine-admin-token", &self.admin_token)
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.http("GET", path, &[], b"").await
    }

    pub async fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(text.as_bytes()).await.expect("sent");
        // A refused body may be cut off by the server.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(WAIT, stream.read_to_end(&mut bytes)).await.expect("a reply in time");
        assert!(read.is_ok() || !bytes.is_empty(), "{read:?}");
        parse_reply(&bytes)
    }

    pub async fn connect(&self, query: &str) -> Client {
        self.connect_to("people", query, "v3.bsatn.spacetimedb").await
    }

    pub async fn connect_to(&self, database: &str, query: &str, protocol: &str) -> Client {
        let uri = format!("ws://{}/v1/database/{database}/subscribe?{query}", self.address);
        let mut request = uri.into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
        let stream = TcpStream::connect(self.address).await.expect("connected");
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("accepted");
        Client { socket, waiting: Vec::new() }
    }

    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/v1/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().expect("a number")
    }
}

fn parse_reply(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { join_chunks(body) } else { body.to_owned() };
    Reply { status, head: head.to_owned(), body }
}

fn join_chunks(mut body: &str) -> String {
    let mut joined = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a chunk length");
        joined.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    joined
}

/// A WebSocket client.
pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
    waiting: Vec<ServerMessage>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a close frame.
    Closed(u16, String),
    /// Without one.
    Dropped,
}

impl Client {
    pub async fn send(&mut self, messages: &[ClientMessage]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode_client_message(message, &mut bytes));
        self.socket.send(Message::Binary(bytes.into())).await.expect("sent");
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("sent");
    }

    pub async fn recv(&mut self) -> ServerMessage {
        self.next().await.unwrap_or_else(|end| panic!("the connection ended: {end:?}"))
    }

    /// The next message, or how the connection ended.
    pub async fn next(&mut self) -> Result<ServerMessage, End> {
        loop {
            if !self.waiting.is_empty() {
                return Ok(self.waiting.remove(0));
            }
            let payload = self.payload().await?;
            let body = match payload[0] {
                0 => payload.slice(1..),
                2 => {
                    let mut body = Vec::new();
                    let mut decoder = flate2::read::GzDecoder::new(&payload[1..]);
                    std::io::Read::read_to_end(&mut decoder, &mut body).expect("gzip");
                    body.into()
                }
                tag => panic!("compressed with {tag}"),
            };
            let mut position = 0;
            while position < body.len() {
                self.waiting.push(decode_server_message(&body, &mut position).expect("a message"));
            }
        }
    }

    /// The next whole payload.
    pub async fn payload(&mut self) -> Result<Bytes, End> {
        loop {
            match tokio::time::timeout(WAIT, self.socket.next()).await.expect("something in time") {
                Some(Ok(Message::Binary(payload))) => return Ok(payload),
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return Err(End::Closed(code.into(), reason.to_string()));
                }
                // 1005 stands for a close frame without a code.
                Some(Ok(Message::Close(None))) => return Err(End::Closed(1005, String::new())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                None | Some(Err(SocketError::Protocol(_) | SocketError::Io(_) | SocketError::ConnectionClosed)) => {
                    return Err(End::Dropped);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// All messages until the end, and how it ended.
    pub async fn drain(&mut self) -> (Vec<ServerMessage>, End) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Ok(message) => messages.push(message),
                Err(end) => return (messages, end),
            }
        }
    }

    /// Receives `InitialConnection` and returns identity and token.
    pub async fn greet(&mut self) -> (String, String) {
        match self.recv().await {
            ServerMessage::InitialConnection { identity, token, .. } => (identity.to_hex(), token),
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// A call with arguments that are already encoded.
pub fn call(request_id: u32, reducer: &str, args: Vec<u8>) -> ClientMessage {
    ClientMessage::CallReducer { request_id, reducer: reducer.into(), args: args.into() }
}

/// A call of `add`.
pub fn add(request_id: u32, id: u32, name: &str) -> ClientMessage {
    let mut args = id.to_le_bytes().to_vec();
    args.extend((name.len() as u32).to_le_bytes());
    args.extend(name.as_bytes());
    call(request_id, "add", args)
}

/// A subscription to all people.
pub fn subscribe(request_id: u32, query_set_id: u32, query: &str) -> ClientMessage {
    ClientMessage::Subscribe { request_id, query_set_id, queries: vec![query.into()] }
}
