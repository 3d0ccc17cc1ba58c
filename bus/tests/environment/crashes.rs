//! Processes that crash and leave a core dump: they hold their leases until it is written, and no longer; the topic is not in it.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use super::{Player, directory, role, say};
use shmbus::{Delivery, Directory, Start, Topic, TopicOptions};

/// Generous: it is no measure of anything.
const PATIENCE: Duration = Duration::from_secs(60);

type Message = [u64; 64];

fn options() -> TopicOptions {
    TopicOptions {
        depth: 32_768,
        subscribers_max: 2,
        hold_blocks: Some(2),
        prefault: true,
        ..Default::default()
    }
}

fn open(path: &Path) -> Topic<Message> {
    let directory = Directory::at(path).unwrap();
    Topic::open_or_create_in(&directory, "t", &options()).unwrap()
}

/// Crashes by the signal that it is told, with a core dump of all that a process can have dumped.
fn crash() -> ! {
    let mut signal = String::new();
    std::io::stdin().lock().read_line(&mut signal).unwrap();
    let signal = signal.trim().parse().unwrap();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }, 0);
    // Mappings of files too, which are left out by default.
    let _ = fs::write("/proc/self/coredump_filter", "0x7f");
    // SAFETY: std's handler, which looks for stack overflows, is not needed any more.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: it takes a number.
    unsafe { libc::raise(signal) };
    unreachable!("it has crashed")
}

pub(super) fn play_crashing_subscriber(path: &Path) {
    let topic = open(path);
    let mut subscriber = topic.subscriber_from(Delivery::Reliable, Start::Oldest).unwrap();
    let mut held = Vec::new();
    while let Some(sample) = subscriber.try_receive().unwrap() {
        match sample.hold() {
            Ok(sample) => held.push(sample),
            Err(_) => break, // all that may be held
        }
    }
    say(&format!("{}", held.len()));
    crash();
}

pub(super) fn play_crashing_publisher(path: &Path) {
    let topic = open(path);
    let mut publisher = topic.publisher().unwrap();
    let sequence = publisher.publish(&[7; 64]).unwrap();
    publisher.loan().unwrap()[0] = 8; // never committed
    say(&format!("{sequence}"));
    crash();
}

/// Has the role crash, and returns when it is gone. What it left must not be the topic.
fn crashes(mut player: Player, signal: i32, cores: &Path, topic: &Topic<Message>) {
    player.tell(&signal.to_string());
    let status = player.child.wait().unwrap();
    assert_eq!(status.signal(), Some(signal), "{status}");
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if !status.core_dumped() || pattern.starts_with('|') || pattern.contains('/') {
        return println!("skipped: no core dump is written to here: {status}, {}", pattern.trim());
    }
    let dump = fs::read_dir(cores).unwrap().next().expect("a core dump").unwrap().path();
    let dumped = fs::metadata(&dump).unwrap().blocks() * 512;
    let memory = topic.info().memory.total();
    assert!(dumped > 4096 && dumped < memory / 2, "{dumped} bytes dumped, the topic has {memory}");
    fs::remove_file(dump).unwrap();
}

#[test]
fn who_crashes_with_a_core_dump_holds_up_nobody_and_does_not_dump_the_topic() {
    let (path, _) = directory();
    let cores = path.path().join("cores");
    let topics = path.path().join("topics");
    fs::create_dir(&cores).unwrap();
    let begin = |name| {
        let mut command = role(name, &topics);
        command.current_dir(&cores);
        Player::new(command)
    };
    let topic = open(&topics);
    let depth = topic.info().depth;
    for (round, signal) in [libc::SIGABRT, libc::SIGSEGV].into_iter().enumerate() {
        let mut publisher = topic.publisher().unwrap();
        for _ in 0..depth {
            publisher.publish_timeout(&[1; 64], PATIENCE).unwrap();
        }
        let mut subscriber = begin("crashing subscriber");
        assert!(subscriber.hear().parse::<u64>().unwrap() > 0, "it holds");
        crashes(subscriber, signal, &cores, &topic);
        for _ in 0..3 * depth {
            publisher.publish_timeout(&[2; 64], PATIENCE).unwrap(); // nobody is waited for
        }
        let mut others = topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
        let mut held = Vec::new();
        while held.len() < 2 {
            held.push(others.receive().unwrap().hold().expect("what the dead held"));
            for _ in 1..topic.info().block_len {
                others.receive().unwrap(); // to the next block
            }
        }
        assert_eq!(topic.info().deaths, 2 * round as u64 + 1);

        let next = publisher.sequence();
        drop(publisher);
        let mut successor = begin("crashing publisher");
        assert_eq!(successor.hear().parse(), Ok(next));
        crashes(successor, signal, &cores, &topic);
        assert_eq!(topic.publisher().unwrap().sequence(), next + 1, "its place is free at once");
        assert_eq!(topic.info().deaths, 2 * round as u64 + 2);
    }
}
