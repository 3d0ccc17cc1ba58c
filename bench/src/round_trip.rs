//! Ping-pong of one message between two processes that poll, beside the bare ping-pong of one cache line.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use shmbus::{Delivery, Directory, Publisher, Subscriber, Topic, TopicOptions, Wake};

use crate::placement::{Partner, Scratch, median, pin, two_cores};
use crate::probe::{self, Class};
use crate::publish_cost::Message;

const PING: &str = "bench/ping";
const PONG: &str = "bench/pong";
/// The median of the means of so many is taken: most are not interrupted. As the probe does.
const STRETCH: u64 = 100;
const ROUND_TRIPS: u64 = 200_000;

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum WakeArgument {
    Auto,
    Fence,
    Never,
}

impl WakeArgument {
    fn wake(self) -> Wake {
        match self {
            WakeArgument::Auto => Wake::Auto,
            WakeArgument::Fence => Wake::Fence,
            WakeArgument::Never => Wake::Never,
        }
    }
}

pub(crate) fn run(rounds: usize, wake: WakeArgument) -> Result<()> {
    let cores = two_cores()?;
    pin(cores[0])?;
    println!(
        "round trip of 48 bytes, cores {} and {}, wake {wake:?}, {rounds} rounds:",
        cores[0], cores[1]
    );
    let mut classes: BTreeMap<Class, Vec<f64>> = BTreeMap::new();
    for _ in 0..rounds {
        let scratch = Scratch::new()?;
        let before = probe::round_trip_ns(scratch.path(), ROUND_TRIPS, cores[1])?;
        let trip = round_trip_ns(scratch.path(), wake.wake(), cores[1])?;
        let after = probe::round_trip_ns(scratch.path(), ROUND_TRIPS, cores[1])?;
        let ratio = trip / ((before + after) / 2.0);
        let class = Class::between(before, after);
        println!(
            "  {} ping-pong {before:.0} / {after:.0} ns, round trip {trip:.0} ns, ratio {ratio:.2}",
            class.name()
        );
        classes.entry(class).or_default().push(ratio);
    }
    let mut figure = f64::NAN;
    for (class, mut ratios) in classes {
        let Some(bound) = bound(class) else { continue };
        let (count, ratio) = (ratios.len(), median(&mut ratios));
        println!(
            "{}: round trip / ping-pong, median of {count} rounds: {ratio:.3}, at most {bound}",
            class.name()
        );
        figure = figure.max(ratio / bound);
    }
    println!("the ratio in parts of what it may be, in the worst class: {figure:.3}");
    Ok(())
}

/// What the ratio may be. The further the cores are apart, the less anything else counts. Rounds in which the cores moved say nothing.
fn bound(class: Class) -> Option<f64> {
    match class {
        Class::Near | Class::Mid => Some(1.6),
        Class::Far => Some(1.25),
        Class::Moved | Class::Alone => None,
    }
}

fn round_trip_ns(path: &Path, wake: Wake, core: usize) -> Result<f64> {
    let directory = Directory::at(path)?;
    let options = TopicOptions { wake, prefault: true, ..Default::default() };
    let ping = Topic::<Message>::create_in(&directory, PING, &options)?;
    let pong = Topic::<Message>::create_in(&directory, PONG, &options)?;
    let mut publisher = ping.publisher()?;
    let mut subscriber = pong.subscriber(Delivery::Reliable)?;
    let partner = Partner::start("echo", path, ROUND_TRIPS, core)?;
    let mut stretches = Vec::new();
    for stretch in 0..ROUND_TRIPS / STRETCH {
        let begin = Instant::now();
        for i in stretch * STRETCH..(stretch + 1) * STRETCH {
            publisher.publish(&[i; 6])?;
            let back = next(&mut subscriber)?;
            anyhow::ensure!(back == [i; 6], "another message came back");
        }
        stretches.push(begin.elapsed().as_nanos() as f64 / STRETCH as f64);
    }
    partner.finish()?;
    drop((publisher, subscriber));
    directory.remove(PING, true)?;
    directory.remove(PONG, true)?;
    Ok(median(&mut stretches))
}

#[inline]
fn next(subscriber: &mut Subscriber<Message>) -> Result<Message> {
    loop {
        if let Some(message) = subscriber.try_receive()? {
            return Ok(*message);
        }
    }
}

/// Sends back what it receives.
pub(crate) fn echo(directory: &Path, count: u64) -> Result<()> {
    let directory = Directory::at(directory)?;
    let mut subscriber =
        Topic::<Message>::open_in(&directory, PING)?.subscriber(Delivery::Reliable)?;
    let mut publisher: Publisher<Message> = Topic::open_in(&directory, PONG)?.publisher()?;
    println!("ready");
    for _ in 0..count {
        let message = next(&mut subscriber)?;
        publisher.publish(&message)?;
    }
    Ok(())
}
