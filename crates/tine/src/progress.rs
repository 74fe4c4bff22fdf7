//! How far long work is: one line on standard error that is written again and again. Nothing is shown
//! when standard error is no terminal, or when the work ends soon.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Work that ends within this time shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);
/// The line is written this often.
const INTERVAL: Duration = Duration::from_millis(100);
/// Characters of the bar.
const BAR_CHARACTERS: u64 = 24;

/// A line of progress, in bytes or in things that are counted.
pub struct Progress {
    what: &'static str,
    /// What is counted; none for bytes.
    items: Option<&'static str>,
    total: u64,
    done: u64,
    next: Instant,
    shown: bool,
    is_terminal: bool,
}

impl Progress {
    /// Work on `total_bytes`, described by a verb such as `copying`.
    pub fn new(what: &'static str, total_bytes: u64) -> Progress {
        Progress::new_in(what, None, total_bytes)
    }

    /// Work on `total` things, named in the plural, such as `commits`.
    pub fn of_items(what: &'static str, items: &'static str, total: u64) -> Progress {
        Progress::new_in(what, Some(items), total)
    }

    fn new_in(what: &'static str, items: Option<&'static str>, total: u64) -> Progress {
        let is_terminal = io::stderr().is_terminal();
        Progress { what, items, total, done: 0, next: Instant::now() + PATIENCE, shown: false, is_terminal }
    }

    /// So many more bytes or things are done.
    pub fn add(&mut self, count: u64) {
        self.done += count;
        if self.is_terminal && Instant::now() >= self.next {
            self.next = Instant::now() + INTERVAL;
            self.shown = true;
            // A terminal that cannot be written to is no reason to stop the work.
            let _ = write!(io::stderr(), "\r{}\u{1b}[K", line(self.what, self.items, self.done, self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}

fn line(what: &str, items: Option<&str>, done: u64, total: u64) -> String {
    let done = done.min(total);
    let filled = (done * BAR_CHARACTERS).checked_div(total).unwrap_or(BAR_CHARACTERS);
    let percent = (done * 100).checked_div(total).unwrap_or(100);
    let bar: String = (0..BAR_CHARACTERS).map(|position| if position < filled { '#' } else { '-' }).collect();
    if let Some(items) = items {
        return format!("{what} [{bar}] {percent:>3}%  {done} of {total} {items}");
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{what} [{bar}] {percent:>3}%  {:.1} of {:.1} MiB", mebibytes(done), mebibytes(total))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines() {
        assert_eq!(line("copying", None, 0, 4 << 20), "copying [------------------------]   0%  0.0 of 4.0 MiB");
        assert_eq!(line("copying", None, 1 << 20, 4 << 20), "copying [######------------------]  25%  1.0 of 4.0 MiB");
        assert_eq!(line("copying", None, 9, 8), "copying [########################] 100%  0.0 of 0.0 MiB");
        assert_eq!(
            line("replaying", Some("commits"), 1, 2),
            "replaying [############------------]  50%  1 of 2 commits"
        );
        assert_eq!(line("copying", None, 0, 0), "copying [########################] 100%  0.0 of 0.0 MiB");
    }
}
