//! Objects through the `object_store` crate: a local directory, or a bucket by URL.
//!
//! That crate is asynchronous and this one is not. All its work runs on one small runtime of the process, made with the
//! first place that is opened; a caller hands it a task and sleeps until the task or the deadline is over. So callers
//! may be any threads, also those of another runtime, and nothing of this crate but this file knows of futures.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::runtime::{Builder, Runtime};

use super::error::ImageError;
use super::objects::{ObjectError, ObjectInfo, Objects};

/// How long one operation may take, retries of the backend included. A pack is 8 MiB, so that is a slow line; the
/// state is in the log meanwhile.
const OPERATION_MAX: Duration = Duration::from_secs(60);

/// Threads for file system calls: images are one writer and some readers.
const BLOCKING_THREADS_MAX: usize = 4;

/// A place of the `object_store` crate.
#[derive(Debug)]
pub struct RemoteObjects {
    store: Arc<dyn ObjectStore>,
    /// Goes before all names.
    prefix: Path,
    /// For people.
    address: String,
}

impl RemoteObjects {
    /// A local directory, which is made when something is created in it, synced.
    ///
    /// # Errors
    /// The path cannot be one of a directory.
    pub fn directory(directory: &FilePath) -> Result<RemoteObjects, ImageError> {
        let address = directory.display().to_string();
        let failed = |cause: String| ImageError::Place { place: address.clone(), cause: cause.into() };
        let absolute = std::path::absolute(directory).map_err(|error| failed(error.to_string()))?;
        let prefix = Path::from_absolute_path(&absolute).map_err(|error| failed(error.to_string()))?;
        let store = Arc::new(LocalFileSystem::new().with_fsync(true));
        Ok(RemoteObjects { store, prefix, address })
    }

    /// A bucket, and a folder in it: `s3://bucket/folder`, and with the feature `cloud` what else `object_store`
    /// knows. Credentials and endpoints come from `settings`, named as that crate does (`aws_access_key_id`).
    ///
    /// # Errors
    /// The URL is of no known kind, or a setting is missing.
    pub fn url(url: &str, settings: HashMap<String, String>) -> Result<RemoteObjects, ImageError> {
        #[cfg(feature = "cloud")]
        {
            // Fails when one was installed before, which does as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let failed = |cause: String| ImageError::Place { place: url.to_owned(), cause: cause.into() };
        let parsed = url::Url::parse(url).map_err(|error| failed(error.to_string()))?;
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, settings).map_err(|error| failed(error.to_string()))?;
        Ok(RemoteObjects { store: Arc::from(store), prefix, address: url.trim_end_matches('/').to_owned() })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Runs a task on the runtime and waits for it.
    fn wait<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, object_store::Error>> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        runtime()?.spawn(async move {
            let result = tokio::time::timeout(OPERATION_MAX, task).await;
            // Nobody listens when the caller gave up.
            let _ = sender.send(result);
        });
        // The task ends by its own deadline; the caller's is only for a runtime that is stuck.
        match receiver.recv_timeout(OPERATION_MAX + Duration::from_secs(5)) {
            Ok(Ok(result)) => result.map_err(error),
            Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Timeout) => Err(ObjectError::Timeout),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ObjectError::Other("the operation panicked".into())),
        }
    }
}

impl Objects for RemoteObjects {
    fn create(&self, name: &str, content: Bytes) -> Result<(), ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.wait(async move { store.put_opts(&path, PutPayload::from(content), options).await }).map(|_| ())
    }

    fn read(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        self.wait(async move { store.get_opts(&path, options).await?.bytes().await })
    }

    fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.path(folder));
        let found: Vec<_> = self.wait(async move { store.list(Some(&path)).try_collect().await })?;
        let prefix = self.prefix.as_ref();
        let mut objects: Vec<ObjectInfo> = found
            .into_iter()
            .map(|object| {
                let name = object.location.as_ref();
                let name = name.strip_prefix(prefix).unwrap_or(name).trim_start_matches('/').to_owned();
                ObjectInfo { name, bytes: object.size, modified_micros: object.last_modified.timestamp_micros() }
            })
            .collect();
        objects.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(objects)
    }

    fn delete(&self, name: &str) -> Result<(), ObjectError> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        match self.wait(async move { store.delete(&path).await }) {
            Err(ObjectError::Missing) => Ok(()),
            result => result,
        }
    }

    fn address(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

fn error(error: object_store::Error) -> ObjectError {
    match error {
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => ObjectError::Exists,
        object_store::Error::NotFound { .. } => ObjectError::Missing,
        error => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            ObjectError::Other(text.into())
        }
    }
}

/// The runtime of all places of the process.
fn runtime() -> Result<&'static Runtime, ObjectError> {
    static RUNTIME: OnceLock<Result<Runtime, Arc<str>>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(BLOCKING_THREADS_MAX).thread_name("tine-objects").enable_all();
        builder.build().map_err(|error| error.to_string().into())
    });
    made.as_ref().map_err(|cause| ObjectError::Other(Arc::clone(cause)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_a_directory() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let objects = RemoteObjects::directory(&directory.path().join("images")).expect("place");
        assert!(objects.list("packs").expect("empty").is_empty());
        objects.create("packs/b", Bytes::from_static(b"0123456789")).expect("new");
        objects.create("packs/a", Bytes::from_static(b"x")).expect("new");
        objects.create("manifests/1", Bytes::from_static(b"y")).expect("new");
        assert!(matches!(objects.create("packs/b", Bytes::new()), Err(ObjectError::Exists)));
        assert_eq!(&*objects.read("packs/b", None).expect("there"), b"0123456789");
        assert_eq!(&*objects.read("packs/b", Some(3..5)).expect("there"), b"34");
        assert!(matches!(objects.read("packs/c", None), Err(ObjectError::Missing)));
        let listed = objects.list("packs").expect("list");
        let names: Vec<(&str, u64)> = listed.iter().map(|object| (object.name.as_str(), object.bytes)).collect();
        assert_eq!(names, [("packs/a", 1), ("packs/b", 10)]);
        objects.delete("packs/a").expect("there");
        objects.delete("packs/a").expect("not there");
        assert_eq!(objects.list("packs").expect("list").len(), 1);
    }

    #[test]
    fn one_of_many_creators_wins() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let objects = RemoteObjects::directory(directory.path()).expect("place");
        let won = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16_u8)
                .map(|number| {
                    let objects = &objects;
                    scope.spawn(move || objects.create("manifests/1", Bytes::from(vec![number; 1000])).is_ok())
                })
                .collect();
            tries.into_iter().map(|one| one.join().expect("no panic")).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
        let content = objects.read("manifests/1", None).expect("there");
        assert!(content.len() == 1000 && content.iter().all(|byte| *byte == content[0]), "one creator's, as a whole");
    }
}
