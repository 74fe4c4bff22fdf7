//! Both servers, with sockets beside one another.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Plan;

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(60);

/// One of the two servers.
pub struct Side {
    process: Child,
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it listens for clients of its schema, if it has one.
    pub shared_memory: Option<PathBuf>,
    /// Numbers for leaves that are not there yet.
    pub fresh: u64,
}

/// Both.
pub struct Pair {
    /// Tine.
    pub ours: Side,
    /// The one it stands in for.
    pub theirs: Side,
    _directory: tempfile::TempDir,
}

/// Where that server's program is, if it is installed.
pub fn program() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    let program = target.join("npm/node_modules/@aztec/bb.js/build/amd64-linux/aztec-wsdb");
    program.exists().then_some(program)
}

impl Pair {
    /// Starts both on empty directories.
    pub fn start(plan: &Plan, program: &Path) -> anyhow::Result<Pair> {
        let directory = tempfile::tempdir_in(plan.binary.scratch())?;
        let folder = |name| {
            let folder = directory.path().join(name);
            std::fs::create_dir_all(&folder).map(|()| folder)
        };
        let (ours, theirs) = (folder("ours")?, folder("theirs")?);
        let (socket, shared_memory) = (ours.join("world.sock"), ours.join("world.shm"));
        let mut command = Command::new(plan.binary.path());
        command.args(["world-state", "serve"]).arg(ours.join("state"));
        command.arg("--plain").arg(&socket).arg("--ipc").arg(&shared_memory);
        let ours = Side::start(&mut command, socket, Some(shared_memory))?;
        let socket = theirs.join("world.sock");
        let mut command = Command::new(program);
        command.args(["msgpack", "run", "--input"]).arg(&socket).arg("--data-dir").arg(theirs.join("state"));
        let theirs = Side::start(&mut command, socket, None)?;
        Ok(Pair { ours, theirs, _directory: directory })
    }

    /// Does the same on both.
    pub fn each(&mut self, mut act: impl FnMut(&mut Side) -> anyhow::Result<()>) -> anyhow::Result<()> {
        act(&mut self.ours)?;
        act(&mut self.theirs)
    }
}

impl Side {
    fn start(command: &mut Command, socket: PathBuf, shared_memory: Option<PathBuf>) -> anyhow::Result<Side> {
        let process = command
            .args(["--tree-heights", "{0:42,1:42,2:40,3:36,4:30}", "--tree-prefill", "{0:128,2:128}"])
            .args(["--threads", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a world-state server")?;
        let mut side = Side { process, socket, shared_memory, fresh: 1_000 };
        let deadline = Instant::now() + START_MAX;
        while std::os::unix::net::UnixStream::connect(&side.socket).is_err() {
            if Instant::now() > deadline || side.process.try_wait()?.is_some() {
                bail!("a world-state server does not listen");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(side)
    }

    /// Memory of the process that is resident.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident size")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Its directory goes with it; there is nothing to end in order.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
