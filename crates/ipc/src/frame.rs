//! What travels: frames, the same on sockets and rings.
//!
//! ```text
//! 0   u32  length of the payload         all numbers little-endian
//! 4   u8   kind
//! 5   3 zero bytes
//! 8   u64  request id, chosen by the client; 0 where no request is meant
//! 16  payload
//! ```
//!
//! A *plain* connection, for clients that know nothing but requests and replies in order, has only the length before the payload.

use thiserror::Error;

/// Bytes before the payload of a frame.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes before the payload of a plain frame.
pub(crate) const PLAIN_HEADER_BYTES: usize = 4;
/// Longest code and message of an error frame that is kept: whoever sends more is cut off there.
const ERROR_TEXT_BYTES_MAX: usize = 64 * 1024;

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A call.
    Request = 1,
    /// The client is no longer interested in a stream.
    Cancel = 2,
    /// The client has room for more items; payload u32.
    Credit = 3,
    /// A call that is answered by items; payload: u32 credit, then the request.
    StreamRequest = 4,
    /// The answer of a call.
    Reply = 16,
    /// A call or a stream failed; payload as [`encode_error`] makes it.
    Error = 17,
    /// One item of a stream.
    Item = 18,
    /// No further item comes; the payload is the last word of the service.
    End = 19,
    /// The server closes the connection; payload as of `Error`.
    Closing = 20,
    /// The client's first frame.
    Hello = 32,
    /// The server's answer to it.
    Welcome = 33,
    /// The server's other answer to it; payload as of `Error`, after what would have matched.
    Refused = 34,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Request,
            2 => Kind::Cancel,
            3 => Kind::Credit,
            4 => Kind::StreamRequest,
            16 => Kind::Reply,
            17 => Kind::Error,
            18 => Kind::Item,
            19 => Kind::End,
            20 => Kind::Closing,
            32 => Kind::Hello,
            33 => Kind::Welcome,
            34 => Kind::Refused,
            _ => return None,
        })
    }
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub id: u64,
    pub payload_bytes: u32,
}

/// Why bytes are not a frame. The connection they came on cannot go on: nobody knows where the next frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No frame has this kind.
    #[error("{0} is no kind of frame")]
    Kind(u8),
    /// Bytes that must be zero are not.
    #[error("reserved bytes of a frame's header are not zero")]
    Reserved,
}

/// What surrounds payloads on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Headers of [`HEADER_BYTES`].
    Full,
    /// Lengths only; every frame counts as this kind.
    Plain(Kind),
}

impl Framing {
    pub fn header_bytes(self) -> usize {
        match self {
            Framing::Full => HEADER_BYTES,
            Framing::Plain(_) => PLAIN_HEADER_BYTES,
        }
    }

    /// Reads a header from the first [`header_bytes`](Self::header_bytes) of `bytes`.
    pub fn decode(self, bytes: &[u8]) -> Result<Header, FrameError> {
        let payload_bytes = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        match self {
            Framing::Plain(kind) => Ok(Header { kind, id: 0, payload_bytes }),
            Framing::Full => {
                let kind = Kind::from_byte(bytes[4]).ok_or(FrameError::Kind(bytes[4]))?;
                if bytes[5..8] != [0; 3] {
                    return Err(FrameError::Reserved);
                }
                Ok(Header {
                    kind,
                    id: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
                    payload_bytes,
                })
            }
        }
    }

    /// Writes a header; the slice says which part of the array it takes.
    pub fn encode(self, header: Header, target: &mut [u8; HEADER_BYTES]) -> &[u8] {
        target[..4].copy_from_slice(&header.payload_bytes.to_le_bytes());
        if let Framing::Full = self {
            target[4..8].copy_from_slice(&[header.kind as u8, 0, 0, 0]);
            target[8..].copy_from_slice(&header.id.to_le_bytes());
        }
        &target[..self.header_bytes()]
    }
}

/// Payload of an error frame: u16 length of the code, code, message; both UTF-8.
pub(crate) fn encode_error(code: &str, message: &str) -> Vec<u8> {
    let code = &code.as_bytes()[..code.len().min(usize::from(u16::MAX))];
    let mut payload = Vec::with_capacity(2 + code.len() + message.len());
    payload.extend_from_slice(&(code.len() as u16).to_le_bytes());
    payload.extend_from_slice(code);
    payload.extend_from_slice(&message.as_bytes()[..message.len().min(ERROR_TEXT_BYTES_MAX)]);
    payload
}

/// Code and message of an error frame. Whatever the bytes are, something readable comes out.
pub(crate) fn decode_error(payload: &[u8]) -> (String, String) {
    let Some((length, rest)) = payload.split_first_chunk::<2>() else { return (String::new(), String::new()) };
    let (code, message) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let message = &message[..message.len().min(ERROR_TEXT_BYTES_MAX)];
    (String::from_utf8_lossy(code).into_owned(), String::from_utf8_lossy(message).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_and_bad_ones_are_refused() {
        let header = Header { kind: Kind::Item, id: u64::MAX - 3, payload_bytes: 70_000 };
        let mut bytes = [0; HEADER_BYTES];
        assert_eq!(Framing::Full.encode(header, &mut bytes).len(), HEADER_BYTES);
        assert_eq!(Framing::Full.decode(&bytes), Ok(header));
        for kind in 0..=u8::MAX {
            let mut bytes = bytes;
            bytes[4] = kind;
            match Framing::Full.decode(&bytes) {
                Ok(header) => assert_eq!(header.kind as u8, kind),
                Err(error) => assert_eq!(error, FrameError::Kind(kind)),
            }
        }
        bytes[6] = 1;
        assert_eq!(Framing::Full.decode(&bytes), Err(FrameError::Reserved));
        let plain = Framing::Plain(Kind::Request);
        let header = Header { kind: Kind::Request, id: 0, payload_bytes: 7 };
        assert_eq!(plain.encode(header, &mut bytes), [7, 0, 0, 0]);
        assert_eq!(plain.decode(&[7, 0, 0, 0]), Ok(header));
    }

    #[test]
    fn error_texts() {
        assert_eq!(decode_error(&encode_error("TN0101", "no such thing")), ("TN0101".into(), "no such thing".into()));
        for payload in [&[][..], &[1], &[255, 255], &[9, 0, b'a'], &[1, 0, 0xff, 0xfe]] {
            decode_error(payload);
        }
    }
}
