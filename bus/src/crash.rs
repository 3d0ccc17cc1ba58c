//! Named places at which a process may be killed, so that models and tests can kill it there.
//!
//! In every other build a crash point is nothing at all.

#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

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
