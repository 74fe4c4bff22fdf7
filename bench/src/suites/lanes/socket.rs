//! One request in flight over a Unix socket, answered with a lane and without one.

use std::{path::Path, sync::Arc, thread, time::Instant};

use parking_lot::Mutex;
use tine_lanes::FunctionExecutor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::{Builder, Runtime},
};

use super::inside::{Job, lane, warm_up};
use crate::report::median;

/// Round trips of each kind.
const ROUND_TRIPS: usize = 4_000;
/// Bytes of a request and of its reply.
const MESSAGE_BYTES: usize = 8;

/// Median round trip with a lane over the one without. The two take turns, so that both meet the same machine.
pub(super) fn lane_over_no_lane() -> anyhow::Result<f64> {
    let directory = tempfile::tempdir()?;
    let (with, without) = (directory.path().join("with.sock"), directory.path().join("without.sock"));
    let server = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    serve(&server, &with, true)?;
    serve(&server, &without, false)?;
    let client = Builder::new_current_thread().enable_all().build()?;
    let (mut with_us, mut without_us) = (Vec::new(), Vec::new());
    client.block_on(async {
        let mut with = UnixStream::connect(&with).await?;
        let mut without = UnixStream::connect(&without).await?;
        for number in 0..ROUND_TRIPS as u64 {
            without_us.push(round_trip(&mut without, number).await?);
            with_us.push(round_trip(&mut with, number).await?);
        }
        anyhow::Ok(())
    })?;
    // The first ones warm caches and show the lane how short its jobs are.
    Ok(median(&with_us[ROUND_TRIPS / 10..]) / median(&without_us[ROUND_TRIPS / 10..]))
}

async fn round_trip(stream: &mut UnixStream, number: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    stream.write_all(&number.to_le_bytes()).await?;
    let mut reply = [0; MESSAGE_BYTES];
    stream.read_exact(&mut reply).await?;
    let elapsed_us = started.elapsed().as_secs_f64() * 1e6;
    anyhow::ensure!(u64::from_le_bytes(reply) == number, "the reply is not that of the request");
    Ok(elapsed_us)
}

fn serve(runtime: &Runtime, path: &Path, with_lane: bool) -> anyhow::Result<()> {
    let _context = runtime.enter();
    let listener = UnixListener::bind(path)?;
    runtime.spawn(async move {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let execute = |run: Box<dyn FnOnce() + Send>| drop(thread::spawn(run));
        let (lane, _) = lane(Arc::new(FunctionExecutor::new(1, execute)));
        warm_up(&lane);
        let outbox: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (mut request, mut jobs) = ([0; MESSAGE_BYTES], Vec::new());
        while stream.read_exact(&mut request).await.is_ok() {
            let mut number = u64::from_le_bytes(request);
            if with_lane {
                jobs.push(Job::Noop(number, outbox.clone()));
                lane.submit_batch(&mut jobs).expect("room");
                number = loop {
                    if let Some(reply) = outbox.lock().pop() {
                        break reply;
                    }
                    tokio::task::yield_now().await;
                };
            }
            if stream.write_all(&number.to_le_bytes()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
