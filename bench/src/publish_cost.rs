//! What a publish costs with idle lossy subscribers attached, in another process.
//!
//! One partner process holds all subscribers for the whole run, each number of them on a topic of its own. The publisher goes round the topics with bursts
//! shorter than a time slice, each round in another order, and the figure is the median of the ratios within a round: what the machine does
//! meanwhile touches the bursts of one round alike, and the rounds in which it does not are thrown out by the median. Two depths: one whose
//! slots stay in the publisher's cache, and one whose slots do not. The figure is the worse of the two.

#[path = "publish_cost_draining.rs"]
pub(crate) mod draining;
#[path = "publish_cost_guarded.rs"]
pub(crate) mod guarded;

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use shmbus::{Delivery, Directory, Publisher, Topic, TopicOptions};

use crate::placement::{Partner, Scratch, median, pin, two_cores};

const SUBSCRIBERS: [u64; 3] = [1, 8, 64];
const DEPTHS: [u64; 2] = [4_096, 65_536];
/// Of one burst: about 0.2 ms.
const BURST: u64 = 20_000;
/// Openings of blocks that are timed, for the tail: one in 81 looks at all participants.
const OPENINGS: usize = 50_000;

pub(crate) type Message = [u64; 6];

fn name(depth: u64, subscribers: u64) -> String {
    format!("bench/publish-cost-{depth}-{subscribers}")
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let mut publishers = Vec::new();
    let mut block_lens = Vec::new();
    for depth in DEPTHS {
        for count in SUBSCRIBERS {
            let options =
                TopicOptions { depth, subscribers_max: 64, prefault: true, ..Default::default() };
            let topic = Topic::<Message>::create_in(&directory, &name(depth, count), &options)?;
            let mut publisher = topic.publisher()?;
            burst(&mut publisher)?;
            publishers.push(publisher);
            block_lens.push(topic.info().block_len);
        }
    }
    // On one core both run there; the idle ones sleep.
    let [core, other] = two_cores().unwrap_or([0, 0]);
    pin(core)?;
    let _idle = Partner::start("idle", scratch.path(), 0, other)?;
    let mut figure = 0.0_f64;
    for (at, depth) in DEPTHS.into_iter().enumerate() {
        let first = at * SUBSCRIBERS.len();
        let publishers = &mut publishers[first..first + SUBSCRIBERS.len()];
        println!("publish of 48 bytes, depth {depth}, ns per message, {rounds} rounds:");
        let ratio = compare(publishers, block_lens[first], rounds)?;
        println!("  cost with 64 / cost with 1, median of the rounds: {ratio:.3}");
        figure = figure.max(ratio);
    }
    println!("cost with 64 / cost with 1, the worse depth: {figure:.3}");
    Ok(())
}

/// Prints what each costs; cost of the last / cost of the first.
fn compare(publishers: &mut [Publisher<Message>], block_len: u64, rounds: usize) -> Result<f64> {
    let mut costs = [const { Vec::new() }; SUBSCRIBERS.len()];
    for publisher in &mut *publishers {
        for _ in 0..10 {
            burst(publisher)?; // every page, and every block
        }
    }
    for round in 0..rounds {
        for turn in 0..SUBSCRIBERS.len() {
            let at = (round + turn) % SUBSCRIBERS.len();
            costs[at].push(burst(&mut publishers[at])?);
        }
    }
    let mut ratios: Vec<f64> =
        costs[2].iter().zip(&costs[0]).map(|(many, one)| many / one).collect();
    for ((cost, count), publisher) in costs.iter_mut().zip(SUBSCRIBERS).zip(publishers) {
        let [opening, other] = tails(publisher, block_len)?;
        println!(
            "  {count:>2} subscribers  {:.2}   p50, p99, p99.99 of one, with the clock: {other:?}, opening a block of {block_len}: {opening:?}",
            median(cost)
        );
    }
    Ok(median(&mut ratios))
}

/// Nanoseconds per message of one burst.
fn burst(publisher: &mut Publisher<Message>) -> Result<f64> {
    let begin = Instant::now();
    for i in 0..BURST {
        publisher.publish(&[i; 6])?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / BURST as f64)
}

/// Percentiles 50, 99 and 99.99 of single publishes, in nanoseconds: of the first of each block, which opens it, and of as many others.
fn tails(publisher: &mut Publisher<Message>, block_len: u64) -> Result<[[u64; 3]; 2]> {
    let mut times = [const { Vec::new() }; 2];
    while times[0].len() < OPENINGS {
        let place = publisher.sequence() % block_len;
        if place > 1 {
            publisher.publish(&[0; 6])?;
            continue;
        }
        let before = Instant::now();
        publisher.publish(&[place; 6])?;
        times[place as usize].push(before.elapsed().as_nanos() as u64);
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        [5_000, 9_900, 9_999].map(|part| times[times.len() * part / 10_000])
    }))
}

/// Subscribers of every topic that have received one message each, and so pin its block, until standard input ends.
pub(crate) fn idle(directory: &Path) -> Result<()> {
    let directory = Directory::at(directory)?;
    let mut subscribers = Vec::new();
    for depth in DEPTHS {
        for count in SUBSCRIBERS {
            let topic = Topic::<Message>::open_in(&directory, &name(depth, count))?;
            for _ in 0..count {
                let mut subscriber =
                    topic.subscriber_from(Delivery::Lossy, shmbus::Start::Back(1))?;
                anyhow::ensure!(subscriber.try_receive()?.is_some(), "nothing was published");
                subscribers.push(subscriber);
            }
        }
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
