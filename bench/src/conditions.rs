//! Under what conditions a run was made. A number without them means nothing.

use std::{fs, io, io::Write, path::Path, time::Instant};

/// Writes timed to learn what a sync costs on this disk.
const SYNCS: usize = 32;
/// Bytes of each: about what the log writes for a handful of calls.
const SYNC_BYTES: usize = 4096;

/// Cores, processor, kernel, load and the file system of the data, on one line.
pub fn describe(scratch: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_matches([':', ' ', '\t']));
    let load: Vec<String> = read("/proc/loadavg").split_whitespace().take(3).map(str::to_owned).collect();
    format!(
        "{cores} cores ({}), Linux {}, load average {}, data on {} ({}), client beside the server",
        processor.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(" "),
        file_system(scratch),
        sync_us(scratch).map_or_else(|_| "sync not measured".to_owned(), |us| format!("fdatasync {us:.0} us")),
    )
}

/// Type of the file system a path is on.
fn file_system(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let nearest = mounted.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.len());
    nearest.map_or_else(|| "an unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}

/// Median time of a small write with `fdatasync`, in microseconds: confirmed calls cannot be faster.
fn sync_us(scratch: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(scratch)?;
    let mut times_us = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&[1; SYNC_BYTES])?;
        file.sync_data()?;
        times_us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(crate::report::median(&times_us))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn all_conditions_are_stated() {
        let line = super::describe(Path::new("/proc"));
        assert!(
            line.contains(" cores (") && line.contains("Linux ") && line.contains("data on proc (sync not measured)"),
            "{line}"
        );
        assert!(super::describe(&std::env::temp_dir()).contains("fdatasync "));
    }
}
