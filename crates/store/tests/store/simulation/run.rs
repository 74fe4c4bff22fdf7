//! One run: a store on a simulated machine, driven by a seed, beside the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tine_store::{
    Durability, DurableTicket, Fault, ForkError, ForkId, HistoryError, ImageError, ImagePlace, KeyspaceId,
    LogRecordKind, Lsn, NameError, OpenError, Snapshot, Store, StoreError, StoreOptions, Version, VersionAt,
    WriteError, Writer,
};

use super::machine::{Machine, Noted};
use super::model::{KEYSPACES, Line, Model, State, World, read_state};
use super::objects::SimObjects;
use super::random::Random;
use super::threads::Turn;
use crate::support::{WAIT, fork_options};

const DIRECTORY: &str = "/store";

/// Forks alive at once.
const FORKS_MAX: usize = 8;
/// Snapshots held at once.
const KEPT_MAX: usize = 4;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub steps: u64,
    pub operations: u64,
    pub commits: u64,
    /// Power failures, also during openings.
    pub crashes: u64,
    /// Restarts after an I/O error or a full disk.
    pub faults: u64,
    pub image_rounds: u64,
    pub trace: Vec<Noted>,
}

/// Why a step did not end.
enum Stop {
    /// An error that the store reported; whether it may is seen from what the machine did.
    Failed(String),
    /// What must not be.
    Wrong(String),
}

macro_rules! failures {
    ($($error:ty),*) => {$(
        impl From<$error> for Stop {
            fn from(error: $error) -> Stop {
                Stop::Failed(format!("{error:?}"))
            }
        }
    )*};
}

failures!(Fault, ForkError, HistoryError, ImageError, NameError, OpenError, StoreError, WriteError);

type Step = Result<(), Stop>;

fn require(holds: bool, what: impl FnOnce() -> String) -> Step {
    if holds { Ok(()) } else { Err(Stop::Wrong(what())) }
}

pub struct Run {
    machine: Machine,
    random: Random,
    options: StoreOptions,
    listens: bool,
    store: Option<Store>,
    writers: BTreeMap<ForkId, Writer>,
    kept: Vec<(Snapshot, Arc<State>)>,
    model: Model,
    names: u64,
    /// Steps until every one is followed by a check of all pages, which brings those of images into memory.
    unchecked: u64,
    report: Report,
}

/// Runs a seed; the error says what did not hold.
pub fn run(seed: u64, steps: u64, liar: bool) -> Result<Report, String> {
    let mut random = Random::new(seed);
    let machine = Machine::new(random.next(), liar);
    let options = StoreOptions {
        segment_bytes_min: random.pick(&[16_384, 32_768]),
        segment_bytes_max: random.pick(&[32_768, 65_536]),
        history_micros: random.pick(&[0, 3_000_000, 1 << 40]),
        history_bytes: random.pick(&[0, 200_000, 1 << 30]),
        pins_max: random.pick(&[2, 100]),
        image_bytes: random.pick(&[60_000, 300_000, 1 << 40]),
        memory_bytes: random.pick(&[65_536, 1 << 30]),
        image_age_micros: random.pick(&[0, 5_000_000, 1 << 40]),
        reservation_bytes: 64 << 20,
        ..StoreOptions::new(DIRECTORY)
    };
    let listens = random.once_in(3);
    let mut run = Run {
        machine,
        random,
        options,
        listens,
        store: None,
        writers: BTreeMap::new(),
        kept: Vec::new(),
        model: Model::default(),
        names: 0,
        unchecked: 0,
        report: Report::default(),
    };
    run.drive(steps)?;
    run.report.operations = run.machine.operations();
    run.report.trace = run.machine.trace();
    Ok(std::mem::take(&mut run.report))
}

impl Run {
    fn drive(&mut self, steps: u64) -> Result<(), String> {
        self.open()?;
        for _ in 0..steps {
            self.report.steps += 1;
            let result = self.step();
            self.settle(result)?;
        }
        self.machine.heal();
        self.machine.crash_in(None);
        self.restart()
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between restarts")
    }

    /// Judges how a step ended, and restarts the store if it is of no use any more.
    fn settle(&mut self, result: Step) -> Result<(), String> {
        self.note_confirmed();
        let detail = match result {
            Ok(()) if !self.machine.is_off() => return Ok(()),
            Ok(()) => String::new(),
            Err(Stop::Wrong(detail)) => return Err(detail),
            Err(Stop::Failed(detail)) => detail,
        };
        if self.machine.is_off() {
            return self.restart();
        }
        if !self.machine.has_struck() && self.store().image_failure().is_none() {
            return Err(format!("nothing failed, yet: {detail}"));
        }
        self.machine.heal();
        self.report.faults += 1;
        let dead = self.store().health().is_err();
        // Readers go on whatever happened to the log.
        self.check_heads()?;
        // A failed round of images leaves a store that works.
        if dead || self.random.once_in(4) { self.restart() } else { Ok(()) }
    }

    fn note_confirmed(&mut self) {
        if let Some(store) = &self.store {
            self.model.confirm(store.durable().get());
        }
    }

    /// Lets go of the store, whatever state it is in, and opens it again.
    fn restart(&mut self) -> Result<(), String> {
        self.machine.threads().finish(Turn::Objects);
        self.writers.clear();
        self.kept.clear();
        let store = self.store().clone();
        let closed = store.close();
        self.note_confirmed();
        if closed.is_ok() && store.durable() != store.stats().appended {
            return Err("a store closed without an error, and not everything was durable".to_owned());
        }
        drop(store);
        self.store = None;
        self.open()
    }

    fn open(&mut self) -> Result<(), String> {
        loop {
            if self.machine.is_off() {
                self.report.crashes += 1;
                self.machine = self.machine.restarted();
            }
            // Openings fail and are cut off, too.
            match self.random.below(12) {
                0..=3 => self.machine.crash_in(Some(1 + self.random.below(60))),
                4 => self.machine.fail_in(1 + self.random.below(60)),
                _ => self.machine.crash_in(None),
            }
            let objects = Arc::new(SimObjects::new(&self.machine, &Path::new(DIRECTORY).join("images")));
            let options = StoreOptions { images: ImagePlace::Objects(objects), ..self.options.clone() };
            let opened = Store::open(options, Arc::new(self.machine.clone()));
            let struck = self.machine.heal();
            match opened {
                Ok(store) if !self.machine.is_off() => {
                    self.machine.crash_in(None);
                    if self.listens {
                        // With somebody listening only the log thread writes, otherwise also whoever waits.
                        store.on_durable(Box::new(|_| {}));
                    }
                    self.machine.note("opened", &store.stats().appended.get().to_le_bytes());
                    self.store = Some(store);
                    self.check_recovered()?;
                    self.plan();
                    return Ok(());
                }
                Ok(store) => {
                    self.machine.threads().finish(Turn::Objects);
                    drop(store);
                }
                Err(_) if struck || self.machine.is_off() => {}
                Err(error) => return Err(format!("it does not open: {error:?}")),
            }
        }
    }

    /// Decides what goes wrong next.
    fn plan(&mut self) {
        self.unchecked = self.random.pick(&[0, 0, 20]);
        self.machine.crash_in(Some(1 + self.random.below(250)));
        match self.random.below(8) {
            0 => self.machine.fail_in(1 + self.random.below(150)),
            1 => self.machine.room(self.random.below(60_000)),
            _ => {}
        }
    }

    /// The state is that after one record, none that was confirmed is missing, and it is all there.
    fn check_recovered(&mut self) -> Result<(), String> {
        let appended = self.store().stats().appended.get();
        let mut world = self.model.rewind(self.last_record_before_opening()?)?;
        if self.model.last_fork == ForkId::default() {
            // A new store, or what was left of one that was never opened completely.
            let line = Line::begin("main".to_owned(), true, None, Arc::default(), Lsn::default());
            self.model.add(ForkId::MAIN, line)?;
            self.model.next_keyspace = KeyspaceId::FIRST_ALLOCATED.get();
            self.model.logged(appended);
            world = self.model.rewind(appended)?;
        }
        self.model.logged(appended);
        self.model.opened = appended;
        self.note_confirmed();
        self.check_world(&world)
    }

    /// Every opening, also one that failed later, ends the log with a record that changes nothing.
    fn last_record_before_opening(&self) -> Result<u64, String> {
        let env = Arc::new(self.machine.clone());
        let records = Store::read_log(DIRECTORY, env).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let records = records.map_err(|error| format!("an open log cannot be read: {error:?}"))?;
        let of_opening = |kind: &LogRecordKind| {
            let main = matches!(kind, LogRecordKind::ForkCreated { fork: ForkId::MAIN, .. });
            main || matches!(kind, LogRecordKind::ForkIdsReserved { .. })
        };
        let openings = records.iter().rev().take_while(|record| of_opening(&record.kind));
        let first = openings.last().ok_or("an opening leaves a record")?.sequence;
        // The last opening that succeeded is one of those that the model knows.
        Ok(if first <= self.model.opened { self.model.opened } else { first - 1 })
    }

    fn check_world(&self, world: &World) -> Result<(), String> {
        let forks = self.store().forks();
        let found: Vec<ForkId> = forks.iter().map(|fork| fork.id).collect();
        let expected: Vec<ForkId> = world.forks.keys().copied().collect();
        if found != expected {
            return Err(format!("the forks are {found:?} and should be {expected:?}"));
        }
        for fork in forks {
            let logged = &world.forks[&fork.id];
            if (&fork.name, fork.head, fork.parent) != (&logged.name, logged.head, logged.parent) {
                return Err(format!("recovered {fork:?}, should be {} at {}", logged.name, logged.head));
            }
        }
        let named = self.store().named_versions();
        let found: Vec<(String, Version)> = named.into_iter().map(|named| (named.name, named.version)).collect();
        let expected: Vec<(String, Version)> = world.names.iter().map(|(name, (at, _))| (name.clone(), *at)).collect();
        if found != expected {
            return Err(format!("the names are {found:?} and should be {expected:?}"));
        }
        // Half of the time the content is left for later, so that pages of images stay absent for a while.
        if self.unchecked == 0 { self.check_heads() } else { Ok(()) }
    }

    fn check_heads(&self) -> Result<(), String> {
        for (id, line) in &self.model.lines {
            let snapshot = self.store().snapshot(*id).map_err(|error| format!("{id}: {error}"))?;
            if snapshot.version().lsn != line.published_lsn {
                return Err(format!("{id} is at {}, not {}", snapshot.version().lsn, line.published_lsn));
            }
            match read_state(&snapshot) {
                Ok(state) if state == *line.published => {}
                Ok(_) => return Err(format!("{id} differs at {}", line.published_lsn)),
                Err(_) if self.machine.is_off() || self.machine.has_struck() => return Ok(()),
                Err(fault) => return Err(format!("{id} cannot be read: {fault:?}")),
            }
        }
        let named = self.model.names.iter().map(|(name, (_, state))| {
            let snapshot = self.store().named_version(name).ok_or_else(|| format!("the name {name} is gone"))?;
            Ok::<_, String>((snapshot, Arc::clone(state)))
        });
        let named = named.collect::<Result<Vec<_>, _>>()?;
        for (snapshot, state) in self.kept.iter().chain(&named) {
            match read_state(snapshot) {
                Ok(found) if found == **state => {}
                Ok(_) => return Err(format!("a snapshot of {} changed", snapshot.version())),
                Err(_) if self.machine.is_off() || self.machine.has_struck() => return Ok(()),
                Err(fault) => return Err(format!("a snapshot cannot be read: {fault:?}")),
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Step {
        let kind = self.random.below(100);
        self.machine.note("step", &kind.to_le_bytes());
        match kind {
            0..=44 => self.transact()?,
            45..=51 => self.publish(),
            52..=55 => self.release()?,
            56..=61 => self.fork()?,
            62..=64 => self.fork_from_the_past()?,
            65..=66 => self.drop_fork()?,
            67 => self.rename()?,
            68 => self.replace()?,
            69..=71 => self.begin_checkpoint()?,
            72..=74 => self.end_checkpoint()?,
            75..=77 => self.keep()?,
            78..=85 => self.flush()?,
            86..=87 => self.image()?,
            88..=90 => self.machine.threads().give_turn(Turn::Objects),
            91..=92 => self.pass_time(),
            93..=94 => self.look_back()?,
            95 => self.name()?,
            96 => self.use_name()?,
            97 => self.number()?,
            98 => self.read_image()?,
            _ => self.restart().map_err(Stop::Wrong)?,
        }
        if self.random.once_in(3) {
            (0..self.random.below(5)).for_each(|_| self.machine.threads().give_turn(Turn::Objects));
        }
        if self.random.once_in(3) {
            (0..self.random.below(4)).for_each(|_| self.machine.threads().give_turn(Turn::Records));
        }
        if self.unchecked > 0 {
            self.unchecked -= 1;
            return Ok(());
        }
        match self.store().check_pages() {
            Ok(check) => {
                self.machine.note("pages", &check.reachable_pages.to_le_bytes());
                Ok(())
            }
            // Pages of images could not be read.
            Err(detail) if self.machine.has_struck() || self.machine.is_off() => Err(Stop::Failed(detail)),
            Err(detail) => Err(Stop::Wrong(detail)),
        }
    }

    fn any_fork(&mut self) -> ForkId {
        let ids: Vec<ForkId> = self.model.lines.keys().copied().collect();
        self.random.pick(&ids)
    }

    fn with_writer<T>(
        &mut self,
        id: ForkId,
        act: impl FnOnce(&mut Run, &mut Writer) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut writer = match self.writers.remove(&id) {
            Some(writer) => writer,
            None => self.store().writer(id)?,
        };
        let result = act(self, &mut writer);
        self.writers.insert(id, writer);
        result
    }

    fn transact(&mut self) -> Step {
        let id = self.any_fork();
        self.with_writer(id, |run, writer| {
            let mut state = State::clone(&run.model.lines[&id].committed);
            let most = if run.random.once_in(20) { 60 } else { 6 };
            let writes = 1 + run.random.below(most);
            let mut savepoint = None;
            for _ in 0..writes {
                run.write(writer, &mut state)?;
                match run.random.below(12) {
                    0 => savepoint = Some((writer.savepoint(), state.clone())),
                    1 => {
                        if let Some((savepoint, before)) = savepoint.take() {
                            writer.rollback_to(savepoint);
                            state = before;
                        }
                    }
                    _ => {}
                }
            }
            if run.random.once_in(12) {
                writer.rollback();
                return Ok(());
            }
            run.commit(writer, state)
        })
    }

    fn write(&mut self, writer: &mut Writer, state: &mut State) -> Step {
        let number = self.random.pick(&KEYSPACES.collect::<Vec<_>>());
        let mut key = vec![self.random.below(60) as u8];
        if self.random.once_in(10) {
            key.resize(300, 7);
        }
        let keyspace = KeyspaceId::new(number);
        if self.random.once_in(4) {
            let existed = writer.delete(keyspace, &key)?;
            let expected = state.remove(&(number, key)).is_some();
            return require(existed == expected, || "deleting tells whether the key was there".to_owned());
        }
        let length = match self.random.below(20) {
            0 => 9000,
            1..=3 => self.random.below(1500),
            _ => self.random.below(100),
        };
        let value = vec![self.random.next() as u8; length as usize];
        let existed = writer.put(keyspace, &key, &value)?;
        let expected = state.insert((number, key), value).is_some();
        require(existed == expected, || "putting tells whether the key was there".to_owned())
    }

    fn commit(&mut self, writer: &mut Writer, state: State) -> Step {
        let id = writer.fork_id();
        let commit = writer.commit(b"a call")?;
        self.committed(id, commit, state)
    }

    fn committed(&mut self, id: ForkId, commit: tine_store::Commit, state: State) -> Step {
        if !commit.changed {
            let same = *self.model.lines[&id].committed == state;
            require(same, || format!("{id} changed without a commit"))?;
        } else {
            self.report.commits += 1;
            self.machine.note("commit", &commit.timestamp_micros.to_le_bytes());
            self.model.committed(id, commit.lsn, commit.timestamp_micros, state).map_err(Stop::Wrong)?;
        }
        if commit.durable != DurableTicket::NONE {
            self.model.logged(self.store().stats().appended.get());
        }
        Ok(())
    }

    fn publish(&mut self) {
        let id = self.any_fork();
        if let Some(writer) = self.writers.get_mut(&id) {
            writer.publish();
            self.model.lines.get_mut(&id).expect("it is there").publish();
        }
    }

    fn release(&mut self) -> Step {
        let id = self.any_fork();
        if self.writers.remove(&id).is_some() {
            self.model.lines.get_mut(&id).expect("it is there").publish();
        }
        let state = read_state(&self.store().snapshot(id)?)?;
        require(state == *self.model.lines[&id].published, || format!("{id} differs"))
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("name{}", self.names)
    }

    fn durability(&mut self) -> Durability {
        if self.random.once_in(4) { Durability::Ephemeral } else { Durability::Durable }
    }

    fn fork(&mut self) -> Step {
        if self.model.lines.len() >= FORKS_MAX {
            return self.drop_fork();
        }
        let parent = self.any_fork();
        let options = fork_options(&self.new_name(), self.durability());
        if self.random.once_in(8) {
            let (info, ticket) = self.store().fork_empty(options)?;
            return self.forked(info, ticket, Arc::default());
        }
        let (info, ticket) = self.store().fork(parent, options)?;
        let state = Arc::clone(&self.model.lines[&parent].published);
        self.forked(info, ticket, state)
    }

    fn fork_from_the_past(&mut self) -> Step {
        if self.model.lines.len() >= FORKS_MAX {
            return Ok(());
        }
        let parent = self.any_fork();
        let Some((snapshot, state)) = self.past(parent)? else { return Ok(()) };
        let options = fork_options(&self.new_name(), self.durability());
        let (info, ticket) = self.store().fork_from(&snapshot, options)?;
        self.forked(info, ticket, state)
    }

    fn forked(&mut self, info: tine_store::ForkInfo, ticket: DurableTicket, state: Arc<State>) -> Step {
        let durable = info.durability == Durability::Durable;
        require(durable == (ticket != DurableTicket::NONE), || format!("{info:?} and {ticket}"))?;
        let line = Line::begin(info.name, durable, info.parent, state, info.head);
        self.model.add(info.id, line).map_err(Stop::Wrong)?;
        self.model.logged(self.store().stats().appended.get());
        Ok(())
    }

    fn drop_fork(&mut self) -> Step {
        let id = self.any_fork();
        let durable = self.model.lines.values().filter(|line| line.durable).count();
        if durable == 1 && self.model.lines[&id].durable {
            return Ok(());
        }
        self.store().drop_fork(id)?;
        self.gone(id);
        Ok(())
    }

    fn gone(&mut self, id: ForkId) {
        self.model.lines.remove(&id);
        self.writers.remove(&id);
        self.model.logged(self.store().stats().appended.get());
    }

    fn rename(&mut self) -> Step {
        let (id, name) = (self.any_fork(), self.new_name());
        self.store().rename_fork(id, &name)?;
        self.model.lines.get_mut(&id).expect("it is there").name = name;
        self.model.logged(self.store().stats().appended.get());
        Ok(())
    }

    fn replace(&mut self) -> Step {
        let (replaced, fork) = (self.any_fork(), self.any_fork());
        if replaced == fork || self.model.lines[&replaced].durable != self.model.lines[&fork].durable {
            return Ok(());
        }
        self.store().replace_fork(replaced, fork)?;
        self.model.lines.get_mut(&fork).expect("it is there").name = self.model.lines[&replaced].name.clone();
        self.gone(replaced);
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Step {
        let id = self.any_fork();
        self.with_writer(id, |run, writer| {
            let checkpoint = writer.begin_checkpoint()?;
            let line = run.model.lines.get_mut(&id).expect("it is there");
            line.checkpoints.push((checkpoint, Arc::clone(&line.committed)));
            Ok(())
        })
    }

    fn end_checkpoint(&mut self) -> Step {
        let open: Vec<ForkId> =
            self.model.lines.iter().filter(|(_, line)| !line.checkpoints.is_empty()).map(|(id, _)| *id).collect();
        if open.is_empty() {
            return Ok(());
        }
        let id = self.random.pick(&open);
        self.with_writer(id, |run, writer| {
            let depth = run.random.index(run.model.lines[&id].checkpoints.len());
            let (checkpoint, state) = run.model.lines[&id].checkpoints[depth].clone();
            if run.random.once_in(3) {
                writer.commit_checkpoint(checkpoint)?;
            } else {
                let (commit, _) = writer.revert_checkpoint(checkpoint, b"revert")?;
                run.committed(id, commit, State::clone(&state))?;
            }
            run.model.lines.get_mut(&id).expect("it is there").checkpoints.truncate(depth);
            Ok(())
        })
    }

    fn keep(&mut self) -> Step {
        if self.kept.len() >= KEPT_MAX {
            let (snapshot, state) = self.kept.swap_remove(self.random.index(KEPT_MAX));
            return require(read_state(&snapshot)? == *state, || format!("{} changed", snapshot.version()));
        }
        let id = self.any_fork();
        let snapshot = self.store().snapshot(id)?;
        self.kept.push((snapshot, Arc::clone(&self.model.lines[&id].published)));
        Ok(())
    }

    fn flush(&mut self) -> Step {
        let store = self.store().clone();
        if self.random.once_in(6) {
            let id = self.any_fork();
            store.append_call(id, b"a call that changed nothing")?;
        }
        let ticket = store.stats().appended;
        store.wait_durable(ticket, WAIT)?;
        require(store.durable() >= ticket, || "a wait ended before its ticket was durable".to_owned())
    }

    /// Images, unless a round is under way, which would be waited for.
    fn image(&mut self) -> Step {
        self.machine.threads().finish(Turn::Objects);
        let report = self.store().image()?;
        self.report.image_rounds += 1;
        self.machine.note("image", &report.pages.to_le_bytes());
        Ok(())
    }

    fn pass_time(&mut self) {
        self.machine.advance(100_000 + self.random.below(3_000_000) as i64);
        self.store().trim_history();
    }

    /// A version of a fork's past and what it must be.
    fn past(&mut self, id: ForkId) -> Result<Option<(Snapshot, Arc<State>)>, Stop> {
        let oldest = self.store().oldest_retained(id)?.get();
        let line = &self.model.lines[&id];
        let head = line.published_lsn.get();
        require(oldest <= head, || format!("{id} is at {head} and goes back to {oldest}"))?;
        let durable = line.durable;
        let lsn = Lsn::new(oldest + self.random.below(head - oldest + 1));
        let snapshot = match self.store().snapshot_at(id, VersionAt::Lsn(lsn)) {
            Ok(snapshot) => snapshot,
            // Only the origin and the head of an ephemeral fork are kept.
            Err(HistoryError::NotRetained { .. }) if !durable => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        require(snapshot.version().lsn == lsn, || format!("{lsn} was asked for: {}", snapshot.version()))?;
        let state = self.model.version(id, lsn).map(Arc::clone);
        let state = state.ok_or_else(|| Stop::Wrong(format!("there never was {id}@{lsn}")))?;
        Ok(Some((snapshot, state)))
    }

    fn look_back(&mut self) -> Step {
        let id = self.any_fork();
        let Some((snapshot, state)) = self.past(id)? else { return Ok(()) };
        require(read_state(&snapshot)? == *state, || format!("{} is not what it was", snapshot.version()))
    }

    fn name(&mut self) -> Step {
        let id = self.any_fork();
        let Some((snapshot, state)) = self.past(id)? else { return Ok(()) };
        let (version, name) = (snapshot.version(), self.new_name());
        let durable = self.model.lines[&version.fork].durable;
        match self.store().name_version(&snapshot, &name) {
            Ok(_) => require(durable, || format!("{version} of an ephemeral fork has a name"))?,
            Err(NameError::NotDurable(_)) if !durable => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.model.names.insert(name, (version, state));
        self.model.logged(self.store().stats().appended.get());
        Ok(())
    }

    /// Reads a named version, makes a fork of it, or gives the name up.
    fn use_name(&mut self) -> Step {
        let names: Vec<String> = self.model.names.keys().cloned().collect();
        if names.is_empty() {
            return self.fork_of_kept();
        }
        let name = names[self.random.index(names.len())].clone();
        let (version, state) = self.model.names[&name].clone();
        let snapshot = self.store().named_version(&name).ok_or_else(|| Stop::Wrong(format!("{name} is gone")))?;
        require(snapshot.version() == version, || format!("{name} is {}, not {version}", snapshot.version()))?;
        require(read_state(&snapshot)? == *state, || format!("{name}, {version}, is not what it was"))?;
        if self.model.lines.len() < FORKS_MAX && self.random.once_in(2) {
            let options = fork_options(&self.new_name(), self.durability());
            let (info, ticket) = self.store().fork_from(&snapshot, options)?;
            return self.forked(info, ticket, state);
        }
        self.store().forget_version_name(&name)?;
        self.model.names.remove(&name);
        self.model.logged(self.store().stats().appended.get());
        Ok(())
    }

    /// Makes a fork of a snapshot that was taken a while ago, unless nothing else keeps that version.
    fn fork_of_kept(&mut self) -> Step {
        if self.kept.is_empty() || self.model.lines.len() >= FORKS_MAX {
            return Ok(());
        }
        let (snapshot, state) = self.kept[self.random.index(self.kept.len())].clone();
        let version = snapshot.version();
        let options = fork_options(&self.new_name(), self.durability());
        match self.store().fork_from(&snapshot, options) {
            Ok((info, ticket)) => self.forked(info, ticket, state),
            Err(ForkError::NotRetained { oldest, .. }) => {
                require(version.lsn < oldest, || format!("{version} is retained, from {oldest} on"))
            }
            Err(ForkError::Store(StoreError::NoSuchFork(fork))) => {
                require(!self.model.lines.contains_key(&fork), || format!("{fork} is there"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn number(&mut self) -> Step {
        let count = 1 + self.random.below(3) as u32;
        let first = self.store().allocate_keyspaces(count)?.get();
        require(first == self.model.next_keyspace, || format!("{first} follows {}", self.model.next_keyspace))?;
        self.model.next_keyspace = first + count;
        self.model.logged(self.store().stats().appended.get());
        Ok(())
    }

    fn read_image(&mut self) -> Step {
        self.machine.threads().finish(Turn::Objects);
        let images = self.store().imaged_versions();
        if images.is_empty() {
            return Ok(());
        }
        let version: Version = self.random.pick(&images);
        let snapshot = self.store().snapshot_of_image(version)?;
        let state = self.model.version(version.fork, version.lsn).map(Arc::clone);
        // Forks that are gone stay in the images until the next round.
        let Some(state) = state else { return Ok(()) };
        require(read_state(&snapshot)? == *state, || format!("the image of {version} differs"))
    }
}

impl Report {
    /// Counts another run with this one.
    pub fn add(&mut self, other: &Report) {
        self.steps += other.steps;
        self.operations += other.operations;
        self.commits += other.commits;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.image_rounds += other.image_rounds;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A run that failed leaves threads that wait for their turn.
        self.machine.turn_off();
        self.machine.threads().finish(Turn::Objects);
        self.writers.clear();
        self.kept.clear();
    }
}
