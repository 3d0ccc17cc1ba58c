//! Bytes of a mapping -> `&SyncControl`, `&SyncEntry`, the data. The one place that casts them.
//!
//! As `crate::region`: the length was compared with the file's by the caller of [`SyncRegion::new`], nobody shortens a live file, and
//! what is handed out is atomics, or the data, to whoever has the right to it by the primitive's protocol.
#![cfg_attr(not(loom), allow(unsafe_code))] // casts, with the bounds checked beside them

use crate::region::EntryIndex;

#[cfg(not(loom))]
mod mapped {
    use core::ptr::NonNull;

    use shmbus_sys::map::Mapping;

    use super::EntryIndex;
    use crate::layout::PAGE;
    use crate::sync::layout::{CONTROL_OFFSET, ENTRIES_OFFSET, SyncControl, SyncEntry};

    /// An object's file, mapped.
    pub(crate) struct SyncRegion {
        members_max: u32,
        data_size: usize,
        mapping: Mapping,
    }

    /// Where the data stands in the file.
    pub(crate) fn data_offset(members_max: u32) -> u64 {
        ENTRIES_OFFSET + u64::from(members_max) * PAGE
    }

    impl SyncRegion {
        /// `None` where the mapping is too short.
        pub(crate) fn new(
            members_max: u32,
            data_size: u64,
            mapping: Mapping,
        ) -> Option<SyncRegion> {
            let needed = data_offset(members_max).checked_add(data_size)?;
            let data_size = usize::try_from(data_size).ok()?;
            (mapping.len() as u64 >= needed).then_some(SyncRegion {
                members_max,
                data_size,
                mapping,
            })
        }

        pub(crate) fn members_max(&self) -> u32 {
            self.members_max
        }

        #[inline]
        pub(crate) fn control(&self) -> &SyncControl {
            // SAFETY: the mapping has the page (`new`).
            let control = unsafe { self.mapping.base().byte_add(CONTROL_OFFSET as usize) };
            // SAFETY: in bounds and page-aligned; a `SyncControl` is atomics, for which every byte is valid.
            unsafe { control.cast().as_ref() }
        }

        #[inline]
        pub(crate) fn entry(&self, index: EntryIndex) -> &SyncEntry {
            debug_assert!(index.0 < self.members_max);
            let offset = ENTRIES_OFFSET + u64::from(index.0) * PAGE;
            // SAFETY: an index is below `members_max` (`entries`), and the mapping has that many entries (`new`).
            let entry = unsafe { self.mapping.base().byte_add(offset as usize) };
            // SAFETY: in bounds and page-aligned; a `SyncEntry` is atomics, for which every byte is valid.
            unsafe { entry.cast().as_ref() }
        }

        /// The data: a `T` of any bytes, which may be read, or written, by whoever has the right to it by the primitive's protocol, while the
        /// region lives. `None` where the object's data is smaller.
        pub(crate) fn data<T: bytemuck::Pod>(&self) -> Option<NonNull<T>> {
            if size_of::<T>() > self.data_size || align_of::<T>() > PAGE as usize {
                return None;
            }
            let offset = data_offset(self.members_max) as usize;
            // SAFETY: in bounds (`new`).
            let data = unsafe { self.mapping.base().byte_add(offset) };
            Some(data.cast())
        }
    }
}

#[cfg(not(loom))]
pub(crate) use mapped::{SyncRegion, data_offset};

#[cfg(loom)]
mod modelled {
    use super::EntryIndex;
    use crate::atomics::{AtomicU32, AtomicU64, Word};
    use crate::joins::Joins;
    use crate::layout::Line;
    use crate::sync::layout::{MainWords, SyncControl, SyncEntry};

    /// The same, of loom's atomics.
    pub(crate) struct SyncRegion {
        control: SyncControl,
        entries: Vec<SyncEntry>,
    }

    impl SyncRegion {
        pub(crate) fn new(members_max: u32) -> SyncRegion {
            SyncRegion {
                control: SyncControl {
                    main: Line(MainWords {
                        word: Word::new(),
                        state: AtomicU32::new(0),
                        joins: Joins::new(),
                        value: AtomicU64::new(0),
                    }),
                    roster: Line(Word::new()),
                    turn: Line(Word::new()),
                },
                entries: (0..members_max)
                    .map(|_| SyncEntry {
                        state: AtomicU64::new(0),
                        cells: core::array::from_fn(|_| AtomicU64::new(0)),
                        pid: AtomicU32::new(0),
                        reserved_pid: 0,
                        joined_ns: AtomicU64::new(0),
                        reserved: [0; 499],
                        reserved_life: 0,
                        shared: AtomicU32::new(0),
                        life: Word::new(),
                        reserved_end: [0; 3],
                    })
                    .collect(),
            }
        }

        pub(crate) fn members_max(&self) -> u32 {
            self.entries.len() as u32
        }

        pub(crate) fn control(&self) -> &SyncControl {
            &self.control
        }

        pub(crate) fn entry(&self, index: EntryIndex) -> &SyncEntry {
            &self.entries[index.0 as usize]
        }
    }
}

#[cfg(loom)]
pub(crate) use modelled::SyncRegion;

impl SyncRegion {
    /// The first `count` entries; all of them where there are fewer.
    pub(crate) fn entries(&self, count: u32) -> impl Iterator<Item = EntryIndex> + Clone {
        (0..count.min(self.members_max())).map(EntryIndex)
    }
}
