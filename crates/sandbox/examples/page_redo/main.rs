//! Rebuilds pages from base images and records, with a worker for the records it does not trust.
//!
//! `cargo run --release -p tine-sandbox --example page_redo`

mod redo;

use std::time::{Duration, Instant};

use redo::{PAGE_BYTES, Page, Record, RedoError, rebuild, request, request_bytes, workload};
use tine_sandbox::{
    CallError, CallOptions, Entry, Keyed, Never, PoolOptions, Rejected, Sandbox, SandboxOptions, Start, WorkerKey,
};

/// Pages rebuilt to measure.
const PAGES: u32 = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tine_sandbox::init(&[Entry::new("page-redo", run)]);
    let sandbox = Sandbox::start(SandboxOptions::default())?;
    let pool = sandbox.pool(PoolOptions::new("page-redo"))?;
    let worker = pool.key(WorkerKey(1));

    let base: Page = std::array::from_fn(|position| position as u8);
    let mut records = vec![Record::Clear { offset: 100, bytes: 50 }];
    records.extend(workload(Some(&base), 26_393));
    records.push(Record::SetBits { offset: 8_191, bits: 0x80 });
    let started = Instant::now();
    for _ in 0..PAGES {
        let page = rebuild(Some(&base), &records, |page, records| in_worker(&worker, page, records)).map_err(text)?;
        assert_eq!(page[8_191] & 0x80, 0x80);
    }
    println!("{} records: {:?} per page", records.len(), started.elapsed() / PAGES);

    let malformed = [Record::Foreign(vec![9])];
    let refused = rebuild(Some(&base), &malformed, |page, records| in_worker(&worker, page, records));
    println!("a malformed record: {}", text(refused.expect_err("no operation 9")));
    sandbox.shut_down(Duration::from_secs(5))?;
    Ok(())
}

fn run(start: Start) -> Never {
    start.harden().serve(|request| {
        let bytes = request.bytes();
        let mut outcome = Ok(());
        if request.reply_capacity() < PAGE_BYTES {
            return Err(Rejected("no room for a page".to_owned()));
        }
        request.write_in_place(|area| {
            outcome = redo::apply(bytes, &mut area[..PAGE_BYTES]);
            PAGE_BYTES
        });
        outcome.map_err(Rejected)
    })
}

fn in_worker(worker: &Keyed, base: Option<&Page>, records: &[Record]) -> Result<Box<Page>, CallError> {
    let options = CallOptions::new(request_bytes(base, records) as u32, PAGE_BYTES as u32);
    let reply = worker.call_blocking(options, |writer| request(base, records, |piece| writer.write(piece)))?;
    // From a process that is not trusted: even its length is only what it is.
    let page: Box<[u8; PAGE_BYTES]> =
        reply.bytes.into_boxed_slice().try_into().map_err(|_| CallError::Rejected("no page came back".to_owned()))?;
    Ok(page)
}

fn text(error: RedoError<CallError>) -> String {
    match error {
        RedoError::Worker(error) => format!("{} ({})", error, error.code()),
        other => format!("{other:?}"),
    }
}
