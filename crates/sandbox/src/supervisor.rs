//! The supervisor: the one thread that launches, watches, kills late and reaps.
//!
//! It is the parent of the zygote and of every worker in the eyes of the kernel, so that they die with it. It never waits for a
//! process: ends are events like any other.
//!
//! Invariants:
//! - Every process that was forked is in `children` until it is reaped, or can be found by what it wrote into its region (`limbo`).
//! - Memory of workers is mapped and unmapped by this thread only.

use std::collections::{HashMap, VecDeque};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tine_base::event::Event;
use tine_base::slots::HostEnd;

use crate::epoll::{Epoll, Token};
use crate::error::{Death, KillCause, LaunchError};
use crate::key::Key;
use crate::launcher::{News, Zygote, is_child, pidfd_open};
use crate::level::Level;
use crate::log::Log;
use crate::metrics::{add, subtract};
use crate::pool::{Completions, PoolShared, SPARE_RETRY};
use crate::process::{Process, WorkerId};
use crate::sandbox::{Order, Shared};
use crate::schedule::{self, Urgency};
use crate::wire::{Launch, Report, unblock};
use crate::worker::READY;

/// Deadlines are kept to this.
const TICK: Duration = Duration::from_millis(10);
/// Without anything under way the supervisor looks around this often.
const REST: Duration = Duration::from_secs(1);
/// Ticking goes on so long after the last request, so that a lone caller does not wake the supervisor each time.
const TICKS_AFTER_USE: Duration = Duration::from_secs(1);
/// Wait before a zygote that ended is replaced, doubled with each that never got ready.
const ZYGOTE_RETRY_MIN: Duration = Duration::from_millis(1);
/// Longest such wait.
const ZYGOTE_RETRY_MAX: Duration = Duration::from_secs(5);
/// Zygotes that may end under a launch before the launch is given up.
const LAUNCH_TRIES_MAX: u32 = 3;
/// A process that a dying zygote forked shows itself in its region within this time, or was never forked.
const LIMBO: Duration = Duration::from_secs(2);
/// Turns of reading the log of a worker that ended.
const LAST_LOG_TURNS: usize = 64;

#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    epoll: Epoll,
    zygote: Option<Zygote>,
    zygote_at: Option<Instant>,
    zygote_failures: u32,
    level: Option<Level>,
    /// Wanted and not yet asked for.
    waiting: VecDeque<Wanted>,
    /// Asked for, with no process known yet.
    launches: HashMap<u64, Launching>,
    children: HashMap<u64, Child>,
    limbo: Vec<Limbo>,
    /// Reaped, with somebody still holding on.
    retired: Vec<Arc<Process>>,
    next_id: u64,
    used_at: Instant,
    ticked_at: Instant,
    stopping_since: Option<Instant>,
}

/// A worker that somebody wants: a key, or a pool for its spares.
#[derive(Debug)]
struct Wanted {
    pool: Arc<PoolShared>,
    key: Option<Arc<Key>>,
    at: Instant,
    tries: u32,
}

#[derive(Debug)]
struct Launching {
    wanted: Wanted,
    end: HostEnd,
    event: Event,
    log: PipeReader,
    sent_at: Instant,
}

#[derive(Debug)]
struct Child {
    process: Arc<Process>,
    log: Option<Log>,
    /// Until it is ready.
    wanted: Option<Wanted>,
    sent_at: Instant,
    over: Arc<AtomicBool>,
}

/// A launch whose zygote died: nobody knows whether it forked.
#[derive(Debug)]
struct Limbo {
    end: HostEnd,
    event: Event,
    pool: Arc<PoolShared>,
    until: Instant,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>) -> io::Result<Supervisor> {
        let epoll = Epoll::new()?;
        epoll.add(&shared.bell, Token::Bell)?;
        let now = Instant::now();
        Ok(Supervisor {
            shared,
            epoll,
            zygote: None,
            zygote_at: Some(now),
            zygote_failures: 0,
            level: None,
            waiting: VecDeque::new(),
            launches: HashMap::new(),
            children: HashMap::new(),
            limbo: Vec::new(),
            retired: Vec::new(),
            next_id: 1,
            used_at: now,
            ticked_at: now,
            stopping_since: None,
        })
    }

    /// Works until everything is ended.
    pub(crate) fn run(&mut self) {
        self.shared.tick();
        schedule::set(0, Urgency::AfterOthers);
        loop {
            self.start_zygote();
            self.take_orders();
            self.send_waiting();
            if self.shared.is_stopping.load(Ordering::SeqCst) && self.stop() {
                break;
            }
            let pause = self.pause();
            let events = self.epoll.wait(pause).expect("waiting for events of open descriptors works");
            for token in events {
                self.handle(token);
            }
            let now = Instant::now();
            if now.duration_since(self.ticked_at) >= TICK {
                self.ticked_at = now;
                self.look_around(now);
            }
        }
        self.shared.pools.lock().clear();
        let mut state = self.shared.state.lock();
        state.is_over = true;
        self.shared.state_changed.notify_all();
    }

    fn pause(&mut self) -> Duration {
        let now = Instant::now();
        if self.shared.has_callers() {
            self.used_at = now;
        }
        let is_busy = now.duration_since(self.used_at) < TICKS_AFTER_USE
            || self.stopping_since.is_some()
            || self.zygote.is_none()
            || !(self.waiting.is_empty()
                && self.launches.is_empty()
                && self.limbo.is_empty()
                && self.retired.is_empty());
        if is_busy {
            self.shared.tick();
            return TICK;
        }
        if self.shared.rest() { REST } else { TICK }
    }

    fn handle(&mut self, token: Token) {
        match token {
            // Orders are taken, and tickets seen, in every turn.
            Token::Bell => {}
            Token::ZygoteSocket => self.zygote_news(),
            Token::ZygoteEnd => self.zygote_lost(),
            Token::End(id) => self.ended(id),
            Token::Log(id) => {
                let Some(child) = self.children.get_mut(&id) else { return };
                let is_open = child.log.as_mut().is_some_and(|log| log.pump(&child.process));
                if !is_open && let Some(log) = child.log.take() {
                    self.epoll.remove(log.pipe());
                }
            }
            Token::Replies(id) => {
                let Some(child) = self.children.get(&id) else { return };
                if child.wanted.is_none() {
                    child.process.drain();
                } else if child.process.end.ready() & READY != 0 {
                    self.ready(id);
                }
            }
        }
    }

    fn start_zygote(&mut self) {
        let now = Instant::now();
        if self.zygote.is_some() || self.stopping_since.is_some() || self.zygote_at.is_some_and(|at| now < at) {
            return;
        }
        let started = Zygote::start(&self.shared.options.program).and_then(|zygote| {
            self.epoll.add(zygote.socket(), Token::ZygoteSocket)?;
            self.epoll.add(zygote.pidfd(), Token::ZygoteEnd)?;
            Ok(zygote)
        });
        add(&self.shared.metrics.zygotes_started, 1);
        match started {
            Ok(zygote) => {
                self.shared.state.lock().zygote_pid = Some(zygote.pid());
                self.zygote = Some(zygote);
                self.level = None;
            }
            Err(error) => {
                self.put_off_zygote();
                let error = LaunchError::System(error.to_string());
                for wanted in std::mem::take(&mut self.waiting) {
                    self.failed(wanted, &error);
                }
            }
        }
    }

    fn put_off_zygote(&mut self) {
        let wait = (ZYGOTE_RETRY_MIN * (1 << self.zygote_failures.min(16))).min(ZYGOTE_RETRY_MAX);
        self.zygote_failures += 1;
        self.zygote_at = Some(Instant::now() + wait);
    }

    fn zygote_news(&mut self) {
        loop {
            let Some(zygote) = &self.zygote else { return };
            match zygote.news() {
                News::Nothing => return,
                News::Lost => return self.zygote_lost(),
                News::Report(Report::Hello(level), _) => {
                    self.level = Some(level);
                    self.zygote_failures = 0;
                    let mut state = self.shared.state.lock();
                    state.level = Some(level);
                    self.shared.state_changed.notify_all();
                }
                News::Report(Report::Launched { launch, pid }, Some(pidfd)) => self.launched(launch, pid, pidfd),
                News::Report(Report::Launched { .. }, None) => return self.zygote_lost(),
                News::Report(Report::Failed { launch, error }, _) => {
                    let Some(Launching { wanted, .. }) = self.launches.remove(&launch) else { continue };
                    let error = match error {
                        libc::ENOENT => LaunchError::NoEntry(wanted.pool.options.entry.to_owned()),
                        number => LaunchError::System(io::Error::from_raw_os_error(number).to_string()),
                    };
                    self.failed(wanted, &error);
                }
            }
        }
    }

    /// The zygote is gone, or of no use: it is reaped, and what it was asked for is asked of the next.
    fn zygote_lost(&mut self) {
        let Some(mut zygote) = self.zygote.take() else { return };
        zygote.kill();
        // It was sent a signal that it cannot refuse; this waits for the kernel to take it down, which takes microseconds.
        while !zygote.try_reap() {
            std::thread::yield_now();
        }
        self.shared.state.lock().zygote_pid = None;
        self.put_off_zygote();
        for (_, launching) in std::mem::take(&mut self.launches) {
            let Launching { mut wanted, end, event, .. } = launching;
            self.limbo.push(Limbo { end, event, pool: wanted.pool.clone(), until: Instant::now() + LIMBO });
            wanted.tries += 1;
            match wanted.tries < LAUNCH_TRIES_MAX {
                true => self.waiting.push_back(wanted),
                false => self.failed(wanted, &LaunchError::System("zygotes end under it".to_owned())),
            }
        }
    }

    fn take_orders(&mut self) {
        let orders = std::mem::take(&mut *self.shared.orders.lock());
        for order in orders {
            match order {
                Order::Launch { key, at } => {
                    let pool = key.pool.clone();
                    // One may have become ready since the key looked for it.
                    match pool.take_spare() {
                        Some(spare) => self.give(spare, &key),
                        None => self.waiting.push_front(Wanted { pool, key: Some(key), at, tries: 0 }),
                    }
                }
                Order::Pool(pool) => {
                    self.refill(&pool, Instant::now());
                    self.shared.pools.lock().push(pool);
                }
            }
        }
    }

    /// Asks the zygote for what is wanted, as far as the cap allows.
    fn send_waiting(&mut self) {
        let Some(level) = self.level else { return };
        if self.zygote.is_none() || self.stopping_since.is_some() {
            return;
        }
        if !level.is_full() && !self.shared.options.allow_weak {
            let error = LaunchError::NotHardened(level.to_string());
            for wanted in std::mem::take(&mut self.waiting) {
                self.failed(wanted, &error);
            }
            return;
        }
        while let Some(wanted) = self.waiting.pop_front() {
            if self.children.len() + self.launches.len() >= self.shared.options.workers_max {
                self.waiting.push_front(wanted);
                self.make_room();
                return;
            }
            if let Err((wanted, error)) = self.send(wanted) {
                self.failed(wanted, &LaunchError::System(error.to_string()));
            }
        }
    }

    fn send(&mut self, wanted: Wanted) -> Result<(), (Wanted, io::Error)> {
        let began = Instant::now();
        let id = self.next_id;
        match self.try_send(id, &wanted.pool) {
            Ok((end, event, log)) => {
                self.next_id += 1;
                add(&self.shared.metrics.launches, 1);
                self.shared.metrics.launch_call.record(began.elapsed());
                self.launches.insert(id, Launching { wanted, end, event, log, sent_at: began });
                Ok(())
            }
            Err(error) => Err((wanted, error)),
        }
    }

    fn try_send(&self, id: u64, pool: &PoolShared) -> io::Result<(HostEnd, Event, PipeReader)> {
        let options = &pool.options;
        let end = HostEnd::create("tine-worker", options.shape)?;
        let event = Event::new()?;
        let (log, stderr) = io::pipe()?;
        let log = OwnedFd::from(log);
        unblock(&log)?;
        let launch = Launch {
            launch: id,
            server_pid: std::process::id() as i32,
            shape: options.shape,
            memory_bytes: options.memory_bytes,
            spins: options.spins,
            entry: options.entry.to_owned(),
        };
        let zygote = self.zygote.as_ref().expect("asked before");
        zygote.launch(&launch, [&end, &event, &stderr])?;
        // Beside the fork, not before it.
        end.prefault();
        Ok((end, event, PipeReader::from(log)))
    }

    fn launched(&mut self, launch: u64, pid: i32, pidfd: OwnedFd) {
        let Some(Launching { wanted, end, event, log, sent_at }) = self.launches.remove(&launch) else { return };
        let process = Arc::new(Process::new(WorkerId(launch), pid, pidfd, end, event, wanted.pool.clone()));
        self.adopt(launch, process, Some(log), Some(wanted), sent_at);
        // It may have been quicker than the zygote's report.
        self.handle(Token::Replies(launch));
    }

    fn adopt(
        &mut self,
        id: u64,
        process: Arc<Process>,
        log: Option<PipeReader>,
        wanted: Option<Wanted>,
        sent_at: Instant,
    ) {
        // A descriptor that cannot be watched would make a worker that nobody reaps.
        self.epoll.add(&process.pidfd, Token::End(id)).expect("one more descriptor can be watched");
        self.epoll.add(&process.event, Token::Replies(id)).expect("one more descriptor can be watched");
        if let Some(log) = &log {
            self.epoll.add(log, Token::Log(id)).expect("one more descriptor can be watched");
        }
        add(&self.shared.metrics.workers, 1);
        let over = Arc::new(AtomicBool::new(false));
        self.children.insert(id, Child { process, log: log.map(Log::new), wanted, sent_at, over });
        self.shared.state.lock().children = self.children.len();
    }

    /// A worker takes requests from now on.
    fn ready(&mut self, id: u64) {
        let child = self.children.get_mut(&id).expect("asked before");
        let Some(wanted) = child.wanted.take() else { return };
        self.shared.metrics.fork_to_ready.record(child.sent_at.elapsed());
        let process = child.process.clone();
        process.end.arm();
        if let Some(driver) = &process.pool.options.driver {
            self.epoll.remove(&process.event);
            driver(Completions { process: process.clone(), over: child.over.clone() });
        }
        if let Some(key) = wanted.key {
            return self.give(process, &key);
        }
        process.pool.spares.lock().coming -= 1;
        let other =
            self.waiting.iter().position(|other| other.key.is_some() && Arc::ptr_eq(&other.pool, &process.pool));
        match other.and_then(|position| self.waiting.remove(position)).and_then(|other| other.key) {
            Some(key) => self.give(process, &key),
            None => process.pool.clone().add_spare(process),
        }
    }

    fn give(&self, process: Arc<Process>, key: &Arc<Key>) {
        if !key.attach(process.clone()) {
            process.kill(KillCause::Requested);
        }
    }

    /// A process ended: it is reaped, and whom it concerns is told.
    fn ended(&mut self, id: u64) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(death) = child.process.try_reap() else { return };
        let Child { process, mut log, wanted, over, .. } = self.children.remove(&id).expect("just there");
        self.epoll.remove(&process.pidfd);
        self.epoll.remove(&process.event);
        if let Some(log) = &mut log {
            for _ in 0..LAST_LOG_TURNS {
                if !log.pump(&process) {
                    break;
                }
            }
            self.epoll.remove(log.pipe());
        }
        let metrics = &self.shared.metrics;
        add(&metrics.workers_reaped, 1);
        subtract(&metrics.workers, 1);
        if !matches!(death, Death::Killed(_)) {
            add(&metrics.workers_died, 1);
        }
        if let Some(since) = *process.ended.lock() {
            metrics.kill_to_reaped.record(since.elapsed());
        }
        over.store(true, Ordering::Release);
        process.event.ring();
        self.shared.state.lock().children = self.children.len();
        match (wanted, process.key.get()) {
            (Some(wanted), _) => {
                let error = match death {
                    Death::Killed(KillCause::LaunchDeadline) => LaunchError::Deadline,
                    death => LaunchError::Died(death),
                };
                self.failed(wanted, &error);
            }
            (None, Some(key)) => key.ended(process.id, death),
            (None, None) => drop(process.pool.remove_spare(process.id)),
        }
        self.retired.push(process);
    }

    fn failed(&self, wanted: Wanted, error: &LaunchError) {
        add(&self.shared.metrics.launches_failed, 1);
        match wanted.key {
            Some(key) => key.launch_failed(error),
            None => {
                let mut spares = wanted.pool.spares.lock();
                spares.coming -= 1;
                spares.refill_at = Some(Instant::now() + SPARE_RETRY);
            }
        }
    }

    /// Ends the worker that was unused longest, or else a spare, if no worker is about to end anyway.
    fn make_room(&mut self) {
        let is_for_key = self.waiting.iter().any(|wanted| wanted.key.is_some());
        if !is_for_key || self.children.values().any(|child| child.process.kill_cause().is_some()) {
            return;
        }
        let pools = self.shared.pools.lock().clone();
        let keys = pools.iter().flat_map(|pool| pool.all_keys());
        let mut idle: Vec<_> = keys.filter_map(|key| key.idle_since().map(|since| (since, key))).collect();
        idle.sort_by_key(|(since, _)| *since);
        if idle.iter().any(|(_, key)| key.retire(KillCause::Evicted, None)) {
            return;
        }
        let spare = pools.iter().find_map(|pool| {
            let id = pool.spares.lock().ready.first().map(|process| process.id)?;
            pool.remove_spare(id).then_some(id)
        });
        if let Some(child) = spare.and_then(|id| self.children.get(&id.0)) {
            child.process.kill(KillCause::Evicted);
        }
    }

    /// Everything that depends on the time.
    fn look_around(&mut self, now: Instant) {
        self.retired.retain(|process| Arc::strong_count(process) > 1);
        let pools = self.shared.pools.lock().clone();
        for pool in &pools {
            for key in pool.all_keys() {
                key.check_deadlines(now);
                if let Some(before) = now.checked_sub(pool.options.idle_max) {
                    key.retire(KillCause::Idle, Some(before));
                }
            }
            // Only the table holds it: nobody can come back to it.
            pool.keys.lock().retain(|_, key| Arc::strong_count(key) > 1 || !key.is_vacant(now));
            self.refill(pool, now);
        }
        for child in self.children.values() {
            let is_late = |wanted: &Wanted| now > wanted.at.max(child.sent_at) + wanted.pool.options.launch_timeout;
            if child.wanted.as_ref().is_some_and(is_late) {
                child.process.kill(KillCause::LaunchDeadline);
            }
        }
        let (late, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|wanted| now > wanted.at + wanted.pool.options.launch_timeout);
        self.waiting = waiting;
        for wanted in late {
            self.failed(wanted, &LaunchError::Deadline);
        }
        let is_stuck = |launching: &Launching| now > launching.sent_at + launching.wanted.pool.options.launch_timeout;
        if self.launches.values().any(is_stuck) {
            self.zygote_lost();
        }
        self.search_limbo(now);
    }

    fn refill(&mut self, pool: &Arc<PoolShared>, now: Instant) {
        let mut spares = pool.spares.lock();
        if self.stopping_since.is_some() || spares.refill_at.is_some_and(|at| now < at) {
            return;
        }
        while spares.ready.len() + spares.coming < pool.options.spares
            && self.children.len() + self.launches.len() + self.waiting.len() < self.shared.options.workers_max
        {
            spares.coming += 1;
            self.waiting.push_back(Wanted { pool: pool.clone(), key: None, at: now, tries: 0 });
        }
    }

    /// Finds the processes that zygotes forked and did not live to report.
    fn search_limbo(&mut self, now: Instant) {
        for limbo in std::mem::take(&mut self.limbo) {
            let pid = (limbo.end.ready() & !READY) as i32;
            let found = (pid != 0).then(|| pidfd_open(pid).ok()).flatten().filter(is_child);
            match found {
                Some(pidfd) => {
                    let id = self.next_id;
                    self.next_id += 1;
                    let Limbo { end, event, pool, .. } = limbo;
                    let process = Arc::new(Process::new(WorkerId(id), pid, pidfd, end, event, pool));
                    process.kill(KillCause::LaunchDeadline);
                    self.adopt(id, process, None, None, now);
                }
                None if now < limbo.until && pid == 0 => self.limbo.push(limbo),
                None => {}
            }
        }
    }

    /// Ends everything, step by step; whether that is done.
    fn stop(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.stopping_since.get_or_insert(now);
        for wanted in std::mem::take(&mut self.waiting) {
            self.failed(wanted, &LaunchError::Died(Death::Killed(KillCause::ShutDown)));
        }
        let pools = self.shared.pools.lock().clone();
        for key in pools.iter().flat_map(|pool| pool.all_keys()) {
            key.shut_down();
        }
        for child in self.children.values() {
            child.process.kill(KillCause::ShutDown);
        }
        // A zygote that still owes a report would leave a child that nobody knows of.
        if self.launches.is_empty() || now > since + LIMBO {
            self.zygote_lost();
        }
        let is_over =
            self.zygote.is_none() && self.launches.is_empty() && self.children.is_empty() && self.limbo.is_empty();
        if is_over {
            for pool in &pools {
                // Keys made from now on are closed from the start, since they look after taking this lock.
                let mut keys = pool.keys.lock();
                keys.values().for_each(|key| key.shut_down());
                keys.clear();
            }
        }
        is_over
    }
}
