//! `hz`, `bw`, `delay` and `stat`: figures that can be checked against what was published.

mod program;

use program::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;
use shmbus::{Topic, TopicOptions};
use std::io::{BufRead, BufReader};

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn with_timestamps(place: &Place, name: &str) -> Topic<u64> {
    let options = TopicOptions { timestamp: true, depth: 64, ..Default::default() };
    Topic::create_in(&place.directory(), name, &options).unwrap()
}

/// The windows of `running`, publishing one message before each, until `is_enough`.
fn windows(
    mut running: Running,
    mut publish: impl FnMut(),
    is_enough: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let mut lines = BufReader::new(running.stdout()).lines();
    let mut windows = Vec::new();
    while !is_enough(&windows) {
        windows.push(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
        publish();
    }
    running.signal(Signal::INT);
    let _ = running.finish().failed(130, &[]);
    windows
}

fn total(windows: &[Value], field: &str) -> u64 {
    windows.iter().map(|window| window[field].as_u64().unwrap()).sum()
}

#[test]
fn hz_counts_every_message_of_a_topic_that_it_could_never_read() {
    let place = Place::new();
    let options = TopicOptions { depth: 16, ..Default::default() };
    let topic = Topic::<u64>::create_in(&place.directory(), "t", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let hz = place.start(&["hz", "t", "--json", "--interval", "0.05"]);
    let mut bursts = 0;
    let burst = || {
        if bursts < 3 {
            (0..10_000_u64).for_each(|i| _ = publisher.publish(&i).unwrap());
            bursts += 1;
        }
    };
    let windows = windows(hz, burst, |windows| total(windows, "messages") >= 30_000);
    assert_eq!(total(&windows, "messages"), 30_000);
    for window in &windows {
        let seconds = window["interval_ns"].as_f64().unwrap() / 1e9;
        let rate = window["messages"].as_f64().unwrap() / seconds;
        assert!((window["rate"].as_f64().unwrap() - rate).abs() <= rate / 100.0, "{window}");
        assert_eq!(window["gaps"], Value::Null);
    }
}

#[test]
fn hz_shows_the_gaps_between_messages_that_carry_the_time() {
    let place = Place::new();
    let topic = with_timestamps(&place, "t");
    let mut publisher = topic.publisher().unwrap();
    let hz = place.start(&["hz", "t", "--json", "--interval", "0.02"]);
    let windows = windows(hz, || _ = publisher.publish(&1).unwrap(), |w| total(w, "gaps") >= 5);
    let gaps = windows.iter().filter(|window| window["gaps"].as_u64().unwrap() > 0);
    for window in gaps {
        let ns = |field: &str| window[field].as_u64().unwrap();
        assert!(ns("gap_min_ns") > 0);
        assert!(ns("gap_min_ns") <= ns("gap_mean_ns") && ns("gap_mean_ns") <= ns("gap_max_ns"));
    }
}

#[test]
fn bw_is_the_size_times_the_number_or_the_sum_of_the_lengths() {
    let place = Place::new();
    let options = TopicOptions { depth: 1024, ..Default::default() };
    let fixed = Topic::<[u64; 4]>::create_in(&place.directory(), "fixed", &options).unwrap();
    let mut fixed = fixed.publisher().unwrap();
    let bw = place.start(&["bw", "fixed", "--json", "--interval", "0.02"]);
    let windows_fixed = windows(bw, || _ = fixed.publish(&[1; 4]).unwrap(), |w| w.len() >= 5);
    assert_eq!(total(&windows_fixed, "bytes"), 32 * total(&windows_fixed, "messages"));

    let bytes = Topic::<[u8]>::create_in(&place.directory(), "bytes", &options).unwrap();
    let mut bytes = bytes.publisher().unwrap();
    let bw = place.start(&["bw", "bytes", "--json", "--interval", "0.02"]);
    let mut sent = 0;
    let publish = || {
        if sent < 5 {
            sent += 1;
            bytes.publish(&vec![7; sent * 10]).unwrap();
        }
    };
    let windows = windows(bw, publish, |windows| total(windows, "bytes") >= 150);
    assert_eq!((total(&windows, "bytes"), total(&windows, "missed")), (150, 0));
}

#[test]
fn delay_needs_messages_that_carry_the_time() {
    let place = Place::new();
    place.run_with(b"a\n", &["pub", "t"]).ok();
    place.run(&["delay", "t"]).failed(1, &["topic t", "TopicOptions::timestamp", "--timestamp"]);
    let topic = with_timestamps(&place, "timed");
    let mut publisher = topic.publisher().unwrap();
    let delay = place.start(&["delay", "timed", "--json", "--interval", "0.05"]);
    let windows = windows(delay, || _ = publisher.publish(&1).unwrap(), |w| total(w, "seen") > 3);
    for window in windows.iter().filter(|window| window["seen"].as_u64().unwrap() > 0) {
        let ns = |field: &str| window[field].as_u64().unwrap();
        assert!(0 < ns("p50_ns") && ns("p50_ns") <= ns("p99_ns") && ns("p99_ns") <= ns("max_ns"));
    }
}

#[test]
fn delay_shows_none_if_the_clock_of_the_publisher_is_another_one() {
    let place = Place::new();
    let topic = with_timestamps(&place, "t");
    let publish = |at_start: &str| {
        let program = env!("CARGO_BIN_EXE_shmbus");
        let mut command = std::process::Command::new("unshare");
        command.args(["--time", "--fork", "--monotonic", at_start, program, "pub", "t", "-q"]);
        command.args(["--message", "7"]).env("SHMBUS_DIR", place.topics_path());
        command.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
    };
    drop(topic);
    if !publish("86400") {
        return eprintln!("skipped: no time namespace can be made here");
    }
    let mut delay = place.start(&["delay", "t", "--json", "--interval", "0.05"]);
    let mut lines = BufReader::new(delay.stdout()).lines();
    let window = loop {
        assert!(publish("86400"));
        let window: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if window["ahead"].as_u64().unwrap() > 0 {
            break window;
        }
    };
    assert!(window["p50_ns"].is_null() && window["max_ns"].is_null(), "{window}");
    assert!(window["seen"].as_u64() >= window["ahead"].as_u64(), "{window}");
    delay.signal(Signal::INT);
    let done = delay.finish().failed(130, &["publisher's clock is another one"]);
    assert_eq!(done.stderr.lines().count(), 1, "said once");
}

#[test]
fn watching_leaves_no_participant_and_ends_when_the_topic_is_removed() {
    let place = Place::new();
    place.run_with(b"a\n", &["pub", "t"]).ok();
    for command in ["hz", "bw"] {
        place.run_with(b"a\n", &["pub", "t"]).ok();
        let mut running = place.start(&[command, "t", "--interval", "0.01"]);
        let mut lines = BufReader::new(running.stdout()).lines();
        lines.next().unwrap().unwrap();
        lines.next().unwrap().unwrap();
        assert_eq!(place.directory().inspect("t").unwrap().participants.len(), 0);
        place.run(&["rm", "t"]).ok();
        while lines.next().is_some() {}
        let done = running.finish().ok();
        assert_eq!(done.stderr, "shmbus: topic t was removed\n");
    }
    for command in ["hz", "bw", "delay"] {
        place.run(&[command, "no/such"]).failed(1, &["no/such"]);
        place.run(&[command, "t", "--interval", "0"]).failed(2, &["0.001"]);
    }
}

#[test]
fn stat_has_a_line_for_each_topic_with_its_rate() {
    let place = Place::new();
    place.run_with(b"aaaa\nbbbb\n", &["pub", "md/quotes"]).ok();
    place.run_with(b"a\n", &["pub", "t"]).ok();
    let done = place.run(&["stat", "--interval", "0", "--json"]).ok();
    let lines = objects(done.text());
    assert_eq!(lines.len(), 2);
    let quotes = &lines[0];
    assert_eq!((&quotes["name"], &quotes["published"]), (&"md/quotes".into(), &2.into()));
    assert_eq!((&quotes["rate"], &quotes["publisher_alive"]), (&Value::Null, &false.into()));

    let stat = place.start(&["stat", "t", "--watch", "--interval", "0.02", "--json"]);
    let topic = Topic::<[u8]>::open_in(&place.directory(), "t").unwrap();
    let mut publisher = topic.publisher().unwrap();
    let rate = |window: &Value| window["rate"].as_f64().unwrap();
    let publish = || _ = publisher.publish(b"1234567").unwrap();
    let windows = windows(stat, publish, |w| w.iter().filter(|one| rate(one) > 0.0).count() >= 20);
    for window in windows.iter().filter(|window| rate(window) > 0.0) {
        let bytes = window["bytes_per_second"].as_f64().unwrap();
        assert!(bytes > 0.0 && bytes <= 7.01 * rate(window), "{window}");
        assert_eq!(window["name"], "t");
    }
    let done = place.run(&["stat", "--interval", "0.01", "--watch", "--count", "2"]).ok();
    assert_eq!(done.text().lines().filter(|line| line.starts_with("TOPIC")).count(), 2);
    place.run(&["stat", "no/such"]).failed(1, &["no/such"]);
    place.run(&["stat", "--watch", "--interval", "0"]).failed(1, &["--interval"]);
}

#[test]
fn top_without_a_terminal_says_what_does_without_one() {
    let place = Place::new();
    let done = place.run(&["top"]).failed(1, &["terminal", "stat --watch", "--json"]);
    assert_eq!(done.text(), "");
}
