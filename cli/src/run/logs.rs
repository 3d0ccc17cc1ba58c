//! What processes print: their lines behind their names, until the last of them has closed its end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::config::Log;

/// The longest line that is carried in one piece, in bytes.
const LINE_MAX: u64 = 64 << 10;

/// Carries lines. Each stream has a thread.
pub(super) struct Logs {
    /// Each thread has a clone of the first: the second ends with the last of them.
    open: Option<(Sender<()>, Receiver<()>)>,
    width: usize,
}

impl Logs {
    /// For names of at most this many characters.
    pub(super) fn new(width: usize) -> Logs {
        Logs { open: Some(channel()), width }
    }

    /// Sets the streams of a process that is to be started.
    pub(super) fn set(command: &mut Command, log: &Log) -> io::Result<()> {
        command.stdin(Stdio::null());
        let (out, err) = match log {
            Log::Prefix => (Stdio::piped(), Stdio::piped()),
            Log::Inherit => (Stdio::inherit(), Stdio::inherit()),
            Log::None => (Stdio::null(), Stdio::null()),
            Log::File(path) => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
                (file.try_clone()?.into(), file.into())
            }
        };
        command.stdout(out).stderr(err);
        Ok(())
    }

    /// Begins to carry what a process prints that was started, where its streams are pipes.
    pub(super) fn carry(&self, name: &str, child: &mut Child) {
        let prefix = format!("{name:<width$} | ", width = self.width);
        if let Some(out) = child.stdout.take() {
            self.spawn(out, prefix.clone(), |line| io::stdout().lock().write_all(line));
        }
        if let Some(err) = child.stderr.take() {
            self.spawn(err, prefix, |line| io::stderr().lock().write_all(line));
        }
    }

    fn spawn(
        &self,
        from: impl Read + Send + 'static,
        prefix: String,
        write: fn(&[u8]) -> io::Result<()>,
    ) {
        let Some((open, _)) = &self.open else { return };
        let open = open.clone();
        let carry = move || {
            let mut from = BufReader::new(from);
            let mut line = prefix.clone().into_bytes();
            // Whoever reads us may be gone: what follows is read all the same, so that the process is not held up.
            while matches!((&mut from).take(LINE_MAX).read_until(b'\n', &mut line), Ok(1..)) {
                if line.last() != Some(&b'\n') {
                    line.push(b'\n');
                }
                let _ = write(&line);
                line.truncate(prefix.len());
            }
            drop(open);
        };
        // Without a thread nobody reads: the process gets SIGPIPE.
        let _ = thread::Builder::new().name("log".into()).spawn(carry);
    }

    /// Waits until everything was carried; for processes that have left the tree, and hold its streams open, not longer than `patience`.
    pub(super) fn finish(&mut self, patience: Duration) {
        if let Some((open, last)) = self.open.take() {
            drop(open);
            let ended = last.recv_timeout(patience);
            debug_assert!(matches!(
                ended,
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)
            ));
        }
    }
}
