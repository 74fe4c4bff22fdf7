//! Rounds: imaging what changed, automatically.
//!
//! A round images the head of every durable fork, the oldest version that each retains, and all named versions, and
//! commits a manifest with them; older images stay as long as the fork's history goes back to them. Then the log is needed only from what the
//! images do not cover, and from what history is reached by, and the segments before are deleted. Forks that did not
//! change since the last round cost their line in the manifest, and hold no segment.
//!
//! A round is due after so many bytes of log, and runs on a thread of its own while the store goes on.
//!
//! Invariants:
//! - A manifest is committed only when every log record that its images contain is durable, so the log never ends
//!   before the images do.
//! - A segment is deleted only when the newest manifest is committed that makes it superfluous.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tine_base::Env;

use super::catalog::Catalog;
use super::collect::{self, Marked, References};
use super::error::ImageError;
use super::manifest::{ForkEntry, ImageEntry, Manifest, PackInfo, RootEntry};
use super::pack::Location;
use super::pager::ImagePager;
use super::writer::{PageWriter, random_id};
use crate::arena::ArenaFull;
use crate::draft::EditError;
use crate::error::StoreError;
use crate::fork::Lineage;
use crate::ids::{DurableTicket, ForkId, Version};
use crate::options::StoreOptions;
use crate::page::{PAGE_BYTES, Stamp};
use crate::read::{Published, Snapshot};
use crate::store::{LOG_WAIT_MAX, Named, Names, Shared};
use crate::versions::Frozen;

/// Images kept of one fork: from the nearest of them an older version is reached through the log. More would make that
/// faster and keep more packs.
const IMAGES_PER_FORK_MAX: usize = 32;

/// A log that has grown by this share of the state is worth another round: replaying it takes about as long as reading
/// that part of the state.
const STATE_SHARE: u64 = 8;

/// The images of an open store.
pub(crate) struct Images {
    pub(crate) catalog: Catalog,
    pub(crate) pager: Arc<ImagePager>,
    /// Held during a round.
    newest: Mutex<Newest>,
    running: AtomicBool,
    /// A round that is under way ends early.
    closing: Arc<AtomicBool>,
    /// Bytes logged at which the next round is due.
    due_bytes: AtomicU64,
    image_bytes: u64,
    age_micros: i64,
    failure: Mutex<Option<ImageError>>,
}

struct Newest {
    manifest: Manifest,
    /// Roots that versions in memory may have pages of: see [`super::collect`].
    opened: HashSet<RootEntry>,
    /// Pages that were reached when the packs were marked last; at first all that there were.
    reached_pages: u64,
    /// Pages that the next round writes again.
    stale: HashSet<Location>,
    swept_micros: i64,
    /// This writer's number, random and never 0; the same in every try to take the place over.
    writer: u64,
    /// Whether the manifest is of this writer.
    taken_over: bool,
    /// Why there will be no further round.
    fenced: Option<ImageError>,
    next_number: u32,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageReport {
    /// Number of the manifest.
    pub manifest: u64,
    /// Forks whose newest version it has.
    pub forks: u64,
    /// Versions it has.
    pub versions: u64,
    /// Pages written.
    pub pages: u64,
    /// Log segments deleted.
    pub segments_deleted: u64,
}

/// What a round images.
pub(crate) struct Cut {
    /// Everything that forks, names and numbers depend on up to this record is as it was then.
    sequence: u64,
    next_fork: ForkId,
    next_keyspace: u64,
    forks: Vec<ForkCut>,
    gone: BTreeMap<ForkId, Option<Version>>,
    names: Names,
}

struct ForkCut {
    entry: ForkEntry,
    first: Published,
    head: Published,
    /// All commits up to this record are in the head.
    covered: u64,
}

impl Images {
    pub(crate) fn new(
        catalog: Catalog,
        pager: Arc<ImagePager>,
        newest: Manifest,
        options: &StoreOptions,
        env: &dyn Env,
    ) -> Images {
        let writer = random_id(env).max(1);
        let (image_bytes, age_micros) = (options.image_bytes, options.image_age_micros);
        let reached_pages: u64 = newest.packs.iter().map(|pack| u64::from(pack.pages)).sum();
        let opened = newest.roots.iter().flatten().copied().collect();
        let next_number = newest.packs.last().map_or(1, |pack| pack.number + 1);
        Images {
            catalog,
            pager,
            newest: Mutex::new(Newest {
                manifest: newest,
                opened,
                reached_pages: reached_pages / 2,
                stale: HashSet::new(),
                swept_micros: 0,
                writer,
                taken_over: false,
                fenced: None,
                next_number,
            }),
            age_micros,
            running: AtomicBool::new(false),
            closing: Arc::default(),
            due_bytes: AtomicU64::new(image_bytes),
            image_bytes,
            failure: Mutex::default(),
        }
    }

    /// Whether a round is due, which the caller then starts.
    pub(crate) fn take_due(&self, bytes_logged: u64) -> bool {
        bytes_logged >= self.due_bytes.load(Ordering::Relaxed) && !self.running.swap(true, Ordering::Relaxed)
    }

    /// A round that [`Images::take_due`] asked for has ended.
    pub(crate) fn rounded(&self, bytes_logged: u64, state_bytes: u64) {
        let next = bytes_logged + self.image_bytes.max(state_bytes / STATE_SHARE);
        self.due_bytes.store(next, Ordering::Relaxed);
        self.running.store(false, Ordering::Relaxed);
    }

    /// The versions that are imaged.
    pub(crate) fn versions(&self) -> Vec<Version> {
        let newest = self.newest.lock();
        let named = newest.manifest.named.iter().map(|(_, image)| image);
        let versions: BTreeSet<Version> =
            newest.manifest.images.iter().chain(named).map(|image| image.version).collect();
        versions.into_iter().collect()
    }

    /// Ends the round that is under way, and lets none begin.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.newest.lock().fenced.get_or_insert(StoreError::Closed.into());
    }

    /// Remembers how the last automatic round ended.
    fn note(&self, failure: Option<ImageError>) {
        *self.failure.lock() = failure;
    }

    /// Why the last automatic round failed, if it did.
    pub(crate) fn failure(&self) -> Option<ImageError> {
        self.failure.lock().clone()
    }

    /// The image of a version, which is kept from now on, its root, and the stamp that none of its pages is behind.
    fn find(&self, version: Version) -> Option<(ImageEntry, Vec<RootEntry>, Stamp)> {
        let mut newest = self.newest.lock();
        let manifest = &newest.manifest;
        let named = || manifest.named.iter().map(|(_, image)| image).find(|image| image.version == version);
        let at = manifest.images.binary_search_by_key(&version, |image| image.version);
        let image = *at.ok().map(|at| &manifest.images[at]).or_else(named)?;
        let root = newest.manifest.roots[image.root].clone();
        newest.opened.extend(&root);
        Some((image, root, newest.manifest.stamp))
    }
}

impl Shared {
    /// Images the state, and deletes what became superfluous by it.
    pub(crate) fn image_round(&self) -> Result<ImageReport, ImageError> {
        let Some(images) = &self.images else {
            return Err(ImageError::Place { place: "nowhere".to_owned(), cause: "the store has no images".into() });
        };
        let mut newest = images.newest.lock();
        if let Some(fenced) = &newest.fenced {
            return Err(fenced.clone());
        }
        self.queue.health()?;
        self.trim_history();
        let cut = self.cut();
        self.queue.wait_durable(cut.last_record(), LOG_WAIT_MAX)?;
        let result = self.write_round(images, &mut newest, &cut);
        if let Err(error @ ImageError::Fenced { .. }) = &result {
            newest.fenced = Some(error.clone());
        }
        let mut report = result?;
        report.segments_deleted = self.delete_segments(&cut)?;
        self.collect(images, &mut newest)?;
        Ok(report)
    }

    fn write_round(&self, images: &Images, newest: &mut Newest, cut: &Cut) -> Result<ImageReport, ImageError> {
        let now_micros = self.env.now_micros();
        if !newest.taken_over {
            let first = Manifest {
                writer: newest.writer,
                store_id: self.store_id,
                created_at_micros: now_micros,
                ..Manifest::default()
            };
            let found = newest.manifest.number;
            let taken = images.catalog.take_over(&first)?;
            if taken.number != found + 1 {
                // What it says is not what this store was opened with.
                return Err(ImageError::Fenced { object: images.catalog.objects().address(&taken.number.to_string()) });
            }
            newest.manifest = taken;
            newest.taken_over = true;
        }
        let packs = newest.manifest.packs.iter().map(|pack| pack.number);
        let arena = &self.pages.arena;
        let mut pages = PageWriter::new(&*self.env, arena, &images.catalog, self.store_id, packs, newest.next_number);
        pages.rewrite(newest.stale.clone());
        pages.stop_on(Arc::clone(&images.closing));
        let mut next = ManifestBuilder::new(&newest.manifest);
        for fork in &cut.forks {
            next.fork(&mut pages, fork)?;
        }
        for (name, named) in &cut.names {
            next.name(&mut pages, name, named)?;
        }
        let written = pages.finish()?;
        newest.next_number = written.next_number;
        let (mut manifest, held) = next.finish(cut, now_micros, &written.packs);
        images.catalog.commit(&mut manifest)?;
        images.pager.add(&written.packs);
        // Without memory for the states the pages are written again next time.
        let _ = written.set_states(arena);
        drop(held);
        newest.manifest = manifest;
        newest.stale.clear();
        Ok(ImageReport {
            manifest: newest.manifest.number,
            forks: cut.forks.len() as u64,
            versions: newest.manifest.images.len() as u64,
            pages: written.pages,
            segments_deleted: 0,
        })
    }

    /// Finds packs that nothing needs any more, and deletes what nothing has needed for long.
    fn collect(&self, images: &Images, newest: &mut Newest) -> Result<(), ImageError> {
        let manifest = &mut newest.manifest;
        let pages: u64 = manifest.packs.iter().map(|pack| u64::from(pack.pages)).sum();
        if collect::is_due(pages, newest.reached_pages) {
            let references = References::read(&images.catalog, self.store_id, &manifest.packs)?;
            let marked = Marked::new(&references, manifest.roots.iter().flatten());
            let held = Marked::new(&references, newest.opened.iter());
            newest.reached_pages = marked.pages(&manifest.packs);
            newest.stale = marked.stale(&references, &manifest.packs);
            // The next manifest is without them. From now on nothing that is imaged again may lead to them.
            manifest.packs.retain(|pack| marked.has_pack(pack.number) || held.has_pack(pack.number));
            self.pages.arena.forget_locations(&|location| {
                let location = u32::try_from(location).ok().and_then(Location::from_number);
                location.is_some_and(|location| marked.has(location))
            });
        }
        let now_micros = self.env.now_micros();
        if now_micros.saturating_sub(newest.swept_micros) >= images.age_micros {
            newest.swept_micros = now_micros;
            collect::sweep(&images.catalog, now_micros.saturating_sub(images.age_micros))?;
        }
        Ok(())
    }

    /// Deletes the segments that neither the images nor history need, the oldest first, so that a crash leaves no gap.
    fn delete_segments(&self, cut: &Cut) -> Result<u64, ImageError> {
        let segments = self.queue.places.segments_before(cut.first_needed_record());
        for segment in &segments {
            let path = crate::log::segment_path(&self.log_directory, *segment);
            let failed = |error: std::io::Error| ImageError::Place {
                place: path.display().to_string(),
                cause: error.to_string().into(),
            };
            self.queue.places.forget(*segment);
            self.env.remove_file(&path).map_err(failed)?;
            self.env.sync_dir(&self.log_directory).map_err(failed)?;
        }
        Ok(segments.len() as u64)
    }

    /// Reads an imaged version from its image.
    pub(crate) fn snapshot_of_image(&self, version: Version) -> Result<Snapshot, ImageError> {
        let missing = || ImageError::NoSuchImage(version);
        let images = self.images.as_ref().ok_or_else(missing)?;
        let (image, root, stamp) = images.find(version).ok_or_else(missing)?;
        let trees = images.pager.trees(&self.pages.arena, &root).map_err(|ArenaFull| ImageError::NoRoom)?;
        let published = Published {
            state: self.pages.import(stamp, trees.into()),
            lsn: version.lsn,
            timestamp_micros: image.timestamp_micros,
            ticket: DurableTicket::new(image.sequence),
        };
        Ok(Snapshot::new(version, published))
    }

    /// Has a round begin on a thread of its own whenever enough was logged.
    pub(crate) fn image_when_due(self: &Arc<Shared>) {
        if self.images.is_none() {
            return;
        }
        let shared = Arc::downgrade(self);
        self.queue.on_written(Box::new(move |bytes_logged| {
            let Some(shared) = shared.upgrade() else { return };
            let images = shared.images.as_ref().expect("checked when this was set");
            if images.take_due(bytes_logged) {
                shared.start_round();
            }
        }));
    }

    fn start_round(self: Arc<Shared>) {
        let weak = Arc::downgrade(&self);
        let body = move || {
            let Some(shared) = weak.upgrade() else { return };
            // What failed is tried again when the next round is due; the log has everything meanwhile.
            let result = shared.image_round();
            let images = shared.images.as_ref().expect("rounds are of stores with images");
            images.note(result.err());
            images.rounded(shared.bytes_logged(), shared.state_bytes());
        };
        if self.env.spawn("tine-images", Box::new(body)).is_err() {
            // Tried again when the next round is due.
            let images = self.images.as_ref().expect("rounds are of stores with images");
            images.rounded(self.bytes_logged(), self.state_bytes());
        }
    }

    fn bytes_logged(&self) -> u64 {
        self.queue.counters.bytes_logged.load(Ordering::Relaxed)
    }

    /// Bytes that the store's pages take.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.pages.arena.stats().allocated * PAGE_BYTES as u64
    }
}

impl Cut {
    pub(crate) fn new(
        sequence: u64,
        next_fork: ForkId,
        next_keyspace: u64,
        forks: impl Iterator<Item = (ForkEntry, Arc<Lineage>, Published, Published, u64)>,
        names: Names,
    ) -> Cut {
        let mut lineages = BTreeMap::new();
        let mut note = |lineage: &Lineage| {
            for (fork, parent) in lineage.ancestors() {
                if lineages.insert(fork, parent).is_some() {
                    break;
                }
            }
        };
        names.values().for_each(|named| note(&named.lineage));
        let fork =
            |(entry, lineage, first, head, last_commit): (ForkEntry, Arc<Lineage>, Published, Published, u64)| {
                note(&lineage);
                // Without commits that are not published, everything up to the cut is in the head.
                let published = head.ticket.get();
                let covered = if published >= last_commit { published.max(sequence) } else { published };
                ForkCut { entry, first, head, covered }
            };
        let mut forks: Vec<ForkCut> = forks.map(fork).collect();
        forks.sort_by_key(|fork| fork.entry.fork);
        for fork in &forks {
            lineages.remove(&fork.entry.fork);
        }
        Cut { sequence, next_fork, next_keyspace, forks, gone: lineages, names }
    }

    /// Everything that the images will hold is durable when this is.
    fn last_record(&self) -> DurableTicket {
        let last = self.forks.iter().map(|fork| fork.head.ticket.get()).max().unwrap_or(0);
        DurableTicket::new(last.max(self.sequence))
    }

    /// The first log record that is needed once the cut is imaged.
    fn first_needed_record(&self) -> u64 {
        let needed = |fork: &ForkCut| {
            let history = if fork.first.lsn < fork.head.lsn { fork.first.ticket.get() } else { fork.covered };
            fork.covered.min(history)
        };
        let forks = self.forks.iter().map(needed).min().unwrap_or(self.sequence);
        forks.min(self.sequence) + 1
    }
}

/// Puts a manifest together.
struct ManifestBuilder<'a> {
    before: &'a Manifest,
    roots: Vec<Vec<RootEntry>>,
    known: HashMap<Vec<RootEntry>, usize>,
    forks: Vec<ForkEntry>,
    images: Vec<ImageEntry>,
    named: Vec<(String, ImageEntry)>,
    /// What was written, held until the states of its pages are set.
    held: Vec<Arc<Frozen>>,
    stamp: Stamp,
}

impl<'a> ManifestBuilder<'a> {
    fn new(before: &'a Manifest) -> ManifestBuilder<'a> {
        let (roots, known, forks, images, named, held) = Default::default();
        ManifestBuilder { before, roots, known, forks, images, named, held, stamp: before.stamp }
    }

    /// Adds a fork: its oldest version, those imaged before that it still retains, and its head.
    fn fork(&mut self, pages: &mut PageWriter<'_>, fork: &ForkCut) -> Result<(), ImageError> {
        let id = fork.entry.fork;
        let start = self.before.images.partition_point(|image| image.version.fork < id);
        let end = self.before.images.partition_point(|image| image.version.fork <= id);
        let mut images: Vec<(ImageEntry, Option<Published>)> = self.before.images[start..end]
            .iter()
            .filter(|image| (fork.first.lsn..=fork.head.lsn).contains(&image.version.lsn))
            .map(|image| (*image, None))
            .collect();
        for (version, covered) in [(&fork.first, fork.first.ticket.get()), (&fork.head, fork.covered)] {
            let place = images.binary_search_by_key(&version.lsn, |(image, _)| image.version.lsn);
            match place {
                Ok(at) => images[at].0.sequence = images[at].0.sequence.max(covered),
                Err(at) => images.insert(at, (entry(id, version, covered), Some(version.clone()))),
            }
        }
        while images.len() > IMAGES_PER_FORK_MAX {
            images.remove(least_missed(&images));
        }
        for (mut image, new) in images {
            match new {
                Some(version) => self.write(pages, &version, &mut image)?,
                None => image.root = self.root(self.before.roots[image.root].clone()),
            }
            self.images.push(image);
        }
        self.forks.push(fork.entry.clone());
        Ok(())
    }

    /// Adds a named version. What other images have of it is not written again.
    fn name(&mut self, pages: &mut PageWriter<'_>, name: &str, named: &Named) -> Result<(), ImageError> {
        let mut image = entry(named.version.fork, &named.state, named.state.ticket.get());
        self.write(pages, &named.state, &mut image)?;
        self.named.push((name.to_owned(), image));
        Ok(())
    }

    /// Writes the pages of a version, as far as they are not imaged.
    fn write(
        &mut self,
        pages: &mut PageWriter<'_>,
        version: &Published,
        image: &mut ImageEntry,
    ) -> Result<(), ImageError> {
        let state = version.state.folded().map_err(|error| match error {
            EditError::Fault(fault) => ImageError::Page(fault),
            EditError::Full => ImageError::NoRoom,
        })?;
        image.stamp = state.stamp();
        self.stamp = self.stamp.max(state.stamp());
        let root = pages.trees(state.trees())?;
        self.held.push(state);
        image.root = self.root(root);
        Ok(())
    }

    fn root(&mut self, root: Vec<RootEntry>) -> usize {
        if let Some(index) = self.known.get(&root) {
            return *index;
        }
        self.roots.push(root.clone());
        self.known.insert(root, self.roots.len() - 1);
        self.roots.len() - 1
    }

    fn finish(self, cut: &Cut, now_micros: i64, written: &[PackInfo]) -> (Manifest, Vec<Arc<Frozen>>) {
        let mut packs = self.before.packs.clone();
        packs.extend_from_slice(written);
        packs.sort_by_key(|pack| pack.number);
        let manifest = Manifest {
            number: self.before.number + 1,
            created_at_micros: now_micros,
            sequence: cut.sequence,
            stamp: self.stamp,
            next_fork: cut.next_fork.max(self.before.next_fork),
            next_keyspace: cut.next_keyspace.max(self.before.next_keyspace),
            packs,
            roots: self.roots,
            forks: self.forks,
            gone: cut.gone.clone().into_iter().collect(),
            images: self.images,
            named: self.named,
            ..*self.before
        };
        (manifest, self.held)
    }
}

fn entry(fork: ForkId, version: &Published, covered: u64) -> ImageEntry {
    ImageEntry {
        version: Version { fork, lsn: version.lsn },
        timestamp_micros: version.timestamp_micros,
        sequence: covered,
        stamp: version.state.stamp(),
        root: 0,
    }
}

/// The image between the first and the last that closes the smallest gap.
fn least_missed(images: &[(ImageEntry, Option<Published>)]) -> usize {
    let gap = |at: &usize| images[at + 1].0.sequence.saturating_sub(images[at - 1].0.sequence);
    (1..images.len() - 1).min_by_key(gap).expect("more than two images are thinned out")
}
