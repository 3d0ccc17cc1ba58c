//! Mappings: what is visible through them, what they cannot do, and that a forked child has none.

#![allow(unsafe_code)] // mapped memory is reached by pointers; fork

mod forked;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use forked::Forked;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm::{self, Access};

const LEN: usize = 16 * 4096;

fn allocated() -> OwnedFd {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::allocate(memfd.as_fd(), LEN as u64).unwrap();
    memfd
}

fn word(mapping: &Mapping, index: usize) -> &AtomicU64 {
    assert!(index < mapping.len() / 8);
    // SAFETY: inside the mapping.
    let word = unsafe { mapping.base().cast::<AtomicU64>().add(index) };
    // SAFETY: aligned, only ever an atomic, and only loaded where it is read-only.
    unsafe { word.as_ref() }
}

/// The lines of /proc/self/smaps about the mapping that begins at `base`.
fn smaps(mapping: &Mapping) -> Option<String> {
    let start = format!("{:x}-", mapping.base().as_ptr() as usize);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let mut found = lines.next()?.to_owned();
    // Every entry ends with its flags.
    for line in lines {
        found = found + "\n" + line;
        if line.starts_with("VmFlags:") {
            break;
        }
    }
    Some(found)
}

fn resident_bytes(mapping: &Mapping) -> usize {
    let smaps = smaps(mapping).unwrap();
    let rss = smaps.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn two_mappings_of_a_file_show_the_same_bytes_at_different_addresses() {
    let memfd = allocated();
    let writer = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    let reader = Mapping::read_only(memfd.as_fd(), LEN).unwrap();
    assert_ne!(writer.base(), reader.base());
    assert!(writer.is_writable() && !reader.is_writable());
    assert_eq!((writer.len(), reader.len()), (LEN, LEN));
    word(&writer, LEN / 8 - 1).store(42, Ordering::Release);
    assert_eq!(word(&reader, LEN / 8 - 1).load(Ordering::Acquire), 42);
}

#[test]
fn a_mapping_outlives_descriptor_and_name() {
    let path = tempfile::tempdir().unwrap();
    let dir = shm::open_directory(path.path()).unwrap();
    let fd = shm::create_at(dir.as_fd(), "file", 0o600).unwrap();
    shm::allocate(fd.as_fd(), LEN as u64).unwrap();
    let mapping = Mapping::read_write(fd.as_fd(), LEN).unwrap();
    drop(fd);
    shm::unlink_at(dir.as_fd(), "file").unwrap();
    word(&mapping, 7).store(7, Ordering::Relaxed);
    assert_eq!(word(&mapping, 7).load(Ordering::Relaxed), 7);
}

#[test]
fn a_descriptor_opened_for_reading_cannot_be_mapped_for_writing() {
    let path = tempfile::tempdir().unwrap();
    let dir = shm::open_directory(path.path()).unwrap();
    let fd = shm::create_at(dir.as_fd(), "file", 0o600).unwrap();
    shm::allocate(fd.as_fd(), LEN as u64).unwrap();
    let fd = shm::open_at(dir.as_fd(), "file", Access::ReadOnly).unwrap();
    let error = Mapping::read_write(fd.as_fd(), LEN).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    Mapping::read_only(fd.as_fd(), LEN).unwrap();
}

#[test]
fn nothing_is_not_mapped_and_a_length_beyond_all_memory_is_an_error() {
    let memfd = allocated();
    let error = Mapping::read_write(memfd.as_fd(), 0).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    Mapping::read_write(memfd.as_fd(), usize::MAX).unwrap_err();
    Mapping::read_only(memfd.as_fd(), usize::MAX / 2).unwrap_err();
}

#[test]
fn a_short_file_is_told_by_its_length_before_it_is_mapped() {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::allocate(memfd.as_fd(), 4096).unwrap();
    // The kernel would map it: what refuses is the check of its length.
    Mapping::read_only(memfd.as_fd(), LEN).unwrap();
    assert!(shm::len(memfd.as_fd()).unwrap() < LEN as u64);
}

#[test]
fn a_mapping_is_shared_not_inherited_and_not_dumped() {
    let memfd = allocated();
    for mapping in [Mapping::read_write(memfd.as_fd(), LEN), Mapping::read_only(memfd.as_fd(), LEN)]
    {
        let mapping = mapping.unwrap();
        let smaps = smaps(&mapping).unwrap();
        let flags: Vec<&str> = smaps.lines().last().unwrap().split_ascii_whitespace().collect();
        for flag in ["ms", "dc", "dd"] {
            assert!(flags.contains(&flag), "{flag} is not in {flags:?}");
        }
        assert_eq!(flags.contains(&"wr"), mapping.is_writable());
    }
}

#[test]
fn a_dropped_mapping_is_unmapped() {
    let memfd = shm::memfd("shmbus-test-unmapped").unwrap();
    shm::allocate(memfd.as_fd(), LEN as u64).unwrap();
    let is_mapped =
        || std::fs::read_to_string("/proc/self/maps").unwrap().contains("shmbus-test-unmapped");
    let mapping = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    assert!(is_mapped());
    drop(mapping);
    assert!(!is_mapped());
}

#[test]
fn prefault_makes_every_page_resident() {
    let memfd = allocated();
    for mapping in [Mapping::read_write(memfd.as_fd(), LEN), Mapping::read_only(memfd.as_fd(), LEN)]
    {
        let mapping = mapping.unwrap();
        assert!(resident_bytes(&mapping) < LEN);
        match mapping.prefault() {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                println!("skipped: Linux before 5.14")
            }
            result => {
                result.unwrap();
                assert_eq!(resident_bytes(&mapping), LEN);
            }
        }
    }
}

#[test]
fn prefault_behind_the_end_of_the_file_is_an_error_and_not_a_signal() {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::allocate(memfd.as_fd(), 4096).unwrap();
    let error = Mapping::read_write(memfd.as_fd(), LEN).unwrap().prefault().unwrap_err();
    assert!([libc::EFAULT, libc::EINVAL].contains(&error.raw_os_error().unwrap()));
}

#[test]
fn a_forked_child_has_no_mapping_and_dropping_it_unmaps_nothing() {
    let memfd = allocated();
    let mapping = Mapping::read_write(memfd.as_fd(), LEN).unwrap();
    word(&mapping, 0).store(1, Ordering::Relaxed);
    let mut child = Forked::new(|| {
        let (base, flags) = (mapping.base().as_ptr(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let flags = flags | libc::MAP_FIXED_NOREPLACE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: it maps only where nothing is mapped.
        let own = unsafe { libc::mmap(base.cast(), LEN, access, flags, -1, 0) };
        if own != base.cast() || mapping.prefault().is_ok() {
            return false; // something is still there
        }
        // SAFETY: this process has its own copy of the memory and uses the original no more.
        drop(unsafe { std::ptr::read(&mapping) });
        // SAFETY: asks about pages; an unmapped one is ENOMEM.
        unsafe { libc::msync(base.cast(), LEN, libc::MS_ASYNC) == 0 }
    });
    assert!(child.result());
    assert_eq!(word(&mapping, 0).load(Ordering::Relaxed), 1);
}
