//! Of two subscribers that may lose nothing one stands still, so that the publisher waits for it, and is killed. How long does the other have no messages?

use std::path::Path;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use iceoryx2::prelude::Node;
use serde_json::json;
use shmbus_bench::transport::{Channel, Receiver, Sender, Transport, Wait};

use crate::figures::median;
use crate::partner::{Partner, Scratch, pause};
use crate::transports::{Iceoryx2, OfLength, Ringfire, ShaqBroadcast, Shmbus};
use crate::{raw, transports};

const VARIANT: &str = "a subscriber that the publisher waits for is killed";
/// Without messages for so long: the publisher waits.
const STILL: Duration = Duration::from_millis(100);
/// Without messages for so long after the kill: it does not go on.
const NEVER: Duration = Duration::from_secs(3);
/// How often dead nodes of iceoryx2 are looked for, where they are.
const CLEANING: Duration = Duration::from_millis(5);

const NAMES: [&str; 5] =
    ["shmbus", "iceoryx2", "iceoryx2, cleaned every 5 ms", "ringfire", "shaq broadcast"];

fn channel(directory: &Path) -> Channel {
    Channel {
        directory: directory.to_owned(),
        name: "there".to_owned(),
        receivers: 2,
        payload: 48,
        wait: Wait::Spin,
        yields: true,
    }
}

/// Does `what` with the transport of this name.
macro_rules! with {
    ($name:expr, $what:ident($($argument:expr),*)) => {
        match $name {
            "shmbus" => $what(&OfLength(Shmbus), $($argument),*),
            "ringfire" => $what(&OfLength(Ringfire::LOSSLESS), $($argument),*),
            "shaq broadcast" => $what(&OfLength(ShaqBroadcast { batch: false }), $($argument),*),
            name if name.starts_with("iceoryx2") => $what(&OfLength(Iceoryx2), $($argument),*),
            name => bail!("there is no transport {name}"),
        }
    };
}

/// Measures each in turn and prints the milliseconds of shmbus, last.
pub(crate) fn run(rounds: usize, json: Option<&Path>) -> Result<()> {
    let mut records = Vec::new();
    let mut left_out = Vec::new();
    let mut gaps = [const { Vec::new() }; NAMES.len()];
    let mut over = [None; NAMES.len()];
    for round in 0..rounds {
        for turn in 0..NAMES.len() {
            let at = (round + turn) % NAMES.len();
            if over[at].is_some() {
                continue; // once is enough to know
            }
            let name = NAMES[at];
            let scratch = Scratch::new()?;
            match with!(name, gap(name, scratch.path()))? {
                Gap::Of(gap) => {
                    let gap_ns = gap.as_nanos() as f64;
                    gaps[at].push(gap_ns);
                    records.push(raw::record(round, name, VARIANT, 2, json!({ "gap_ns": gap_ns })));
                }
                Gap::Never(why) => {
                    over[at] = Some(why);
                    left_out.push(format!("{name}: {why}"));
                }
            }
        }
    }
    println!("{VARIANT}: ms until the next message, median of {rounds} rounds");
    for (at, name) in NAMES.iter().enumerate() {
        match over[at] {
            Some(why) => println!("  {name:<28}  {why}"),
            None => println!("  {name:<28}  {:.3}", median(&mut gaps[at]) / 1e6),
        }
    }
    if let Some(json) = json {
        raw::write(json, "recovery", rounds, &left_out, &records)?;
    }
    println!("shmbus: {:.3}", median(&mut gaps[0]) / 1e6);
    Ok(())
}

enum Gap {
    Of(Duration),
    Never(&'static str),
}

fn gap<T: Transport>(transport: &T, name: &str, directory: &Path) -> Result<Gap> {
    let channel = channel(directory);
    transport.create(&channel)?;
    let mut receiver = transport.listen(&channel, 0)?;
    let mut still = Partner::start("still", name, directory)?;
    let mut sender = Partner::start("sender", name, directory)?;
    sender.go()?;
    sender.expect("connected")?;
    receiver.accept()?;
    still.go()?;
    still.expect("accepted")?;
    sender.go()?;
    let mut last = Instant::now();
    while last.elapsed() < STILL {
        match receiver.try_receive(|_| ())? {
            Some(()) => last = Instant::now(),
            None => yield_now(),
        }
    }
    let cleaner: Option<Node<_>> = match name.contains("cleaned") {
        true => Some(transports::node(directory)?),
        false => None,
    };
    let killed = Instant::now();
    still.kill()?;
    let mut cleaned = Instant::now();
    let gap = loop {
        if receiver.try_receive(|_| ())?.is_some() {
            break Gap::Of(killed.elapsed());
        }
        if killed.elapsed() > NEVER {
            break match sender.has_ended()? {
                true => Gap::Never("the publisher fails"),
                false => Gap::Never("nothing more for 3 s: it does not go on by itself"),
            };
        }
        if let Some(node) = &cleaner
            && cleaned.elapsed() > CLEANING
        {
            node.try_cleanup_dead_nodes();
            cleaned = Instant::now();
        }
        yield_now();
    };
    sender.kill()?;
    drop(receiver);
    transport.remove(&channel);
    Ok(gap)
}

/// In a partner: a subscriber that receives nothing, or the publisher.
pub(crate) fn partner(role: &str, name: &str, directory: &Path) -> Result<()> {
    match role {
        "still" => with!(name, still(directory)),
        "sender" => with!(name, sender(directory)),
        role => bail!("there is no partner {role}"),
    }
}

fn still<T: Transport>(transport: &T, directory: &Path) -> Result<()> {
    let mut receiver = transport.listen(&channel(directory), 1)?;
    pause("ready")?;
    receiver.accept()?;
    pause("accepted")
}

fn sender<T: Transport>(transport: &T, directory: &Path) -> Result<()> {
    pause("ready")?;
    let mut sender = transport.connect(&channel(directory))?;
    pause("connected")?;
    loop {
        sender.send(bytemuck::bytes_of(&[7u64; 6]))?;
    }
}
