//! A service that survives its own crash. Its state is the last message of its topic; a supervisor kills it in the middle of its
//! work and starts it again; the new process takes over as publisher and goes on where the old one was. Whoever listens
//! misses nothing, and does not have to reconnect.
//!
//! Last line: `10000 ticks in order, 5 crashes, none lost, none twice`

use std::env;
use std::error::Error;
use std::process::{Child, Command};

use bytemuck::{Pod, Zeroable};
use shmbus::{Delivery, Directory, Message, Start, Topic, TopicOptions};

const TOPIC: &str = "example/ticks";
const TICKS: u64 = 10_000;
const CRASHES: u64 = 5;

/// All that the service has to know to go on.
#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[repr(C)]
struct Tick {
    count: u64,
    sum: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).is_some() { serve() } else { supervise() }
}

fn supervise() -> Result<(), Box<dyn Error>> {
    let directory = Directory::from_env()?;
    let _ = directory.remove(TOPIC, true); // of a run that was killed
    let topic = Topic::<Tick>::create(TOPIC, &TopicOptions::default())?;
    let mut subscriber = topic.subscriber(Delivery::Reliable)?;
    let mut service = start()?;
    let (mut crashes, mut sum) = (0, 0);
    for count in 0..TICKS {
        let tick = subscriber.receive()?;
        sum += count;
        assert_eq!((tick.count, tick.sum, tick.missed_before()), (count, sum, 0));
        if count + 1 == TICKS * (crashes + 1) / (CRASHES + 1) && crashes < CRASHES {
            service.kill()?; // SIGKILL: it may be anywhere, also in the middle of a publish
            service.wait()?;
            service = start()?;
            crashes += 1;
        }
    }
    service.kill()?;
    service.wait()?;
    println!("{TICKS} ticks in order, {crashes} crashes, none lost, none twice");
    drop(subscriber);
    Ok(directory.remove(TOPIC, false)?)
}

fn start() -> std::io::Result<Child> {
    Command::new(env::current_exe()?).arg("serve").spawn()
}

fn serve() -> Result<(), Box<dyn Error>> {
    let topic = Topic::<Tick>::open(TOPIC)?;
    // First the place, then the state: from here on nobody else publishes, and everything that was committed is counted.
    let mut publisher = topic.publisher()?;
    let mut last = topic.subscriber_from(Delivery::Lossy, Start::Back(1))?;
    let mut state = last.try_receive()?.map(|tick| *tick);
    drop(last);
    loop {
        let next = match state {
            None => Tick { count: 0, sum: 0 },
            Some(Tick { count, sum }) => Tick { count: count + 1, sum: sum + count + 1 },
        };
        publisher.publish(&next)?;
        state = Some(next);
    }
}
