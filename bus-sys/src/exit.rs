//! What a process does when it ends in order, by `exit` or by returning from `main`:
//! [atexit(3)](https://man7.org/linux/man-pages/man3/atexit.3.html), which runs while other threads still do.
//!
//! Nothing runs at `_exit`, `quick_exit`, `abort`, a signal or an exec, nor in a forked child for what its parent has registered. What must be done at
//! any end is the kernel's: see [`lease`](crate::lease).

#![allow(unsafe_code)] // atexit

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use crate::fork;

struct Action {
    generation: u32,
    run: Box<dyn Fn() + Send>,
}

/// By number. Locked with forks kept out, so that no child finds it locked; whoever has both locks calls nothing that takes either.
static ACTIONS: Mutex<BTreeMap<u64, Action>> = Mutex::new(BTreeMap::new());

/// Something that is done at the end of the process, unless this is dropped before.
#[derive(Debug)]
pub struct AtExit {
    number: u64,
    generation: u32,
}

impl AtExit {
    /// Has `run` called at the end. It opens and closes no lease and makes no mapping, and is quick: forks wait for it. It is called once at most, on
    /// the thread that ends the process; not where another thread keeps forks out just then for long.
    pub fn new(run: impl Fn() + Send + 'static) -> io::Result<AtExit> {
        static INSTALLED: AtomicBool = AtomicBool::new(false);
        static INSTALLING: Mutex<()> = Mutex::new(());
        fork::try_install()?;
        let no_fork = fork::no_fork();
        fork::once(&INSTALLED, &INSTALLING, || {
            // SAFETY: it may be called at any time, and does not unwind.
            match unsafe { libc::atexit(ended) } {
                0 => 0,
                _ => libc::ENOMEM,
            }
        })?;
        let generation = fork::generation();
        let action = Action { generation, run: Box::new(run) };
        let mut actions = ACTIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let number = actions.last_key_value().map_or(0, |(number, _)| number + 1);
        actions.insert(number, action);
        drop(actions);
        drop(no_fork);
        Ok(AtExit { number, generation })
    }
}

impl Drop for AtExit {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            return; // its parent's
        }
        let no_fork = fork::no_fork();
        let mut actions = ACTIONS.lock().unwrap_or_else(PoisonError::into_inner);
        let action = actions.remove(&self.number);
        drop(actions);
        drop(no_fork);
        drop(action); // and with it what it owns
    }
}

extern "C" fn ended() {
    let Some(no_fork) = fork::try_no_fork() else { return };
    let actions = ACTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    for action in actions.values().filter(|action| action.generation == fork::generation()) {
        (action.run)();
    }
    drop(actions);
    drop(no_fork);
}
