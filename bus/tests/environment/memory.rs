//! What a topic occupies, where its messages stand, and what is mapped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{directory, play, small};
use shmbus::{CreateError, Delivery, Directory, OpenError, Topic, TopicOptions};

#[test]
fn a_topic_occupies_what_its_options_say() {
    let (_path, directory) = directory();
    let base = small();
    for options in [
        base.clone(),
        TopicOptions::default(),
        TopicOptions { depth: 4, subscribers_max: 1, hold_blocks: Some(0), ..base.clone() },
        TopicOptions { depth: 65_536, ..base.clone() },
        TopicOptions { subscribers_max: 256, hold_blocks: None, ..base.clone() },
        TopicOptions { hold_blocks: Some(4096), ..base.clone() },
        TopicOptions { timestamp: true, prefault: true, ..base.clone() },
    ] {
        occupies::<u64>(&directory, &options);
        occupies::<[u64; 100]>(&directory, &options);
        occupies::<Aligned>(&directory, &options);
        for max_len in [0, 1, 48, 49, 1000] {
            occupies::<[u8]>(&directory, &TopicOptions { max_len, ..options.clone() });
        }
    }
}

/// A message with an alignment of a page.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable, shmbus::Message)]
#[repr(C, align(4096))]
struct Aligned {
    bytes: [u8; 4096],
}

fn occupies<T: shmbus::Payload + ?Sized>(directory: &Directory, options: &TopicOptions) {
    let memory = options.memory::<T>().unwrap();
    if memory.total() > 64 << 20 {
        return;
    }
    let topic = Topic::<T>::create_in(directory, "t", options).unwrap();
    let stat = |file| fs::metadata(directory.path().join("t/.topic").join(file)).unwrap();
    let (data, ctl) = (stat("data"), stat("ctl"));
    let label = format!("{options:?}");
    assert_eq!(data.len(), memory.live + memory.spare + memory.table, "{label}");
    assert_eq!(ctl.len(), memory.control, "{label}");
    assert_eq!(memory.total(), data.len() + ctl.len());
    assert!(data.blocks() * 512 >= data.len(), "not all of it exists: {label}");
    assert!(ctl.blocks() * 512 >= ctl.len(), "not all of it exists: {label}");
    let info = topic.info();
    assert_eq!(info.memory, memory, "{label}");
    assert_eq!(u64::from(info.blocks) * info.block_len, options.depth);
    assert_eq!(info.depth, options.depth);
    assert_eq!(memory.live, info.depth * info.slot_size);
    assert_eq!(memory.spare, u64::from(info.spares) * info.block_len * info.slot_size);
    assert!(memory.spare <= memory.live / 2 || info.block_len == 1, "{label}");
    directory.remove("t", false).unwrap();
}

#[test]
fn a_message_stands_at_the_alignment_of_its_type() {
    let (_path, directory) = directory();
    let options = TopicOptions { timestamp: true, ..small() };
    let topic = Topic::<Aligned>::create_in(&directory, "t", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    for number in 0..50 {
        publisher.loan().unwrap().bytes.fill(9);
        publisher.publish(&Aligned { bytes: [number; 4096] }).unwrap();
        let sample = subscriber.receive().unwrap();
        assert_eq!((&raw const sample.bytes).addr() % 4096, 0);
        assert_eq!(sample.bytes, [number; 4096]);
    }
}

/// Kilobytes mapped, and of them in the page table, of the files below `path`.
fn resident(path: &Path) -> (u64, u64) {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut ours, mut size, mut rss) = (false, 0, 0);
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[0] {
            "Size:" if ours => size += words[1].parse::<u64>().unwrap(),
            "Rss:" if ours => rss += words[1].parse::<u64>().unwrap(),
            word if word.ends_with(':') => {}
            _ => ours = line.contains(path.to_str().unwrap()),
        }
    }
    (size, rss)
}

#[test]
fn prefault_maps_every_page_of_a_created_and_of_an_opened_topic() {
    let large = TopicOptions { depth: 65_536, ..small() };
    for prefault in [true, false] {
        let (path, directory) = directory();
        let options = TopicOptions { prefault, ..large.clone() };
        let created = Topic::<[u64; 8]>::create_in(&directory, "t", &options).unwrap();
        let opened = Topic::<[u64; 8]>::open_or_create_in(&directory, "t", &options).unwrap();
        let _publisher = opened.publisher().unwrap();
        let (size, rss) = resident(path.path());
        assert!(size > 3 * 8192, "three mappings of more than 8 MiB each: {size}");
        assert_eq!(rss == size, prefault, "{rss} of {size} KiB");
        drop(created);
    }
}

#[test]
fn what_its_creator_cannot_map_is_gone_again() {
    let (path, _) = directory();
    play("no address space", path.path());
}

pub(super) fn play_no_address_space(path: &Path) {
    let directory = Directory::at(path).unwrap();
    Topic::<u64>::create_in(&directory, "before", &small()).unwrap();
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: `limit` is valid for reads.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    };
    // Room for an event's page or two, and not for 16 MiB.
    limit((pages << 12) + (4 << 20));
    let large = TopicOptions { depth: 1 << 18, ..small() };
    let created = Topic::<u64>::create_in(&directory, "a/large", &large);
    let made = Topic::<u64>::open_or_create_in(&directory, "large", &large);
    let prefaulted = TopicOptions { prefault: true, ..large };
    let faulted = Topic::<u64>::create_in(&directory, "faulted", &prefaulted);
    limit(libc::RLIM_INFINITY);
    for answer in [created, made, faulted] {
        let error = answer.err().unwrap();
        assert!(
            matches!(&error, CreateError::Open(OpenError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOMEM)),
            "{error:?}"
        );
    }
    let left: Vec<_> = fs::read_dir(path).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(left, ["before"]);
}

#[test]
fn a_topic_that_was_opened_is_prefaulted_on_demand_and_whoever_joins_from_it() {
    let (path, directory) = directory();
    let options = TopicOptions { depth: 65_536, ..small() };
    drop(Topic::<[u64; 8]>::create_in(&directory, "t", &options).unwrap());
    let opened = Topic::<[u64; 8]>::open_in(&directory, "t").unwrap();
    let (size, rss) = resident(path.path());
    assert!(rss < size, "{rss} of {size} KiB");
    opened.prefault().unwrap();
    let (size, rss) = resident(path.path());
    assert_eq!(rss, size);
    let _publisher = opened.clone().publisher().unwrap();
    let (both, rss) = resident(path.path());
    assert!(both > size && rss == both, "{rss} of {both} KiB, {size} before");
}
