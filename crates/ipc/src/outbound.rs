//! Frames on their way out, for when the other side takes them more slowly than they are made.
//!
//! Small frames share buffers, so that many leave with one system call; a large payload is kept as it came, uncopied.

use std::collections::VecDeque;
use std::io;

use crate::frame::{Framing, HEADER_BYTES, Header};

/// Payloads up to this size are copied behind the frame before them: cheaper than a buffer of their own.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// A shared buffer is not added to beyond this.
const SEGMENT_BYTES_MAX: usize = 64 * 1024;
/// Buffers handed to one system call at most.
const SLICES_MAX: usize = 16;
/// An empty buffer up to this size is kept for the next frame.
const REUSE_BYTES_MAX: usize = 4 * 1024;

/// Where bytes go, without ever blocking.
pub(crate) trait Sink {
    /// Takes some of the bytes, in order; `WouldBlock` when it takes none now.
    fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;
}

/// What waits to be written to one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    segments: VecDeque<Vec<u8>>,
    /// Bytes of the first segment that are written already.
    written: usize,
    bytes: usize,
    spare: Vec<u8>,
}

impl Outbound {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds a frame, copying the payload.
    pub fn push(&mut self, framing: Framing, header: Header, payload: &[u8]) {
        let mut bytes = [0; HEADER_BYTES];
        let header = framing.encode(header, &mut bytes);
        self.bytes += header.len() + payload.len();
        let segment = self.open_segment();
        segment.extend_from_slice(header);
        segment.extend_from_slice(payload);
    }

    /// Adds a frame, keeping a large payload as it is.
    pub fn push_vec(&mut self, framing: Framing, header: Header, payload: Vec<u8>) {
        if payload.len() <= COPY_BYTES_MAX {
            return self.push(framing, header, &payload);
        }
        self.push(framing, header, &[]);
        self.bytes += payload.len();
        self.segments.push_back(payload);
    }

    fn open_segment(&mut self) -> &mut Vec<u8> {
        let open = self.segments.back().is_some_and(|last| last.len() < SEGMENT_BYTES_MAX);
        if !open {
            self.segments.push_back(std::mem::take(&mut self.spare));
        }
        self.segments.back_mut().expect("there is one")
    }

    /// Writes as much as the sink takes; true when nothing is left.
    ///
    /// # Errors
    /// The sink's, but for `WouldBlock`.
    pub fn flush(&mut self, sink: &mut impl Sink) -> io::Result<bool> {
        while self.bytes > 0 {
            let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            let mut offered = 0;
            for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                let start = if count == 0 { self.written } else { 0 };
                *slice = io::IoSlice::new(&segment[start..]);
                offered += segment.len() - start;
                count += 1;
            }
            match sink.write(&slices[..count]) {
                Ok(written) => {
                    assert!(written <= offered, "a sink takes what it was offered");
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        written += self.written;
        while let Some(first) = self.segments.front() {
            if written < first.len() {
                break;
            }
            written -= first.len();
            let mut done = self.segments.pop_front().expect("it is there");
            if done.capacity() <= REUSE_BYTES_MAX {
                done.clear();
                self.spare = done;
            }
        }
        self.written = written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use proptest::prelude::*;

    /// Takes bytes in pieces of the given sizes; zero is "not now".
    struct Slow {
        got: Vec<u8>,
        sizes: Vec<usize>,
        turn: usize,
    }

    impl Sink for Slow {
        fn write(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
            self.turn += 1;
            let mut room = self.sizes[self.turn % self.sizes.len()];
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let before = self.got.len();
            for slice in slices {
                let part = &slice[..room.min(slice.len())];
                self.got.extend_from_slice(part);
                room -= part.len();
            }
            Ok(self.got.len() - before)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn bytes_leave_once_and_in_order(
            frames in prop::collection::vec((any::<bool>(), prop_oneof![0usize..100, 15_000usize..17_000, 60_000usize..70_000]), 1..20),
            mut sizes in prop::collection::vec(prop_oneof![0usize..50, 1usize..90_000], 1..6),
        ) {
            sizes.push(1_000);
            let mut outbound = Outbound::default();
            let mut slow = Slow { got: Vec::new(), sizes, turn: 0 };
            let mut expected = Vec::new();
            for (number, (owned, size)) in frames.into_iter().enumerate() {
                let header = Header { kind: Kind::Reply, id: number as u64, payload_bytes: size as u32 };
                let payload = vec![number as u8; size];
                expected.extend_from_slice(Framing::Full.encode(header, &mut [0; HEADER_BYTES]));
                expected.extend_from_slice(&payload);
                if owned {
                    outbound.push_vec(Framing::Full, header, payload);
                } else {
                    outbound.push(Framing::Full, header, &payload);
                }
                if number % 2 == 0 {
                    outbound.flush(&mut slow).expect("no error");
                }
            }
            while !outbound.flush(&mut slow).expect("no error") {}
            prop_assert!(outbound.is_empty() && outbound.segments.is_empty());
            prop_assert!(slow.got == expected);
        }
    }
}
