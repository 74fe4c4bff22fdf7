//! Images: durable copies of versions, made of shared pages.

mod catalog;
mod collect;
mod error;
mod manifest;
mod objects;
mod pack;
mod pager;
mod remote;
mod round;
mod verify;
mod writer;

pub use error::ImageError;
pub use objects::{ObjectError, ObjectInfo, Objects};
pub use remote::RemoteObjects;
pub use round::ImageReport;
pub use verify::{
    ImageCheck, ImageObjects, check_images, check_images_with_progress, copy_images, delete_images, image_objects,
};

pub(crate) use catalog::Catalog;
pub(crate) use manifest::{ForkEntry, ImageEntry, Manifest};
pub(crate) use pager::ImagePager;
pub(crate) use round::{Cut, Images};
