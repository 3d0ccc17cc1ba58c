//! One word in a topic's or lock's shared memory: how often somebody joined, and whether it is removed.
//!
//! ```text
//! join:    lease taken; joins += 1; retired already? lease given back, told so
//! remove:  seen = joins; nobody has a lease? else in use; joins: seen -> (seen, retired); changed: look again
//! ```
//!
//! Both sides do their part before they look at the other's, so of a joiner and a remover at least one sees the other. A join before the remover's exchange
//! has changed the word, and the exchange fails; a join after it finds the bit. The decision is one exchange, made before anything happens to a name
//! or file, and nobody ever takes it back: a remover that is killed or stopped afterwards is finished by whoever comes next.

use crate::atomics::{Acquire, AtomicU64, Relaxed, Release};
use crate::crash;

/// The bit that says: removed. The rest counts.
const RETIRED: u64 = 1;
/// One join.
const JOIN: u64 = 2;
/// How often a remover looks while others join and leave again.
const LOOKS: u32 = 100;

/// The word: `joins << 1 | retired`.
#[repr(transparent)]
pub(crate) struct Joins(AtomicU64);

/// What a removal without force has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is removed now: by the caller.
    Mine,
    /// It was removed already.
    Made,
    /// So many take part, or more.
    InUse(usize),
}

impl Joins {
    #[cfg(loom)]
    pub(crate) fn new() -> Joins {
        Joins(AtomicU64::new(0))
    }

    /// Whether such a word, read from the file, says that it is removed.
    #[cfg(not(loom))]
    pub(crate) fn says_retired(word: u64) -> bool {
        word & RETIRED != 0
    }

    /// Whether the topic is removed. It may be heard late, and is asked for again.
    #[inline(always)]
    pub(crate) fn is_retired(&self) -> bool {
        self.0.load(Acquire) & RETIRED != 0 // [notice]
    }

    /// The same for who needs no order behind it.
    #[inline(always)]
    pub(crate) fn is_retired_relaxed(&self) -> bool {
        self.0.load(Relaxed) & RETIRED != 0
    }

    /// Makes whoever has just taken a lease count. `false`: it is removed, and the lease has to be given back.
    pub(crate) fn join(&self) -> bool {
        let before = self.0.fetch_add(JOIN, Release); // [join]: that the lease is taken
        before & RETIRED == 0
    }

    /// Removes it, whoever takes part.
    #[cfg(not(loom))]
    pub(crate) fn retire(&self) {
        self.0.fetch_or(RETIRED, Release); // [notice]
    }

    /// Removes it unless `users` finds somebody: it counts the leases that are held.
    pub(crate) fn retire_unless_used<E>(
        &self,
        mut users: impl FnMut() -> Result<usize, E>,
    ) -> Result<Decision, E> {
        for _ in 0..LOOKS {
            let seen = self.0.load(Acquire); // [join]: before the leases are asked for
            if seen & RETIRED != 0 {
                return Ok(Decision::Made);
            }
            let users = users()?;
            if users > 0 {
                return Ok(Decision::InUse(users));
            }
            crash::point("remove.decided");
            // [notice]
            if self.0.compare_exchange(seen, seen | RETIRED, Release, Relaxed).is_ok() {
                return Ok(Decision::Mine);
            }
        }
        Ok(Decision::InUse(1)) // somebody joined each time
    }
}
