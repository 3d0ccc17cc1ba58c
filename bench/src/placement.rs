//! Where things run: a temporary directory in memory, a core for each process, a partner process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The program whose other processes are started, and what stands before its verbs.
struct Program {
    path: PathBuf,
    prefix: Vec<String>,
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// Says how the other processes of a measurement are started: `path prefix.. endpoint ..`. Without it, or later, as this program without a prefix.
pub fn started_as(path: impl Into<PathBuf>, prefix: &[&str]) {
    let prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
    let _ = PROGRAM.set(Program { path: path.into(), prefix });
}

/// This program again, up to its verb.
pub(crate) fn again() -> Command {
    let program =
        PROGRAM.get_or_init(|| Program { path: "/proc/self/exe".into(), prefix: Vec::new() });
    let mut command = Command::new(&program.path);
    command.args(&program.prefix);
    command
}

/// The cores of this process, and who runs where.
#[derive(Clone, Debug)]
pub(crate) struct Placement(Vec<usize>);

impl Placement {
    pub(crate) fn of_this_process() -> Result<Placement> {
        let allowed = sched_getaffinity(None)?;
        Ok(Placement((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()))
    }

    /// Where the sender runs.
    pub(crate) fn sender(&self) -> usize {
        self.0.first().copied().unwrap_or(0)
    }

    /// Where receiver `index` runs: on the others, in turn.
    pub(crate) fn receiver(&self, index: usize) -> usize {
        let others = self.0.get(1..).filter(|others| !others.is_empty()).unwrap_or(&self.0);
        others.get(index % others.len().max(1)).copied().unwrap_or(0)
    }

    /// Whether so many processes have no core each.
    pub(crate) fn is_short_of(&self, processes: usize) -> bool {
        processes > self.0.len()
    }

    /// Lets the calling thread run on all of them again: what it starts inherits that.
    pub(crate) fn release(&self) -> Result<()> {
        let mut set = CpuSet::new();
        self.0.iter().for_each(|core| set.set(*core));
        Ok(sched_setaffinity(None, &set)?)
    }

    /// How many there are.
    pub(crate) fn cores(&self) -> usize {
        self.0.len()
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        let list: Vec<String> = self.0.iter().map(usize::to_string).collect();
        format!("cores {}", list.join(" "))
    }
}

/// A directory below `/dev/shm` that is removed with everything in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let path = PathBuf::from(format!("/dev/shm/shmbus-bench-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first two cores that this process may use, where there are two.
pub(crate) fn two_cores() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    match (cores.next(), cores.next()) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => bail!("this measurement needs two cores"),
    }
}

/// Keeps the calling thread on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The other process of a measurement; ended when dropped.
pub(crate) struct Partner(Child, BufReader<ChildStdout>);

impl Partner {
    /// Starts `role` on `core` and waits until it says that it is ready.
    pub(crate) fn start(role: &str, directory: &Path, count: u64, core: usize) -> Result<Partner> {
        Self::spawn(role, directory, count, &core.to_string())
    }

    /// Starts `role` on any core and waits until it says that it is ready.
    pub(crate) fn start_anywhere(role: &str, directory: &Path, count: u64) -> Result<Partner> {
        Self::spawn(role, directory, count, "any")
    }

    /// The word that it waits for: the end of its standard input.
    pub(crate) fn go(&mut self) {
        self.0.stdin = None;
    }

    fn spawn(role: &str, directory: &Path, count: u64, core: &str) -> Result<Partner> {
        let mut child = again()
            .arg("partner")
            .arg(role)
            .arg(directory)
            .args([&count.to_string(), core])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the partner has no standard output")?;
        let mut partner = Partner(child, BufReader::new(stdout));
        partner.1.read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the partner process {role} did not start");
        }
        Ok(partner)
    }

    /// What it says next; empty where it has ended.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Ends it with SIGKILL. Returns when the signal is sent, not when the kernel has taken the process apart.
    pub(crate) fn kill(&mut self) -> Result<()> {
        Ok(self.0.kill()?)
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        if !status.success() {
            bail!("the partner process failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
