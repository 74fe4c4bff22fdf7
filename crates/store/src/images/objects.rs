//! Where images lie: named objects that are written once, read in parts, listed and deleted.
//!
//! Everything that images need of a place is this trait, so that a test can supply one that fails or stops anywhere.
//! Real places are [`super::remote::RemoteObjects`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

/// A place for objects. All calls block, for a bounded time.
pub trait Objects: Send + Sync + fmt::Debug {
    /// Writes an object that must not be there yet. When this returns, it is on stable storage as a whole.
    ///
    /// # Errors
    /// [`ObjectError::Exists`] if it is there: of any number of callers at once one succeeds. After any other error
    /// it may or may not be there, as a whole.
    fn create(&self, name: &str, content: Bytes) -> Result<(), ObjectError>;

    /// The content of an object, or a part of it. A part beyond its end is cut there, or an error.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] if there is no such object.
    fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError>;

    /// The objects whose name starts with a folder's, by name.
    ///
    /// # Errors
    /// The place cannot be reached.
    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, ObjectError>;

    /// Deletes an object. One that is not there is no error.
    ///
    /// # Errors
    /// The place cannot be reached.
    fn delete(&self, name: &str) -> Result<(), ObjectError>;

    /// The place followed by the object's name, for people.
    fn address(&self, name: &str) -> String;
}

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name, with the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in microseconds since the Unix epoch, by the place's clock.
    pub modified_micros: i64,
}

/// Why a place did not do what it was asked to.
#[derive(Clone, Debug, Error)]
pub enum ObjectError {
    /// The object to be created is there.
    #[error("the object exists")]
    Exists,
    /// There is no such object.
    #[error("there is no such object")]
    Missing,
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// Anything else: the disk, the network, permissions.
    #[error("{0}")]
    Other(Arc<str>),
}
