//! `doctor` and `gc`: what is wrong is found, what is left over is given back, and what lives is left alone.

mod program;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use program::{Done, Place, Running};
use rustix::process::Signal;
use serde_json::Value;
use shmbus::{Topic, TopicOptions};

fn published(place: &Place, topic: &str) {
    place.run_with(b"a\n", &["pub", topic, "--depth", "8"]).ok();
}

fn echoing(place: &Place, topic: &str) -> Running {
    let echo = place.start(&["echo", topic, "--reliable"]);
    place.wait_until(topic, |info| info.participants.iter().any(|one| one.liveness.is_alive()));
    echo
}

fn killed(mut running: Running) {
    running.signal(Signal::KILL);
    drop(running);
}

/// What a killed creator leaves.
fn draft(place: &Place, topic: &str) -> String {
    let path = place.topics_path().join(topic).join(".new-0123456789abcdef");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("ctl"), b"12345").unwrap();
    path.to_str().unwrap().to_owned()
}

fn objects(done: &Done) -> Vec<Value> {
    done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The findings of doctor about `check`.
fn findings(done: &Done, check: &str) -> Vec<Value> {
    objects(done).into_iter().filter(|one| one["check"] == check).collect()
}

#[test]
fn doctor_finds_nothing_wrong_where_everything_works() {
    let place = Place::new();
    published(&place, "t");
    let _echo = echoing(&place, "t");
    let done = place.run(&["doctor", "--json"]).ok();
    for check in ["directory", "file system", "OFD locks", "futex_waitv", "topics"] {
        let found = findings(&done, check);
        assert!(found.len() == 1 && found[0]["level"] == "ok", "{check}: {found:?}");
    }
    for check in [
        "kernel",
        "membarrier",
        "io_uring",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_CORE",
        "clock",
    ] {
        assert_eq!(findings(&done, check).len(), 1, "{check}");
    }
    let system = &findings(&done, "file system")[0]["facts"];
    assert!(system["size"].as_u64().unwrap() >= system["available"].as_u64().unwrap());
    assert_eq!(findings(&done, "topics")[0]["facts"]["readable"], 1);
    let of_topics = ["dead", "unused", "left over", "topic"];
    assert!(of_topics.iter().all(|check| findings(&done, check).is_empty()), "{done:?}");
    assert_eq!(fs::read_dir(place.topics_path()).unwrap().count(), 1, "it leaves nothing");
    let done = place.run(&["doctor"]).ok();
    assert!(done.text().lines().all(|line| line.len() > 10) && done.stderr.is_empty());
}

#[test]
fn list_shows_all_publishers() {
    let place = Place::new();
    place.run(&["pub", "t", "--shared", "3", "--message", "a"]).ok();
    let mut publishers: Vec<Running> = (0..3).map(|_| place.start(&["pub", "t"])).collect();
    place.wait_until("t", |info| info.participants.len() == 3);
    let mut pids: Vec<u32> = publishers.iter_mut().map(Running::pid).collect();
    let listed = &objects(&place.run(&["list", "--json"]).ok())[0];
    let mut shown: Vec<u32> = serde_json::from_value(listed["publisher_pids"].clone()).unwrap();
    assert_eq!(listed["publisher_pid"], shown[0]);
    let text: Vec<String> = shown.iter().map(u32::to_string).collect();
    let list = place.run(&["list"]).ok();
    assert!(list.text().contains(&format!(" {} ", text.join(","))), "{}", list.text());
    pids.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, pids);
}

#[test]
fn doctor_names_the_dead_the_unused_and_what_is_left_over_with_what_to_do() {
    let place = Place::new();
    published(&place, "t");
    let mut echo = echoing(&place, "t");
    let pid = echo.pid();
    killed(echo);
    let draft = draft(&place, "u");
    let done = place.run(&["doctor", "--json"]).ok();
    let [dead] = &findings(&done, "dead")[..] else { panic!("{done:?}") };
    assert_eq!((&dead["level"], &dead["facts"]["pid"]), (&"note".into(), &pid.into()));
    assert_eq!(dead["facts"]["topic"], "t");
    assert_eq!(findings(&done, "unused")[0]["facts"]["topic"], "t");
    assert_eq!(findings(&done, "left over")[0]["facts"]["path"], draft);
    let done = place.run(&["doctor"]).ok();
    for words in [&pid.to_string()[..], "shmbus gc --yes", "shmbus rm t", &draft] {
        assert!(done.text().contains(words), "{words} is not in {}", done.text());
    }
}

#[test]
fn doctor_says_why_a_topic_cannot_be_opened_and_fails() {
    let place = Place::new();
    published(&place, "damaged");
    published(&place, "whole");
    fs::write(place.topics_path().join("damaged/.topic/data"), [0; 8192]).unwrap();
    let done = place.run(&["doctor", "--json"]).failed(1, &["there is a problem"]);
    let [damaged] = &findings(&done, "topic")[..] else { panic!("{done:?}") };
    assert_eq!(
        (&damaged["level"], &damaged["facts"]["topic"]),
        (&"problem".into(), &"damaged".into())
    );
    assert!(damaged["finding"].as_str().unwrap().contains("not a file of shmbus"));
    assert_eq!(damaged["advice"], "it cannot be repaired: shmbus rm --force damaged");
}

#[test]
fn doctor_advises_to_remove_nothing_that_it_could_not_read_or_in_which_somebody_lives() {
    let place = Place::new();
    published(&place, "t");
    let mut passing = 0;
    // One descriptor more each time: each thing that is opened is refused once.
    for descriptors in 4..12 {
        let done = place.run_after(&format!("ulimit -n {descriptors}"), &["doctor"]);
        assert!(!done.text().contains("rm --force"), "{descriptors}: {}", done.text());
        let named = done.text().contains("topic t: cannot") && done.text().contains("ulimit -n");
        passing += usize::from(named);
        let done = place.run_after(&format!("ulimit -n {descriptors}"), &["rm", "--force", "t"]);
        if done.code() == 0 {
            published(&place, "t");
        }
    }
    assert!(passing > 0, "no number of descriptors was too few for the topic alone");
    let publisher = place.start(&["pub", "t"]);
    place.wait_until("t", |info| info.participants.iter().any(|one| one.liveness.is_alive()));
    let data = fs::File::options().write(true).open(place.topics_path().join("t/.topic/data"));
    data.unwrap().write_all_at(&[0; 64], 0).unwrap();
    let advice = || findings(&place.run(&["doctor", "--json"]), "topic")[0]["advice"].clone();
    assert!(advice().as_str().unwrap().starts_with("a living process takes part"), "{}", advice());
    killed(publisher);
    assert_eq!(advice(), "it cannot be repaired: shmbus rm --force t");
}

#[test]
fn a_topic_is_not_removed_behind_the_back_of_who_uses_it_for_want_of_descriptors() {
    let place = Place::new();
    // One more each time: the removal ends at each step once.
    for descriptors in 4..20 {
        published(&place, "t");
        let mut echo = echoing(&place, "t");
        place.run_after(&format!("ulimit -n {descriptors}"), &["rm", "--force", "t"]);
        // What it left still tells who takes part.
        place.run(&["gc", "--yes"]).ok();
        if place.directory().topics().unwrap().contains(&"t".to_owned()) {
            place.run(&["rm", "--force", "t"]).ok();
        }
        assert!(echo.ends_within(Duration::from_secs(20)), "{descriptors}: it was not told");
        echo.finish().ok();
    }
}

#[test]
fn reading_verbs_make_no_directory_and_errors_name_it() {
    let place = Place::new();
    let said = format!("(in {}: SHMBUS_DIR)", place.topics_path().display());
    for reading in ["list", "gc", "status", "metrics --once", "stat --interval 0", "doctor"] {
        place.run(&reading.split(' ').collect::<Vec<_>>()).ok();
        assert!(!place.topics_path().exists(), "{reading}");
    }
    for reading in ["info", "schema", "hz", "bw", "delay", "echo", "echo --reliable", "rm", "stat"]
    {
        let arguments: Vec<&str> = reading.split(' ').chain(["nothing"]).collect();
        place.run(&arguments).failed(1, &["no topic nothing", &said]);
        assert!(!place.topics_path().exists(), "{reading}");
    }
    let dir = place.file("elsewhere");
    let dir = dir.to_str().unwrap();
    place.run(&["info", "--dir", dir, "t"]).failed(1, &[&format!("(in {dir}: --dir)")]);
    let below = format!("{dir}/topics");
    place.run(&["list", "--dir", &below]).failed(1, &[&below, "cannot open it", "--dir"]);
    let done = place.run(&["doctor", "--json", "--dir", &below]).failed(1, &["there is a problem"]);
    let [directory] = &findings(&done, "directory")[..] else { panic!("{done:?}") };
    assert_eq!(directory["level"], "problem");
    assert!(directory["finding"].as_str().unwrap().contains("no directory to make it in"));
}

#[test]
fn topics_of_another_user_can_be_seen_and_what_cannot_be_read_is_named() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can become two other users");
    }
    let place = Place::new();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(place.file("x").parent().unwrap());
    fs::create_dir(place.topics_path()).unwrap();
    open(&place.topics_path());
    for (topic, mode) in [("seen", 0o644), ("secret", 0o600)] {
        let options = TopicOptions { mode, max_len: 64, ..Default::default() };
        let topic = Topic::<[u8]>::create_in(&place.directory(), topic, &options).unwrap();
        topic.publisher().unwrap().publish(b"hello").unwrap();
    }
    std::os::unix::fs::chown(place.topics_path(), Some(12001), Some(12001)).unwrap();
    let as_uid = |uid, line: &str| {
        let mut command = place.command(&line.split(' ').collect::<Vec<_>>());
        command.uid(uid).gid(uid);
        Running::of(command.spawn().unwrap()).finish()
    };
    if as_uid(12002, "man").code() != 0 {
        return eprintln!("skipped: another user cannot run this program where it lies");
    }
    for line in ["info seen", "hz seen --count 1 --interval 0.1", "stat seen --interval 0"] {
        as_uid(12002, line).ok();
        as_uid(0, line).ok();
    }
    assert_eq!(as_uid(12002, "echo seen --from oldest --drain -q").ok().text(), "hello\n");
    let secret = "topic secret: permission denied";
    for line in ["list", "stat --interval 0", "gc"] {
        as_uid(12002, line).failed(1, &[secret, "SHMBUS_DIR"]);
        as_uid(0, line).ok();
    }
    assert!(as_uid(12002, "metrics --once").ok().text().contains("shmbus_topics_unreadable 1\n"));
    let done = as_uid(12002, "doctor");
    assert!(done.text().contains(secret) && done.text().contains("another user's"), "{done:?}");
    for uid in [0, 12002] {
        let refused = ["belongs to uid 12001", "SHMBUS_DIR"];
        as_uid(uid, "pub seen --message x").failed(1, &refused);
        as_uid(uid, "echo seen --reliable").failed(1, &refused);
        as_uid(uid, "rm seen --force").failed(1, &refused);
    }
}

#[test]
fn doctor_says_which_directory_why_and_what_is_wrong_with_it() {
    let place = Place::new();
    let directory = |done: &Done| findings(done, "directory")[0].clone();
    let done = place.run(&["doctor", "--json"]).ok();
    assert_eq!(directory(&done)["level"], "note");
    let said = directory(&done)["finding"].as_str().unwrap().to_owned();
    assert!(said.contains("(SHMBUS_DIR)") && said.contains("missing"), "{said}");
    published(&place, "t");
    fs::set_permissions(place.topics_path(), fs::Permissions::from_mode(0o777)).unwrap();
    let done = place.run(&["doctor", "--json"]).failed(1, &["problem"]);
    assert_eq!(
        (&directory(&done)["level"], &directory(&done)["facts"]["mode"]),
        (&"problem".into(), &"777".into())
    );
    let done = place.run(&["doctor", "--json", "--dir", "/proc"]).failed(1, &["problem"]);
    assert!(directory(&done)["finding"].as_str().unwrap().contains("(--dir)"));
    assert_eq!(findings(&done, "file system")[0]["facts"]["tmpfs"], false);
}

#[test]
fn gc_lists_and_changes_nothing_until_it_is_told_to() {
    let place = Place::new();
    published(&place, "t");
    killed(echoing(&place, "t"));
    let draft = draft(&place, "u");
    for _ in 0..2 {
        let done = place.run(&["gc"]).ok();
        assert_eq!(
            done.text(),
            format!(
                "{draft}: its creator was killed (5 B)\ntopic t: 1 of its participants are dead\n"
            )
        );
        assert_eq!(done.stderr, "shmbus: nothing was changed: with --yes this is given back\n");
    }
    let done = place.run(&["gc", "--yes"]).ok();
    let lines: Vec<&str> = done.text().lines().collect();
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.starts_with("given back: ")),
        "{lines:?}"
    );
    assert!(!place.topics_path().join("u").exists());
    assert_eq!(place.directory().inspect("t").unwrap().participants.len(), 0);
    let done = place.run(&["gc", "--yes"]).ok();
    assert_eq!((done.text(), &done.stderr[..]), ("", ""));
}

#[test]
fn gc_leaves_alone_what_lives() {
    let place = Place::new();
    published(&place, "t");
    published(&place, "unused");
    let mut alive = echoing(&place, "t");
    alive.stop(); // stopped is not dead
    let dead = place.start(&["echo", "t", "--lossy"]);
    place.wait_until("t", |info| info.participants.len() == 2);
    killed(dead);
    place.run(&["gc", "--unused", "--yes"]).ok();
    assert_eq!(place.directory().topics().unwrap(), ["t"]);
    let [one] = &place.directory().inspect("t").unwrap().participants[..] else { panic!("one") };
    assert_eq!((one.pid, one.liveness.is_alive()), (alive.pid(), true));
    alive.signal(Signal::CONT);
    place.run_with(b"x\n", &["pub", "t", "--remove"]).ok();
    assert_eq!(alive.finish().ok().text(), "x\n");
}

#[test]
fn gc_removes_topics_without_participants_only_if_asked_and_old_enough() {
    let place = Place::new();
    published(&place, "t");
    assert_eq!(place.run(&["gc", "--yes"]).ok().text(), "");
    assert_eq!(place.run(&["gc", "--unused", "--older", "1h", "--yes"]).ok().text(), "");
    place.run(&["gc", "--older", "1h"]).failed(2, &["--unused"]);
    place.run(&["gc", "--unused", "--older", "1"]).failed(2, &["7d"]);
    let done = place.run(&["gc", "--unused", "--json"]).ok();
    let [item] = &objects(&done)[..] else { panic!("{done:?}") };
    assert_eq!(
        (&item["kind"], &item["name"], &item["done"]),
        (&"unused_topic".into(), &"t".into(), &false.into())
    );
    let memory = place.directory().inspect("t").unwrap().memory.total();
    assert_eq!(item["bytes"], memory);
    let done = place.run(&["gc", "--unused", "--older", "0s", "--yes", "--json"]).ok();
    assert_eq!(objects(&done)[0]["done"], true);
    assert!(fs::read_dir(place.topics_path()).unwrap().next().is_none());
}

#[test]
fn gc_frees_the_place_of_a_dead_publisher_and_the_topic_goes_on() {
    let place = Place::new();
    let topic = Topic::<[u8]>::create_in(
        &place.directory(),
        "t",
        &TopicOptions { max_len: 64, ..Default::default() },
    );
    let mut subscriber = topic.unwrap().subscriber(shmbus::Delivery::Reliable).unwrap();
    let mut publisher = place.start(&["pub", "t", "--max-len", "64"]);
    let mut input = publisher.stdin();
    std::io::Write::write_all(&mut input, b"first\n").unwrap();
    assert_eq!(&*subscriber.receive().unwrap(), b"first");
    killed(publisher);
    let done = place.run(&["gc", "--yes"]).ok();
    assert_eq!(done.text(), "given back: topic t: 1 of its participants are dead\n");
    place.run_with(b"second\n", &["pub", "t"]).ok();
    assert_eq!(&*subscriber.receive().unwrap(), b"second");
}

#[test]
fn gc_says_what_it_cannot_look_at_and_does_the_rest() {
    let place = Place::new();
    published(&place, "damaged");
    fs::write(place.topics_path().join("damaged/.topic/data"), [0; 8192]).unwrap();
    draft(&place, "u");
    let done = place.run(&["gc", "--unused", "--yes"]).failed(1, &["damaged", "one thing"]);
    assert_eq!(done.text().lines().count(), 1);
    assert!(place.topics_path().join("damaged/.topic/data").exists());
    assert!(!place.topics_path().join("u").exists());
}

/// The files of a topic are deleted by something else: one of them, or all.
#[test]
fn a_damaged_topic_is_shown_by_every_command_and_replaced_by_the_next_pub() {
    for gone in [&["data"][..], &["ctl"], &["live"], &["data", "ctl", "live"]] {
        let place = Place::new();
        place.run(&["pub", "t", "-q", "--message", "1"]).ok();
        for file in gone {
            fs::remove_file(place.directory().path().join("t/.topic").join(file)).unwrap();
        }
        let damaged = format!("topic t is damaged: its file {} is missing", gone[0]);
        let damaged = damaged.as_str();
        for command in [&["list"][..], &["gc"], &["info", "t"], &["rm", "t"], &["echo", "t"]] {
            place.run(command).failed(1, &[damaged]);
        }
        let done = place.run(&["doctor"]);
        let said = done.text();
        assert!(
            said.lines().any(|line| line.starts_with("problem") && line.contains(damaged)),
            "{said}"
        );
        let done = place.run(&["metrics", "--once"]).ok();
        assert!(done.text().contains("shmbus_topics_unreadable 1"), "{}", done.text());
        place.run(&["pub", "t", "-q", "--message", "2"]).ok();
        assert_eq!(
            place.run(&["echo", "t", "--from", "oldest", "--count", "1"]).ok().text(),
            "2\n"
        );
        fs::remove_file(place.directory().path().join("t/.topic").join(gone[0])).unwrap();
        place.run(&["rm", "--force", "t"]).ok();
        assert!(fs::read_dir(place.topics_path()).unwrap().next().is_none());
    }
}
