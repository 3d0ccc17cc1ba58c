//! Frames of 8 MiB: written where they will be read (a loan), read where they were written, and kept there (a hold). Each viewer
//! keeps the last three frames as they are, while the camera goes on and waits for nobody.
//!
//! Last line: `40 frames of 8 MiB, none of those held was touched`

use std::collections::VecDeque;
use std::env;
use std::error::Error;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use bytemuck::{Pod, Zeroable};
use shmbus::{Delivery, Directory, Held, Message, ReceiveError, Topic, TopicOptions};

const TOPIC: &str = "example/frames";
const FRAMES: u64 = 40;
const VIEWERS: u32 = 2;
const KEPT: usize = 3;
const PIXELS: usize = 8 << 20;

#[derive(Clone, Copy, Pod, Zeroable, Message)]
#[repr(C)]
struct Frame {
    number: u64,
    pixels: [u8; PIXELS],
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).is_some() { view() } else { record() }
}

fn record() -> Result<(), Box<dyn Error>> {
    let directory = Directory::from_env()?;
    let _ = directory.remove(TOPIC, true); // of a run that was killed
    let options = TopicOptions {
        depth: 4,
        subscribers_max: VIEWERS,
        // One frame more than it keeps is held for a moment: the new one, before the oldest is let go.
        hold_blocks: Some(VIEWERS * (KEPT as u32 + 1)),
        ..TopicOptions::default()
    };
    println!("{} MiB of memory", options.memory::<Frame>()?.total() >> 20);
    let topic = Topic::<Frame>::create(TOPIC, &options)?;
    let viewers = (0..VIEWERS).map(|_| start()).collect::<Result<Vec<Child>, _>>()?;
    let mut publisher = topic.publisher()?;
    while topic.info().participants.len() < 1 + viewers.len() {
        thread::sleep(Duration::from_millis(1));
    }
    for number in 0..FRAMES {
        let mut frame = publisher.loan()?; // shows whatever stood there: write all of it
        frame.number = number;
        frame.pixels.fill(number as u8);
        frame.commit()?;
    }
    directory.remove(TOPIC, true)?;
    for mut viewer in viewers {
        let status = viewer.wait()?;
        assert!(status.success(), "a viewer failed: {status}");
    }
    println!("{FRAMES} frames of 8 MiB, none of those held was touched");
    Ok(())
}

fn start() -> std::io::Result<Child> {
    Command::new(env::current_exe()?).arg("view").spawn()
}

fn view() -> Result<(), Box<dyn Error>> {
    let mut subscriber = Topic::<Frame>::open(TOPIC)?.subscriber(Delivery::Lossy)?;
    let mut kept: VecDeque<Held<Frame>> = VecDeque::new();
    let mut received = 0;
    loop {
        match subscriber.receive() {
            Ok(frame) => {
                kept.push_back(frame.hold().map_err(|_| "the budget of held blocks is used up")?);
            }
            Err(ReceiveError::Retired) => break,
            Err(error) => return Err(error.into()),
        }
        received += 1;
        if kept.len() > KEPT {
            kept.pop_front();
        }
        for frame in &kept {
            assert_eq!(frame.number, frame.sequence());
            let value = frame.number as u8;
            assert!(frame.pixels.iter().step_by(4096).all(|&pixel| pixel == value));
        }
    }
    assert_eq!(received + subscriber.missed(), FRAMES);
    println!("viewed {received}, missed {}", subscriber.missed());
    Ok(())
}
