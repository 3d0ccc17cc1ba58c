//! Modes are exactly those asked. Alone in its file: the umask belongs to the whole process.

use std::os::fd::AsFd;

use rustix::fs::Mode;
use shmbus_sys::shm::{self, Access};

#[test]
fn a_new_file_or_directory_has_the_mode_asked_whatever_the_umask() {
    let path = tempfile::tempdir().unwrap();
    let dir = shm::open_directory(path.path()).unwrap();
    let dir = dir.as_fd();
    for (number, umask) in [0o000, 0o022, 0o077, 0o377].into_iter().enumerate() {
        rustix::process::umask(Mode::from_raw_mode(umask));
        for mode in [0o600, 0o640, 0o660, 0o666] {
            let name = format!("file-{number}-{mode:o}");
            let fd = shm::create_at(dir, &name, mode).unwrap();
            assert_eq!(shm::owner(fd.as_fd()).unwrap().mode, mode, "umask {umask:o}");
            assert_eq!(shm::owner(fd.as_fd()).unwrap().uid, shm::effective_uid());
            shm::open_at(dir, &name, Access::ReadWrite).unwrap();
        }
        for mode in [0o700, 0o750, 0o770, 0o1777, 0o2770] {
            let name = format!("directory-{number}-{mode:o}");
            shm::make_directory_at(dir, &name, mode).unwrap();
            let fd = shm::open_directory_at(dir, &name).unwrap();
            assert_eq!(shm::owner(fd.as_fd()).unwrap().mode, mode, "umask {umask:o}");
        }
        let memfd = shm::memfd("shmbus-test").unwrap();
        assert_eq!(shm::owner(memfd.as_fd()).unwrap().mode, 0o600);
    }
}
