//! Another process of this program, and a directory that both use.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A directory in memory that is removed with everything in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Scratch> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = format!("/dev/shm/shmbus-rivals-{}-{count}", std::process::id());
        std::fs::create_dir(&path).with_context(|| format!("cannot make {path}"))?;
        Ok(Scratch(path.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        crate::transports::sweep(&self.0);
    }
}

/// The other process; ended with SIGKILL when dropped.
pub(crate) struct Partner(Child, BufReader<ChildStdout>);

impl Partner {
    /// Starts this program as `role` for `transport` and waits until it says that it is ready.
    pub(crate) fn start(role: &str, transport: &str, directory: &Path) -> Result<Partner> {
        let mut child = Command::new("/proc/self/exe")
            .args(["partner", role, transport])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the partner has no standard output")?;
        let mut partner = Partner(child, BufReader::new(stdout));
        partner.expect("ready")?;
        Ok(partner)
    }

    /// Waits until it says `word`.
    pub(crate) fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        ensure!(line.trim() == word, "the partner process said {:?}, not {word}", line.trim());
        Ok(())
    }

    /// Tells it to go on.
    pub(crate) fn go(&mut self) -> Result<()> {
        let stdin = self.0.stdin.as_mut().context("the partner has no standard input")?;
        Ok(stdin.write_all(b"go\n")?)
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// In the partner: says `word`, and waits until it is told to go on.
pub(crate) fn pause(word: &str) -> Result<()> {
    println!("{word}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    ensure!(!line.is_empty(), "the parent is gone");
    Ok(())
}
