//! Rebuilding the state from images and the log.
//!
//! Each fork starts from its newest image, and the log is read from the first record on that some fork's image does not
//! have. A fork that was made after the images, from a version that its parent's newest image is past, makes its parent
//! start from an older one. Without images the log is read from its beginning.
//!
//! That part of the log is read twice. The first pass checks every frame, so that a damaged log is refused before anything
//! is built, and notes which versions forks were made from. The second pass applies the records and keeps
//! those versions' roots when it comes by. That is needed because a fork starts from the last *published*
//! version of its parent, while commits that were not published yet may lie before the fork's record.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tine_base::Env;

use crate::draft::Draft;
use crate::error::{LogError, OpenError, WriteError};
use crate::fork::Lineage;
use crate::history::{History, LastPin, Retention};
use crate::ids::{DurableTicket, ForkId, KeyspaceId, Version};
use crate::images::{ImageEntry, ImageError, ImagePager, Manifest};
use crate::log::{
    BadRecord, FRAME_HEADER_BYTES, FRAMES_START, Frame, LogPlaces, RecordRef, Scanner, Tail, corrupt, segment_path,
    segment_starts, take_record,
};
use crate::options::{RecoveryProgress, RecoveryReport};
use crate::read::{ApplyError, Published, apply};
use crate::store::{Named, Names};
use crate::versions::Pages;

/// Bytes of log between two reports of progress: often enough for a person, rarely enough to cost nothing.
const PROGRESS_BYTES: u64 = 4 << 20;

/// The state at the end of the log.
pub(crate) struct Recovered {
    pub(crate) forks: BTreeMap<ForkId, RecoveredFork>,
    pub(crate) names: Names,
    /// No fork number from here on was ever used.
    pub(crate) next_fork: ForkId,
    /// The first keyspace that is not allocated; 2^32 if all are.
    pub(crate) next_keyspace: u64,
    pub(crate) tail: Option<Tail>,
    pub(crate) places: LogPlaces,
    pub(crate) report: RecoveryReport,
}

pub(crate) struct RecoveredFork {
    pub(crate) name: String,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) created_at_micros: i64,
    pub(crate) expires_at_micros: Option<i64>,
    pub(crate) head: Published,
    pub(crate) history: Arc<History>,
    last_pin: LastPin,
    /// The state of `head` while commits are applied; `head.state` is an earlier one then.
    draft: Option<Box<Draft>>,
}

impl RecoveredFork {
    pub(crate) fn new(
        name: &str,
        lineage: Arc<Lineage>,
        created_at_micros: i64,
        expires_at_micros: Option<i64>,
        head: Published,
    ) -> RecoveredFork {
        let history = History::begin(head.clone());
        RecoveredFork {
            name: name.to_owned(),
            lineage,
            created_at_micros,
            expires_at_micros,
            head,
            last_pin: history.last(),
            history,
            draft: None,
        }
    }

    /// Makes the state of `head` a version.
    fn freeze(&mut self) {
        if let Some(draft) = &mut self.draft {
            self.head.state = draft.freeze();
        }
    }
}

/// Where recovery finds images.
pub(crate) struct ImageBase<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) pager: &'a Arc<ImagePager>,
}

/// The image that each fork starts from.
type Starts = BTreeMap<ForkId, ImageEntry>;

/// Reads the log in `directory`, which may be empty, on top of the images, if there are any.
pub(crate) fn recover(
    env: &Arc<dyn Env>,
    directory: PathBuf,
    retention: &Retention,
    pages: &Arc<Pages>,
    base: Option<&ImageBase<'_>>,
    progress: &mut dyn FnMut(RecoveryProgress),
) -> Result<Recovered, OpenError> {
    let started_ns = env.monotonic_ns();
    let mut meter = Meter { progress, total: 0, base: 0, reported: 0 };
    let segments = segment_starts(&**env, &directory)?;
    let mut starts: Starts = base.map(|base| newest_images(base.manifest)).unwrap_or_default();
    let (first_segment, tail, origins) = loop {
        let first = first_segment(&segments, base, &starts, &directory)?;
        let mut scanner = Scanner::starting_at(Arc::clone(env), directory.clone(), first)?;
        let bytes = scanner.total_bytes()?;
        meter.total = bytes * 2;
        meter.base = bytes;
        let mut origins = Vec::new();
        while let Some(frame) = scanner.next_frame()? {
            for_each_record(&frame, &mut |sequence, record| {
                let known = base.is_some_and(|base| sequence <= base.manifest.sequence);
                match record {
                    RecordRef::ForkCreated { parent: Some(version), .. } | RecordRef::VersionNamed { version, .. }
                        if !known =>
                    {
                        origins.push(version);
                    }
                    _ => {}
                }
                Ok(())
            })?;
            meter.advance(scanner.position());
        }
        if !start_earlier(base, &origins, &mut starts)? {
            break (first, scanner.tail()?, origins);
        }
    };
    let mut replay = Replay::new(retention, pages);
    origins.into_iter().for_each(|origin| replay.note_origin(origin));
    if let Some(base) = base {
        replay.begin_with(base, &starts)?;
    }
    let places = LogPlaces::default();
    for (number, first_sequence, bytes) in segments.into_iter().filter(|(number, ..)| *number < first_segment) {
        places.note(first_sequence, number, FRAMES_START as u64, bytes);
    }
    let mut scanner = Scanner::starting_at(Arc::clone(env), directory, first_segment)?;
    while let Some(frame) = scanner.next_frame()? {
        let bytes = (FRAME_HEADER_BYTES + frame.payload.len()) as u64;
        places.note(frame.header.first_sequence, frame.segment, frame.offset, bytes);
        let applied =
            for_each_record(&frame, &mut |sequence, record| replay.apply(DurableTicket::new(sequence), record));
        if let Some(error) = replay.refused.take() {
            return Err(error.into());
        }
        applied?;
        meter.advance(meter.base + scanner.position());
    }
    replay.forks.values_mut().for_each(RecoveredFork::freeze);
    meter.advance(meter.total);
    let report = RecoveryReport {
        segments: tail.as_ref().map_or(0, |tail| tail.header.number),
        truncated_bytes: tail.as_ref().map_or(0, |tail| tail.torn_bytes),
        elapsed_ms: (env.monotonic_ns() - started_ns) / 1_000_000,
        ..replay.report
    };
    Ok(Recovered {
        forks: replay.forks,
        names: replay.names,
        next_fork: replay.next_fork,
        next_keyspace: replay.next_keyspace,
        tail,
        places,
        report,
    })
}

fn newest_images(manifest: &Manifest) -> Starts {
    // By fork and LSN, so the newest comes last.
    manifest.images.iter().map(|image| (image.version.fork, *image)).collect()
}

/// The segment that has the first record that some image does not.
fn first_segment(
    segments: &[(u64, u64, u64)],
    base: Option<&ImageBase<'_>>,
    starts: &Starts,
    directory: &Path,
) -> Result<u64, LogError> {
    let needed = base.map_or(1, |base| {
        let images = starts.values().map(|image| image.sequence).min().unwrap_or(u64::MAX);
        images.min(base.manifest.sequence) + 1
    });
    let missing = |number: u64| corrupt(&segment_path(directory, number), 0, "the segment is missing");
    match segments.iter().rfind(|(_, first, _)| *first <= needed) {
        Some((number, ..)) => Ok(*number),
        // Without any segment this is a new store, or only its images are left.
        None => match segments.first() {
            Some((first, ..)) => Err(missing(first - 1)),
            None => Ok(1),
        },
    }
}

/// Has forks start from older images where others were made from versions before their newest, or these got names. Named
/// versions in the images are there without that. Says whether it had to.
fn start_earlier(base: Option<&ImageBase<'_>>, origins: &[Version], starts: &mut Starts) -> Result<bool, OpenError> {
    let Some(base) = base else { return Ok(false) };
    let mut earlier = false;
    let is_named = |origin: &Version| base.manifest.named.iter().any(|(_, image)| image.version == *origin);
    for origin in origins.iter().filter(|origin| !is_named(origin)) {
        let Some(start) = starts.get_mut(&origin.fork).filter(|start| start.version.lsn > origin.lsn) else { continue };
        let mut images = base.manifest.images.iter();
        let older = images.rfind(|image| image.version.fork == origin.fork && image.version.lsn <= origin.lsn);
        let older = older.ok_or_else(|| ImageError::Corrupt {
            object: format!("manifest {}", base.manifest.number),
            offset: 0,
            detail: format!("no image leads to {origin}, which a fork was made from"),
        })?;
        *start = *older;
        earlier = true;
    }
    Ok(earlier)
}

struct Meter<'a> {
    progress: &'a mut dyn FnMut(RecoveryProgress),
    total: u64,
    base: u64,
    reported: u64,
}

impl Meter<'_> {
    fn advance(&mut self, done: u64) {
        if done == self.total || done >= self.reported + PROGRESS_BYTES {
            self.reported = done;
            (self.progress)(RecoveryProgress { bytes_done: done, bytes_total: self.total });
        }
    }
}

fn for_each_record(
    frame: &Frame,
    visit: &mut dyn FnMut(u64, RecordRef<'_>) -> Result<(), &'static str>,
) -> Result<(), LogError> {
    let offset = usize::try_from(frame.offset).expect("a segment fits into memory");
    let mut rest: &[u8] = &frame.payload;
    for number in 0..u64::from(frame.header.records) {
        let record = take_record(&mut rest).and_then(RecordRef::decode).map_err(|BadRecord| BAD_RECORD);
        let sequence = frame.header.first_sequence + number;
        record.and_then(|record| visit(sequence, record)).map_err(|detail| corrupt(&frame.path, offset, detail))?;
    }
    Ok(())
}

const BAD_RECORD: &str = "a record cannot be decoded";
const NO_SUCH_FORK: &str = "a record names a fork that does not exist";

struct Replay<'a> {
    retention: &'a Retention,
    pages: &'a Arc<Pages>,
    forks: BTreeMap<ForkId, RecoveredFork>,
    names: Names,
    /// Versions that forks further on start from, and those that get names.
    origins: HashMap<Version, Origin>,
    /// Of every fork there was: one may start from one that is gone.
    lineages: HashMap<ForkId, Arc<Lineage>>,
    next_fork: ForkId,
    next_keyspace: u64,
    report: RecoveryReport,
    /// Replaced values, which replay has no use for.
    scratch: Vec<u8>,
    /// Why a commit could not be applied although it can be decoded.
    refused: Option<WriteError>,
    /// The record up to which the images have forks and names, and those up to which they have commits.
    images_sequence: u64,
    covered: HashMap<ForkId, u64>,
}

#[derive(Default)]
struct Origin {
    /// Forks made from it, and names given to it, that were not replayed yet.
    uses: u32,
    state: Option<Published>,
}

impl<'a> Replay<'a> {
    fn new(retention: &'a Retention, pages: &'a Arc<Pages>) -> Replay<'a> {
        Replay {
            retention,
            pages,
            forks: BTreeMap::new(),
            names: Names::new(),
            origins: HashMap::new(),
            lineages: HashMap::new(),
            next_fork: ForkId::MAIN,
            next_keyspace: u64::from(KeyspaceId::FIRST_ALLOCATED.get()),
            report: RecoveryReport::default(),
            scratch: Vec::new(),
            refused: None,
            images_sequence: 0,
            covered: HashMap::new(),
        }
    }

    fn note_origin(&mut self, parent: Version) {
        self.origins.entry(parent).or_default().uses += 1;
    }

    /// Makes the forks of the images, with the pins that their images are.
    fn begin_with(&mut self, base: &ImageBase<'_>, starts: &Starts) -> Result<(), OpenError> {
        let manifest = base.manifest;
        self.images_sequence = manifest.sequence;
        self.next_fork = self.next_fork.max(manifest.next_fork);
        self.next_keyspace = self.next_keyspace.max(manifest.next_keyspace);
        self.pages.raise_stamp(manifest.stamp);
        // A fork has a greater number than what it was made from.
        let forks = manifest.forks.iter().map(|entry| (entry.fork, entry.parent));
        let all: BTreeMap<ForkId, Option<Version>> = manifest.gone.iter().copied().chain(forks).collect();
        for (fork, parent) in all {
            self.lineage(fork, parent).map_err(|detail| ImageError::Corrupt {
                object: format!("manifest {}", manifest.number),
                offset: 0,
                detail: detail.to_owned(),
            })?;
        }
        for (name, image) in &manifest.named {
            let state = self.import(base, image)?;
            if let Some(origin) = self.origins.get_mut(&image.version) {
                origin.state = Some(state.clone());
            }
            let lineage = self.lineages.get(&image.version.fork).ok_or_else(|| ImageError::Corrupt {
                object: format!("manifest {}", manifest.number),
                offset: 0,
                detail: format!("the named version {} is of a fork that never was", image.version),
            })?;
            let named = Named { version: image.version, state, lineage: Arc::clone(lineage) };
            self.names.insert(name.as_str().into(), named);
        }
        for entry in &manifest.forks {
            let start = starts.get(&entry.fork).expect("every fork of a manifest has an image, which was checked");
            let lineage = Arc::clone(&self.lineages[&entry.fork]);
            let mut recovered: Option<RecoveredFork> = None;
            let of_fork = manifest.images.iter().filter(|image| image.version.fork == entry.fork);
            for image in of_fork.filter(|image| image.version.lsn <= start.version.lsn) {
                let state = self.import(base, image)?;
                if let Some(origin) = self.origins.get_mut(&image.version) {
                    origin.state = Some(state.clone());
                }
                match &mut recovered {
                    None => {
                        let (created, expires) = (entry.created_at_micros, entry.expires_at_micros);
                        let lineage = Arc::clone(&lineage);
                        recovered = Some(RecoveredFork::new(&entry.name, lineage, created, expires, state));
                    }
                    Some(fork) => {
                        fork.head = state.clone();
                        fork.last_pin = self.retention.pin(entry.fork, &fork.history, state, 0);
                    }
                }
            }
            let recovered = recovered.expect("the start is one of the images");
            self.covered.insert(entry.fork, start.sequence);
            self.forks.insert(entry.fork, recovered);
        }
        Ok(())
    }

    fn import(&self, base: &ImageBase<'_>, image: &ImageEntry) -> Result<Published, OpenError> {
        let root = &base.manifest.roots[image.root];
        let trees = base.pager.trees(&self.pages.arena, root).map_err(|_| OpenError::Write(WriteError::NoRoom))?;
        Ok(Published {
            state: self.pages.import(base.manifest.stamp, trees.into()),
            lsn: image.version.lsn,
            timestamp_micros: image.timestamp_micros,
            ticket: DurableTicket::new(image.sequence),
        })
    }

    /// Whether the images have a record already.
    fn is_imaged(&self, sequence: u64, record: &RecordRef<'_>) -> bool {
        match record {
            RecordRef::Commit { version, .. } => match self.covered.get(&version.fork) {
                Some(covered) => sequence <= *covered,
                // Of a fork that was gone by then.
                None => sequence <= self.images_sequence,
            },
            _ => sequence <= self.images_sequence,
        }
    }

    fn apply(&mut self, ticket: DurableTicket, record: RecordRef<'_>) -> Result<(), &'static str> {
        if self.is_imaged(ticket.get(), &record) {
            return Ok(());
        }
        self.report.records += 1;
        match record {
            RecordRef::Commit { version, timestamp_micros, operations, .. } => {
                self.commit(ticket, version, timestamp_micros, operations)?;
            }
            RecordRef::ForkCreated { fork, name, created_at_micros, parent, expires_at_micros } => {
                let head = self.base(ticket, parent)?;
                let lineage = self.lineage(fork, parent)?;
                let created = RecoveredFork::new(name, lineage, created_at_micros, expires_at_micros, head);
                self.create(fork, created)?;
            }
            RecordRef::ForkDropped { fork } => {
                self.drop(fork)?;
            }
            RecordRef::ForkReplaced { fork, replaced } => {
                let name = self.drop(replaced)?;
                self.forks.get_mut(&fork).ok_or(NO_SUCH_FORK)?.name = name;
            }
            RecordRef::ForkRenamed { fork, name } => {
                name.clone_into(&mut self.forks.get_mut(&fork).ok_or(NO_SUCH_FORK)?.name);
            }
            RecordRef::KeyspacesAllocated { first, count } => {
                let end = u64::from(first.get()) + u64::from(count);
                self.next_keyspace = self.next_keyspace.max(end);
            }
            RecordRef::ForkIdsReserved { end } => self.next_fork = self.next_fork.max(end),
            RecordRef::Call { .. } => {}
            RecordRef::VersionNamed { version, name } => {
                let state = self.take_origin(version).ok_or("a version has a name and does not exist")?;
                let lineage = self.lineages.get(&version.fork).ok_or(NO_SUCH_FORK)?;
                let named = Named { version, state, lineage: Arc::clone(lineage) };
                if self.names.insert(name.into(), named).is_some() {
                    return Err("two versions have one name");
                }
            }
            RecordRef::VersionNameForgotten { name } => {
                self.names.remove(name).ok_or("a name is given up that no version has")?;
            }
        }
        Ok(())
    }

    /// Drops a fork and returns its name.
    fn drop(&mut self, id: ForkId) -> Result<String, &'static str> {
        let fork = self.forks.remove(&id).ok_or(NO_SUCH_FORK)?;
        self.retention.close(id, &fork.history);
        Ok(fork.name)
    }

    fn commit(
        &mut self,
        ticket: DurableTicket,
        version: Version,
        timestamp_micros: i64,
        encoded: &[u8],
    ) -> Result<(), &'static str> {
        let fork = self.forks.get_mut(&version.fork).ok_or(NO_SUCH_FORK)?;
        if version.lsn.get() != fork.head.lsn.get() + 1 {
            return Err("a commit does not follow the one before it on its fork");
        }
        let draft = fork.draft.get_or_insert_with(|| {
            let mut draft = Draft::new(Arc::clone(&fork.head.state), false);
            draft.set_pin(fork.last_pin.stamp);
            Box::new(draft)
        });
        apply(draft, encoded, &mut self.scratch).map_err(|error| match error {
            ApplyError::BadRecord => BAD_RECORD,
            ApplyError::Write(error) => {
                self.refused = Some(error);
                "a commit cannot be applied"
            }
        })?;
        (fork.head.lsn, fork.head.timestamp_micros, fork.head.ticket) = (version.lsn, timestamp_micros, ticket);
        if fork.last_pin.is_behind(version.lsn, timestamp_micros) {
            let displaced_bytes = draft.take_displaced_bytes();
            fork.freeze();
            fork.last_pin = self.retention.pin(version.fork, &fork.history, fork.head.clone(), displaced_bytes);
            fork.draft.iter_mut().for_each(|draft| draft.set_pin(fork.last_pin.stamp));
        }
        if let Some(origin) = self.origins.get_mut(&version) {
            fork.freeze();
            origin.state = Some(fork.head.clone());
        }
        self.report.commits += 1;
        Ok(())
    }

    /// The state that a new fork starts with.
    fn base(&mut self, ticket: DurableTicket, parent: Option<Version>) -> Result<Published, &'static str> {
        let Some(parent) = parent else { return Ok(Published::empty(self.pages, ticket)) };
        let base = self.take_origin(parent).ok_or("a fork starts from a version that does not exist")?;
        Ok(Published { ticket, ..base })
    }

    fn lineage(&mut self, fork: ForkId, parent: Option<Version>) -> Result<Arc<Lineage>, &'static str> {
        let origin = match parent {
            None => None,
            Some(parent) => {
                let lineage = self.lineages.get(&parent.fork).ok_or("a fork starts from one that does not exist")?;
                Some((Arc::clone(lineage), parent.lsn))
            }
        };
        let lineage = Lineage::new(fork, origin);
        self.lineages.insert(fork, Arc::clone(&lineage));
        Ok(lineage)
    }

    fn create(&mut self, id: ForkId, fork: RecoveredFork) -> Result<(), &'static str> {
        let version = Version { fork: id, lsn: fork.head.lsn };
        if let Some(origin) = self.origins.get_mut(&version) {
            origin.state = Some(fork.head.clone());
        }
        if self.forks.insert(id, fork).is_some() {
            return Err("a fork is created twice");
        }
        self.next_fork = self.next_fork.max(ForkId::new(id.get().saturating_add(1)));
        Ok(())
    }

    /// The state of a version that a fork starts from, forgotten with the last such fork.
    fn take_origin(&mut self, version: Version) -> Option<Published> {
        let origin = self.origins.get_mut(&version)?;
        let state = origin.state.clone();
        origin.uses -= 1;
        if origin.uses == 0 {
            self.origins.remove(&version);
        }
        state
    }
}
