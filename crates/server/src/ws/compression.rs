//! Compression of payloads: who gets it, and how it is done without holding up a thread.
//!
//! A payload's first byte says how the rest is to be read: 0 as it is, 1 Brotli, 2 gzip. The client asks for one of them in the
//! address; payloads of at most [`PLAIN_BYTES_MAX`] stay plain, and so does everything for a client that does not ask.
//!
//! The SDK for TypeScript asks for gzip by default and decompresses with the runtime's `DecompressionStream`, without a queue: where
//! that stream works on other threads, as in Node, a plain message overtakes a compressed one, and the client's rows are wrong from
//! then on. A browser's stream is done before the next message is dispatched, so there the order is kept. Hence the rule of
//! [`Compression::kept_in_order`]: who would take messages out of order gets them plain.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use flate2::write::GzEncoder;

use crate::limits::{COMPRESSED_AT_ONCE_BYTES, FRAGMENT_BYTES_MAX};

/// Largest payload that is not worth compressing, in bytes without the tag. Clients expect none below it.
pub(super) const PLAIN_BYTES_MAX: usize = 1024;
/// Brotli's fastest setting that still finds repetitions.
const BROTLI_QUALITY: u32 = 1;
/// Logarithm of how far back Brotli looks, in bytes: more costs memory for each payload being sent and gains nothing on rows.
const BROTLI_WINDOW_BITS: u32 = 18;
/// Room of Brotli's buffer between the two, in bytes.
const BROTLI_BUFFER_BYTES: usize = 4096;
/// How the runtimes of JavaScript outside of browsers name themselves.
const RUNTIMES: [&str; 4] = ["node", "undici", "deno", "bun"];

/// How a client wants its payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compression {
    #[default]
    None,
    Brotli,
    Gzip,
}

impl Compression {
    /// The value of the parameter `compression`.
    pub fn parse(text: &str) -> Option<Compression> {
        match text {
            "None" => Some(Compression::None),
            "Brotli" => Some(Compression::Brotli),
            "Gzip" => Some(Compression::Gzip),
            _ => None,
        }
    }

    /// The same if the client that sent these headers takes compressed payloads in the order they come, else none.
    /// `offers_all` says that it offered every binary subprotocol, as the SDK for TypeScript does.
    pub fn kept_in_order(self, headers: &HeaderMap, offers_all: bool) -> Compression {
        let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_runtime = RUNTIMES
            .iter()
            .any(|name| agent.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes())));
        // Nobody asks for Brotli by default but clients that decompress in their reading loop.
        let is_default_of_sdk = self == Compression::Gzip && offers_all;
        let is_browser = headers.contains_key(header::ORIGIN);
        match !is_browser && (is_runtime || is_default_of_sdk) {
            true => Compression::None,
            false => self,
        }
    }

    /// The first byte of a payload.
    pub fn tag(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Brotli => 1,
            Compression::Gzip => 2,
        }
    }
}

enum Encoder {
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(Box<GzEncoder<Vec<u8>>>),
}

/// A payload that is compressed piece by piece while it is sent.
pub(super) struct Compressing {
    /// What was not yet given to the encoder.
    source: Bytes,
    encoder: Encoder,
}

impl Compressing {
    /// Begins to compress `source`, whose tag is `compression`'s.
    ///
    /// # Panics
    /// For no compression.
    pub fn new(compression: Compression, source: Bytes) -> Compressing {
        let mut output = Vec::with_capacity(source.len().min(FRAGMENT_BYTES_MAX));
        output.push(compression.tag());
        let encoder = match compression {
            Compression::None => panic!("nothing to compress with"),
            Compression::Gzip => Encoder::Gzip(Box::new(GzEncoder::new(output, flate2::Compression::fast()))),
            Compression::Brotli => Encoder::Brotli(Box::new(brotli::CompressorWriter::new(
                output,
                BROTLI_BUFFER_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW_BITS,
            ))),
        };
        Compressing { source, encoder }
    }

    /// Compresses the next piece. Returns what came of it, which may be empty, and the rest of the payload unless this was the end.
    pub fn advance(mut self) -> (Bytes, Option<Compressing>) {
        const INFALLIBLE: &str = "writing to memory works";
        let piece = self.source.split_to(self.source.len().min(COMPRESSED_AT_ONCE_BYTES));
        match &mut self.encoder {
            Encoder::Brotli(encoder) => encoder.write_all(&piece).expect(INFALLIBLE),
            Encoder::Gzip(encoder) => encoder.write_all(&piece).expect(INFALLIBLE),
        }
        if self.source.is_empty() {
            let output = match self.encoder {
                Encoder::Brotli(encoder) => encoder.into_inner(),
                Encoder::Gzip(encoder) => encoder.finish().expect(INFALLIBLE),
            };
            return (Bytes::from(output), None);
        }
        let output = match &mut self.encoder {
            Encoder::Brotli(encoder) => std::mem::take(encoder.get_mut()),
            Encoder::Gzip(encoder) => std::mem::take(encoder.get_mut()),
        };
        (Bytes::from(output), Some(self))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn compressed(compression: Compression, source: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut rest = Some(Compressing::new(compression, Bytes::copy_from_slice(source)));
        while let Some(compressing) = rest {
            let (output, next) = compressing.advance();
            payload.extend_from_slice(&output);
            rest = next;
        }
        payload
    }

    #[test]
    fn what_is_compressed_in_pieces_is_read_as_one() {
        let text: Vec<u8> = (0..40_000u32).flat_map(|number| number.to_le_bytes()).collect();
        for bytes in [&text[..PLAIN_BYTES_MAX + 1], &text[..COMPRESSED_AT_ONCE_BYTES], &text[..]] {
            let gzip = compressed(Compression::Gzip, bytes);
            assert_eq!(gzip[0], 2);
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&gzip[1..]).read_to_end(&mut back).expect("gzip");
            assert!(back == bytes);
            let brotli = compressed(Compression::Brotli, bytes);
            assert_eq!(brotli[0], 1);
            let mut back = Vec::new();
            brotli::Decompressor::new(&brotli[1..], 4096).read_to_end(&mut back).expect("brotli");
            assert!(back == bytes);
        }
    }

    #[test]
    fn who_would_take_messages_out_of_order_gets_them_plain() {
        let headers = |entries: &[(&'static str, &'static str)]| -> HeaderMap {
            entries.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        let browser = headers(&[("origin", "http://localhost:5173"), ("user-agent", "Mozilla/5.0 Chrome/156.0")]);
        let node = headers(&[("user-agent", "node")]);
        let undici = headers(&[("user-agent", "undici")]);
        let deno = headers(&[("user-agent", "Deno/2.5.0")]);
        let native = headers(&[]);
        let (gzip, brotli, plain) = (Compression::Gzip, Compression::Brotli, Compression::None);
        let cases = [
            (&browser, true, gzip, gzip),
            (&browser, true, brotli, brotli),
            (&browser, true, plain, plain),
            (&node, true, gzip, plain),
            (&node, false, gzip, plain),
            (&node, true, brotli, plain),
            (&undici, true, gzip, plain),
            (&deno, true, gzip, plain),
            // A runtime that does not say its name asks as the SDK does.
            (&native, true, gzip, plain),
            (&native, false, gzip, gzip),
            (&native, true, brotli, brotli),
            (&native, true, plain, plain),
        ];
        for (headers, offers_all, asked, expected) in cases {
            assert_eq!(asked.kept_in_order(headers, offers_all), expected, "{headers:?} {offers_all} {asked:?}");
        }
    }
}
