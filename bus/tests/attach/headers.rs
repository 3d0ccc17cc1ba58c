//! The fields of both header pages, each against the values that it must not have.

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shmbus::{Delivery, Directory, OpenError, Topic};

use super::{Random, directory, file, open, small, topic_of};

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
    ("guarded", 416, 4, Says::Header),
    ("reserved", 420, 8, Says::Opens),
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
