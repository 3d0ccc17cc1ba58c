//! What a publish costs while passive observers poll the topic, in another process.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use shmbus::{Directory, Publisher, Start, Topic, TopicOptions};

use crate::placement::{Partner, Scratch, median, pin, two_cores};
use crate::publish_cost::Message;

const NAME: &str = "bench/observers";
const OBSERVERS: u64 = 100;
/// Each looks ten times a second.
const PERIOD: Duration = Duration::from_millis(100);
/// About a second's worth in all: each observer looks several times.
const PUBLISHES: u64 = 40_000_000;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let options = TopicOptions { depth: 65_536, prefault: true, ..Default::default() };
    let topic = Topic::<Message>::create_in(&directory, NAME, &options)?;
    let mut publisher = topic.publisher()?;
    let [core, other] = two_cores()?;
    pin(core)?;
    println!(
        "publish of 48 bytes, {OBSERVERS} observers at 10 Hz, ns per message, {rounds} rounds:"
    );
    publish(&mut publisher)?; // every page once
    let (mut alone, mut observed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(publish(&mut publisher)?);
        let partner = Partner::start("observers", scratch.path(), OBSERVERS, other)?;
        observed.push(publish(&mut publisher)?);
        drop(partner);
        ratios.push(observed[observed.len() - 1] / alone[alone.len() - 1]);
    }
    println!("  alone {:.2}  observed {:.2}", median(&mut alone), median(&mut observed));
    println!("observed / alone, median of the rounds: {:.3}", median(&mut ratios));
    Ok(())
}

fn publish(publisher: &mut Publisher<Message>) -> Result<f64> {
    let begin = Instant::now();
    for i in 0..PUBLISHES {
        publisher.publish(&[i; 6])?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / PUBLISHES as f64)
}

/// `count` observers, each of which looks at the newest message ten times a second, until it is killed.
pub(crate) fn observe(directory: &Path, count: u64) -> Result<()> {
    let directory = Directory::at(directory)?;
    let observers = (0..count).map(|_| directory.observe(NAME, Start::Newest));
    let mut observers = observers.collect::<Result<Vec<_>, _>>()?;
    println!("ready");
    let mut due = Instant::now();
    loop {
        for observer in &mut observers {
            due += PERIOD / count as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let newest = observer.position() + observer.lag().saturating_sub(1);
            observer.seek(newest)?;
            observer.try_next()?;
        }
    }
}
