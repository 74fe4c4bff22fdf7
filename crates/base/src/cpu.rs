//! How many cores this process may use.
//!
//! A container is commonly given a share of a large host: the affinity mask then shows all cores of the
//! host while the cgroup quota allows a few. Pools sized by the host would fight over the quota, so the
//! budget is the smaller of the two, and the quota is rounded up: with 1.5 cores two threads are better
//! than one.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Levels of the cgroup tree that are walked towards the root; deeper nesting is not seen in practice.
const CGROUP_DEPTH_MAX: usize = 64;

/// The processor time this process may use. Made by [`budget`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuBudget {
    /// Cores to size thread pools by: the affinity count capped by the quota, rounded up, at least 1.
    pub cores: NonZeroUsize,
    /// Cores in the affinity mask.
    pub affinity_cores: NonZeroUsize,
    /// The tightest cgroup quota from this process's group up to the root, in cores; `None` if unlimited.
    pub quota_cores: Option<f64>,
}

/// Reads the affinity mask and the cgroup quotas (version 1 and 2) of this process.
///
/// Costs a few file reads; call it once and keep the result. What cannot be read counts as unlimited.
pub fn budget() -> CpuBudget {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    combine(affinity_cores(), quota_cores(&membership, Path::new("/sys/fs/cgroup")))
}

/// Keeps the calling thread on one core of the affinity mask, the `number`-th of them, counted around. Returns whether the kernel
/// agreed.
pub fn pin_current_thread(number: usize) -> bool {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let (mut allowed, mut only): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { std::mem::zeroed() };
    // SAFETY: pointers and sizes describe sets on this stack; 0 names the calling thread.
    unsafe {
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed) != 0 {
            return false;
        }
        let count = usize::try_from(libc::CPU_COUNT(&allowed)).unwrap_or(0).max(1);
        let mut cores = (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &allowed));
        let Some(core) = cores.nth(number % count) else { return false };
        libc::CPU_SET(core, &mut only);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &only) == 0
    }
}

fn combine(affinity_cores: NonZeroUsize, quota_cores: Option<f64>) -> CpuBudget {
    let allowed = quota_cores.map_or(usize::MAX, |quota| quota.ceil() as usize);
    let cores = NonZeroUsize::new(affinity_cores.get().min(allowed)).unwrap_or(NonZeroUsize::MIN);
    CpuBudget { cores, affinity_cores, quota_cores }
}

fn affinity_cores() -> NonZeroUsize {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and size describe `set`, which outlives the call; 0 names the calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if status == 0 {
        // SAFETY: `set` was filled by the kernel above.
        let count = unsafe { libc::CPU_COUNT(&set) };
        if let Some(count) = usize::try_from(count).ok().and_then(NonZeroUsize::new) {
            return count;
        }
    }
    // Hosts with more cores than the fixed-size set can name.
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// The tightest quota in cores for the groups listed in `membership` (the text of `/proc/self/cgroup`).
fn quota_cores(membership: &str, mount: &Path) -> Option<f64> {
    membership
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_hierarchy, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
            if controllers.is_empty() {
                tightest(mount, group, &read_v2)
            } else if controllers.split(',').any(|controller| controller == "cpu") {
                // The hierarchy is mounted under its list of controllers or a link named after one.
                let joined = mount.join(controllers);
                let base = if joined.is_dir() { joined } else { mount.join("cpu") };
                tightest(&base, group, &read_v1)
            } else {
                None
            }
        })
        .min_by(f64::total_cmp)
}

/// Walks from `group` up to the root of the hierarchy mounted at `base`: every level limits those below.
fn tightest(base: &Path, group: &str, read: &dyn Fn(&Path) -> Option<f64>) -> Option<f64> {
    let relative = Path::new(group.trim_start_matches('/'));
    // In a container the group may be named from outside the mount; then only the mount's root is visible.
    let visible = !relative.components().any(|part| part.as_os_str() == "..") && base.join(relative).is_dir();
    let start: PathBuf = if visible { base.join(relative) } else { base.to_path_buf() };
    start
        .ancestors()
        .take(CGROUP_DEPTH_MAX)
        .take_while(|level| level.starts_with(base))
        .filter_map(read)
        .min_by(f64::total_cmp)
}

fn read_v2(level: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(level.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

fn read_v1(level: &Path) -> Option<f64> {
    let quota = std::fs::read_to_string(level.join("cpu.cfs_quota_us")).ok()?;
    let period = std::fs::read_to_string(level.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

/// `max` (version 2) and negative quotas (version 1) mean unlimited.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.parse().ok()?;
    let period: f64 = period.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("temporary directory");
        for (path, content) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("directory");
            std::fs::write(path, content).expect("file");
        }
        directory
    }

    #[test]
    fn quotas() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<f64>);
        let cases: &[Case] = &[
            ("0::/a/b\n", &[("a/b/cpu.max", "150000 100000\n")], Some(1.5)),
            ("0::/a/b\n", &[("a/b/cpu.max", "max 100000\n"), ("a/cpu.max", "50000 100000\n")], Some(0.5)),
            ("0::/a/b\n", &[("a/b/cpu.max", "max 100000\n")], None),
            ("0::/\n", &[("cpu.max", "400000 100000")], Some(4.0)),
            ("0::/../outside\n", &[("cpu.max", "200000 100000")], Some(2.0)),
            ("0::/not/here\n", &[("cpu.max", "200000 100000")], Some(2.0)),
            ("0::/a\n", &[("a/cpu.max", "garbage")], None),
            (
                "4:memory:/a\n3:cpu,cpuacct:/a\n",
                &[("cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n"), ("cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")],
                Some(2.5),
            ),
            ("3:cpu,cpuacct:/a\n", &[("cpu/a/cpu.cfs_quota_us", "-1"), ("cpu/a/cpu.cfs_period_us", "100000")], None),
            (
                "3:cpu,cpuacct:/a\n",
                &[("cpu/cpu.cfs_quota_us", "100000"), ("cpu/cpu.cfs_period_us", "100000")],
                Some(1.0),
            ),
            ("3:cpuset:/a\n", &[("cpuset/a/cpu.cfs_quota_us", "100000")], None),
            ("", &[], None),
        ];
        for (membership, files, expected) in cases {
            let directory = tree(files);
            assert_eq!(quota_cores(membership, directory.path()), *expected, "{membership:?} {files:?}");
        }
    }

    #[test]
    fn quota_is_rounded_up_and_never_below_one() {
        let eight = NonZeroUsize::new(8).expect("not zero");
        for (quota, cores) in [(None, 8), (Some(0.1), 1), (Some(1.5), 2), (Some(2.0), 2), (Some(64.0), 8)] {
            assert_eq!(combine(eight, quota).cores.get(), cores, "{quota:?}");
        }
    }

    #[test]
    fn this_machine_has_a_budget() {
        let budget = budget();
        assert!(budget.cores <= budget.affinity_cores);
    }
}
