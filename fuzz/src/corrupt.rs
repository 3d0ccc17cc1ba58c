//! Words of a topic in use are overwritten between the calls of its participants: each call returns, with a result or a typed error.

use shmbus::internals::advance_ns;
use shmbus::{Delivery, Held, Publisher, Start, Subscriber};
use std::cell::OnceCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::input::Input;
use crate::stage::{ENTRY_WORDS, LEN_MAX, Stage, Stages};

const OPERATIONS_MAX: usize = 600;
const WORDS_PAGE: usize = 512;

thread_local! {
    static STAGES: OnceCell<Stages> = const { OnceCell::new() };
}

pub fn run(input: &[u8]) {
    STAGES.with(|stages| {
        let mut input = Input(input);
        let stage = stages.get_or_init(Stages::new).get(input.below(8));
        let mut play =
            Play { stage, feeds: Vec::new(), seats: Vec::new(), held: Vec::new(), seen: 0 };
        let mut operations = 0;
        while !input.is_empty() && operations < OPERATIONS_MAX {
            operations += 1;
            play.step(&mut input);
        }
        std::hint::black_box(play.seen);
    });
}

struct Play<'a> {
    stage: &'a Stage,
    feeds: Vec<Publisher<[u8]>>,
    seats: Vec<Subscriber<[u8]>>,
    held: Vec<Held<[u8]>>,
    seen: u64,
}

fn pick<T>(from: &mut [T], choice: u8) -> Option<&mut T> {
    let count = from.len();
    (count > 0).then(|| &mut from[usize::from(choice) % count])
}

impl Play<'_> {
    fn step(&mut self, input: &mut Input<'_>) {
        let (what, choice) = (input.below(32), input.byte());
        match what {
            0..=7 => hit(self.stage, choice, input),
            8 | 9 => self.feeds.extend(self.stage.topics[usize::from(choice) % 2].publisher()),
            10 | 11 => self.subscribe(choice, input),
            12 if !self.feeds.is_empty() => {
                let at = usize::from(choice) % self.feeds.len();
                drop(self.feeds.swap_remove(at));
            }
            13 if !self.seats.is_empty() => {
                let at = usize::from(choice) % self.seats.len();
                drop(self.seats.swap_remove(at));
            }
            14 => self.loan(choice, input),
            15..=19 => {
                let times = 1 + input.below(9);
                if let Some(feed) = pick(&mut self.feeds, choice) {
                    (0..times).for_each(|_| _ = feed.try_publish(&[choice; LEN_MAX]));
                    self.seen ^= feed.sequence();
                }
            }
            20..=24 => {
                let times = 1 + input.below(9);
                (0..times).for_each(|_| self.receive(choice, false));
            }
            25 | 26 => self.receive(choice, true),
            27 => {
                if let Some(seat) = pick(&mut self.seats, choice)
                    && let Ok(Some(sample)) = seat.receive_latest()
                {
                    self.seen ^= sum(&sample);
                }
            }
            28 => advance_ns(input.of(&[100_000, 6_000_000, 40_000_000])),
            29 if !self.held.is_empty() => {
                let at = usize::from(choice) % self.held.len();
                let sample = self.held.swap_remove(at);
                if input.below(2) == 0 {
                    self.held.push(sample.clone());
                }
                self.seen ^= sum(&sample);
            }
            30 => {
                let info = self.stage.topics[usize::from(choice) % 2].info();
                self.seen ^= info.head ^ info.participants.len() as u64;
            }
            _ => {
                if let Some(seat) = pick(&mut self.seats, choice) {
                    self.seen ^= seat.lag() ^ seat.missed() ^ seat.position();
                    _ = seat.receive_timeout(Duration::ZERO).map(drop);
                }
            }
        }
    }

    fn subscribe(&mut self, choice: u8, input: &mut Input<'_>) {
        let patience = Delivery::ReliableFor(Duration::from_millis(10));
        let delivery = input.of(&[Delivery::Lossy, Delivery::Lossy, Delivery::Reliable, patience]);
        let start =
            input.of(&[Start::Newest, Start::Oldest, Start::Back(5), Start::Back(u64::MAX)]);
        let topic = &self.stage.topics[usize::from(choice) % 2];
        self.seats.extend(topic.subscriber_from(delivery, start));
    }

    fn receive(&mut self, choice: u8, hold: bool) {
        let Some(seat) = pick(&mut self.seats, choice) else { return };
        match seat.try_receive() {
            Ok(Some(sample)) => {
                assert!(sample.len() <= LEN_MAX, "a message of {} bytes", sample.len());
                self.seen ^= sum(&sample) ^ sample.sequence() ^ sample.missed_before();
                self.seen ^= sample.timestamp_ns().unwrap_or(0);
                if hold && self.held.len() < 100 {
                    self.held.extend(sample.hold());
                }
            }
            Ok(None) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    /// A loan has no deadline: only in a block that its publisher has open.
    fn loan(&mut self, choice: u8, input: &mut Input<'_>) {
        let block_len = self.stage.info.block_len;
        let Some(feed) = pick(&mut self.feeds, choice) else { return };
        let Ok(last) = feed.try_publish(&[1]) else { return };
        if (last + 1) / block_len != last / block_len || feed.sequence() != last + 1 {
            return;
        }
        let Ok(mut loan) = feed.loan(usize::from(choice) % LEN_MAX) else { return };
        loan.fill(3);
        match input.below(4) {
            0 => drop(loan),
            1 => std::mem::forget(loan),
            // A commit does not wait, unless the claim was revoked meanwhile: nobody could.
            _ => _ = loan.commit(),
        }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

/// Overwrites one word somewhere.
fn hit(stage: &Stage, what: u8, input: &mut Input<'_>) {
    let info = &stage.info;
    let physical = u64::from(info.blocks + info.spares);
    let at = usize::from(input.byte()) | usize::from(input.byte()) << 8;
    let slots = info.memory.table as usize / 8;
    let slot = slots + at % (physical * info.block_len) as usize * (info.slot_size / 8) as usize;
    let entry = at / ENTRY_WORDS % stage.participants() as usize;
    let control = |line: usize, word: usize| &stage.ctl()[WORDS_PAGE + 16 * line + word];
    let word = match what % 16 {
        0 | 1 => stage.head(),
        2..=4 => &stage.data()[2 * WORDS_PAGE + at % info.blocks as usize],
        5 => &stage.data()[slot],                       // stamp
        6 => &stage.data()[slot + 1],                   // length, publisher
        7 => &stage.data()[slot + 2],                   // time or payload
        8 => control(at % 2, at / 2 % 5),               // bells
        9 => control(2, 0),                             // roster
        10 => control(3, at % 2),                       // notices
        11 => &stage.entry(entry as u32)[32 + at % 32], // hold cells
        12 => &stage.entry(entry as u32)[at % ENTRY_WORDS],
        _ => &stage.entry(entry as u32)[at % 7],
    };
    let present = word.load(Relaxed);
    let value = match input.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::MAX - u64::from(input.byte()),
        3 => 1 << (input.byte() % 64),
        4 => (1_u64 << (input.byte() % 64)).wrapping_sub(1 + u64::from(input.byte() % 3)),
        5 => u64::from(input.byte()) % (physical + 3), // a block, in a pin, a hold or a table entry
        6 => (u64::from(input.byte()) << 16) | (u64::from(input.byte()) % (physical + 3)),
        7 => present.wrapping_add(u64::from(input.byte() % 9)).wrapping_sub(4),
        8 => present ^ 1 << (input.byte() % 64),
        9 => present.wrapping_add(u64::from(input.byte() % 64) << 16),
        10 => u64::from(input.byte() % 6) | (present & !0xff), // a kind
        _ => input.word(),
    };
    word.store(value, Relaxed);
}
