//! `v3` frames: several messages laid end to end in one WebSocket message.

use bytes::Bytes;
use tine_types::protocol::{ClientMessage, encode_client_message};

use crate::error::ClientError;

/// Size at which [`Frame::is_full`] asks to send, in bytes. Larger frames save nothing more per
/// message and make the server wait for bytes it could already work on.
pub const FRAME_TARGET_BYTES: usize = 256 * 1024;

/// The largest message a server accepts, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Messages packed for one WebSocket message. A frame can be filled without a connection at hand.
#[derive(Debug, Default)]
pub struct Frame {
    bytes: Vec<u8>,
    messages: usize,
}

impl Frame {
    /// An empty frame with room for `capacity_bytes`.
    pub fn with_capacity(capacity_bytes: usize) -> Frame {
        Frame { bytes: Vec::with_capacity(capacity_bytes), messages: 0 }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// [`ClientError::MessageTooLarge`] when the message alone, or the frame with it, would be over
    /// [`MESSAGE_BYTES_MAX`]; the frame is unchanged.
    pub fn push(&mut self, message: &ClientMessage) -> Result<(), ClientError> {
        let start = self.bytes.len();
        encode_client_message(message, &mut self.bytes);
        let bytes = self.bytes.len();
        if bytes > MESSAGE_BYTES_MAX {
            self.bytes.truncate(start);
            return Err(ClientError::MessageTooLarge { bytes: bytes - start, limit: MESSAGE_BYTES_MAX });
        }
        self.messages += 1;
        Ok(())
    }

    /// Number of messages in the frame.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether the frame holds no message.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Whether the frame reached [`FRAME_TARGET_BYTES`] and should be sent.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_TARGET_BYTES
    }

    /// The payload to send.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}

/// Takes the compression tag off a server frame.
pub(crate) fn strip_compression_tag(frame: Bytes) -> Result<Bytes, ClientError> {
    match frame.first() {
        Some(0) => Ok(frame.slice(1..)),
        Some(1 | 2) => Err(ClientError::Protocol("a compressed frame came although none was asked for".to_owned())),
        Some(tag) => Err(ClientError::Protocol(format!("unknown compression tag {tag}"))),
        None => Err(ClientError::Protocol("an empty frame".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tine_types::protocol::{ClientMessage, decode_client_message};

    use super::{Frame, MESSAGE_BYTES_MAX, strip_compression_tag};

    fn call(request_id: u32, args: &'static [u8]) -> ClientMessage {
        ClientMessage::CallReducer { request_id, reducer: "add".into(), args: Bytes::from_static(args) }
    }

    #[test]
    fn frames_hold_messages_end_to_end() {
        let mut frame = Frame::default();
        assert!(frame.is_empty());
        for request_id in 0..3 {
            frame.push(&call(request_id, b"abc")).expect("fits");
        }
        assert_eq!(frame.len(), 3);
        let bytes = frame.into_bytes();
        let mut position = 0;
        for expected in 0..3 {
            let ClientMessage::CallReducer { request_id, args, .. } =
                decode_client_message(&bytes, &mut position).expect("decodes")
            else {
                panic!("another kind of message");
            };
            assert_eq!((request_id, &args[..]), (expected, &b"abc"[..]));
        }
        assert_eq!(position, bytes.len());
    }

    #[test]
    fn a_message_over_the_limit_leaves_the_frame_as_it_was() {
        let mut frame = Frame::default();
        frame.push(&call(1, b"abc")).expect("fits");
        let huge = ClientMessage::CallReducer {
            request_id: 2,
            reducer: "add".into(),
            args: vec![0; MESSAGE_BYTES_MAX].into(),
        };
        assert_eq!(frame.push(&huge).expect_err("too large").code(), "TN0808");
        assert_eq!(frame.len(), 1);
        let mut position = 0;
        let bytes = frame.into_bytes();
        decode_client_message(&bytes, &mut position).expect("decodes");
        assert_eq!(position, bytes.len());
    }

    #[test]
    fn compression_tags() {
        assert_eq!(&strip_compression_tag(Bytes::from_static(&[0, 7, 8])).expect("plain")[..], &[7, 8]);
        for bad in [&[][..], &[1, 2], &[2, 2], &[9]] {
            assert_eq!(strip_compression_tag(Bytes::copy_from_slice(bad)).expect_err("refused").code(), "TN0807");
        }
    }
}
