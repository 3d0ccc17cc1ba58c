//! What a machine or a process does not have: pages of 4 KiB, more handles.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::process::{Resource, getrlimit, setrlimit};
use shmbus::internals::pretend_page_size;
use shmbus::sync::{
    Condvar, FileLock, FileLockError, RobustMutex, SyncCreateError, SyncOpenError, SyncOptions,
};
use shmbus::{
    CreateError, Delivery, Directory, GuardedTopic, OpenError, PageSizeError, Start, Topic,
    TopicOptions,
};
use shmbus_sys::fork::LEASES_MAX;
use shmbus_sys::lease::Lease;
use shmbus_sys::life::Life;
use shmbus_sys::map::{Piece, Pieces};
use shmbus_sys::shm;

use super::{directory, play, small};

#[test]
fn on_a_kernel_with_larger_pages_topics_work_and_what_maps_single_pages_is_a_typed_error() {
    let (path, _) = directory();
    play("large pages", path.path());
}

pub(super) fn play_large_pages(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let options = SyncOptions::default();
    drop(RobustMutex::<u64>::create_in(&directory, "made", &options, 0).unwrap());
    for size in [16 << 10, 64 << 10] {
        pretend_page_size(size);
        let refused = |error: &PageSizeError| (error.found, error.needed) == (size as u64, 4096);
        match RobustMutex::<u64>::create_in(&directory, "new", &options, 0) {
            Err(SyncCreateError::PageSize(error)) => assert!(refused(&error)),
            other => panic!("{:?}", other.err()),
        }
        match RobustMutex::<u64>::open_in(&directory, "made") {
            Err(SyncOpenError::PageSize(error)) => assert!(refused(&error)),
            other => panic!("{:?}", other.err()),
        }
        match GuardedTopic::create::<u64>("t", &TopicOptions::default()) {
            Err(CreateError::PageSize(error)) => assert!(refused(&error)),
            other => panic!("{:?}", other.err()),
        }
        // What the two stand on refuses by itself, and maps nothing over its neighbours.
        let file = shm::memfd("pages").unwrap();
        shm::allocate(file.as_fd(), 2 * 4096).unwrap();
        let piece = Piece { fd: file.as_fd(), at: 4096, len: 4096, is_writable: true };
        let error = Pieces::new(2 * size, &[piece]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let error = Life::begin(file.as_fd(), 0).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        // A file is mapped from its beginning, which every kernel can do.
        let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
        let mut subscriber = topic.subscriber_from(Delivery::Reliable, Start::Newest).unwrap();
        topic.publisher().unwrap().publish(&7).unwrap();
        assert_eq!(*subscriber.receive().unwrap(), 7);
        drop((topic, subscriber));
        directory.remove("t", false).unwrap();
        drop(Condvar::open_or_create_in(&directory, "condvar", &options).unwrap());
    }
    pretend_page_size(0);
    drop(RobustMutex::<u64>::open_in(&directory, "made").unwrap());
}

#[test]
fn the_handle_after_the_last_is_an_error_of_its_own() {
    let (path, _) = directory();
    play("all handles", path.path());
}

pub(super) fn play_all_handles(path: &Path) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    if limit.current.is_some_and(|descriptors| descriptors < LEASES_MAX as u64 + 64) {
        return println!("skipped: a process may open {:?} descriptors only", limit.current);
    }
    let directory = Directory::at(path).unwrap();
    drop(Topic::<u64>::create_in(&directory, "t", &small()).unwrap());
    drop(RobustMutex::<u64>::create_in(&directory, "m", &SyncOptions::default(), 0).unwrap());
    let file = path.join("file");
    std::fs::write(&file, "").unwrap();
    let place = shm::open_directory(path).unwrap();
    let open = || Lease::open_at(place.as_fd(), "file").unwrap();
    let mut leases: Vec<Lease> = (0..LEASES_MAX).map(|_| open()).collect();
    assert!(leases.last().unwrap().as_fd().as_raw_fd() as usize >= LEASES_MAX);

    let opened = Topic::<u64>::open_in(&directory, "t").err().unwrap();
    assert!(matches!(opened, OpenError::TooManyHandles(_)), "{opened}");
    assert!(opened.to_string().contains(&LEASES_MAX.to_string()), "{opened}");
    let created = Topic::<u64>::create_in(&directory, "new", &small()).err().unwrap();
    assert!(matches!(created, CreateError::TooManyHandles(_)), "{created}");
    let observed = directory.inspect("t").err().unwrap();
    assert!(matches!(observed, OpenError::TooManyHandles(_)), "{observed}");
    let locked = RobustMutex::<u64>::open_in(&directory, "m").err().unwrap();
    assert!(matches!(locked, SyncOpenError::TooManyHandles(_)), "{locked}");
    let made = RobustMutex::<u64>::create_in(&directory, "n", &SyncOptions::default(), 0);
    assert!(matches!(made, Err(SyncCreateError::TooManyHandles(_))), "{:?}", made.err());
    let file_lock = FileLock::open(&file).err().unwrap();
    assert!(matches!(file_lock, FileLockError::TooManyHandles(_)), "{file_lock}");

    leases.pop();
    drop(Topic::<u64>::open_in(&directory, "t").unwrap());
}
