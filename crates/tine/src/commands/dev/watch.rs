//! Noticing saves by looking: times and sizes of a project's files, a few dozen times a second.
//!
//! Looking works on every file system, network shares and container mounts included, needs no handle
//! per folder, and costs well under a millisecond for a project of some hundred files. A change is
//! reported when two looks in a row agree on it, so that a file that is still being written, or a dozen
//! files that a tool writes one after the other, are one change.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant, SystemTime},
};

use super::{Event, project::Project};
use crate::failure::Failure;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_millis(40);
/// A look that takes long is followed by a pause this many times as long, to leave the processor alone.
const PAUSE_PER_LOOK: u32 = 20;
/// Files that are looked at. A project with more is not watched to its end.
const FILES_MAX: usize = 5_000;
/// Folders inside each other that are entered.
const DEPTH_MAX: usize = 12;
/// Extensions of a module's files.
const SOURCE_EXTENSIONS: [&str; 4] = ["ts", "mts", "js", "mjs"];
/// Folders that belong to other tools. Those that begin with a dot are left out too.
const FOREIGN_FOLDERS: [&str; 2] = ["node_modules", "target"];

/// What is known of the files: last change and size.
type Look = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// Watches a project until it is dropped.
pub struct Watcher {
    outside: Arc<Mutex<Vec<PathBuf>>>,
}

impl Watcher {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(project: &Project, events: mpsc::SyncSender<Event>) -> Result<Watcher, Failure> {
        let outside = Arc::new(Mutex::new(Vec::new()));
        let (folder, pages, shared) = (project.folder.clone(), project.pages.clone(), Arc::downgrade(&outside));
        let mut sources = Watched::new(Box::new(move || {
            let outside = shared.upgrade()?.lock().map(|paths| paths.clone()).unwrap_or_default();
            Some(look_at_sources(&folder, &outside))
        }));
        let shared = Arc::downgrade(&outside);
        let mut pages = Watched::new(Box::new(move || {
            shared.upgrade()?;
            Some(pages.as_deref().map(look_at_pages).unwrap_or_default())
        }));
        let watch = move || {
            loop {
                let started = Instant::now();
                for (watched, event) in [(&mut sources, Event::SourcesChanged), (&mut pages, Event::PagesChanged)] {
                    match watched.look() {
                        None => return,
                        Some(true) if events.send(event).is_err() => return,
                        Some(_) => {}
                    }
                }
                std::thread::sleep(INTERVAL.max(started.elapsed() * PAUSE_PER_LOOK));
            }
        };
        std::thread::Builder::new().name("watcher".to_owned()).spawn(watch)?;
        Ok(Watcher { outside })
    }

    /// Watches these files too: those of the module that lie outside of the project's folder.
    pub fn also_watch(&self, files: Vec<PathBuf>) {
        // A poisoned lock means that the watching thread died of a bug; then nothing is watched any more.
        if let Ok(mut outside) = self.outside.lock() {
            *outside = files;
        }
    }
}

/// One set of files and what was seen of it.
struct Watched {
    /// Looks; `None` when watching is over.
    now: Box<dyn Fn() -> Option<Look> + Send>,
    reported: Look,
    seen: Look,
}

impl Watched {
    fn new(now: Box<dyn Fn() -> Option<Look> + Send>) -> Watched {
        let first = now().unwrap_or_default();
        Watched { now, reported: first.clone(), seen: first }
    }

    /// Whether a change has come to rest since the last one that was reported; `None` at the end.
    fn look(&mut self) -> Option<bool> {
        let look = (self.now)()?;
        let is_at_rest = look == self.seen;
        self.seen = look;
        if !is_at_rest || self.seen == self.reported {
            return Some(false);
        }
        self.reported = self.seen.clone();
        Some(true)
    }
}

/// The sources below the folder, and files outside of it.
fn look_at_sources(folder: &Path, outside: &[PathBuf]) -> Look {
    let is_source = |path: &Path| {
        path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| SOURCE_EXTENSIONS.contains(&e))
    };
    let mut look = Look::new();
    walk(folder, &is_source, &mut look);
    for path in outside.iter().filter(|path| !path.starts_with(folder)) {
        look.insert(path.clone(), fs::metadata(path).map_or((None, 0), |facts| (facts.modified().ok(), facts.len())));
    }
    look
}

fn look_at_pages(folder: &Path) -> Look {
    let mut look = Look::new();
    walk(folder, &|_| true, &mut look);
    look
}

fn walk(folder: &Path, wanted: &dyn Fn(&Path) -> bool, look: &mut Look) {
    let mut waiting = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        // A folder that vanished since it was listed is a change that the next look sees.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') || look.len() == FILES_MAX {
                continue;
            }
            let path = entry.path();
            if kind.is_dir() && depth < DEPTH_MAX && !FOREIGN_FOLDERS.contains(&&*name) {
                waiting.push((path, depth + 1));
            } else if !kind.is_dir() && wanted(&path) {
                // Links count as what they lead to: editors and tools save through them.
                let facts = fs::metadata(&path);
                look.insert(path, facts.map_or((None, 0), |facts| (facts.modified().ok(), facts.len())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, sync::mpsc, time::Duration};

    use super::{super::Event, Project, Watched, Watcher, look_at_sources};

    #[test]
    fn sources_are_seen_and_the_rest_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(&path, "x").expect("written");
        };
        for path in ["src/index.ts", "a.mjs", "README.md", ".tine/data/x.ts", "node_modules/p/index.js"] {
            write(path);
        }
        let outside = [PathBuf::from("/no/such/file.ts")];
        let look = look_at_sources(folder.path(), &outside);
        let mut names: Vec<_> = look.keys().filter_map(|path| path.file_name()?.to_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a.mjs", "file.ts", "index.ts"]);
    }

    #[test]
    fn a_change_is_reported_once_and_at_rest() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index.ts");
        fs::write(&path, "1").expect("written");
        let root = folder.path().to_owned();
        let mut watched = Watched::new(Box::new(move || Some(look_at_sources(&root, &[]))));
        assert_eq!(watched.look(), Some(false));
        fs::write(&path, "12").expect("written");
        assert_eq!(watched.look(), Some(false), "it may still be written");
        assert_eq!(watched.look(), Some(true));
        assert_eq!(watched.look(), Some(false));
        fs::write(&path, "123").expect("written");
        watched.look();
        fs::write(&path, "12").expect("written");
        watched.look();
        assert_eq!(watched.look(), Some(true), "its time is another");
        fs::remove_file(&path).expect("removed");
        watched.look();
        assert_eq!(watched.look(), Some(true));
    }

    #[test]
    fn watching_ends_with_the_watcher() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("index.ts"), "").expect("written");
        let project = Project::find(folder.path(), None, None).expect("found");
        let (events, happened) = mpsc::sync_channel(8);
        let watcher = Watcher::start(&project, events).expect("it starts");
        fs::write(folder.path().join("index.ts"), "export {};").expect("written");
        let event = happened.recv_timeout(Duration::from_secs(10)).expect("a change is seen");
        assert!(matches!(event, Event::SourcesChanged));
        drop(watcher);
        let ended = happened.recv_timeout(Duration::from_secs(10)).expect_err("the thread ends");
        assert_eq!(ended, mpsc::RecvTimeoutError::Disconnected);
    }
}
