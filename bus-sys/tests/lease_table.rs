//! The number of leases is limited. Alone in its file: it uses up the limit of the whole process.

use std::os::fd::AsFd;

use rustix::process::{Resource, getrlimit, setrlimit};
use shmbus_sys::fork::{LEASES_MAX, TooManyLeases};
use shmbus_sys::lease::Lease;
use shmbus_sys::shm;

#[test]
fn the_lease_after_the_last_is_refused_and_a_dropped_one_makes_room() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    if limit.current.is_some_and(|descriptors| descriptors < LEASES_MAX as u64 + 64) {
        return println!("skipped: a process may open {:?} descriptors only", limit.current);
    }
    let path = tempfile::tempdir().unwrap();
    let dir = shm::open_directory(path.path()).unwrap();
    shm::create_at(dir.as_fd(), "lock", 0o600).unwrap();
    let open = || Lease::open_at(dir.as_fd(), "lock");

    let mut leases: Vec<Lease> = (0..LEASES_MAX).map(|_| open().unwrap()).collect();
    for _ in 0..2 {
        let error = open().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
        assert!(error.get_ref().is_some_and(|inner| inner.is::<TooManyLeases>()), "{error}");
    }
    leases.swap_remove(LEASES_MAX / 2);
    leases.push(open().unwrap());
    assert!(open().is_err());
    let open_descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open_descriptors < LEASES_MAX + 64, "refused leases leave descriptors behind");
}
