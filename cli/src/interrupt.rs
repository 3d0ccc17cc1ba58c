//! Ctrl-C, termination and hang-up as a flag: a command that leaves something behind asks it and cleans up.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shmbus_sys::signal::{self, Signal};

/// What ends a command.
const CAUSES: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Raised by SIGINT, SIGTERM and SIGHUP, from the moment it is made. A signal that was ignored when the program began stays ignored: so `nohup` and a
/// shell's `trap ''` work.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// # Errors
    /// Of sigaction(2).
    pub(crate) fn install() -> io::Result<Interrupt> {
        Interrupt::on(&CAUSES)
    }

    /// Raised by these alone.
    ///
    /// # Errors
    /// Of sigaction(2).
    pub(crate) fn on(signals: &[Signal]) -> io::Result<Interrupt> {
        let raised = Arc::new(AtomicBool::new(false));
        for &signal in signals {
            if !signal::is_ignored(signal)? {
                signal_hook::flag::register(signal.as_raw(), Arc::clone(&raised))?;
            }
        }
        Ok(Interrupt(raised))
    }

    /// # Errors
    /// [`Interrupted`] once a signal came.
    pub(crate) fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Whether `signal` is one that raises the flag: a child in the same terminal dies of it a moment earlier.
    pub(crate) fn is_cause(signal: i32) -> bool {
        CAUSES.iter().any(|cause| cause.as_raw() == signal)
    }
}

/// The command ends because somebody asked it to. Exit code 130, no message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}
