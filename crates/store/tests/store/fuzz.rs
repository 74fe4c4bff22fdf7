//! Files with random changes, and checksums that fit again: what is behind the checksums must refuse them or read them,
//! and never panic. Each unit's own tests have the decoders alone; here is the whole store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use tine_base::{Env, SystemEnv};
use tine_store::{
    Direction, Durability, Fault, ForkId, KeyspaceId, OpenError, Read, RemoteObjects, Store, StoreOptions, StoreView,
    check_images,
};

use crate::support::{KEYSPACE, fork_options, open, options, put_one, settle};

const BLOCK: usize = 4096;
const STRIDE: usize = BLOCK + 8;
const PACK_HEADER: usize = 64;

/// The files of a store with images and a log behind them, by their place in its directory.
fn sample() -> &'static BTreeMap<PathBuf, Vec<u8>> {
    static SAMPLE: OnceLock<BTreeMap<PathBuf, Vec<u8>>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = open(directory.path()).expect("open");
        for number in 0..120_u8 {
            put_one(&store, ForkId::MAIN, &[number, 1, 2], &vec![number; if number == 60 { 9000 } else { 150 }]);
        }
        settle(&store);
        store.image().expect("image");
        let side = store.fork(ForkId::MAIN, fork_options("side", Durability::Durable)).expect("fork").0.id;
        for number in 0..10_u8 {
            put_one(&store, side, &[number], b"a value");
            settle(&store);
        }
        store.rename_fork(side, "other").expect("rename");
        store.allocate_keyspaces(3).expect("numbers");
        store.close().expect("close");
        let mut files = BTreeMap::new();
        for folder in ["log", "images/packs", "images/manifests"] {
            for entry in std::fs::read_dir(directory.path().join(folder)).expect("list") {
                let path = entry.expect("entry").path();
                let content = std::fs::read(&path).expect("read");
                files.insert(path.strip_prefix(directory.path()).expect("inside").to_path_buf(), content);
            }
        }
        assert!(files.len() >= 4, "a log, a pack and manifests");
        files
    })
}

fn number(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

fn set(bytes: &mut [u8], at: usize, checksum: u32) {
    bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Makes the checksums of a file fit its content.
fn seal(path: &Path, bytes: &mut [u8]) {
    if path.starts_with("log") {
        let salt = crc32c::crc32c(&bytes[24..32]);
        let checksum = crc32c::crc32c(&bytes[..60]);
        set(bytes, 60, checksum);
        let mut at = BLOCK;
        while at + BLOCK <= bytes.len() && bytes[at..at + 4] == *b"FRAM" {
            let end = at + 48 + number(bytes, at + 4);
            if end <= bytes.len() {
                let checksum = crc32c::crc32c_append(salt, &bytes[at + 48..end]);
                set(bytes, at + 8, checksum);
            }
            let checksum = crc32c::crc32c_append(salt, &bytes[at..at + 44]);
            set(bytes, at + 44, checksum);
            let next = end.next_multiple_of(BLOCK);
            if next + 48 <= bytes.len() && bytes[next..next + 4] == *b"FRAM" {
                // The chain goes on.
                set(bytes, next + 20, checksum);
            }
            at = next;
        }
    } else if path.starts_with("images/manifests") {
        let checksum = crc32c::crc32c(&bytes[16..]);
        set(bytes, 12, checksum);
    } else {
        let place = crc32c::crc32c(&bytes[16..24]);
        let pages = (bytes.len() - PACK_HEADER) / STRIDE;
        for index in 0..pages {
            let start = PACK_HEADER + index * STRIDE;
            let continues = bytes[start + BLOCK + 4];
            let seed = [(index as u64).to_le_bytes(), [continues; 8]].concat();
            let seed = crc32c::crc32c_append(place, &seed);
            let checksum = crc32c::crc32c_append(seed, &bytes[start..start + BLOCK]);
            set(bytes, start + BLOCK, checksum);
        }
        let checksum = crc32c::crc32c(&bytes[..60]);
        set(bytes, 60, checksum);
    }
}

fn read_all(reader: &impl Read) -> Result<u64, Fault> {
    let mut records = 0;
    for keyspace in 0..40 {
        for direction in [Direction::Forward, Direction::Reverse] {
            let mut cursor = reader.range(KeyspaceId::new(keyspace), Bound::Unbounded, Bound::Unbounded, direction);
            while let Some((key, _)) = cursor.next()? {
                reader.get(KeyspaceId::new(keyspace), key)?;
                records += 1;
                // Pages that refer to one another in a circle would go on for ever.
                assert!(records < 10_000, "more records than the pages have room for");
            }
        }
    }
    Ok(records)
}

/// Opens and reads what is there; errors are fine.
fn use_store(directory: &Path) {
    let options = StoreOptions { reservation_bytes: 64 << 20, ..options(directory) };
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let place = RemoteObjects::directory(&directory.join("images")).expect("place");
    let _ = check_images(Arc::new(place));
    if let Ok(view) = StoreView::open(&options, &env, &mut |_| {}) {
        for fork in view.forks() {
            let _ = read_all(view.snapshot(fork.id).expect("there"));
        }
    }
    let Ok(store) = Store::open(options, env) else { return };
    for fork in store.forks() {
        let _ = store.snapshot(fork.id).map(|snapshot| read_all(&snapshot));
        if let Ok(mut writer) = store.writer(fork.id) {
            let written = writer.put(KEYSPACE, &[7, 1, 2], b"new").and_then(|_| writer.delete(KEYSPACE, &[8, 1, 2]));
            let _ = written.and_then(|_| writer.commit(b""));
        }
    }
    let _ = store.image();
    let _ = store.close();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(if std::env::var_os("TINE_TESTS_LONG").is_some() { 5_000 } else { 150 }) })]

    #[test]
    fn changed_files_are_refused_or_read(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        sealed in prop::bool::weighted(0.8),
    ) {
        let files = sample();
        let chosen = file.get(&files.keys().collect::<Vec<_>>()).to_path_buf();
        let directory = tempfile::tempdir().expect("temporary directory");
        for (path, content) in files {
            let mut content = content.clone();
            if *path == chosen {
                // Zeros behind the last frame are left alone.
                let end = content.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
                for (at, byte, near) in &changes {
                    // Half of them where the structure is: at the beginning of a page or frame.
                    let at = at.index(end);
                    let at = if *near { at / BLOCK * BLOCK + at % 160 } else { at };
                    content[at.min(end - 1)] = *byte;
                }
                if sealed {
                    seal(path, &mut content);
                }
            }
            let target = directory.path().join(path);
            std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
            std::fs::write(target, content).expect("written");
        }
        use_store(directory.path());
    }
}

/// Segments whose first frames are not in order, which only the records' numbers tell.
#[test]
fn segments_out_of_order_are_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut changed = None;
    for (path, content) in sample() {
        let mut content = content.clone();
        if path.starts_with("log") && !path.ends_with("0000000001.log") && content[BLOCK..BLOCK + 4] == *b"FRAM" {
            content[BLOCK + 24..BLOCK + 32].copy_from_slice(&1_u64.to_le_bytes());
            seal(path, &mut content);
            changed = changed.or(Some(directory.path().join(path)));
        }
        let target = directory.path().join(path);
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        std::fs::write(target, content).expect("written");
    }
    let changed = changed.expect("the log has a second segment");
    match open(directory.path()) {
        Err(OpenError::Corrupt { file, offset, .. }) => assert_eq!((file, offset), (changed, BLOCK as u64)),
        other => panic!("{other:?}"),
    }
}

/// The changes reach what is behind the checksums: sealed again without any, everything is accepted.
#[test]
fn sealing_keeps_what_is_intact() {
    for (path, content) in sample() {
        let mut sealed = content.clone();
        seal(path, &mut sealed);
        assert!(sealed == *content, "{}", path.display());
    }
}
