//! Supervision: a feed, three subscribers and a recorder of lines. One of the subscribers crashes every second, and is started again, while the others miss
//! nothing. With an argument this is one of them; `market_data.toml` has `shmbus run` do the same.
//!
//! Last line: `all have ended well, and nobody noticed the one that crashed`

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use shmbus::process::{ChildSpec, Restart, Supervisor};
use shmbus::{Delivery, Directory, Message, Start, Topic, TopicOptions};

const TOPIC: &str = "example/supervised";
/// Stands in the last quote.
const CLOSING: u64 = u64::MAX;
/// Those that take part, but for the feed.
const READERS: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[repr(C)]
#[message(name = "example.Quote", version = 1)]
struct Quote {
    instrument: u64,
    bid: i64,
    ask: i64,
}

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        None => supervise(),
        Some("feed") => feed(),
        Some("reliable") => read(Delivery::Reliable, None, false),
        Some("lossy") => read(Delivery::Lossy, None, false),
        Some("crashing") => read(Delivery::Reliable, None, true),
        Some("recorder") => read(Delivery::Reliable, Some(env::var("RECORD")?), false),
        Some(other) => Err(format!("there is no {other}").into()),
    }
}

/// What `shmbus run market_data.toml` does.
fn supervise() -> Result<(), Box<dyn Error>> {
    let directory = Directory::from_env()?;
    let _ = directory.remove(TOPIC, false); // of a run that was killed
    let options = TopicOptions { depth: 65_536, ..TopicOptions::default() };
    let topic = Topic::<Quote>::create(TOPIC, &options)?;
    let mut supervisor = Supervisor::new()?;
    supervisor.take_signals()?; // Ctrl-C stops them in order
    for name in ["reliable", "lossy", "crashing", "recorder", "feed"] {
        let mut child = ChildSpec::new(name, move || {
            let mut command = Command::new(env::current_exe()?);
            command.arg(name).env("RECORD", "/dev/null");
            Ok(command)
        });
        child.restart = if name == "crashing" { Restart::OnFailure } else { Restart::Never };
        child.topic(&topic);
        supervisor.add(child)?;
    }
    drop(topic);
    let report = supervisor.run()?;
    directory.remove(TOPIC, false)?; // nobody takes part any more
    for child in &report.children {
        assert!(child.last_end.is_some_and(|end| end.is_success()), "{child:?}");
        assert_eq!(child.restarts > 0, child.name == "crashing", "{child:?}");
    }
    println!("all have ended well, and nobody noticed the one that crashed");
    Ok(())
}

fn feed() -> Result<(), Box<dyn Error>> {
    let topic = Topic::<Quote>::inherited(TOPIC)?;
    let seconds = env::var("SECONDS").map_or(Ok(3), |seconds| seconds.parse())?;
    let mut publisher = topic.publisher()?;
    while topic.info().participants.len() < 1 + READERS {
        thread::sleep(Duration::from_millis(1)); // who comes later begins with what comes later
    }
    let (begin, mut published) = (Instant::now(), 0_u64);
    while begin.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..20 {
            let bid = 10_000 + (published % 100) as i64;
            publisher.publish(&Quote { instrument: published % 50, bid, ask: bid + 2 })?;
            published += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    publisher.publish(&Quote { instrument: CLOSING, bid: 0, ask: 0 })?;
    println!("feed: published {published}");
    Ok(())
}

/// Reads up to the closing quote, or until it crashes.
fn read(delivery: Delivery, record: Option<String>, crashing: bool) -> Result<(), Box<dyn Error>> {
    let topic = Topic::<Quote>::inherited(TOPIC)?;
    let mut record = record.map(File::create).transpose()?.map(BufWriter::new);
    // Who comes too late for the closing quote finds it as the newest one.
    let from = if crashing { Start::Back(1) } else { Start::Oldest };
    let mut subscriber = topic.subscriber_from(delivery, from)?;
    let (begin, first, mut received) = (Instant::now(), subscriber.position(), 0_u64);
    let end = loop {
        let quote = subscriber.receive()?;
        if quote.instrument == CLOSING {
            break quote.sequence();
        }
        assert_eq!(quote.instrument, quote.sequence() % 50);
        if let Some(record) = &mut record {
            writeln!(record, "{} {} {}", quote.instrument, quote.bid, quote.ask)?;
        }
        received += 1;
        if crashing && begin.elapsed() > Duration::from_secs(1) {
            println!("crashing: received {received} in a row, from {first} on");
            std::process::abort();
        }
    };
    record.map_or(Ok(()), |mut record| record.flush())?;
    let missed = subscriber.missed();
    assert_eq!(first + received + missed, end, "each quote was received or counted as missed");
    assert!(delivery == Delivery::Lossy || missed == 0);
    assert!(crashing || first == 0);
    println!(
        "{}: received {received}, missed {missed}, from {first} on",
        env::args().nth(1).unwrap_or_default()
    );
    Ok(())
}
