//! How connections end: what went wrong, and which close frame answers it.

use tine_host::CloseReason;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as SocketError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::limits::CLOSE_REASON_BYTES_MAX;

/// What ends the reading of a connection.
pub(super) enum Violation {
    /// The client sent a close frame; the answer is already queued.
    Closed,
    /// The stream ended.
    Gone,
    /// More requests than may wait.
    TooManyRequests,
    Text,
    Malformed(String),
    Socket(SocketError),
}

/// What is done about a violation.
pub(super) enum Answer {
    /// There is nobody to talk to.
    Drop,
    /// The close frame is already queued.
    FinishHandshake,
    /// Whatever else was to be said.
    CloseNow(CloseFrame),
    /// When everything before the violation is answered.
    CloseAfterReplies(CloseFrame),
}

impl Violation {
    /// How it is answered.
    pub fn answer(self) -> Answer {
        const TEXT: &str = "text messages are not part of this protocol";
        let (code, reason) = match self {
            Violation::Closed => return Answer::FinishHandshake,
            Violation::Gone => return Answer::Drop,
            Violation::TooManyRequests => {
                return Answer::CloseNow(close_frame(CloseCode::Again, "too many requests"));
            }
            Violation::Text | Violation::Socket(SocketError::Utf8(_)) => (CloseCode::Error, TEXT.to_owned()),
            Violation::Malformed(text) => (CloseCode::Error, text),
            Violation::Socket(SocketError::Capacity(CapacityError::MessageTooLong { .. })) => {
                (CloseCode::Size, "message too large".to_owned())
            }
            Violation::Socket(SocketError::Protocol(error)) if !is_reset(&error) => {
                (CloseCode::Protocol, error.to_string())
            }
            Violation::Socket(_) => return Answer::Drop,
        };
        Answer::CloseAfterReplies(close_frame(code, &reason))
    }
}

/// The frame that tells a client why the host ends its connection.
pub(super) fn host_close_frame(reason: &CloseReason) -> CloseFrame {
    match reason {
        CloseReason::ModuleExited(text) => close_frame(CloseCode::Away, text),
        CloseReason::Refused(text) => close_frame(CloseCode::Policy, text),
        CloseReason::NotDurable => close_frame(CloseCode::Error, "the store cannot confirm any more"),
    }
}

fn close_frame(code: CloseCode, reason: &str) -> CloseFrame {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    CloseFrame { code, reason: Utf8Bytes::from(reason) }
}

/// The client went away without a word, which is no violation worth an answer.
fn is_reset(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::ResetWithoutClosingHandshake)
}
