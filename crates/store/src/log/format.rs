//! The bytes of the log files: segment header and frame.
//!
//! All numbers are little-endian. A segment starts with a header of 64 bytes in a block of its own:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..12 | format version |
//! | 12..16 | zero |
//! | 16..24 | segment number, 1 for the first |
//! | 24..32 | salt, random per segment |
//! | 32..48 | store id, random, the same in all segments of a store |
//! | 48..60 | zero |
//! | 60..64 | crc32c of the bytes before |
//! | 64..4096 | zero |
//!
//! Frames follow, each in whole blocks of 4,096 bytes, so that direct writes take them and no block that was
//! confirmed is ever written again. A frame starts with a header of 48 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic |
//! | 4..8 | payload length in bytes, up to the end of the frame's last block |
//! | 8..12 | crc32c of the payload |
//! | 12..14 | flags, zero |
//! | 14..16 | zero |
//! | 16..20 | number of records |
//! | 20..24 | header crc of the previous frame, 0 for the first |
//! | 24..32 | sequence number of the first record |
//! | 32..40 | writer epoch |
//! | 40..44 | zero |
//! | 44..48 | crc32c of the header's bytes before |
//!
//! The payload is the records, each preceded by its length (`u32`), then zeros up to the end of the block.
//!
//! Both checksums of a frame start from the segment's salt: records hold bytes that clients choose, and the
//! salt keeps them from writing something that looks like a frame to the search for intact frames behind a
//! damaged one.

use std::ops::Range;

use tine_base::DIRECT_BLOCK_BYTES;

pub(crate) const FORMAT_VERSION: u32 = 2;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// Where the first frame of a segment starts: the header has a block of its own.
pub(crate) const FRAMES_START: usize = DIRECT_BLOCK_BYTES;
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Frames start at multiples of this; a search for one has few places to look at.
pub(crate) const FRAME_ALIGNMENT: usize = DIRECT_BLOCK_BYTES;

const SEGMENT_MAGIC: [u8; 8] = *b"TINE.LOG";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"FRAM");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) store_id: [u8; 16],
}

/// Why bytes are not the header of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeaderError {
    Damaged,
    Format(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.store_id);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header's block.
    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = vec![0; FRAMES_START];
        block[..SEGMENT_HEADER_BYTES].copy_from_slice(&self.encode());
        block
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, SegmentHeaderError> {
        let rest = bytes.get(SEGMENT_HEADER_BYTES..bytes.len().min(FRAMES_START)).unwrap_or_default();
        if bytes.len() < SEGMENT_HEADER_BYTES
            || bytes[0..8] != SEGMENT_MAGIC
            || read_u32(bytes, 60) != crc32c::crc32c(&bytes[..60])
            || rest.iter().any(|byte| *byte != 0)
        {
            return Err(SegmentHeaderError::Damaged);
        }
        let format = read_u32(bytes, 8);
        if format != FORMAT_VERSION {
            return Err(SegmentHeaderError::Format(format));
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&bytes[32..48]);
        Ok(SegmentHeader { number: read_u64(bytes, 16), salt: read_u64(bytes, 24), store_id })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) records: u32,
    pub(crate) first_sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) previous_crc: u32,
    /// The crc of the header itself, which the next frame names.
    pub(crate) crc: u32,
}

/// Completes a frame in place: `frame` has room for the header in front of the records. Returns the header crc.
pub(crate) fn seal_frame(
    frame: &mut Vec<u8>,
    salt: u64,
    records: u32,
    first_sequence: u64,
    epoch: u64,
    previous_crc: u32,
) -> u32 {
    frame.resize(frame.len().next_multiple_of(FRAME_ALIGNMENT), 0);
    let seed = seed(salt);
    let (header, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let length = u32::try_from(payload.len()).expect("a frame is bounded by the queue and one record");
    header.fill(0);
    header[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..12].copy_from_slice(&crc32c::crc32c_append(seed, payload).to_le_bytes());
    header[16..20].copy_from_slice(&records.to_le_bytes());
    header[20..24].copy_from_slice(&previous_crc.to_le_bytes());
    header[24..32].copy_from_slice(&first_sequence.to_le_bytes());
    header[32..40].copy_from_slice(&epoch.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &header[..44]);
    header[44..48].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// How long the frame at `offset` claims to be, header included; `None` without room for a header.
pub(crate) fn frame_bytes(segment: &[u8], offset: usize) -> Option<usize> {
    let header = segment.get(offset..offset.checked_add(FRAME_HEADER_BYTES)?)?;
    (read_u32(header, 0) == FRAME_MAGIC).then(|| FRAME_HEADER_BYTES + read_u32(header, 4) as usize)
}

/// The intact header of a frame at `offset` of a segment, whose payload may be damaged. `None` if there is none.
pub(crate) fn read_frame_header(segment: &[u8], offset: usize, salt: u64) -> Option<FrameHeader> {
    let header = segment.get(offset..offset.checked_add(FRAME_HEADER_BYTES)?)?;
    let crc = read_u32(header, 44);
    // Frames are numbered by their records, so each has some, and there are numbers for all.
    let records = read_u32(header, 16);
    let is_numbered = records > 0 && read_u64(header, 24).checked_add(u64::from(records)).is_some();
    if read_u32(header, 0) != FRAME_MAGIC || !is_numbered || crc != crc32c::crc32c_append(seed(salt), &header[..44]) {
        return None;
    }
    Some(FrameHeader {
        records,
        first_sequence: read_u64(header, 24),
        epoch: read_u64(header, 32),
        previous_crc: read_u32(header, 20),
        crc,
    })
}

/// The intact frame at `offset` of a segment: its header and where its payload is. `None` if there is none.
pub(crate) fn read_frame(segment: &[u8], offset: usize, salt: u64) -> Option<(FrameHeader, Range<usize>)> {
    let frame = read_frame_header(segment, offset, salt)?;
    let start = offset + FRAME_HEADER_BYTES;
    let payload = start..start.checked_add(read_u32(segment, offset + 4) as usize)?;
    let bytes = segment.get(payload.clone())?;
    if read_u32(segment, offset + 8) != crc32c::crc32c_append(seed(salt), bytes) {
        return None;
    }
    Some((frame, payload))
}

fn seed(salt: u64) -> u32 {
    crc32c::crc32c(&salt.to_le_bytes())
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { number: 7, salt: 0x1234_5678_9abc_def0, store_id: [9; 16] };

    #[test]
    fn segment_header_round_trip_and_every_flipped_bit() {
        let bytes = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped), Err(SegmentHeaderError::Damaged), "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(SegmentHeaderError::Damaged));
    }

    proptest! {
        /// Headers and frames of which the checksums fit and nothing else.
        #[test]
        fn hostile_bytes_are_refused_or_read(
            mut bytes in prop::collection::vec(any::<u8>(), 0..9000),
            length in prop_oneof![0_u32..9000, any::<u32>()],
            at in 0_usize..200,
        ) {
            let _ = (SegmentHeader::decode(&bytes), read_frame(&bytes, at, 5), frame_bytes(&bytes, at));
            if bytes.len() >= SEGMENT_HEADER_BYTES {
                bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
                let crc = crc32c::crc32c(&bytes[..60]);
                bytes[60..64].copy_from_slice(&crc.to_le_bytes());
                let _ = SegmentHeader::decode(&bytes);
            }
            if bytes.len() >= at + FRAME_HEADER_BYTES {
                bytes[at..at + 4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
                bytes[at + 4..at + 8].copy_from_slice(&length.to_le_bytes());
                let start = at + FRAME_HEADER_BYTES;
                let end = start.saturating_add(length as usize);
                if let Some(payload) = bytes.get(start..end) {
                    let crc = crc32c::crc32c_append(seed(5), payload);
                    bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
                }
                let crc = crc32c::crc32c_append(seed(5), &bytes[at..at + 44]);
                bytes[at + 44..at + 48].copy_from_slice(&crc.to_le_bytes());
                let records = read_u32(&bytes, at + 16);
                let numbered = records > 0 && read_u64(&bytes, at + 24).checked_add(u64::from(records)).is_some();
                prop_assert_eq!(read_frame_header(&bytes, at, 5).is_some(), numbered);
                let found = read_frame(&bytes, at, 5);
                prop_assert_eq!(found.is_some(), numbered && end <= bytes.len());
                prop_assert!(found.is_none_or(|(_, payload)| payload == (start..end)));
            }
        }
    }

    #[test]
    fn other_format_is_named() {
        let mut bytes = HEADER.encode();
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(SegmentHeaderError::Format(9)));
    }

    #[test]
    fn frame_round_trip_and_every_flipped_bit() {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(b"thirteen byte");
        let crc = seal_frame(&mut frame, HEADER.salt, 3, 41, 2, 77);
        assert_eq!(frame.len(), FRAME_ALIGNMENT);
        let (header, payload) = read_frame(&frame, 0, HEADER.salt).expect("intact");
        assert_eq!(header, FrameHeader { records: 3, first_sequence: 41, epoch: 2, previous_crc: 77, crc });
        assert_eq!(payload.end, FRAME_ALIGNMENT);
        assert!(frame[payload].strip_prefix(b"thirteen byte").expect("first").iter().all(|byte| *byte == 0));
        assert!(read_frame(&frame, 0, HEADER.salt + 1).is_none(), "another segment's salt");
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read_frame(&flipped, 0, HEADER.salt).is_none(), "bit {bit}");
        }
        for length in 0..frame.len() {
            assert!(read_frame(&frame[..length], 0, HEADER.salt).is_none(), "cut to {length}");
        }
    }
}
