//! What each command answers: results on standard output, diagnostics on standard error, and exit codes that scripts can rely on.

mod program;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use program::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;
use shmbus::TopicInfo;

fn has_subscriber(info: &TopicInfo) -> bool {
    !info.participants.is_empty()
}

/// Publishes `lines`, which stay.
fn published(place: &Place, topic: &str, lines: &str) {
    place.run_with(lines.as_bytes(), &["pub", topic]).ok();
}

/// An echo of an existing topic that takes part: a lossy subscriber unless `options` say --reliable.
fn echoing(place: &Place, options: &[&str]) -> Running {
    let reader = if options.contains(&"--reliable") { &[][..] } else { &["--lossy"] };
    let echo = place.start(&[&["echo", "t"], reader, options].concat());
    place.wait_until("t", has_subscriber);
    echo
}

#[test]
fn what_was_published_stays_and_can_be_read_from_anywhere_in_it() {
    let place = Place::new();
    published(&place, "t", "a\nb\nc\nd");
    let echo = |options: &[&str]| {
        let done = place.run(&[&["echo", "t", "--drain", "--from"], options].concat()).ok();
        done.text().to_owned()
    };
    assert_eq!(echo(&["oldest"]), "a\nb\nc\nd\n");
    assert_eq!(echo(&["oldest", "--raw", "--reliable"]), "abcd");
    assert_eq!(echo(&["oldest", "--count", "3"]), "a\nb\nc\n");
    assert_eq!(echo(&["2-back"]), "c\nd\n");
    assert_eq!(echo(&["9-back"]), "a\nb\nc\nd\n");
    assert_eq!(echo(&["newest"]), "");
    published(&place, "t", "e");
    assert_eq!(echo(&["oldest"]), "a\nb\nc\nd\ne\n");
}

#[test]
fn results_are_on_standard_output_and_diagnostics_on_standard_error() {
    let place = Place::new();
    let done = place.run_with(b"a\nbc\n", &["pub", "t"]).ok();
    assert_eq!(done.text(), "");
    assert!(done.stderr.starts_with("shmbus: published 2, 3 B in "), "{}", done.stderr);
    let done = place.run(&["echo", "t", "--from", "oldest", "--count", "1"]).ok();
    assert_eq!(done.text(), "a\n");
    assert_eq!(done.stderr, "shmbus: received 1, missed 0\n");
    let quiet = place.run(&["echo", "t", "--from", "oldest", "--count", "1", "--quiet"]).ok();
    assert_eq!((quiet.text(), &quiet.stderr[..]), ("a\n", ""));
    assert_eq!(place.run_with(b"a\n", &["pub", "t", "-q"]).ok().stderr, "");
}

#[test]
fn wrong_usage_is_status_2() {
    let place = Place::new();
    for arguments in [
        &["pub"][..],
        &["pub", "t", "--chunk", "0"],
        &["pub", "t", "--chunk", "1", "--frames"],
        &["pub", "t", "--rate", "0"],
        &["echo", "t", "--from", "10"],
        &["echo", "t", "--from", "-1-back"],
        &["echo", "t", "--count", "0"],
        &["echo", "t", "--raw", "--frames"],
        &["echo", "t", "--lossy", "--reliable"],
        &["echo", "t", "--filter", "qty = 3"],
        &["echo", "t", "--fields", "legs["],
        &["echo", "t", "--fields", "id", "--hex"],
        &["pub", "t", "--csv", "--frames"],
        &["pub", "t", "--message", "a", "file"],
        &["schema", "t", "--json", "--ros2"],
        &["rm"],
        &["remove", "t"],
    ] {
        place.run(arguments).failed(2, &["error: ", "--help"]);
    }
}

#[test]
fn a_topic_that_is_missing_is_named_with_status_1() {
    let place = Place::new();
    place.run(&["echo", "no/such"]).failed(1, &["no/such", "--wait"]);
    place.run(&["info", "no/such"]).failed(1, &["no/such"]);
    place.run(&["schema", "no/such"]).failed(1, &["no/such"]);
    place.run(&["rm", "no/such"]).failed(1, &["no/such"]);
    place.run(&["rm", "no/such", "--force"]).failed(1, &["no/such"]);
}

#[test]
fn a_name_that_is_none_is_refused_with_the_reason() {
    let place = Place::new();
    for command in ["pub", "echo", "info", "rm"] {
        place.run(&[command, "a//b"]).failed(1, &["\"a//b\" is not a topic name", "empty"]);
        place.run(&[command, "../b"]).failed(1, &["\"../b\" is not a topic name", "dot"]);
    }
    assert_eq!(place.directory().topics().unwrap(), [""; 0]);
}

#[test]
fn input_that_cannot_be_read_is_named() {
    let place = Place::new();
    place.run(&["pub", "t", "/no/such/file"]).failed(1, &["/no/such/file", "No such file"]);
    place.run(&["pub", "t", "/"]).failed(1, &["cannot read /", "directory"]);
}

#[test]
fn a_line_that_is_too_long_is_an_error_with_its_number_and_nothing_is_cut() {
    let place = Place::new();
    let input = b"12345\n123456\n1\n";
    place
        .run_with(input, &["pub", "t", "--max-len", "5"])
        .failed(1, &["line 2 has 6 bytes", "takes 5", "--max-len", "--skip-long", "published 1,"]);
    let skipping = ["pub", "t", "--skip-long", "--remove"];
    place.run_with(input, &skipping).failed(0, &["published 2, 6 B", "skipped 1"]);
}

#[test]
fn a_chunk_implies_the_size_of_a_new_topic_and_a_depth_that_fits_into_16_mib() {
    let place = Place::new();
    place.run_with(b"123456", &["pub", "t", "--chunk", "65536"]).ok();
    let info = place.directory().inspect("t").unwrap();
    assert_eq!((info.payload_size, info.head), (65_536, 1));
    assert!(info.depth >= 64 && info.memory.total() <= 16 << 20, "{info:?}");
    place.run(&["pub", "t", "--chunk", "65537"]).failed(1, &["takes 65536 bytes, not 65537"]);
}

#[test]
fn options_of_a_new_topic_must_be_those_of_one_that_exists() {
    let place = Place::new();
    let publish = ["pub", "t", "--depth", "64", "--max-len", "100", "--subscribers-max", "3"];
    place.run(&publish).ok();
    place.run(&publish).ok();
    place.run(&["pub", "t"]).ok();
    place.run(&["pub", "t", "--depth", "128"]).failed(1, &["--depth 64, not 128"]);
    place.run(&["pub", "t", "--max-len", "99"]).failed(1, &["--max-len 100, not 99"]);
    place.run(&["pub", "t", "--subscribers-max", "4"]).failed(1, &["--subscribers-max 3, not 4"]);
    place.run(&["pub", "new", "--depth", "100"]).failed(1, &["power of two"]);
    place.run(&["pub", "t", "--wait-subscribers", "4"]).failed(1, &["at most 3"]);
}

#[test]
fn mode_group_and_hold_blocks_of_a_new_topic_must_be_those_of_one_that_exists() {
    let place = Place::new();
    let own = std::fs::metadata(place.file(".")).unwrap();
    let gid = if own.uid() == 0 { 54_321 } else { own.gid() };
    let group = gid.to_string();
    let asked = ["pub", "md/t", "--mode", "660", "--group", &group, "--hold-blocks", "3"];
    place.run(&asked).ok();
    for file in ["data", "ctl", "live"] {
        let found = std::fs::metadata(place.topics_path().join("md/t/.topic").join(file)).unwrap();
        assert_eq!((found.mode() & 0o777, found.gid()), (0o660, gid), "{file}");
    }
    assert_eq!(place.directory().inspect("md/t").unwrap().hold_blocks, 3);
    place.run(&asked).ok();
    for (option, other, found) in
        [("--mode", "600", "660"), ("--group", "54322", &group), ("--hold-blocks", "4", "3")]
    {
        let words = format!("topic md/t exists, with {option} {found}, not {other}");
        place.run(&["pub", "md/t", option, other]).failed(1, &[&words]);
    }
    for (option, wrong) in [("--mode", "888"), ("--mode", "060"), ("--group", "no such group")] {
        place.run(&["pub", "x", option, wrong]).failed(2, &[option]);
    }
    place
        .run(&["pub", "x", "--group", "root", "--mode", "600", "--depth", "3"])
        .failed(1, &["depth"]);
}

#[test]
fn a_rate_is_a_schedule_that_is_never_ahead() {
    let place = Place::new();
    let lines = "x\n".repeat(11);
    let since = Instant::now();
    place.run_with(lines.as_bytes(), &["pub", "t", "--rate", "50"]).ok();
    assert!(since.elapsed() >= Duration::from_millis(200)); // ten intervals
}

#[test]
fn a_topic_has_one_publisher_at_a_time() {
    let place = Place::new();
    let mut first = place.start(&["pub", "t"]);
    place.wait_until("t", |info| !info.participants.is_empty());
    let pid = first.pid().to_string();
    // And one that is refused does not remove what it does not publish.
    place.run(&["pub", "t", "--remove"]).failed(1, &["publisher already", &pid]);
    first.finish().ok();
    place.run(&["pub", "t"]).ok();
}

#[test]
fn a_topic_in_use_is_removed_by_force_only_and_subscribers_have_the_rest_first() {
    let place = Place::new();
    published(&place, "t", "a\nb\n");
    let mut echo = echoing(&place, &["--from", "oldest"]);
    echo.stop();
    published(&place, "t", "c\nd\n");
    place.run(&["rm", "t"]).failed(1, &["topic t is in use", "--force"]);
    place.run(&["rm", "t", "--force"]).ok();
    assert_eq!(place.directory().topics().unwrap(), [""; 0]);
    echo.signal(Signal::CONT);
    assert_eq!(echo.finish().ok().text(), "a\nb\nc\nd\n");
}

#[test]
fn a_topic_whose_processes_were_killed_is_not_in_use() {
    let place = Place::new();
    published(&place, "t", "a\n");
    let mut echo = echoing(&place, &["--reliable"]);
    echo.signal(Signal::KILL);
    drop(echo);
    let info = place.run(&["info", "t"]).ok();
    assert!(info.text().contains("subscribers  0 of 16"), "{}", info.text());
    place.run(&["rm", "t"]).ok();
}

#[test]
fn several_topics_are_removed_as_far_as_possible() {
    let place = Place::new();
    published(&place, "a", "");
    published(&place, "b", "");
    place.run(&["rm", "a", "none", "b"]).failed(1, &["no topic none", "1 of 3"]);
    assert_eq!(place.directory().topics().unwrap(), [""; 0]);
}

#[test]
fn a_publisher_whose_topic_was_removed_fails_and_leaves_the_next_topic_of_that_name_alone() {
    let place = Place::new();
    let mut publisher = place.start(&["pub", "t", "--depth", "8", "--remove"]);
    let mut input = publisher.stdin();
    place.wait_until("t", |info| !info.participants.is_empty());
    place.run(&["rm", "t", "--force"]).ok();
    published(&place, "t", "of the next\n");
    input.write_all("x\n".repeat(100).as_bytes()).unwrap();
    drop(input);
    publisher.finish().failed(1, &["removed"]);
    let echo = place.run(&["echo", "t", "--from", "oldest", "--drain"]).ok();
    assert_eq!(echo.text(), "of the next\n");
}

#[test]
fn pub_and_echo_end_when_something_else_deletes_their_topic() {
    let place = Place::new();
    let mut feed = place.start(&["pub", "live"]); // its input stays open
    place.wait_until("live", |info| !info.participants.is_empty());
    let mut slow =
        place.start(&["pub", "slow", "--rate", "0.001", "--message", "1", "--message", "2"]);
    place.wait_until("slow", |info| info.head == 1);
    let mut input = feed.stdin();
    input.write_all(b"message\n").unwrap();
    let ways = ["--reliable", "--lossy", "--passive"];
    let echo = |way: &&str| place.start_into(way, &["echo", "live", "--from", "oldest", way]);
    let echoes: Vec<_> = ways.iter().map(echo).collect();
    for way in ways {
        while std::fs::read(place.file(way)).unwrap() != b"message\n" {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    for topic in ["live", "slow"] {
        std::fs::remove_dir_all(place.topics_path().join(topic)).unwrap();
    }
    for running in [&mut feed, &mut slow] {
        assert!(running.ends_within(Duration::from_secs(60)));
    }
    feed.finish().failed(1, &["removed"]);
    slow.finish().failed(1, &["removed"]);
    for echo in echoes {
        echo.finish().ok();
    }
}

#[test]
fn an_interrupted_echo_prints_what_it_has_and_its_totals() {
    let place = Place::new();
    published(&place, "t", "a\nb\n");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut echo = place.start(&["echo", "t", "--from", "oldest"]);
        let mut output = BufReader::new(echo.stdout());
        let mut printed = String::new();
        output.read_line(&mut printed).unwrap(); // it is at work, and both lines are one write
        output.read_line(&mut printed).unwrap();
        assert_eq!(printed, "a\nb\n");
        echo.signal(signal);
        let done = echo.finish().failed(130, &["received 2, missed 0"]);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    }
    place.run(&["rm", "t"]).ok(); // nobody is left in it
}

/// As `nohup` and a shell's `trap '' INT` start it.
#[test]
fn a_signal_that_is_ignored_at_the_start_stays_ignored() {
    let place = Place::new();
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
        let script = format!("trap '' {name}; exec \"$0\" \"$@\"");
        let program = env!("CARGO_BIN_EXE_shmbus");
        let mut publisher = place.start_as("sh", &["-c", &script, program, "pub", "t"]);
        let mut input = publisher.stdin();
        let mut line = |head| {
            input.write_all(b"x\n").unwrap();
            place.wait_until("t", |info| info.head == head);
        };
        line(1); // it is at work
        publisher.signal(signal);
        line(2); // a signal that it caught would have ended it within one wait
        std::thread::sleep(Duration::from_millis(300)); // three times as long as a wait
        line(3);
        publisher.signal(Signal::TERM);
        publisher.finish().failed(130, &["published 3"]);
        place.run(&["rm", "t"]).ok();
    }
}

#[test]
fn an_interrupt_ends_every_wait() {
    let place = Place::new();
    let file = place.written("lines", "x\n".repeat(10_000).as_bytes());
    published(&place, "t", "a\n");
    let interrupted = |mut running: Running| {
        running.signal(Signal::INT);
        running.finish().failed(130, &[])
    };
    // For input.
    let mut publisher = place.start(&["pub", "t"]);
    let input = publisher.stdin();
    place.wait_until("t", |info| !info.participants.is_empty());
    interrupted(publisher);
    drop(input);
    // For subscribers.
    let publisher = place.start(&["pub", "t", "--wait-subscribers", "1"]);
    place.wait_until("t", |info| !info.participants.is_empty());
    interrupted(publisher);
    // For the next place in a schedule.
    let publisher = place.start(&["pub", "t", &file, "--rate", "0.001"]);
    place.wait_until("t", |info| info.head == 2);
    interrupted(publisher);
    // For a reliable subscriber, and the topic is removed all the same.
    let mut echo = echoing(&place, &["--reliable"]);
    echo.stop();
    let publisher = place.start(&["pub", "t", &file, "--remove"]);
    place.wait_until("t", |info| info.head >= info.depth - info.block_len);
    interrupted(publisher);
    assert_eq!(place.directory().topics().unwrap(), [""; 0]);
}

#[test]
fn whoever_closes_the_output_ends_an_echo_without_a_word() {
    let place = Place::new();
    published(&place, "t", "a\n");
    // With nothing more to print, and with too much.
    for options in [&["--from", "oldest"][..], &["--reliable"]] {
        let mut echo = echoing(&place, options);
        drop(echo.stdout());
        if options.contains(&"--reliable") {
            place.run_with("x\n".repeat(10_000).as_bytes(), &["pub", "t"]).ok();
        }
        let done = echo.finish().ok();
        assert_eq!(done.stderr, "");
    }
}

#[test]
fn an_output_that_is_full_is_a_failure() {
    let place = Place::new();
    published(&place, "t", "a\n");
    for arguments in [&["echo", "t", "--from", "oldest", "--drain"][..], &["list"], &["info", "t"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = place.command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
    }
}

#[test]
fn list_has_a_line_for_each_topic_and_json_an_object() {
    let place = Place::new();
    assert_eq!(place.run(&["list"]).ok().text(), "");
    assert_eq!(place.run(&["list", "--json"]).ok().text(), "");
    published(&place, "md/quotes", "a\nb\n");
    published(&place, "t", "");
    let mut echo = echoing(&place, &[]);
    let mut publisher = place.start(&["pub", "t"]);
    place.wait_until("t", |info| info.participants.len() == 2);

    let done = place.run(&["list"]).ok();
    let lines: Vec<&str> = done.text().lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("TOPIC") && lines[1].starts_with("md/quotes"));

    let done = place.run(&["list", "--json"]).ok();
    let objects: Vec<Value> =
        done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [quotes, t] = &objects[..] else { panic!("{objects:?}") };
    assert_eq!(quotes["name"], "md/quotes");
    assert_eq!((&quotes["published"], &quotes["subscribers"]), (&2.into(), &0.into()));
    assert_eq!(
        (&quotes["publisher_alive"], &quotes["publisher_pid"]),
        (&false.into(), &Value::Null)
    );
    assert_eq!((&t["type"], &t["message_size"]), (&"[u8]".into(), &4096.into()));
    assert_eq!((&t["subscribers"], &t["publisher_alive"]), (&1.into(), &true.into()));
    assert_eq!(t["publisher_pid"], publisher.pid());
    let memory = place.directory().inspect("t").unwrap().memory.total();
    assert_eq!(t["memory"], memory);
    echo.signal(Signal::KILL);
}

#[test]
fn info_shows_who_takes_part_and_what_the_memory_is_for() {
    let place = Place::new();
    published(&place, "t", "a\nb\nc\n");
    let mut echo = echoing(&place, &["--reliable", "--from", "oldest", "--count", "5"]);
    let pid = echo.pid();

    let done = place.run(&["info", "t", "--json"]).ok();
    let info: Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!((&info["name"], &info["published"]), (&"t".into(), &3.into()));
    let memory = &info["memory"];
    let bytes = |part: &str| memory[part].as_u64().unwrap();
    let parts = ["live", "spare", "table", "control"].map(bytes);
    assert!(parts.iter().all(|&part| part > 0));
    assert_eq!(parts.iter().sum::<u64>(), bytes("total"));
    let one = &info["participants"][0];
    assert_eq!(
        (&one["kind"], &one["pid"], &one["alive"]),
        (&"reliable".into(), &pid.into(), &true.into())
    );

    let done = place.run(&["info", "t"]).ok();
    let row = done.text().lines().find(|line| line.starts_with("reliable")).unwrap();
    assert!(row.contains(" yes ") && row.contains(&pid.to_string()), "{row}");
    for word in ["live", "spare", "table", "control", "subscribers  1 of 16", "4096 bytes"] {
        assert!(done.text().contains(word), "{word} is not in {}", done.text());
    }
    published(&place, "t", "d\ne\n");
    echo.finish().ok();
    let done = place.run(&["info", "t", "--json"]).ok();
    let info: Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!(info["participants"], Value::Array(Vec::new()));
    assert_eq!((&info["deaths"], &info["last_death"]), (&0.into(), &Value::Null));
}

#[test]
fn info_shows_how_many_were_found_dead_and_the_last_of_them() {
    let place = Place::new();
    published(&place, "t", "a\n");
    let mut echo = echoing(&place, &["--reliable"]);
    let pid = echo.pid();
    drop(echo); // kills it
    published(&place, "t", "b\n"); // who joins finds it
    let done = place.run(&["info", "t", "--json"]).ok();
    let info: Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!((&info["deaths"], &info["last_death"]["pid"]), (&1.into(), &pid.into()));
    let done = place.run(&["info", "t"]).ok();
    assert!(done.text().contains(&format!("pid {pid}")), "{}", done.text());
}

#[test]
fn a_damaged_topic_does_not_hide_the_others() {
    let place = Place::new();
    published(&place, "damaged", "");
    published(&place, "whole", "");
    std::fs::write(place.topics_path().join("damaged/.topic/data"), [0; 8192]).unwrap();
    let done = place.run(&["list"]).failed(1, &["damaged", "1 of the topics"]);
    assert_eq!(done.text().lines().count(), 2);
    assert!(done.text().contains("\nwhole"));
    place.run(&["info", "damaged"]).failed(1, &["damaged"]);
    place.run(&["rm", "damaged"]).failed(1, &["damaged"]);
    place.run(&["rm", "damaged", "--force"]).ok();
    assert_eq!(place.directory().topics().unwrap(), ["whole"]);
}

#[test]
fn the_option_dir_is_another_way_to_say_where_topics_live() {
    let place = Place::new();
    let other = place.file("other");
    let other = other.to_str().unwrap();
    place.run(&["pub", "t", "--dir", other]).ok();
    assert_eq!(place.run(&["list"]).ok().text(), "");
    assert_eq!(place.run(&["--dir", other, "list"]).ok().text().lines().count(), 2);
    place.run(&["list", "--dir", "/proc"]).failed(1, &["/proc: not a tmpfs"]);
}

#[test]
fn the_help_has_the_exit_codes() {
    let place = Place::new();
    let help = place.run(&["--help"]).ok();
    for code in ["  0 ", "  1 ", "  2 ", "  130 "] {
        assert!(help.text().contains(code));
    }
}
