//! The format of a synchronisation object's only file, `ctl`: a header page, a page of words, an entry page for each member, the data.
//!
//! As in the format of topics (`crate::layout`): the header is written before the object has a name and only read with `pread`; whatever
//! changes is an atomic; a change here changes [`FIELDS`], `docs/layout.md` and [`SYNC_VERSION`] in the same commit.

use crate::atomics::{AtomicU32, AtomicU64, Word};
use crate::joins::Joins;
use crate::layout::Line;
#[cfg(not(loom))]
use crate::layout::{Field, PAGE, fields};

/// First bytes of the file.
pub(crate) const SYNC_MAGIC: [u8; 8] = *b"shmbus-s";
/// Version of everything in this file.
pub(crate) const SYNC_VERSION: u32 = 1;
/// Where [`SyncControl`] stands.
#[cfg(not(loom))]
pub(crate) const CONTROL_OFFSET: u64 = PAGE;
/// Where the entries stand, one page each; the data behind them.
#[cfg(not(loom))]
pub(crate) const ENTRIES_OFFSET: u64 = 2 * PAGE;
/// Most members of an object: who sleeps watches two words and the life words of all others, 128 at most.
pub(crate) const MEMBERS_LIMIT: u32 = 126;
/// Primitive's own cells in an entry.
pub(crate) const CELLS: usize = 7;

/// Page 0. Immutable; read once and checked.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct SyncHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) byte_order: u32,
    /// Random; different in every object.
    pub(crate) instance: u64,
    /// Length of the file in bytes.
    pub(crate) len: u64,
    /// Wall clock, nanoseconds since 1970; for people.
    pub(crate) created_ns: u64,
    /// What it is: `SyncKind`.
    pub(crate) kind: u32,
    /// Entries.
    pub(crate) members_max: u32,
    /// Size and alignment of the data; 0 and 1 where there is none.
    pub(crate) data_size: u64,
    pub(crate) data_align: u64,
    /// What its creator chose: parties of a barrier, permits that a semaphore began with, 1 for an event that only a reset resets; else 0.
    pub(crate) parameter: u64,
}

/// Page 1; written by all.
#[repr(C)]
pub(crate) struct SyncControl {
    /// The primitive's own: what its fast path touches.
    pub(crate) main: Line<MainWords>,
    /// `notices << 8 | mark`: entries below `mark` have or had an owner; the rest is raised when all sleepers are to look.
    pub(crate) roster: Line<Word>,
    /// `changes << 1 | somebody may sleep`: what is waited for, other than the lock.
    pub(crate) turn: Line<Word>,
}

#[repr(C)]
pub(crate) struct MainWords {
    pub(crate) word: Word,
    pub(crate) state: AtomicU32,
    /// Whether the object is removed, and how often somebody joined: see `joins.rs`.
    pub(crate) joins: Joins,
    /// The primitive's own, where it needs more.
    pub(crate) value: AtomicU64,
}

/// One member. 4096 bytes, because its owner maps the page once more: see `shmbus_sys::life`.
#[repr(C, align(128))]
pub(crate) struct SyncEntry {
    /// `generation << 8 | kind`, as in a topic: 0 free, 1 joining, 7 member, 5 dead, 6 dead and its things given back.
    pub(crate) state: AtomicU64,
    /// The primitive's own.
    pub(crate) cells: [AtomicU64; CELLS],
    /// For people.
    pub(crate) pid: AtomicU32,
    pub(crate) reserved_pid: u32,
    pub(crate) joined_ns: AtomicU64,
    pub(crate) reserved: [u64; 499],
    pub(crate) reserved_life: u32,
    /// 128: for musl, in which a thread that ends takes what stands here for the type of a mutex; see `shmbus_sys::life`.
    pub(crate) shared: AtomicU32,
    /// While the owner lives its thread id and `FUTEX_WAITERS`; when its thread ends the kernel writes `FUTEX_OWNER_DIED`.
    pub(crate) life: Word,
    pub(crate) reserved_end: [u32; 3],
}

/// Every shared field, in order; `docs/layout.md` is checked against it, with those of topics.
#[cfg(not(loom))]
#[cfg_attr(not(test), expect(dead_code))]
pub(crate) const FIELDS: &[Field] = fields! {
    SyncHeader {
        magic, version, byte_order, instance, len, created_ns, kind, members_max, data_size, data_align,
        parameter,
    }
    SyncControl { main, roster, turn }
    MainWords { word, state, joins, value }
    SyncEntry { state, cells, pid, joined_ns, shared, life }
};

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<SyncHeader>() <= PAGE as usize);
    assert!(size_of::<SyncControl>() <= PAGE as usize);
    assert!(size_of::<SyncEntry>() == PAGE as usize);
    assert!(core::mem::offset_of!(SyncEntry, life) == shmbus_sys::life::WORD_OFFSET);
    assert!(core::mem::offset_of!(SyncEntry, shared) == shmbus_sys::life::SHARED_OFFSET);
    assert!(core::mem::offset_of!(SyncEntry, pid) == 64, "what others read is one cache line");
    assert!(MEMBERS_LIMIT as usize + 2 == shmbus_sys::futex::WORDS_MAX);
};
