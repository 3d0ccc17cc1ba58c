//! A handle's part in an object: its seat, its life word, and the fork that it does not survive.

use std::io;
use std::sync::Arc;

use shmbus_sys::fork;
use shmbus_sys::lease::Lease;
use shmbus_sys::life::{LIVES_MAX, Life};
use shmbus_sys::{clock, probe, process};

use std::os::fd::AsFd;

use crate::atomics::Relaxed;
use crate::crash;
use crate::directory::LIVE;
use crate::layout::PAGE;
use crate::sync::error::SyncOpenError;
use crate::sync::layout::ENTRIES_OFFSET;
use crate::sync::object::{Object, refused, refused_in};
use crate::sync::seat::{GiveBack, Seat};

/// How often one looks for an entry: those of the dead are in the hands of who buries them for a moment.
const TRIES: u32 = 20;

/// A member of an object. Dropped, it gives back what it has there, and its entry. It belongs to the thread that made it (`Life`).
pub(crate) struct Member {
    /// Ended before the lease, which the seat has.
    life: Option<Life>,
    pub(crate) seat: Seat,
    fork_generation: u32,
}

impl Member {
    /// Joins `object`. `give_back` is called for this member, and by it for others that are dead.
    pub(crate) fn join(object: Object, give_back: GiveBack) -> Result<Member, SyncOpenError> {
        let Object { name, region, ctl, directory, .. } = object;
        let failed = |action| {
            let (name, directory) = (&*name, &directory);
            move |source| refused_in(name, directory, action, source)
        };
        // Each time: a filter may have come meanwhile.
        if let Err(source) = probe::futex_waitv() {
            return Err(SyncOpenError::SystemCall { name, call: "futex_waitv", source });
        }
        let region = Arc::new(region);
        for _ in 0..TRIES {
            let lease = Lease::open_at(directory.as_fd(), LIVE).map_err(failed("open live"))?;
            let seat = Seat::take(Arc::clone(&region), lease, give_back);
            let Some(seat) = seat.map_err(failed("take the lease of a member"))? else {
                std::thread::yield_now();
                continue;
            };
            if !region.control().main.0.joins.join() {
                return Err(SyncOpenError::Removed { name });
            }
            let entry = region.entry(seat.index);
            entry.pid.store(process::pid(), Relaxed);
            entry.joined_ns.store(clock::realtime_ns(), Relaxed);
            let page = ENTRIES_OFFSET + u64::from(seat.index.0) * PAGE;
            let mut member = Member { life: None, seat, fork_generation: fork::generation() };
            let life = Life::begin(ctl.as_fd(), page).map_err(|source| match source.kind() {
                io::ErrorKind::QuotaExceeded => {
                    SyncOpenError::Thread { name: name.clone(), max: LIVES_MAX }
                }
                _ => refused(&name, "have the kernel watch this thread", source),
            })?;
            member.life = Some(life);
            crash::point("sync.join.life");
            member.seat.activate();
            return Ok(member);
        }
        Err(SyncOpenError::Full { name, max: region.members_max() })
    }

    /// Whether this is a forked child, in which nothing of it exists.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        self.fork_generation != fork::generation()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.is_forked() {
            return;
        }
        if !self.seat.is_its_own() {
            std::mem::forget(self.life.take()); // the word may be the next owner's
            return;
        }
        self.seat.leave();
        self.life = None;
        crash::point("sync.leave.dead");
        // Its lease ends with the seat.
    }
}
