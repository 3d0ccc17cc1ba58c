//! What is shown while the demo runs, on standard error: one line that changes, or on anything but a terminal, lines.

use super::text::grouped;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where progress is shown. Errors of writing are ignored: nothing depends on it.
pub(super) struct Screen {
    live: bool,
    /// Of this many things to do.
    steps: usize,
    step: usize,
    what: String,
    shown: Option<Instant>,
}

const BAR_LEN: u64 = 32;
/// On anything but a terminal a line is printed so often.
const LINE_EVERY: Duration = Duration::from_secs(1);

impl Screen {
    /// For `steps` things to do; `plain`: no line that changes, even on a terminal.
    pub(super) fn new(plain: bool, steps: usize) -> Screen {
        let live = !plain && io::stderr().is_terminal();
        Screen { live, steps, step: 0, what: String::new(), shown: None }
    }

    /// The next thing begins.
    pub(super) fn begin(&mut self, what: impl ToString) {
        self.step += 1;
        self.what = what.to_string();
        self.shown = None;
        let end = if self.live { "" } else { "\n" };
        self.show(&format!("[{}/{}] {} ...{end}", self.step, self.steps, self.what));
        if !self.live {
            self.shown = Some(Instant::now());
        }
    }

    /// So many `things` of `all` are done.
    pub(super) fn progress(&mut self, done: u64, all: u64, things: &str) {
        let text = format!("{} of {} {things}", grouped(done), grouped(all));
        let head = format!("[{}/{}] {:<8}", self.step, self.steps, self.what);
        if self.live {
            let full = (done.min(all) * BAR_LEN).checked_div(all).unwrap_or(0) as usize;
            let (full, rest) = ("━".repeat(full), "─".repeat(BAR_LEN as usize - full));
            self.show(&format!("\r\x1b[2K{head} {full}\x1b[2m{rest}\x1b[0m {text}"));
        } else if self.shown.is_none_or(|shown| shown.elapsed() >= LINE_EVERY) {
            self.show(&format!("{head} {text}\n"));
            self.shown = Some(Instant::now());
        }
    }

    /// Takes the changing line away.
    pub(super) fn clear(&mut self) {
        if self.live {
            self.show("\r\x1b[2K");
        }
    }

    fn show(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes());
        let _ = stderr.flush();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}
