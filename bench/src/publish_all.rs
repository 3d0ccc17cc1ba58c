//! What a message costs in a batch, beside one published by itself; one process, nobody subscribed, both ways of waking.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use shmbus::{Directory, Publisher, Topic, TopicOptions, Wake};

use crate::placement::{Scratch, median, pin, two_cores};
use crate::publish_cost::Message;

const BATCH: usize = 256;
/// Of one round: less than a time slice, so that most rounds are not interrupted.
const PUBLISHES: usize = 100 * BATCH;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    if let Ok([core, _]) = two_cores() {
        pin(core)?;
    }
    println!("publish of 48 bytes, batches of {BATCH}, ns per message, {rounds} rounds:");
    let mut figure = f64::NAN;
    for (name, wake) in [("auto", Wake::Auto), ("fence", Wake::Fence)] {
        let options = TopicOptions { depth: 1024, wake, prefault: true, ..Default::default() };
        let topic = Topic::<Message>::create_in(&directory, &format!("bench/{name}"), &options)?;
        let mut publisher = topic.publisher()?;
        let (mut singles, mut batches, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        one_by_one(&mut publisher)?; // every page once
        for _ in 0..rounds {
            let (single, batch) = (one_by_one(&mut publisher)?, in_batches(&mut publisher)?);
            singles.push(single);
            batches.push(batch);
            ratios.push(single / batch);
        }
        figure = median(&mut ratios);
        let (single, batch) = (median(&mut singles), median(&mut batches));
        println!(
            "  wake {name:<5}  one by one {single:.2}  in batches {batch:.2}  ratio {figure:.2}"
        );
    }
    println!("one by one / in batches, wake fence, median of the rounds: {figure:.3}");
    Ok(())
}

fn one_by_one(publisher: &mut Publisher<Message>) -> Result<f64> {
    let messages = vec![[7; 6]; BATCH];
    let begin = Instant::now();
    for _ in 0..PUBLISHES / BATCH {
        for message in black_box(&messages) {
            publisher.publish(message)?;
        }
    }
    Ok(begin.elapsed().as_nanos() as f64 / PUBLISHES as f64)
}

fn in_batches(publisher: &mut Publisher<Message>) -> Result<f64> {
    let messages = vec![[7; 6]; BATCH];
    let begin = Instant::now();
    for _ in 0..PUBLISHES / BATCH {
        publisher.publish_all(black_box(&messages))?;
    }
    Ok(begin.elapsed().as_nanos() as f64 / PUBLISHES as f64)
}
