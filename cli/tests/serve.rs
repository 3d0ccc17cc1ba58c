//! `serve`: a keeper and its worker, which is killed again and again.

mod program;

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use program::{Place, Running};
use rustix::process::{Pid, Signal, kill_process};
use shmbus::{Delivery, OpenError, ReceiveError, Topic};

const KILLS: u32 = 100;

fn config(place: &Place) -> String {
    let rule = rule(
        "publish = true\nsubscribe = true\nreliable = true\npatience_ms = 60000\nsubscribers = 8",
    );
    config_of(place, &rule)
}

/// A rule about this user.
fn rule(allows: &str) -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!("[[rule]]\nuids = [{uid}]\ntopics = [\"*\"]\n{allows}\n")
}

fn config_of(place: &Place, rules: &str) -> String {
    let socket = place.file("broker");
    let text = format!(
        "socket = {socket:?}\n[[topic]]\nname = \"t\"\nschema = \"t.schema\"\ndepth = 256\n{rules}"
    );
    place.written("t.schema", shmbus::Schema::of::<u64>().to_string().as_bytes());
    place.written("guarded.toml", text.as_bytes())
}

/// The lines that it says, which must not take for ever.
fn lines_of(stderr: ChildStderr) -> impl Iterator<Item = std::io::Result<String>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(stderr).lines().try_for_each(|line| sender.send(line))
    });
    std::iter::from_fn(move || match receiver.recv_timeout(Duration::from_secs(120)) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("nothing is said any more"),
    })
}

/// The next line that says so.
fn says(lines: &mut impl Iterator<Item = std::io::Result<String>>, what: &str) -> String {
    let mut before = Vec::new();
    for line in lines.map(Result::unwrap) {
        if line.contains(what) {
            return line;
        }
        before.push(line);
    }
    panic!("{what:?} is not among {before:?}");
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
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
    let mut lines = lines_of(keeper.stderr());
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
    place.run(&["serve", "--config", &wrong]).failed(2, &["wrong.toml", "topics"]);
    let empty = place.written("empty.toml", b"socket = \"/x\"\n");
    place.run(&["serve", "--config", &empty]).failed(2, &["empty.toml", "no topic"]);
    place.run(&["serve"]).failed(2, &["--config"]);
    place.run(&["serve", "--worker", "--config", &config(&place)]).failed(1, &["keeper"]);
}

#[test]
fn a_worker_ends_when_its_keeper_is_killed() {
    let place = Place::new();
    let mut keeper: Running = place.start(&["serve", "--config", &config(&place)]);
    let mut lines = lines_of(keeper.stderr());
    worker(&mut lines);
    keeper.signal(Signal::KILL);
    drop(keeper);
    // Its standard error is the keeper's: that it ends is the end of the lines.
    assert!(lines.all(|line| line.is_ok()));
    // The socket that it left is replaced.
    assert!(place.file("broker").exists());
    let mut again = place.start(&["serve", "--config", &config(&place)]);
    worker(&mut lines_of(again.stderr()));
    Topic::<u64>::connect(place.file("broker"), "t").unwrap();
}

#[test]
fn check_says_what_is_wrong_with_a_file_and_serves_nothing() {
    let place = Place::new();
    place.run(&["serve", "--check", &config(&place)]).ok();
    assert!(!place.file("broker").exists());
    place.run(&["serve", "--check", "/nowhere"]).failed(1, &["/nowhere", "No such file"]);
    let uid = rustix::process::geteuid().as_raw();
    let allowed = rule("subscribe = true");
    for (rules, words) in [
        ("[[rule]]\ntopics = [\"*\"]\n", "rule 1 is about nobody"),
        (&format!("[[rule]]\nuids = [{uid}]\ntopics = [\"tt\"]\n"), "\"tt\", and no topic"),
        (&format!("[[rule]]\nuids = [{uid}]\ntopics = []\n"), "about no topic"),
        (&format!("{allowed}{allowed}"), "rule 2 is never reached"),
        (&rule("reliable = true"), "lets nobody subscribe"),
        ("[[rule]]\nuid = [1]\ntopics = [\"*\"]\n", "unknown field"),
        ("[[topic]]\nname = \"t\"\n", "topic t is in it twice"),
        ("[[topic]]\nname = \"-/\"\n", "is not a topic name"),
        ("[[topic]]\nname = \"u\"\ndepth = 7\n", "power of two"),
        ("[[topic]]\nname = \"u\"\nsubscribers_max = 65\n", "subscribers_max is 65"),
        ("[[topic]]\nname = \"u\"\nschema = \"none\"\n", "none: No such file"),
    ] {
        let file = config_of(&place, rules);
        place.run(&["serve", "--check", &file]).failed(2, &["guarded.toml", words]);
        place.run(&["serve", "--config", &file]).failed(2, &["guarded.toml", words]);
    }
}

/// A bug: the keeper started workers from the path of its program. When that was replaced, by an upgrade, it could start none, ended itself, and removed all
/// topics.
#[test]
fn a_program_that_is_replaced_serves_on() {
    let place = Place::new();
    let (program, new) = (place.file("shmbus"), place.file("new"));
    for copy in [&program, &new] {
        std::fs::copy(env!("CARGO_BIN_EXE_shmbus"), copy).unwrap();
    }
    let mut command = std::process::Command::new(&program);
    command.args(["serve", "--config", &config(&place)]).stderr(std::process::Stdio::piped());
    let mut keeper = command.spawn().unwrap();
    let mut lines = lines_of(keeper.stderr.take().unwrap());
    let mut pid = worker(&mut lines);
    let topic = Topic::<u64>::connect(place.file("broker"), "t").unwrap();
    std::fs::rename(&new, &program).unwrap();
    for _ in 0..2 {
        signal(pid, Signal::TERM);
        pid = worker(&mut lines);
        topic.subscriber(Delivery::Reliable).unwrap();
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "shmbus\n");
        // Not the new one either, which may speak another language: that is what a restart is for. And then no program at all.
        let _ = std::fs::remove_file(&program);
    }
    signal(keeper.id(), Signal::TERM);
    assert_eq!(keeper.wait().unwrap().code(), Some(130));
}

/// A bug: whatever kept the keeper from starting a worker, if only for a moment, ended it and removed all topics.
#[test]
fn a_worker_that_cannot_be_started_is_started_later() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let place = Place::new();
    let mut keeper: Running = place.start(&["serve", "--config", &config(&place)]);
    let mut lines = lines_of(keeper.stderr());
    let pid = worker(&mut lines);
    let topic = Topic::<u64>::connect(place.file("broker"), "t").unwrap();
    let its = Pid::from_raw(keeper.pid() as i32);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let before = prlimit(its, Resource::Nofile, Rlimit { current: Some(1), maximum }).unwrap();
    signal(pid, Signal::KILL);
    says(&mut lines, "cannot start a worker, and try again: Too many open files");
    prlimit(its, Resource::Nofile, before).unwrap();
    worker(&mut lines);
    topic.subscriber(Delivery::Reliable).unwrap();
}

/// A bug: a worker that had stopped answering, without ending, was kept for ever.
#[test]
fn a_worker_that_says_nothing_is_replaced() {
    let place = Place::new();
    let mut keeper: Running = place.start(&["serve", "--config", &config(&place)]);
    let mut lines = lines_of(keeper.stderr());
    let pid = worker(&mut lines);
    let topic = Topic::<u64>::connect(place.file("broker"), "t").unwrap();
    signal(pid, Signal::STOP);
    says(&mut lines, "has said nothing for 10 s");
    assert_ne!(worker(&mut lines), pid);
    topic.subscriber(Delivery::Reliable).unwrap();
    // The keeper itself may stand still for as long as it likes: that is no silence of the worker.
    keeper.stop();
    keeper.signal(Signal::CONT);
    keeper.signal(Signal::TERM);
    assert_eq!(lines.map(Result::unwrap).find(|line| line.contains("nothing")), None);
}

/// A bug: the worker that was started after a typo in the file ended at once, as did all after it, and the hang-up that would read the file ended the service.
#[test]
fn a_hang_up_reads_the_rules_again_and_a_file_that_is_wrong_leaves_those_of_before() {
    let place = Place::new();
    let mut keeper: Running = place.start(&["serve", "--config", &config(&place)]);
    let mut lines = lines_of(keeper.stderr());
    let pid = worker(&mut lines);
    let socket = place.file("broker");
    let topic = Topic::<u64>::connect(&socket, "t").unwrap();
    let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
    for wrong in ["[[rule]", "[[rule]]\nuids = [1]\ntopics = [\"tt\"]\n"] {
        config_of(&place, wrong);
        keeper.signal(Signal::HUP);
        says(&mut lines, "the rules of before stay");
        topic.subscriber(Delivery::Reliable).unwrap();
    }
    // Also for a worker that is started now.
    signal(pid, Signal::KILL);
    let pid = worker(&mut lines);
    topic.subscriber(Delivery::Reliable).unwrap();
    config_of(&place, &rule("subscribe = true\npublish = true"));
    keeper.signal(Signal::HUP);
    says(&mut lines, "the rules were read again");
    let refused = topic.subscriber(Delivery::Reliable).err();
    assert!(matches!(refused, Some(shmbus::AttachError::Open(OpenError::Refused { .. }))));
    topic.subscriber(Delivery::Lossy).unwrap();
    config_of(&place, &format!("[[topic]]\nname = \"u\"\n{}", rule("publish = true")));
    keeper.signal(Signal::HUP);
    says(&mut lines, "topics stay as they are");
    says(&mut lines, "the rules were read again");
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the same worker all the time");
    // Who has joined stays.
    topic.publisher().unwrap().publish(&7).unwrap();
    assert_eq!(*reliable.receive().unwrap(), 7);
    keeper.signal(Signal::TERM);
    assert_eq!(keeper.finish().code(), 130);
}

/// A bug: 15 topics of 64 subscribers were "served" under 1,024 descriptors, and no publisher could ever join.
#[test]
fn descriptors_are_counted_at_the_start_and_the_limit_is_raised_or_it_is_said() {
    let place = Place::new();
    let topics: String = (0..15)
        .map(|number| {
            format!("[[topic]]\nname = \"t{number}\"\nsubscribers_max = 64\ndepth = 64\n")
        })
        .collect();
    let all = rule("publish = true\nsubscribe = true");
    let file = config_of(&place, &format!("{topics}{all}"));
    let under = |limit: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("ulimit {limit} && exec \"$@\""), "sh"]);
        shell.args([env!("CARGO_BIN_EXE_shmbus"), "serve", "--config", &file]);
        shell.stderr(std::process::Stdio::piped());
        shell
    };
    let refused = under("-n 1024").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for words in
        ["16 topics need 1024 descriptors", "1 rule 168 more", "1192 in all", "limit is 1024"]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    if shmbus_sys::process::descriptor_limits().1 < 1_192 {
        return;
    }
    let mut keeper = under("-Sn 256").spawn().unwrap();
    let mut lines = lines_of(keeper.stderr.take().unwrap());
    worker(&mut lines);
    for number in 0..15 {
        let topic = Topic::<[u8]>::connect(place.file("broker"), &format!("t{number}")).unwrap();
        topic.publisher().expect("a publisher joins").publish(b"x").unwrap();
    }
    signal(keeper.id(), Signal::TERM);
    assert_eq!(keeper.wait().unwrap().code(), Some(130));
}
