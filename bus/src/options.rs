//! What a topic is made of: chosen by its creator, checked once, then written into the header.

use std::time::Duration;

use shmbus_sys::membarrier;

use crate::bell::Barrier;
use crate::error::{AttachError, OptionsError};
use crate::layout::{
    ENTRIES_OFFSET, GUARDED_LIMIT, HOLD_CELLS, PAGE, PUBLISHERS_LIMIT, SUBSCRIBERS_LIMIT,
};
use crate::payload::{Carried, Payload};
use crate::ring::{BLOCKS_LIMIT, Geometry, SLOT_SIZE_MAX};
use crate::schema::TEXT_MAX;

/// How publishers and sleeping subscribers meet, which is what a publish pays for somebody who might sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Wake {
    /// As [`Wake::Membarrier`] where the kernel lets the publisher register for it, else as [`Wake::Fence`].
    #[default]
    Auto = 0,
    /// A fence in every publish (about 5 ns); going to sleep is cheap. Right where somebody sleeps for nearly every message.
    Fence = 1,
    /// Nothing in a publish; going to sleep costs a `membarrier(2)` (microseconds, and an interrupt to the publisher). A publisher that
    /// cannot register is refused.
    Membarrier = 2,
    /// Nobody sleeps: [`receive`](crate::Subscriber::receive) polls and yields. Nothing in a publish.
    Never = 3,
}

impl Wake {
    pub(crate) fn of(word: u32) -> Option<Wake> {
        Some(match word {
            0 => Wake::Auto,
            1 => Wake::Fence,
            2 => Wake::Membarrier,
            3 => Wake::Never,
            _ => return None,
        })
    }

    /// What a publisher does so that sleepers meet it. Registers where that is asked for.
    pub(crate) fn barrier(self) -> Result<Barrier, AttachError> {
        let register = membarrier::register_global_expedited;
        Ok(match self {
            Wake::Never => Barrier::Nobody,
            Wake::Fence => Barrier::Fence,
            Wake::Membarrier => match register() {
                Ok(()) => Barrier::Membarrier,
                Err(source) => return Err(AttachError::Membarrier { source }),
            },
            Wake::Auto => match register() {
                Ok(()) => Barrier::Membarrier,
                Err(_) => Barrier::Fence,
            },
        })
    }
}

/// Who may publish at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Publishers {
    /// One, the fast path; the next one takes over when it is gone.
    #[default]
    Exclusive,
    /// As many as this, 1 to 64, in one total order. A publish costs three atomic exchanges more. Each one costs 512 bytes and two spare
    /// blocks.
    Shared(u32),
}

/// Options of a new topic. `TopicOptions::default()` fits small messages and a few readers.
///
/// ```
/// let options = shmbus::TopicOptions { depth: 65_536, subscribers_max: 64, ..Default::default() };
/// let memory = options.memory::<u64>()?;
/// assert_eq!(memory.live, 65_536 * 64); // a slot is a whole number of cache lines
/// # Ok::<(), shmbus::OptionsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOptions {
    /// Messages retained: a power of two from 4 to 2^27. A reliable subscriber may be that many messages behind, less one
    /// block (see [`Memory`]), before publishers wait for it; a lossy one, before it misses some.
    pub depth: u64,
    /// Subscribers at the same time, 1 to 256. Each costs 512 bytes and one spare block.
    pub subscribers_max: u32,
    /// Who may publish at the same time.
    pub publishers: Publishers,
    /// Shared publishers: after how long the sequence of one that has taken it and stands still (stopped, swapped out, debugged) is
    /// revoked, so that subscribers go on; it publishes its message again when it wakes. Zero: never. A subscriber waits so long once for
    /// all that stand still at the same time. A publisher that *died* is found out at once.
    pub claim_timeout: Duration,
    /// Blocks that may be held at the same time ([`Sample::hold`](crate::Sample::hold)), by all subscribers together, 0 to 4096. Each costs a spare
    /// block. `None`: `max(8, subscribers_max / 4)`.
    pub hold_blocks: Option<u32>,
    /// Topics of slices, `[u8]` among them: the largest message in bytes, up to 2^30. Every slot has room for it.
    pub max_len: u32,
    /// Each message carries the monotonic time of its commit (8 bytes, and about 25 ns per publish).
    pub timestamp: bool,
    /// How publishers and sleeping subscribers meet.
    pub wake: Wake,
    /// Permission bits of the topic's files. Whoever may write them is trusted with everything in the topic.
    pub mode: u32,
    /// The group of the topic's files and of the directories that are made for it, by its number. Its creator must be root or in the group. `None`: the
    /// creator's, or that of a directory with the set-group-ID bit.
    pub group: Option<u32>,
    /// Map every page when a handle is attached, so that no message pays for a page fault.
    pub prefault: bool,
}

impl Default for TopicOptions {
    fn default() -> TopicOptions {
        TopicOptions {
            depth: 1024,
            subscribers_max: 16,
            publishers: Publishers::Exclusive,
            claim_timeout: Duration::from_secs(1),
            hold_blocks: None,
            max_len: 4096,
            timestamp: false,
            wake: Wake::Auto,
            mode: 0o600,
            group: None,
            prefault: false,
        }
    }
}

/// What a topic occupies, in bytes. All of it is allocated when the topic is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The messages retained.
    pub live: u64,
    /// Blocks for whatever is pinned or held.
    pub spare: u64,
    /// Headers and the block table.
    pub table: u64,
    /// The control file: participants and bells.
    pub control: u64,
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.live + self.spare + self.table + self.control
    }

    pub(crate) fn of(geometry: &Geometry) -> Memory {
        Memory {
            live: geometry.slots_len(geometry.blocks),
            spare: geometry.slots_len(geometry.spares),
            table: geometry.slots_offset(),
            control: geometry.control_span(),
        }
    }
}

impl TopicOptions {
    /// What a topic of `T` with these options occupies.
    ///
    /// # Errors
    /// The first option that is out of its range.
    pub fn memory<T: Payload + ?Sized>(&self) -> Result<Memory, OptionsError> {
        Ok(Memory::of(&self.geometry(&T::carried()?)?))
    }

    pub(crate) fn claim_timeout_ns(&self) -> u64 {
        u64::try_from(self.claim_timeout.as_nanos()).unwrap_or(0)
    }

    /// Checks every option and computes what follows from them.
    pub(crate) fn geometry(&self, carried: &Carried) -> Result<Geometry, OptionsError> {
        self.geometry_of(carried, false)
    }

    /// The same for a guarded topic, or a plain one.
    pub(crate) fn geometry_of(
        &self,
        carried: &Carried,
        guarded: bool,
    ) -> Result<Geometry, OptionsError> {
        const DEPTH_MAX: u64 = 1 << 27;
        const LEN_MAX: u64 = 1 << 30;
        let in_range = |field, given: u64, min: u64, max: u64| {
            if (min..=max).contains(&given) {
                Ok(())
            } else {
                Err(OptionsError::Range { field, given, min, max })
            }
        };
        in_range("depth", self.depth, 4, DEPTH_MAX)?;
        if !self.depth.is_power_of_two() {
            let below = 1 << self.depth.ilog2();
            return Err(OptionsError::Depth { given: self.depth, below, above: below * 2 });
        }
        let (subscribers_limit, holds, holds_limit) = match guarded {
            true => (GUARDED_LIMIT, 2, HOLD_CELLS as u64), // of each subscriber
            false => (SUBSCRIBERS_LIMIT, (self.subscribers_max / 4).max(8), 4096),
        };
        in_range("subscribers_max", self.subscribers_max.into(), 1, subscribers_limit.into())?;
        let hold_blocks = self.hold_blocks.unwrap_or(holds);
        in_range("hold_blocks", hold_blocks.into(), 0, holds_limit)?;
        if guarded && self.publishers != Publishers::Exclusive {
            return Err(OptionsError::Shared);
        }
        let (publishers_max, shared) = match self.publishers {
            Publishers::Exclusive => (1, false),
            Publishers::Shared(max) => (max, true),
        };
        in_range("publishers", publishers_max.into(), 1, PUBLISHERS_LIMIT.into())?;
        in_range("mode", self.mode.into(), 0o600, 0o777)?;
        in_range("group", self.group.unwrap_or(0).into(), 0, u64::from(u32::MAX) - 1)?;
        let (field, payload_max, least) = match carried.size() {
            Some(size) => ("size of the message type", size, 0),
            None if carried.schema.is_some() => ("max_len", self.max_len.into(), carried.unit()),
            None => ("max_len", self.max_len.into(), 0),
        };
        in_range(field, payload_max, least, LEN_MAX)?;
        in_range("alignment of the message type", carried.align(), 1, PAGE)?;
        let schema_len = carried.text().len() as u64;
        in_range("length of the schema", schema_len, 0, TEXT_MAX)?;
        carried.check_text()?;
        let geometry = Geometry::new(
            self.depth,
            payload_max as u32,
            carried.align() as u32,
            publishers_max,
            shared,
            self.subscribers_max,
            hold_blocks,
            self.timestamp,
        );
        let geometry = geometry
            .and_then(|geometry| match guarded {
                true => geometry.guarded(carried.align() as u32),
                false => Some(geometry),
            })
            .and_then(|geometry| geometry.with_schema(schema_len as u32));
        geometry.ok_or_else(|| OptionsError::TooLarge {
            depth: self.depth,
            payload: payload_max,
            bytes: u128::from(payload_max) * u128::from(self.depth) + u128::from(ENTRIES_OFFSET),
            slot_bytes_max: SLOT_SIZE_MAX,
            blocks_max: BLOCKS_LIMIT,
        })
    }
}
