//! A file system that is full, without inodes, without a limit, or not in memory.
#![allow(unsafe_code)] // mount, setrlimit

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Player, directory, is_root, play, role, small, tree};
use shmbus::sync::{Event, Reset, SyncCreateError, SyncOptions};
use shmbus::{CreateError, Delivery, Directory, DirectoryError, Topic, TopicOptions};

fn mount(kind: &CStr, at: &Path, flags: libc::c_ulong, options: &CStr) -> bool {
    let at = CString::new(at.as_os_str().as_bytes()).unwrap();
    let options = options.as_ptr().cast();
    // SAFETY: four strings that end in 0.
    unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, options) == 0 }
}

/// Plays a role that mounts; needs root.
fn play_with_mounts(name: &str) {
    if !is_root() {
        return eprintln!("skipped: mounting takes root");
    }
    let (path, _) = directory();
    play(name, path.path());
}

/// From here on what this process mounts is seen by itself alone. False: it may not.
fn mounts_of_its_own() -> bool {
    // SAFETY: it takes a number; nothing here relies on mounts from outside.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let may = unshared && mount(c"none", Path::new("/"), private, c"");
    if !may {
        eprintln!("skipped: this root may not mount");
    }
    may
}

/// A tmpfs with `options` on the new directory `path`.
fn tmpfs(path: &Path, options: &CStr) -> Directory {
    fs::create_dir(path).unwrap();
    assert!(mount(c"tmpfs", path, 0, options), "{}", std::io::Error::last_os_error());
    Directory::at(path).unwrap()
}

#[test]
fn a_full_file_system_is_an_error_that_leaves_nothing_behind() {
    play_with_mounts("full tmpfs");
}

pub(super) fn play_full_tmpfs(path: &Path) {
    if !mounts_of_its_own() {
        return;
    }
    let one_mib = path.join("small");
    let directory = tmpfs(&one_mib, c"size=1m,mode=700");
    let bytes = |max_len| TopicOptions { max_len, ..small() };
    let (large, fits) = (bytes(100_000), bytes(20_000));
    let needed = large.memory::<[u8]>().unwrap().total();
    for name in ["t", "a/b/c"] {
        for answer in [
            Topic::<[u8]>::create_in(&directory, name, &large),
            Topic::<[u8]>::open_or_create_in(&directory, name, &large),
        ] {
            match answer.err().unwrap() {
                CreateError::NoSpace { name: found, needed: stated, available, path } => {
                    assert_eq!((found.as_str(), stated, &path), (name, needed, &one_mib));
                    assert!((1 << 19..=1 << 20).contains(&available), "{available}");
                }
                error => panic!("{error:?}"),
            }
        }
        assert_eq!(tree(&one_mib), BTreeSet::new());
    }
    let topic = Topic::<[u8]>::create_in(&directory, "fits", &fits).unwrap();
    let before = tree(&one_mib);
    let error = Topic::<[u8]>::create_in(&directory, "also/fits", &fits).err().unwrap();
    assert!(matches!(error, CreateError::NoSpace { .. }), "{error:?}");
    assert_eq!(tree(&one_mib), before);
    // What exists has all of its pages: the whole ring is written on a file system that is full to the last page.
    let filler = vec![0; 1 << 20];
    _ = fs::write(one_mib.join("filler"), filler);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    for _ in 0..100 {
        publisher.publish(&[7; 20_000]).unwrap();
        assert_eq!(subscriber.receive().unwrap().len(), 20_000);
    }
}

#[test]
fn a_file_system_without_inodes_is_an_error_that_leaves_nothing_behind() {
    play_with_mounts("few inodes");
}

pub(super) fn play_few_inodes(path: &Path) {
    if !mounts_of_its_own() {
        return;
    }
    for inodes in 1..12 {
        let options = CString::new(format!("size=16m,mode=700,nr_inodes={inodes}")).unwrap();
        let path = path.join(format!("inodes-{inodes}"));
        let directory = tmpfs(&path, &options);
        match Topic::<u64>::create_in(&directory, "a/b/c", &small()) {
            Ok(_) => directory.remove("a/b/c", false).unwrap(),
            Err(CreateError::NoInodes { needed: 7, available, .. }) => {
                assert!(available < 7, "{available}");
            }
            Err(error) => panic!("{error:?}"),
        }
        let event = Event::create_in(&directory, "e", &SyncOptions::default(), Reset::Auto);
        match event {
            Ok(_) => directory.remove_sync("e", true).unwrap(),
            Err(SyncCreateError::NoInodes { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(tree(&path), BTreeSet::new(), "left with {inodes} inodes");
    }
}

#[test]
fn a_tmpfs_without_a_limit_has_room() {
    play_with_mounts("unlimited tmpfs");
}

pub(super) fn play_unlimited_tmpfs(path: &Path) {
    if !mounts_of_its_own() {
        return;
    }
    // size=0: no limit but memory; statfs says 0 blocks of 0.
    let directory = tmpfs(&path.join("unlimited"), c"size=0,mode=700");
    let topic = Topic::<u64>::create_in(&directory, "t", &small());
    assert!(topic.is_ok(), "{:?}", topic.err());
}

#[test]
fn a_file_that_may_not_become_as_long_as_the_topic_is_an_error_that_leaves_nothing_behind() {
    let (path, _) = directory();
    play("file size limit", path.path());
}

pub(super) fn play_file_size_limit(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let limit_files = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `limit` is valid for reads.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    };
    let options = TopicOptions { depth: 1 << 14, ..small() };
    for bytes in [0, 4096, 12 << 10, 32 << 10] {
        limit_files(bytes);
        // The kernel would end the process by SIGXFSZ.
        let created = Topic::<u64>::create_in(&directory, "a/b", &options);
        let event = Event::create_in(&directory, "a/e", &SyncOptions::default(), Reset::Auto);
        limit_files(libc::RLIM_INFINITY); // the test's own output may be a file
        let error = created.err().unwrap();
        assert!(
            matches!(error, CreateError::FileSizeLimit { needed, limit, .. } if needed > bytes && limit == bytes),
            "{error:?}"
        );
        let error = event.err().unwrap();
        assert!(
            matches!(error, SyncCreateError::FileSizeLimit { limit, .. } if limit == bytes),
            "{error:?}"
        );
        assert_eq!(tree(path), BTreeSet::new(), "left with a limit of {bytes} bytes");
    }
}

#[test]
fn a_file_system_that_is_not_memory_is_refused_unless_it_is_asked_for() {
    // No process has a tmpfs there, and root owns it.
    let proc = Path::new("/proc");
    assert!(matches!(Directory::at(proc), Err(DirectoryError::NotTmpfs { path }) if path == proc));
    for (value, accepted) in [("1", true), ("", false), ("0", false), ("yes", false)] {
        let mut player = role("at", proc);
        player.env("SHMBUS_ALLOW_DISK", value);
        let said = Player::new(player).hear();
        assert_eq!(
            said,
            if accepted { "Ok(\"/proc\")" } else { "Err(NotTmpfs { path: \"/proc\" })" }
        );
    }
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut player = role("on a disk", disk.path());
    player.env("SHMBUS_ALLOW_DISK", "1");
    assert!(player.status().unwrap().success());
    assert_eq!(tree(disk.path()), BTreeSet::new());
}

pub(super) fn play_on_a_disk(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    topic.publisher().unwrap().publish(&7).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 7);
    drop(subscriber);
    directory.remove("t", false).unwrap();
}
