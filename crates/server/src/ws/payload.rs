//! Turning messages into WebSocket frames: which messages share a payload, and where it is cut.
//!
//! A payload is one tag byte, which says whether the rest is compressed (`compression.rs`), and messages end to end: in v3 as many as
//! are ready up to [`BATCH_BYTES_MAX`], in v2 exactly one. A payload above [`FRAGMENT_BYTES_MAX`] is written as
//! a binary frame and continuations, so that control frames may pass between them; one that is compressed is cut where its pieces end.

use bytes::Bytes;
use tine_types::protocol::{ServerMessage, encode_server_message};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::compression::{Compressing, Compression, PLAIN_BYTES_MAX};
use super::handshake::Protocol;
use crate::limits::{BATCH_BYTES_MAX, COMPRESSED_AT_ONCE_BYTES, FRAGMENT_BYTES_MAX};

const TAG_UNCOMPRESSED: u8 = 0;
/// Room a payload starts with: enough for a few dozen replies.
const PAYLOAD_BYTES_START: usize = 2048;

/// Packs messages into payloads and cuts these into frames.
pub(crate) struct PayloadWriter {
    protocol: Protocol,
    compression: Compression,
    /// The payload being packed, tag included; empty when none was begun.
    packing: Vec<u8>,
    /// A message that did not fit the payload before it, already encoded.
    carried: Vec<u8>,
    /// The payload being cut; its remaining bytes, as far as they are compressed.
    cutting: Bytes,
    /// The part of the payload being cut that is not yet compressed.
    compressing: Option<Compressing>,
    /// Bytes that were compressed since this was last asked.
    compressed_bytes: usize,
    /// Whether a frame of `cutting` was already given out.
    begun: bool,
}

impl PayloadWriter {
    pub fn new(protocol: Protocol, compression: Compression) -> PayloadWriter {
        PayloadWriter {
            protocol,
            compression,
            packing: Vec::new(),
            carried: Vec::new(),
            cutting: Bytes::new(),
            compressing: None,
            compressed_bytes: 0,
            begun: false,
        }
    }

    /// How much was compressed since the last time, in bytes: the work that frames do not show.
    pub fn take_compressed_bytes(&mut self) -> usize {
        std::mem::take(&mut self.compressed_bytes)
    }

    /// Whether all that was pushed is out.
    pub fn is_empty(&self) -> bool {
        self.packing.is_empty() && self.carried.is_empty() && self.cutting.is_empty() && self.compressing.is_none()
    }

    /// Whether another message may join the payload being packed.
    pub fn has_room(&self) -> bool {
        if !self.cutting.is_empty() || self.compressing.is_some() || !self.carried.is_empty() {
            return false;
        }
        match self.protocol {
            Protocol::V2 => self.packing.is_empty(),
            Protocol::V3 => self.packing.len() < BATCH_BYTES_MAX,
            Protocol::V1Json => true,
        }
    }

    /// Adds a message that is text already. Only while [`Self::has_room`], and not empty.
    pub fn push_text(&mut self, text: String) {
        assert!(self.has_room() && !text.is_empty());
        self.cutting = Bytes::from(text);
    }

    /// Adds a message. Only while [`Self::has_room`].
    pub fn push(&mut self, message: &ServerMessage) {
        assert!(self.has_room());
        if self.packing.is_empty() {
            self.packing.reserve(PAYLOAD_BYTES_START);
            self.packing.push(TAG_UNCOMPRESSED);
        }
        let start = self.packing.len();
        encode_server_message(message, &mut self.packing);
        let is_first = start == 1;
        if !is_first && self.packing.len() > 1 + BATCH_BYTES_MAX {
            self.carried = self.packing.split_off(start);
        }
    }

    /// The next frame to write, or `None` when all that was pushed is out.
    pub fn next_frame(&mut self) -> Option<Message> {
        if self.cutting.is_empty() && self.compressing.is_none() {
            self.seal()?;
        }
        while self.cutting.is_empty()
            && let Some(compressing) = self.compressing.take()
        {
            (self.cutting, self.compressing) = compressing.advance();
            self.compressed_bytes += COMPRESSED_AT_ONCE_BYTES;
        }
        let is_text = self.protocol == Protocol::V1Json;
        let is_whole = !self.begun && self.compressing.is_none() && self.cutting.len() <= FRAGMENT_BYTES_MAX;
        if is_whole && !is_text {
            return Some(Message::Binary(std::mem::take(&mut self.cutting)));
        }
        let fragment = self.cutting.split_to(self.cutting.len().min(FRAGMENT_BYTES_MAX));
        let is_last = self.cutting.is_empty() && self.compressing.is_none();
        let code = match (self.begun, is_text) {
            (true, _) => Data::Continue,
            (false, true) => Data::Text,
            (false, false) => Data::Binary,
        };
        self.begun = !is_last;
        Some(Message::Frame(Frame::message(fragment, OpCode::Data(code), is_last)))
    }

    /// Makes the packed payload the one to cut; the carried message begins the payload after it.
    fn seal(&mut self) -> Option<()> {
        if self.packing.is_empty() {
            assert!(self.carried.is_empty());
            return None;
        }
        let mut payload = Bytes::from(std::mem::take(&mut self.packing));
        if self.compression != Compression::None && payload.len() > 1 + PLAIN_BYTES_MAX {
            self.compressing = Some(Compressing::new(self.compression, payload.split_off(1)));
        } else {
            self.cutting = payload;
        }
        if !self.carried.is_empty() {
            self.packing.push(TAG_UNCOMPRESSED);
            self.packing.append(&mut self.carried);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tine_types::protocol::ServerMessage;

    fn message(request_id: u32, bytes: usize) -> ServerMessage {
        ServerMessage::OneOffQueryResult { request_id, result: Err("x".repeat(bytes)) }
    }

    /// Runs the writer like the connection does and returns whole payloads and the largest frame.
    fn payloads(protocol: Protocol, messages: &[ServerMessage]) -> (Vec<Vec<u8>>, usize) {
        payloads_compressed(protocol, Compression::None, messages)
    }

    fn payloads_compressed(
        protocol: Protocol,
        compression: Compression,
        messages: &[ServerMessage],
    ) -> (Vec<Vec<u8>>, usize) {
        let mut writer = PayloadWriter::new(protocol, compression);
        let mut input = messages.iter();
        let mut whole: Vec<Vec<u8>> = Vec::new();
        let mut frame_bytes_max = 0;
        loop {
            while writer.has_room() {
                let Some(message) = input.next() else { break };
                writer.push(message);
            }
            let continues = writer.begun;
            let bytes = match writer.next_frame() {
                None => return (whole, frame_bytes_max),
                Some(Message::Binary(bytes)) => bytes.to_vec(),
                Some(Message::Frame(frame)) => frame.payload().to_vec(),
                Some(other) => panic!("unexpected {other:?}"),
            };
            frame_bytes_max = frame_bytes_max.max(bytes.len());
            match continues {
                true => whole.last_mut().unwrap().extend(bytes),
                false => whole.push(bytes),
            }
        }
    }

    fn decode_all(payloads: &[Vec<u8>]) -> Vec<u32> {
        let mut ids = Vec::new();
        for payload in payloads {
            assert_eq!(payload[0], TAG_UNCOMPRESSED);
            let bytes = Bytes::copy_from_slice(&payload[1..]);
            let mut position = 0;
            while position < bytes.len() {
                match tine_types::protocol::decode_server_message(&bytes, &mut position).unwrap() {
                    ServerMessage::OneOffQueryResult { request_id, .. } => ids.push(request_id),
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        ids
    }

    #[test]
    fn messages_share_payloads_up_to_the_bound_and_keep_their_order() {
        let sizes = [10, 20, 300_000, 200_000, 200_000, 5, 2_000_000, 7, BATCH_BYTES_MAX, 3, 3];
        let messages: Vec<_> = sizes.iter().zip(0..).map(|(bytes, id)| message(id, *bytes)).collect();
        let expected: Vec<u32> = (0..sizes.len() as u32).collect();
        let (packed, frame_bytes_max) = payloads(Protocol::V3, &messages);
        assert_eq!(decode_all(&packed), expected);
        assert!(frame_bytes_max <= FRAGMENT_BYTES_MAX);
        assert!(packed.len() < sizes.len());
        for payload in &packed {
            let alone = decode_all(std::slice::from_ref(payload)).len() == 1;
            assert!(alone || payload.len() <= BATCH_BYTES_MAX + 1, "{} bytes", payload.len());
        }
        let (single, _) = payloads(Protocol::V2, &messages);
        assert_eq!(decode_all(&single), expected);
        assert_eq!(single.len(), sizes.len());
    }

    #[test]
    fn compressed_payloads_hold_the_same_messages() {
        let sizes = [10, PLAIN_BYTES_MAX + 1, 300_000, 400_000, 5];
        let messages: Vec<_> = sizes.iter().zip(0..).map(|(bytes, id)| message(id, *bytes)).collect();
        let (plain, _) = payloads(Protocol::V3, &messages);
        let (compressed, frame_bytes_max) = payloads_compressed(Protocol::V3, Compression::Gzip, &messages);
        assert!(frame_bytes_max <= FRAGMENT_BYTES_MAX);
        assert_eq!(plain.len(), compressed.len());
        for (plain, compressed) in plain.iter().zip(&compressed) {
            if plain.len() <= 1 + PLAIN_BYTES_MAX {
                assert_eq!(plain, compressed);
                continue;
            }
            assert_eq!(compressed[0], Compression::Gzip.tag());
            let mut back = vec![TAG_UNCOMPRESSED];
            std::io::copy(&mut flate2::read::GzDecoder::new(&compressed[1..]), &mut back).unwrap();
            assert!(&back == plain);
        }
    }

    #[test]
    fn small_messages_make_one_frame() {
        let messages: Vec<_> = (0..100).map(|id| message(id, 20)).collect();
        let (packed, _) = payloads(Protocol::V3, &messages);
        assert_eq!(packed.len(), 1);
    }
}
