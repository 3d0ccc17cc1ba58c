//! Shared memory that changes under handles in use, one word at a time, between their calls: every
//! call returns, with a result or a typed error.
//!
//! Each seed is one topic and a few hundred steps in a process of its own, so that an access outside
//! the mapping (SIGSEGV, SIGBUS) has a seed as well as a panic has. The words are written through the
//! files: on a tmpfs these are the pages that are mapped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use super::{Random, directory, file, role};
use shmbus::{
    Delivery, Directory, Held, Publisher, Publishers, Start, Subscriber, Topic, TopicOptions,
};

const PAGE: u64 = 4096;

/// What stands where, for whoever aims.
struct Target {
    data: File,
    ctl: File,
    blocks: u64,
    physical: u64,
    slots: u64,
    slot_size: u64,
    slot_count: u64,
    participants: u64,
}

impl Target {
    fn of<T: shmbus::Payload + ?Sized>(
        directory: &Directory,
        topic: &Topic<T>,
        publishers_max: u64,
    ) -> Target {
        let info = topic.info();
        let physical = u64::from(info.blocks + info.spares);
        Target {
            data: file(directory, "t", "data"),
            ctl: file(directory, "t", "ctl"),
            blocks: info.blocks.into(),
            physical,
            slots: info.memory.table,
            slot_size: info.slot_size,
            slot_count: physical * info.block_len,
            participants: u64::from(info.subscribers_max) + publishers_max,
        }
    }

    /// Overwrites one word somewhere.
    fn hit(&self, random: &mut Random) -> String {
        let line = 128;
        let entry = 2 * PAGE + 512 * random.below(self.participants);
        let slot = self.slots + self.slot_size * random.below(self.slot_count);
        let (file, what, offset, len) = match random.below(16) {
            0 | 1 => (&self.data, "head", PAGE, 8),
            2..=4 => (&self.data, "table", 2 * PAGE + 8 * random.below(self.blocks), 8),
            5 => (&self.data, "stamp", slot, 8),
            6 => (&self.data, "length", slot + 8, 4),
            7 => (&self.data, "time or payload", slot + 16, 8),
            8 => (&self.ctl, "bell", PAGE + line * random.below(2), 4),
            9 => (&self.ctl, "a line of bells", PAGE + 8 * random.below(32), 8),
            10 => (&self.ctl, "roster", PAGE + 2 * line, 8),
            11 if random.below(8) == 0 => (&self.ctl, "notices", PAGE + 3 * line, 8),
            12 => (&self.ctl, "recovery", PAGE + 4 * line, 8),
            13 => (&self.ctl, "hold cell", entry + 256 + 4 * random.below(64), 4),
            14 => (&self.ctl, "any word of an entry", entry + 8 * random.below(64), 8),
            _ => (&self.ctl, "word of an entry", entry + 8 * random.below(7), 8),
        };
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes[..len], offset).unwrap();
        let present = u64::from_le_bytes(bytes);
        let value = match random.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - random.below(64),
            3 => 1 << random.below(64),
            4 => (1_u64 << random.below(64)).wrapping_sub(1 + random.below(3)),
            5 => random.below(self.physical + 3), // a block, in a pin, a hold or a table entry
            6 => random.next() << 16 | random.below(self.physical + 3),
            7 => present.wrapping_add(random.below(9)).wrapping_sub(4),
            8 => present ^ 1 << random.below(64),
            9 => present.wrapping_add((random.below(64)) << 16),
            10 => random.below(6), // a kind
            _ => random.next(),
        };
        file.write_all_at(&value.to_le_bytes()[..len], offset).unwrap();
        format!("{what} at {offset}: {present:#x} -> {value:#x}")
    }
}

/// What is done with fixed and with variable messages; `loan` only where no block has to be opened, because
/// it has no deadline.
trait Traffic: shmbus::Payload {
    fn publish(publisher: &mut Publisher<Self>, random: &mut Random);
    fn loan(publisher: &mut Publisher<Self>, random: &mut Random);
    fn look(&self) -> u64;
}

impl Traffic for [u64; 3] {
    fn publish(publisher: &mut Publisher<Self>, random: &mut Random) {
        let message = [random.next(); 3];
        _ = publisher.try_publish(&message);
    }

    fn loan(publisher: &mut Publisher<Self>, random: &mut Random) {
        if let Ok(mut loan) = publisher.loan() {
            loan[0] = random.next();
            if random.below(4) > 0 {
                _ = loan.commit();
            }
        }
    }

    fn look(&self) -> u64 {
        self.iter().fold(0, |sum, word| sum ^ word)
    }
}

impl Traffic for [u8] {
    fn publish(publisher: &mut Publisher<Self>, random: &mut Random) {
        let message = [7; 120];
        _ = publisher.try_publish(&message[..random.below(120) as usize]);
    }

    fn loan(publisher: &mut Publisher<Self>, random: &mut Random) {
        if let Ok(mut loan) = publisher.loan(random.below(100) as usize) {
            loan.fill(9);
            if random.below(4) > 0 {
                _ = loan.commit();
            }
        }
    }

    fn look(&self) -> u64 {
        assert!(self.len() <= 100, "a message of {} bytes", self.len());
        self.iter().fold(0, |sum, byte| sum ^ u64::from(*byte))
    }
}

fn run<T: Traffic + ?Sized>(directory: &Directory, seed: u64, log: &mut Vec<String>) {
    let mut random = Random(seed);
    let random = &mut random;
    let shared = random.below(2) == 0;
    let options = TopicOptions {
        publishers: if shared { Publishers::Shared(2) } else { Publishers::Exclusive },
        claim_timeout: Duration::from_nanos(random.of(&[0, 1, 1_000_000])),
        depth: random.of(&[4, 16, 64, 256]),
        subscribers_max: random.of(&[2, 3, 70]),
        hold_blocks: Some(random.of(&[0, 1, 4])),
        max_len: 100,
        timestamp: random.below(2) == 0,
        ..Default::default()
    };
    let topic = Topic::<T>::create_in(directory, "t", &options).unwrap();
    let block_len = topic.info().block_len;
    let target = Target::of(directory, &topic, if shared { 2 } else { 1 });
    let mut publisher = None;
    let mut subscribers: Vec<Subscriber<T>> = Vec::new();
    let mut held: Vec<Held<T>> = Vec::new();
    let mut seen = 0;
    if random.below(4) == 0 {
        log.push(target.hit(random)); // before anybody is there
    }
    for _ in 0..random.of(&[20, 200, 1000]) {
        if random.below(6) == 0 {
            log.push(target.hit(random));
        }
        let operation = random.below(14);
        log.push(format!("operation {operation}"));
        let which = random.next() as usize;
        let count = subscribers.len();
        let subscriber = match count {
            0 => None,
            _ => subscribers.get_mut(which % count),
        };
        match (operation, &mut publisher, subscriber) {
            (0, None, _) => publisher = topic.publisher().ok(),
            (0, Some(_), _) if random.below(8) == 0 => publisher = None,
            (1, _, _) if count < 3 => {
                let patience = Delivery::ReliableFor(Duration::from_micros(100));
                let delivery =
                    random.of(&[Delivery::Lossy, Delivery::Lossy, Delivery::Reliable, patience]);
                let start = random.of(&[
                    Start::Newest,
                    Start::Oldest,
                    Start::Back(5),
                    Start::Back(u64::MAX),
                ]);
                subscribers.extend(topic.subscriber_from(delivery, start));
            }
            (1, _, Some(_)) if random.below(8) == 0 => {
                subscribers.swap_remove(which % count);
            }
            (2..=5, Some(publisher), _) => T::publish(publisher, random),
            (6, Some(publisher), _)
                if !shared && !publisher.sequence().is_multiple_of(block_len) =>
            {
                T::loan(publisher, random);
            }
            (6, Some(publisher), _) => T::publish(publisher, random),
            (7..=9, _, Some(subscriber)) => {
                if let Ok(Some(sample)) = subscriber.try_receive() {
                    seen ^= sample.look() ^ sample.sequence() ^ sample.missed_before();
                    seen ^= sample.timestamp_ns().unwrap_or(0);
                }
            }
            (10, _, Some(subscriber)) => {
                if let Ok(Some(sample)) = subscriber.receive_latest() {
                    seen ^= sample.look();
                }
            }
            (11, _, Some(subscriber)) if random.below(8) == 0 => {
                _ = subscriber.receive_timeout(Duration::from_micros(50));
                seen ^= subscriber.lag() ^ subscriber.missed() ^ subscriber.position();
            }
            (11, _, Some(subscriber)) => {
                if let Ok(Some(sample)) = subscriber.try_receive()
                    && let Ok(sample) = sample.hold()
                {
                    held.push(sample);
                }
            }
            (12, _, _) if !held.is_empty() => {
                let sample = held.swap_remove(which % held.len());
                let again = sample.clone();
                drop(sample);
                seen ^= again.look();
            }
            _ => {
                let info = topic.info();
                seen ^= info.head ^ info.participants.len() as u64;
                if random.below(16) == 0 {
                    seen ^= directory.inspect("t").map_or(0, |info| info.head);
                }
            }
        }
    }
    std::hint::black_box(seen);
    drop((publisher, subscribers, held));
    topic.info();
    directory.remove("t", true).unwrap();
}

const SEEDS: u64 = 1000;
const PROCESSES: u64 = 4;

/// The role `corruption`: all seeds of one remainder, each told to the file `seed` before it begins.
pub(crate) fn play(path: &Path) {
    let first: u64 = std::env::var("SHMBUS_TEST_FIRST_SEED").unwrap().parse().unwrap();
    let progress = File::create(path).unwrap();
    let (_path, directory) = directory();
    let mut failed = Vec::new();
    for seed in (first..SEEDS).step_by(PROCESSES as usize) {
        progress.write_all_at(format!("{seed:8}").as_bytes(), 0).unwrap();
        let mut log = Vec::new();
        let done = catch_unwind(AssertUnwindSafe(|| match seed % 2 {
            0 => run::<[u64; 3]>(&directory, seed, &mut log),
            _ => run::<[u8]>(&directory, seed, &mut log),
        }));
        if done.is_err() {
            let last = &log[log.len().saturating_sub(12)..];
            eprintln!("seed {seed} panicked after {} steps, the last: {last:#?}", log.len());
            failed.push(seed);
            _ = directory.remove("t", true);
        }
    }
    assert!(failed.is_empty(), "seeds that panic: {failed:?}");
}

#[test]
fn words_overwritten_in_use_lead_to_results_or_typed_errors() {
    for first in 0..PROCESSES {
        let progress = tempfile::NamedTempFile::new().unwrap();
        let mut player = role("corruption", progress.path());
        player.env("SHMBUS_TEST_FIRST_SEED", first.to_string());
        let status = player.status().unwrap();
        let seed = std::fs::read_to_string(progress.path()).unwrap();
        assert!(status.success(), "{status}, the last seed was {seed}");
    }
}

/// One aimed word each, at what the random ones reach seldom: the ends of the numbers.
#[test]
fn a_head_at_the_end_of_the_numbers_is_an_error_or_an_empty_topic() {
    let mut wrong = Vec::new();
    for depth in [4, 16, 64, 1024] {
        for back in (0..300).chain([1023, 1024, 2048, 4096]) {
            let (_path, directory) = directory();
            let options = TopicOptions {
                depth,
                subscribers_max: 2,
                hold_blocks: Some(0),
                ..Default::default()
            };
            let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
            let head = u64::MAX - back;
            let mut early = topic.subscriber(Delivery::Lossy).unwrap();
            file(&directory, "t", "data").write_all_at(&head.to_le_bytes(), PAGE).unwrap();
            let used = catch_unwind(AssertUnwindSafe(|| {
                for delivery in [Delivery::Lossy, Delivery::Reliable] {
                    for start in [Start::Newest, Start::Oldest, Start::Back(3)] {
                        if let Ok(mut subscriber) = topic.subscriber_from(delivery, start) {
                            _ = subscriber.try_receive().map(|_| ());
                            _ = subscriber.receive_latest().map(|_| ());
                            _ = subscriber.lag();
                        }
                    }
                }
                _ = topic.info();
                if let Ok(mut publisher) = topic.publisher() {
                    for message in 0..400 {
                        _ = publisher.try_publish(&message);
                        _ = early.receive_latest().map(|_| ());
                    }
                }
                while let Ok(Some(_)) = early.try_receive() {}
            }));
            if used.is_err() {
                wrong.push((depth, head));
            }
        }
    }
    assert!(wrong.is_empty(), "depth and head: {wrong:x?}");
}

#[test]
fn a_length_beyond_the_slot_is_an_error_and_the_next_message_is_received() {
    let (_path, directory) = directory();
    let options = TopicOptions { depth: 16, max_len: 100, ..Default::default() };
    let topic = Topic::<[u8]>::create_in(&directory, "t", &options).unwrap();
    let target = Target::of(&directory, &topic, 1);
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    publisher.publish(&[1; 100]).unwrap();
    for len in [101_u32, 128, 1 << 20, u32::MAX] {
        for slot in 0..target.slot_count {
            target
                .data
                .write_all_at(&len.to_le_bytes(), target.slots + slot * target.slot_size + 8)
                .unwrap();
        }
        let error = subscriber.try_receive().err().unwrap();
        let expected = shmbus::Corrupt::Length { len, max: 100 };
        assert_eq!(error, shmbus::ReceiveError::Corrupt(expected));
        publisher.publish(&[1; 100]).unwrap();
    }
    assert_eq!(subscriber.try_receive().unwrap().unwrap().len(), 100);
}
