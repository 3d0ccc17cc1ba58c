//! `serve`: a keeper and its worker, which is killed again and again.

mod program;

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use program::{Place, Running};
use rustix::process::{Pid, Signal, kill_process};
use shmbus::{Delivery, OpenError, ReceiveError, Topic};

const KILLS: u32 = 100;

fn config(place: &Place) -> String {
    let socket = place.file("broker");
    let uid = rustix::process::geteuid().as_raw();
    let text = format!(
        "socket = {socket:?}\n[[topic]]\nname = \"t\"\nschema = \"t.schema\"\ndepth = 256\n\
         [[rule]]\nuids = [{uid}]\ntopics = [\"*\"]\npublish = true\nsubscribe = true\nreliable = true\n\
         patience_ms = 60000\nsubscribers = 8\n"
    );
    place.written("t.schema", shmbus::Schema::of::<u64>().to_string().as_bytes());
    place.written("guarded.toml", text.as_bytes())
}

/// Descriptors and children, of which zombies are some.
fn owned(pid: u32) -> (usize, usize) {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    (fds, children.split_whitespace().count())
}

/// The next worker that answers.
fn worker(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> u32 {
    let number = |line: String| line.split(' ').nth(2).unwrap().parse().unwrap();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with("answers")));
    number(line.expect("a worker").unwrap())
}

#[test]
fn a_worker_that_is_killed_a_hundred_times_costs_no_message_and_leaves_nothing() {
    let place = Place::new();
    let mut keeper: Running = place.start(&["serve", "--config", &config(&place)]);
    let mut lines = BufReader::new(keeper.stderr()).lines();
    let mut pid = worker(&mut lines);
    let socket = place.file("broker");
    let topic = Topic::<u64>::connect(&socket, "t").unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ends);
    let publishing = std::thread::spawn(move || {
        let mut number = 0;
        while !told.load(Ordering::Relaxed) {
            publisher.publish(&number).unwrap();
            number += 1;
            std::thread::yield_now();
        }
        number
    });
    let receiving = std::thread::spawn(move || {
        let mut expected = 0;
        loop {
            match subscriber.receive() {
                Ok(sample) => {
                    assert_eq!((*sample, sample.missed_before()), (expected, 0));
                    expected += 1;
                }
                Err(ReceiveError::Retired) => return expected,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let before = owned(keeper.pid());
    let mut refused = 0;
    for _ in 0..KILLS {
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
        // Whoever joins just now waits for the next worker, or is told that nobody answered.
        let joined = loop {
            match topic.subscriber(Delivery::Reliable) {
                Ok(subscriber) => break subscriber,
                Err(shmbus::AttachError::Open(OpenError::Broker { .. })) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        };
        pid = worker(&mut lines);
        drop(joined);
    }
    println!("{refused} of those who joined had to ask again");
    assert_eq!(owned(keeper.pid()), before, "descriptors and children of the keeper");
    ends.store(true, Ordering::Relaxed);
    let published = publishing.join().unwrap();
    keeper.signal(Signal::TERM);
    assert_eq!(receiving.join().unwrap(), published, "each message, once, and then the end");
    assert_eq!(keeper.finish().code(), 130);
    assert!(!socket.exists());
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "the worker is gone, and reaped"
    );
}

#[test]
fn a_configuration_that_is_none_is_an_error_that_says_where() {
    let place = Place::new();
    place.run(&["serve", "--config", "/nowhere"]).failed(1, &["/nowhere", "No such file"]);
    let wrong = place.written("wrong.toml", b"socket = \"/x\"\n[[topics]]\n");
    place.run(&["serve", "--config", &wrong]).failed(1, &["wrong.toml", "topics"]);
    let empty = place.written("empty.toml", b"socket = \"/x\"\n");
    place.run(&["serve", "--config", &empty]).failed(1, &["empty.toml", "no topic"]);
    place.run(&["serve"]).failed(2, &["--config"]);
    place.run(&["serve", "--worker", "--config", &config(&place)]).failed(1, &["keeper"]);
}

#[test]
fn a_worker_ends_when_its_keeper_is_killed() {
    let place = Place::new();
    let mut keeper: Running = place.start(&["serve", "--config", &config(&place)]);
    let mut lines = BufReader::new(keeper.stderr()).lines();
    worker(&mut lines);
    keeper.signal(Signal::KILL);
    drop(keeper);
    // Its standard error is the keeper's: that it ends is the end of the lines.
    assert!(lines.all(|line| line.is_ok()));
    // The socket that it left is replaced.
    assert!(place.file("broker").exists());
    let mut again = place.start(&["serve", "--config", &config(&place)]);
    worker(&mut BufReader::new(again.stderr()).lines());
    Topic::<u64>::connect(place.file("broker"), "t").unwrap();
}
