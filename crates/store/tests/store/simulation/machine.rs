//! A machine that does the same for the same seed: files in memory, a clock that operations advance, threads that take
//! turns, and a plug that is pulled at a given operation.
//!
//! Every operation of the store on files, clock and randomness is counted and noted with what it was about, so two runs
//! can be compared. What survives a power failure is as in [`crate::crash_env`], with a share of survivors that differs
//! from failure to failure: of none, which is the order of the syncs, to all, which is a killed process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tine_base::{DIRECT_BLOCK_BYTES, Env, EnvFile, OpenMode};

use super::random::Random;
use super::threads::{Threads, Turn};
use crate::crash_env::{Coin, Content};

/// One operation in two runs of a seed is the same if both are: what it was, and a checksum of all it was about.
pub type Noted = (&'static str, u32);

/// When the clock begins, in microseconds since the Unix epoch.
const BEGIN_MICROS: i64 = 1_700_000_000_000_000;

#[derive(Clone)]
pub struct Machine(Arc<Parts>);

struct Parts {
    state: Mutex<State>,
    threads: Threads,
}

struct State {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    files: Vec<File>,
    random: Random,
    clock_micros: i64,
    operations: u64,
    trace: Vec<Noted>,
    plug: Option<u64>,
    off: bool,
    faults: Faults,
    liar: bool,
}

#[derive(Default)]
struct File {
    content: Content,
    locked: bool,
    modified_micros: i64,
}

/// What goes wrong on a machine that stays on.
#[derive(Default)]
struct Faults {
    /// The operation that fails.
    at: Option<u64>,
    /// Bytes by which files can still grow.
    room: Option<u64>,
    struck: u64,
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

fn broken() -> io::Error {
    io::Error::other("injected fault")
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Machine {
    /// `liar`: its disks report syncs that they did not do.
    pub fn new(seed: u64, liar: bool) -> Machine {
        Machine::with(State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            files: Vec::new(),
            random: Random::new(seed),
            clock_micros: BEGIN_MICROS,
            operations: 0,
            trace: Vec::new(),
            plug: None,
            off: false,
            faults: Faults::default(),
            liar,
        })
    }

    fn with(state: State) -> Machine {
        Machine(Arc::new(Parts { state: Mutex::new(state), threads: Threads::default() }))
    }

    /// Pulls the plug at the operation so many from now.
    pub fn crash_in(&self, operations: Option<u64>) {
        let mut state = self.0.state.lock();
        state.plug = operations.map(|operations| state.operations + operations);
    }

    /// Makes the operation so many from now fail.
    pub fn fail_in(&self, operations: u64) {
        let mut state = self.0.state.lock();
        state.faults.at = Some(state.operations + operations);
    }

    /// Leaves room for files to grow by so many bytes.
    pub fn room(&self, bytes: u64) {
        self.0.state.lock().faults.room = Some(bytes);
    }

    /// Ends all faults. Returns whether any struck.
    pub fn heal(&self) -> bool {
        std::mem::take(&mut self.0.state.lock().faults).struck > 0
    }

    pub fn has_struck(&self) -> bool {
        self.0.state.lock().faults.struck > 0
    }

    pub fn is_off(&self) -> bool {
        self.0.state.lock().off
    }

    /// The power fails now, if it has not yet.
    pub fn turn_off(&self) {
        self.0.state.lock().off = true;
    }

    pub fn advance(&self, micros: i64) {
        self.0.state.lock().clock_micros += micros;
    }

    /// Notes something that is no operation.
    pub fn note(&self, label: &'static str, about: &[u8]) {
        self.0.state.lock().trace.push((label, crc32c::crc32c(about)));
    }

    pub fn threads(&self) -> &Threads {
        &self.0.threads
    }

    pub fn operations(&self) -> u64 {
        self.0.state.lock().operations
    }

    pub fn trace(&self) -> Vec<Noted> {
        self.0.state.lock().trace.clone()
    }

    pub fn modified_micros(&self, path: &Path) -> i64 {
        let state = self.0.state.lock();
        state.names.get(path).map_or(0, |file| state.files[*file].modified_micros)
    }

    /// The machine that comes up after the power failed. Nothing of this one runs any more.
    pub fn restarted(&self) -> Machine {
        let mut state = self.0.state.lock();
        assert!(state.off, "a machine that is on is not restarted");
        let survivors = state.random.pick(&[0, 0, 16, 128, 128, 240, 256]);
        let mut coin = Coin::new(state.random.next(), survivors);
        let paths: Vec<PathBuf> = state.names.keys().chain(state.durable_names.keys()).cloned().collect();
        let (mut names, mut files) = (BTreeMap::new(), Vec::new());
        for path in paths {
            let entry = if coin.flip() { state.names.get(&path) } else { state.durable_names.get(&path) };
            if let Some(file) = entry
                && !names.contains_key(&path)
            {
                let File { content, modified_micros, .. } = &state.files[*file];
                let content = content.survivor(&mut coin);
                names.insert(path, files.len());
                files.push(File { content, locked: false, modified_micros: *modified_micros });
            }
        }
        Machine::with(State {
            durable_names: names.clone(),
            names,
            files,
            random: state.random.clone(),
            clock_micros: state.clock_micros + 1_000_000,
            operations: state.operations,
            trace: std::mem::take(&mut state.trace),
            plug: None,
            off: false,
            faults: Faults::default(),
            liar: state.liar,
        })
    }

    /// Performs an operation: `act` gets what it is to do to it.
    fn perform<T>(
        &self,
        label: &'static str,
        path: &Path,
        about: &[u8],
        act: impl FnOnce(&mut State, Fate) -> io::Result<T>,
    ) -> io::Result<T> {
        Threads::turn(Turn::Operations);
        Threads::turn(Turn::Records);
        if super::objects::is_inside() {
            Threads::turn(Turn::Objects);
        }
        let mut ahead = 0;
        let result = {
            let mut state = self.0.state.lock();
            if state.off {
                return Err(power_off());
            }
            state.operations += 1;
            state.clock_micros += 1 + state.random.below(50) as i64;
            let checksum = crc32c::crc32c_append(crc32c::crc32c(path.as_os_str().as_encoded_bytes()), about);
            state.trace.push((label, checksum));
            if state.random.once_in(2) {
                ahead = state.random.below(4);
            }
            let operation = state.operations;
            let fate = if state.plug.is_some_and(|plug| operation >= plug) {
                state.off = true;
                Fate::PowerOff
            } else if state.faults.at.is_some_and(|at| operation >= at) {
                state.faults.at = None;
                state.faults.struck += 1;
                Fate::Fails
            } else {
                Fate::Works
            };
            act(&mut state, fate)
        };
        // Without the lock: another thread goes on meanwhile.
        (0..ahead).for_each(|_| self.0.threads.give_turn(Turn::Operations));
        result
    }

    fn on_file<T>(
        &self,
        label: &'static str,
        file: &SimFile,
        about: &[u8],
        act: impl FnOnce(&mut State, Fate) -> io::Result<T>,
    ) -> io::Result<T> {
        self.perform(label, &file.path, about, act)
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Works,
    Fails,
    /// It is the last one, and may be half done.
    PowerOff,
}

impl Fate {
    /// For operations that are done or not.
    fn check(self) -> io::Result<()> {
        match self {
            Fate::Works => Ok(()),
            Fate::Fails => Err(broken()),
            Fate::PowerOff => Err(power_off()),
        }
    }
}

impl State {
    /// How many of `wanted` bytes of growth there is room for.
    fn grow(&mut self, wanted: usize) -> usize {
        let Some(room) = &mut self.faults.room else { return wanted };
        let granted = wanted.min(usize::try_from(*room).unwrap_or(usize::MAX));
        *room -= granted as u64;
        self.faults.struck += u64::from(granted < wanted);
        granted
    }

    fn write(&mut self, file: usize, bytes: &[u8], offset: u64, fate: Fate) -> io::Result<()> {
        let start = usize::try_from(offset).expect("small");
        let length = self.files[file].content.now.len();
        let growth = (start + bytes.len()).saturating_sub(length.max(start));
        let room = bytes.len() - growth + self.grow(growth);
        let count = if fate == Fate::Fails { self.random.index(bytes.len() + 1) } else { bytes.len() };
        let count = count.min(room);
        self.files[file].content.write(&bytes[..count], start);
        self.files[file].modified_micros = self.clock_micros;
        fate.check()?;
        if room < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn sync(&mut self, file: usize, fate: Fate) -> io::Result<()> {
        match fate {
            Fate::Works if self.liar => {}
            Fate::Works => self.files[file].content.sync(),
            // What a failed sync should have written is forgotten: it can be read, and no later sync writes it.
            Fate::Fails => self.files[file].content.dirty.clear(),
            Fate::PowerOff => {}
        }
        fate.check()
    }
}

impl Env for Machine {
    fn now_micros(&self) -> i64 {
        self.0.state.lock().clock_micros
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.0.state.lock().clock_micros).expect("after the epoch") * 1000
    }

    fn random_bytes(&self, buffer: &mut [u8]) {
        let mut state = self.0.state.lock();
        buffer.iter_mut().for_each(|byte| *byte = state.random.next() as u8);
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn EnvFile>> {
        let index = self.perform("open", path, &[mode as u8], |state, fate| {
            fate.check()?;
            match (state.names.get(path), mode) {
                (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
                (Some(file), _) => Ok(*file),
                (None, OpenMode::Read | OpenMode::ReadWrite) => Err(io::ErrorKind::NotFound.into()),
                (None, _) => {
                    state.files.push(File { modified_micros: state.clock_micros, ..File::default() });
                    state.names.insert(path.to_path_buf(), state.files.len() - 1);
                    Ok(state.files.len() - 1)
                }
            }
        })?;
        Ok(Box::new(SimFile::new(self, path, index, false)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn EnvFile>> {
        let index = self.perform("open direct", path, b"", |state, fate| {
            fate.check()?;
            state.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        Ok(Box::new(SimFile::new(self, path, index, true)))
    }

    /// A real one: what is in it is read back through a mapping, and gone at the end like the memory.
    fn open_unnamed(&self, _directory: &Path) -> io::Result<std::fs::File> {
        tempfile::tempfile()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.perform("create directory", path, b"", |_, fate| fate.check())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.perform("read directory", path, b"", |state, fate| {
            fate.check()?;
            Ok(state.names.keys().filter(|name| name.parent() == Some(path)).cloned().collect())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.perform("rename", from, to.as_os_str().as_encoded_bytes(), |state, fate| {
            if fate != Fate::Fails {
                let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                state.names.insert(to.to_path_buf(), file);
            }
            fate.check()
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.perform("remove", path, b"", |state, fate| {
            if fate != Fate::Fails {
                state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            }
            fate.check()
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.perform("remove directory", path, b"", |state, fate| {
            fate.check()?;
            state.names.retain(|name, _| !name.starts_with(path));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.perform("sync directory", path, b"", |state, fate| {
            fate.check()?;
            let inside = |name: &PathBuf| name.parent() == Some(path);
            let synced: Vec<_> =
                state.names.iter().filter(|(name, _)| inside(name)).map(|(name, file)| (name.clone(), *file)).collect();
            state.durable_names.retain(|name, _| !inside(name));
            state.durable_names.extend(synced);
            Ok(())
        })
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.0.state.lock();
        state.names.keys().any(|name| name.starts_with(path))
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
        let turn = match name {
            "tine-log" => Turn::Records,
            "tine-log-ahead" => Turn::Operations,
            "tine-images" => Turn::Objects,
            other => panic!("the simulation does not know how the thread {other} takes turns"),
        };
        self.perform("spawn", Path::new(name), b"", |_, fate| fate.check())?;
        self.0.threads.spawn(turn, name, body)
    }

    fn join(&self, thread: JoinHandle<()>) -> std::thread::Result<()> {
        self.0.threads.join(thread)
    }

    /// The log thread waits until it is its turn; whoever waits for it gives it one.
    fn park(&self, _timeout: Option<Duration>) {
        Threads::turn(Turn::Records);
        self.0.threads.give_turn(Turn::Records);
    }

    fn sleep(&self, duration: Duration) {
        self.advance(i64::try_from(duration.as_micros()).expect("short"));
    }
}

struct SimFile {
    machine: Machine,
    path: PathBuf,
    index: usize,
    direct: bool,
    holds_lock: std::sync::atomic::AtomicBool,
}

impl SimFile {
    fn new(machine: &Machine, path: &Path, index: usize, direct: bool) -> SimFile {
        let (machine, path) = (machine.clone(), path.to_path_buf());
        SimFile { machine, path, index, direct, holds_lock: false.into() }
    }
}

impl EnvFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.machine.on_file("read", self, &offset.to_le_bytes(), |state, fate| {
            fate.check()?;
            Ok(state.files[self.index].content.read(buffer, offset))
        })
    }

    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        let whole =
            content.len().is_multiple_of(DIRECT_BLOCK_BYTES) && offset.is_multiple_of(DIRECT_BLOCK_BYTES as u64);
        assert!(whole || !self.direct, "direct writes are of whole blocks");
        let about = [&offset.to_le_bytes(), content].concat();
        self.machine.on_file("write", self, &about, |state, fate| state.write(self.index, content, offset, fate))?;
        if self.direct {
            return self.machine.on_file("write through", self, b"", |state, fate| state.sync(self.index, fate));
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.machine.on_file("length", self, b"", |state, fate| {
            fate.check()?;
            Ok(state.files[self.index].content.now.len() as u64)
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.machine.on_file("set length", self, &length.to_le_bytes(), |state, fate| {
            fate.check()?;
            let length = usize::try_from(length).expect("small");
            state.files[self.index].content.extend(length);
            state.files[self.index].content.truncate(length);
            Ok(())
        })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.machine.on_file("allocate", self, &length.to_le_bytes(), |state, fate| {
            let present = state.files[self.index].content.now.len();
            let wanted = usize::try_from(length).expect("small").saturating_sub(present);
            let granted = state.grow(wanted);
            state.files[self.index].content.extend(present + granted);
            fate.check()?;
            if granted < wanted { Err(full()) } else { Ok(()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.machine.on_file("sync", self, b"", |state, fate| state.sync(self.index, fate))
    }

    fn try_lock_exclusive(&self) -> io::Result<bool> {
        self.machine.on_file("lock", self, b"", |state, fate| {
            fate.check()?;
            let got = !std::mem::replace(&mut state.files[self.index].locked, true);
            self.holds_lock.fetch_or(got, std::sync::atomic::Ordering::Relaxed);
            Ok(got)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if *self.holds_lock.get_mut() {
            self.machine.0.state.lock().files[self.index].locked = false;
        }
    }
}
