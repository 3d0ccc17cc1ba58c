//! Many sensors, one log: shared publishers bring their readings into one order, which is the same for every subscriber. One
//! sensor is killed on the way; nobody else notices.
//!
//! Last line: `7 sensors: 7000 readings, each in its order; the eighth was killed`

use std::env;
use std::error::Error;
use std::process::{Child, Command};

use bytemuck::{Pod, Zeroable};
use shmbus::{Delivery, Directory, Message, Publishers, Topic, TopicOptions};

const TOPIC: &str = "example/readings";
const SENSORS: u32 = 8;
const READINGS: u64 = 1000;
/// The sensor that is killed: it would go on for ever.
const DOOMED: u32 = SENSORS - 1;

#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[repr(C)]
struct Reading {
    number: u64,
    value: f32,
    sensor: u32,
}

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1) {
        None => log(),
        Some(sensor) => sense(sensor.parse()?),
    }
}

fn log() -> Result<(), Box<dyn Error>> {
    let directory = Directory::from_env()?;
    let _ = directory.remove(TOPIC, true); // of a run that was killed
    let options =
        TopicOptions { publishers: Publishers::Shared(SENSORS), ..TopicOptions::default() };
    let topic = Topic::<Reading>::create(TOPIC, &options)?;
    let mut subscriber = topic.subscriber(Delivery::Reliable)?;
    let mut sensors = (0..SENSORS).map(start).collect::<Result<Vec<Child>, _>>()?;

    let mut next = [0; SENSORS as usize];
    let mut killed = false;
    let complete = |next: &[u64; SENSORS as usize]| {
        next[..DOOMED as usize].iter().all(|&readings| readings == READINGS)
    };
    while !complete(&next) || !killed {
        let reading = subscriber.receive()?;
        let sensor = reading.sensor as usize;
        assert_eq!(reading.number, next[sensor], "sensor {sensor}");
        next[sensor] += 1;
        if next[DOOMED as usize] == READINGS / 2 && !killed {
            sensors[DOOMED as usize].kill()?; // SIGKILL, wherever it is
            killed = true;
        }
    }
    for (sensor, mut child) in sensors.into_iter().enumerate() {
        let status = child.wait()?;
        assert_eq!(status.success(), sensor != DOOMED as usize, "sensor {sensor}: {status}");
    }
    println!("the eighth published {} before that, or a few more", next[DOOMED as usize]);
    let readings: u64 = next[..DOOMED as usize].iter().sum();
    println!("{DOOMED} sensors: {readings} readings, each in its order; the eighth was killed");
    drop(subscriber);
    Ok(directory.remove(TOPIC, true)?)
}

fn start(sensor: u32) -> std::io::Result<Child> {
    Command::new(env::current_exe()?).arg(sensor.to_string()).spawn()
}

fn sense(sensor: u32) -> Result<(), Box<dyn Error>> {
    let mut publisher = Topic::<Reading>::open(TOPIC)?.publisher()?;
    let readings = if sensor == DOOMED { u64::MAX } else { READINGS };
    for number in 0..readings {
        let value = (number as f32 / 100.0).sin();
        publisher.publish(&Reading { number, value, sensor })?;
    }
    Ok(())
}
