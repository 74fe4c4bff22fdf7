//! What is published and stored: the source files of a module, the *program bytes*.

use std::collections::BTreeMap;
use std::path::Path;

use thiserror::Error;
use tine_types::bsatn::{BsatnWrite, Reader};

use super::{collect, resolve};

/// First bytes of an encoded bundle; the last is the format's version.
const MAGIC: &[u8; 8] = b"TINESRC\x01";

/// Most files in a bundle: far above any hand-written module, low enough that linking stays in milliseconds.
pub const BUNDLE_FILES_MAX: usize = 1024;

/// Most bytes of source in a bundle: a parser needs a small multiple of it as memory.
pub const BUNDLE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The source files of a module.
///
/// Invariants of a bundle that [`SourceBundle::check`] accepts: `entry` is a key of `files`; paths are relative, with
/// `/` between parts and no `.` or `..`; the bounds [`BUNDLE_FILES_MAX`] and [`BUNDLE_BYTES_MAX`] hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceBundle {
    /// The path of the file whose exports are the module's.
    pub entry: String,
    /// Text by path.
    pub files: BTreeMap<String, String>,
}

impl SourceBundle {
    /// A bundle of one file. `path` decides the language: `.ts`, `.mts`, `.js` or `.mjs`.
    pub fn single(path: impl Into<String>, source: impl Into<String>) -> SourceBundle {
        let entry = path.into();
        SourceBundle { files: BTreeMap::from([(entry.clone(), source.into())]), entry }
    }

    /// Reads the entry file and everything it imports, directly or not, from disk. `entry` may be a directory: then
    /// its `index` file or that of its `src` is taken.
    ///
    /// # Errors
    /// A file that cannot be read or parsed, an import that leads nowhere, or a bound of a bundle.
    pub fn collect(entry: &Path) -> Result<SourceBundle, CollectError> {
        collect::collect(entry)
    }

    /// The program bytes: what is hashed, published and stored.
    pub fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.files.iter().map(|(path, text)| path.len() + text.len() + 8).sum();
        let mut out = Vec::with_capacity(MAGIC.len() + self.entry.len() + bytes + 8);
        out.extend_from_slice(MAGIC);
        out.put_str(&self.entry);
        out.put_u32(self.files.len() as u32);
        for (path, text) in &self.files {
            out.put_str(path);
            out.put_str(text);
        }
        out
    }

    /// Whether bytes start like an encoded bundle.
    pub fn is_encoded(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC[..MAGIC.len() - 1])
    }

    /// Reads program bytes.
    ///
    /// # Errors
    /// Bytes that are not a bundle in canonical form, or one that [`SourceBundle::check`] refuses.
    pub fn decode(bytes: &[u8]) -> Result<SourceBundle, BundleError> {
        let body = bytes.strip_prefix(MAGIC).ok_or(BundleError::NotABundle)?;
        let malformed = |_| BundleError::Malformed;
        let mut reader = Reader::new(body);
        let entry = reader.str().map_err(malformed)?.to_owned();
        // Two empty strings take eight bytes.
        let count = reader.array_len(8).map_err(malformed)?;
        let mut files = BTreeMap::new();
        for _ in 0..count {
            let path = reader.str().map_err(malformed)?.to_owned();
            let text = reader.str().map_err(malformed)?.to_owned();
            if files.last_key_value().is_some_and(|(last, _): (&String, &String)| *last >= path) {
                return Err(BundleError::Malformed);
            }
            files.insert(path, text);
        }
        if reader.remaining() != 0 {
            return Err(BundleError::Malformed);
        }
        let bundle = SourceBundle { entry, files };
        bundle.check()?;
        Ok(bundle)
    }

    /// Checks the invariants of the type.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn check(&self) -> Result<(), BundleError> {
        if self.files.len() > BUNDLE_FILES_MAX {
            return Err(BundleError::TooManyFiles { files: self.files.len() });
        }
        let bytes: usize = self.files.iter().map(|(path, text)| path.len() + text.len()).sum();
        if bytes > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLarge { bytes });
        }
        if let Some(path) = self.files.keys().find(|path| !resolve::is_normal(path)) {
            return Err(BundleError::BadPath { path: path.clone() });
        }
        if !self.files.contains_key(&self.entry) {
            return Err(BundleError::NoEntry { entry: self.entry.clone() });
        }
        Ok(())
    }
}

/// Why bytes or files are not a bundle.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BundleError {
    /// Other bytes, or a format of another version.
    #[error("these bytes are not a source bundle of a version that this build reads")]
    NotABundle,
    /// Cut off, padded, unordered, or not UTF-8.
    #[error("the source bundle is malformed")]
    Malformed,
    /// More than [`BUNDLE_FILES_MAX`].
    #[error("a module has at most {BUNDLE_FILES_MAX} files, this one has {files}")]
    TooManyFiles {
        /// How many there are.
        files: usize,
    },
    /// More than [`BUNDLE_BYTES_MAX`].
    #[error("a module's source is at most {BUNDLE_BYTES_MAX} bytes, this one's is {bytes}")]
    TooLarge {
        /// Bytes of all paths and texts.
        bytes: usize,
    },
    /// A path that is not relative and plain.
    #[error("\"{path}\" is not a relative path with `/` between its parts")]
    BadPath {
        /// The path.
        path: String,
    },
    /// The entry is not among the files.
    #[error("the entry file \"{entry}\" is not in the bundle")]
    NoEntry {
        /// The entry.
        entry: String,
    },
}

impl BundleError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            BundleError::NotABundle => "TN0501",
            BundleError::Malformed => "TN0502",
            BundleError::TooManyFiles { .. } | BundleError::TooLarge { .. } => "TN0503",
            BundleError::BadPath { .. } => "TN0504",
            BundleError::NoEntry { .. } => "TN0505",
        }
    }
}

/// Why the files of a module could not be collected.
#[derive(Debug, Error)]
pub enum CollectError {
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Its path on disk.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The entry is a directory without an `index` file.
    #[error("{path} holds no index.ts or index.js, nor does its src")]
    NoIndex {
        /// The directory.
        path: String,
    },
    /// A file that does not parse, or an import that leads nowhere.
    #[error("{0}")]
    Source(crate::Diagnostic),
    /// A bound of a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl CollectError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            CollectError::Read { .. } => "TN0506",
            CollectError::NoIndex { .. } => "TN0507",
            CollectError::Source(_) => "TN0508",
            CollectError::Bundle(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SourceBundle {
        let files = [("index.ts", "export {}"), ("lib/a.ts", "é"), ("b.js", "")];
        SourceBundle {
            entry: "index.ts".to_owned(),
            files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect(),
        }
    }

    #[test]
    fn bundles_round_trip() {
        let bytes = sample().encode();
        assert!(SourceBundle::is_encoded(&bytes));
        assert_eq!(SourceBundle::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_cut_and_padding_is_refused() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(SourceBundle::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let mut padded = bytes.clone();
        padded.push(0);
        assert_eq!(SourceBundle::decode(&padded), Err(BundleError::Malformed));
        let mut other_version = bytes;
        other_version[7] = 2;
        assert_eq!(SourceBundle::decode(&other_version), Err(BundleError::NotABundle));
    }

    #[test]
    fn a_huge_count_allocates_nothing() {
        let mut bytes = MAGIC.to_vec();
        bytes.put_str("index.ts");
        bytes.put_u32(u32::MAX);
        assert_eq!(SourceBundle::decode(&bytes), Err(BundleError::Malformed));
    }

    #[test]
    fn bad_paths_and_entries_are_refused() {
        let mut bundle = sample();
        bundle.files.insert("../evil.ts".to_owned(), String::new());
        assert!(matches!(SourceBundle::decode(&bundle.encode()), Err(BundleError::BadPath { .. })));
        let mut bundle = sample();
        bundle.entry = "none.ts".to_owned();
        assert!(matches!(bundle.check(), Err(BundleError::NoEntry { .. })));
        let mut bundle = sample();
        bundle.files.insert("big.ts".to_owned(), "x".repeat(BUNDLE_BYTES_MAX));
        assert!(matches!(bundle.check(), Err(BundleError::TooLarge { .. })));
    }
}
