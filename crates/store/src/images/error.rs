//! What can go wrong with images.

use std::sync::Arc;

use thiserror::Error;

use super::objects::ObjectError;
use crate::error::{Fault, StoreError};
use crate::ids::Version;

/// Why an image could not be written or read.
#[derive(Clone, Debug, Error)]
pub enum ImageError {
    /// The place for images cannot be used.
    #[error("the place for images {place} cannot be used: {cause}")]
    Place {
        /// The directory or URL.
        place: String,
        /// Why.
        cause: Arc<str>,
    },
    /// An object cannot be read, written or deleted.
    #[error("cannot use {object}")]
    Object {
        /// The place and name of the object.
        object: String,
        /// Why.
        #[source]
        source: ObjectError,
    },
    /// A pack or manifest is damaged.
    #[error("the image is corrupt: {object} at byte {offset}: {detail}")]
    Corrupt {
        /// The place and name of the object.
        object: String,
        /// Byte offset of what does not hold.
        offset: u64,
        /// What does not hold there.
        detail: String,
    },
    /// Written by an incompatible release.
    #[error("{object} has image format {found}, this release reads format {expected}")]
    UnsupportedFormat {
        /// The place and name of the object.
        object: String,
        /// Its format version.
        found: u32,
        /// The format version of this release.
        expected: u32,
    },
    /// Another writer has taken over the place since this one opened it: its manifest has the number that this one
    /// wanted to use.
    #[error("another writer has taken over: {object} is not of this one")]
    Fenced {
        /// The place and name of that manifest.
        object: String,
    },
    /// The version is not imaged.
    #[error("there is no image of {0}")]
    NoSuchImage(Version),
    /// The arena has no places left for the pages of an image.
    #[error("there is no room for the pages of the image")]
    NoRoom,
    /// A page that was to be imaged cannot be read.
    #[error("a page cannot be imaged")]
    Page(#[from] Fault),
    /// The store cannot write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ImageError::Place { .. } => "TN0260",
            ImageError::Object { .. } => "TN0261",
            ImageError::Corrupt { .. } => "TN0262",
            ImageError::UnsupportedFormat { .. } => "TN0263",
            ImageError::Fenced { .. } => "TN0264",
            ImageError::NoSuchImage(_) => "TN0265",
            ImageError::NoRoom => "TN0238",
            ImageError::Page(fault) => fault.code(),
            ImageError::Store(error) => error.code(),
        }
    }
}
