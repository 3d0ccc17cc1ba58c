//! The processes of the demo: what a child is told, what it answers, how it is started, watched and ended.
//!
//! A child is this program again, with its task as JSON in its arguments. It answers in JSON, a line at a time, on its
//! standard output. It dies with its parent, however that ends (PR_SET_PDEATHSIG); and [`Children`] dropped, on
//! whatever path, is children killed and waited for.

use super::feed::{FeedReport, FeedTask};
use super::ledger::Switch;
use super::receiver::{ReceiverReport, ReceiverTask};
use super::transport::Address;
use crate::interrupt::{Interrupt, Interrupted};
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a child is to do.
#[derive(Serialize, Deserialize)]
pub(super) enum Task {
    Feed(FeedTask),
    Receiver(ReceiverTask),
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// A receiver waits for its feed here.
    Listening(Address),
    /// A feed is connected: from now on it publishes.
    Connected {
        at_ns: u64,
    },
    /// So many quotes were received so far.
    Progress {
        received: u64,
    },
    /// A receiver got the first quote of a new feed.
    Switched(Switch),
    FeedDone(FeedReport),
    ReceiverDone(Box<ReceiverReport>),
    /// The child cannot go on.
    Failed(String),
}

/// Says `line` to the parent.
pub(super) fn say(line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// User and system time of this process so far. (CLOCK_PROCESS_CPUTIME_ID: what getrusage(2) adds up, in nanoseconds.)
pub(super) fn cpu_time_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Does what a parent asked for. What goes wrong is said to the parent, which says it to the user.
pub(super) fn run(parent: u32, task: &str) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Pid::from_raw(parent.cast_signed()) {
        bail!("demo-child is started by demo");
    }
    let done = match serde_json::from_str(task)? {
        Task::Feed(task) => task.run().map(Line::FeedDone),
        Task::Receiver(task) => task.run().map(|report| Line::ReceiverDone(Box::new(report))),
    };
    say(&done.unwrap_or_else(|error| Line::Failed(format!("{error:#}"))))
}

/// Which of the [`Children`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChildId(usize);

struct Member {
    label: String,
    process: Child,
    reader: Option<JoinHandle<()>>,
    /// It has said its last word, or was killed on purpose.
    done: bool,
}

enum Event {
    Said(Line),
    Garbled(String),
    Silent,
}

/// All children of one run.
pub(super) struct Children {
    members: Vec<Member>,
    events: mpsc::Receiver<(ChildId, Event)>,
    sender: mpsc::Sender<(ChildId, Event)>,
    interrupt: Interrupt,
}

/// How often a waiting parent looks whether it was interrupted.
const GLANCE: Duration = Duration::from_millis(20);

impl Children {
    pub(super) fn new(interrupt: Interrupt) -> Children {
        let (sender, events) = mpsc::channel();
        Children { members: Vec::new(), events, sender, interrupt }
    }

    /// Starts a child. Call it from the main thread: a child dies with the thread that started it.
    pub(super) fn start(
        &mut self,
        label: String,
        task: &Task,
        stdin: Option<OwnedFd>,
    ) -> Result<ChildId> {
        let mut process = Command::new("/proc/self/exe")
            .arg0("shmbus")
            .arg("demo-child")
            .args(["--parent", &std::process::id().to_string()])
            .arg(serde_json::to_string(task)?)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {label}"))?;
        let id = ChildId(self.members.len());
        let stdout = process.stdout.take();
        let sender = self.sender.clone();
        let reader = std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                let Ok(line) = line else { break };
                let event = match serde_json::from_str(&line) {
                    Ok(line) => Event::Said(line),
                    Err(_) => Event::Garbled(line),
                };
                if sender.send((id, event)).is_err() {
                    return;
                }
            }
            let _ = sender.send((id, Event::Silent));
        });
        self.members.push(Member { label, process, reader: Some(reader), done: false });
        Ok(id)
    }

    /// What a child says next, or `None` if none says anything for `patience`.
    ///
    /// # Errors
    /// [`Interrupted`]; a child that fails, or ends without having been told to.
    pub(super) fn hear(&mut self, patience: Duration) -> Result<Option<(ChildId, Line)>> {
        let deadline = Instant::now() + patience;
        loop {
            self.interrupt.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let (id, event) = match self.events.recv_timeout(left.min(GLANCE)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => bail!("no children left"),
            };
            // A signal to the whole group makes children fail as well: that is no failure.
            self.interrupt.check()?;
            let member = &mut self.members[id.0];
            match event {
                Event::Said(Line::Failed(error)) => {
                    return Err(anyhow!("{}: {error}", member.label));
                }
                Event::Said(line) => {
                    member.done |= matches!(line, Line::FeedDone(_) | Line::ReceiverDone(_));
                    return Ok(Some((id, line)));
                }
                Event::Garbled(line) => bail!("{} said {line:?}", member.label),
                Event::Silent if member.done => {}
                Event::Silent => {
                    let status = member.process.wait()?;
                    if status.signal().is_some_and(Interrupt::is_cause) {
                        return Err(Interrupted.into());
                    }
                    bail!("{} ended before its work was done ({status})", member.label);
                }
            }
        }
    }

    /// As [`Children::hear`], but a long silence is an error.
    pub(super) fn expect(&mut self, patience: Duration) -> Result<(ChildId, Line)> {
        match self.hear(patience)? {
            Some(heard) => Ok(heard),
            None => bail!("no child said anything for {} s", patience.as_secs()),
        }
    }

    /// Ends a child with SIGKILL and waits until the kernel has taken it apart.
    pub(super) fn kill(&mut self, id: ChildId) -> Result<()> {
        let member = &mut self.members[id.0];
        member.done = true;
        member.process.kill()?;
        member.process.wait()?;
        Ok(())
    }

    /// Waits for children that have said their last word.
    pub(super) fn wait(mut self) -> Result<()> {
        for member in &mut self.members {
            member.process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for member in &mut self.members {
            // An error says that it is gone already.
            let _ = member.process.kill();
            let _ = member.process.wait();
            if let Some(reader) = member.reader.take() {
                let _ = reader.join();
            }
        }
    }
}
