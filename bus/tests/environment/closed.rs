//! A process that closes all its descriptors, those of its handles among them, as daemons do, and then opens files of its own.
#![allow(unsafe_code)] // close_range, fork

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shmbus::sync::{FileLock, FileLockKind, RobustMutex, SyncOptions};
use shmbus::{Delivery, Directory, GuardedTopic, Topic, TopicOptions};
use shmbus_sys::lease::Lease;
use shmbus_sys::shm;

use super::{directory, play, small};

#[test]
fn handles_whose_descriptors_were_closed_leave_the_files_alone_that_have_their_numbers_now() {
    let (path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    play("closes everything", path.path());
    // Nobody was declared dead by one who asked about leases in another file.
    topic.publisher().unwrap().publish(&9).unwrap();
    while *subscriber.receive().unwrap() != 9 {}
    assert_eq!(topic.info().participants.len(), 1);
}

fn is_open(file: &File, path: &Path) -> bool {
    let links_to = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    links_to.is_ok_and(|target| target == path)
}

pub(super) fn play_closes_everything(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let topic = Topic::<u64>::open_in(&directory, "t").unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&1).unwrap();
    let subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    let observer = directory.observe("t", shmbus::Start::Newest).unwrap();
    let mutex = RobustMutex::<u64>::create_in(&directory, "m", &SyncOptions::default(), 0).unwrap();
    let guarded = GuardedTopic::create::<u64>("g", &TopicOptions::default()).unwrap();
    let locked = path.join("locked");
    std::fs::write(&locked, "").unwrap();
    let mut file_lock = FileLock::open(&locked).unwrap();
    let guard = file_lock.lock(FileLockKind::Exclusive, ..).unwrap();
    let highest = std::fs::read_dir("/proc/self/fd").unwrap().count() + 64;

    // SAFETY: the handles above are meant; the rest of this process uses none but 0 to 2.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) }; // musl has no function for it
    assert_eq!(closed, 0);
    let own: PathBuf = path.join("own");
    let files: Vec<File> = (0..highest).map(|_| File::create(&own).unwrap()).collect();
    // One description has it locked, at every byte that a lease could have.
    let held: Vec<_> = files.iter().map(|file| lock(file.as_fd().as_raw_fd())).collect();
    assert_eq!(held.iter().filter(|taken| **taken).count(), 1);

    // It can ask nobody any more, and takes nobody for dead.
    let info = topic.info();
    assert!(info.participants.iter().all(|other| !other.liveness.is_dead()), "{info:?}");
    assert!(topic.subscriber(Delivery::Lossy).is_err(), "what cannot be asked is an error");
    // SAFETY: the child does nothing but look and end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let all = files.iter().all(|file| is_open(file, &own));
        // SAFETY: it ends the process.
        unsafe { libc::_exit(i32::from(!all)) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "a forked child closed files that are its own");

    drop(guard);
    drop((publisher, subscriber, observer, mutex, guarded, topic, file_lock));
    assert!(files.iter().all(|file| is_open(file, &own)), "files were closed that are not theirs");
    let another = File::options().write(true).open(&own).unwrap();
    assert!(!lock(another.as_raw_fd()), "a lock was released that is not theirs");
    drop(files);

    // The same file once more, under the same number.
    let place = shm::open_directory(path).unwrap();
    let old = Lease::open_at(place.as_fd(), "own").unwrap();
    let number = old.as_fd().as_raw_fd();
    // SAFETY: the lease is meant.
    assert_eq!(unsafe { libc::close(number) }, 0);
    let new = Lease::open_at(place.as_fd(), "own").unwrap();
    assert_eq!(new.as_fd().as_raw_fd(), number);
    assert!(new.take(7).unwrap() && !old.is_intact());
    drop(old);
    assert!(new.is_intact() && File::open(&own).unwrap().metadata().unwrap().nlink() == 1);
    let other = Lease::open_at(place.as_fd(), "own").unwrap();
    assert!(other.is_held_by_another(7).unwrap());
}

/// Takes an exclusive lock of its description on the whole file; false where another has it.
fn lock(fd: i32) -> bool {
    let mut lock: libc::flock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `lock` is what these commands read.
    unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw mut lock) == 0 }
}
