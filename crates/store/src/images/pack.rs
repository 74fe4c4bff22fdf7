//! Packs: the objects that hold the pages of images.
//!
//! All numbers are little-endian. A pack starts with a header of 64 bytes:
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic |
//! | 8..12 | format version |
//! | 12..16 | number of pages |
//! | 16..24 | pack id, random, which is also its name |
//! | 24..40 | store id |
//! | 40..44 | bytes of the table of references |
//! | 44..48 | crc32c of the table of references |
//! | 48..60 | zero |
//! | 60..64 | crc32c of the bytes before |
//!
//! The pages follow, each with 8 bytes behind it: a crc32c that starts from the pack's id, the page's index and the
//! next byte, so that a page in another place is noticed; a byte that is 1 for a page that continues a run, else 0; and
//! 3 zeros. A page can be read and checked without the header.
//!
//! Behind the pages, the table of references has what each page refers to, for whoever wants to know what is reachable
//! without reading all pages: index (2 bytes), count (2 bytes) and that many locations (4 bytes each), for every page
//! that refers to any. The first page of a run counts as referring to the others.
//!
//! Pages refer to others by [`Location`] in place of the arena's ids: number of the pack and index in it. A pack never
//! changes, so pages of different packs, and of different forks' images, can refer to the same pages.
//!
//! The pages of a run lie one after the other in one pack. A run that is larger than a pack has one of its own.

use std::collections::HashMap;

use bytes::Bytes;

use super::error::ImageError;
use crate::page::{Body, ChildRef, Edit, PAGE_BYTES, PageBytes, PageId, RunRef, Value, View, check};

pub(crate) const FORMAT_VERSION: u32 = 2;

/// Pages after which a pack is complete: 8 MiB is little to hold in memory and enough to make requests rare.
pub(crate) const PACK_PAGES: usize = 2048;

const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"TINEPACK";
const TRAILER_BYTES: usize = 8;
const STRIDE_BYTES: usize = PAGE_BYTES + TRAILER_BYTES;

const INDEX_BITS: u32 = 12;

/// Numbers of packs are below this, so that a [`Location`] fits where a page id does.
pub(crate) const PACK_NUMBERS: u32 = 1 << (32 - INDEX_BITS);

/// Where a page lies in the images of a store: pack number (20 bits, from 1 on) and index in the pack (12 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Location(u32);

impl Location {
    pub(crate) fn new(pack: u32, index: usize) -> Location {
        assert!(pack > 0 && pack < PACK_NUMBERS && index < 1 << INDEX_BITS, "locations fit into a page id");
        Location(pack << INDEX_BITS | index as u32)
    }

    /// `None` for 0, which is no page.
    pub(crate) fn from_number(number: u32) -> Option<Location> {
        (number >> INDEX_BITS != 0).then_some(Location(number))
    }

    pub(crate) fn get(self) -> u32 {
        self.0
    }

    pub(crate) fn pack(self) -> u32 {
        self.0 >> INDEX_BITS
    }

    pub(crate) fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }
}

/// The object's name of a pack.
pub(crate) fn pack_name(id: u64) -> String {
    format!("{PACKS_FOLDER}/{id:016x}.pack")
}

/// The id in a pack's name.
pub(crate) fn pack_id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PACKS_FOLDER)?.strip_prefix('/')?.strip_suffix(".pack")?;
    u64::from_str_radix(digits, 16).ok().filter(|id| pack_name(*id) == name)
}

pub(crate) const PACKS_FOLDER: &str = "packs";

/// Collects the pages of a pack.
pub(crate) struct PackBuilder {
    id: u64,
    bytes: Vec<u8>,
    references: Vec<u8>,
    pages: usize,
}

impl PackBuilder {
    pub(crate) fn new(id: u64) -> PackBuilder {
        // Room for a full pack at once: growing would touch all its memory twice.
        let mut bytes = Vec::with_capacity(HEADER_BYTES + PACK_PAGES * STRIDE_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        PackBuilder { id, bytes, references: Vec::new(), pages: 0 }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// Whether that many pages go into this pack. A pack without pages takes any number.
    pub(crate) fn has_room(&self, pages: usize) -> bool {
        self.pages == 0 || self.pages + pages <= PACK_PAGES
    }

    /// Appends a page that refers to others, and returns its index.
    pub(crate) fn push_page(&mut self, page: &PageBytes) -> usize {
        let targets: Vec<u32> = references(page).map(|(_, reference)| reference.number()).collect();
        self.refer(&targets);
        self.push(page)
    }

    /// Appends the pages of a run, and returns the index of the first. `number` is the pack's.
    pub(crate) fn push_run(&mut self, number: u32, pages: &[u8]) -> usize {
        let (first, count) = (self.pages, pages.len() / PAGE_BYTES);
        // A run with a pack of its own needs no bookkeeping.
        if count <= PACK_PAGES {
            let others: Vec<u32> = (first + 1..first + count).map(|index| Location::new(number, index).get()).collect();
            self.refer(&others);
        }
        self.push(pages)
    }

    fn refer(&mut self, targets: &[u32]) {
        if !targets.is_empty() {
            self.references.extend_from_slice(&(self.pages as u16).to_le_bytes());
            self.references.extend_from_slice(&(targets.len() as u16).to_le_bytes());
            targets.iter().for_each(|target| self.references.extend_from_slice(&target.to_le_bytes()));
        }
    }

    fn push(&mut self, pages: &[u8]) -> usize {
        assert!(pages.len().is_multiple_of(PAGE_BYTES) && !pages.is_empty(), "whole pages are appended");
        let first = self.pages;
        for (number, page) in pages.chunks_exact(PAGE_BYTES).enumerate() {
            let continues = number > 0;
            let crc = page_crc(self.id, self.pages, continues, page);
            self.bytes.extend_from_slice(page);
            self.bytes.extend_from_slice(&crc.to_le_bytes());
            self.bytes.extend_from_slice(&[u8::from(continues), 0, 0, 0]);
            self.pages += 1;
        }
        first
    }

    /// The pack's content.
    pub(crate) fn finish(mut self, store_id: [u8; 16]) -> Bytes {
        let header = &mut self.bytes[..HEADER_BYTES];
        header[0..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(self.pages as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.id.to_le_bytes());
        header[24..40].copy_from_slice(&store_id);
        header[40..44].copy_from_slice(&(self.references.len() as u32).to_le_bytes());
        header[44..48].copy_from_slice(&crc32c::crc32c(&self.references).to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&self.references);
        Bytes::from(self.bytes)
    }
}

/// The part of a pack that begins with its first page.
pub(crate) fn pages_start(pack: &[u8]) -> &[u8] {
    &pack[HEADER_BYTES..]
}

/// The bytes of a pack's object that hold pages.
pub(crate) fn byte_range(first: usize, pages: usize) -> std::ops::Range<u64> {
    let start = (HEADER_BYTES + first * STRIDE_BYTES) as u64;
    start..start + (pages * STRIDE_BYTES) as u64
}

/// The page with that index, checked, out of bytes that start with the page `first`.
///
/// # Errors
/// The byte offset in the pack and what does not hold there.
pub(crate) fn page_of(
    bytes: &[u8],
    id: u64,
    first: usize,
    index: usize,
) -> Result<PackedPage<'_>, (u64, &'static str)> {
    let offset = byte_range(index, 1).start;
    let start = (index - first) * STRIDE_BYTES;
    let stride = bytes.get(start..start + STRIDE_BYTES).ok_or((offset, "the pack ends before the page"))?;
    let (page, trailer) = stride.split_at(PAGE_BYTES);
    let continues = trailer[4] == 1;
    if trailer[..4] != page_crc(id, index, continues, page).to_le_bytes()
        || trailer[4..] != [u8::from(continues), 0, 0, 0]
    {
        return Err((offset, "the page does not have its checksum"));
    }
    Ok(PackedPage { bytes: page.try_into().expect("a page's length"), continues })
}

/// A page as it lies in a pack, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedPage<'a> {
    pub(crate) bytes: &'a PageBytes,
    /// It is a further part of a run, and means nothing alone.
    pub(crate) continues: bool,
}

/// Checks a whole pack and returns its number of pages. Reading needs no more than [`page_of`]; this is for whoever
/// wants to know that all of it is intact.
///
/// # Errors
/// As `page_of`, or another format, by its version.
pub(crate) fn check_pack(bytes: &[u8], id: u64, store_id: [u8; 16]) -> Result<usize, PackError> {
    let header = check_header(bytes, id, store_id)?;
    let pages = header.pages;
    for index in 0..pages {
        page_of(&bytes[HEADER_BYTES..], id, 0, index).map_err(|(offset, detail)| PackError::Corrupt(offset, detail))?;
    }
    header.table(bytes.get(header.table_range().start as usize..).unwrap_or_default())?;
    Ok(pages)
}

/// What a pack's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackHeader {
    pub(crate) pages: usize,
    table_bytes: u32,
    table_crc: u32,
}

impl PackHeader {
    /// Where the table of references is.
    pub(crate) fn table_range(self) -> std::ops::Range<u64> {
        let start = byte_range(self.pages, 0).start;
        start..start + u64::from(self.table_bytes)
    }

    /// The references by page out of the table's bytes.
    ///
    /// # Errors
    /// The bytes are not the table.
    pub(crate) fn table(self, bytes: &[u8]) -> Result<HashMap<usize, Vec<Location>>, PackError> {
        let corrupt = || PackError::Corrupt(self.table_range().start, "the table of references is damaged");
        if bytes.len() != self.table_bytes as usize || crc32c::crc32c(bytes) != self.table_crc {
            return Err(corrupt());
        }
        let mut table = HashMap::new();
        let mut rest = bytes;
        while let Some((head, behind)) = rest.split_first_chunk::<4>() {
            let index = usize::from(u16::from_le_bytes([head[0], head[1]]));
            let count = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let (targets, behind) = behind.split_at_checked(count * 4).ok_or_else(corrupt)?;
            let targets = targets
                .chunks_exact(4)
                .map(|four| Location::from_number(u32::from_le_bytes([four[0], four[1], four[2], four[3]])));
            let targets: Vec<Location> = targets.collect::<Option<_>>().ok_or_else(corrupt)?;
            if index >= self.pages || table.insert(index, targets).is_some() {
                return Err(corrupt());
            }
            rest = behind;
        }
        if rest.is_empty() { Ok(table) } else { Err(corrupt()) }
    }
}

/// The bytes of a pack's object that hold its header.
pub(crate) const HEADER_RANGE: std::ops::Range<u64> = 0..HEADER_BYTES as u64;

/// The header of the pack whose first bytes these are.
///
/// # Errors
/// They are not, or are of another pack or format.
pub(crate) fn check_header(bytes: &[u8], id: u64, store_id: [u8; 16]) -> Result<PackHeader, PackError> {
    let header = bytes.get(..HEADER_BYTES).ok_or(PackError::Corrupt(0, "the pack has no header"))?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[0..8] != MAGIC || number(60) != crc32c::crc32c(&header[..60]) {
        return Err(PackError::Corrupt(0, "the header is damaged"));
    }
    if number(8) != FORMAT_VERSION {
        return Err(PackError::Format(number(8)));
    }
    if header[16..24] != id.to_le_bytes() || header[24..40] != store_id {
        return Err(PackError::Corrupt(16, "the pack belongs to another place or store"));
    }
    Ok(PackHeader { pages: number(12) as usize, table_bytes: number(40), table_crc: number(44) })
}

/// Why bytes are no pack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PackError {
    Corrupt(u64, &'static str),
    Format(u32),
}

impl PackError {
    pub(crate) fn of(self, object: String) -> ImageError {
        match self {
            PackError::Corrupt(offset, detail) => ImageError::Corrupt { object, offset, detail: detail.to_owned() },
            PackError::Format(found) => ImageError::UnsupportedFormat { object, found, expected: FORMAT_VERSION },
        }
    }
}

fn page_crc(id: u64, index: usize, continues: bool, page: &[u8]) -> u32 {
    let place = crc32c::crc32c(&id.to_le_bytes());
    let seed = crc32c::crc32c_append(place, &[(index as u64).to_le_bytes(), [u8::from(continues); 8]].concat());
    crc32c::crc32c_append(seed, page)
}

/// What a page refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    Child(ChildRef),
    Run(RunRef),
}

impl Reference {
    /// The id or location that it leads to.
    pub(crate) fn number(self) -> u32 {
        match self {
            Reference::Child(child) => child.id.get(),
            Reference::Run(run) => run.id.get(),
        }
    }
}

/// What a page that passed [`check`] refers to, in order.
pub(crate) fn references(page: &PageBytes) -> impl Iterator<Item = (usize, Reference)> + '_ {
    let view = View::new(page);
    let (leaf, count) = (view.is_leaf(), if view.is_leaf() || view.is_branch() { view.count() } else { 0 });
    (0..count).filter_map(move |index| match leaf {
        false => Some((index, Reference::Child(view.child(index)))),
        true => match view.value(index) {
            Value::Run(run) => Some((index, Reference::Run(run))),
            Value::Inline(_) => None,
        },
    })
}

/// Points the references of a page, which passed [`check`], somewhere else, and leaves nothing else in it that means
/// something only where it comes from.
pub(crate) fn rewrite<E>(
    page: &mut PageBytes,
    mut target: impl FnMut(Reference) -> Result<PageId, E>,
) -> Result<(), E> {
    let found: Vec<(usize, Reference)> = references(page).collect();
    let mut edit = Edit::new(page);
    for (index, reference) in found {
        let id = target(reference)?;
        match reference {
            Reference::Child(child) => edit.set_child(index, ChildRef { id, ..child }),
            Reference::Run(run) => {
                assert!(edit.overwrite(index, Body::Run(RunRef { id, ..run })), "references have one length");
            }
        }
    }
    edit.purge();
    Ok(())
}

/// Whether a page of a pack can be read without harm: [`check`], and that it refers to locations.
pub(crate) fn check_page(page: &PageBytes) -> Result<(), &'static str> {
    check(page)?;
    if references(page).all(|(_, reference)| Location::from_number(reference.number()).is_some()) {
        Ok(())
    } else {
        Err("a page refers to no pack")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORE: [u8; 16] = [7; 16];

    fn pack(pages: u8) -> Bytes {
        let mut builder = PackBuilder::new(99);
        for number in 0..pages {
            assert!(builder.has_room(1));
            assert_eq!(builder.push(&[number; PAGE_BYTES]), usize::from(number));
        }
        builder.finish(STORE)
    }

    #[test]
    fn pages_come_back_alone_and_with_the_pack() {
        let bytes = pack(5);
        assert_eq!(bytes.len() as u64, byte_range(5, 0).start);
        assert_eq!(check_pack(&bytes, 99, STORE), Ok(5));
        let range = byte_range(2, 2);
        let part = &bytes[range.start as usize..range.end as usize];
        assert_eq!(page_of(part, 99, 2, 3), Ok(PackedPage { bytes: &[3; PAGE_BYTES], continues: false }));
        assert!(page_of(part, 98, 2, 3).is_err(), "another pack's");
        assert!(page_of(part, 99, 3, 4).is_err(), "another place's");
        assert!(page_of(part, 99, 2, 4).is_err(), "not there");
        assert_eq!(
            check_pack(&bytes, 99, [8; 16]),
            Err(PackError::Corrupt(16, "the pack belongs to another place or store"))
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed_with_its_place() {
        let bytes = pack(2);
        for at in (0..bytes.len()).filter(|at| at % 37 == 0 || at % STRIDE_BYTES > PAGE_BYTES - 8 || *at < 80) {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            let Err(PackError::Corrupt(offset, _)) = check_pack(&flipped, 99, STORE) else { panic!("byte {at}") };
            let page = (at.max(HEADER_BYTES) - HEADER_BYTES) / STRIDE_BYTES;
            assert_eq!(offset, if at < HEADER_BYTES { 0 } else { byte_range(page, 1).start }, "byte {at}");
        }
        for length in (0..bytes.len()).step_by(511) {
            assert!(check_pack(&bytes[..length], 99, STORE).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn names_and_locations() {
        assert_eq!(pack_id(&pack_name(0xabc)), Some(0xabc));
        for name in
            ["packs/abc.pack", "packs/0000000000000abc", "other/0000000000000abc.pack", "packs/0000000000000ABC.pack"]
        {
            assert_eq!(pack_id(name), None, "{name}");
        }
        let location = Location::new(3, 17);
        assert_eq!((location.pack(), location.index()), (3, 17));
        assert_eq!(Location::from_number(location.get()), Some(location));
        assert_eq!(Location::from_number(4095), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(check_pack(&bytes, 1, STORE).is_err());
            prop_assert!(page_of(&bytes, 1, 0, 0).is_err());
            let (table_bytes, table_crc) = (bytes.len() as u32, crc32c::crc32c(&bytes));
            let header = PackHeader { pages: 300, table_bytes, table_crc };
            if let Ok(table) = header.table(&bytes) {
                let count: usize = table.values().map(Vec::len).sum();
                prop_assert_eq!(table.len() * 4 + count * 4, bytes.len());
            }
        }

        #[test]
        fn hostile_pages_are_refused_or_read(
            kind in 1_u8..4, level in 0_u8..3, head in prop::collection::vec(any::<u8>(), 22), at in 24_usize..4000,
            noise in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            let mut page = [0; PAGE_BYTES];
            page[0] = kind;
            page[1] = level;
            page[2..24].copy_from_slice(&head);
            page[3] = 0;
            page[at..at + noise.len()].copy_from_slice(&noise);
            if check_page(&page).is_ok() {
                let count = references(&page).count();
                rewrite::<()>(&mut page, |_| Ok(PageId::new(5000))).expect("no target fails");
                prop_assert_eq!(references(&page).count(), count);
            }
        }
    }
}
