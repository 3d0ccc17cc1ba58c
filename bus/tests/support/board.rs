//! Words that all processes of one test share: progress, confirmations, requests. They are plain memory, so what a process
//! stored before it was killed is there.
#![allow(unsafe_code)] // maps a file, and reads it as atomics

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags};

pub(crate) const WORDS: usize = 1 << 17;

pub(crate) struct Board {
    words: NonNull<AtomicU64>,
}

// SAFETY: the mapping stays until the board is dropped, and is used through atomics only.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    /// A new board of zeros.
    pub(crate) fn create(path: &Path) -> Board {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len((WORDS * size_of::<AtomicU64>()) as u64).unwrap();
        Board::map(&file)
    }

    pub(crate) fn open(path: &Path) -> Board {
        Board::map(&OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    fn map(file: &File) -> Board {
        let len = WORDS * size_of::<AtomicU64>();
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, protection, flags, file, 0) };
        Board { words: NonNull::new(start.unwrap().cast()).unwrap() }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS);
        // SAFETY: `index` is within the mapping.
        let word = unsafe { self.words.add(index) };
        // SAFETY: aligned, initialised (a file's bytes are), mapped as long as `self` lives, and only used as atomics.
        unsafe { word.as_ref() }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; no reference into it outlives `self`.
        let unmapped = unsafe {
            rustix::mm::munmap(self.words.as_ptr().cast(), WORDS * size_of::<AtomicU64>())
        };
        unmapped.unwrap();
    }
}
