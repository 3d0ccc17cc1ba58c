//! The processes of a run, from the parent's side: started, led through the steps together, heard, and ended on every path.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::endpoint::{Line, Report, Role, Step, Task};
use crate::placement::again;

struct Member {
    role: Role,
    process: Child,
    reader: Option<JoinHandle<()>>,
    report: Option<Report>,
}

enum Event {
    Said(Line),
    Garbled(String),
    Silent,
}

/// All endpoints of one run; killed and waited for when dropped.
pub(crate) struct Children {
    members: Vec<Member>,
    sender: mpsc::Sender<(usize, Event)>,
    events: mpsc::Receiver<(usize, Event)>,
}

impl Children {
    pub(crate) fn new() -> Children {
        let (sender, events) = mpsc::channel();
        Children { members: Vec::new(), sender, events }
    }

    /// Starts an endpoint. A child dies with the thread that started it.
    pub(crate) fn start(&mut self, task: &Task) -> Result<()> {
        let mut process = again()
            .arg("endpoint")
            .arg(serde_json::to_string(task)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {:?}", task.role))?;
        let index = self.members.len();
        let (stdout, sender) = (process.stdout.take(), self.sender.clone());
        let reader = std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                let Ok(line) = line else { break };
                let event = match serde_json::from_str(&line) {
                    Ok(line) => Event::Said(line),
                    Err(_) => Event::Garbled(line),
                };
                if sender.send((index, event)).is_err() {
                    return;
                }
            }
            let _ = sender.send((index, Event::Silent));
        });
        self.members.push(Member { role: task.role, process, reader: Some(reader), report: None });
        Ok(())
    }

    /// Leads all through `step`: waits until each has reached it, then tells them to go on, those that send last.
    ///
    /// # Errors
    /// Where one fails, ends, or says nothing until `deadline`.
    pub(crate) fn pass(&mut self, step: Step, deadline: Instant) -> Result<()> {
        for _ in 0..self.members.len() {
            let (index, line) = self.hear(deadline)?;
            match line {
                Line::Reached(reached) if reached == step => {}
                other => bail!("{:?} said {other:?} before {step:?}", self.members[index].role),
            }
        }
        for leads in [false, true] {
            for member in self.members.iter_mut().filter(|member| member.role.leads() == leads) {
                let stdin = member.process.stdin.as_mut().context("no standard input")?;
                stdin.write_all(b"\n").with_context(|| format!("{:?} is gone", member.role))?;
            }
        }
        Ok(())
    }

    /// What all have found out, in the order in which they were started. Those that send are told when all others are done.
    ///
    /// # Errors
    /// As [`Children::pass`].
    pub(crate) fn reports(&mut self, deadline: Instant) -> Result<Vec<Report>> {
        while self.members.iter().any(|member| member.report.is_none()) {
            let (index, line) = self.hear(deadline)?;
            match line {
                Line::Done(report) => self.members[index].report = Some(*report),
                other => bail!("{:?} said {other:?} in the end", self.members[index].role),
            }
            let others = self.members.iter().filter(|member| !member.role.leads());
            if others.into_iter().all(|member| member.report.is_some()) {
                self.members.iter_mut().for_each(|member| drop(member.process.stdin.take()));
            }
        }
        Ok(self.members.iter_mut().filter_map(|member| member.report.take()).collect())
    }

    fn hear(&mut self, deadline: Instant) -> Result<(usize, Line)> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (index, event) = match self.events.recv_timeout(left) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => bail!("nothing was heard for too long"),
                Err(RecvTimeoutError::Disconnected) => bail!("no process is left"),
            };
            let member = &mut self.members[index];
            match event {
                Event::Said(Line::Failed(error)) => bail!("{:?}: {error}", member.role),
                Event::Said(line) => return Ok((index, line)),
                Event::Garbled(line) => bail!("{:?} said {line:?}", member.role),
                Event::Silent if member.report.is_some() => {}
                Event::Silent => {
                    let status = member.process.wait()?;
                    bail!("{:?} ended before its work was done ({status})", member.role);
                }
            }
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for member in &mut self.members {
            if member.report.is_none() {
                // An error says that it is gone already.
                let _ = member.process.kill();
            }
            let _ = member.process.wait();
            if let Some(reader) = member.reader.take() {
                let _ = reader.join();
            }
        }
    }
}

/// How long all steps of a run may take, beside its work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
