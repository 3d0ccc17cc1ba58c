//! Who makes the value of a once cell: one at a time, with the lock of the object, until it is there.

use crate::atomics::{Acquire, Release};
use crate::crash;
use crate::sync::lock::{self, Step};
use crate::sync::region::SyncRegion;
use crate::sync::seat::Seat;

/// `value` of the object when the data is there.
const THERE: u64 = 1;

/// Whether the data is there: nobody writes it any more.
#[inline]
pub(crate) fn is_there(region: &SyncRegion) -> bool {
    region.control().main.0.value.load(Acquire) == THERE // [once]: the data
}

/// Waits for whoever makes it until `deadline_ns`, and has `make` write the data where it is not there then. `Locked` where it is there in the end; else
/// what `lock` says, with [`Step::TimedOut`] for `Held`. `is_another` says that this is not the process that has locked, but a child of it.
pub(crate) fn make<E>(
    seat: &Seat,
    deadline_ns: u64,
    is_another: impl Fn() -> bool,
    make: impl FnOnce() -> Result<(), E>,
) -> Result<Step, E> {
    let locked = match lock::lock(seat, deadline_ns) {
        // What it left half written nobody has seen.
        Step::Locked { owner_died } => {
            if owner_died {
                lock::mark_consistent(seat);
            }
            Step::Locked { owner_died }
        }
        Step::Held(_) => return Ok(Step::TimedOut),
        refused => return Ok(refused),
    };
    let _unlock = Unlock { seat, is_another };
    if !is_there(&seat.region) {
        make()?;
        crash::point("sync.once.written");
        seat.region.control().main.0.value.store(THERE, Release); // [once]
    }
    Ok(locked)
}

/// Unlocks, also where an initialiser panics.
struct Unlock<'a, F: Fn() -> bool> {
    seat: &'a Seat,
    is_another: F,
}

impl<F: Fn() -> bool> Drop for Unlock<'_, F> {
    fn drop(&mut self) {
        // In a model a panic is a death.
        let is_dead = cfg!(loom) && std::thread::panicking();
        if !is_dead && !(self.is_another)() {
            lock::unlock(self.seat);
        }
    }
}
