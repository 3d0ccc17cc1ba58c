//! Participants that see other pids, other users or another time than those outside.
//!
//! Only children get into a new pid or time namespace, and whoever waits for such children may start no threads: between the
//! test and a role inside stands a process that does nothing but wait for it.
#![allow(unsafe_code)] // unshare, fork and what is done in the child

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{Player, directory, effective_uid, is_root, role, say, small};
use shmbus::{
    AttachError, Delivery, Directory, PublishError, Publisher, Publishers, ReceiveError, Start,
    Subscriber, Topic, TopicOptions,
};

/// Generous: it is no measure of anything.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// Three rings: a living reliable subscriber that does not receive is in the way.
const MANY: u64 = 48;

const HOUR_S: i64 = 3600;

/// A participant in namespaces of its own.
struct Inside {
    player: Player,
    /// Its process as it is called outside, and as it is called by itself.
    pid: Pid,
    own_pid: u32,
    now_s: i64,
}

impl Inside {
    /// In new namespaces of the kinds `flags`. `None`, with the reason printed, where they may not be made.
    fn new(path: &Path, flags: i32) -> Option<Inside> {
        let mut command = role("inside", path);
        be_apart(&mut command, flags);
        let mut player = match Player::spawn(command) {
            Ok(player) => player,
            Err(error) => {
                eprintln!("skipped: namespaces {flags:#x}: {error}");
                return None;
            }
        };
        let said = player.hear();
        let numbers: Vec<i64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
        let pid = Pid::from_raw(numbers[0] as i32).unwrap();
        Some(Inside { player, pid, own_pid: numbers[1] as u32, now_s: numbers[2] })
    }

    fn does(&mut self, what: &str) -> String {
        self.player.tell(what);
        self.player.hear()
    }

    /// SIGKILL; returns when the process is gone.
    fn kill(mut self) {
        rustix::process::kill_process(self.pid, Signal::KILL).unwrap();
        self.player.child.wait().unwrap(); // it waits for the one inside
    }
}

/// The program becomes the first process of its new namespaces, as the same user. A new time begins an hour ahead.
fn be_apart(command: &mut Command, flags: i32) {
    let uid = effective_uid();
    let users = format!("{uid} {uid} 1");
    let offset = format!("monotonic {HOUR_S} 0");
    let enter = move || {
        // SAFETY: it takes a number; this process has one thread.
        if unsafe { libc::unshare(flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if flags & libc::CLONE_NEWUSER != 0 {
            fs::write("/proc/self/uid_map", &users)?;
        }
        if flags & libc::CLONE_NEWTIME != 0 {
            fs::write("/proc/self/timens_offsets", &offset)?;
        }
        // SAFETY: this process has one thread, and its child does nothing but exec.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: numbers only. Whoever kills the one that waits has killed this one.
            0 => match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
            child => wait_for(child),
        }
    };
    // SAFETY: `enter` makes system calls, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

fn wait_for(child: libc::pid_t) -> ! {
    // SAFETY: numbers only; the pipe among them that tells the test's process that exec has succeeded.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    // SAFETY: it takes a number.
    unsafe { libc::_exit(if status == 0 { 0 } else { 1 }) }
}

fn monotonic_s() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec
}

/// Topics there and back.
fn create(directory: &Directory, subscribers_max: u32) -> [Topic<u64>; 2] {
    let there = TopicOptions { subscribers_max, ..small() };
    let back = TopicOptions { publishers: Publishers::Shared(2), ..small() };
    [("there", there), ("back", back)]
        .map(|(name, options)| Topic::create_in(directory, name, &options).unwrap())
}

pub(super) fn play_inside(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let [there, back] = ["there", "back"].map(|name| Topic::open_in(&directory, name).unwrap());
    let mut subscriber: Subscriber<u64> = there.subscriber(Delivery::Reliable).unwrap();
    let mut publisher: Publisher<u64> = back.publisher().unwrap();
    let outside = fs::read_link("/proc/self").unwrap(); // of a /proc mounted outside
    say(&format!("{} {} {}", outside.display(), std::process::id(), monotonic_s()));
    for line in io::stdin().lines() {
        let line = line.unwrap();
        match line.as_str() {
            "echo" => {
                say("echo");
                for _ in 0..MANY {
                    let message = *subscriber.receive_timeout(PATIENCE).unwrap().unwrap();
                    publisher.publish_timeout(&message, PATIENCE).unwrap();
                }
            }
            "wait" => {
                waits(&mut subscriber);
                say("nothing");
            }
            "fill" => say(&fill(&mut publisher).to_string()),
            "press" => {
                press(&mut publisher);
                say("pressed");
            }
            other => panic!("{other}"),
        }
    }
}

/// A reliable subscriber of what comes back, which receives nothing.
pub(super) fn play_stands_still(path: &Path) {
    let topic = Topic::<u64>::open_in(&Directory::at(path).unwrap(), "back").unwrap();
    let _subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    say("here");
    _ = io::stdin().lines().next();
}

/// Waits for what does not come, and no shorter than it says; far longer, and the test does not end.
fn waits(subscriber: &mut Subscriber<u64>) {
    let begin = Instant::now();
    assert!(subscriber.receive_timeout(SHORT).unwrap().is_none());
    assert!(begin.elapsed() >= SHORT);
}

/// Publishes until there is no room; how many there were.
fn fill(publisher: &mut Publisher<u64>) -> u64 {
    for count in 0.. {
        let begin = Instant::now();
        if let Err(error) = publisher.publish_timeout(&count, SHORT) {
            assert_eq!(error, PublishError::TimedOut);
            assert!(begin.elapsed() >= SHORT);
            return count;
        }
    }
    unreachable!("it is full before")
}

/// Publishes over everybody who is dead or has had his time.
fn press(publisher: &mut Publisher<u64>) {
    for message in 0..MANY {
        publisher.publish_timeout(&message, PATIENCE).unwrap();
    }
}

/// Each message goes there, and comes back from each of `count`.
fn there_and_back(publisher: &mut Publisher<u64>, subscriber: &mut Subscriber<u64>, count: u32) {
    for message in 0..MANY {
        publisher.publish_timeout(&message, PATIENCE).unwrap();
        for _ in 0..count {
            assert_eq!(*subscriber.receive_timeout(PATIENCE).unwrap().unwrap(), message);
        }
    }
}

#[test]
fn participants_of_different_pid_namespaces_meet_and_are_found_dead_though_their_pids_are_equal() {
    // Who is not root makes a user namespace first, and is root in there.
    for users in [0, libc::CLONE_NEWUSER] {
        if users == 0 && !is_root() {
            eprintln!("skipped: a pid namespace without one of users takes root");
            continue;
        }
        let (path, directory) = directory();
        let [there, back] = create(&directory, 2);
        let mut publisher = there.publisher().unwrap();
        let mut subscriber = back.subscriber(Delivery::Reliable).unwrap();
        let flags = libc::CLONE_NEWPID | users;
        let Some(mut first) = Inside::new(path.path(), flags) else { continue };
        let mut second = Inside::new(path.path(), flags).unwrap();
        assert_eq!((first.own_pid, second.own_pid), (1, 1));
        assert_eq!((first.does("echo"), second.does("echo")), ("echo".into(), "echo".into()));
        there_and_back(&mut publisher, &mut subscriber, 2);
        let full = there.subscriber(Delivery::Lossy).err();
        assert!(matches!(full, Some(AttachError::SubscribersFull { max: 2 })), "{full:?}");
        let full = back.publisher().err();
        assert!(matches!(full, Some(AttachError::PublishersFull { max: 2 })), "{full:?}");

        let namesakes = || -> Vec<bool> {
            let mut there = there.info().participants;
            there.retain(|who| who.pid == 1);
            there.iter().map(|who| who.liveness.is_alive()).collect()
        };
        assert_eq!(namesakes(), [true, true]);
        first.kill();
        assert_eq!(namesakes().iter().filter(|alive| **alive).count(), 1);
        assert_eq!(second.does("echo"), "echo");
        there_and_back(&mut publisher, &mut subscriber, 1); // past the dead one
        assert_eq!((there.info().deaths, namesakes()), (1, vec![true]));
        drop(there.subscriber(Delivery::Reliable).unwrap()); // its places are free
        drop(back.publisher().unwrap());
        assert_eq!(back.info().last_death.map(|death| death.pid), Some(1));
        second.player.ends_well();
    }
}

#[test]
fn participants_whose_clocks_differ_by_an_hour_meet_keep_their_deadlines_and_find_the_dead() {
    let users = if is_root() { 0 } else { libc::CLONE_NEWUSER };
    let (path, directory) = directory();
    let [there, back] = create(&directory, 8);
    let mut publisher = there.publisher().unwrap();
    let mut subscriber = back.subscriber(Delivery::Reliable).unwrap();
    let Some(mut inside) = Inside::new(path.path(), libc::CLONE_NEWTIME | users) else { return };
    let ahead_s = inside.now_s - monotonic_s();
    assert!((HOUR_S - 600..=HOUR_S).contains(&ahead_s), "{ahead_s} s ahead");

    assert_eq!(inside.does("echo"), "echo");
    there_and_back(&mut publisher, &mut subscriber, 1);
    waits(&mut subscriber);
    assert_eq!(inside.does("wait"), "nothing");
    assert!(fill(&mut publisher) > 0); // the one inside does not receive
    assert_ne!(inside.does("fill"), "0");
    while subscriber.try_receive().unwrap().is_some() {}
    drop(subscriber);

    // The one inside finds a death outside, and out of patience whoever stands still.
    let mut dead = Player::new(role("stands still", path.path()));
    assert_eq!(dead.hear(), "here");
    assert_ne!(inside.does("fill"), "0");
    dead.child.kill().unwrap();
    dead.child.wait().unwrap();
    let mut patient = back.subscriber_from(Delivery::ReliableFor(SHORT), Start::Newest).unwrap();
    assert_eq!(inside.does("press"), "pressed");
    assert_eq!(back.info().deaths, 1);
    let outcome = loop {
        match patient.try_receive() {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(outcome, Some(ReceiveError::Evicted));

    // Another one joins inside, and sweeps at a time that is yet to come outside. Its death is found all the same.
    inside.kill();
    let inside = Inside::new(path.path(), libc::CLONE_NEWTIME | users).unwrap();
    let before = there.info().deaths;
    inside.kill();
    press(&mut publisher);
    assert_eq!(there.info().deaths, before + 1);
}
