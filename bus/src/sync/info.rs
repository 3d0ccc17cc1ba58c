//! What a synchronisation object is and who has it, for people and tools. Reads; changes nothing.

use crate::atomics::Relaxed;
use crate::liveness::Liveness;
use crate::region::EntryIndex;
use crate::registry::{Kind, State};
use crate::sync::error::SyncOpenError;
use crate::sync::event::Reset;
use crate::sync::lock::{self, CONSISTENT, INCONSISTENT};
use crate::sync::object::{Object, SyncKind};
use crate::sync::{gather, maker, permits, rw, signal, turn};

/// How often one looks again where the lock goes from one to the next meanwhile.
const TRIES: u32 = 4;

/// A synchronisation object at one moment. The words are read one after the other while the object is in use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncInfo {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SyncKind,
    /// What it says, by what it is.
    pub state: SyncState,
    /// Who has it, by [`SyncMember::entry`]: the owner of a mutex, the writer of an rwlock, who makes the value of a cell. Where a living one has it.
    pub holder: Option<u32>,
    /// Whether somebody waits for it, or did not long ago: who gives up takes the note of it not back.
    pub waiting: bool,
    /// Handles that may be open at the same time; 0: those of this one are counted by nobody (a condition variable).
    pub members_max: u32,
    /// Bytes of the data in it.
    pub data_size: u64,
    /// Bytes of its file.
    pub memory: u64,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Whether somebody living has a handle of it, of a condition variable too; `None`: it cannot be told.
    pub in_use: Option<bool>,
    /// Who has a handle of it, dead ones that nobody has buried yet among them.
    pub members: Vec<SyncMember>,
}

/// What a synchronisation object says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncState {
    /// Of a [`RobustMutex`](crate::sync::RobustMutex).
    Mutex {
        /// What it protects.
        condition: Condition,
    },
    /// Of a [`Condvar`](crate::sync::Condvar): nothing.
    Condvar,
    /// Of a [`Semaphore`](crate::sync::Semaphore).
    Semaphore {
        /// Permits in all.
        permits: u64,
        /// Those that nobody has; the rest is [`SyncMember::held`].
        free: u64,
    },
    /// Of an [`RwLock`](crate::sync::RwLock).
    RwLock {
        /// What it protects.
        condition: Condition,
        /// How many members read.
        readers: u32,
    },
    /// Of a [`Barrier`](crate::sync::Barrier).
    Barrier {
        /// How many it waits for.
        parties: u32,
        /// How many have arrived and wait.
        arrived: u32,
        /// Whether a member died, or it is just reset.
        broken: bool,
    },
    /// Of an [`Event`](crate::sync::Event).
    Event {
        /// How it is reset.
        reset: Reset,
        /// Whether it is set.
        set: bool,
    },
    /// Of a [`OnceCell`](crate::sync::OnceCell).
    Once {
        /// Whether the value is there.
        made: bool,
    },
}

/// What can be said of what a lock protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is as its last owner has left it, on purpose.
    Consistent,
    /// An owner died with the lock (or panicked), and nobody has said yet that it is consistent. The next owner is told, or was.
    OwnerDied,
    /// A successor has given it up: nobody gets the lock again.
    NotRecoverable,
}

/// A handle of a synchronisation object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncMember {
    /// Number of its entry.
    pub entry: u32,
    /// Its process, as it stated it itself, in its own pid namespace.
    pub pid: u32,
    /// Whether its process lives: whether the kernel still has its lease.
    pub liveness: Liveness,
    /// Permits that it has of a semaphore, reads of an rwlock; 1 of who is the [`holder`](SyncInfo::holder).
    pub held: u64,
    /// When it joined, in nanoseconds since 1970.
    pub joined_ns: u64,
}

impl SyncInfo {
    /// Reads what the mapping says. `liveness` asks whether the owner of an entry lives.
    pub(crate) fn read(
        object: &Object,
        liveness: impl Fn(u32) -> Liveness,
    ) -> Result<SyncInfo, SyncOpenError> {
        let is_held = |entry| !liveness(entry).is_dead();
        let Object { name, kind, header, region, .. } = object;
        let main = &region.control().main.0;
        let has_lock = !matches!(kind, SyncKind::Condvar | SyncKind::Barrier | SyncKind::Event);
        let (word, owner) = match has_lock {
            true => owner(object, is_held),
            false => (main.word.word().load(Relaxed), Owner::Nobody),
        };
        let condition = match main.state.load(Relaxed) {
            CONSISTENT if owner != Owner::Dead => Condition::Consistent,
            CONSISTENT | INCONSISTENT => Condition::OwnerDied,
            _ => Condition::NotRecoverable,
        };
        let holder = match owner {
            Owner::Living(entry) if *kind != SyncKind::Semaphore => Some(entry),
            _ => None, // that of a semaphore has it between two of its instructions
        };
        let members = region.entries(region.members_max()).filter_map(|index| {
            let entry = region.entry(index);
            let state = State::of(entry.state.load(Relaxed));
            let liveness = match state.kind {
                Kind::Free | Kind::Joining | Kind::Counted => return None,
                Kind::Member => liveness(index.0),
                _ => Liveness::Dead,
            };
            let held = match kind {
                SyncKind::Semaphore => permits::held(region, index),
                SyncKind::RwLock if holder != Some(index.0) => rw::reads(region, index),
                _ => u64::from(holder == Some(index.0)),
            };
            let (pid, joined_ns) = (entry.pid.load(Relaxed), entry.joined_ns.load(Relaxed));
            Some(SyncMember { entry: index.0, pid, liveness, held, joined_ns })
        });
        let members: Vec<SyncMember> = members.collect();
        let reads = |member: &&SyncMember| member.held > 0 && holder != Some(member.entry);
        let state = match kind {
            SyncKind::Mutex => SyncState::Mutex { condition },
            SyncKind::Condvar => SyncState::Condvar,
            SyncKind::Semaphore => {
                let permits = main.value.load(Relaxed);
                SyncState::Semaphore { permits, free: permits::value(region) }
            }
            SyncKind::RwLock => {
                let readers = members.iter().filter(reads).count() as u32;
                SyncState::RwLock { condition, readers }
            }
            SyncKind::Barrier => {
                let parties = object.header.parameter as u32; // checked: at most `members_max`
                let broken = gather::is_broken(region);
                SyncState::Barrier { parties, arrived: gather::arrived(region), broken }
            }
            SyncKind::Event => {
                let reset = match signal::is_manual(region) {
                    true => Reset::Manual,
                    false => Reset::Auto,
                };
                SyncState::Event { reset, set: signal::is_set(region) }
            }
            SyncKind::Once => SyncState::Once { made: maker::is_there(region) },
        };
        // Handles of a condvar share the first byte.
        let handles = || members.iter().map(|member| member.liveness);
        let in_use = match kind {
            SyncKind::Condvar => liveness(0).known(),
            _ if handles().any(Liveness::is_alive) => Some(true),
            _ => handles().all(Liveness::is_dead).then_some(false),
        };
        let waits = match kind {
            SyncKind::Condvar => word & turn::SLEEPERS != 0,
            SyncKind::Semaphore | SyncKind::Barrier | SyncKind::Event => false,
            _ => word & lock::WAITERS != 0,
        };
        let waiting = waits || region.control().turn.0.word().load(Relaxed) & turn::SLEEPERS != 0;
        Ok(SyncInfo {
            name: name.clone(),
            kind: *kind,
            state,
            holder,
            waiting,
            members_max: header.members_max,
            data_size: header.data_size,
            memory: header.len,
            created_ns: header.created_ns,
            in_use,
            members,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Living(u32),
    Dead,
}

/// Who a lock's word names, and the word.
fn owner(object: &Object, is_held: impl Fn(u32) -> bool) -> (u32, Owner) {
    let region = &object.region;
    let word = region.control().main.0.word.word();
    let mut seen = word.load(Relaxed);
    for _ in 0..TRIES {
        let owner = match lock::owner(seen, region.members_max()) {
            None if seen & !lock::WAITERS == 0 => return (seen, Owner::Nobody),
            None => Owner::Dead,
            Some(EntryIndex(entry)) => {
                let state = State::of(region.entry(EntryIndex(entry)).state.load(Relaxed));
                // An entry is used again only when the word names it no longer.
                match state.kind == Kind::Member && is_held(entry) {
                    true => return (seen, Owner::Living(entry)),
                    false => Owner::Dead,
                }
            }
        };
        // It may have been given back, and its owner have left, meanwhile.
        let now = word.load(Relaxed);
        if now & !lock::WAITERS == seen & !lock::WAITERS {
            return (now, owner);
        }
        seen = now;
    }
    (seen, Owner::Nobody) // from one living one to the next
}
