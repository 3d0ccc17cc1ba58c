//! Bytes of a mapping -> `&Stream`, `&[AtomicU64]`, `&Slot`, `&Entry`. The one place that casts them.
//!
//! A [`Region`] is two mappings and a [`Geometry`]. It hands out shared references to atomics only, so whatever other
//! processes write meanwhile, a reference stays a valid one. The lengths were compared with the files' by the
//! caller of [`Region::new`], and nobody ever shrinks the files of a live topic.
#![cfg_attr(not(loom), allow(unsafe_code))] // casts, with the bounds checked beside them

use crate::layout::Bell;
use crate::ring::Geometry;

/// Number of a participant's entry that exists in its region: made only by [`Region::entries`] and the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryIndex(pub(crate) u32);

#[cfg(not(loom))]
mod mapped {
    use core::ops::Range;
    use core::ptr::NonNull;

    use shmbus_sys::map::{Mapping, Pieces};

    use super::{EntryIndex, Geometry};
    use crate::atomics::AtomicU64;
    use crate::layout::{
        CONTROL_OFFSET, Control, ENTRIES_OFFSET, Entry, GRANTS_OFFSET, GUARDED_LIMIT, Grant,
        GuardedPage, STREAM_OFFSET, Slot, Stream, TABLE_OFFSET,
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
        /// The entries that are mapped: all, but in a guarded topic, where a subscriber has its own.
        mapped: Range<u32>,
        data: Mapping,
        ctl: Entries,
    }

    /// What `Control` and the entries lie in.
    enum Entries {
        File(Mapping),
        /// Of a guarded topic: `ctl`, and a page for each entry that is mapped.
        Pages(Pieces),
    }

    impl Entries {
        fn base(&self) -> NonNull<u8> {
            match self {
                Entries::File(file) => file.base(),
                Entries::Pages(pages) => pages.base(),
            }
        }

        fn len(&self) -> usize {
            match self {
                Entries::File(file) => file.len(),
                Entries::Pages(pages) => pages.len(),
            }
        }
    }

    // SAFETY: the pointers are into the two mappings, which the value owns and which stay where they are; what
    // they point at is atomics, and payload bytes that only `payload.rs` touches, by the rules stated there.
    unsafe impl Send for Region {}
    // SAFETY: as above; all access through `&Region` is atomic or stated in `payload.rs`.
    unsafe impl Sync for Region {}

    /// The pages of `ctl` before the entries, mapped: all that is needed of a topic to remove it.
    pub(crate) struct ControlPage(Mapping);

    impl ControlPage {
        /// `None` if the mapping is too short.
        pub(crate) fn new(ctl: Mapping) -> Option<ControlPage> {
            (ctl.len() as u64 >= ENTRIES_OFFSET).then_some(ControlPage(ctl))
        }

        pub(crate) fn control(&self) -> &Control {
            // SAFETY: the mapping has the page (`new`).
            let control = unsafe { self.0.base().add(CONTROL_OFFSET as usize) };
            // SAFETY: in bounds and page-aligned; a `Control` is atomics, for which every byte is valid.
            unsafe { control.cast().as_ref() }
        }
    }

    impl Region {
        /// `None` where a mapping is shorter than the geometry asks.
        pub(crate) fn new(geometry: Geometry, data: Mapping, ctl: Mapping) -> Option<Region> {
            let mapped = 0..geometry.participants();
            Region::of(geometry, data, Entries::File(ctl), mapped)
        }

        /// The same of a guarded topic: `pages` are `ctl`, and behind it the pages of the entries `mapped`, each at its place.
        pub(crate) fn guarded(
            geometry: Geometry,
            data: Mapping,
            pages: Pieces,
            mapped: Range<u32>,
        ) -> Option<Region> {
            let is_inside = geometry.guarded && mapped.end <= geometry.participants();
            is_inside.then(|| Region::of(geometry, data, Entries::Pages(pages), mapped))?
        }

        fn of(
            geometry: Geometry,
            data: Mapping,
            ctl: Entries,
            mapped: Range<u32>,
        ) -> Option<Region> {
            if (data.len() as u64) < geometry.data_len()
                || (ctl.len() as u64) < geometry.control_span()
            {
                return None;
            }
            let at = |base: NonNull<u8>, offset: u64| {
                // SAFETY: the offset is below the length of the mapping, by the comparison above and because every
                // offset of the layout is below `data_len` or `control_span`.
                unsafe { base.add(offset as usize) }
            };
            let control = ctl.base();
            Some(Region {
                slots: at(data.base(), geometry.slots_offset()),
                table: at(data.base(), TABLE_OFFSET).cast(),
                stream: at(data.base(), STREAM_OFFSET).cast(),
                control: at(control, CONTROL_OFFSET).cast(),
                entries: at(control, ENTRIES_OFFSET).cast(),
                mapped,
                geometry,
                data,
                ctl,
            })
        }

        /// Maps every page of both files now.
        pub(crate) fn prefault(&self) -> std::io::Result<()> {
            self.data.prefault()?;
            match &self.ctl {
                Entries::File(file) => file.prefault(),
                Entries::Pages(_) => Ok(()), // a page for each participant, and they are in use
            }
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
            debug_assert!(self.mapped.contains(&index.0));
            let offset = u64::from(index.0) * self.geometry.entry_stride();
            // SAFETY: an `EntryIndex` is below `participants`, and `control_span` covers that many entries.
            let entry = unsafe { self.entries.byte_add(offset as usize) };
            // SAFETY: in bounds and 128-byte-aligned; an `Entry` is atomics, for which every byte is valid.
            unsafe { entry.as_ref() }
        }

        /// The page of a participant of a guarded topic; `None` on a plain one.
        #[inline]
        pub(crate) fn page(&self, index: EntryIndex) -> Option<&GuardedPage> {
            if !self.geometry.guarded {
                return None;
            }
            debug_assert!(self.mapped.contains(&index.0));
            let offset = u64::from(index.0) * self.geometry.entry_stride();
            // SAFETY: as in `entry`; the stride is a page, and a `GuardedPage` is not longer.
            let page = unsafe { self.entries.byte_add(offset as usize).cast::<GuardedPage>() };
            // SAFETY: in bounds and page-aligned; atomics, for which every byte is valid.
            Some(unsafe { page.as_ref() })
        }

        /// What a subscriber of a guarded topic was granted; `None` of publishers, and on a plain topic.
        #[inline]
        pub(crate) fn grant(&self, index: EntryIndex) -> Option<&Grant> {
            if !self.geometry.guarded {
                return None;
            }
            let number = index.0.checked_sub(self.geometry.publishers_max)?;
            if number >= GUARDED_LIMIT {
                return None;
            }
            let offset =
                GRANTS_OFFSET - CONTROL_OFFSET + u64::from(number) * size_of::<Grant>() as u64;
            // SAFETY: the grants end where the page of `Control` does, which is mapped.
            let grant = unsafe { self.control.byte_add(offset as usize).cast::<Grant>() };
            // SAFETY: in bounds, and aligned as the page and the size of a grant are; atomics, for which every byte is valid.
            Some(unsafe { grant.as_ref() })
        }

        pub(super) fn mapped(&self) -> Range<u32> {
            self.mapped.clone()
        }
    }
}

#[cfg(not(loom))]
pub(crate) use mapped::{ControlPage, Region};

#[cfg(loom)]
mod modelled {
    use super::{EntryIndex, Geometry};
    use crate::atomics::{AtomicU32, AtomicU64, Futex, Word};
    use crate::joins::Joins;
    use crate::layout::{
        Bell, Control, Death, Entry, Grant, GuardedPage, HOLD_CELLS, Line, Notices, RecoveryLock,
        Slot,
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
        /// Of a guarded topic, whose entries are there.
        pages: Vec<GuardedPage>,
        grants: Vec<Grant>,
    }

    fn entry() -> Entry {
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
    }

    fn words(count: u64) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    impl Region {
        pub(crate) fn new(geometry: Geometry) -> Region {
            let blocks = u64::from(geometry.blocks);
            let bell = || Line(Bell { word: Word::new() });
            let all = geometry.participants();
            let (plain, guarded) = if geometry.guarded { (0, all) } else { (all, 0) };
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
                    notices: Line(Notices { joins: Joins::new(), repair: AtomicU64::new(0) }),
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
                entries: (0..plain).map(|_| entry()).collect(),
                pages: (0..guarded)
                    .map(|_| GuardedPage {
                        entry: entry(),
                        subscribers_bell: bell(),
                        publishers_bell: bell(),
                    })
                    .collect(),
                grants: (0..guarded)
                    .map(|_| {
                        let [state, patience_ns, bound] =
                            core::array::from_fn(|_| AtomicU64::new(0));
                        let evictions = AtomicU32::new(0);
                        Grant { state, patience_ns, bound, evictions, reserved: 0 }
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
            match self.page(index) {
                Some(page) => &page.entry,
                None => &self.entries[index.0 as usize],
            }
        }

        pub(crate) fn page(&self, index: EntryIndex) -> Option<&GuardedPage> {
            self.pages.get(index.0 as usize)
        }

        pub(crate) fn grant(&self, index: EntryIndex) -> Option<&Grant> {
            self.grants.get(index.0 as usize)
        }

        pub(super) fn mapped(&self) -> core::ops::Range<u32> {
            0..self.geometry.participants()
        }
    }
}

#[cfg(loom)]
pub(crate) use modelled::Region;

impl Region {
    /// Every participant's entry, as far as they are mapped: a subscriber of a guarded topic finds its own only, here and below.
    pub(crate) fn entries(&self) -> impl Iterator<Item = EntryIndex> + Clone {
        self.mapped().map(EntryIndex)
    }

    /// The entries of publishers.
    pub(crate) fn publishers(&self) -> impl Iterator<Item = EntryIndex> + Clone {
        let mapped = self.mapped();
        (mapped.start..mapped.end.min(self.geometry().publishers_max)).map(EntryIndex)
    }

    /// The entries of subscribers.
    pub(crate) fn subscribers(&self) -> impl Iterator<Item = EntryIndex> + Clone {
        let mapped = self.mapped();
        (mapped.start.max(self.geometry().publishers_max)..mapped.end).map(EntryIndex)
    }

    #[inline]
    pub(crate) fn is_guarded(&self) -> bool {
        self.geometry().guarded
    }

    /// Where a subscriber sleeps.
    pub(crate) fn subscribers_bell(&self, index: EntryIndex) -> &Bell {
        match self.page(index) {
            Some(page) => &page.subscribers_bell.0,
            None => &self.control().subscribers_bell.0,
        }
    }

    /// Where publishers sleep that wait for a subscriber.
    pub(crate) fn publishers_bell(&self, index: EntryIndex) -> &Bell {
        match self.page(index) {
            Some(page) => &page.publishers_bell.0,
            None => &self.control().publishers_bell.0,
        }
    }
}
