//! What is measured of a pool of `tine-sandbox`, and of the baseline in the same way.

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tine_sandbox::{CallOptions, Completions, Driver, Keyed, Pool, PoolOptions, Sandbox, WorkerKey};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::baseline::Pipes;
use super::{ENTRY, PING, REPLY_BYTES, Request};

/// Longest wait for a spare.
const SPARE_TIMEOUT: Duration = Duration::from_secs(10);

/// Lets the runtime wait for the replies of workers, as it does for the baseline's pipes.
pub fn driver(runtime: tokio::runtime::Handle) -> Driver {
    struct Watched(Completions);
    impl AsRawFd for Watched {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_fd().as_raw_fd()
        }
    }
    Arc::new(move |completions| {
        runtime.spawn(async move {
            // SAFETY: the completions keep their descriptor open, and the same, for as long as they live.
            let watched = unsafe { AsyncFd::register_with_interest(Watched(completions), Interest::READABLE) };
            let watched = watched.expect("one more descriptor can be watched");
            while !watched.get_ref().0.is_over() {
                if watched.get_ref().0.drain_once() {
                    tokio::task::yield_now().await;
                    continue;
                }
                let Ok(mut guard) = watched.readable().await else { return };
                guard.clear_ready();
            }
        });
    })
}

/// Either side.
#[derive(Clone)]
pub enum Worker {
    /// A worker of a pool.
    Ours(Keyed),
    /// The baseline.
    Pipes(Arc<Pipes>),
}

impl Worker {
    /// Sends a request and checks the length of the reply.
    pub async fn call(&self, request: &Request) -> anyhow::Result<()> {
        let bytes = match self {
            Worker::Ours(keyed) => {
                let options = CallOptions::new(request.bytes() as u32, REPLY_BYTES as u32);
                keyed.call(options, |writer| request.write(&mut |piece| writer.write(piece))).await?.bytes
            }
            Worker::Pipes(pipes) => pipes.call(|write| request.write(write)).await?,
        };
        ensure!(bytes.len() == REPLY_BYTES, "a reply of {} bytes", bytes.len());
        Ok(())
    }
}

/// Calls per second of `clients` tasks that each call again and again.
pub async fn throughput(
    worker: &Worker,
    request: &Arc<Request>,
    clients: usize,
    length: Duration,
) -> anyhow::Result<f64> {
    let total = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (worker, request, total) = (worker.clone(), request.clone(), total.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while started.elapsed() < length {
                    worker.call(&request).await?;
                    count += 1;
                }
                total.fetch_add(count, Ordering::Relaxed);
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(total.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64())
}

/// What a round of cold starts took.
#[derive(Default)]
pub struct Cold {
    /// Microseconds until each caller had its reply, per trial: the first and the last.
    pub first_us: Vec<f64>,
    /// See above.
    pub all_us: Vec<f64>,
    /// Longest time that a caller kept a thread of the runtime, per trial.
    pub block_us: Vec<f64>,
}

/// Lets `callers` first callers of fresh keys come at once, `trials` times.
pub async fn cold(pool: &Pool, keys: &mut u128, callers: usize, trials: usize) -> anyhow::Result<Cold> {
    let mut cold = Cold::default();
    for _ in 0..trials {
        if pool_keeps_spares(pool) {
            let waited = Instant::now();
            while pool.spares() == 0 {
                ensure!(waited.elapsed() < SPARE_TIMEOUT, "no spare came");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // Not in the shadow of its own start.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        *keys += 1;
        let key = WorkerKey(*keys);
        let started = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut longest = Duration::ZERO;
                    let call = async {
                        let options = CallOptions::new(1, REPLY_BYTES as u32);
                        pool.key(key).call(options, |writer| writer.write(&[PING])).await
                    };
                    let reply = Timed { inner: Box::pin(call), longest: &mut longest }.await;
                    reply.map(|_| (started.elapsed(), longest))
                })
            })
            .collect();
        let mut ends = Vec::new();
        let mut longest = Duration::ZERO;
        for task in tasks {
            let (end, block) = task.await??;
            ends.push(end.as_secs_f64() * 1e6);
            longest = longest.max(block);
        }
        ends.sort_by(f64::total_cmp);
        cold.first_us.push(ends[0]);
        cold.all_us.push(*ends.last().context("at least one caller")?);
        cold.block_us.push(longest.as_secs_f64() * 1e6);
        pool.end(key);
    }
    Ok(cold)
}

fn pool_keeps_spares(pool: &Pool) -> bool {
    pool.options().spares > 0
}

/// A future that notes how long its longest poll took.
struct Timed<'a, F> {
    inner: Pin<Box<F>>,
    longest: &'a mut Duration,
}

impl<F: Future> Future for Timed<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<F::Output> {
        let started = Instant::now();
        let polled = self.inner.as_mut().poll(context);
        let took = started.elapsed();
        if took > *self.longest {
            *self.longest = took;
        }
        polled
    }
}

/// Gives up one of 33 requests in flight, `trials` times; how many of its neighbours failed. `replace` makes a new worker where the
/// design needs one.
pub async fn cancel(
    mut worker: Worker,
    replace: impl Fn() -> anyhow::Result<Worker>,
    trials: usize,
) -> anyhow::Result<f64> {
    let request = Arc::new(Request::Ping);
    let mut failed = 0;
    for trial in 0..trials {
        let tasks: Vec<_> = (0..33)
            .map(|_| {
                let (worker, request) = (worker.clone(), request.clone());
                tokio::spawn(async move { worker.call(&request).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let victim = trial % 33;
        tasks[victim].abort();
        let mut is_broken = false;
        for (number, task) in tasks.into_iter().enumerate() {
            let outcome = task.await;
            if number != victim && !matches!(outcome, Ok(Ok(()))) {
                failed += 1;
                is_broken = true;
            }
        }
        if is_broken {
            worker = replace()?;
        }
    }
    Ok(f64::from(failed))
}

/// A pool whose workers answer like the baseline's child.
pub fn pool(sandbox: &Sandbox, spares: usize) -> anyhow::Result<Pool> {
    let driver = Some(driver(tokio::runtime::Handle::current()));
    Ok(sandbox.pool(PoolOptions { spares, driver, ..PoolOptions::new(ENTRY) })?)
}
