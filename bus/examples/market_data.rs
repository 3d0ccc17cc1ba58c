//! Fan-out: a feed and three subscriber processes. One is reliable: the feed waits for it when it is a whole ring behind. Two are
//! lossy: the feed waits for neither, and each knows exactly what it missed.
//!
//! Last line: `every quote is accounted for`

use std::env;
use std::error::Error;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};
use shmbus::{Delivery, Directory, Message, ReceiveError, Topic, TopicOptions};

const TOPIC: &str = "example/quotes";
const QUOTES: u64 = 300_000;

#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[repr(C)]
struct Quote {
    instrument: u64,
    bid: i64,
    ask: i64,
}

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        None => feed(),
        Some("reliable") => subscribe(Delivery::Reliable, Duration::ZERO),
        Some("lossy") => subscribe(Delivery::Lossy, Duration::ZERO),
        Some(_) => subscribe(Delivery::Lossy, Duration::from_micros(50)), // slow: work for each quote
    }
}

fn feed() -> Result<(), Box<dyn Error>> {
    let directory = Directory::from_env()?;
    let _ = directory.remove(TOPIC, true); // of a run that was killed
    let options = TopicOptions { depth: 4096, ..TopicOptions::default() };
    let topic = Topic::<Quote>::create(TOPIC, &options)?;
    let subscribers = ["reliable", "lossy", "slow"].map(start);
    let mut publisher = topic.publisher()?;
    while topic.info().participants.len() < 1 + subscribers.len() {
        thread::sleep(Duration::from_millis(1)); // who comes later begins with what comes later
    }
    for i in 0..QUOTES {
        let bid = 10_000 + (i % 100) as i64;
        publisher.publish(&Quote { instrument: i % 50, bid, ask: bid + 2 })?;
    }
    // Subscribers receive what is there, and are told then that nothing follows.
    directory.remove(TOPIC, true)?;
    for subscriber in subscribers {
        let status = subscriber?.wait()?;
        assert!(status.success(), "a subscriber failed: {status}");
    }
    println!("every quote is accounted for");
    Ok(())
}

fn start(kind: &str) -> std::io::Result<Child> {
    Command::new(env::current_exe()?).arg(kind).spawn()
}

fn subscribe(delivery: Delivery, work: Duration) -> Result<(), Box<dyn Error>> {
    let mut subscriber = Topic::<Quote>::open(TOPIC)?.subscriber(delivery)?;
    let (mut received, mut missed, mut spread) = (0, 0, 0);
    loop {
        match subscriber.receive() {
            Ok(quote) => {
                assert_eq!(quote.instrument, quote.sequence() % 50);
                received += 1;
                missed += quote.missed_before();
                spread += quote.ask - quote.bid;
            }
            Err(ReceiveError::Retired) => break,
            Err(error) => return Err(error.into()),
        }
        if !work.is_zero() {
            thread::sleep(work);
        }
    }
    // What was missed behind the last message received is in no sample.
    assert_eq!(received + subscriber.missed(), QUOTES);
    assert_eq!(missed, subscriber.missed());
    assert_eq!(spread, 2 * received as i64);
    println!("{delivery:?}: received {received}, missed {missed}");
    assert!(delivery == Delivery::Lossy || missed == 0);
    Ok(())
}
