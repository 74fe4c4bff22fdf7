//! Threads that hash.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::{Digest, TreeHash};

/// Pairs from which on a share of a level is worth waking a thread for: tens of microseconds of the slowest hash.
const SHARE_PAIRS_MIN: usize = 48;

/// Starts one named thread: the seam through which the caller decides how.
pub type SpawnThread<'a> = &'a dyn Fn(&str, Box<dyn FnOnce() + Send>) -> std::io::Result<JoinHandle<()>>;

struct Job {
    hash: Arc<dyn TreeHash>,
    pairs: Vec<[Digest; 2]>,
    done: Sender<Vec<Digest>>,
}

/// A few threads that hash shares of a level while the caller hashes the rest. Without threads the caller hashes all.
///
/// It is for hashing only: whoever orders requests has other threads, so that neither waits for the other.
pub struct HashPool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl HashPool {
    /// A pool of `helpers` threads beside the caller's, made with `spawn`.
    ///
    /// # Errors
    /// That of a thread that could not be started.
    pub fn start(helpers: usize, spawn: SpawnThread<'_>) -> std::io::Result<HashPool> {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::with_capacity(helpers);
        for number in 0..helpers {
            let receiver = Arc::clone(&receiver);
            threads.push(spawn(&format!("tine-hash-{number}"), Box::new(move || serve(&receiver)))?);
        }
        Ok(HashPool { jobs: Some(jobs), threads })
    }

    /// A pool without threads.
    pub fn inline() -> HashPool {
        HashPool { jobs: None, threads: Vec::new() }
    }

    /// The parents of many pairs of nodes, in order. Waits for the pool's threads, never for other callers' turn longer
    /// than their shares take.
    pub fn inner_each(&self, hash: &Arc<dyn TreeHash>, pairs: &[[Digest; 2]]) -> Vec<Digest> {
        let mut parents = vec![crate::EMPTY; pairs.len()];
        let shares = (pairs.len() / SHARE_PAIRS_MIN).min(self.threads.len() + 1);
        let Some(jobs) = self.jobs.as_ref().filter(|_| shares > 1) else {
            hash.inner_each(pairs, &mut parents);
            return parents;
        };
        // Whole groups of eight, so that no share has a ragged end but the last.
        let share = pairs.len().div_ceil(shares).next_multiple_of(8);
        let (own, others) = pairs.split_at(share);
        let answers: Vec<Receiver<Vec<Digest>>> = others
            .chunks(share)
            .map(|pairs| {
                let (done, answer) = channel();
                let job = Job { hash: Arc::clone(hash), pairs: pairs.to_vec(), done };
                jobs.send(job).expect("the pool's threads live as long as the pool");
                answer
            })
            .collect();
        let (own_parents, mut rest) = parents.split_at_mut(share);
        hash.inner_each(own, own_parents);
        for answer in answers {
            let digests = answer.recv().expect("a share is answered, or its thread panicked");
            let (filled, later) = rest.split_at_mut(digests.len());
            filled.copy_from_slice(&digests);
            rest = later;
        }
        parents
    }
}

fn serve(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let job = receiver.lock().recv();
        let Ok(Job { hash, pairs, done }) = job else { return };
        let mut parents = vec![crate::EMPTY; pairs.len()];
        hash.inner_each(&pairs, &mut parents);
        // Nobody waits any more if the caller panicked.
        let _ = done.send(parents);
    }
}

impl Drop for HashPool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself and by whoever waited for its share.
            let _ = thread.join();
        }
    }
}
