//! Opening what is not a topic, or not this one: a typed error each, never a panic, a hang or an
//! access outside the mapping.
//!
//! The tests know the format from outside: offsets are written down here once more, so that a
//! change of the format that nobody meant to make shows.
#![allow(unsafe_code)] // setuid

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use shmbus::{
    AttachError, Corrupt, CreateError, Delivery, Directory, OpenError, ReceiveError, RemoveError,
    Topic, TopicOptions,
};

#[path = "attach/corruption.rs"]
mod corruption;
#[path = "attach/headers.rs"]
mod headers;
#[path = "attach/odd_files.rs"]
mod odd_files;
#[path = "attach/options.rs"]
mod options;

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn small() -> TopicOptions {
    TopicOptions { depth: 16, subscribers_max: 2, hold_blocks: Some(2), ..Default::default() }
}

fn topic_of(directory: &Directory, name: &str) -> Topic<u64> {
    Topic::create_in(directory, name, &small()).unwrap()
}

fn open(directory: &Directory, name: &str) -> Result<Topic<u64>, OpenError> {
    Topic::open_in(directory, name)
}

/// The topic's own directory.
fn home(directory: &Directory, name: &str) -> PathBuf {
    directory.path().join(name).join(".topic")
}

fn file(directory: &Directory, name: &str, file: &str) -> File {
    let path = home(directory, name).join(file);
    File::options().read(true).write(true).open(path).unwrap()
}

/// Numbers that are the same in every run. (splitmix64)
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of `values`.
    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

#[test]
fn a_file_that_was_cut_anywhere_is_too_short() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    for (file_name, header) in [("data", 4096), ("ctl", 32)] {
        let file = file(&directory, "t", file_name);
        let full = file.metadata().unwrap().len();
        let content = fs::read(home(&directory, "t").join(file_name)).unwrap();
        let lens = [0, 1, 7, 8, 31, 32, 33, 4095, 4096, 4097, 8191, 8192, 8193, full - 1];
        for len in lens.into_iter().filter(|len| *len < full) {
            file.set_len(len).unwrap();
            let expected = if len < header { header } else { full };
            let error = open(&directory, "t").err().unwrap();
            assert!(
                matches!(error, OpenError::Short { file, len: found, expected: wanted, .. }
                    if (file, found, wanted) == (file_name, len, expected)),
                "{file_name} of {len} bytes: {error:?}"
            );
            assert!(matches!(directory.inspect("t"), Err(OpenError::Short { .. })));
            assert!(matches!(
                Topic::<u64>::open_or_create_in(&directory, "t", &small()),
                Err(CreateError::Open(OpenError::Short { .. }))
            ));
            file.write_all_at(&content, 0).unwrap();
        }
    }
    open(&directory, "t").unwrap();
}

#[test]
fn a_header_that_fits_itself_and_is_of_a_larger_topic_is_too_short() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    Topic::<u64>::create_in(&directory, "big", &TopicOptions { depth: 4096, ..small() }).unwrap();
    let (small_data, big) = (file(&directory, "t", "data"), file(&directory, "big", "data"));
    let (mut header, mut instance) = ([0; 4096], [0; 8]);
    big.read_exact_at(&mut header, 0).unwrap();
    small_data.read_exact_at(&mut instance, 16).unwrap();
    header[16..24].copy_from_slice(&instance);
    small_data.write_all_at(&header, 0).unwrap();
    let error = open(&directory, "t").err().unwrap();
    let big_len = big.metadata().unwrap().len();
    assert!(
        matches!(error, OpenError::Short { file: "data", expected, .. } if expected == big_len),
        "{error:?}"
    );
}

#[test]
fn a_file_that_is_longer_than_its_header_says_is_used_as_far_as_it_says() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    for name in ["data", "ctl"] {
        let file = file(&directory, "t", name);
        file.set_len(file.metadata().unwrap().len() + 5000).unwrap();
    }
    let topic = open(&directory, "t").unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    topic.publisher().unwrap().publish(&7).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 7);
}

#[test]
fn files_of_two_topics_do_not_mix() {
    let (_path, directory) = directory();
    let topic = topic_of(&directory, "a");
    topic_of(&directory, "b");
    let (a, b) = (home(&directory, "a"), home(&directory, "b"));
    let instance = |error: &OpenError| matches!(error, OpenError::Header { field, .. } if *field == "instance");
    for name in ["data", "ctl"] {
        let aside = directory.path().join("aside");
        fs::rename(a.join(name), &aside).unwrap();
        fs::rename(b.join(name), a.join(name)).unwrap();
        fs::rename(&aside, b.join(name)).unwrap();
        let both = [open(&directory, "a"), open(&directory, "b")];
        if name == "data" {
            assert!(both.iter().all(|answer| instance(answer.as_ref().err().unwrap())));
        } else {
            // Both files went: each topic is the other one now, whole. Whoever opened it before keeps what it
            // had and is not given a publisher of another topic.
            assert!(both.iter().all(Result::is_ok));
            match topic.publisher().err().unwrap() {
                AttachError::Open(error) => assert!(instance(&error), "{error:?}"),
                error => panic!("{error:?}"),
            }
        }
    }
}

#[test]
fn what_is_not_there_is_not_found_and_what_is_there_exists() {
    let (_path, directory) = directory();
    assert!(matches!(open(&directory, "t"), Err(OpenError::NotFound { name }) if name == "t"));
    assert!(matches!(open(&directory, "a/b"), Err(OpenError::NotFound { .. })));
    assert!(matches!(directory.inspect("t"), Err(OpenError::NotFound { .. })));
    let error = directory.remove("t", true).unwrap_err();
    assert!(matches!(error, RemoveError::Open(OpenError::NotFound { .. })), "{error:?}");
    topic_of(&directory, "a/b");
    assert!(matches!(open(&directory, "a"), Err(OpenError::NotFound { .. })));
    assert!(matches!(open(&directory, "a/b/c"), Err(OpenError::NotFound { .. })));
    let again = Topic::<u64>::create_in(&directory, "a/b", &small());
    assert!(matches!(again, Err(CreateError::Exists { name }) if name == "a/b"));
    topic_of(&directory, "a"); // above another one, and below one
    topic_of(&directory, "a/b/c");
    assert_eq!(directory.topics().unwrap(), ["a", "a/b", "a/b/c"]);
}

#[test]
fn a_name_that_is_not_one_is_refused_by_every_operation() {
    let (path, directory) = directory();
    let long = "x".repeat(201);
    for name in
        ["", ".", "..", "../t", "/t", "t/", "a//b", ".topic", "a/.topic", "a b", "a\0", "ü", &long]
    {
        let created = Topic::<u64>::create_in(&directory, name, &small());
        assert!(matches!(created, Err(CreateError::Name(error)) if error.name == name));
        assert!(matches!(open(&directory, name), Err(OpenError::Name(_))));
        let either = Topic::<u64>::open_or_create_in(&directory, name, &small());
        assert!(matches!(
            either,
            Err(CreateError::Name(_) | CreateError::Open(OpenError::Name(_)))
        ));
        assert!(matches!(directory.inspect(name), Err(OpenError::Name(_))));
        let removed = directory.remove(name, true);
        assert!(matches!(removed, Err(RemoveError::Open(OpenError::Name(_)))));
    }
    assert_eq!(fs::read_dir(path.path()).unwrap().count(), 0);
    topic_of(&directory, &"x".repeat(200));
}

#[test]
fn the_longest_segments_make_a_topic_or_a_typed_error() {
    let (_path, directory) = directory();
    let name = ["y"; 100].join("/");
    topic_of(&directory, &name);
    assert_eq!(directory.topics().unwrap(), [name.as_str()]);
    directory.remove(&name, false).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn another_type_or_another_max_len_is_refused() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    assert!(matches!(Topic::<i64>::open_in(&directory, "t"), Err(OpenError::Type { .. })));
    assert!(matches!(Topic::<u32>::open_in(&directory, "t"), Err(OpenError::Type { .. })));
    assert!(matches!(Topic::<[u8]>::open_in(&directory, "t"), Err(OpenError::Type { .. })));
    assert!(matches!(
        Topic::<[u8; 8]>::open_or_create_in(&directory, "t", &small()),
        Err(CreateError::Open(OpenError::Type { .. }))
    ));
    let bytes = TopicOptions { max_len: 100, ..small() };
    Topic::<[u8]>::create_in(&directory, "bytes", &bytes).unwrap();
    assert!(matches!(
        Topic::<[u8; 100]>::open_in(&directory, "bytes"),
        Err(OpenError::Type { .. })
    ));
    Topic::<[u8]>::open_in(&directory, "bytes").unwrap();
    Topic::<[u8]>::open_or_create_in(&directory, "bytes", &bytes).unwrap();
    let other = TopicOptions { max_len: 101, ..bytes };
    assert!(matches!(
        Topic::<[u8]>::open_or_create_in(&directory, "bytes", &other),
        Err(CreateError::Open(OpenError::Option {
            option: "max_len",
            found: 100,
            expected: 101,
            ..
        }))
    ));
}

/// As a remover leaves it that is killed when it has decided.
#[test]
fn a_topic_that_says_it_was_removed_and_has_its_name_is_retired_for_everybody() {
    let (path, directory) = directory();
    let topic = topic_of(&directory, "t");
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    file(&directory, "t", "ctl").write_all_at(&1_u32.to_le_bytes(), 4096 + 3 * 128).unwrap();
    assert!(topic.info().retired);
    assert!(matches!(directory.inspect("t"), Err(OpenError::Retired { .. })));
    assert!(path.path().join("t/.topic/data").exists(), "who looks changes nothing");
    assert!(matches!(open(&directory, "t"), Err(OpenError::Retired { .. })));
    assert!(!path.path().join("t/.topic").exists(), "who opens does the rest");
    assert!(matches!(topic.publisher(), Err(AttachError::Retired)));
    assert!(matches!(topic.subscriber(Delivery::Reliable), Err(AttachError::Retired)));
    assert!(matches!(subscriber.try_receive(), Err(ReceiveError::Retired)));
    drop(Topic::<u64>::open_or_create_in(&directory, "t", &small()).unwrap());
    directory.remove("t", false).unwrap();
    assert_eq!(fs::read_dir(path.path()).unwrap().count(), 0);
}

#[test]
fn a_publisher_that_finds_the_table_corrupt_gives_its_place_back() {
    let (_path, directory) = directory();
    let topic = topic_of(&directory, "t");
    let data = file(&directory, "t", "data");
    let mut first = [0; 8];
    data.read_exact_at(&mut first, 8192).unwrap();
    for entry in [u64::MAX, 1] {
        data.write_all_at(&entry.to_le_bytes(), 8192).unwrap(); // no such block; the block of entry 1
        let error = topic.publisher().err().unwrap();
        assert!(matches!(error, AttachError::Corrupt(Corrupt::Table)), "{error:?}");
        assert!(topic.info().participants.is_empty());
    }
    data.write_all_at(&first, 8192).unwrap();
    topic.publisher().unwrap().publish(&1).unwrap();
}

#[test]
fn what_may_not_be_read_or_written_is_permission_denied() {
    let (path, directory) = directory();
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["data-none", "data-read", "ctl-none", "ctl-read", "open", "home"] {
        let topic =
            Topic::<u64>::create_in(&directory, name, &TopicOptions { mode: 0o666, ..small() });
        topic.unwrap().publisher().unwrap().publish(&7).unwrap();
    }
    for (name, file, mode) in [
        ("data-none", "data", 0o000),
        ("data-read", "data", 0o444),
        ("ctl-none", "ctl", 0o000),
        ("ctl-read", "ctl", 0o444),
        ("home", "", 0o000),
    ] {
        let path = home(&directory, name).join(file);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Its own process, because root may do everything and has to become somebody else.
    let status = role("permission", path.path()).status().unwrap();
    fs::set_permissions(home(&directory, "home"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(status.success(), "{status}");
}

fn play_permission(path: &Path) {
    // SAFETY: it takes nothing.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: it takes a number.
        assert_eq!(unsafe { libc::setuid(65534) }, 0);
    }
    let directory = Directory::at(path).unwrap();
    for (name, expected) in
        [("data-none", "open data"), ("ctl-none", "open ctl"), ("ctl-read", "open ctl")]
    {
        let error = open(&directory, name).err().unwrap();
        assert!(
            matches!(error, OpenError::Permission { action, .. } if action == expected),
            "{error:?}"
        );
    }
    assert!(matches!(open(&directory, "home"), Err(OpenError::Permission { .. })));
    assert!(matches!(directory.inspect("home"), Err(OpenError::Permission { .. })));
    let read = open(&directory, "data-read").unwrap(); // who may only read may subscribe
    let mut subscriber = read.subscriber_from(Delivery::Lossy, shmbus::Start::Oldest).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 7);
    match read.publisher() {
        Err(AttachError::Open(OpenError::Permission { action: "open data", .. })) => {}
        other => panic!("{:?}", other.err()),
    }
    open(&directory, "open").unwrap().publisher().unwrap().publish(&8).unwrap();
}

/// This test program again, to play `role` in a process of its own.
fn role(role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_started_by_another_test_plays_its_role", "--nocapture"]);
    command.env("SHMBUS_TEST_ROLE", role).env("SHMBUS_TEST_PATH", path);
    command
}

#[test]
fn a_process_started_by_another_test_plays_its_role() {
    let Ok(role) = std::env::var("SHMBUS_TEST_ROLE") else { return };
    let path = PathBuf::from(std::env::var_os("SHMBUS_TEST_PATH").unwrap());
    match role.as_str() {
        "permission" => play_permission(&path),
        "corruption" => corruption::play(&path),
        other => panic!("there is no role {other}"),
    }
}
