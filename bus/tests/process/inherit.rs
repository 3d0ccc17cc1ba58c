//! What a child is given.
#![allow(unsafe_code)] // ignores a signal

use std::sync::atomic::Ordering::SeqCst;

use rustix::process::Signal;
use shmbus::process::CommandExt;
use shmbus::{Delivery, Start, Topic, TopicOptions};

use crate::Plan;
use crate::processes::Stage;
use crate::tree::{Tree, Watched, root, spec, supervisor};
use crate::workers::{PID, TOPIC, command, file};

fn topic(stage: &Stage, name: &str) -> Topic<u64> {
    Topic::create_in(&stage.directory, name, &TopicOptions::default()).unwrap()
}

fn facts(stage: &Stage, n: usize) -> String {
    std::fs::read_to_string(file(&root(stage), n)).unwrap()
}

pub(crate) fn a_child_has_the_topics_that_it_was_given_and_no_other_descriptor(_: &Plan) {
    let stage = Stage::new();
    let (given, other) = (topic(&stage, TOPIC), topic(&stage, "other"));
    let _handles = (given.publisher().unwrap(), other.subscriber(Delivery::Lossy).unwrap());
    let mut first = command(&root(&stage), "facts", 0);
    assert!(first.topic(&given).unwrap().topic(&other).unwrap().status().unwrap().success());
    let mut second = spec(&stage, "facts", 1);
    second.topic(&given).restart = shmbus::process::Restart::Never;
    let mut children = vec![second];
    children.push(spec(&stage, "idle", 2)); // another one, with descriptors of its own
    let tree = Tree::of(supervisor(children));
    Tree::until_ready(&stage, 1, 1);
    Tree::until_ready(&stage, 2, 1);
    tree.stop();
    let fds = |n| -> Vec<String> {
        let facts = facts(&stage, n);
        let mut fds: Vec<String> = facts
            .lines()
            .filter_map(|line| line.strip_prefix("fd "))
            .filter_map(|line| {
                let (number, target) = line.split_once(' ').unwrap();
                let target = if target.starts_with("pipe:") { "pipe" } else { target };
                (number.parse::<u32>().unwrap() > 2).then(|| target.to_owned())
            })
            .collect();
        fds.sort();
        fds
    };
    // What this process itself has inherited from whoever runs the tests is passed on.
    assert!(command(&root(&stage), "facts", 3).status().unwrap().success());
    let others = fds(3);
    let fds = |n| {
        let mut fds = fds(n);
        for other in &others {
            fds.remove(fds.iter().position(|fd| fd == other).unwrap());
        }
        fds
    };
    let path = |name: &str| stage.directory.path().join(name).join(".topic").display().to_string();
    assert_eq!(fds(0), [path("other"), path(TOPIC)]);
    assert_eq!(fds(1), [path(TOPIC), "pipe".to_owned()]);
}

pub(crate) fn a_child_takes_part_without_knowing_a_path_and_its_lease_is_its_own(_: &Plan) {
    let stage = Stage::new();
    let given = topic(&stage, TOPIC);
    let mut child = command(&root(&stage), "publish", 0);
    child.env_remove("SHMBUS_DIR");
    let mut child = child.topic(&given).unwrap().spawn().unwrap();
    Tree::until_ready(&stage, 0, 1);
    let mut subscriber = given.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 42);
    drop((subscriber, given)); // the parent's descriptors are no part of what the child holds
    let alive = || {
        stage
            .directory
            .inspect(TOPIC)
            .unwrap()
            .participants
            .iter()
            .filter(|p| p.liveness.is_alive())
            .count()
    };
    assert_eq!(alive(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(alive(), 0);
}

pub(crate) fn a_grandchild_with_the_environment_alone_is_told_that_it_was_given_nothing(_: &Plan) {
    let stage = Stage::new();
    let given = topic(&stage, TOPIC);
    let mut child = command(&root(&stage), "errors-of-a-child", 0);
    assert!(child.topic(&given).unwrap().status().unwrap().success());
    let said = facts(&stage, 1);
    let first = said.lines().next().unwrap();
    assert!(first.starts_with("Err(Gone") || first.starts_with("Err(Foreign"), "{said}");
}

pub(crate) fn what_was_not_given_is_removed_or_of_another_type_is_a_typed_error(_: &Plan) {
    let stage = Stage::new();
    let (given, removed) = (topic(&stage, TOPIC), topic(&stage, "removed"));
    stage.directory.remove("removed", false).unwrap();
    let mut child = command(&root(&stage), "errors", 0);
    assert!(child.topic(&given).unwrap().topic(&removed).unwrap().status().unwrap().success());
    let said = facts(&stage, 0);
    let expected = ["Ok", "Err(NotGiven", "Err(Name", "Err(Open(Retired", "Err(Open(Type"];
    assert_eq!(said.lines().count(), expected.len());
    for (line, begin) in said.lines().zip(expected) {
        assert!(line.starts_with(begin), "{begin} was expected: {line}");
    }
    // An environment that nobody of ours wrote.
    for (value, error) in
        [("x", "Malformed"), ("process/t=9999.1.2", "Gone"), ("process/t=0.1.2", "Foreign")]
    {
        let status = command(&root(&stage), "errors", 1).env("SHMBUS_TOPICS", value).status();
        assert!(status.unwrap().success());
        assert!(
            facts(&stage, 1).starts_with(&format!("Err({error}")),
            "{value}: {}",
            facts(&stage, 1)
        );
    }
}

pub(crate) fn a_child_begins_without_blocked_or_ignored_signals_in_a_group_of_its_own(_: &Plan) {
    let stage = Stage::new();
    let mut child = spec(&stage, "facts", 0);
    child.restart = shmbus::process::Restart::Never;
    let supervisor = supervisor(vec![child]);
    // SAFETY: a number and a constant. The disposition is given back below.
    let before = unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    let told = std::thread::spawn(move || {
        let blocked =
            shmbus_sys::signal::Signals::take(&[Signal::USR1, Signal::TERM, Signal::CHILD])
                .unwrap();
        let outcome = supervisor.run().unwrap();
        drop(blocked);
        outcome
    });
    let report = told.join().unwrap();
    // SAFETY: as above, and what was there before.
    unsafe { libc::signal(libc::SIGUSR2, before) };
    assert!(report.children[0].last_end.unwrap().is_success(), "{report:?}");
    let facts = facts(&stage, 0);
    let value = |key: &str| {
        let line = facts.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(u64::from_str_radix(&value("SigBlk:"), 16), Ok(0));
    // The Rust runtime of the child ignores SIGPIPE (13) before its main.
    assert_eq!(u64::from_str_radix(&value("SigIgn:"), 16).unwrap() & !(1 << 12), 0);
    assert_eq!(value("group"), "true");
    assert_eq!(value("death"), "Some(9)");
    assert_ne!(stage.board.word(PID).load(SeqCst), 0);
    assert!(Watched::worker(&stage, 0).is_gone());
}
