//! Leases, with processes that are killed, stopped, forked and executed.

#![allow(unsafe_code)] // fork, and what a forked child may call

mod forked;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use forked::Forked;
use shmbus_sys::fork;
use shmbus_sys::lease::Lease;
use shmbus_sys::lock_list::HeldBytes;
use shmbus_sys::shm;
use shmbus_sys::spawn::FileId;

/// A directory with an empty file `lock` in it.
struct Place {
    path: tempfile::TempDir,
    dir: OwnedFd,
}

impl Place {
    fn new() -> Place {
        Place::at(tempfile::tempdir().unwrap())
    }

    fn at(path: tempfile::TempDir) -> Place {
        let dir = shm::open_directory(path.path()).unwrap();
        shm::create_at(dir.as_fd(), "lock", 0o600).unwrap();
        Place { path, dir }
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn lease(&self) -> Lease {
        Lease::open_at(self.dir(), "lock").unwrap()
    }

    /// How many descriptors of the file a process has.
    fn descriptors_of(&self, pid: u32) -> usize {
        let file: PathBuf = self.path.path().canonicalize().unwrap().join("lock");
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        descriptors
            .filter(|fd| {
                std::fs::read_link(fd.as_ref().unwrap().path()).ok().as_ref() == Some(&file)
            })
            .count()
    }
}

fn is_dead<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

#[test]
fn a_byte_is_held_until_it_is_released_or_its_lease_dropped() {
    let place = Place::new();
    let (holder, other) = (place.lease(), place.lease());
    assert!(!other.is_held_by_another(3).unwrap());
    assert!(holder.take(3).unwrap());
    assert!(other.is_held_by_another(3).unwrap());
    assert!(!other.is_held_by_another(2).unwrap() && !other.is_held_by_another(4).unwrap());
    assert!(!other.take(3).unwrap());
    assert!(other.take(4).unwrap());

    holder.release(3).unwrap();
    holder.release(3).unwrap();
    assert!(!other.is_held_by_another(3).unwrap());
    assert!(holder.take(3).unwrap());
    drop(holder);
    assert!(other.take(3).unwrap());
}

#[test]
fn a_lease_does_not_see_its_own_bytes_and_other_leases_of_the_process_do() {
    let place = Place::new();
    let (holder, other) = (place.lease(), place.lease());
    assert!(holder.take(0).unwrap());
    assert!(holder.take(0).unwrap(), "taken again");
    assert!(!holder.is_held_by_another(0).unwrap());
    assert_eq!(holder.first_held_by_another(0, 100).unwrap(), None);
    assert!(other.is_held_by_another(0).unwrap());
}

#[test]
fn a_byte_is_shared_by_any_number_and_held_until_the_last_of_them_is_gone() {
    let place = Place::new();
    let (one, two, other) = (place.lease(), place.lease(), place.lease());
    assert!(one.share(3).unwrap() && two.share(3).unwrap());
    assert!(!other.take(3).unwrap());
    drop(one);
    assert!(other.is_held_by_another(3).unwrap());
    assert!(!other.take(3).unwrap());
    drop(two);
    assert!(!other.is_held_by_another(3).unwrap());
    assert!(other.take(3).unwrap());
    assert!(!place.lease().share(3).unwrap());
}

#[test]
fn the_list_of_locks_says_who_holds_what_without_opening_the_file() {
    let place = Place::at(tempfile::tempdir_in("/dev/shm").unwrap());
    let file = FileId::at(place.dir(), "lock").unwrap();
    assert_eq!(file, FileId::of(place.lease().as_fd()).unwrap());
    let held = |byte| HeldBytes::of(file).unwrap().contains(byte);
    assert!(!held(3));
    let (holder, neighbour) = (place.lease(), place.lease());
    assert!(holder.take(3).unwrap() && neighbour.take(4).unwrap());
    assert!(held(3) && held(4) && !held(5));
    drop(holder);
    assert!(!held(3) && held(4));
    // More locks than the kernel lists at once.
    let many = place.lease();
    for byte in 0..1000 {
        assert!(many.take(1000 + 2 * byte).unwrap());
    }
    let all = HeldBytes::of(file).unwrap();
    assert!((0..1000).all(|byte| all.contains(1000 + 2 * byte) && !all.contains(1001 + 2 * byte)));
}

#[test]
fn closing_another_description_of_the_file_releases_nothing() {
    let place = Place::new();
    let (holder, other) = (place.lease(), place.lease());
    assert!(holder.take(0).unwrap());
    drop(place.lease()); // a lock of the process (F_SETLK) would be gone now
    assert!(other.is_held_by_another(0).unwrap());
}

#[test]
fn a_probe_of_a_range_finds_the_lowest_held_byte() {
    let place = Place::new();
    let (early, late, other) = (place.lease(), place.lease(), place.lease());
    // The kernel keeps locks in the order in which their owners came: the lowest is not the first.
    for byte in [50, 51, 52, 90] {
        assert!(early.take(byte).unwrap());
    }
    for byte in [70, 20] {
        assert!(late.take(byte).unwrap());
    }
    assert_eq!(other.first_held_by_another(0, 100).unwrap(), Some(20));
    assert_eq!(other.first_held_by_another(20, 1).unwrap(), Some(20));
    assert_eq!(other.first_held_by_another(0, 20).unwrap(), None);
    assert_eq!(other.first_held_by_another(21, 100).unwrap(), Some(50));
    assert_eq!(
        other.first_held_by_another(51, 100).unwrap(),
        Some(51),
        "a lock that begins before the range"
    );
    assert_eq!(other.first_held_by_another(53, 100).unwrap(), Some(70));
    assert_eq!(other.first_held_by_another(91, 100).unwrap(), None);
    assert_eq!(other.first_held_by_another(50, 0).unwrap(), None);
    assert_eq!(late.first_held_by_another(0, 100).unwrap(), Some(50), "not its own");
}

#[test]
fn bytes_that_no_file_can_have_are_refused() {
    let lease = Place::new().lease();
    let last = i64::MAX as u64;
    assert!(lease.take(last).unwrap());
    assert_eq!(lease.take(last + 1).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(
        lease.first_held_by_another(0, last + 1).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        lease.first_held_by_another(u64::MAX, 1).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn a_lease_is_not_opened_through_a_symbolic_link() {
    let place = Place::new();
    std::os::unix::fs::symlink("lock", place.path.path().join("link")).unwrap();
    let error = Lease::open_at(place.dir(), "link").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    assert_eq!(Lease::open_at(place.dir(), "none").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_process_holds_its_byte_while_it_runs_and_while_it_is_stopped_but_not_when_killed() {
    let place = Place::new();
    let probe = place.lease();
    let mut child = Forked::new(|| {
        let Ok(lease) = Lease::open_at(place.dir(), "lock") else { return false };
        let taken = lease.take(9).unwrap_or(false);
        std::mem::forget(lease); // until the end of the process
        taken
    });
    assert!(child.result());
    assert!(probe.is_held_by_another(9).unwrap());
    child.stop();
    assert!(probe.is_held_by_another(9).unwrap(), "stopped is not dead");
    child.kill();
    assert!(!probe.is_held_by_another(9).unwrap());
    assert!(probe.take(9).unwrap());
}

#[test]
fn a_forked_child_does_not_keep_the_lease_of_its_parent() {
    let place = Place::new();
    let (lease, probe) = (place.lease(), place.lease());
    assert!(lease.take(1).unwrap());
    let mut child = Forked::new(|| {
        is_dead(lease.take(2))
            && is_dead(lease.release(1))
            && is_dead(lease.is_held_by_another(1))
            && is_dead(lease.first_held_by_another(0, 9))
    });
    assert!(child.result(), "the lease works in the child");
    assert_eq!(place.descriptors_of(child.pid as u32), 0);
    assert!(
        probe.is_held_by_another(1).unwrap(),
        "the parent's lease went with the child's descriptor"
    );
    drop(lease);
    assert!(!probe.is_held_by_another(1).unwrap(), "the child keeps the lease");
}

#[test]
fn an_inherited_lease_does_not_touch_what_has_its_number_now() {
    let place = Place::new();
    let lease = place.lease();
    let mut child = Forked::new(|| {
        // SAFETY: duplicating a descriptor that is open. The lowest free numbers are taken first:
        // after 64 of them, the one that the lease had is not free.
        let open = || unsafe { libc::dup(place.dir.as_raw_fd()) };
        let mut fds = [0; 64];
        fds.iter_mut().for_each(|fd| *fd = open());
        let is_refused = is_dead(lease.is_held_by_another(0)); // asks no other file
        // SAFETY: this process has its own copy of the memory and uses the original no more.
        drop(unsafe { std::ptr::read(&lease) });
        // SAFETY: asks about a number.
        let is_open = |&fd: &i32| fd >= 0 && unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        is_refused && fds.iter().all(is_open)
    });
    assert!(child.result());
}

#[test]
fn a_child_can_hold_leases_of_its_own_and_its_child_does_not_keep_them() {
    let place = Place::new();
    let probe = place.lease();
    let before = fork::generation();
    let mut child = Forked::new(|| {
        let Ok(lease) = Lease::open_at(place.dir(), "lock") else { return false };
        if fork::generation() != before + 1 || !lease.take(5).unwrap_or(false) {
            return false;
        }
        // SAFETY: the grandchild checks and exits, with system calls only.
        let grandchild = unsafe { libc::fork() };
        if grandchild == 0 {
            let right = is_dead(lease.release(5)) && fork::generation() == before + 2;
            // SAFETY: it does not return.
            unsafe { libc::_exit(i32::from(!right)) };
        }
        let mut status = -1;
        // SAFETY: `status` is valid for writes.
        unsafe { libc::waitpid(grandchild, &raw mut status, 0) };
        let held = lease.take(5).unwrap_or(false);
        std::mem::forget(lease);
        held && status == 0
    });
    assert!(child.result());
    assert!(probe.is_held_by_another(5).unwrap());
    assert_eq!(fork::generation(), before, "the parent's own generation");
}

#[test]
fn a_program_that_is_executed_does_not_keep_the_lease() {
    let place = Place::new();
    let (lease, probe) = (place.lease(), place.lease());
    assert!(lease.take(1).unwrap());
    let mut program =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    assert_eq!(place.descriptors_of(program.id()), 0);
    drop(lease);
    let held = probe.is_held_by_another(1);
    drop(program.stdin.take());
    program.wait().unwrap();
    assert!(!held.unwrap());
}

#[test]
fn a_fork_while_other_threads_open_and_drop_leases_catches_none() {
    let place = Place::new();
    let probe = place.lease();
    let done = AtomicBool::new(false);
    let mut children: Vec<Forked> = std::thread::scope(|scope| {
        for byte in [0, 1] {
            let (place, done) = (&place, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let lease = place.lease();
                    assert!(lease.take(byte).unwrap(), "the lease dropped last is still held");
                }
            });
        }
        let children = (0..150).map(|_| Forked::new(|| true)).collect();
        done.store(true, Ordering::Relaxed);
        children
    });
    assert!(children.iter_mut().all(Forked::result)); // all are out of `fork`
    let keepers =
        children.iter().filter(|child| place.descriptors_of(child.pid as u32) > 0).count();
    assert_eq!(keepers, 0, "of {} children", children.len());
    assert_eq!(probe.first_held_by_another(0, 2).unwrap(), None);
}

#[test]
fn leases_work_where_files_can_be_made_and_trying_it_leaves_nothing() {
    let place = Place::new();
    // Of files in its place, with a name or without; other tests have others open at the same time.
    let descriptors = || {
        let place = place.path.path().canonicalize().unwrap();
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = links.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        links.filter(|file| file.starts_with(&place)).count()
    };
    let before = descriptors();
    for _ in 0..50 {
        assert!(Lease::work_in(place.dir()).unwrap());
    }
    assert_eq!(descriptors(), before);
    assert_eq!(shm::list_at(place.dir()).unwrap(), ["lock"]);
    let proc = shm::open_directory(std::path::Path::new("/proc")).unwrap();
    assert!(Lease::work_in(proc.as_fd()).is_err());
}
