//! The format: every byte that processes share, and nothing else.
//!
//! A topic is three files. `data` holds an immutable [`DataHeader`] page, the [`Stream`] page with the head, the block
//! table and the slots; publishers write it, subscribers map it read-only. `ctl` holds a [`ControlHeader`]
//! page, the [`Control`] page (bells, roster, notices, recovery lock) and one [`Entry`] per participant, all of whom
//! map it read-write. Observers map both read-only. `live` is empty: locks on its bytes say who lives.
//!
//! Header pages are written before the topic has a name and are only ever read with `pread`, into private
//! memory. Everything that changes is an atomic. All integers are little-endian; nothing here has the
//! width of a pointer. A change of this file changes [`FIELDS`], `docs/layout.md` (checked by a
//! test) and [`VERSION`] in the same commit.

use crate::atomics::{AtomicU32, AtomicU64, Futex, Word};
use crate::joins::Joins;

/// First bytes of `data`.
pub(crate) const DATA_MAGIC: [u8; 8] = *b"shmbus-d";
/// First bytes of `ctl`.
pub(crate) const CONTROL_MAGIC: [u8; 8] = *b"shmbus-c";
/// Version of everything in this file.
pub(crate) const VERSION: u32 = 1;
/// Reads as another number on a machine of the other byte order.
pub(crate) const BYTE_ORDER: u32 = 0x0102_0304;

/// Unit of the regions of a file.
pub(crate) const PAGE: u64 = 4096;
/// Where the [`Stream`] stands in `data`.
pub(crate) const STREAM_OFFSET: u64 = PAGE;
/// Where the block table stands in `data`.
pub(crate) const TABLE_OFFSET: u64 = 2 * PAGE;
/// Where [`Control`] stands in `ctl`.
pub(crate) const CONTROL_OFFSET: u64 = PAGE;
/// Where the participant entries stand in `ctl`.
pub(crate) const ENTRIES_OFFSET: u64 = 2 * PAGE;

/// Where the [`Grant`]s stand in `ctl` of a guarded topic: behind [`Control`], in its page.
pub(crate) const GRANTS_OFFSET: u64 = CONTROL_OFFSET + 2048;
/// Most subscribers of a guarded topic: one grant each.
pub(crate) const GUARDED_LIMIT: u32 = 64;
/// The byte of a participant's page, in a guarded topic, whose lock says that its owner is alive.
#[cfg(not(loom))]
pub(crate) const PAGE_LEASE: u64 = 0;

/// The byte of `live` whose lock says that the creator is still building.
pub(crate) const CREATOR_LEASE: u64 = 0;
/// The byte of `live` whose lock says that the owner of entry 0 is alive; entry `i` has byte `ENTRY_LEASES + i`.
pub(crate) const ENTRY_LEASES: u64 = 1;

/// Most subscribers of a topic.
pub(crate) const SUBSCRIBERS_LIMIT: u32 = 256;
/// Most publishers of a topic.
pub(crate) const PUBLISHERS_LIMIT: u32 = 64;
/// Hold cells of one entry: one bit each in [`Entry::held`].
pub(crate) const HOLD_CELLS: usize = if cfg!(loom) { 2 } else { 64 };
/// Longest type name, in bytes.
pub(crate) const TYPE_NAME_MAX: usize = 256;
/// A slot never shares a cache line with another one.
pub(crate) const SLOT_ALIGN: u64 = 64;

/// 128 bytes of one writer: two cache lines, because processors fetch them in pairs.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// Page 0 of `data`. Immutable; read once at attach and checked.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct DataHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) byte_order: u32,
    /// Random; the same in both files of a topic and different in every topic.
    pub(crate) instance: u64,
    /// Length of `data`, and of `ctl`, in bytes.
    pub(crate) data_len: u64,
    pub(crate) control_len: u64,
    /// Wall clock, nanoseconds since 1970; for people.
    pub(crate) created_ns: u64,
    /// Messages retained: `blocks * block_len`.
    pub(crate) depth: u64,
    pub(crate) block_len: u64,
    pub(crate) slot_size: u64,
    pub(crate) blocks: u32,
    pub(crate) spares: u32,
    pub(crate) publishers_max: u32,
    pub(crate) subscribers_max: u32,
    pub(crate) hold_blocks: u32,
    /// [`PUBLISHERS_EXCLUSIVE`] or [`PUBLISHERS_SHARED`].
    pub(crate) publishers: u32,
    /// Largest payload in bytes; the only one where `payload_kind` is [`PAYLOAD_FIXED`].
    pub(crate) payload_max: u32,
    pub(crate) payload_align: u32,
    pub(crate) payload_offset: u32,
    /// [`PAYLOAD_FIXED`], [`PAYLOAD_BYTES`] or [`PAYLOAD_SEQUENCE`].
    pub(crate) payload_kind: u32,
    /// 1 where slots carry the time of their commit.
    pub(crate) timestamp: u32,
    /// How publishers and sleepers meet: `options::Wake`.
    pub(crate) wake: u32,
    /// After how long a stalled claim of a shared publisher is revoked; 0 = never.
    pub(crate) claim_timeout_ns: u64,
    /// Version of the message type; 0 where it is not a struct.
    pub(crate) type_version: u32,
    pub(crate) type_name_len: u32,
    /// Hash over name, version, size, alignment and fields of the message type; 0 of bytes.
    pub(crate) layout_hash: u64,
    /// Where the schema text stands in `data`, behind the block table, and its length; both 0 of bytes.
    pub(crate) schema_offset: u64,
    pub(crate) schema_len: u64,
    pub(crate) type_name: [u8; TYPE_NAME_MAX],
    /// 1 where the topic is guarded: each entry in a file and a page of its own.
    pub(crate) guarded: u32,
    pub(crate) reserved: [u8; 3676],
}

/// `publishers`: one at a time, without a read-modify-write for a message.
pub(crate) const PUBLISHERS_EXCLUSIVE: u32 = 1;
/// `publishers`: up to `publishers_max` at once.
pub(crate) const PUBLISHERS_SHARED: u32 = 2;
/// `payload_kind`: every message has `payload_max` bytes.
pub(crate) const PAYLOAD_FIXED: u32 = 1;
/// `payload_kind`: a message has up to `payload_max` bytes.
pub(crate) const PAYLOAD_BYTES: u32 = 2;
/// `payload_kind`: a message is a whole number of what the schema describes, up to `payload_max` bytes.
pub(crate) const PAYLOAD_SEQUENCE: u32 = 3;

/// Page 0 of `ctl`. Immutable; read once at attach and checked.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct ControlHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) byte_order: u32,
    pub(crate) instance: u64,
    pub(crate) publishers_max: u32,
    pub(crate) subscribers_max: u32,
}

/// Page 1 of `data`; written by publishers.
#[repr(C)]
pub(crate) struct Stream {
    /// Next sequence to be committed (exclusive) or claimed (shared).
    pub(crate) head: Line<AtomicU64>,
}

/// The header of a slot; the payload follows at `payload_offset`.
#[repr(C)]
pub(crate) struct Slot {
    /// `sequence << 2 | kind`; kind 1 = message, 2 = abandoned, 0 = never written.
    pub(crate) stamp: AtomicU64,
    /// Length of the payload in bytes.
    pub(crate) len: AtomicU32,
    /// Entry of the publisher, where publishers are shared.
    pub(crate) publisher: AtomicU32,
    /// Monotonic nanoseconds at commit; only there (and else payload) where the topic has timestamps.
    pub(crate) timestamp_ns: AtomicU64,
    #[cfg(loom)]
    pub(crate) payload: loom::cell::UnsafeCell<u64>,
    /// The payload of models in which an observer copies it while it may be written.
    #[cfg(loom)]
    pub(crate) words: [AtomicU64; 1],
}

/// Bytes of a slot header without and with a timestamp.
pub(crate) const SLOT_HEADER: u64 = 16;
pub(crate) const SLOT_HEADER_TIMESTAMP: u64 = 24;

/// Page 1 of `ctl`; written by all.
#[repr(C)]
pub(crate) struct Control {
    /// Subscribers sleep here; whoever commits rings it.
    pub(crate) subscribers_bell: Line<Bell>,
    /// Publishers that wait for reliable subscribers sleep here.
    pub(crate) publishers_bell: Line<Bell>,
    /// Raised by every participant that starts to count, after its entry says so.
    pub(crate) roster: Line<AtomicU64>,
    pub(crate) notices: Line<Notices>,
    pub(crate) recovery: Line<RecoveryLock>,
}

/// An event count: a futex word, two bits of which say whether somebody sleeps.
#[repr(C)]
pub(crate) struct Bell {
    pub(crate) word: Word,
}

/// What everybody attached must hear of, read at each opening of a block and before each sleep.
#[repr(C)]
pub(crate) struct Notices {
    /// Whether the topic is removed, and how often somebody joined: see `joins.rs`.
    pub(crate) joins: Joins,
    /// A subscriber that may not write `data` is stuck: `sequence << 1 | revoke`, + 1; 0 = nobody.
    pub(crate) repair: AtomicU64,
}

/// The lock, and the record that it protects. 80 bytes of its line of 128.
#[repr(C)]
pub(crate) struct RecoveryLock {
    /// For the kernel, and to sleep on: the thread id of who has or had the lock, and `FUTEX_WAITERS`, `FUTEX_OWNER_DIED`.
    pub(crate) word: Futex,
    pub(crate) reserved: u32,
    /// Who has it: `generation << 16 | entry + 1`; 0 = nobody.
    pub(crate) owner: AtomicU64,
    /// When the last sweep of all subscribers began, monotonic.
    pub(crate) swept_ns: AtomicU64,
    /// How many owners were declared dead; the last of them is in `last_deaths[deaths % 2]`.
    pub(crate) deaths: AtomicU64,
    pub(crate) last_deaths: [Death; 2],
}

/// One of the last two deaths of the record.
#[repr(C)]
pub(crate) struct Death {
    /// The how manieth it is; 0 = being written, or none.
    pub(crate) number: AtomicU64,
    pub(crate) generation: AtomicU64,
    pub(crate) entry: AtomicU32,
    pub(crate) pid: AtomicU32,
}

/// One participant. Publishers' entries come first, subscribers' after them.
#[repr(C, align(128))]
pub(crate) struct Entry {
    /// `generation << 8 | kind`: see `registry.rs`.
    pub(crate) state: AtomicU64,
    /// Physical block in which the owner reads or writes, + 1; 0 = none.
    pub(crate) pin: AtomicU64,
    /// Shared publishers: the second block while a revoked loan is moved.
    pub(crate) second_pin: AtomicU64,
    /// Reliable subscribers: everything below was received.
    pub(crate) cursor: AtomicU64,
    /// Shared publishers: the sequence about to be taken or taken and not committed, + 1; 0 = none.
    pub(crate) claim: AtomicU64,
    /// One bit for each hold cell in use.
    pub(crate) held: AtomicU64,
    /// `ReliableFor`: how long the owner may hold publishers up; 0 = without end.
    pub(crate) patience_ns: AtomicU64,
    pub(crate) reserved: [u64; 9],
    /// For people: the owner, and how it gets on (updated at block boundaries).
    pub(crate) pid: AtomicU32,
    pub(crate) reserved_pid: u32,
    pub(crate) joined_ns: AtomicU64,
    pub(crate) position: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) reserved_stats: [u64; 12],
    /// Physical block of each hold in `held`, + 1.
    pub(crate) holds: [AtomicU32; HOLD_CELLS],
}

/// The page of one participant of a guarded topic: its entry, and bells of its own, so that nobody writes where another one sleeps.
#[repr(C)]
pub(crate) struct GuardedPage {
    pub(crate) entry: Entry,
    /// Its owner, a subscriber, sleeps here.
    pub(crate) subscribers_bell: Line<Bell>,
    /// A publisher that waits for its owner sleeps here.
    pub(crate) publishers_bell: Line<Bell>,
}

/// What a subscriber of a guarded topic may be, behind [`Control`] in `ctl`, which subscribers only read. Written by the broker, and by publishers
/// where they evict.
#[repr(C)]
pub(crate) struct Grant {
    /// `generation << 8 | kind`, as in [`Entry::state`]: the most that the entry of this generation may be; 0 = nobody.
    pub(crate) state: AtomicU64,
    /// How long its owner may hold publishers up, whatever its entry says.
    pub(crate) patience_ns: AtomicU64,
    /// `(group + 1) << 32 | user + 1`: to whom the page was handed out, and the group by which a rule let that user in (0: by the user). Nobody else gets it
    /// while it may be mapped there. 0 = nobody yet.
    pub(crate) bound: AtomicU64,
    /// How often its owners were evicted.
    pub(crate) evictions: AtomicU32,
    pub(crate) reserved: u32,
}

/// One row of the format, for `docs/layout.md` and the test that compares the two.
#[cfg(not(loom))]
#[cfg_attr(not(test), expect(dead_code))]
pub(crate) struct Field {
    pub(crate) owner: &'static str,
    pub(crate) name: &'static str,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

#[cfg(not(loom))]
macro_rules! fields {
    ($($owner:ident { $($name:ident),+ $(,)? })+) => {
        &[$($($crate::layout::Field {
            owner: stringify!($owner),
            name: stringify!($name),
            offset: core::mem::offset_of!($owner, $name),
            len: {
                const fn len_of<O, F>(_: fn(&O) -> &F) -> usize { size_of::<F>() }
                len_of(|o: &$owner| &o.$name)
            },
        },)+)+]
    };
}

#[cfg(not(loom))]
pub(crate) use fields;

/// Every shared field, in order; `docs/layout.md` is checked against it. Those of synchronisation objects: `sync/layout.rs`.
#[cfg(not(loom))]
#[cfg_attr(not(test), expect(dead_code))]
pub(crate) const FIELDS: &[Field] = fields! {
    DataHeader {
        magic, version, byte_order, instance, data_len, control_len, created_ns, depth, block_len,
        slot_size, blocks, spares, publishers_max, subscribers_max, hold_blocks, publishers,
        payload_max, payload_align, payload_offset, payload_kind, timestamp, wake,
        claim_timeout_ns, type_version, type_name_len, layout_hash, schema_offset, schema_len,
        type_name, guarded,
    }
    ControlHeader { magic, version, byte_order, instance, publishers_max, subscribers_max }
    Stream { head }
    Slot { stamp, len, publisher, timestamp_ns }
    Control { subscribers_bell, publishers_bell, roster, notices, recovery }
    Bell { word }
    Notices { joins, repair }
    RecoveryLock { word, owner, swept_ns, deaths, last_deaths }
    Death { number, generation, entry, pid }
    Entry {
        state, pin, second_pin, cursor, claim, held, patience_ns, pid, joined_ns, position,
        missed, holds,
    }
    GuardedPage { entry, subscribers_bell, publishers_bell }
    Grant { state, patience_ns, bound, evictions }
};

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<DataHeader>() == PAGE as usize);
    assert!(size_of::<ControlHeader>() <= PAGE as usize);
    assert!(size_of::<Stream>() <= PAGE as usize);
    assert!(size_of::<Control>() == 5 * 128);
    assert!(size_of::<Control>() as u64 <= GRANTS_OFFSET - CONTROL_OFFSET);
    assert!(size_of::<Grant>() as u64 * GUARDED_LIMIT as u64 == ENTRIES_OFFSET - GRANTS_OFFSET);
    assert!(size_of::<GuardedPage>() <= PAGE as usize);
    assert!(size_of::<RecoveryLock>() <= 128);
    assert!(size_of::<Slot>() == SLOT_HEADER_TIMESTAMP as usize);
    assert!(core::mem::offset_of!(Slot, timestamp_ns) == SLOT_HEADER as usize);
    assert!(size_of::<Entry>() == 512);
    assert!(core::mem::offset_of!(Entry, patience_ns) < 64, "what a scan reads is one cache line");
    assert!(core::mem::offset_of!(Entry, pid) == 128);
    assert!(core::mem::offset_of!(Entry, holds) == 256);
    assert!(align_of::<Entry>() == 128);
};

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `(struct, field, offset, length)` of every row `| field | offset | length | ...` below a heading that names a struct.
    fn rows(document: &str) -> Vec<(String, String, usize, usize)> {
        let mut owner = "";
        let mut rows = Vec::new();
        for line in document.lines() {
            if let Some(heading) = line.strip_prefix('#') {
                owner = heading.split('`').nth(1).unwrap_or("");
                continue;
            }
            let cells: Vec<&str> =
                line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            if let ["", name, offset, len, ..] = cells[..]
                && let (Ok(offset), Ok(len)) = (offset.parse(), len.parse())
            {
                rows.push((owner.to_owned(), name.to_owned(), offset, len));
            }
        }
        rows
    }

    #[test]
    fn the_document_of_the_format_has_every_field_where_it_is_and_no_other() {
        let rows = rows(include_str!("../../docs/layout.md"));
        let documented: BTreeSet<_> = rows.iter().cloned().collect();
        assert_eq!(documented.len(), rows.len(), "a row stands twice in docs/layout.md");
        let built: BTreeSet<_> = FIELDS
            .iter()
            .chain(crate::sync::layout::FIELDS)
            .map(|field| (field.owner.to_owned(), field.name.to_owned(), field.offset, field.len))
            .collect();
        let missing: Vec<_> = built.difference(&documented).collect();
        let wrong: Vec<_> = documented.difference(&built).collect();
        assert!(missing.is_empty(), "not in docs/layout.md: {missing:?}");
        assert!(wrong.is_empty(), "in docs/layout.md and not in FIELDS: {wrong:?}");
    }

    #[test]
    fn the_document_of_the_format_states_this_version() {
        let document = include_str!("../../docs/layout.md");
        assert!(document.contains(&format!("version {VERSION}.")), "version {VERSION}");
    }
}
