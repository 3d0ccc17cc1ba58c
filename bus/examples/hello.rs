//! One topic, one message. Each half may be in a process of its own.
//!
//! Last line: `hello: nothing missed before it`

use shmbus::{Delivery, Directory, Topic, TopicOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic = Topic::<[u8]>::open_or_create("example/hello", &TopicOptions::default())?;
    let mut subscriber = topic.subscriber(Delivery::Reliable)?;
    let mut publisher = topic.publisher()?;
    publisher.publish(b"hello")?;

    let message = subscriber.receive()?; // the bytes themselves, in shared memory
    assert_eq!(message.missed_before(), 0);
    println!("{}: nothing missed before it", std::str::from_utf8(&message)?);
    Ok(Directory::from_env()?.remove("example/hello", true)?) // else it stays
}
