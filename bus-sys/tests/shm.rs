//! Files in memory, on the real file systems of this machine.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::io::Errno;
use shmbus_sys::shm::{self, Access};

struct Place {
    path: tempfile::TempDir,
    dir: OwnedFd,
}

impl Place {
    fn new() -> Place {
        Place::below(&std::env::temp_dir())
    }

    fn below(path: &Path) -> Place {
        let path = tempfile::tempdir_in(path).unwrap();
        let dir = shm::open_directory(path.path()).unwrap();
        Place { path, dir }
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn names(&self) -> Vec<String> {
        let mut names = shm::list_at(self.dir()).unwrap();
        names.sort();
        names
    }
}

/// A directory on a tmpfs, or none, with the reason printed.
fn place_on_tmpfs() -> Option<Place> {
    let path = Path::new("/dev/shm");
    let is_tmpfs = shm::open_directory(path).and_then(|dir| shm::filesystem(dir.as_fd()));
    if is_tmpfs.is_ok_and(|found| found.is_tmpfs) && tempfile::tempdir_in(path).is_ok() {
        return Some(Place::below(path));
    }
    println!("skipped: /dev/shm is not a tmpfs that one may write to");
    None
}

fn number<T: std::fmt::Debug>(result: io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).expect("an error of the kernel")
}

#[test]
fn a_directory_below_one_that_sets_the_group_sets_it_too() {
    let place = Place::new();
    shm::make_directory_at(place.dir(), "plain", 0o770).unwrap();
    rustix::fs::fchmod(place.dir(), Mode::from_raw_mode(0o2770)).unwrap();
    shm::make_directory_at(place.dir(), "shared", 0o770).unwrap();
    for (name, mode) in [("plain", 0o770), ("shared", 0o2770)] {
        let made = shm::open_directory_at(place.dir(), name).unwrap();
        assert_eq!(rustix::fs::fstat(&made).unwrap().st_mode & 0o7777, mode, "{name}");
    }
}

#[test]
fn create_refuses_a_name_that_is_taken_and_leaves_it_as_it_is() {
    let place = Place::new();
    let fd = shm::create_at(place.dir(), "a", 0o600).unwrap();
    shm::write_all_at(fd.as_fd(), b"kept", 0).unwrap();
    assert_eq!(number(shm::create_at(place.dir(), "a", 0o666)), Errno::EXIST);
    shm::make_directory_at(place.dir(), "d", 0o700).unwrap();
    assert_eq!(number(shm::create_at(place.dir(), "d", 0o600)), Errno::EXIST);
    assert_eq!(number(shm::make_directory_at(place.dir(), "a", 0o700)), Errno::EXIST);
    assert_eq!(number(shm::make_directory_at(place.dir(), "d", 0o777)), Errno::EXIST);
    assert_eq!(shm::len(fd.as_fd()).unwrap(), 4);
    assert_eq!(shm::owner(fd.as_fd()).unwrap().mode, 0o600);
    let d = shm::open_directory_at(place.dir(), "d").unwrap();
    assert_eq!(shm::owner(d.as_fd()).unwrap().mode, 0o700);
    assert_eq!(place.names(), ["a", "d"]);
}

#[test]
fn nothing_follows_a_symbolic_link() {
    let place = Place::new();
    let at = |name: &str| place.path.path().join(name);
    shm::create_at(place.dir(), "file", 0o600).unwrap();
    shm::make_directory_at(place.dir(), "directory", 0o700).unwrap();
    symlink("file", at("to-file")).unwrap();
    symlink("directory", at("to-directory")).unwrap();
    symlink("nothing", at("to-nothing")).unwrap();

    assert_eq!(number(shm::create_at(place.dir(), "to-nothing", 0o600)), Errno::EXIST);
    assert_eq!(number(shm::create_at(place.dir(), "to-file", 0o600)), Errno::EXIST);
    assert_eq!(number(shm::make_directory_at(place.dir(), "to-nothing", 0o700)), Errno::EXIST);
    assert_eq!(number(shm::open_at(place.dir(), "to-file", Access::ReadOnly)), Errno::LOOP);
    assert_eq!(number(shm::open_at(place.dir(), "to-file", Access::ReadWrite)), Errno::LOOP);
    let refused = [Errno::LOOP, Errno::NOTDIR];
    assert!(refused.contains(&number(shm::open_directory_at(place.dir(), "to-directory"))));
    assert!(refused.contains(&number(shm::open_directory(&at("to-directory")))));
    assert!(!at("nothing").exists());
}

#[test]
fn publish_moves_in_one_step_and_refuses_to_replace() {
    let place = Place::new();
    let first = shm::create_at(place.dir(), "first", 0o600).unwrap();
    shm::write_all_at(first.as_fd(), b"1", 0).unwrap();
    shm::publish_at(place.dir(), "first", "live").unwrap();
    assert_eq!(place.names(), ["live"]);

    shm::create_at(place.dir(), "second", 0o600).unwrap();
    assert_eq!(number(shm::publish_at(place.dir(), "second", "live")), Errno::EXIST);
    let live = shm::open_at(place.dir(), "live", Access::ReadOnly).unwrap();
    assert_eq!(shm::len(live.as_fd()).unwrap(), 1);

    // A plain rename puts a directory in the place of an empty one.
    shm::make_directory_at(place.dir(), "new", 0o700).unwrap();
    shm::make_directory_at(place.dir(), "old", 0o700).unwrap();
    assert_eq!(number(shm::publish_at(place.dir(), "new", "old")), Errno::EXIST);
    assert_eq!(number(shm::publish_at(place.dir(), "none", "other")), Errno::NOENT);
    assert_eq!(place.names(), ["live", "new", "old", "second"]);
}

#[test]
fn a_name_is_removed_by_the_function_of_its_kind() {
    let place = Place::new();
    shm::create_at(place.dir(), "file", 0o600).unwrap();
    shm::make_directory_at(place.dir(), "directory", 0o700).unwrap();
    assert_eq!(number(shm::remove_directory_at(place.dir(), "file")), Errno::NOTDIR);
    assert_eq!(number(shm::unlink_at(place.dir(), "directory")), Errno::ISDIR);
    let directory = shm::open_directory_at(place.dir(), "directory").unwrap();
    shm::create_at(directory.as_fd(), "inside", 0o600).unwrap();
    assert_eq!(number(shm::remove_directory_at(place.dir(), "directory")), Errno::NOTEMPTY);
    shm::unlink_at(directory.as_fd(), "inside").unwrap();
    shm::remove_directory_at(place.dir(), "directory").unwrap();
    shm::unlink_at(place.dir(), "file").unwrap();
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_list_has_every_name_once_also_when_asked_again() {
    let place = Place::new();
    let mut expected: Vec<String> =
        (0..300).map(|n| format!("a-rather-long-name-{n:04}")).collect();
    expected.push(".hidden".into());
    for name in &expected {
        shm::create_at(place.dir(), name, 0o600).unwrap();
    }
    let not_utf8 = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    File::create(place.path.path().join::<&std::ffi::OsStr>(not_utf8)).unwrap();
    expected.sort();
    assert_eq!(place.names(), expected);
    assert_eq!(place.names(), expected);
}

#[test]
fn allocated_pages_are_there_and_are_zero() {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::allocate(memfd.as_fd(), 1 << 20).unwrap();
    assert_eq!(shm::len(memfd.as_fd()).unwrap(), 1 << 20);
    let file = File::from(memfd);
    assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20, "a hole, as ftruncate leaves it");
    let mut page = [1; 4096];
    shm::read_exact_at(file.as_fd(), &mut page, (1 << 20) - 4096).unwrap();
    assert_eq!(page, [0; 4096]);
    assert_eq!(number(shm::allocate(file.as_fd(), 0)), Errno::INVAL);
}

#[test]
fn more_than_a_tmpfs_can_hold_is_an_error_and_nothing_is_kept() {
    let Some(place) = place_on_tmpfs() else { return };
    let total_bytes = shm::filesystem(place.dir()).unwrap().total_bytes;
    if total_bytes == 0 {
        return println!("skipped: this tmpfs has no limit");
    }
    let fd = shm::create_at(place.dir(), "file", 0o600).unwrap();
    assert_eq!(number(shm::allocate(fd.as_fd(), total_bytes + 4096)), Errno::NOSPC);
    let file = File::from(fd).metadata().unwrap();
    assert_eq!((file.len(), file.blocks()), (0, 0));
}

#[test]
fn more_than_is_left_on_a_tmpfs_is_an_error_and_nothing_is_kept() {
    let path = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "shmbus-test"])
        .arg(path.path())
        .output();
    if !mount.as_ref().is_ok_and(|output| output.status.success()) {
        return println!("skipped: no right to mount ({mount:?})");
    }
    let full = std::panic::catch_unwind(|| {
        let dir = shm::open_directory(path.path()).unwrap();
        let before = shm::filesystem(dir.as_fd()).unwrap();
        assert!(before.is_tmpfs);
        assert_eq!((before.total_bytes, before.available_bytes), (256 << 10, 256 << 10));
        let first = shm::create_at(dir.as_fd(), "first", 0o600).unwrap();
        shm::allocate(first.as_fd(), 128 << 10).unwrap();
        assert_eq!(shm::filesystem(dir.as_fd()).unwrap().available_bytes, 128 << 10);

        let second = shm::create_at(dir.as_fd(), "second", 0o600).unwrap();
        assert_eq!(number(shm::allocate(second.as_fd(), 192 << 10)), Errno::NOSPC);
        assert_eq!(shm::len(second.as_fd()).unwrap(), 0);
        assert_eq!(shm::filesystem(dir.as_fd()).unwrap().available_bytes, 128 << 10);
        shm::allocate(second.as_fd(), 128 << 10).unwrap();
        assert_eq!(shm::filesystem(dir.as_fd()).unwrap().available_bytes, 0);
    });
    assert!(Command::new("umount").arg(path.path()).status().unwrap().success());
    full.unwrap();
}

#[test]
fn only_a_tmpfs_is_called_one() {
    let is_tmpfs = |path: &str| {
        let dir = shm::open_directory(Path::new(path)).unwrap();
        shm::filesystem(dir.as_fd()).unwrap().is_tmpfs
    };
    assert!(!is_tmpfs("/proc"));
    assert!(!is_tmpfs("/sys"));
    if let Some(place) = place_on_tmpfs() {
        assert!(shm::filesystem(place.dir()).unwrap().is_tmpfs);
    }
}

#[test]
fn only_a_regular_file_has_a_length() {
    let place = Place::new();
    assert_eq!(shm::len(place.dir()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let (reader, _writer) = std::io::pipe().unwrap();
    assert_eq!(shm::len(reader.as_fd()).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_fifo_in_the_place_of_a_file_does_not_block_the_opener() {
    let place = Place::new();
    let (kind, mode) =
        (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(place.dir(), "fifo", kind, mode, 0).unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let fd = shm::open_at(place.dir(), "fifo", access).unwrap();
        assert_eq!(shm::len(fd.as_fd()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn what_is_written_is_read_and_a_short_file_is_an_error() {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::write_all_at(memfd.as_fd(), b"a message", 100).unwrap();
    assert_eq!(shm::len(memfd.as_fd()).unwrap(), 109);
    let mut buffer = [0; 9];
    shm::read_exact_at(memfd.as_fd(), &mut buffer, 100).unwrap();
    assert_eq!(&buffer, b"a message");
    let error = shm::read_exact_at(memfd.as_fd(), &mut buffer, 101).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    shm::read_exact_at(memfd.as_fd(), &mut [], 1000).unwrap();
}

#[test]
fn a_read_only_descriptor_does_not_write() {
    let place = Place::new();
    shm::create_at(place.dir(), "file", 0o600).unwrap();
    let fd = shm::open_at(place.dir(), "file", Access::ReadOnly).unwrap();
    assert_eq!(number(shm::write_all_at(fd.as_fd(), b"x", 0)), Errno::BADF);
}

#[test]
fn a_sealed_size_neither_shrinks_nor_grows() {
    let memfd = shm::memfd("shmbus-test").unwrap();
    shm::allocate(memfd.as_fd(), 8192).unwrap();
    assert!(!shm::size_is_sealed(memfd.as_fd()).unwrap());
    shm::seal_size(memfd.as_fd()).unwrap();
    shm::seal_size(memfd.as_fd()).unwrap();
    assert!(shm::size_is_sealed(memfd.as_fd()).unwrap());

    assert_eq!(number(rustix::fs::ftruncate(&memfd, 4096).map_err(Into::into)), Errno::PERM);
    assert_eq!(number(rustix::fs::ftruncate(&memfd, 16384).map_err(Into::into)), Errno::PERM);
    assert_eq!(number(shm::allocate(memfd.as_fd(), 16384)), Errno::PERM);
    // Through another description too: the seal is the file's.
    let again =
        File::options().write(true).open(format!("/proc/self/fd/{}", memfd.as_raw_fd())).unwrap();
    assert_eq!(number(again.set_len(0)), Errno::PERM);
    assert_eq!(shm::len(memfd.as_fd()).unwrap(), 8192);
}

#[test]
fn a_file_of_another_kind_is_not_sealed_and_cannot_be() {
    let files = [Some(Place::new()), place_on_tmpfs()];
    for place in files.iter().flatten() {
        let fd = shm::create_at(place.dir(), "file", 0o600).unwrap();
        assert!(!shm::size_is_sealed(fd.as_fd()).unwrap());
        assert!([Errno::INVAL, Errno::PERM].contains(&number(shm::seal_size(fd.as_fd()))));
    }
}

#[test]
fn a_memfd_is_not_executable_and_only_its_owner_may_open_it() {
    let memfd = shm::memfd("shmbus-test").unwrap();
    assert_eq!(shm::owner(memfd.as_fd()).unwrap().mode, 0o600);
}

#[test]
fn no_descriptor_survives_an_exec() {
    let place = Place::new();
    let fds = [
        shm::create_at(place.dir(), "file", 0o600).unwrap(),
        shm::open_at(place.dir(), "file", Access::ReadWrite).unwrap(),
        shm::open_directory_at(place.dir(), ".").unwrap(),
        shm::open_directory(place.path.path()).unwrap(),
        shm::memfd("shmbus-test").unwrap(),
    ];
    for fd in &fds {
        assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
