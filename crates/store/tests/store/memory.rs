//! State that is ten times as large as the memory for it, written, imaged and read in one process, whose memory is measured.
//!
//! The process is this test's own binary, run for [`the_process_that_is_measured`] alone.

use std::ops::Bound;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tine_base::SystemEnv;
use tine_store::{Direction, ForkId, Read, Snapshot, Store, StoreOptions};

use crate::support::{KEYSPACE, options, settle};

const DIRECTORY: &str = "TINE_MEMORY_DIRECTORY";

/// What a store has besides pages: frames on their way to the log, a pack on its way to the images, locations of pages.
const BESIDE_BYTES: u64 = 64 << 20;

/// Records between two measurements. A server trims about once a second.
const STEP_RECORDS: u64 = 2_000;

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("this system tells how much memory a process has");
    4096 * text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("statm has pages")
}

/// The greatest memory seen, beyond that at the beginning.
struct Meter {
    begin: u64,
    most: u64,
}

impl Meter {
    fn measure(&mut self, store: &Store) {
        self.most = self.most.max(resident_bytes().saturating_sub(self.begin));
        store.trim_history();
    }
}

fn value(number: u64, round: u64) -> Vec<u8> {
    let length = if number % 900 == 5 { 7000 } else { 1000 };
    vec![(number + round) as u8; length]
}

fn scan(store: &Store, snapshot: &Snapshot, meter: &mut Meter, records: u64, direction: Direction) {
    let mut cursor = snapshot.range(KEYSPACE, Bound::Unbounded, Bound::Unbounded, direction);
    let mut seen = 0;
    while let Some((key, found)) = cursor.next().expect("readable") {
        let number = if direction == Direction::Forward { seen } else { records - 1 - seen };
        assert!(key == number.to_be_bytes(), "record {number}");
        assert!(found == value(number, u64::from(number % 7 == 0)), "record {number}");
        seen += 1;
        if seen % STEP_RECORDS == 0 {
            meter.measure(store);
        }
    }
    assert_eq!(seen, records);
}

#[test]
fn the_process_that_is_measured() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    // 64 MiB, as it is meant to be, with `cargo xtask test --long`.
    let scale = if std::env::var_os("TINE_TESTS_LONG").is_some() { 16 } else { 4 };
    let (budget_bytes, records): (u64, u64) = (scale * (4 << 20), scale * 45_000);
    let bounded = StoreOptions {
        memory_bytes: budget_bytes,
        history_micros: 0,
        history_bytes: 0,
        segment_bytes_max: 8 << 20,
        ..options(&directory)
    };
    let store = Store::open(bounded, Arc::new(SystemEnv)).expect("open");
    let mut meter = Meter { begin: resident_bytes(), most: 0 };
    let mut writer = store.writer(ForkId::MAIN).expect("writer");
    let mut write = |number: u64, round: u64, meter: &mut Meter| {
        writer.put(KEYSPACE, &number.to_be_bytes(), &value(number, round)).expect("put");
        if number % 100 == 98 {
            writer.commit(b"").expect("commit");
            writer.publish();
        }
        if number.is_multiple_of(STEP_RECORDS) {
            // So that little is on its way to the log.
            settle(&store);
            meter.measure(&store);
        }
    };
    (0..records).for_each(|number| write(number, 0, &mut meter));
    // Some again, all over the pages in memory and in the file.
    (0..records).step_by(7).for_each(|number| write(number, 1, &mut meter));
    drop(writer);
    let pages = store.stats().pages;
    assert!(pages * 4096 > 10 * budget_bytes, "{pages} pages");
    let snapshot = store.snapshot(ForkId::MAIN).expect("snapshot");
    let held = snapshot.get(KEYSPACE, &1_u64.to_be_bytes()).expect("readable").expect("there");
    scan(&store, &snapshot, &mut meter, records, Direction::Forward);
    store.image().expect("image");
    meter.measure(&store);
    scan(&store, &snapshot, &mut meter, records, Direction::Reverse);
    assert!(held.iter().all(|byte| *byte == 1), "a slice stays what it was");
    println!("at most {} MiB of {} MiB, budget {} MiB", meter.most >> 20, pages >> 8, budget_bytes >> 20);
    assert!(meter.most < 3 * budget_bytes + BESIDE_BYTES, "{} bytes", meter.most);
    assert!(3 * budget_bytes + BESIDE_BYTES < pages * 4096 * 2 / 3, "the bound means something");
}

#[test]
fn what_is_written_may_be_larger_than_memory() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "memory::the_process_that_is_measured", "--nocapture"]).env(DIRECTORY, directory.path());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("at most "), "it measured");
}
