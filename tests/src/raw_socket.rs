//! A WebSocket client by hand, for what no well-behaved library sends: broken frames, odd fragments,
//! unmasked bytes, and silence.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tine_client::protocol::{ServerMessage, decode_server_message};

/// How long a read waits.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest head of an HTTP reply taken, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Frame opcodes.
pub mod opcode {
    /// The next part of a message.
    pub const CONTINUATION: u8 = 0;
    /// Text.
    pub const TEXT: u8 = 1;
    /// Bytes.
    pub const BINARY: u8 = 2;
    /// End of the connection.
    pub const CLOSE: u8 = 8;
    /// Sign of life wanted.
    pub const PING: u8 = 9;
    /// Sign of life.
    pub const PONG: u8 = 10;
}

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it ends its message.
    pub last: bool,
    /// Kind.
    pub opcode: u8,
    /// Contents.
    pub payload: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a close frame.
    Closed {
        /// Code; none when the frame was empty.
        code: Option<u16>,
        /// Reason.
        reason: String,
    },
    /// Without a word.
    Dropped,
}

impl End {
    /// The close code, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            End::Closed { code, .. } => *code,
            End::Dropped => None,
        }
    }
}

/// A WebSocket connection whose every byte the test decides.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The reply to a handshake that was not accepted.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
}

impl RawSocket {
    /// Connects to a database with `v3`, uncompressed.
    ///
    /// # Panics
    /// When the handshake is refused.
    #[track_caller]
    pub fn connect(address: &str, database: &str, query: &str) -> RawSocket {
        let opened = RawSocket::handshake(address, database, query, Some("v3.bsatn.spacetimedb"));
        opened.unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
    }

    /// Attempts a handshake with the given subprotocols, or none.
    ///
    /// # Errors
    /// What the server answered instead of 101.
    ///
    /// # Panics
    /// When there is no server.
    pub fn handshake(
        address: &str,
        database: &str,
        query: &str,
        protocols: Option<&str>,
    ) -> Result<RawSocket, Refusal> {
        let headers = protocols.map(|offered| ("sec-websocket-protocol", offered));
        RawSocket::handshake_with(address, database, query, headers.as_slice())
    }

    /// Attempts a handshake with further headers.
    ///
    /// # Errors
    /// What the server answered instead of 101.
    ///
    /// # Panics
    /// When there is no server.
    pub fn handshake_with(
        address: &str,
        database: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Result<RawSocket, Refusal> {
        let mut stream = TcpStream::connect(address).expect("the server is there");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "GET /v1/database/{database}/subscribe?{query} HTTP/1.1\r\nhost: {address}\r\n\
             upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("the request can be sent");
        let mut socket = RawSocket { stream, buffer: Vec::new() };
        let head = socket.read_head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        if status == 101 {
            return Ok(socket);
        }
        let length = head.to_ascii_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
        });
        let body = socket.read_exact(length.unwrap_or(0)).unwrap_or_default();
        Err(Refusal { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server has gone away.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one masked frame.
    ///
    /// # Errors
    /// When the server has gone away.
    pub fn send_frame(&mut self, last: bool, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        self.send_bytes(&frame(last, opcode, payload))
    }

    /// Sends one whole binary message.
    ///
    /// # Errors
    /// When the server has gone away.
    pub fn send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        self.send_frame(true, opcode::BINARY, payload)
    }

    /// The next frame, or how the connection ended. Pings are answered on the way.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub fn read_frame(&mut self) -> Result<Frame, End> {
        loop {
            let head = self.read_exact(2)?;
            let (last, opcode) = (head[0] & 0x80 != 0, head[0] & 0x0f);
            assert_eq!(head[1] & 0x80, 0, "a server does not mask");
            let length = match head[1] & 0x7f {
                126 => u64::from(u16::from_be_bytes(self.read_exact(2)?.try_into().expect("two bytes"))),
                127 => u64::from_be_bytes(self.read_exact(8)?.try_into().expect("eight bytes")),
                short => u64::from(short),
            };
            let payload = self.read_exact(usize::try_from(length).expect("it fits into memory"))?;
            match opcode {
                opcode::PING => {
                    // A server that has gone away is noticed by the next read.
                    let _ = self.send_frame(true, opcode::PONG, &payload);
                }
                opcode::CLOSE => {
                    let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    let reason = payload.get(2..).unwrap_or_default();
                    return Err(End::Closed { code, reason: String::from_utf8_lossy(reason).into_owned() });
                }
                _ => return Ok(Frame { last, opcode, payload }),
            }
        }
    }

    /// The messages of the next whole server message.
    ///
    /// # Errors
    /// How the connection ended.
    ///
    /// # Panics
    /// When they cannot be decoded.
    pub fn read_messages(&mut self) -> Result<Vec<ServerMessage>, End> {
        let whole = self.read_payload()?;
        assert_eq!(whole.first(), Some(&0), "nothing is compressed");
        Ok(decode_messages(Bytes::from(whole).slice(1..)))
    }

    /// The next whole server message as it came, with its tag.
    ///
    /// # Errors
    /// How the connection ended.
    pub fn read_payload(&mut self) -> Result<Vec<u8>, End> {
        let mut whole = Vec::new();
        loop {
            let frame = self.read_frame()?;
            if frame.opcode == opcode::PONG {
                continue;
            }
            whole.extend(frame.payload);
            if frame.last {
                return Ok(whole);
            }
        }
    }

    /// Reads until the connection ends; returns the messages that came and how it ended.
    pub fn read_to_end(&mut self) -> (Vec<ServerMessage>, End) {
        let mut all = Vec::new();
        loop {
            match self.read_messages() {
                Ok(messages) => all.extend(messages),
                Err(end) => return (all, end),
            }
        }
    }

    /// Whether the peer has ended the connection; waits at most `patience` for it and drops what comes.
    pub fn is_ended_within(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
        let mut chunk = vec![0; 1 << 16];
        while Instant::now() < deadline {
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
        false
    }

    fn read_head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                return String::from_utf8(head).expect("a head is text");
            }
            assert!(self.buffer.len() < HEAD_BYTES_MAX, "the head does not end");
            self.read_more().expect("the server answers");
        }
    }

    fn read_exact(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.buffer.len() < count {
            self.read_more()?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn read_more(&mut self) -> Result<(), End> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(End::Dropped),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came for {} s", READ_TIMEOUT.as_secs())
            }
            Err(_) => Err(End::Dropped),
        }
    }
}

/// A masked frame.
pub fn frame(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = head(last, opcode, payload.len() as u64, true);
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a frame without mask and payload.
pub fn head(last: bool, opcode: u8, length: u64, masked: bool) -> Vec<u8> {
    let mask_bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![if last { 0x80 } else { 0 } | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => bytes.push(mask_bit | short),
        (_, Ok(medium)) => {
            bytes.push(mask_bit | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(mask_bit | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// The messages that lie end to end in `bytes`.
///
/// # Panics
/// When they cannot be decoded.
pub fn decode_messages(bytes: Bytes) -> Vec<ServerMessage> {
    let (mut position, mut messages) = (0, Vec::new());
    while position < bytes.len() {
        messages.push(decode_server_message(&bytes, &mut position).expect("a server message"));
    }
    messages
}
