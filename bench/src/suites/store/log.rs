//! What durability costs: a confirmed commit beside one raw write of the same bytes, and commits that share a sync.

use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tine_base::SystemEnv;
use tine_store::{DurableTicket, ForkId, ImagePlace, KeyspaceId, Store, StoreOptions};

use super::Series;

/// Confirmed commits per round.
const COMMITS: u64 = 400;

/// Commits in flight at once in the group case, as 64 clients that wait for their replies.
const GROUP: u64 = 64;

/// A commit's value: its record takes 256 bytes, and so one block of the log.
const VALUE: [u8; 200] = [7; 200];

/// The block that the log writes for such a commit.
const BLOCK_BYTES: usize = 4096;

/// How long a commit may take to be durable. A disk that takes longer ends the run.
const DURABLE_WITHIN: Duration = Duration::from_secs(20);

const KEYSPACE: KeyspaceId = KeyspaceId::new(16);

#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// Wall time of a commit that is waited for, beside one direct synchronous write (or a write and a sync, where the file
/// system has no direct ones), alternating; and commits per second with 64 in flight beside one.
pub fn durable(scratch: &Path, raw: &mut Series, group: &mut Series) -> anyhow::Result<()> {
    let directory = tempfile::tempdir_in(scratch)?;
    let options = StoreOptions { images: ImagePlace::Nowhere, ..StoreOptions::new(directory.path().join("store")) };
    let store = Store::open(options, Arc::new(SystemEnv))?;
    let file = RawFile::create(&directory.path().join("raw"))?;
    let mut writer = store.writer(ForkId::MAIN)?;
    let mut number = 0_u64;
    let mut commit = || -> anyhow::Result<DurableTicket> {
        number += 1;
        writer.put(KEYSPACE, &(number % 1000).to_be_bytes(), &VALUE)?;
        writer.put(KEYSPACE, b"number", &number.to_be_bytes())?;
        Ok(writer.commit(b"")?.durable)
    };
    let (mut ours_ns, mut raw_ns) = (Vec::new(), Vec::new());
    for position in 0..COMMITS {
        let start = Instant::now();
        store.wait_durable(commit()?, DURABLE_WITHIN)?;
        ours_ns.push(start.elapsed().as_nanos() as f64);
        let start = Instant::now();
        file.write(position)?;
        raw_ns.push(start.elapsed().as_nanos() as f64);
    }
    raw.add(crate::report::median(&ours_ns), &[("raw write", crate::report::median(&raw_ns))]);

    let start = Instant::now();
    for _ in 0..COMMITS {
        store.wait_durable(commit()?, DURABLE_WITHIN)?;
    }
    let one = COMMITS as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..COMMITS {
        let mut last = DurableTicket::NONE;
        for _ in 0..GROUP {
            last = commit()?;
        }
        store.wait_durable(last, DURABLE_WITHIN)?;
    }
    let many = (COMMITS * GROUP) as f64 / start.elapsed().as_secs_f64();
    group.add(many, &[("1 in flight", one)]);
    Ok(())
}

/// A preallocated file, written as the log is.
struct RawFile {
    file: std::fs::File,
    direct: bool,
    block: Box<Block>,
}

impl RawFile {
    fn create(path: &Path) -> anyhow::Result<RawFile> {
        let block = Box::new(Block([1; BLOCK_BYTES]));
        std::fs::write(path, vec![0; COMMITS as usize * BLOCK_BYTES]).context("cannot write the raw file")?;
        std::fs::File::open(path)?.sync_all()?;
        let direct = std::fs::OpenOptions::new().write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(path);
        if let Ok(file) = direct
            && file.write_all_at(&block.0, 0).is_ok()
        {
            return Ok(RawFile { file, direct: true, block });
        }
        Ok(RawFile { file: std::fs::OpenOptions::new().write(true).open(path)?, direct: false, block })
    }

    fn write(&self, position: u64) -> anyhow::Result<()> {
        self.file.write_all_at(&self.block.0, position * BLOCK_BYTES as u64)?;
        if !self.direct {
            self.file.sync_data()?;
        }
        Ok(())
    }
}
