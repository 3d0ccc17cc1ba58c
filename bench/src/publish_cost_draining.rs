//! The same with subscribers that receive all the while, by a process on each other core: what publishing costs while the lines that are written next
//! are in the caches of others. Lossy subscribers, of which a core has many: they are lapped, and say how much they had.

use std::hint::black_box;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shmbus::{Delivery, Directory, Subscriber, Topic, TopicOptions};

use super::{Message, SUBSCRIBERS, burst, compare, name};
use crate::placement::{Partner, Placement, Scratch, pin};

const DEPTH: u64 = 4_096;

/// Which subscribers of each topic a process has: every `of`-th one from `index` on.
struct Share {
    index: u64,
    of: u64,
}

impl Share {
    fn to_word(&self) -> u64 {
        self.of << 32 | self.index
    }

    fn of_word(word: u64) -> Share {
        Share { index: word & u64::from(u32::MAX), of: word >> 32 }
    }
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let mut publishers = Vec::new();
    let mut block_len = 0;
    for count in SUBSCRIBERS {
        let options = TopicOptions {
            depth: DEPTH,
            subscribers_max: 64,
            prefault: true,
            ..Default::default()
        };
        let topic = Topic::<Message>::create_in(&directory, &name(DEPTH, count), &options)?;
        let mut publisher = topic.publisher()?;
        burst(&mut publisher)?;
        publishers.push(publisher);
        block_len = topic.info().block_len;
    }
    let placement = Placement::of_this_process()?;
    let of = placement.cores().saturating_sub(1).min(64);
    ensure!(of > 0, "this measurement needs two cores");
    let mut partners = Vec::new();
    for index in 0..of {
        let share = Share { index: index as u64, of: of as u64 };
        let core = placement.receiver(index);
        partners.push(Partner::start("draining", scratch.path(), share.to_word(), core)?);
    }
    pin(placement.sender())?;
    println!(
        "publish of 48 bytes to subscribers that receive on {of} other cores, depth {DEPTH}, ns per message, {rounds} rounds:"
    );
    let ratio = compare(&mut publishers, block_len, rounds)?;
    let published: u64 = publishers.iter().zip(SUBSCRIBERS).map(|(p, n)| p.sequence() * n).sum();
    let mut received = 0;
    for partner in &mut partners {
        partner.go();
        received += partner.line()?.parse::<u64>().context("how much it has received")?;
    }
    println!(
        "received of what was published to each: {:.1} %",
        received as f64 * 100.0 / published as f64
    );
    println!("cost with 64 / cost with 1, median of the rounds: {ratio:.3}");
    Ok(())
}

/// A share of the subscribers of every topic, which receive what there is until standard input ends; then says how many messages that were.
pub(crate) fn drain(directory: &Path, word: u64) -> Result<()> {
    let share = Share::of_word(word);
    let directory = Directory::at(directory)?;
    let mut topics: Vec<Vec<Subscriber<Message>>> = Vec::new();
    for count in SUBSCRIBERS {
        let topic = Topic::<Message>::open_in(&directory, &name(DEPTH, count))?;
        let mine = (share.index..count).step_by(share.of as usize);
        let subscribers = mine.map(|_| topic.subscriber(Delivery::Lossy));
        topics.push(subscribers.collect::<Result<_, _>>()?);
    }
    println!("ready");
    let mut received = 0;
    while !is_over()? {
        for subscribers in &mut topics {
            for subscriber in subscribers {
                let count = subscriber.for_each_available(|sample| {
                    black_box(*sample);
                })?;
                received += count;
                if count == 0 {
                    break; // another topic has its turn
                }
            }
        }
    }
    println!("{received}");
    Ok(())
}

/// Whether standard input has ended. No thread waits for that: under a real-time policy it would never run beside one that polls.
fn is_over() -> Result<bool> {
    let input = std::io::stdin();
    let mut looked_at = [PollFd::new(&input, PollFlags::IN)];
    Ok(poll(&mut looked_at, Some(&Timespec::default()))? > 0)
}
