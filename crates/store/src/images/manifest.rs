//! Manifests: which versions are imaged, and where.
//!
//! A manifest is complete in itself. Manifests are numbered from 1 on, and each is created under its number only if
//! nobody has: of two writers one commits, and the other knows that it lost the place. Reading starts from the
//! greatest number.
//!
//! All fixed numbers are little-endian, the others LEB128; byte strings are preceded by their length:
//!
//! | part | fields |
//! |---|---|
//! | head, 24 bytes | magic (8), format version (4), crc32c of the rest (4), bytes of the rest (8) |
//! | identity | number, writer epoch, writer (8 bytes, random), store id (16 bytes), created at (8 bytes) |
//! | state | sequence, stamp, next fork, next keyspace |
//! | packs | count, then of each: number, id (8 bytes), pages |
//! | roots | count, then of each: count of keyspaces, then of each: keyspace, location, birth, records |
//! | forks | count, then of each: fork, name, created at (8 bytes), parent or not, expiry or not |
//! | gone | count, then of each: a fork that is no more and that others were made from, parent or not |
//! | images | count, then of each: fork, lsn, commit time (8 bytes), sequence, stamp, root |
//! | named | count, then of each: name, and the fields of an image; missing in format 1 |
//!
//! *Sequence* of the manifest: forks, their names and the numbers given out are as of this log record. Sequence of an
//! image: all commits of its fork up to this log record are in it.
//!
//! Roots are listed once however many versions share them, which idle forks do. *Images* are of the forks that are alive,
//! and the log leads on from each; *named* versions may be older than the log, and of forks that are no more.

use bytes::Bytes;

use super::error::ImageError;
use super::pack::Location;
use crate::ids::{ForkId, KeyspaceId, Lsn, Version};
use crate::log::{BadRecord, Input, put_bytes, put_number};
use crate::page::Stamp;

pub(crate) const FORMAT_VERSION: u32 = 2;
/// The format without named versions, which is read as one that has none.
const FORMAT_WITHOUT_NAMES: u32 = 1;
pub(crate) const MANIFESTS_FOLDER: &str = "manifests";

const MAGIC: [u8; 8] = *b"TINEIMGS";
const HEAD_BYTES: usize = 24;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) number: u64,
    /// Rises with every writer that takes the place over.
    pub(crate) epoch: u64,
    /// Random, so that no two writers ever commit the same bytes.
    pub(crate) writer: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) created_at_micros: i64,
    pub(crate) sequence: u64,
    /// No page of any image was born later.
    pub(crate) stamp: Stamp,
    pub(crate) next_fork: ForkId,
    pub(crate) next_keyspace: u64,
    pub(crate) packs: Vec<PackInfo>,
    pub(crate) roots: Vec<Vec<RootEntry>>,
    pub(crate) forks: Vec<ForkEntry>,
    /// Forks that are no more, with what they were made from, as far as others descend from them.
    pub(crate) gone: Vec<(ForkId, Option<Version>)>,
    /// By fork and LSN.
    pub(crate) images: Vec<ImageEntry>,
    /// By name.
    pub(crate) named: Vec<(String, ImageEntry)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackInfo {
    /// What locations call it.
    pub(crate) number: u32,
    /// What its object is called.
    pub(crate) id: u64,
    pub(crate) pages: u32,
}

/// The tree of one keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RootEntry {
    pub(crate) keyspace: KeyspaceId,
    /// `None` if it is empty.
    pub(crate) location: Option<Location>,
    pub(crate) birth: Stamp,
    pub(crate) records: u64,
}

/// A durable fork that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForkEntry {
    pub(crate) fork: ForkId,
    pub(crate) name: String,
    pub(crate) created_at_micros: i64,
    pub(crate) parent: Option<Version>,
    pub(crate) expires_at_micros: Option<i64>,
}

/// An imaged version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImageEntry {
    pub(crate) version: Version,
    pub(crate) timestamp_micros: i64,
    pub(crate) sequence: u64,
    pub(crate) stamp: Stamp,
    /// Index into the roots.
    pub(crate) root: usize,
}

/// Why bytes are no manifest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ManifestError {
    Corrupt(u64, &'static str),
    Format(u32),
}

impl ManifestError {
    pub(crate) fn of(self, object: String) -> ImageError {
        match self {
            ManifestError::Corrupt(offset, detail) => ImageError::Corrupt { object, offset, detail: detail.to_owned() },
            ManifestError::Format(found) => ImageError::UnsupportedFormat { object, found, expected: FORMAT_VERSION },
        }
    }
}

/// The object's name of a manifest. Names sort as numbers do.
pub(crate) fn manifest_name(number: u64) -> String {
    format!("{MANIFESTS_FOLDER}/{number:020}.manifest")
}

/// The number in a manifest's name.
pub(crate) fn manifest_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(MANIFESTS_FOLDER)?.strip_prefix('/')?.strip_suffix(".manifest")?;
    digits.parse().ok().filter(|number| manifest_name(*number) == name)
}

impl Manifest {
    /// The newest image of a fork.
    pub(crate) fn newest(&self, fork: ForkId) -> Option<&ImageEntry> {
        let end = self.images.partition_point(|image| image.version.fork <= fork);
        self.images[..end].last().filter(|image| image.version.fork == fork)
    }

    /// The first log record that is needed with these images.
    pub(crate) fn first_record(&self) -> u64 {
        let images = self.forks.iter().filter_map(|fork| self.newest(fork.fork));
        images.map(|image| image.sequence).min().unwrap_or(self.sequence).min(self.sequence) + 1
    }

    /// The last log record that anything here contains.
    pub(crate) fn last_record(&self) -> u64 {
        self.images.iter().map(|image| image.sequence).max().unwrap_or(0).max(self.sequence)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![0; HEAD_BYTES];
        put_number(&mut out, self.number);
        put_number(&mut out, self.epoch);
        out.extend_from_slice(&self.writer.to_le_bytes());
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.created_at_micros.to_le_bytes());
        for number in [self.sequence, self.stamp.get(), self.next_fork.get(), self.next_keyspace] {
            put_number(&mut out, number);
        }
        put_number(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            put_number(&mut out, u64::from(pack.number));
            out.extend_from_slice(&pack.id.to_le_bytes());
            put_number(&mut out, u64::from(pack.pages));
        }
        put_number(&mut out, self.roots.len() as u64);
        for root in &self.roots {
            put_number(&mut out, root.len() as u64);
            for entry in root {
                put_number(&mut out, u64::from(entry.keyspace.get()));
                put_number(&mut out, entry.location.map_or(0, |location| u64::from(location.get())));
                put_number(&mut out, entry.birth.get());
                put_number(&mut out, entry.records);
            }
        }
        put_number(&mut out, self.forks.len() as u64);
        self.forks.iter().for_each(|fork| fork.encode(&mut out));
        put_number(&mut out, self.gone.len() as u64);
        for (fork, parent) in &self.gone {
            put_number(&mut out, fork.get());
            put_parent(&mut out, *parent);
        }
        put_number(&mut out, self.images.len() as u64);
        self.images.iter().for_each(|image| image.encode(&mut out));
        put_number(&mut out, self.named.len() as u64);
        for (name, image) in &self.named {
            put_bytes(&mut out, name.as_bytes());
            image.encode(&mut out);
        }
        let rest = out.len() - HEAD_BYTES;
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&(rest as u64).to_le_bytes());
        let crc = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        Bytes::from(out)
    }

    /// # Errors
    /// The byte offset and what does not hold there, or another format.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let head = bytes.get(..HEAD_BYTES).ok_or(ManifestError::Corrupt(0, "the manifest has no head"))?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if head[0..8] != MAGIC {
            return Err(ManifestError::Corrupt(0, "the head is damaged"));
        }
        let format = number(8);
        if format != FORMAT_VERSION && format != FORMAT_WITHOUT_NAMES {
            return Err(ManifestError::Format(format));
        }
        let rest = &bytes[HEAD_BYTES..];
        if head[16..24] != (rest.len() as u64).to_le_bytes() {
            return Err(ManifestError::Corrupt(16, "the manifest is not as long as it says"));
        }
        if number(12) != crc32c::crc32c(&bytes[16..]) {
            return Err(ManifestError::Corrupt(12, "the manifest does not have its checksum"));
        }
        let mut input = Input(rest);
        let manifest = Manifest::decode_fields(&mut input, format);
        let offset = (bytes.len() - input.0.len()) as u64;
        match manifest {
            Ok(manifest) if input.0.is_empty() => manifest.check().map_err(|detail| ManifestError::Corrupt(0, detail)),
            Ok(_) => Err(ManifestError::Corrupt(offset, "the manifest goes on behind its end")),
            Err(BadRecord) => Err(ManifestError::Corrupt(offset, "a field cannot be decoded")),
        }
    }

    fn decode_fields(input: &mut Input<'_>, format: u32) -> Result<Manifest, BadRecord> {
        Ok(Manifest {
            number: input.number()?,
            epoch: input.number()?,
            writer: u64::from_le_bytes(input.array()?),
            store_id: input.array()?,
            created_at_micros: input.timestamp()?,
            sequence: input.number()?,
            stamp: Stamp::new(input.number()?),
            next_fork: input.fork()?,
            next_keyspace: input.number()?,
            packs: list(input, |input| {
                let number = input.number32()?;
                Ok(PackInfo { number, id: u64::from_le_bytes(input.array()?), pages: input.number32()? })
            })?,
            roots: list(input, |input| list(input, RootEntry::decode))?,
            forks: list(input, ForkEntry::decode)?,
            gone: list(input, |input| Ok((input.fork()?, input.option(Input::version)?)))?,
            images: list(input, ImageEntry::decode)?,
            named: match format {
                FORMAT_WITHOUT_NAMES => Vec::new(),
                _ => list(input, |input| Ok((input.text()?.to_owned(), ImageEntry::decode(input)?)))?,
            },
        })
    }

    /// What the fields must have in common.
    fn check(self) -> Result<Manifest, &'static str> {
        if self.packs.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err("the packs are not in order");
        }
        let has = |location: Location| {
            let found = self.packs.binary_search_by_key(&location.pack(), |pack| pack.number);
            found.is_ok_and(|at| location.index() < self.packs[at].pages as usize)
        };
        if self.roots.iter().flatten().any(|entry| entry.location.is_some_and(|location| !has(location))) {
            return Err("a root lies in no pack");
        }
        if self.roots.iter().any(|root| root.windows(2).any(|pair| pair[0].keyspace >= pair[1].keyspace)) {
            return Err("the keyspaces of a root are not in order");
        }
        let mut all = self.images.iter().chain(self.named.iter().map(|(_, image)| image));
        if all.any(|image| image.root >= self.roots.len() || image.stamp > self.stamp) {
            return Err("an image has no root");
        }
        if self.images.windows(2).any(|pair| pair[0].version >= pair[1].version) {
            return Err("the images are not in order");
        }
        if self.named.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err("the named versions are not in order");
        }
        if self.forks.windows(2).any(|pair| pair[0].fork >= pair[1].fork) {
            return Err("the forks are not in order");
        }
        if self.forks.iter().any(|fork| self.newest(fork.fork).is_none()) {
            return Err("a fork has no image");
        }
        Ok(self)
    }
}

/// A list preceded by its length, which is not trusted: memory grows with what is really there.
fn list<T>(
    input: &mut Input<'_>,
    mut decode: impl FnMut(&mut Input<'_>) -> Result<T, BadRecord>,
) -> Result<Vec<T>, BadRecord> {
    let count = input.number()?;
    if count > input.0.len() as u64 {
        return Err(BadRecord);
    }
    (0..count).map(|_| decode(input)).collect()
}

fn put_parent(out: &mut Vec<u8>, parent: Option<Version>) {
    out.push(u8::from(parent.is_some()));
    if let Some(parent) = parent {
        put_number(out, parent.fork.get());
        put_number(out, parent.lsn.get());
    }
}

impl RootEntry {
    fn decode(input: &mut Input<'_>) -> Result<RootEntry, BadRecord> {
        let keyspace = input.keyspace()?;
        let location = match input.number32()? {
            0 => None,
            number => Some(Location::from_number(number).ok_or(BadRecord)?),
        };
        Ok(RootEntry { keyspace, location, birth: Stamp::new(input.number()?), records: input.number()? })
    }
}

impl ForkEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.fork.get());
        put_bytes(out, self.name.as_bytes());
        out.extend_from_slice(&self.created_at_micros.to_le_bytes());
        put_parent(out, self.parent);
        out.push(u8::from(self.expires_at_micros.is_some()));
        if let Some(expires_at_micros) = self.expires_at_micros {
            out.extend_from_slice(&expires_at_micros.to_le_bytes());
        }
    }

    fn decode(input: &mut Input<'_>) -> Result<ForkEntry, BadRecord> {
        Ok(ForkEntry {
            fork: input.fork()?,
            name: input.text()?.to_owned(),
            created_at_micros: input.timestamp()?,
            parent: input.option(Input::version)?,
            expires_at_micros: input.option(Input::timestamp)?,
        })
    }
}

impl ImageEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.version.fork.get());
        put_number(out, self.version.lsn.get());
        out.extend_from_slice(&self.timestamp_micros.to_le_bytes());
        put_number(out, self.sequence);
        put_number(out, self.stamp.get());
        put_number(out, self.root as u64);
    }

    fn decode(input: &mut Input<'_>) -> Result<ImageEntry, BadRecord> {
        Ok(ImageEntry {
            version: Version { fork: input.fork()?, lsn: Lsn::new(input.number()?) },
            timestamp_micros: input.timestamp()?,
            sequence: input.number()?,
            stamp: Stamp::new(input.number()?),
            root: usize::try_from(input.number()?).map_err(|_| BadRecord)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(seed: u64, count: u32) -> Manifest {
        let fork = |number: u32| ForkId::new(u64::from(number) + 1);
        Manifest {
            number: seed,
            epoch: 3,
            writer: seed,
            store_id: [9; 16],
            created_at_micros: -5,
            sequence: seed ^ 77,
            stamp: Stamp::new(u64::from(count) + 500),
            next_fork: ForkId::new(seed),
            next_keyspace: 1 << 32,
            packs: (1..=count + 1)
                .map(|number| PackInfo { number, id: seed ^ u64::from(number), pages: 2048 })
                .collect(),
            roots: (0..=count)
                .map(|number| {
                    let entry = |keyspace: u32| RootEntry {
                        keyspace: KeyspaceId::new(keyspace),
                        location: (keyspace > 0).then(|| Location::new(number + 1, 40)),
                        birth: Stamp::new(u64::from(keyspace)),
                        records: seed,
                    };
                    (0..number % 4).map(entry).collect()
                })
                .collect(),
            forks: (0..count)
                .map(|number| ForkEntry {
                    fork: fork(number),
                    name: format!("fork {number}"),
                    created_at_micros: i64::from(number),
                    parent: (number % 2 == 0).then(|| Version { fork: ForkId::MAIN, lsn: Lsn::new(seed) }),
                    expires_at_micros: (number % 3 == 0).then_some(-1),
                })
                .collect(),
            gone: (0..count).map(|number| (fork(number + 100), None)).collect(),
            images: (0..count)
                .flat_map(|number| (1..3).map(move |lsn| (number, lsn)))
                .map(|(number, lsn)| ImageEntry {
                    version: Version { fork: fork(number), lsn: Lsn::new(lsn) },
                    timestamp_micros: 8,
                    sequence: lsn,
                    stamp: Stamp::new(u64::from(number)),
                    root: number as usize,
                })
                .collect(),
            named: (0..count)
                .map(|number| {
                    let version = Version { fork: fork(number * 7), lsn: Lsn::new(seed) };
                    let (timestamp_micros, sequence, stamp, root) = (9, seed, Stamp::new(1), number as usize);
                    (format!("name {number:02}"), ImageEntry { version, timestamp_micros, sequence, stamp, root })
                })
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn round_trip(seed in any::<u64>(), count in 0_u32..30) {
            let manifest = sample(seed, count);
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }

        #[test]
        fn hostile_fields_are_refused_or_read(body in prop::collection::vec(0_u8..20, 0..200), byte in any::<u8>()) {
            let mut bytes = vec![0; HEAD_BYTES];
            bytes.extend(body);
            bytes.push(byte);
            bytes[0..8].copy_from_slice(&MAGIC);
            bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
            let rest = (bytes.len() - HEAD_BYTES) as u64;
            bytes[16..24].copy_from_slice(&rest.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_cut_is_noticed() {
        let bytes = sample(12345, 3).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn fields_must_fit_together() {
        type Break = fn(&mut Manifest);
        let broken: [(&str, Break); 8] = [
            ("packs", |manifest| manifest.packs.swap(0, 1)),
            ("missing pack", |manifest| manifest.packs.clear()),
            ("page behind a pack", |manifest| manifest.packs.iter_mut().for_each(|pack| pack.pages = 40)),
            ("images", |manifest| manifest.images.swap(0, 1)),
            ("root", |manifest| manifest.images[0].root = 99),
            ("forks", |manifest| manifest.forks.swap(0, 1)),
            ("names", |manifest| manifest.named.swap(0, 1)),
            ("root of a name", |manifest| manifest.named[2].1.root = 99),
        ];
        for (what, break_it) in broken {
            let mut manifest = sample(1, 4);
            break_it(&mut manifest);
            assert!(matches!(Manifest::decode(&manifest.encode()), Err(ManifestError::Corrupt(0, _))), "{what}");
        }
    }

    #[test]
    fn manifests_from_before_there_were_names_are_read() {
        let manifest = Manifest { named: Vec::new(), ..sample(5, 3) };
        let mut bytes = manifest.encode().to_vec();
        assert_eq!(bytes.pop(), Some(0), "no names");
        bytes[8..12].copy_from_slice(&FORMAT_WITHOUT_NAMES.to_le_bytes());
        let rest = (bytes.len() - HEAD_BYTES) as u64;
        bytes[16..24].copy_from_slice(&rest.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        bytes[8] = 3;
        assert_eq!(Manifest::decode(&bytes), Err(ManifestError::Format(3)));
    }

    #[test]
    fn names_sort_as_numbers() {
        assert_eq!(manifest_number(&manifest_name(12)), Some(12));
        assert!(manifest_name(9) < manifest_name(10));
        for name in ["manifests/12.manifest", "packs/00000000000000000012.manifest", "manifests/x.manifest"] {
            assert_eq!(manifest_number(name), None, "{name}");
        }
    }
}
