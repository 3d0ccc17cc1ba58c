//! What a topic costs in memory: nothing on the heap once a handle is attached, and of its files what its options say.
#![allow(unsafe_code)] // an allocator that counts

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use shmbus::{
    Delivery, Directory, PublishError, Publishers, Start, Topic, TopicOptions, TryPublishError,
    Wake,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of this thread in `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

fn directory() -> (tempfile::TempDir, Directory) {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(scratch.path()).unwrap();
    (scratch, directory)
}

/// Small blocks, so that they are opened, scanned for and entered often.
fn options(publishers: Publishers, wake: Wake) -> TopicOptions {
    TopicOptions { depth: 128, publishers, wake, ..Default::default() }
}

fn each(run: impl Fn(&str, TopicOptions)) {
    for publishers in [Publishers::Exclusive, Publishers::Shared(2)] {
        for wake in [Wake::Auto, Wake::Fence] {
            run(&format!("{publishers:?}, {wake:?}"), options(publishers, wake));
        }
    }
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn nothing_is_allocated_by_publishing_and_receiving() {
    each(|name, options| {
        let (_scratch, directory) = directory();
        let topic = Topic::<[u64; 6]>::create_in(&directory, "t", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
        let mut lossy = topic.subscriber(Delivery::Lossy).unwrap();
        let mut lapped = topic.subscriber(Delivery::Lossy).unwrap();
        let messages = [[3; 6]; 5];
        let count = allocations(|| {
            for i in 0..2_000 {
                publisher.publish(&[i; 6]).unwrap();
                publisher.try_publish(&[i; 6]).unwrap();
                let mut loan = publisher.loan().unwrap();
                *loan = [i; 6];
                loan.commit().unwrap();
                drop(publisher.loan().unwrap());
                publisher.publish_all(&messages).unwrap();
                while reliable.try_receive().unwrap().is_some() {}
                while let Some(batch) = lossy.try_receive_batch().unwrap() {
                    batch.for_each(drop);
                }
            }
            while lapped.try_receive().unwrap().is_some() {}
            assert!(lapped.missed() > 0, "nobody was lapped");
        });
        assert_eq!(count, 0, "{name}");
    });
}

#[test]
fn nothing_is_allocated_by_bytes() {
    each(|name, options| {
        let (_scratch, directory) = directory();
        let topic = Topic::<[u8]>::create_in(&directory, "t", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        let count = allocations(|| {
            for len in 0..2_000 {
                publisher.publish(&[7; 4096][..len]).unwrap();
                assert_eq!(subscriber.receive().unwrap().len(), len);
                publisher.loan(len).unwrap().commit().unwrap();
                assert_eq!(subscriber.receive_batch().unwrap().count(), 1);
            }
        });
        assert_eq!(count, 0, "{name}");
    });
}

#[test]
fn nothing_is_allocated_by_holding() {
    each(|name, options| {
        let (_scratch, directory) = directory();
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
        let count = allocations(|| {
            for i in 0..2_000 {
                publisher.publish(&i).unwrap();
                let held = subscriber.receive().unwrap().hold().unwrap();
                publisher.publish(&i).unwrap();
                assert_eq!(*held.clone(), i);
                subscriber.receive_latest().unwrap().unwrap();
            }
        });
        assert_eq!(count, 0, "{name}");
    });
}

#[test]
fn nothing_is_allocated_by_waiting() {
    each(|name, options| {
        let (_scratch, directory) = directory();
        let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut subscriber = topic.subscriber_from(Delivery::Reliable, Start::Newest).unwrap();
        let short = Duration::from_millis(20); // beyond a look for the dead
        let count = allocations(|| {
            assert!(subscriber.receive_timeout(short).unwrap().is_none());
            let full = loop {
                match publisher.try_publish(&1) {
                    Ok(_) => {}
                    Err(refused) => break refused,
                }
            };
            assert!(matches!(full, TryPublishError::Full));
            assert!(matches!(publisher.publish_timeout(&1, short), Err(PublishError::TimedOut)));
        });
        assert_eq!(count, 0, "{name}");
    });
}

/// Resident bytes of the mappings of this process whose file ends so: of the largest.
fn resident(file: &str) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_it = false;
    let mut most = 0;
    for line in smaps.lines() {
        if line.as_bytes()[0].is_ascii_uppercase() {
            if is_it && let Some(rss) = line.strip_prefix("Rss:") {
                let kib: u64 = rss.trim().strip_suffix(" kB").unwrap().parse().unwrap();
                most = most.max(kib * 1024);
            }
        } else {
            is_it = line.ends_with(file);
        }
    }
    most
}

#[test]
fn a_topic_occupies_what_its_options_say_and_a_publisher_that_prefaults_all_of_it() {
    let quotes = TopicOptions { depth: 16_384, subscribers_max: 64, ..Default::default() };
    let shared =
        TopicOptions { publishers: Publishers::Shared(8), timestamp: true, ..Default::default() };
    let held = TopicOptions { hold_blocks: Some(100), wake: Wake::Fence, ..Default::default() };
    for (at, options) in [TopicOptions::default(), quotes, shared, held].into_iter().enumerate() {
        let options = TopicOptions { prefault: true, ..options };
        let (scratch, directory) = directory();
        let name = format!("allocations-{at}");
        let topic = Topic::<[u64; 6]>::create_in(&directory, &name, &options).unwrap();
        let memory = options.memory::<[u64; 6]>().unwrap();
        let [data, control] = ["data", "ctl"].map(|file| {
            let path = scratch.path().join(&name).join(".topic").join(file);
            let metadata = fs::metadata(path).unwrap();
            let pages = metadata.len().next_multiple_of(4096);
            assert_eq!(metadata.blocks() * 512, pages, "holes: {options:?}");
            (metadata.len(), pages)
        });
        assert_eq!(data.0, memory.live + memory.spare + memory.table, "{options:?}");
        assert_eq!(control.0, memory.control, "{options:?}");
        let _publisher = topic.publisher().unwrap();
        assert_eq!(resident(&format!("{name}/.topic/data")), data.1, "{options:?}");
        assert_eq!(resident(&format!("{name}/.topic/ctl")), control.1, "{options:?}");
    }
}
