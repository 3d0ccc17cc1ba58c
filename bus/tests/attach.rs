//! Opening what is not a topic, or not this one: a typed error each, never a panic, a hang or an
//! access outside the mapping.
//!
//! The tests know the format from outside: offsets are written down here once more, so that a
//! change of the format that nobody meant to make shows.
#![allow(unsafe_code)] // setuid

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use shmbus::{
    AttachError, Corrupt, CreateError, Delivery, Directory, OpenError, ReceiveError, RemoveError,
    Topic, TopicOptions,
};

#[path = "attach/corruption.rs"]
mod corruption;
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

/// What opening says when a field is not what the creator wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Nothing: the field is free.
    Opens,
    /// The files are something else.
    Foreign,
    /// Another version.
    Version,
    /// Another byte order, or `Header`.
    ByteOrder,
    /// The header contradicts itself.
    Header,
    /// It contradicts itself or is another valid value.
    HeaderOrOpens,
}

/// Name, offset, bytes, answer.
type Field = (&'static str, u64, u64, Says);

const DATA: &[Field] = &[
    ("magic", 0, 8, Says::Foreign),
    ("version", 8, 4, Says::Version),
    ("byte_order", 12, 4, Says::ByteOrder),
    ("instance", 16, 8, Says::Header),
    ("data_len", 24, 8, Says::Header),
    ("control_len", 32, 8, Says::Header),
    ("created_ns", 40, 8, Says::Opens),
    ("depth", 48, 8, Says::Header),
    ("block_len", 56, 8, Says::Header),
    ("slot_size", 64, 8, Says::Header),
    ("blocks", 72, 4, Says::Header),
    ("spares", 76, 4, Says::Header),
    ("publishers_max", 80, 4, Says::Header),
    ("subscribers_max", 84, 4, Says::Header),
    ("hold_blocks", 88, 4, Says::Header),
    ("publishers", 92, 4, Says::Header),
    ("payload_max", 96, 4, Says::Header),
    ("payload_align", 100, 4, Says::Header),
    ("payload_offset", 104, 4, Says::Header),
    ("payload_kind", 108, 4, Says::Header),
    ("timestamp", 112, 4, Says::Header),
    ("wake", 116, 4, Says::HeaderOrOpens),
    ("claim_timeout_ns", 120, 8, Says::Opens),
    ("type_version", 128, 4, Says::Header),
    ("type_name_len", 132, 4, Says::Header),
    ("layout_hash", 136, 8, Says::Header),
    ("schema_offset", 144, 8, Says::Header),
    ("schema_len", 152, 8, Says::Header),
    ("type_name", 160, 3, Says::Header), // "u64"
    ("behind the type name", 163, 8, Says::Opens),
    ("reserved", 416, 8, Says::Opens),
    ("the last of reserved", 4088, 8, Says::Opens),
];

const CONTROL: &[Field] = &[
    ("magic", 0, 8, Says::Foreign),
    ("version", 8, 4, Says::Version),
    ("byte_order", 12, 4, Says::ByteOrder),
    ("instance", 16, 8, Says::Header),
    ("publishers_max", 24, 4, Says::Header),
    ("subscribers_max", 28, 4, Says::Header),
    ("behind the header", 32, 8, Says::Opens),
];

/// Where the schema of the topic stands: behind a table of one page.
const SCHEMA: u64 = 3 * 4096;

/// Values at which comparisons and products turn over, and some around the present one.
fn values(random: &mut Random, present: u64) -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 5, 7, 8, 64, 255, 256, 257, 4095, 4096, 4097];
    for bit in [16, 28, 30, 31, 32, 47, 48, 62, 63] {
        values.extend([(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    }
    values.extend([u64::MAX, u64::MAX - 1, 0x0403_0201, present.swap_bytes(), !present]);
    values.extend([1, 8, 64, 4096].map(|step| present.wrapping_add(step)));
    values.extend([1, 8, 64, 4096].map(|step| present.wrapping_sub(step)));
    values.extend([present.wrapping_mul(2), present / 2]);
    values.extend((0..8).map(|_| random.next()));
    values.extend((0..64).map(|bit| present ^ 1 << bit));
    values
}

fn matches(says: Says, file_name: &str, answer: &Result<Topic<u64>, OpenError>) -> bool {
    let Err(error) = answer else { return matches!(says, Says::Opens | Says::HeaderOrOpens) };
    match (says, error) {
        (Says::Foreign, OpenError::Foreign { file, .. }) => *file == file_name,
        (Says::Version, OpenError::Version { .. })
        | (Says::ByteOrder, OpenError::ByteOrder { .. } | OpenError::Header { .. })
        | (Says::Header | Says::HeaderOrOpens, OpenError::Header { .. }) => true,
        _ => false,
    }
}

/// Everything that may be done with whatever `name` is now. What comes out does not matter.
fn use_it(directory: &Directory, name: &str) {
    _ = directory.inspect(name);
    if let Ok(topic) = Topic::<[u8]>::open_in(directory, name) {
        _ = topic.info();
    }
    let Ok(topic) = open(directory, name) else { return };
    let subscriber = topic.subscriber(Delivery::Lossy);
    if let Ok(mut publisher) = topic.publisher() {
        for message in 0..40 {
            _ = publisher.try_publish(message);
        }
    }
    if let Ok(mut subscriber) = subscriber {
        for _ in 0..40 {
            _ = subscriber.try_receive().map(|sample| sample.map(|sample| *sample));
        }
    }
    _ = topic.info();
}

#[test]
fn every_field_of_both_headers_is_checked_against_every_value_that_it_must_not_have() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    let mut random = Random(1);
    let mut wrong = Vec::new();
    for (file_name, fields) in [("data", DATA), ("ctl", CONTROL)] {
        let file = file(&directory, "t", file_name);
        for &(field, offset, len, says) in fields {
            let mut present = [0; 8];
            file.read_exact_at(&mut present[..len as usize], offset).unwrap();
            for value in values(&mut random, u64::from_le_bytes(present)) {
                let bytes = &value.to_le_bytes()[..len as usize];
                if *bytes == present[..len as usize] {
                    continue;
                }
                file.write_all_at(bytes, offset).unwrap();
                let label = format!("{field} of {file_name} = {value:#x}");
                match catch_unwind(AssertUnwindSafe(|| open(&directory, "t"))) {
                    Err(_) => wrong.push(format!("{label}: panics")),
                    Ok(answer) if !matches(says, file_name, &answer) => {
                        let answer = answer.map(|_| "opens");
                        wrong.push(format!("{label}: {answer:?} instead of {says:?}"));
                    }
                    Ok(_) => {}
                }
                if catch_unwind(|| use_it(&directory, "t")).is_err() {
                    wrong.push(format!("{label}: panics in use"));
                }
                file.write_all_at(&present[..len as usize], offset).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    open(&directory, "t").unwrap();
}

#[test]
fn a_header_of_which_many_bytes_are_random_is_an_error_or_a_topic() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    let mut random = Random(2);
    let mut wrong = Vec::new();
    let mut errors = 0;
    for round in 0..3000 {
        let mut saved = Vec::new();
        for _ in 0..=random.below(6) {
            let (file_name, fields) = random.of(&[("data", DATA), ("ctl", CONTROL)]);
            let (_, offset, len, _) = random.of(&fields[1..]);
            let file = file(&directory, "t", file_name);
            let mut present = [0; 8];
            file.read_exact_at(&mut present[..len as usize], offset).unwrap();
            let values = values(&mut random, u64::from_le_bytes(present));
            let value = random.of(&values);
            file.write_all_at(&value.to_le_bytes()[..len as usize], offset).unwrap();
            saved.push((file, offset, len, present));
        }
        match catch_unwind(|| {
            use_it(&directory, "t");
            open(&directory, "t").is_err()
        }) {
            Ok(error) => errors += u32::from(error),
            Err(_) => wrong.push(round),
        }
        for (file, offset, len, present) in saved.iter().rev() {
            file.write_all_at(&present[..*len as usize], *offset).unwrap();
        }
    }
    assert!(wrong.is_empty(), "rounds that panic: {wrong:?}");
    assert!((1000..3000).contains(&errors), "{errors}");
    open(&directory, "t").unwrap();
}

#[test]
fn the_fields_that_are_wrong_are_named() {
    let (_path, directory) = directory();
    topic_of(&directory, "t");
    for (file_name, offset, value, expected) in [
        ("data", 8, 2_u32, "topic t: format version 2, this program reads version 1"),
        ("ctl", 8, 7, "topic t: format version 7, this program reads version 1"),
        ("data", 12, 0x0403_0201, "topic t: made by a machine of the other byte order"),
        ("ctl", 12, 0x0403_0201, "topic t: made by a machine of the other byte order"),
        ("data", 12, 5, "topic t: the header is corrupt: byte_order"),
        ("data", 0, 5, "topic t: data is not a file of shmbus"),
        ("ctl", 0, 5, "topic t: ctl is not a file of shmbus"),
        ("data", 56, 4, "topic t: the header is corrupt: block_len"),
        ("data", 116, 4, "topic t: the header is corrupt: wake"),
        ("ctl", 28, 3, "topic t: the header is corrupt: subscribers_max"),
        ("data", 160, 0x3233_3469, "topic t: the header is corrupt: type_name"),
        ("data", 136, 5, "topic t: the header is corrupt: layout_hash"),
        ("data", SCHEMA, 5, "topic t: the header is corrupt: schema"),
    ] {
        let file = file(&directory, "t", file_name);
        let mut present = [0; 4];
        file.read_exact_at(&mut present, offset).unwrap();
        file.write_all_at(&value.to_le_bytes(), offset).unwrap();
        assert_eq!(open(&directory, "t").err().unwrap().to_string(), expected);
        file.write_all_at(&present, offset).unwrap();
    }
}

/// The hash, the size and the name are the same in few of these texts: opening says `schema`, or what of it the header contradicts.
#[test]
fn a_schema_of_which_any_byte_is_wrong_is_an_error_of_the_header() {
    let (_path, directory) = directory();
    Topic::<[u32; 2]>::create_in(&directory, "t", &small()).unwrap();
    let data = file(&directory, "t", "data");
    let mut text = [0; 64];
    data.read_exact_at(&mut text, SCHEMA).unwrap();
    let len = text.iter().position(|byte| *byte == 0).unwrap();
    assert_eq!(str::from_utf8(&text[..len]).unwrap(), "shmbus-schema 1\nmessage u32[2]\n");
    for at in 0..len - 1 {
        for byte in (0..=255).filter(|byte| *byte != text[at]) {
            data.write_all_at(&[byte], SCHEMA + at as u64).unwrap();
            match Topic::<[u32; 2]>::open_in(&directory, "t") {
                Err(OpenError::Header { .. }) => {}
                answer => panic!("byte {at} = {byte}: {:?}", answer.map(|_| "opens")),
            }
            _ = directory.inspect("t");
        }
        data.write_all_at(&text[at..=at], SCHEMA + at as u64).unwrap();
    }
    Topic::<[u32; 2]>::open_in(&directory, "t").unwrap();
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

/// No remover leaves this behind: it takes the name first.
#[test]
fn a_topic_that_says_it_was_removed_and_has_its_name_is_retired_for_everybody() {
    let (path, directory) = directory();
    let topic = topic_of(&directory, "t");
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    file(&directory, "t", "ctl").write_all_at(&1_u32.to_le_bytes(), 4096 + 3 * 128).unwrap();
    assert!(topic.info().retired);
    assert!(matches!(open(&directory, "t"), Err(OpenError::Retired { .. })));
    assert!(matches!(directory.inspect("t"), Err(OpenError::Retired { .. })));
    assert!(matches!(topic.publisher(), Err(AttachError::Retired)));
    assert!(matches!(topic.subscriber(Delivery::Reliable), Err(AttachError::Retired)));
    assert!(matches!(subscriber.try_receive(), Err(ReceiveError::Retired)));
    match Topic::<u64>::open_or_create_in(&directory, "t", &small()) {
        Ok(_) | Err(CreateError::Open(OpenError::Retired { .. })) => {}
        Err(error) => panic!("{error:?}"),
    }
    directory.remove("t", true).unwrap();
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
