//! What a program can run in workers, and the hook that turns it into its own zygote.

use std::ffi::OsStr;

use crate::worker::Start;
use crate::zygote;

/// Something that workers of this program do, known by a name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    name: &'static str,
    run: fn(Start) -> Never,
}

/// The result of a function that does not return: [`Worker::serve`](crate::Worker::serve) is how an entry ends.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

impl Entry {
    /// Workers of pools with this name run `run`: it prepares what it needs, [hardens](Start::harden) itself and serves.
    ///
    /// # Panics
    /// When the name is longer than 32 bytes.
    pub const fn new(name: &'static str, run: fn(Start) -> Never) -> Entry {
        assert!(name.len() <= crate::wire::NAME_BYTES_MAX, "names of entries have at most 32 bytes");
        Entry { name, run }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn run(&self, start: Start) -> ! {
        match (self.run)(start) {}
    }
}

/// Turns this process into the zygote of a server, if a server started it as one; returns at once otherwise.
///
/// A program that uses a [`Sandbox`](crate::Sandbox) calls this first thing in `main`, before it starts a thread, opens a file or
/// reads its arguments.
pub fn init(entries: &[Entry]) {
    let mut arguments = std::env::args_os();
    if arguments.nth(1).as_deref() != Some(OsStr::new(zygote::ARGUMENT)) {
        return;
    }
    let server_pid = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    match server_pid {
        Some(server_pid) => zygote::run(server_pid, entries),
        None => {
            eprintln!("{} is for a server to use", zygote::ARGUMENT);
            std::process::exit(2)
        }
    }
}
