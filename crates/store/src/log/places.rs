//! Where in the segment files a record is: a sparse index, so that reading can begin near any record.

use parking_lot::Mutex;

/// Log bytes between two entries: reading that much more than needed costs a tenth of a millisecond, and 10 GiB of log
/// take a megabyte of entries.
const ENTRY_BYTES: u64 = 256 << 10;

/// The start of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Sequence number of the frame's first record.
    pub(crate) sequence: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Bytes of all frames before.
    bytes_before: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct LogPlaces(Mutex<Places>);

#[derive(Default)]
struct Places {
    entries: Vec<Place>,
    bytes: u64,
}

impl LogPlaces {
    /// Notes a frame; frames come in order.
    pub(crate) fn note(&self, sequence: u64, segment: u64, offset: u64, frame_bytes: u64) {
        let mut places = self.0.lock();
        let bytes_before = places.bytes;
        let due = places.entries.last().is_none_or(|last| {
            assert!(last.sequence < sequence, "frames are noted in order");
            last.segment != segment || bytes_before - last.bytes_before >= ENTRY_BYTES
        });
        if due {
            places.entries.push(Place { sequence, segment, offset, bytes_before });
        }
        places.bytes += frame_bytes;
    }

    /// The last known frame start that is not behind the record `sequence`.
    pub(crate) fn at_or_before(&self, sequence: u64) -> Option<Place> {
        let places = self.0.lock();
        let index = places.entries.partition_point(|place| place.sequence <= sequence);
        Some(places.entries[index.checked_sub(1)?])
    }

    /// The segments that hold only records before the one with the number `sequence`, and are followed by one that
    /// holds some: these can be deleted when nobody needs the records. In order.
    pub(crate) fn segments_before(&self, sequence: u64) -> Vec<u64> {
        let places = self.0.lock();
        let end = places.entries.partition_point(|place| place.sequence <= sequence);
        let Some(last) = places.entries[..end].last() else { return Vec::new() };
        let mut segments: Vec<u64> = places.entries[..end].iter().map(|place| place.segment).collect();
        segments.dedup();
        segments.retain(|segment| *segment != last.segment);
        segments
    }

    /// Forgets a segment that was deleted, the first one there is.
    pub(crate) fn forget(&self, segment: u64) {
        self.0.lock().entries.retain(|place| place.segment != segment);
    }

    /// A sequence number behind which there are no more than `bytes` of log, up to the distance of two entries.
    pub(crate) fn sequence_within(&self, bytes: u64) -> u64 {
        let places = self.0.lock();
        let Some(first) = places.bytes.checked_sub(bytes).filter(|first| *first > 0) else { return 0 };
        let index = places.entries.partition_point(|place| place.bytes_before < first);
        places.entries.get(index).or(places.entries.last()).map_or(0, |place| place.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sparse_and_found() {
        let places = LogPlaces::default();
        assert_eq!(places.at_or_before(5), None);
        for frame in 0..1000 {
            places.note(1 + frame * 10, 1 + frame / 500, frame % 500 * 4096, 4096);
        }
        assert!(places.0.lock().entries.len() <= 18);
        assert_eq!(places.at_or_before(1).map(|place| place.sequence), Some(1));
        for sequence in [1, 7, 700, 5000, 5001, 5002, 9999, 20_000] {
            let place = places.at_or_before(sequence).expect("there are frames");
            assert!(place.sequence <= sequence);
            let frame = (sequence.min(9_991) - 1) / 10;
            assert!(frame * 10 + 1 - place.sequence <= 640, "{sequence}: not further back than an entry");
        }
        assert_eq!(places.at_or_before(5_001).map(|place| (place.segment, place.offset)), Some((2, 0)));
        assert!(places.segments_before(5_000).is_empty());
        assert_eq!(places.segments_before(5_001), [1]);
        places.forget(1);
        assert_eq!(places.at_or_before(5_000), None);
        assert!(places.segments_before(9_999).is_empty());

        assert_eq!(places.sequence_within(u64::MAX), 0);
        assert_eq!(places.sequence_within(1000 * 4096), 0);
        let within = places.sequence_within(100 * 4096);
        assert!((9_001..=9_001 + 640).contains(&within), "{within}");
    }
}
