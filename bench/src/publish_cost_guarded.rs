//! The same on guarded topics, through a broker on a thread of this process.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use shmbus::{Broker, Delivery, GuardedTopic, Policy, Rule, Topic, TopicOptions};

use super::{Message, SUBSCRIBERS, burst, compare, name};
use crate::placement::{Partner, Scratch, pin, two_cores};

const DEPTH: u64 = 4_096;

pub(crate) fn run(rounds: usize) -> Result<()> {
    let scratch = Scratch::new()?;
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o700))?;
    let socket = scratch.path().join("broker");
    let options =
        TopicOptions { depth: DEPTH, subscribers_max: 64, prefault: true, ..Default::default() };
    let topics =
        SUBSCRIBERS.map(|count| GuardedTopic::create::<Message>(&name(DEPTH, count), &options));
    let topics = topics.into_iter().collect::<Result<Vec<_>, _>>()?;
    let rule = Rule {
        uids: vec![rustix::process::geteuid().as_raw()],
        topics: vec!["bench/*".to_owned()],
        publish: true,
        subscribe: true,
        subscribers: 64,
        ..Rule::default()
    };
    let mut broker = Broker::new(Broker::listen(&socket)?, topics, Policy { rules: vec![rule] })?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                if broker.turn(Duration::from_millis(50)).is_err() {
                    return;
                }
            }
        });
        let outcome = measure(scratch.path(), &socket, &is_over, rounds);
        is_over.store(true, Relaxed);
        outcome
    })
}

fn measure(scratch: &Path, socket: &Path, is_over: &AtomicBool, rounds: usize) -> Result<()> {
    let mut publishers = Vec::new();
    let mut block_len = 0;
    for count in SUBSCRIBERS {
        let topic = Topic::<Message>::connect(socket, &name(DEPTH, count))?;
        let mut publisher = topic.publisher()?;
        burst(&mut publisher)?;
        publishers.push(publisher);
        block_len = topic.info().block_len;
    }
    let [core, other] = two_cores().unwrap_or([0, 0]);
    let _idle = Partner::start("guarded-idle", scratch, 0, other)?;
    is_over.store(true, Relaxed); // all have joined: nothing runs beside
    pin(core)?;
    println!(
        "publish of 48 bytes to guarded topics, depth {DEPTH}, ns per message, {rounds} rounds:"
    );
    let ratio = compare(&mut publishers, block_len, rounds)?;
    println!("cost with 64 / cost with 1, median of the rounds: {ratio:.3}");
    Ok(())
}

/// As [`idle`](super::idle), by way of the broker.
pub(crate) fn idle(scratch: &Path) -> Result<()> {
    let socket = scratch.join("broker");
    let mut subscribers = Vec::new();
    for count in SUBSCRIBERS {
        let topic = Topic::<Message>::connect(&socket, &name(DEPTH, count))?;
        for _ in 0..count {
            let mut subscriber = topic.subscriber_from(Delivery::Lossy, shmbus::Start::Back(1))?;
            anyhow::ensure!(subscriber.try_receive()?.is_some(), "nothing was published");
            subscribers.push(subscriber);
        }
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
