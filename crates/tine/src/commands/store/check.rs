//! `tine store check`

use serde_json::{Value, json};
use tine_store::{ImageCheck, ImageError, ImagePlace, OpenError, StoreView, check_images_with_progress};

use super::{Place, view_with};
use crate::{data_directory::image_place, failure::Failure, output::Output, progress::Progress};

/// What is wrong with a store.
enum Problem {
    Log(OpenError),
    Images(ImageError),
}

impl Problem {
    fn code(&self) -> &'static str {
        match self {
            Problem::Log(error) => error.code(),
            Problem::Images(error) => error.code(),
        }
    }

    fn message(&self) -> String {
        match self {
            Problem::Log(error) => error.to_string(),
            Problem::Images(error) => error.to_string(),
        }
    }

    /// The damaged file and where in it.
    fn place(&self) -> Option<(String, u64)> {
        match self {
            Problem::Log(OpenError::Corrupt { file, offset, .. }) => Some((file.display().to_string(), *offset)),
            Problem::Images(ImageError::Corrupt { object, offset, .. })
            | Problem::Log(OpenError::Images(ImageError::Corrupt { object, offset, .. })) => {
                Some((object.clone(), *offset))
            }
            _ => None,
        }
    }
}

/// Checks all stores, also behind one that is damaged, and prints what was found.
///
/// # Errors
/// [`Failure::Damaged`] when one is.
pub fn run(places: &[Place], output: &Output) -> Result<(), Failure> {
    let images = places.iter().map(|place| image_place(&place.directory)).collect::<Result<Vec<_>, _>>()?;
    let results: Vec<_> = places.iter().zip(images).map(|(place, images)| check(place, images)).collect();
    let damaged = results.iter().filter(|result| result.is_err()).count();
    if output.is_json() {
        output
            .json_list("stores", places.iter().zip(&results).map(|(place, result)| as_json(place, result)).collect())?;
    } else {
        output.lines(places.iter().zip(&results).map(|(place, result)| as_text(place, result)))?;
    }
    if damaged > 0 { Err(Failure::Damaged { damaged, stores: places.len() }) } else { Ok(()) }
}

fn check(place: &Place, images: ImagePlace) -> Result<(StoreView, ImageCheck), Problem> {
    // The images first: what is imaged later is no part of them.
    let objects = images.objects(&place.directory).map_err(Problem::Images)?.expect("a place is never nowhere");
    let mut progress: Option<(Progress, u64)> = None;
    let checked = check_images_with_progress(objects, &mut |done, total| {
        let begin = || (Progress::of_items("checking images", "pages", total), 0);
        let (progress, before) = progress.get_or_insert_with(begin);
        progress.add(done.saturating_sub(*before));
        *before = done;
    });
    let checked = checked.map_err(Problem::Images)?;
    Ok((view_with(&place.directory, images).map_err(Problem::Log)?, checked))
}

fn as_text(place: &Place, result: &Result<(StoreView, ImageCheck), Problem>) -> String {
    match result {
        Ok((view, images)) => format!(
            "ok       {}: records {} to {} in {} segments, {} versions in {} packs of {} pages",
            place.name,
            view.first_record,
            view.last_record,
            view.log.len(),
            images.versions,
            images.packs,
            images.pages
        ),
        Err(problem) => format!("damaged  {}: {} ({})", place.name, problem.message(), problem.code()),
    }
}

fn as_json(place: &Place, result: &Result<(StoreView, ImageCheck), Problem>) -> Value {
    match result {
        Ok((view, images)) => json!({
            "store": place.name,
            "status": "ok",
            "first_record": view.first_record,
            "last_record": view.last_record,
            "segments": view.log.len(),
            "manifest": images.manifest,
            "versions": images.versions,
            "packs": images.packs,
            "pages": images.pages,
        }),
        Err(problem) => {
            let found = problem.place();
            json!({
                "store": place.name,
                "status": "damaged",
                "code": problem.code(),
                "message": problem.message(),
                "file": found.as_ref().map(|(file, _)| file),
                "offset": found.as_ref().map(|(_, offset)| offset),
            })
        }
    }
}
