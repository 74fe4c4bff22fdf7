//! `tine store`: looks into the stores of a data directory. Nothing is locked or changed, so a server may be using them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use tine_base::{Env, SystemEnv};
use tine_store::{ImagePlace, OpenError, StoreOptions, StoreView};

use crate::{
    args::GlobalArgs,
    data_directory::{CONTROL_FOLDER, DATABASES_FOLDER, LOG_FOLDER, VERSION_FILE, check_version, entries, image_place},
    failure::Failure,
    output::Output,
    progress::Progress,
    settings::Settings,
};

mod check;
mod dump;
mod stat;

/// `tine store`
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check every frame, image and page of stores; exit status 1 when something is damaged
    #[command(after_help = "\
Examples:
  tine store check
  tine store check ./data
  tine store check ./data/databases/c2001f --json

Everything is read: the log is replayed on the images in memory. What a crash left unfinished at the end of a log is no
damage. Nothing is changed, and a server may be using the stores.")]
    Check(PlaceArgs),
    /// Show the forks, heads, log segments, images and sizes of stores
    #[command(after_help = "\
Examples:
  tine store stat
  tine store stat ./data/databases/c2001f
  tine store stat ./data --json")]
    Stat(PlaceArgs),
    /// Print the records of a store's log, or the rows of a keyspace
    #[command(after_help = "\
Examples:
  tine store dump ./data/control
  tine store dump ./data/control --from 10 --limit 5 --json
  tine store dump ./data/databases/c2001f --keyspace 16
  tine store dump ./data/databases/c2001f --keyspace 16 --fork staging --json

Keys and values are bytes: as text they are printed escaped, as JSON in hexadecimal. With --json each record or row is an
object on a line of its own.")]
    Dump(dump::DumpArgs),
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// A data directory, or the folder of one store in it [default: the data directory in use]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// A folder without stores, and stores that cannot be read.
pub fn run(args: &StoreArgs, global: &GlobalArgs, output: &Output) -> Result<(), Failure> {
    match &args.command {
        StoreCommand::Check(place) => check::run(&stores(place, global)?, output),
        StoreCommand::Stat(place) => stat::run(&stores(place, global)?, output),
        StoreCommand::Dump(args) => dump::run(args, output),
    }
}

/// A store and what it is called here.
struct Place {
    name: String,
    directory: PathBuf,
}

fn is_store(directory: &Path) -> bool {
    directory.join(LOG_FOLDER).is_dir()
}

fn not_a_store(directory: &Path) -> Failure {
    Failure::NotFound {
        message: format!("{} is neither a data directory nor a store in one", directory.display()),
        next: Some("name one, such as DATA/control or DATA/databases/ID; `tine config show` tells DATA".to_owned()),
    }
}

fn stores(args: &PlaceArgs, global: &GlobalArgs) -> Result<Vec<Place>, Failure> {
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => Settings::load(global)?.data_dir,
    };
    if is_store(&directory) {
        return Ok(vec![Place { name: directory.display().to_string(), directory }]);
    }
    if !directory.join(VERSION_FILE).exists() {
        return Err(not_a_store(&directory));
    }
    check_version(&directory)?;
    let databases = directory.join(DATABASES_FOLDER);
    let databases = if databases.is_dir() { entries(&databases)? } else { Vec::new() };
    let all = std::iter::once(directory.join(CONTROL_FOLDER)).chain(databases);
    let named = |path: PathBuf| {
        let name = path.strip_prefix(&directory).unwrap_or(&path).display().to_string();
        Place { name, directory: path }
    };
    Ok(all.filter(|path| is_store(path)).map(named).collect())
}

fn view(directory: &Path) -> Result<StoreView, Failure> {
    Ok(view_with(directory, image_place(directory)?)?)
}

fn view_with(directory: &Path, images: ImagePlace) -> Result<StoreView, OpenError> {
    let env: Arc<dyn Env> = Arc::new(SystemEnv);
    let mut progress: Option<(Progress, u64)> = None;
    let options = StoreOptions { images, ..StoreOptions::new(directory) };
    StoreView::open(&options, &env, &mut |now| {
        let (progress, done) = progress.get_or_insert_with(|| (Progress::new("reading the log", now.bytes_total), 0));
        progress.add(now.bytes_done.saturating_sub(*done));
        *done = now.bytes_done;
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
