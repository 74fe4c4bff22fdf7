//! Under what conditions a run was made. A number without them means nothing.

use std::{fs, path::Path};

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
        "{cores} cores ({}), Linux {}, load average {}, data on {}, client beside the server",
        processor.unwrap_or("unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(" "),
        file_system(scratch),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn all_conditions_are_stated() {
        let line = super::describe(Path::new("/proc"));
        assert!(line.contains(" cores (") && line.contains("Linux ") && line.contains("data on proc"), "{line}");
    }
}
