//! The whole store on a machine in memory: forks, commits, checkpoints, history, images, power failures, I/O errors and
//! full disks, drawn from a seed, against a model of one map per version.
//!
//! After every step the pages are checked ([`Store::check_pages`](tine_store::Store::check_pages)); after every restart
//! the state must be that after one record of the log, with all records that were reported durable.
//!
//! Each seed runs twice, and both runs must make the same operations on the machine, in the same order, with the same
//! bytes. The store's threads, that of the log included, take turns as the seed says (see [`threads`]).
//!
//! A seed that fails is printed with the command that repeats it.

mod machine;
mod model;
mod objects;
mod random;
mod run;
mod threads;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;
use run::{Report, run};

/// Power failures of a normal run, all seeds together.
const CRASHES: u64 = 1_000;
const CRASHES_LONG: u64 = 50_000;
const STEPS: u64 = 300;
/// More than enough seeds, should most runs have few failures.
const SEEDS_MAX: u64 = 100_000;

/// Runs a seed and turns a panic into an error.
fn attempt(seed: u64, liar: bool) -> Result<Report, String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| run(seed, STEPS, liar))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")))
    })
}

fn twice(seed: u64) -> Result<Report, String> {
    let (first, second) = (attempt(seed, false)?, attempt(seed, false)?);
    let differs = first.trace.iter().zip(&second.trace).position(|(left, right)| left != right);
    if let Some(at) = differs {
        let (left, right) = (&first.trace[at.saturating_sub(8)..=at], &second.trace[at.saturating_sub(8)..=at]);
        return Err(format!("two runs differ at operation {at}: {left:?} and {right:?}"));
    }
    if first != second {
        return Err("two runs did not do the same".to_owned());
    }
    Ok(first)
}

fn name_seed(seed: u64, detail: &str) -> String {
    format!(
        "seed {seed}: {detail}\nrepeat with: TINE_SIMULATION_SEED={seed} cargo test -p tine-store --test store \
         simulation::a_store_is_its_model"
    )
}

#[test]
fn a_store_is_its_model_whatever_fails() {
    if let Some(seed) = std::env::var_os("TINE_SIMULATION_SEED") {
        let seed = seed.to_str().and_then(|seed| seed.parse().ok()).expect("a seed is a number");
        let report = twice(seed).unwrap_or_else(|detail| panic!("{}", name_seed(seed, &detail)));
        println!("{:?}", Report { trace: Vec::new(), ..report });
        return;
    }
    let wanted = if std::env::var_os("TINE_TESTS_LONG").is_some() { CRASHES_LONG } else { CRASHES };
    let (next, crashes) = (AtomicU64::new(0), AtomicU64::new(0));
    let (failures, reports) = (Mutex::new(Vec::new()), Mutex::new(Report::default()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |count| count.get().min(4)) {
            scope.spawn(|| {
                while crashes.load(Ordering::Relaxed) < wanted && failures.lock().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    assert!(seed < SEEDS_MAX, "there are crashes in every run");
                    match twice(seed) {
                        Ok(report) => {
                            crashes.fetch_add(report.crashes, Ordering::Relaxed);
                            reports.lock().add(&report);
                        }
                        Err(detail) => failures.lock().push(name_seed(seed, &detail)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let report = reports.into_inner();
    println!("{} seeds: {report:?}", next.into_inner());
    assert!(report.faults > wanted / 20 && report.image_rounds > wanted / 20, "{report:?}");
}

/// The simulation finds what it is for: with a disk that reports syncs that it did not do, confirmed records get lost.
#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    let caught = (0..10).filter(|seed| attempt(*seed, true).is_err()).count();
    assert!(caught >= 8, "{caught} of 10 seeds");
}
