//! Where the images of databases are: beside their logs, or in a bucket, in a folder for each database.
//!
//! A log loses its beginning once images have it, so images must be found again: the data directory remembers the bucket
//! in a file. Credentials are never written; they come with the options of every start.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tine_base::Env;
use tine_store::{ImageError, ImagePlace, Objects, OpenError, RemoteObjects, copy_images, delete_images};
use tine_types::Identity;

use crate::HostError;

/// The file of the data directory that has the bucket's URL.
pub const IMAGES_FILE: &str = "IMAGES";

/// A store's own folder of images.
const LOCAL_FOLDER: &str = "images";

/// A folder in which no place has anything: listing it shows whether the place answers.
const PROBE_FOLDER: &str = "probe";

/// Where images are to be.
#[derive(Clone, Default)]
pub struct ImageOptions {
    /// A bucket and a folder in it, such as `s3://bucket/folder`. Without it images stay where the data directory has them:
    /// in the bucket that it remembers, or beside the logs.
    pub url: Option<String>,
    /// Credentials and endpoints, named as [`RemoteObjects::url`] takes them.
    pub settings: HashMap<String, String>,
}

impl fmt::Debug for ImageOptions {
    /// Without the settings, which are secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ImageOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Where the images of a data directory's databases are.
pub(crate) struct ImageHome(ImageOptions);

impl ImageHome {
    /// Finds out, and remembers what was asked for.
    ///
    /// # Errors
    /// Another bucket than the one remembered was asked for, the bucket does not answer, or the file cannot be used.
    pub(crate) fn open(env: &dyn Env, directory: &Path, options: &ImageOptions) -> Result<ImageHome, HostError> {
        let remembered = remembered_url(env, directory)?;
        let asked = options.url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        if let (Some(remembered), Some(asked)) = (&remembered, &asked)
            && remembered != asked
        {
            return Err(HostError::ImagesElsewhere { remembered: remembered.clone(), asked: asked.clone() });
        }
        let url = asked.or_else(|| remembered.clone());
        let home = ImageHome(ImageOptions { url, settings: options.settings.clone() });
        if let Some(url) = &home.0.url {
            let place = RemoteObjects::url(url, home.0.settings.clone()).map_err(failed)?;
            let answer = place.list(PROBE_FOLDER);
            answer.map_err(|source| failed(ImageError::Object { object: place.address(PROBE_FOLDER), source }))?;
            if remembered.is_none() {
                let path = directory.join(IMAGES_FILE);
                let io = |source| HostError::Io { action: format!("writing {}", path.display()), source };
                env.write_atomic(&path, format!("{url}\n").as_bytes()).map_err(io)?;
            }
        }
        Ok(home)
    }

    /// Where a database's images are.
    pub(crate) fn place(&self, identity: Identity) -> ImagePlace {
        match &self.0.url {
            Some(url) => ImagePlace::Url(format!("{url}/{}", identity.to_hex()), self.0.settings.clone()),
            None => ImagePlace::Directory,
        }
    }

    fn bucket(&self, identity: Identity) -> Result<Option<Arc<dyn Objects>>, ImageError> {
        match self.place(identity) {
            ImagePlace::Url(url, settings) => Ok(Some(Arc::new(RemoteObjects::url(&url, settings)?))),
            _ => Ok(None),
        }
    }

    /// Copies images of a time before there was a bucket into it. They are removed when the bucket has them.
    pub(crate) fn move_in(&self, env: &dyn Env, directory: &Path, identity: Identity) -> Result<(), HostError> {
        let local = directory.join(LOCAL_FOLDER);
        if !env.exists(&local) {
            return Ok(());
        }
        let Some(bucket) = self.bucket(identity).map_err(failed)? else { return Ok(()) };
        let from: Arc<dyn Objects> = Arc::new(RemoteObjects::directory(&local).map_err(failed)?);
        copy_images(&from, &bucket).map_err(failed)?;
        let io = |source| HostError::Io { action: format!("removing {}", local.display()), source };
        env.remove_dir_all(&local).map_err(io)
    }

    /// Deletes the images of a database that is gone. What fails leaves objects that nothing refers to.
    pub(crate) fn remove(&self, identity: Identity) {
        let bucket = self.bucket(identity);
        let removed = bucket.and_then(|bucket| bucket.map_or(Ok(()), |bucket| delete_images(&bucket)));
        if let Err(error) = removed {
            let database = identity.to_hex();
            tracing::warn!(database, code = error.code(), %error, "images of a deleted database are left in the bucket");
        }
    }
}

/// The bucket that a data directory remembers.
///
/// # Errors
/// The file cannot be read.
pub fn remembered_url(env: &dyn Env, directory: &Path) -> Result<Option<String>, HostError> {
    let path = directory.join(IMAGES_FILE);
    let io = |source| HostError::Io { action: format!("reading {}", path.display()), source };
    let content = match env.read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let url = String::from_utf8(content).map_err(|_| HostError::Damaged("place of the images"))?;
    Ok(Some(url.trim().to_owned()))
}

fn failed(error: ImageError) -> HostError {
    HostError::Open(OpenError::Images(error))
}
