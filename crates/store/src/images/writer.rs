//! Writing the pages of versions into packs.
//!
//! A page whose state says where it is imaged is there, with all it refers to: the walk stops at it. So a version costs
//! what changed since any version that was imaged before, of whatever fork. Pages are written children first.
//!
//! Invariant: the states of pages written here are set only when a manifest that reaches them was committed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tine_base::Env;

use super::catalog::Catalog;
use super::error::ImageError;
use super::manifest::{PackInfo, RootEntry};
use super::pack::{Location, PACK_NUMBERS, PackBuilder, Reference, pack_name, rewrite};
use crate::arena::{Arena, PageState};
use crate::error::StoreError;
use crate::ids::KeyspaceId;
use crate::page::{ChildRef, PageId, RunRef};
use crate::tree::TreeRoot;

/// Writes pages; see the module.
pub(crate) struct PageWriter<'a> {
    env: &'a dyn Env,
    arena: &'a Arena,
    catalog: &'a Catalog,
    store_id: [u8; 16],
    /// Packs of the newest manifest: a location in any other means nothing any more.
    packs: HashSet<u32>,
    /// Pages that are written again although they are imaged.
    stale: HashSet<Location>,
    next_number: u32,
    builder: Option<(u32, PackBuilder)>,
    /// Pages written, by their place.
    written: HashMap<PageId, Location>,
    made: Vec<PackInfo>,
    pages: u64,
    stop: Option<Arc<AtomicBool>>,
}

/// What was written.
pub(crate) struct WrittenPages {
    written: HashMap<PageId, Location>,
    pub(crate) packs: Vec<PackInfo>,
    pub(crate) next_number: u32,
    /// Number of pages.
    pub(crate) pages: u64,
}

impl<'a> PageWriter<'a> {
    /// `next_number` is a number no pack of this process's life had.
    pub(crate) fn new(
        env: &'a dyn Env,
        arena: &'a Arena,
        catalog: &'a Catalog,
        store_id: [u8; 16],
        packs: impl Iterator<Item = u32>,
        next_number: u32,
    ) -> PageWriter<'a> {
        PageWriter {
            env,
            arena,
            catalog,
            store_id,
            packs: packs.collect(),
            stale: HashSet::new(),
            next_number,
            builder: None,
            written: HashMap::new(),
            made: Vec::new(),
            pages: 0,
            stop: None,
        }
    }

    /// Writes pages again that are imaged there, to empty their packs.
    pub(crate) fn rewrite(&mut self, stale: HashSet<Location>) {
        self.stale = stale;
    }

    /// Ends with an error when this becomes true.
    pub(crate) fn stop_on(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// Writes the trees of a version, which the caller holds until the states are set.
    pub(crate) fn trees(&mut self, trees: &[(KeyspaceId, TreeRoot)]) -> Result<Vec<RootEntry>, ImageError> {
        let entry = |(keyspace, tree): &(KeyspaceId, TreeRoot)| {
            let location = if tree.is_empty() { None } else { Some(self.page(tree.page)?) };
            Ok(RootEntry { keyspace: *keyspace, location, birth: tree.page.birth, records: tree.length })
        };
        trees.iter().map(entry).collect()
    }

    /// Completes the last pack.
    pub(crate) fn finish(mut self) -> Result<WrittenPages, ImageError> {
        self.seal()?;
        Ok(WrittenPages { written: self.written, packs: self.made, next_number: self.next_number, pages: self.pages })
    }

    fn known(&self, id: PageId) -> Option<Location> {
        if let Some(location) = self.written.get(&id) {
            return Some(*location);
        }
        let location = self.arena.state(id).location().and_then(|location| u32::try_from(location).ok());
        location
            .and_then(Location::from_number)
            .filter(|location| self.packs.contains(&location.pack()) && !self.stale.contains(location))
    }

    /// Depth is that of a tree: single digits.
    fn page(&mut self, child: ChildRef) -> Result<Location, ImageError> {
        if let Some(location) = self.known(child.id) {
            return Ok(location);
        }
        let mut bytes = *self.arena.page(child)?.bytes();
        rewrite(&mut bytes, |reference| {
            let location = match reference {
                Reference::Child(below) => self.page(below)?,
                Reference::Run(run) => self.run(run)?,
            };
            Ok::<_, ImageError>(PageId::new(location.get()))
        })?;
        self.append(child.id, 1, |_, builder| builder.push_page(&bytes))
    }

    fn run(&mut self, run: RunRef) -> Result<Location, ImageError> {
        if let Some(location) = self.known(run.id) {
            return Ok(location);
        }
        self.arena.run(run)?;
        let arena = self.arena;
        self.append(run.id, run.pages(), |number, builder| builder.push_run(number, arena.bytes(run.id, run.pages())))
    }

    fn append(
        &mut self,
        id: PageId,
        pages: u32,
        push: impl FnOnce(u32, &mut PackBuilder) -> usize,
    ) -> Result<Location, ImageError> {
        if self.builder.as_ref().is_some_and(|(_, builder)| !builder.has_room(pages as usize)) {
            self.seal()?;
        }
        let (number, builder) = match &mut self.builder {
            Some(builder) => builder,
            None => {
                let number = self.take_number()?;
                let id = random_id(self.env);
                self.builder.insert((number, PackBuilder::new(id)))
            }
        };
        let location = Location::new(*number, push(*number, builder));
        self.written.insert(id, location);
        self.pages += u64::from(pages);
        Ok(location)
    }

    fn take_number(&mut self) -> Result<u32, ImageError> {
        while self.packs.contains(&self.next_number) {
            self.next_number += 1;
        }
        if self.next_number >= PACK_NUMBERS {
            let cause = "all numbers of packs were used; open the store again".into();
            return Err(ImageError::Place { place: self.catalog.objects().address(""), cause });
        }
        self.next_number += 1;
        Ok(self.next_number - 1)
    }

    fn seal(&mut self) -> Result<(), ImageError> {
        let Some((number, builder)) = self.builder.take() else { return Ok(()) };
        if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(StoreError::Closed.into());
        }
        let (id, pages) = (builder.id(), builder.pages() as u32);
        let content: Bytes = builder.finish(self.store_id);
        self.arena.trim_backed();
        let name = pack_name(id);
        if self.catalog.create(&name, content)? {
            self.made.push(PackInfo { number, id, pages });
            return Ok(());
        }
        // Names are 64 random bits; the next round has others.
        Err(ImageError::Place { place: self.catalog.objects().address(&name), cause: "the name is taken".into() })
    }
}

impl WrittenPages {
    /// Notes where the pages are imaged. The versions they were written for are still held.
    ///
    /// # Errors
    /// There is no memory for the states; then pages are imaged again next time.
    pub(crate) fn set_states(&self, arena: &Arena) -> std::io::Result<()> {
        for (id, location) in &self.written {
            arena.set_state(*id, PageState::imaged(u64::from(location.get()), false))?;
        }
        Ok(())
    }
}

pub(crate) fn random_id(env: &dyn Env) -> u64 {
    let mut bytes = [0; 8];
    env.random_bytes(&mut bytes);
    u64::from_le_bytes(bytes)
}
