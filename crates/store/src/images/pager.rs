//! Absent pages: what brings the pages of images into the arena when they are read.
//!
//! The pages of a pack get consecutive places in the arena when the pack is first referred to, so the place of a page
//! follows from its location, and pages that several versions share have one place. Nothing is read then. The first
//! access to a page finds no birth in its place and comes here: the page is read with its neighbours, which are mostly
//! wanted next, checked, and its references are turned from locations into places.
//!
//! State that is larger than the memory it may take is not loaded into the arena's own memory. Its places show a file
//! without a name that pages are written to, rewritten as they are. Then the memory of any page can be dropped at any
//! time, also under readers, who hold slices as long as they like: the kernel brings the same bytes back from the file.
//!
//! Invariants:
//! - A place of a pack holds the page of the image or nothing. Its state says that it is imaged, and where.
//! - Places of packs are never handed back while the store is open, so a place means one page.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::error::ImageError;
use super::manifest::{PackInfo, RootEntry};
use super::objects::Objects;
use super::pack::{Location, PackedPage, byte_range, check_page, pack_name, page_of, rewrite};
use crate::arena::{Arena, ArenaFull, PageState, Pager};
use crate::error::Fault;
use crate::ids::KeyspaceId;
use crate::page::{BIRTH, ChildRef, PAGE_BYTES, PageId, PageKind, Stamp, View, run_pages};
use crate::tree::TreeRoot;

/// Pages read at once: a request to a bucket costs the same for 256 KiB as for 4, and a disk nearly so.
const CHUNK_PAGES: usize = 64;

/// See the module.
pub(crate) struct ImagePager {
    cache: Option<Cache>,
    objects: Arc<dyn Objects>,
    packs: Mutex<BTreeMap<u32, Pack>>,
    /// Held while pages are brought, so that each is brought once.
    loading: Mutex<()>,
}

/// The file that places show, each page at the offset that it has in the arena.
struct Cache {
    file: Arc<File>,
    budget_bytes: u64,
    /// Bytes brought since memory was dropped.
    brought_bytes: AtomicU64,
}

#[derive(Clone, Copy)]
struct Pack {
    id: u64,
    pages: u32,
    /// The place of its first page.
    base: Option<PageId>,
}

impl ImagePager {
    /// Brings pages from `objects`; with a file, through it, and keeps about `budget_bytes` of them in memory.
    pub(crate) fn new(objects: Arc<dyn Objects>, file: Option<Arc<File>>, budget_bytes: u64) -> ImagePager {
        let cache = file.map(|file| Cache { file, budget_bytes, brought_bytes: AtomicU64::new(0) });
        ImagePager { cache, objects, packs: Mutex::default(), loading: Mutex::default() }
    }

    /// Drops the memory of the pages that were brought, if that may be more than the budget.
    pub(crate) fn trim(&self, arena: &Arena) {
        let Some(cache) = &self.cache else { return };
        if cache.brought_bytes.load(Ordering::Relaxed) > cache.budget_bytes {
            self.drop_memory(arena);
        }
    }

    fn drop_memory(&self, arena: &Arena) {
        let placed: Vec<(PageId, u32)> =
            self.packs.lock().values().filter_map(|pack| Some((pack.base?, pack.pages))).collect();
        placed.into_iter().for_each(|(base, pages)| arena.drop_mapped(base, pages));
    }

    /// Puts whole pages into their place.
    fn load(&self, arena: &Arena, id: PageId, content: &[u8]) -> std::io::Result<()> {
        let Some(cache) = &self.cache else {
            // SAFETY: the pages are absent, `loading` is held, and the content passed the check.
            unsafe { arena.load(id, content) };
            return Ok(());
        };
        let bytes = content.len() as u64;
        if cache.brought_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > cache.budget_bytes {
            self.drop_memory(arena);
            cache.brought_bytes.store(bytes, Ordering::Relaxed);
        }
        // The birth last, so that a reader never meets a page half filled.
        let offset = u64::from(id.get()) * PAGE_BYTES as u64;
        cache.file.write_all_at(&content[..BIRTH], offset)?;
        cache.file.write_all_at(&content[BIRTH + 8..], offset + BIRTH as u64 + 8)?;
        cache.file.write_all_at(&content[BIRTH..BIRTH + 8], offset + BIRTH as u64)
    }

    /// Makes the pages of further packs known.
    pub(crate) fn add(&self, packs: &[PackInfo]) {
        let packs = packs.iter().map(|pack| (pack.number, Pack { id: pack.id, pages: pack.pages, base: None }));
        self.packs.lock().extend(packs);
    }

    /// The trees of an image, none of whose pages is read.
    ///
    /// # Errors
    /// The arena has no places left for the packs.
    pub(crate) fn trees(&self, arena: &Arena, root: &[RootEntry]) -> Result<Vec<(KeyspaceId, TreeRoot)>, ArenaFull> {
        let tree = |entry: &RootEntry| {
            let page = match entry.location {
                Some(location) => ChildRef { id: self.place(arena, location)?, birth: entry.birth },
                None => ChildRef::default(),
            };
            Ok((entry.keyspace, TreeRoot { page, length: entry.records }))
        };
        root.iter().map(tree).collect()
    }

    /// The place of a page.
    fn place(&self, arena: &Arena, location: Location) -> Result<PageId, ArenaFull> {
        let mut packs = self.packs.lock();
        let pack = packs.get_mut(&location.pack()).ok_or(ArenaFull)?;
        let base = match pack.base {
            Some(base) => base,
            None => {
                let base = arena.allocate_images(pack.pages)?;
                if let Some(cache) = &self.cache {
                    let offset = u64::from(base.get()) * PAGE_BYTES as u64;
                    let end = offset + u64::from(pack.pages) * PAGE_BYTES as u64;
                    let long_enough = cache.file.metadata().map(|facts| facts.len() >= end);
                    let extended = long_enough.and_then(|is| if is { Ok(()) } else { cache.file.set_len(end) });
                    extended
                        .and_then(|()| arena.map_images(base, pack.pages, &cache.file, offset))
                        .map_err(|_| ArenaFull)?;
                }
                for index in 0..pack.pages {
                    let state =
                        PageState::imaged(u64::from(Location::new(location.pack(), index as usize).get()), true);
                    arena.set_state(PageId::new(base.get() + index), state).map_err(|_| ArenaFull)?;
                }
                *pack.base.insert(base)
            }
        };
        Ok(PageId::new(base.get() + location.index() as u32))
    }

    fn pack(&self, location: Location) -> Option<Pack> {
        self.packs.lock().get(&location.pack()).copied()
    }

    /// Reads the page's chunk, or the run it begins, and puts it into its places.
    fn bring(&self, arena: &Arena, location: Location) -> Result<(), ImageError> {
        let name = |pack: &Pack| pack_name(pack.id);
        let missing = || ImageError::Corrupt {
            object: format!("pack {}", location.pack()),
            offset: 0,
            detail: "a page refers to a pack that no manifest names".to_owned(),
        };
        let pack = self.pack(location).filter(|pack| location.index() < pack.pages as usize).ok_or_else(missing)?;
        let first = location.index() / CHUNK_PAGES * CHUNK_PAGES;
        let count = CHUNK_PAGES.min(pack.pages as usize - first);
        let bytes = self.read(&pack, first, count)?;
        let corrupt = |(offset, detail): (u64, &'static str)| ImageError::Corrupt {
            object: self.objects.address(&name(&pack)),
            offset,
            detail: detail.to_owned(),
        };
        for index in first..first + count {
            let page = match page_of(&bytes, pack.id, first, index) {
                Ok(page) => page,
                // A damaged neighbour is met when it is wanted.
                Err(_) if index != location.index() => continue,
                Err(error) => return Err(corrupt(error)),
            };
            let wanted = index == location.index();
            let brought = self.put(arena, &pack, Location::new(location.pack(), index), page, wanted);
            match brought {
                Err(error) if wanted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn read(&self, pack: &Pack, first: usize, count: usize) -> Result<bytes::Bytes, ImageError> {
        let name = pack_name(pack.id);
        let read = self.objects.read(&name, Some(byte_range(first, count)));
        read.map_err(|source| ImageError::Object { object: self.objects.address(&name), source })
    }

    /// Puts a page, or all of the run that it begins, into its place. Runs only if `wanted`.
    fn put(
        &self,
        arena: &Arena,
        pack: &Pack,
        location: Location,
        page: PackedPage<'_>,
        wanted: bool,
    ) -> Result<(), ImageError> {
        let corrupt = |detail: &str| ImageError::Corrupt {
            object: self.objects.address(&pack_name(pack.id)),
            offset: byte_range(location.index(), 1).start,
            detail: detail.to_owned(),
        };
        let base = pack.base.expect("a page that is asked for has a place");
        let id = PageId::new(base.get() + location.index() as u32);
        if page.continues || !arena.state(id).is_absent() {
            return if wanted && page.continues { Err(corrupt("a reference leads into a run")) } else { Ok(()) };
        }
        check_page(page.bytes).map_err(corrupt)?;
        let view = View::new(page.bytes);
        let content = if view.kind() == Some(PageKind::Run) {
            if !wanted {
                return Ok(());
            }
            self.run(pack, location, view.run_length()).map_err(|error| match error {
                Ok(error) => error,
                Err((offset, detail)) => ImageError::Corrupt {
                    object: self.objects.address(&pack_name(pack.id)),
                    offset,
                    detail: detail.to_owned(),
                },
            })?
        } else {
            let mut bytes = *page.bytes;
            rewrite(&mut bytes, |reference| {
                let target = Location::from_number(reference.number()).ok_or("a page refers to no pack")?;
                let known = self.pack(target).is_some_and(|pack| target.index() < pack.pages as usize);
                if !known {
                    return Err("a page refers to a pack that no manifest names");
                }
                self.place(arena, target).map_err(|ArenaFull| "the arena has no places left for a pack")
            })
            .map_err(corrupt)?;
            bytes.to_vec()
        };
        let pages = (content.len() / PAGE_BYTES) as u32;
        self.load(arena, id, &content).map_err(|error| ImageError::Place {
            place: "the file for pages that are read".to_owned(),
            cause: error.to_string().into(),
        })?;
        for number in 0..pages {
            let at = Location::new(location.pack(), location.index() + number as usize);
            let state = PageState::imaged(u64::from(at.get()), false);
            arena.set_state(PageId::new(id.get() + number), state).expect("its word is open since it was absent");
        }
        Ok(())
    }

    /// The bytes of a run of pages; the error is one of reading, or what does not hold at an offset.
    #[allow(clippy::type_complexity)] // One use, one line above.
    fn run(
        &self,
        pack: &Pack,
        location: Location,
        length: u32,
    ) -> Result<Vec<u8>, Result<ImageError, (u64, &'static str)>> {
        let (first, count) = (location.index(), run_pages(length as usize) as usize);
        if first + count > pack.pages as usize {
            return Err(Err((byte_range(first, 1).start, "a run is longer than its pack")));
        }
        let bytes = self.read(pack, first, count).map_err(Ok)?;
        let mut content = Vec::with_capacity(count * PAGE_BYTES);
        for index in first..first + count {
            let page = page_of(&bytes, pack.id, first, index).map_err(Err)?;
            if page.continues != (index > first) {
                return Err(Err((byte_range(index, 1).start, "a run is cut short by another page")));
            }
            content.extend_from_slice(page.bytes);
        }
        Ok(content)
    }
}

impl Pager for Arc<ImagePager> {
    fn fault_in(&self, arena: &Arena, id: PageId, birth: Stamp) -> Result<(), Fault> {
        let _loading = self.loading.lock();
        let state = arena.state(id);
        if !state.is_absent() {
            // Another reader brought it meanwhile, or it never was here.
            return Ok(());
        }
        let location = state.location().and_then(|location| u32::try_from(location).ok());
        let location = location.and_then(Location::from_number).ok_or_else(|| Fault::corrupt_page(id, birth))?;
        self.bring(arena, location).map_err(Fault::image)
    }
}
