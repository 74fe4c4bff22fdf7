//! From a stream of bytes to frames.
//!
//! Bytes come from a [`Source`], a socket or a ring, and are copied exactly once, into memory that the other side cannot reach:
//! small frames into a scratch buffer that many connections share, large ones into a buffer of their own. Only then are they looked
//! at.
//!
//! Invariants:
//! - What a connection keeps between two calls is less than one small frame, or what arrived while the sink did not want more (one
//!   scratch buffer at most), or the part of a large frame that has arrived: a length that lies costs its sender the bytes, not us.
//! - A frame that is larger than the limit is reported once, and skipped to its end without being kept.

use std::borrow::Cow;
use std::io;
use std::mem::MaybeUninit;

use thiserror::Error;

use crate::frame::{FrameError, Framing, Header};

/// Bytes of a scratch buffer: what one system call takes from a socket at most.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;
/// Payloads beyond this are collected in a buffer of their own.
const SMALL_BYTES_MAX: usize = SCRATCH_BYTES / 2;
/// By how much the buffer of a large payload grows at least; it also doubles, but never beyond the payload.
const LARGE_STEP_BYTES: usize = 256 * 1024;
/// Bytes taken from one source in a row before the caller gets to look after others.
const ROUND_BYTES_MAX: usize = 1024 * 1024;

/// Where bytes come from, without ever blocking.
///
/// # Safety
/// `read` must initialise as many bytes at the start of `target` as it returns.
pub(crate) unsafe trait Source {
    /// Takes bytes; `WouldBlock` when there are none now, zero when none will ever come again.
    fn read(&mut self, target: &mut [MaybeUninit<u8>]) -> io::Result<usize>;
}

/// The shared buffer.
pub(crate) struct Scratch(Box<[MaybeUninit<u8>]>);

impl Scratch {
    pub fn new() -> Self {
        Scratch(Box::new_uninit_slice(SCRATCH_BYTES))
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    Frame(Header, Cow<'a, [u8]>),
    /// A frame above the limit; its payload is skipped.
    TooLarge(Header),
}

/// Whether the sink wants the next frame now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Pause,
}

/// How a round of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The source has nothing now.
    Drained,
    /// There may be more right away: bytes in the source, or frames held back by a pause.
    More,
    /// The source has ended.
    Ended,
}

/// Why reading cannot go on.
#[derive(Debug, Error)]
pub(crate) enum InboundError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Read(#[from] io::Error),
}

struct Large {
    header: Header,
    payload: Vec<u8>,
}

/// The receiving half of one connection.
pub(crate) struct Inbound {
    framing: Framing,
    payload_bytes_max: u32,
    /// Bytes that have arrived and are no whole frame yet, or were held back.
    kept: Vec<u8>,
    /// `kept` may hold whole frames.
    held_back: bool,
    large: Option<Large>,
    /// Bytes of a frame above the limit that are still to come.
    skip_bytes: u32,
    /// Bytes received; wraps. For who wants to know whether anything moves.
    pub received: u64,
}

impl Inbound {
    pub fn new(framing: Framing, payload_bytes_max: u32) -> Self {
        Inbound {
            framing,
            payload_bytes_max,
            kept: Vec::new(),
            held_back: false,
            large: None,
            skip_bytes: 0,
            received: 0,
        }
    }

    /// Sets the limit of payloads from the next frame on.
    pub fn set_limit(&mut self, payload_bytes_max: u32) {
        self.payload_bytes_max = payload_bytes_max;
    }

    /// Whether a payload of this size is within the limit.
    pub fn accepts(&self, payload_bytes: u32) -> bool {
        payload_bytes <= self.payload_bytes_max
    }

    /// A frame has begun and not ended.
    pub fn is_partial(&self) -> bool {
        !self.kept.is_empty() || self.large.is_some() || self.skip_bytes > 0
    }

    /// Frames may wait here although the source is silent.
    pub fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Reads once from the source, or more often while a large frame arrives, and passes every whole frame to `sink`.
    ///
    /// # Errors
    /// [`InboundError`]: the connection cannot go on.
    pub fn fill(
        &mut self,
        source: &mut impl Source,
        scratch: &mut Scratch,
        mut sink: impl FnMut(Arrival<'_>) -> Flow,
    ) -> Result<Progress, InboundError> {
        if let Some(progress) = self.fill_large(source, &mut sink)? {
            return Ok(progress);
        }
        let kept_bytes = self.kept.len();
        scratch.0[..kept_bytes].write_copy_of_slice(&self.kept);
        let room = &mut scratch.0[kept_bytes..];
        let (read, progress) = if self.held_back || room.is_empty() {
            (0, Progress::More)
        } else {
            match source.read(room) {
                Ok(0) => return Ok(Progress::Ended),
                Ok(read) if read == room.len() => (read, Progress::More),
                Ok(read) => (read, Progress::Drained),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Drained),
                Err(error) => return Err(error.into()),
            }
        };
        self.received = self.received.wrapping_add(read as u64);
        // SAFETY: the first `kept_bytes` were written above and `read` more by the source, as its contract says.
        let bytes = unsafe { std::slice::from_raw_parts(scratch.0.as_ptr().cast::<u8>(), kept_bytes + read) };
        let (taken, flow) = self.parse(bytes, &mut sink)?;
        self.kept.clear();
        self.kept.extend_from_slice(&bytes[taken..]);
        if self.kept.is_empty() && self.kept.capacity() > 4096 {
            self.kept = Vec::new();
        }
        let held_before = std::mem::replace(&mut self.held_back, flow == Flow::Pause && taken < bytes.len());
        Ok(if self.held_back || held_before || self.large.is_some() { Progress::More } else { progress })
    }

    /// Passes the whole frames at the start of `bytes` on; returns how many bytes they took.
    fn parse(&mut self, bytes: &[u8], sink: &mut impl FnMut(Arrival<'_>) -> Flow) -> Result<(usize, Flow), FrameError> {
        let header_bytes = self.framing.header_bytes();
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            if self.skip_bytes > 0 {
                let skipped = rest.len().min(self.skip_bytes as usize);
                self.skip_bytes -= skipped as u32;
                taken += skipped;
                if self.skip_bytes > 0 {
                    return Ok((taken, Flow::Continue));
                }
                continue;
            }
            if rest.len() < header_bytes {
                return Ok((taken, Flow::Continue));
            }
            let header = self.framing.decode(rest)?;
            let payload_bytes = header.payload_bytes as usize;
            let body = &rest[header_bytes..];
            let flow = if header.payload_bytes > self.payload_bytes_max {
                self.skip_bytes = header.payload_bytes;
                taken += header_bytes;
                sink(Arrival::TooLarge(header))
            } else if body.len() >= payload_bytes {
                taken += header_bytes + payload_bytes;
                sink(Arrival::Frame(header, Cow::Borrowed(&body[..payload_bytes])))
            } else if payload_bytes > SMALL_BYTES_MAX {
                let mut payload = Vec::with_capacity(payload_bytes.min(LARGE_STEP_BYTES));
                payload.extend_from_slice(body);
                self.large = Some(Large { header, payload });
                return Ok((bytes.len(), Flow::Continue));
            } else {
                return Ok((taken, Flow::Continue));
            };
            if flow == Flow::Pause {
                return Ok((taken, flow));
            }
        }
    }

    /// Goes on with a large frame. `None`: there is none.
    fn fill_large(
        &mut self,
        source: &mut impl Source,
        sink: &mut impl FnMut(Arrival<'_>) -> Flow,
    ) -> Result<Option<Progress>, InboundError> {
        let Some(large) = &mut self.large else { return Ok(None) };
        let target_bytes = large.header.payload_bytes as usize;
        let mut round_bytes = 0;
        while large.payload.len() < target_bytes {
            if round_bytes >= ROUND_BYTES_MAX {
                return Ok(Some(Progress::More));
            }
            let missing = target_bytes - large.payload.len();
            if large.payload.capacity() == large.payload.len() {
                large.payload.reserve_exact(missing.min(large.payload.len().max(LARGE_STEP_BYTES)));
            }
            let spare = large.payload.spare_capacity_mut();
            let spare_bytes = spare.len().min(missing);
            let read = match source.read(&mut spare[..spare_bytes]) {
                Ok(0) => return Ok(Some(Progress::Ended)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Progress::Drained)),
                Err(error) => return Err(error.into()),
            };
            // SAFETY: the source initialised `read` bytes after the current length, within the capacity.
            unsafe { large.payload.set_len(large.payload.len() + read) };
            self.received = self.received.wrapping_add(read as u64);
            round_bytes += read;
        }
        let large = self.large.take().expect("it is there");
        sink(Arrival::Frame(large.header, Cow::Owned(large.payload)));
        Ok(Some(Progress::More))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HEADER_BYTES, Kind};
    use proptest::prelude::*;

    /// Gives out bytes in pieces of the given sizes, with a pause after each.
    struct Pieces<'a> {
        bytes: &'a [u8],
        sizes: Vec<usize>,
        turn: usize,
    }

    // SAFETY: `read` writes exactly the bytes it counts.
    unsafe impl Source for Pieces<'_> {
        fn read(&mut self, target: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
            if self.bytes.is_empty() {
                return Ok(0);
            }
            self.turn += 1;
            let size = self.sizes[self.turn % self.sizes.len()].min(self.bytes.len()).min(target.len());
            if size == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let (now, later) = self.bytes.split_at(size);
            target[..size].write_copy_of_slice(now);
            self.bytes = later;
            Ok(size)
        }
    }

    fn encode(framing: Framing, frames: &[(Header, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (header, payload) in frames {
            bytes.extend_from_slice(framing.encode(*header, &mut [0; HEADER_BYTES]));
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    /// Frames; those without a payload were too large.
    type Decoded = Vec<(Header, Option<Vec<u8>>)>;

    /// Decodes everything; every third frame pauses.
    fn decode(framing: Framing, bytes: &[u8], sizes: Vec<usize>, payload_bytes_max: u32) -> Result<Decoded, String> {
        let mut inbound = Inbound::new(framing, payload_bytes_max);
        let mut scratch = Scratch::new();
        let mut source = Pieces { bytes, sizes, turn: 0 };
        let mut frames = Vec::new();
        for _ in 0..1_000_000 {
            let progress = inbound.fill(&mut source, &mut scratch, |arrival| {
                frames.push(match arrival {
                    Arrival::Frame(header, payload) => (header, Some(payload.into_owned())),
                    Arrival::TooLarge(header) => (header, None),
                });
                if frames.len() % 3 == 0 { Flow::Pause } else { Flow::Continue }
            });
            match progress {
                Ok(Progress::Ended) => return Ok(frames),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        panic!("no end");
    }

    fn frames(sizes: &[usize]) -> Vec<(Header, Vec<u8>)> {
        sizes
            .iter()
            .enumerate()
            .map(|(number, &size)| {
                let header = Header { kind: Kind::Request, id: number as u64, payload_bytes: size as u32 };
                (header, (0..size).map(|position| (position * 31 + number) as u8).collect())
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn frames_survive_any_fragmentation(
            sizes in prop::collection::vec(prop_oneof![0usize..200, 30_000usize..70_000, 65_500usize..65_560, 300_000usize..300_002], 1..12),
            mut pieces in prop::collection::vec(prop_oneof![0usize..20, 1usize..100_000], 1..8),
        ) {
            pieces.push(1_000);
            let sent = frames(&sizes);
            let bytes = encode(Framing::Full, &sent);
            let got = decode(Framing::Full, &bytes, pieces, 100_000).expect("whole frames");
            let expected: Vec<_> =
                sent.into_iter().map(|(header, payload)| (header, (payload.len() <= 100_000).then_some(payload))).collect();
            prop_assert!(got == expected);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            pieces in prop::collection::vec(1usize..50, 1..4),
            plain in any::<bool>(),
        ) {
            let framing = if plain { Framing::Plain(Kind::Request) } else { Framing::Full };
            let _ = decode(framing, &bytes, pieces, 64);
        }
    }

    #[test]
    fn a_length_that_lies_costs_nothing() {
        let header = Header { kind: Kind::Request, id: 1, payload_bytes: 64 << 20 };
        let mut bytes = encode(Framing::Full, &[(header, Vec::new())]);
        bytes.extend_from_slice(&[1; 100]);
        let mut inbound = Inbound::new(Framing::Full, 64 << 20);
        let mut source = Pieces { bytes: &bytes, sizes: vec![1_000], turn: 0 };
        inbound.fill(&mut source, &mut Scratch::new(), |_| unreachable!("no frame is whole")).expect("so far so good");
        let large = inbound.large.as_ref().expect("a large frame has begun");
        assert!(large.payload.capacity() <= LARGE_STEP_BYTES);
        assert!(inbound.is_partial());
    }
}
