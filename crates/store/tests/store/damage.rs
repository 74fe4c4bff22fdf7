//! Logs that a crash cut short, or that something changed.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{Durability, ForkId, OpenError, Store};

use crate::support::{State, assert_equals_log, fork_options, open, put_one, settle, snapshot_content};

/// A closed store whose log has one frame per commit, over two segments, and where its frames start.
struct Sample {
    directory: tempfile::TempDir,
    /// Segment number and offset of each frame.
    frames: Vec<(u64, usize)>,
    /// The state of the main fork, and without its last commit.
    state: State,
    state_before_last: State,
}

fn sample(last_value_bytes: usize) -> Sample {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = open(directory.path()).expect("open");
    for number in 0..10_u8 {
        put_one(&store, ForkId::MAIN, &[number], &vec![number; 400]);
        settle(&store);
    }
    store.fork(ForkId::MAIN, fork_options("side", Durability::Durable)).expect("fork");
    settle(&store);
    let state_before_last = snapshot_content(&store, ForkId::MAIN);
    put_one(&store, ForkId::MAIN, b"last", &vec![255; last_value_bytes]);
    let state = snapshot_content(&store, ForkId::MAIN);
    store.close().expect("close");
    let mut frames: Vec<(u64, usize)> = Store::read_log(directory.path(), Arc::new(SystemEnv))
        .expect("readable")
        .map(|record| record.expect("intact"))
        .map(|record| (record.segment, usize::try_from(record.offset).expect("small")))
        .collect();
    frames.dedup();
    assert_eq!(frames.last().expect("frames").0, 2, "the log has two segments");
    Sample { directory, frames, state, state_before_last }
}

fn segment(directory: &Path, number: u64) -> PathBuf {
    directory.join("log").join(format!("{number:010}.log"))
}

fn copy(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("temporary directory");
    std::fs::create_dir(copy.path().join("log")).expect("directory");
    for entry in std::fs::read_dir(from.join("log")).expect("list") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), copy.path().join("log").join(entry.file_name())).expect("copy");
    }
    copy
}

fn corruption(directory: &Path) -> Option<(PathBuf, u64)> {
    match open(directory) {
        Ok(_) => None,
        Err(OpenError::Corrupt { file, offset, .. }) => Some((file, offset)),
        Err(error) => panic!("{error:?}"),
    }
}

/// A frame that ends anywhere before its end is cut off, and the store goes on from there.
#[test]
fn torn_tail_at_every_byte_of_the_last_frame() {
    let sample = sample(100);
    let (number, start) = *sample.frames.last().expect("frames");
    let content = std::fs::read(segment(sample.directory.path(), number)).expect("read");
    let end = content.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    assert!(end > start + 150);
    for cut in start..=end {
        for zero_filled in [true, false] {
            if !zero_filled && cut % 8 != 3 {
                continue;
            }
            let copy = copy(sample.directory.path());
            let mut torn = content.clone();
            torn.truncate(cut);
            if zero_filled {
                torn.resize(content.len(), 0);
            }
            std::fs::write(segment(copy.path(), number), torn).expect("write");
            let store = open(copy.path()).expect("a torn tail is no damage");
            let whole = cut == end;
            // The last bytes of a frame are zeros, which a zero-filled file holds without them being written.
            let expected = if whole { &sample.state } else { &sample.state_before_last };
            let torn_bytes = if whole { 0 } else { (cut - start) as u64 };
            let found = snapshot_content(&store, ForkId::MAIN);
            if whole && !zero_filled {
                // The frame's padding is missing, so it is torn too.
                assert!(found == sample.state || found == sample.state_before_last);
            } else {
                assert!(found == *expected, "cut at {cut}");
                assert!(store.recovery_report().truncated_bytes <= torn_bytes, "cut at {cut}");
            }
            if cut % 64 == 3 {
                put_one(&store, ForkId::MAIN, b"after", b"the crash");
                let state = snapshot_content(&store, ForkId::MAIN);
                store.close().expect("close");
                let store = open(copy.path()).expect("the tail was made good");
                assert!(snapshot_content(&store, ForkId::MAIN) == state);
                assert_equals_log(&store, copy.path(), Arc::new(SystemEnv));
            }
        }
    }
}

/// What a torn frame left is gone after one opening, so that it never lies behind new frames.
#[test]
fn torn_tail_is_zeroed() {
    let sample = sample(2000);
    let (number, start) = *sample.frames.last().expect("frames");
    let path = segment(sample.directory.path(), number);
    let mut content = std::fs::read(&path).expect("read");
    content[start..start + 8].fill(0);
    std::fs::write(&path, content).expect("write");
    let store = open(sample.directory.path()).expect("a torn tail is no damage");
    assert!(store.recovery_report().truncated_bytes > 2000);
    store.close().expect("close");
    let store = open(sample.directory.path()).expect("open");
    assert_eq!(store.recovery_report().truncated_bytes, 0);
    assert!(snapshot_content(&store, ForkId::MAIN) == sample.state_before_last);
}

/// One flipped bit anywhere before the last frame is refused, naming the frame or header it lies in.
#[test]
fn flipped_bits_before_the_last_frame_are_refused_with_their_place() {
    let sample = sample(100);
    let last = sample.frames.len() - 1;
    for number in 1..=2 {
        let path = segment(sample.directory.path(), number);
        let content = std::fs::read(&path).expect("read");
        let copy = copy(sample.directory.path());
        let path = segment(copy.path(), number);
        let starts: Vec<usize> =
            sample.frames.iter().filter(|(segment, _)| *segment == number).map(|(_, start)| *start).collect();
        let end = match sample.frames[last] {
            (segment, start) if segment == number => start,
            _ => content.iter().rposition(|byte| *byte != 0).expect("not empty") + 1,
        };
        // All of the headers; of the rest, which is values and zeros, samples.
        let bytes =
            (0..end).filter(|byte| *byte < 70 || byte % 211 == 0 || starts.iter().any(|s| byte - s.min(byte) < 60));
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
        for byte in bytes {
            let flipped = content[byte] ^ 1 << (byte % 8);
            file.write_all_at(&[flipped], byte as u64).expect("write");
            let expected = starts.iter().rev().find(|start| **start <= byte).copied().unwrap_or(0);
            assert_eq!(corruption(copy.path()), Some((path.clone(), expected as u64)), "byte {byte}");
            file.write_all_at(&content[byte..=byte], byte as u64).expect("write");
        }
        assert_eq!(corruption(copy.path()), None);
    }
}

#[test]
fn zeroed_and_overwritten_frames_in_the_middle_are_refused() {
    let sample = sample(100);
    let content = std::fs::read(segment(sample.directory.path(), 1)).expect("read");
    let starts: Vec<usize> =
        sample.frames.iter().filter(|(segment, _)| *segment == 1).map(|(_, start)| *start).collect();
    for filler in [0_u8, 0xff] {
        for pair in starts.windows(2) {
            let copy = copy(sample.directory.path());
            let mut changed = content.clone();
            changed[pair[0]..pair[1]].fill(filler);
            std::fs::write(segment(copy.path(), 1), changed).expect("write");
            assert_eq!(corruption(copy.path()), Some((segment(copy.path(), 1), pair[0] as u64)));
        }
    }
    // With the whole rest of the segment gone, what shows is that the next one does not continue it.
    let copy = copy(sample.directory.path());
    let mut changed = content.clone();
    changed[starts[3]..].fill(0);
    std::fs::write(segment(copy.path(), 1), changed).expect("write");
    assert_eq!(corruption(copy.path()), Some((segment(copy.path(), 2), 4096)));
}

#[test]
fn missing_and_foreign_segments_are_refused() {
    let sample = sample(100);
    let without_first = copy(sample.directory.path());
    std::fs::remove_file(segment(without_first.path(), 1)).expect("remove");
    assert_eq!(corruption(without_first.path()), Some((segment(without_first.path(), 1), 0)));

    let mixed = copy(sample.directory.path());
    let other = self::sample(100);
    std::fs::copy(segment(other.directory.path(), 2), segment(mixed.path(), 2)).expect("copy");
    assert_eq!(corruption(mixed.path()), Some((segment(mixed.path(), 2), 0)));

    let swapped = copy(sample.directory.path());
    std::fs::copy(segment(sample.directory.path(), 1), segment(swapped.path(), 2)).expect("copy");
    assert_eq!(corruption(swapped.path()), Some((segment(swapped.path(), 2), 0)));
}

#[test]
fn another_format_is_named() {
    let sample = sample(100);
    let path = segment(sample.directory.path(), 1);
    let mut content = std::fs::read(&path).expect("read");
    content[8] = 99;
    let crc = crc32c::crc32c(&content[..60]);
    content[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, content).expect("write");
    let error = open(sample.directory.path()).expect_err("refused");
    assert!(matches!(&error, OpenError::UnsupportedFormat { found: 99, expected: 2, .. }), "{error:?}");
    assert_eq!(error.code(), "TN0204");
}

#[test]
fn log_reader_stops_at_a_torn_frame_and_reports_damage() {
    let sample = sample(100);
    let count = |directory: &Path| {
        let records: Vec<_> = Store::read_log(directory, Arc::new(SystemEnv)).expect("readable").collect();
        (records.iter().filter(|record| record.is_ok()).count(), records.iter().any(Result::is_err))
    };
    let (whole, failed) = count(sample.directory.path());
    assert!(!failed);

    let (number, start) = *sample.frames.last().expect("frames");
    let torn = copy(sample.directory.path());
    let path = segment(torn.path(), number);
    let mut content = std::fs::read(&path).expect("read");
    content[start + 60..].fill(0);
    std::fs::write(&path, &content).expect("write");
    assert_eq!(count(torn.path()), (whole - 1, false));
    assert_eq!(std::fs::read(&path).expect("read"), content, "reading changes nothing");

    let damaged = copy(sample.directory.path());
    let path = segment(damaged.path(), 1);
    let mut content = std::fs::read(&path).expect("read");
    content[sample.frames[3].1 + 50] ^= 4;
    std::fs::write(&path, content).expect("write");
    let (intact, failed) = count(damaged.path());
    assert!(failed && intact < whole - 1);
}

/// Values that look like frames of this very log do not turn a torn tail into damage.
#[test]
fn values_that_look_like_frames_are_only_values() {
    let sample = sample(100);
    let content = std::fs::read(segment(sample.directory.path(), 1)).expect("read");
    let (_, start) = sample.frames[2];
    let store = open(sample.directory.path()).expect("open");
    // Bytes of real frames at every alignment, behind a record that will be torn.
    let mut value = vec![0; 64];
    for shift in 0..8 {
        value.extend_from_slice(&content[start..start + 500]);
        value.resize(value.len() + shift, 0);
    }
    let state = snapshot_content(&store, ForkId::MAIN);
    put_one(&store, ForkId::MAIN, b"hostile", &value);
    store.close().expect("close");
    let record = Store::read_log(sample.directory.path(), Arc::new(SystemEnv))
        .expect("readable")
        .map(|record| record.expect("intact"))
        .last()
        .expect("records");
    let path = segment(sample.directory.path(), record.segment);
    let mut content = std::fs::read(&path).expect("read");
    content[usize::try_from(record.offset).expect("small") + 50] ^= 1;
    std::fs::write(&path, content).expect("write");
    assert_ne!(record.segment, 1, "another segment has another salt");
    let store = open(sample.directory.path()).expect("the last frame is torn");
    assert!(snapshot_content(&store, ForkId::MAIN) == state);
}
