//! What a publish costs with idle lossy subscribers attached, in another process.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use shmbus::{Delivery, Directory, Topic, TopicOptions};

use crate::placement::{Partner, Scratch, median, pin, two_cores};

const NAME: &str = "bench/publish-cost";
const SUBSCRIBERS: [u64; 3] = [1, 8, 64];
const PUBLISHES: u64 = 2_000_000;

pub(crate) type Message = [u64; 6];

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let options =
        TopicOptions { depth: 65_536, subscribers_max: 64, prefault: true, ..Default::default() };
    let topic = Topic::<Message>::create_in(&directory, NAME, &options)?;
    let mut publisher = topic.publisher()?;
    // On one core both run there; the idle ones sleep.
    let [core, other] = two_cores().unwrap_or([0, 0]);
    pin(core)?;
    println!("publish of 48 bytes, depth 65536, ns per message, {rounds} rounds:");
    let mut costs = [const { Vec::new() }; SUBSCRIBERS.len()];
    for _ in 0..rounds {
        for (cost, count) in costs.iter_mut().zip(SUBSCRIBERS) {
            let idle = Partner::start("idle", scratch.path(), count, other)?;
            for i in 0..200_000 {
                publisher.publish(&[i; 6])?;
            }
            let begin = Instant::now();
            for i in 0..PUBLISHES {
                publisher.publish(&[i; 6])?;
            }
            cost.push(begin.elapsed().as_nanos() as f64 / PUBLISHES as f64);
            drop(idle);
        }
    }
    // Ratios within a round, so that what the machine did in that round touches both.
    let mut ratios: Vec<f64> =
        costs[2].iter().zip(&costs[0]).map(|(many, one)| many / one).collect();
    for (cost, count) in costs.iter_mut().zip(SUBSCRIBERS) {
        println!("  {count:>2} subscribers  {:.2}", median(cost));
    }
    println!("cost with 64 / cost with 1, median of the rounds: {:.3}", median(&mut ratios));
    Ok(())
}

/// `count` subscribers that have received one message each, until standard input ends.
pub(crate) fn idle(directory: &Path, count: u64) -> Result<()> {
    let topic = Topic::<Message>::open_in(&Directory::at(directory)?, NAME)?;
    let mut subscribers = Vec::new();
    for _ in 0..count {
        let mut subscriber = topic.subscriber_from(Delivery::Lossy, shmbus::Start::Back(1))?;
        subscriber.try_receive()?;
        subscribers.push(subscriber);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
