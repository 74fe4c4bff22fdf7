//! The manifests of a place: reading the newest, and committing the next one.
//!
//! A writer takes the place over by committing a manifest of its own epoch; from then on it must find every number it
//! wants to use free. When it does not, another writer has taken over, and this one has nothing to say any more.

use std::sync::Arc;

use bytes::Bytes;

use super::error::ImageError;
use super::manifest::{MANIFESTS_FOLDER, Manifest, manifest_name, manifest_number};
use super::objects::{ObjectError, ObjectInfo, Objects};

/// How often a take-over is tried again because others commit at the same time. Each of them takes over as well, so
/// more than a few mean that something else is wrong.
const TAKE_OVERS_MAX: usize = 16;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    objects: Arc<dyn Objects>,
}

impl Catalog {
    pub(crate) fn new(objects: Arc<dyn Objects>) -> Catalog {
        Catalog { objects }
    }

    pub(crate) fn shared_objects(&self) -> Arc<dyn Objects> {
        Arc::clone(&self.objects)
    }

    pub(crate) fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// The manifests there are, the newest last.
    pub(crate) fn list(&self) -> Result<Vec<(u64, ObjectInfo)>, ImageError> {
        let listed = self.objects.list(MANIFESTS_FOLDER).map_err(|source| self.failed(MANIFESTS_FOLDER, source))?;
        let mut manifests: Vec<(u64, ObjectInfo)> =
            listed.into_iter().filter_map(|object| Some((manifest_number(&object.name)?, object))).collect();
        manifests.sort_by_key(|(number, _)| *number);
        Ok(manifests)
    }

    /// The newest manifest; `None` in a place that was never used.
    pub(crate) fn newest(&self) -> Result<Option<Manifest>, ImageError> {
        match self.list()?.last() {
            Some((number, _)) => self.read(*number).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn read(&self, number: u64) -> Result<Manifest, ImageError> {
        let name = manifest_name(number);
        let bytes = self.objects.read(&name, None).map_err(|source| self.failed(&name, source))?;
        let manifest = Manifest::decode(&bytes).map_err(|error| error.of(self.objects.address(&name)))?;
        if manifest.number != number {
            let detail = "the manifest has another number than its name".to_owned();
            return Err(ImageError::Corrupt { object: self.objects.address(&name), offset: 0, detail });
        }
        Ok(manifest)
    }

    /// Makes this writer the one of the place: commits what the newest manifest says, or `first` in a new place, under
    /// a new epoch and as the writer of `first`. Returns the manifest that is the newest now. A writer that did so and
    /// did not hear of it is the one already.
    pub(crate) fn take_over(&self, first: &Manifest) -> Result<Manifest, ImageError> {
        let mut name = String::new();
        for _ in 0..TAKE_OVERS_MAX {
            let newest = self.newest()?;
            let mut manifest = newest.unwrap_or_else(|| Manifest { number: 0, epoch: 0, ..first.clone() });
            if manifest.store_id != first.store_id {
                let object = self.objects.address(&manifest_name(manifest.number));
                let detail = "the images are another store's".to_owned();
                return Err(ImageError::Corrupt { object, offset: 0, detail });
            }
            if manifest.number > 0 && manifest.writer == first.writer {
                return Ok(manifest);
            }
            manifest.number += 1;
            manifest.epoch += 1;
            manifest.writer = first.writer;
            manifest.created_at_micros = first.created_at_micros;
            name = manifest_name(manifest.number);
            if self.create(&name, manifest.encode())? {
                return Ok(manifest);
            }
        }
        Err(ImageError::Fenced { object: self.objects.address(&name) })
    }

    /// Commits a manifest, under the next number if this writer has committed one under its own and did not hear of it.
    ///
    /// # Errors
    /// [`ImageError::Fenced`] if its number is another writer's, or was: whoever took over may have deleted it since, but
    /// then there is a greater one. A manifest below the greatest means nothing to anybody.
    pub(crate) fn commit(&self, manifest: &mut Manifest) -> Result<(), ImageError> {
        let fenced = |name: &str| ImageError::Fenced { object: self.objects.address(name) };
        loop {
            let name = manifest_name(manifest.number);
            if self.create(&name, manifest.encode())? {
                break;
            }
            let found = self.read(manifest.number)?;
            if (found.epoch, found.writer) != (manifest.epoch, manifest.writer) {
                return Err(fenced(&name));
            }
            manifest.number += 1;
        }
        match self.list()?.last() {
            Some((number, object)) if *number > manifest.number => Err(fenced(&object.name)),
            _ => Ok(()),
        }
    }

    /// Creates an object; `false` if another is there. An answer that got lost is found by reading.
    pub(crate) fn create(&self, name: &str, content: Bytes) -> Result<bool, ImageError> {
        let failure = match self.objects.create(name, content.clone()) {
            Ok(()) => return Ok(true),
            Err(failure) => failure,
        };
        // A retry of the backend may have met what its first try had created.
        match self.objects.read(name, None) {
            Ok(found) if found == content => Ok(true),
            Ok(_) => Ok(false),
            Err(_) if matches!(failure, ObjectError::Exists) => Ok(false),
            Err(_) => Err(self.failed(name, failure)),
        }
    }

    pub(crate) fn failed(&self, name: &str, source: ObjectError) -> ImageError {
        ImageError::Object { object: self.objects.address(name), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::remote::RemoteObjects;

    fn catalog(directory: &tempfile::TempDir) -> Catalog {
        Catalog::new(Arc::new(RemoteObjects::directory(directory.path()).expect("place")))
    }

    #[test]
    fn a_writer_that_was_replaced_cannot_commit() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = Manifest { store_id: [1; 16], sequence: 5, writer: 1, ..Manifest::default() };
        let (old, new) = (catalog(&directory), catalog(&directory));
        assert_eq!(old.newest().expect("empty"), None);
        let mut of_old = old.take_over(&first).expect("the first writer");
        assert_eq!((of_old.number, of_old.epoch, of_old.sequence), (1, 1, 5));
        of_old.number += 1;
        of_old.sequence = 6;
        old.commit(&mut of_old).expect("nobody else");
        let of_new = new.take_over(&Manifest { writer: 2, ..first.clone() }).expect("takes over");
        assert_eq!((of_new.number, of_new.epoch, of_new.sequence), (3, 2, 6));
        of_old.number += 1;
        assert_eq!(old.commit(&mut of_old).expect_err("replaced").code(), "TN0264");
        std::fs::remove_file(directory.path().join(manifest_name(2))).expect("superseded long ago");
        of_old.number = 2;
        assert_eq!(old.commit(&mut of_old).expect_err("replaced").code(), "TN0264");
        assert_eq!(new.newest().expect("readable"), Some(of_new));
        let foreign = Manifest { store_id: [2; 16], writer: 9, ..Manifest::default() };
        assert_eq!(new.take_over(&foreign).expect_err("another store's").code(), "TN0262");
    }

    /// The place failed behind a commit that it had made: the writer goes on behind it, and is still replaced by others.
    #[test]
    fn a_writer_is_not_fenced_by_itself() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (old, new) = (catalog(&directory), catalog(&directory));
        let first = Manifest { writer: 7, ..Manifest::default() };
        let taken = old.take_over(&first).expect("the first writer");
        let mut unheard = Manifest { number: 2, sequence: 5, ..taken.clone() };
        old.commit(&mut unheard).expect("nobody else");
        let mut next = Manifest { number: 2, sequence: 6, ..taken.clone() };
        old.commit(&mut next).expect("the other one is its own");
        assert_eq!((next.number, new.newest().expect("readable").expect("there")), (3, next.clone()));
        new.take_over(&Manifest { writer: 8, ..Manifest::default() }).expect("takes over");
        let mut late = Manifest { number: 2, sequence: 7, ..taken };
        assert_eq!(old.commit(&mut late).expect_err("replaced").code(), "TN0264");
    }

    /// A place of which no answer comes back: neither that of creating nor that of looking whether it was done.
    #[derive(Debug)]
    struct Silent(RemoteObjects);

    impl Objects for Silent {
        fn create(&self, name: &str, content: Bytes) -> Result<(), ObjectError> {
            self.0.create(name, content)?;
            Err(ObjectError::Timeout)
        }

        fn read(&self, _name: &str, _range: Option<std::ops::Range<u64>>) -> Result<Bytes, ObjectError> {
            Err(ObjectError::Timeout)
        }

        fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
            self.0.list(folder)
        }

        fn delete(&self, _name: &str) -> Result<(), ObjectError> {
            Err(ObjectError::Timeout)
        }

        fn address(&self, name: &str) -> String {
            self.0.address(name)
        }
    }

    /// Taking over was done, and both answers that would have said so were lost: the next try finds that it was this
    /// writer, and does not take the place over from itself.
    #[test]
    fn a_writer_does_not_take_over_from_itself() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let silent = Catalog::new(Arc::new(Silent(RemoteObjects::directory(directory.path()).expect("place"))));
        let first = Manifest { writer: 7, ..Manifest::default() };
        assert_eq!(silent.take_over(&first).expect_err("no answer").code(), "TN0261");
        let heard = catalog(&directory);
        let taken = heard.take_over(&first).expect("it is the writer");
        assert_eq!((taken.number, taken.epoch, taken.writer), (1, 1, 7));
        let other = heard.take_over(&Manifest { writer: 8, ..Manifest::default() }).expect("takes over");
        assert_eq!((other.number, other.epoch, other.writer), (2, 2, 8));
        assert_eq!(heard.take_over(&first).expect("takes over again").number, 3);
    }

    #[test]
    fn writers_that_take_over_at_once_have_epochs_of_their_own() {
        let directory = &tempfile::tempdir().expect("temporary directory");
        let mut epochs = std::thread::scope(|scope| {
            let task = |writer| {
                let first = Manifest { writer: writer + 1, ..Manifest::default() };
                catalog(directory).take_over(&first).expect("in the end").epoch
            };
            let tasks: Vec<_> = (0..8_u64).map(|writer| scope.spawn(move || task(writer))).collect();
            tasks.into_iter().map(|task| task.join().expect("no panic")).collect::<Vec<_>>()
        });
        epochs.sort_unstable();
        assert_eq!(epochs, (1..=8).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_manifests_are_named() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let catalog = catalog(&directory);
        catalog.take_over(&Manifest::default()).expect("new");
        let path = directory.path().join(manifest_name(1));
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[30] ^= 1;
        std::fs::write(&path, bytes).expect("write");
        let Err(ImageError::Corrupt { object, offset, .. }) = catalog.newest() else { panic!("damaged") };
        assert_eq!((object, offset), (path.display().to_string(), 12));
        std::fs::copy(&path, directory.path().join(manifest_name(2))).expect("copy");
        assert!(matches!(catalog.newest(), Err(ImageError::Corrupt { .. })));
    }
}
