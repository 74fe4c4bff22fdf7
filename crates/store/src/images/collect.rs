//! Giving the space of images back.
//!
//! *Marking* finds the pages that images reach, by the tables of references of the packs, and which packs have none:
//! the next manifest leaves those out. A pack of which few pages are reached is emptied: the next round writes these
//! pages again, with those that lead to them. Marking reads about a hundredth of the images, so it waits until they
//! have twice the pages that were reached the last time.
//!
//! *Sweeping* deletes manifests that were superseded longer ago than the age boundary, and packs that no manifest left
//! names and that are older than it. Whoever reads images, to copy them or to open the store, has that long.
//!
//! Versions of images that are held in memory may have absent pages. So what the store was opened with, and images that
//! were asked for since, count as reached as long as the store is open.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::catalog::Catalog;
use super::error::ImageError;
use super::manifest::{PackInfo, RootEntry};
use super::pack::{HEADER_RANGE, Location, PACK_PAGES, PACKS_FOLDER, PackError, check_header, pack_id, pack_name};

/// Pages that images may have without being marked: marking a few packs would free next to nothing.
const PAGES_MIN: u64 = 4096;

/// A pack of which less than one page in this many is reached is emptied.
const SPARSE_SHARE: u32 = 4;

/// Whether images with that many pages are worth marking when `reached` were reached the last time.
pub(crate) fn is_due(pages: u64, reached: u64) -> bool {
    pages >= PAGES_MIN + 2 * reached
}

/// What every page of some packs refers to.
pub(crate) struct References(HashMap<u32, HashMap<usize, Vec<Location>>>);

impl References {
    /// Reads the tables of packs.
    ///
    /// # Errors
    /// A pack cannot be read, or its table is damaged.
    pub(crate) fn read(catalog: &Catalog, store_id: [u8; 16], packs: &[PackInfo]) -> Result<References, ImageError> {
        let tables = packs.iter().map(|pack| Ok((pack.number, read_table(catalog, store_id, pack)?)));
        Ok(References(tables.collect::<Result<_, ImageError>>()?))
    }

    fn of(&self, location: Location) -> &[Location] {
        self.0.get(&location.pack()).and_then(|table| table.get(&location.index())).map_or(&[], Vec::as_slice)
    }
}

/// The pages that some roots reach.
#[derive(Default)]
pub(crate) struct Marked {
    /// One bit per page, by pack.
    reached: HashMap<u32, Vec<u64>>,
    counts: BTreeMap<u32, u32>,
    /// Every page behind those it refers to.
    order: Vec<Location>,
}

impl Marked {
    pub(crate) fn new<'a>(references: &References, roots: impl Iterator<Item = &'a RootEntry>) -> Marked {
        let mut marked = Marked::default();
        // Each page twice: on the way down to what it refers to, and on the way up, when all of that was met.
        let mut stack: Vec<(Location, bool)> = roots.filter_map(|root| Some((root.location?, false))).collect();
        while let Some((location, done)) = stack.pop() {
            if done {
                marked.order.push(location);
            } else if marked.reach(location) {
                stack.push((location, true));
                stack.extend(references.of(location).iter().map(|below| (*below, false)));
            }
        }
        marked
    }

    /// Notes a page; `false` if it was known.
    fn reach(&mut self, location: Location) -> bool {
        let bits = self.reached.entry(location.pack()).or_default();
        let (word, bit) = (location.index() / 64, 1_u64 << (location.index() % 64));
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        let new = bits[word] & bit == 0;
        bits[word] |= bit;
        *self.counts.entry(location.pack()).or_default() += u32::from(new);
        new
    }

    /// Whether a page is reached.
    pub(crate) fn has(&self, location: Location) -> bool {
        let word = self.reached.get(&location.pack()).and_then(|bits| bits.get(location.index() / 64));
        word.is_some_and(|word| word >> (location.index() % 64) & 1 == 1)
    }

    /// Whether any page of a pack is reached.
    pub(crate) fn has_pack(&self, pack: u32) -> bool {
        self.counts.contains_key(&pack)
    }

    /// How many pages of a pack are reached. That of one large value counts as a whole.
    fn count(&self, pack: &PackInfo) -> u32 {
        let count = self.counts.get(&pack.number).copied().unwrap_or(0);
        if count > 0 && pack.pages as usize > PACK_PAGES { pack.pages } else { count }
    }

    /// How many pages are reached.
    pub(crate) fn pages(&self, packs: &[PackInfo]) -> u64 {
        packs.iter().map(|pack| u64::from(self.count(pack))).sum()
    }

    /// The pages in packs of which few are reached, and those that lead to them.
    pub(crate) fn stale(&self, references: &References, packs: &[PackInfo]) -> HashSet<Location> {
        let is_sparse = |pack: &&PackInfo| self.count(pack) < pack.pages / SPARSE_SHARE;
        let sparse: HashSet<u32> = packs.iter().filter(is_sparse).map(|pack| pack.number).collect();
        let mut stale = HashSet::new();
        for location in &self.order {
            if sparse.contains(&location.pack()) || references.of(*location).iter().any(|below| stale.contains(below)) {
                stale.insert(*location);
            }
        }
        stale
    }
}

fn read_table(
    catalog: &Catalog,
    store_id: [u8; 16],
    pack: &PackInfo,
) -> Result<HashMap<usize, Vec<Location>>, ImageError> {
    let name = pack_name(pack.id);
    let read = |range| catalog.objects().read(&name, Some(range)).map_err(|source| catalog.failed(&name, source));
    let damaged = |error: PackError| error.of(catalog.objects().address(&name));
    let header = check_header(&read(HEADER_RANGE)?, pack.id, store_id).map_err(damaged)?;
    let range = header.table_range();
    // Not every place reads a part without bytes.
    let bytes = if range.is_empty() { Bytes::new() } else { read(range)? };
    header.table(&bytes).map_err(damaged)
}

/// Deletes what nobody needs and is older than `boundary_micros`.
///
/// # Errors
/// The place cannot be reached, or a manifest is damaged.
pub(crate) fn sweep(catalog: &Catalog, boundary_micros: i64) -> Result<(), ImageError> {
    let manifests = catalog.list()?;
    let mut needed = HashSet::new();
    for (at, (number, object)) in manifests.iter().enumerate() {
        let superseded = manifests.get(at + 1).is_some_and(|(_, next)| next.modified_micros < boundary_micros);
        if superseded {
            delete(catalog, &object.name)?;
        } else {
            needed.extend(catalog.read(*number)?.packs.iter().map(|pack| pack.id));
        }
    }
    let packs = catalog.objects().list(PACKS_FOLDER).map_err(|source| catalog.failed(PACKS_FOLDER, source))?;
    for pack in packs {
        let is_needed = pack_id(&pack.name).is_none_or(|id| needed.contains(&id));
        if !is_needed && pack.modified_micros < boundary_micros {
            delete(catalog, &pack.name)?;
        }
    }
    Ok(())
}

fn delete(catalog: &Catalog, name: &str) -> Result<(), ImageError> {
    catalog.objects().delete(name).map_err(|source| catalog.failed(name, source))
}
