//! Images in a directory of the simulated machine.

use std::cell::Cell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tine_base::{Env, EnvFile, OpenMode};
use tine_store::{ObjectError, ObjectInfo, Objects};

use super::machine::Machine;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the thread is accessing objects.
pub fn is_inside() -> bool {
    INSIDE.get()
}

/// Written aside, synced, and given their name durably, as the object store of a local directory does.
#[derive(Clone)]
pub struct SimObjects {
    machine: Machine,
    directory: PathBuf,
}

impl SimObjects {
    pub fn new(machine: &Machine, directory: &Path) -> SimObjects {
        SimObjects { machine: machine.clone(), directory: directory.to_path_buf() }
    }

    fn access<T>(&self, act: impl FnOnce() -> std::io::Result<T>) -> Result<T, ObjectError> {
        INSIDE.set(true);
        let result = act();
        INSIDE.set(false);
        result.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => ObjectError::Exists,
            std::io::ErrorKind::NotFound => ObjectError::Missing,
            _ => ObjectError::Other(Arc::from(error.to_string())),
        })
    }
}

impl std::fmt::Debug for SimObjects {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SimObjects({})", self.directory.display())
    }
}

impl Objects for SimObjects {
    fn create(&self, name: &str, content: Bytes) -> Result<(), ObjectError> {
        let path = self.directory.join(name);
        let staged = self.directory.join("staged").join(name.replace('/', "-"));
        self.access(|| {
            if self.machine.exists(&path) {
                return Err(std::io::ErrorKind::AlreadyExists.into());
            }
            let file = self.machine.open(&staged, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_all_at(&content, 0)?;
            file.sync_data()?;
            self.machine.rename(&staged, &path)?;
            self.machine.sync_dir(path.parent().expect("it is in a folder"))
        })
    }

    fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError> {
        self.access(|| {
            let mut content = self.machine.read(&self.directory.join(name))?;
            if let Some(range) = range {
                let end = usize::try_from(range.end).expect("small").min(content.len());
                content.truncate(end);
                content.drain(..usize::try_from(range.start).expect("small").min(end));
            }
            Ok(Bytes::from(content))
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        self.access(|| {
            let paths = self.machine.read_dir(&self.directory.join(folder))?;
            let info = |path: &PathBuf| {
                let file: Box<dyn EnvFile> = self.machine.open(path, OpenMode::Read)?;
                let name = path.strip_prefix(&self.directory).expect("inside").to_string_lossy().into_owned();
                Ok(ObjectInfo { name, bytes: file.len()?, modified_micros: self.machine.modified_micros(path) })
            };
            paths.iter().map(info).collect()
        })
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        match self.access(|| self.machine.remove_file(&self.directory.join(name))) {
            Err(ObjectError::Missing) => Ok(()),
            result => result,
        }
    }

    fn address(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}
