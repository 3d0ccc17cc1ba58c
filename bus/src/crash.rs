//! Named places at which a process may be killed, so that models and tests can kill it there.
//!
//! | build | a crash point |
//! |---|---|
//! | any | is nothing at all |
//! | `--cfg loom` | ends the thread that a model kills there |
//! | `--cfg shmbus_crash` | kills or stops the process, where its environment asks for it: what `ci/crash` builds |
//!
//! `docs/crash-matrix.md` has a row for each.

#[cfg(not(any(loom, shmbus_crash)))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

#[cfg(all(shmbus_crash, not(loom)))]
pub(crate) use real::point;

#[cfg(all(shmbus_crash, not(loom)))]
mod real {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use rustix::process::{Signal, getpid, kill_process};

    /// What the environment asks for.
    struct Wish {
        name: String,
        /// The passing that it is about, from 1.
        at: u64,
        signal: Signal,
        passings: AtomicU64,
    }

    /// `SHMBUS_CRASH_AT=name` or `name:n`, the n-th time that the process comes there; `SHMBUS_CRASH_BY=stop` stops it instead.
    fn wish() -> Option<Wish> {
        let at = std::env::var("SHMBUS_CRASH_AT").ok()?;
        let (name, at) = at.split_once(':').unwrap_or((&at, "1"));
        let stops = std::env::var_os("SHMBUS_CRASH_BY").is_some_and(|by| by == "stop");
        let signal = if stops { Signal::STOP } else { Signal::KILL };
        let (name, at) = (name.to_owned(), at.parse().ok()?);
        Some(Wish { name, at, signal, passings: AtomicU64::new(0) })
    }

    pub(crate) fn point(name: &'static str) {
        static WISH: OnceLock<Option<Wish>> = OnceLock::new();
        let Some(wish) = WISH.get_or_init(wish) else { return };
        if wish.name == name && wish.passings.fetch_add(1, Relaxed) + 1 == wish.at {
            // A signal to the own process: it has come when the call returns.
            let _ = kill_process(getpid(), wish.signal);
        }
    }
}

#[cfg(loom)]
pub(crate) use modelled::{killed_at, point};

#[cfg(loom)]
mod modelled {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    loom::thread_local! {
        static DIES_AT: Cell<Option<&'static str>> = Cell::new(None);
    }

    struct Killed;

    pub(crate) fn point(name: &'static str) {
        if DIES_AT.with(|at| at.get() == Some(name)) {
            resume_unwind(Box::new(Killed));
        }
    }

    /// Runs `process` and kills it when it comes to the point `name`. `None` = it was killed.
    pub(crate) fn killed_at<R>(name: &'static str, process: impl FnOnce() -> R) -> Option<R> {
        DIES_AT.with(|at| at.set(Some(name)));
        let end = catch_unwind(AssertUnwindSafe(process));
        DIES_AT.with(|at| at.set(None));
        match end {
            Ok(value) => Some(value),
            Err(cause) if cause.is::<Killed>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }
}
