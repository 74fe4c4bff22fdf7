//! Checking images as a whole.

use std::sync::Arc;

use super::catalog::Catalog;
use super::error::ImageError;
use super::manifest::{MANIFESTS_FOLDER, manifest_name};
use super::objects::Objects;
use super::pack::{PACKS_FOLDER, byte_range, check_pack, check_page, pack_name, page_of, pages_start};

/// What a check of images counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageCheck {
    /// Number of the newest manifest; 0 if there is none.
    pub manifest: u64,
    /// Versions it has.
    pub versions: u64,
    /// Packs it needs.
    pub packs: u64,
    /// Pages in them.
    pub pages: u64,
}

/// Reads the newest manifest and every pack it needs, and checks all of them. Changes nothing; a store may be at work.
///
/// # Errors
/// The first damage found, with its place.
pub fn check_images(objects: Arc<dyn Objects>) -> Result<ImageCheck, ImageError> {
    check_images_with_progress(objects, &mut |_, _| {})
}

/// [`check_images`], telling after each pack how many pages are checked, and of how many.
///
/// # Errors
/// As there.
pub fn check_images_with_progress(
    objects: Arc<dyn Objects>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ImageCheck, ImageError> {
    let catalog = Catalog::new(objects);
    let Some(manifest) = catalog.newest()? else { return Ok(ImageCheck::default()) };
    let mut check =
        ImageCheck { manifest: manifest.number, versions: manifest.images.len() as u64, ..Default::default() };
    let total = manifest.packs.iter().map(|pack| u64::from(pack.pages)).sum();
    for pack in &manifest.packs {
        let name = pack_name(pack.id);
        let address = || catalog.objects().address(&name);
        let bytes = catalog.objects().read(&name, None).map_err(|source| catalog.failed(&name, source))?;
        let pages = check_pack(&bytes, pack.id, manifest.store_id).map_err(|error| error.of(address()))?;
        let corrupt =
            |offset, detail: &str| ImageError::Corrupt { object: address(), offset, detail: detail.to_owned() };
        if pages != pack.pages as usize {
            return Err(corrupt(12, "the pack has not as many pages as its manifest says"));
        }
        for index in 0..pages {
            let page = page_of(pages_start(&bytes), pack.id, 0, index);
            let page = page.map_err(|(offset, detail)| corrupt(offset, detail))?;
            if page.continues {
                continue;
            }
            let offset = byte_range(index, 1).start;
            check_page(page.bytes).map_err(|detail| corrupt(offset, detail))?;
        }
        check.packs += 1;
        check.pages += pages as u64;
        progress(check.pages, total);
    }
    Ok(check)
}

/// What the newest images of a place consist of; see [`image_objects`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageObjects {
    /// Names of the packs, and of the manifest last. Copied in this order they are images of their own.
    pub names: Vec<String>,
    /// The first record of the log that is needed with them.
    pub first_record: u64,
}

/// Copies the newest images of a place to another one that has none. Does nothing if that has them, or newer ones.
///
/// # Errors
/// An object cannot be read or written, or the other place has older images.
pub fn copy_images(from: &Arc<dyn Objects>, to: &Arc<dyn Objects>) -> Result<(), ImageError> {
    let (source, target) = (Catalog::new(Arc::clone(from)), Catalog::new(Arc::clone(to)));
    let Some(images) = image_objects(Arc::clone(from))? else { return Ok(()) };
    if let Some((newest, object)) = target.list()?.last() {
        let is_newer = source.list()?.last().is_none_or(|(number, _)| number <= newest);
        let cause = "it has older images, which are not overwritten".into();
        return if is_newer { Ok(()) } else { Err(ImageError::Place { place: to.address(&object.name), cause }) };
    }
    for name in images.names {
        let content = from.read(&name, None).map_err(|error| source.failed(&name, error))?;
        if !target.create(&name, content)? {
            let cause = "another object has its name".into();
            return Err(ImageError::Place { place: to.address(&name), cause });
        }
    }
    Ok(())
}

/// Deletes all images of a place, those that are read last first.
///
/// # Errors
/// An object cannot be deleted.
pub fn delete_images(place: &Arc<dyn Objects>) -> Result<(), ImageError> {
    let catalog = Catalog::new(Arc::clone(place));
    for folder in [MANIFESTS_FOLDER, PACKS_FOLDER] {
        let listed = place.list(folder).map_err(|error| catalog.failed(folder, error))?;
        for object in listed {
            place.delete(&object.name).map_err(|error| catalog.failed(&object.name, error))?;
        }
    }
    Ok(())
}

/// What must be copied to have the newest images; `None` if there are none. A store may be at work: it lets everything
/// be for an hour after it is superseded.
///
/// # Errors
/// The manifest cannot be read.
pub fn image_objects(objects: Arc<dyn Objects>) -> Result<Option<ImageObjects>, ImageError> {
    let Some(manifest) = Catalog::new(objects).newest()? else { return Ok(None) };
    let packs = manifest.packs.iter().map(|pack| pack_name(pack.id));
    let names = packs.chain([manifest_name(manifest.number)]).collect();
    Ok(Some(ImageObjects { names, first_record: manifest.first_record() }))
}
