//! Bytes of a mapping -> `&Stream`, `&[AtomicU64]`, `&Slot`, `&Entry`. The one place that casts them.
//!
//! A [`Region`] is two mappings and a [`Geometry`]. It hands out shared references to atomics only, so whatever other
//! processes write meanwhile, a reference stays a valid one. The lengths were compared with the files' by the
//! caller of [`Region::new`], and nobody ever shrinks the files of a live topic.
#![cfg_attr(not(loom), allow(unsafe_code))] // casts, with the bounds checked beside them

use crate::ring::Geometry;

/// Number of a participant's entry that exists in its region: made only by [`Region::entries`] and the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryIndex(pub(crate) u32);

#[cfg(not(loom))]
mod mapped {
    use core::ptr::NonNull;

    use shmbus_sys::map::Mapping;

    use super::{EntryIndex, Geometry};
    use crate::atomics::AtomicU64;
    use crate::layout::{
        CONTROL_OFFSET, Control, ENTRIES_OFFSET, Entry, STREAM_OFFSET, Slot, Stream, TABLE_OFFSET,
    };
    use crate::ring::SlotAt;

    /// A topic's two files, mapped.
    pub(crate) struct Region {
        geometry: Geometry,
        slots: NonNull<u8>,
        table: NonNull<AtomicU64>,
        stream: NonNull<Stream>,
        control: NonNull<Control>,
        entries: NonNull<Entry>,
        data: Mapping,
        ctl: Mapping,
    }

    // SAFETY: the pointers are into the two mappings, which the value owns and which stay where they are; what
    // they point at is atomics, and payload bytes that only `payload.rs` touches, by the rules stated there.
    unsafe impl Send for Region {}
    // SAFETY: as above; all access through `&Region` is atomic or stated in `payload.rs`.
    unsafe impl Sync for Region {}

    impl Region {
        /// `None` where a mapping is shorter than the geometry asks.
        pub(crate) fn new(geometry: Geometry, data: Mapping, ctl: Mapping) -> Option<Region> {
            if (data.len() as u64) < geometry.data_len()
                || (ctl.len() as u64) < geometry.control_len()
            {
                return None;
            }
            let at = |mapping: &Mapping, offset: u64| {
                debug_assert!(offset < mapping.len() as u64);
                // SAFETY: the offset is below the length of the mapping, by the comparison above and because every
                // offset of the layout is below `data_len` or `control_len`.
                unsafe { mapping.base().add(offset as usize) }
            };
            Some(Region {
                slots: at(&data, geometry.slots_offset()),
                table: at(&data, TABLE_OFFSET).cast(),
                stream: at(&data, STREAM_OFFSET).cast(),
                control: at(&ctl, CONTROL_OFFSET).cast(),
                entries: at(&ctl, ENTRIES_OFFSET).cast(),
                geometry,
                data,
                ctl,
            })
        }

        /// Maps every page of both files now.
        pub(crate) fn prefault(&self) -> std::io::Result<()> {
            self.data.prefault()?;
            self.ctl.prefault()
        }

        #[inline]
        pub(crate) fn geometry(&self) -> &Geometry {
            &self.geometry
        }

        pub(crate) fn is_writable(&self) -> bool {
            self.data.is_writable()
        }

        #[inline]
        pub(crate) fn head(&self) -> &AtomicU64 {
            // SAFETY: in bounds and page-aligned (`new`); a `Stream` is atomics, for which every byte is valid.
            let stream = unsafe { self.stream.as_ref() };
            &stream.head.0
        }

        /// The table entry of block `number`.
        #[inline]
        pub(crate) fn table(&self, number: u64) -> &AtomicU64 {
            let index = number & (u64::from(self.geometry.blocks) - 1);
            // SAFETY: `blocks` is a power of two, so the index is below it, and `data_len` covers that many words.
            let word = unsafe { self.table.add(index as usize) };
            // SAFETY: in bounds and aligned, as above; an atomic, for which every byte is valid.
            unsafe { word.as_ref() }
        }

        #[inline]
        pub(crate) fn slot(&self, at: SlotAt) -> &Slot {
            // SAFETY: the start of a slot is page- and 64-byte-aligned and its header is inside the slot.
            unsafe { self.slot_start(at).cast().as_ref() }
        }

        /// First byte of the payload of a slot; `payload_max` bytes belong to it.
        #[inline]
        pub(crate) fn payload(&self, at: SlotAt) -> NonNull<u8> {
            // SAFETY: `payload_offset + payload_max <= slot_size`, and the slot is in bounds.
            unsafe { self.slot_start(at).add(self.geometry.payload_offset as usize) }
        }

        /// The payload of a slot as words, the last one filled up: for who copies what may be written meanwhile.
        ///
        /// Only where `data` is mapped for reading: whoever writes there does it through another mapping.
        #[inline]
        pub(crate) fn words(&self, at: SlotAt) -> &[AtomicU64] {
            debug_assert!(!self.is_writable());
            let count = self.geometry.payload_max.div_ceil(8) as usize;
            // SAFETY: payload and slot begin and the slot ends at a multiple of 8, so that the words are inside the slot and aligned;
            // atomics, for which every byte is valid.
            unsafe { core::slice::from_raw_parts(self.payload(at).cast().as_ptr(), count) }
        }

        #[inline]
        fn slot_start(&self, at: SlotAt) -> NonNull<u8> {
            debug_assert!(at.offset() < self.geometry.slots_len(self.geometry.physical()));
            // SAFETY: a `SlotAt` is a slot of a checked block (`Geometry::block`, `::slot`, `::next`), and `data_len` covers
            // the slots of all of them.
            unsafe { self.slots.add(at.offset() as usize) }
        }

        #[inline]
        pub(crate) fn control(&self) -> &Control {
            // SAFETY: in bounds and page-aligned (`new`); a `Control` is atomics, for which every byte is valid.
            unsafe { self.control.as_ref() }
        }

        #[inline]
        pub(crate) fn entry(&self, index: EntryIndex) -> &Entry {
            debug_assert!(index.0 < self.geometry.participants());
            // SAFETY: an `EntryIndex` is below `participants`, and `control_len` covers that many entries.
            let entry = unsafe { self.entries.add(index.0 as usize) };
            // SAFETY: in bounds and 128-byte-aligned; an `Entry` is atomics, for which every byte is valid.
            unsafe { entry.as_ref() }
        }
    }
}

#[cfg(not(loom))]
pub(crate) use mapped::Region;

#[cfg(loom)]
mod modelled {
    use super::{EntryIndex, Geometry};
    use crate::atomics::{AtomicU32, AtomicU64, Futex};
    use crate::layout::{
        Bell, Control, Death, Entry, HOLD_CELLS, Line, Notices, RecoveryLock, Slot,
    };
    use crate::ring::{SlotAt, table};

    /// The same words on loom's heap.
    pub(crate) struct Region {
        geometry: Geometry,
        head: AtomicU64,
        table: Vec<AtomicU64>,
        slots: Vec<Slot>,
        control: Control,
        entries: Vec<Entry>,
    }

    fn words(count: u64) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    impl Region {
        pub(crate) fn new(geometry: Geometry) -> Region {
            let blocks = u64::from(geometry.blocks);
            let bell = || Line(Bell { word: Futex::new() });
            Region {
                head: AtomicU64::new(0),
                table: (0..blocks).map(|i| AtomicU64::new(table::initial(i, blocks))).collect(),
                slots: (0..u64::from(geometry.physical()) * geometry.block_len)
                    .map(|_| Slot {
                        stamp: AtomicU64::new(0),
                        len: AtomicU32::new(0),
                        publisher: AtomicU32::new(0),
                        timestamp_ns: AtomicU64::new(0),
                        payload: loom::cell::UnsafeCell::new(0),
                        words: [AtomicU64::new(0)],
                    })
                    .collect(),
                control: Control {
                    subscribers_bell: bell(),
                    publishers_bell: bell(),
                    roster: Line(AtomicU64::new(0)),
                    notices: Line(Notices {
                        retired: AtomicU32::new(0),
                        reserved: 0,
                        repair: AtomicU64::new(0),
                    }),
                    recovery: Line(RecoveryLock {
                        word: Futex::new(),
                        reserved: 0,
                        owner: AtomicU64::new(0),
                        swept_ns: AtomicU64::new(0),
                        deaths: AtomicU64::new(0),
                        last_deaths: core::array::from_fn(|_| Death {
                            number: AtomicU64::new(0),
                            generation: AtomicU64::new(0),
                            entry: AtomicU32::new(0),
                            pid: AtomicU32::new(0),
                        }),
                    }),
                },
                entries: (0..geometry.participants())
                    .map(|_| {
                        let [state, pin, second_pin, cursor, claim, held, patience_ns, joined_ns] =
                            core::array::from_fn(|_| AtomicU64::new(0));
                        let [position, missed] = core::array::from_fn(|_| AtomicU64::new(0));
                        Entry {
                            state,
                            pin,
                            second_pin,
                            cursor,
                            claim,
                            held,
                            patience_ns,
                            reserved: [0; 9],
                            pid: AtomicU32::new(0),
                            reserved_pid: 0,
                            joined_ns,
                            position,
                            missed,
                            reserved_stats: [0; 12],
                            holds: core::array::from_fn::<_, HOLD_CELLS, _>(|_| AtomicU32::new(0)),
                        }
                    })
                    .collect(),
                geometry,
            }
        }

        pub(crate) fn geometry(&self) -> &Geometry {
            &self.geometry
        }

        pub(crate) fn head(&self) -> &AtomicU64 {
            &self.head
        }

        pub(crate) fn table(&self, number: u64) -> &AtomicU64 {
            &self.table[(number & (u64::from(self.geometry.blocks) - 1)) as usize]
        }

        pub(crate) fn slot(&self, at: SlotAt) -> &Slot {
            let slot = at.offset() / self.geometry.slot_size;
            &self.slots[slot as usize]
        }

        pub(crate) fn words(&self, at: SlotAt) -> &[AtomicU64] {
            &self.slot(at).words
        }

        pub(crate) fn control(&self) -> &Control {
            &self.control
        }

        pub(crate) fn entry(&self, index: EntryIndex) -> &Entry {
            &self.entries[index.0 as usize]
        }
    }
}

#[cfg(loom)]
pub(crate) use modelled::Region;

impl Region {
    /// Every participant's entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = EntryIndex> + Clone {
        (0..self.geometry().participants()).map(EntryIndex)
    }

    /// The entries of publishers.
    pub(crate) fn publishers(&self) -> impl Iterator<Item = EntryIndex> + Clone {
        (0..self.geometry().publishers_max).map(EntryIndex)
    }

    /// The entries of subscribers.
    pub(crate) fn subscribers(&self) -> impl Iterator<Item = EntryIndex> + Clone {
        (self.geometry().publishers_max..self.geometry().participants()).map(EntryIndex)
    }
}
