//! One publisher, one reliable subscriber, 48 bytes, each on a core of its own, beside two single-producer rings written by hand for nothing
//! else. Figure: rate of shmbus / rate of the faster one by hand, in runs that alternate.
//!
//! A run is some hundred laps of the ring, each timed by the receiver; its rate is that of the median lap. The first laps are another
//! matter: the receiver is on the sender's heels there, each message costs a cache line both ways, and whether and when the sender gets away is chance.
//!
//! ```text
//! cargo bench -p shmbus-bench --bench one_to_one [-- ROUNDS [DEPTH]]
//! ```
#![allow(unsafe_code)] // the slots of the rings written by hand

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use shmbus::{Delivery, Directory, Topic, TopicOptions};

type Message = [u64; 6];
/// Its name, and the rate at a depth.
type Way = (&'static str, fn(u64) -> f64);

/// Laps of the ring in one run, all of which count.
const LAPS: u64 = 200;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut number = |default| arguments.next().map_or(default, |text| text.parse().unwrap());
    let (rounds, depth) = (number(101), number(4096));
    println!("million messages of 48 bytes a second, one to one, depth {depth}, {rounds} rounds:");
    let ways: [Way; 4] = [
        ("shmbus", shmbus_one_by_one),
        ("shmbus, received in batches", shmbus_batches),
        ("by hand, head and tail", head_and_tail),
        ("by hand, a stamp in each slot", stamped),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for round in 0..rounds as usize {
        for turn in 0..ways.len() {
            let at = (round + turn) % ways.len();
            rates[at].push(ways[at].1(depth));
        }
    }
    let [one, batch, head, stamp] = &rates;
    let ratio = |mine: &[f64]| {
        let by_hand = head.iter().zip(stamp).map(|(a, b)| a.max(*b));
        median(mine.iter().zip(by_hand).map(|(a, b)| a / b).collect())
    };
    let (one, batch) = (ratio(one), ratio(batch));
    for ((name, _), rates) in ways.iter().zip(&rates) {
        let mut best = rates.clone();
        best.sort_by(f64::total_cmp);
        println!(
            "  {:6.1}  (best tenth {:6.1})  {name}",
            median(rates.clone()),
            best[best.len() * 9 / 10]
        );
    }
    println!("shmbus in batches / the faster by hand, median of the rounds: {batch:.2}");
    println!("shmbus / the faster by hand, median of the rounds: {one:.2}");
}

/// Million messages a second in the median lap, from a thread that sends each number from 0 to one that receives them: `receive(from, to)`.
fn rate(
    depth: u64,
    mut send: impl FnMut(u64) + Send,
    mut receive: impl FnMut(u64, u64) + Send,
) -> f64 {
    let messages = LAPS * depth;
    let allowed = sched_getaffinity(None).unwrap();
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (first, second) = (cores.next().unwrap(), cores.next().expect("two cores"));
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let start = &start;
        // What each side keeps is moved to its own stack, so that the two share no cache line but the ring's.
        scope.spawn(move || {
            pin(second);
            start.wait();
            (0..messages).for_each(&mut send);
        });
        let receiver = scope.spawn(move || {
            pin(first);
            start.wait();
            receive(0, 1); // the other one runs too
            let lap = |lap: u64| {
                let begin = Instant::now();
                receive((lap * depth).max(1), (lap + 1) * depth);
                depth as f64 / begin.elapsed().as_secs_f64() / 1e6
            };
            median((0..LAPS).map(lap).collect())
        });
        receiver.join().unwrap()
    })
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).unwrap();
}

fn check(message: &Message, next: u64) {
    assert!(message[0] == next && message[5] == next, "message {next} is {message:?}");
}

fn with_topic(depth: u64, run: impl FnOnce(&Topic<Message>) -> f64) -> f64 {
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(scratch.path()).unwrap();
    let options = TopicOptions { depth, prefault: true, ..Default::default() };
    run(&Topic::create_in(&directory, "bench", &options).unwrap())
}

fn shmbus_one_by_one(depth: u64) -> f64 {
    with_topic(depth, |topic| {
        let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        let mut publisher = topic.publisher().unwrap();
        rate(
            depth,
            move |i| {
                publisher.publish(&[i; 6]).unwrap();
            },
            move |from, to| {
                let mut next = from;
                while next < to {
                    match subscriber.try_receive().unwrap() {
                        Some(message) => {
                            check(&message, next);
                            next += 1;
                        }
                        None => spin_loop(),
                    }
                }
            },
        )
    })
}

fn shmbus_batches(depth: u64) -> f64 {
    with_topic(depth, |topic| {
        let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        let mut publisher = topic.publisher().unwrap();
        let mut next = 0;
        rate(
            depth,
            move |i| {
                publisher.publish(&[i; 6]).unwrap();
            },
            move |_, to| {
                while next < to {
                    match subscriber.try_receive_batch().unwrap() {
                        Some(batch) => batch.for_each(|message| {
                            check(&message, next);
                            next += 1;
                        }),
                        None => spin_loop(),
                    }
                }
            },
        )
    })
}

#[repr(align(128))]
struct Line<T>(T);

/// Lamport's queue: each side keeps a copy of the other's position and looks again only when that says full or empty.
struct HeadAndTail {
    slots: Vec<UnsafeCell<Message>>,
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
}

// SAFETY: a slot is written below `head` by nobody and read by nobody else than the one consumer; see `head_and_tail`.
unsafe impl Sync for HeadAndTail {}

fn head_and_tail(depth: u64) -> f64 {
    let ring = HeadAndTail {
        slots: (0..depth).map(|_| UnsafeCell::new([1; 6])).collect(),
        head: Line(AtomicU64::new(0)),
        tail: Line(AtomicU64::new(0)),
    };
    let ring = &ring;
    let mut free_until = depth;
    rate(
        depth,
        move |i| {
            while i == free_until {
                free_until = ring.tail.0.load(Acquire) + depth;
                spin_loop();
            }
            let slot = &ring.slots[(i & (depth - 1)) as usize];
            // SAFETY: the consumer has gone past it, and reads it again behind the store of `head`.
            unsafe { slot.get().write([i; 6]) };
            ring.head.0.store(i + 1, Release);
        },
        move |from, to| {
            let mut there = from;
            for next in from..to {
                while next == there {
                    there = ring.head.0.load(Acquire);
                    spin_loop();
                }
                let slot = &ring.slots[(next & (depth - 1)) as usize];
                // SAFETY: written before `head`, and not again before the store of `tail`.
                check(unsafe { &*slot.get() }, next);
                ring.tail.0.store(next + 1, Release);
            }
        },
    )
}

/// A slot says itself that it is written; the tail is shown eight times a lap.
struct Stamped {
    slots: Vec<StampedSlot>,
    tail: Line<AtomicU64>,
}

#[repr(align(64))]
struct StampedSlot {
    stamp: AtomicU64,
    message: UnsafeCell<Message>,
}

// SAFETY: as for `HeadAndTail`; see `stamped`.
unsafe impl Sync for Stamped {}

fn stamped(depth: u64) -> f64 {
    let slot = || StampedSlot { stamp: AtomicU64::new(0), message: UnsafeCell::new([1; 6]) };
    let ring =
        Stamped { slots: (0..depth).map(|_| slot()).collect(), tail: Line(AtomicU64::new(0)) };
    let ring = &ring;
    let mut free_until = depth;
    rate(
        depth,
        move |i| {
            while i == free_until {
                free_until = ring.tail.0.load(Acquire) + depth;
                spin_loop();
            }
            let slot = &ring.slots[(i & (depth - 1)) as usize];
            // SAFETY: the consumer has gone past it, and reads it again behind the stamp.
            unsafe { slot.message.get().write([i; 6]) };
            slot.stamp.store(i + 1, Release);
        },
        move |from, to| {
            for next in from..to {
                let slot = &ring.slots[(next & (depth - 1)) as usize];
                while slot.stamp.load(Acquire) != next + 1 {
                    spin_loop();
                }
                // SAFETY: written before the stamp, and not again before a store of `tail` beyond it.
                check(unsafe { &*slot.message.get() }, next);
                if (next + 1) & (depth / 8 - 1) == 0 {
                    ring.tail.0.store(next + 1, Release);
                }
            }
        },
    )
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
