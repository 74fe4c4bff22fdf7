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

/// A line of progress in bytes.
pub struct Progress {
    what: &'static str,
    total_bytes: u64,
    done_bytes: u64,
    next: Instant,
    shown: bool,
    is_terminal: bool,
}

impl Progress {
    /// Work on `total_bytes`, described by a verb such as `copying`.
    pub fn new(what: &'static str, total_bytes: u64) -> Progress {
        let is_terminal = io::stderr().is_terminal();
        Progress { what, total_bytes, done_bytes: 0, next: Instant::now() + PATIENCE, shown: false, is_terminal }
    }

    /// `bytes` more are done.
    pub fn add(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        if self.is_terminal && Instant::now() >= self.next {
            self.next = Instant::now() + INTERVAL;
            self.shown = true;
            // A terminal that cannot be written to is no reason to stop the work.
            let _ = write!(io::stderr(), "\r{}\u{1b}[K", line(self.what, self.done_bytes, self.total_bytes));
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

fn line(what: &str, done: u64, total: u64) -> String {
    let done = done.min(total);
    let filled = (done * BAR_CHARACTERS).checked_div(total).unwrap_or(BAR_CHARACTERS);
    let percent = (done * 100).checked_div(total).unwrap_or(100);
    let bar: String = (0..BAR_CHARACTERS).map(|position| if position < filled { '#' } else { '-' }).collect();
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!("{what} [{bar}] {percent:>3}%  {:.1} of {:.1} MiB", mebibytes(done), mebibytes(total))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines() {
        assert_eq!(line("copying", 0, 4 << 20), "copying [------------------------]   0%  0.0 of 4.0 MiB");
        assert_eq!(line("copying", 1 << 20, 4 << 20), "copying [######------------------]  25%  1.0 of 4.0 MiB");
        assert_eq!(line("copying", 9, 8), "copying [########################] 100%  0.0 of 0.0 MiB");
        assert_eq!(line("copying", 0, 0), "copying [########################] 100%  0.0 of 0.0 MiB");
    }
}
