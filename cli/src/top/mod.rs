//! `shmbus top`: all topics in a terminal, live.
//!
//! The model holds what is known and chosen, the view draws it, keys change it; this file has the loop and the terminal.

mod keys;
mod model;
mod view;

use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use shmbus::Directory;

use crate::interrupt::{Interrupt, Interrupted};
use crate::rates::Moment;
use crate::windows;
use keys::Go;
use model::Model;

/// How long one wait is at most, so that an interrupt is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  shmbus top
  shmbus top --interval 2

Keys: arrows or j k select, s the next column to sort by, r the other way round, / a part of the names, Tab or Enter who takes part, \
q or Esc the end. Without a terminal: shmbus stat --watch, or --json.";

/// Show all topics and who takes part in them, live, in a terminal
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// How often to look, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = windows::interval)]
    interval: Duration,
}

/// Gives the terminal back, whatever ends the program; a panic does so by the hook that ratatui installs.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // Where the terminal is gone there is nobody to be told, and nowhere to say it.
        let _ = ratatui::crossterm::execute!(io::stdout(), Show);
        let _ = ratatui::try_restore();
    }
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        bail!(
            "top needs a terminal; without one: shmbus stat --watch, or shmbus stat --watch --json"
        );
    }
    let interrupt = Interrupt::install()?;
    let mut before = Moment::read(directory, &[])?;
    let mut model = Model::default();
    model.update(before.since(None), before.unreadable.len());
    let restore = Restore;
    // Not dropped: it would complain to a terminal that is gone, and panic over that.
    let mut terminal = ManuallyDrop::new(ratatui::try_init().context("cannot use the terminal")?);
    let done = watch(&mut terminal, &mut model, &interrupt, arguments.interval, |model| {
        let moment = Moment::read(directory, &[])?;
        model.update(moment.since(Some(&before)), moment.unreadable.len());
        before = moment;
        Ok(())
    });
    drop(restore);
    done
}

fn watch(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    interrupt: &Interrupt,
    interval: Duration,
    mut look: impl FnMut(&mut Model) -> Result<()>,
) -> Result<()> {
    let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut due = Instant::now() + interval;
    // What was read from the terminal and not handled yet, of which the terminal does not tell again.
    let mut is_pending = false;
    loop {
        terminal.draw(|frame| view::draw(frame, model, is_coloured))?;
        loop {
            interrupt.check()?;
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                look(model)?;
                due = Instant::now() + interval;
                break;
            }
            // Not asked of crossterm, which reads on for ever at the end of a terminal that is gone.
            if !is_pending && !is_readable(left.min(WAIT_MAX))? {
                continue;
            }
            is_pending = false;
            let mut is_changed = false;
            // Several keys may have come together.
            while !is_pending && has_event()? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        match keys::press(model, key) {
                            Go::On => is_changed = true,
                            Go::End => return Ok(()),
                            Go::Interrupt => return Err(Interrupted.into()),
                        }
                    }
                    Event::Resize(..) => is_changed = true,
                    _ => {}
                }
                is_pending = Instant::now() >= due; // first another look
            }
            if is_changed {
                break;
            }
        }
    }
}

/// Whether there is an event, be it that crossterm has read it already.
fn has_event() -> Result<bool> {
    is_readable(Duration::ZERO)?; // an error where the terminal is gone
    Ok(event::poll(Duration::ZERO)?)
}

/// Waits until the terminal has something to read.
///
/// # Errors
/// [`Interrupted`] where it is gone.
fn is_readable(timeout: Duration) -> Result<bool> {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    let timeout = Timespec::try_from(timeout)?;
    match poll(&mut terminal, Some(&timeout)) {
        Ok(_) if terminal[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
            Err(Interrupted.into())
        }
        Ok(_) => Ok(terminal[0].revents().contains(PollFlags::IN)),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
