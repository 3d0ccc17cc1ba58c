//! Real input through real processes: what goes into `shmbus pub` comes out of every `shmbus echo`, byte for byte; who is stopped delays
//! nobody and knows exactly what it missed.

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use program::{Done, Place, Running, assert_same};
use rustix::process::Signal;
use serde_json::Value;

const OUTPUTS: [&str; 3] = ["out-1", "out-2", "out-3"];

/// Three reliable echoes, each into a file.
fn three_echoes(place: &Place, options: &[&str]) -> Vec<Running> {
    let arguments = [&["echo", "t", "--reliable", "--wait"], options].concat();
    OUTPUTS.iter().map(|output| place.start_into(output, &arguments)).collect()
}

/// Publishes `file` with `options` to three reliable echoes; all of them must have printed it unchanged.
fn through_three(place: &Place, file: &str, echo: &[&str], options: &[&str], messages: u64) {
    let echoes = three_echoes(place, echo);
    let arguments = [&["pub", "t", file, "--wait-subscribers", "3", "--remove"], options].concat();
    assert_eq!(place.run(&arguments).ok().total("published").0, messages);
    for (echo, output) in echoes.into_iter().zip(OUTPUTS) {
        assert_eq!(echo.finish().ok().total("received"), (messages, 0));
        assert_same(file.as_ref(), &place.file(output));
    }
    assert_eq!(place.directory().topics().unwrap(), [""; 0]);
}

#[test]
fn a_million_lines_reach_three_reliable_echoes_unchanged() {
    let place = Place::new();
    let rest = "of lines that differ in length, and do not fit into blocks";
    let mut lines = Vec::new();
    for number in 0..1_000_000 {
        writeln!(lines, "{number} {}", &rest[..number % rest.len()]).unwrap();
    }
    let file = place.written("lines", &lines);
    through_three(&place, &file, &[], &[], 1_000_000);
}

#[test]
fn a_binary_file_of_64_mib_in_frames_of_64_kib_reaches_three_reliable_echoes_unchanged() {
    let place = Place::new();
    let file = place.written("binary", &noise(64 << 20));
    through_three(&place, &file, &["--raw"], &["--chunk", "65536"], 1024);
}

#[test]
fn the_output_of_vmstat_reaches_three_reliable_echoes_unchanged() {
    let place = Place::new();
    let echoes = three_echoes(&place, &[]);
    let publisher = place.start(&["pub", "t", "--wait-subscribers", "3", "--remove"]);
    let input = publish_output_of(vmstat(), publisher);
    assert!(input.lines().count() >= 4);
    for (echo, output) in echoes.into_iter().zip(OUTPUTS) {
        echo.finish().ok();
        assert_eq!(std::fs::read(place.file(output)).unwrap(), input);
    }
}

/// `vmstat 1`, three times; where it is missing, a loop that prints what the kernel counts.
fn vmstat() -> Command {
    let is_there = Command::new("vmstat").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match is_there {
        Ok(status) if status.success() => {
            let mut vmstat = Command::new("vmstat");
            vmstat.args(["1", "3"]);
            vmstat
        }
        _ => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "for i in 1 2 3; do cat /proc/stat; sleep 0.3; done"]);
            shell
        }
    }
}

/// Hands what `source` prints, as it comes, to `publisher`. All of it.
fn publish_output_of(mut source: Command, mut publisher: Running) -> Vec<u8> {
    let mut child = source.stdout(Stdio::piped()).spawn().unwrap();
    let (mut from, mut to) = (child.stdout.take().unwrap(), publisher.stdin());
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let len = from.read(&mut piece).unwrap();
        if len == 0 {
            break;
        }
        to.write_all(&piece[..len]).unwrap();
        all.extend(&piece[..len]);
    }
    drop(to);
    child.wait().unwrap();
    publisher.finish().ok();
    all
}

#[test]
fn a_line_is_printed_while_the_input_is_still_open() {
    let place = Place::new();
    let mut echo = place.start(&["echo", "t", "--wait", "--lossy"]);
    let mut publisher = place.start(&["pub", "t", "--wait-subscribers", "1", "--remove"]);
    let mut input = publisher.stdin();
    let mut output = BufReader::new(echo.stdout());
    for line in ["one\n", "two\n", "\n", "four\n"] {
        input.write_all(line.as_bytes()).unwrap();
        let mut printed = String::new();
        output.read_line(&mut printed).unwrap(); // or this test does not end
        assert_eq!(printed, line);
    }
    drop(input);
    assert_eq!(publisher.finish().ok().total("published"), (4, 10));
    echo.finish().ok();
}

#[test]
fn a_stopped_lossy_echo_delays_nobody_and_knows_exactly_what_it_missed() {
    const LINES: u64 = 200_000;
    const BEFORE: u64 = 10;
    let place = Place::new();
    let echoes = three_echoes(&place, &[]);
    let mut lossy = place.start(&["echo", "t", "--wait", "--lossy", "--from", "oldest"]);
    let mut publisher = place.start(&["pub", "t", "--wait-subscribers", "4", "--remove"]);
    let mut input = publisher.stdin();
    let mut lossy_output = BufReader::new(lossy.stdout());

    // It takes part, and is stopped while the publisher runs.
    let mut all = String::new();
    for number in 0..BEFORE {
        all += &format!("{number}\n");
    }
    input.write_all(all.as_bytes()).unwrap();
    let mut printed = String::new();
    for _ in 0..BEFORE {
        lossy_output.read_line(&mut printed).unwrap();
    }
    assert_eq!(printed, all);
    lossy.stop();

    // Everybody else goes on to the end.
    for number in BEFORE..LINES {
        all += &format!("{number}\n");
    }
    input.write_all(&all.as_bytes()[printed.len()..]).unwrap();
    drop(input);
    assert_eq!(publisher.finish().ok().total("published").0, LINES);
    for (echo, output) in echoes.into_iter().zip(OUTPUTS) {
        assert_eq!(echo.finish().ok().total("received"), (LINES, 0));
        assert!(std::fs::read(place.file(output)).unwrap() == all.as_bytes());
    }
    assert!(lossy.is_stopped());

    // Then it tells.
    lossy.signal(Signal::CONT);
    lossy_output.read_to_string(&mut printed).unwrap();
    let done = lossy.finish().ok();
    let numbers: Vec<u64> = printed.lines().map(|line| line.parse().unwrap()).collect();
    let (received, missed) = done.total("received");
    assert_eq!(received, numbers.len() as u64);
    assert_eq!(received + missed, LINES);
    assert!(missed > 0, "a topic of 1024 messages cannot have kept {LINES}");
    assert_eq!(gaps_told(&done), gaps_of(0, &numbers));
}

/// Each `missed N before sequence S`.
fn gaps_told(done: &Done) -> Vec<(u64, u64)> {
    let gap = |line: &str| {
        let (missed, sequence) =
            line.strip_prefix("shmbus: missed ")?.split_once(" before sequence ")?;
        Some((missed.parse().ok()?, sequence.parse().ok()?))
    };
    done.stderr.lines().filter_map(gap).collect()
}

/// The same, as it follows from the numbers that were printed; each number is its sequence.
fn gaps_of(first: u64, numbers: &[u64]) -> Vec<(u64, u64)> {
    let mut expected = first;
    let mut gaps = Vec::new();
    for &number in numbers {
        assert!(number >= expected, "{number} after {expected}");
        if number > expected {
            gaps.push((number - expected, number));
        }
        expected = number + 1;
    }
    gaps
}

#[test]
fn a_publisher_waits_for_a_stopped_reliable_echo_and_says_so() {
    let place = Place::new();
    let mut reliable = place.start_into("out", &["echo", "t", "--wait", "--reliable"]);
    let file = place.written("lines", "a line\n".repeat(10_000).as_bytes());
    // A first publisher, so that the echo takes part before it is stopped.
    place.run_with(b"first\n", &["pub", "t", "--wait-subscribers", "1"]).ok();
    reliable.stop();
    let mut publisher = place.start(&["pub", "t", &file, "--remove"]);
    let mut said = String::new();
    let mut stderr = BufReader::new(publisher.stderr());
    stderr.read_line(&mut said).unwrap(); // after it has waited for a while
    assert!(said.contains(&format!("waiting for process {} (entry ", reliable.pid())), "{said}");
    reliable.signal(Signal::CONT);
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("published 10000, "), "{said}");
    publisher.finish().ok();
    assert_eq!(reliable.finish().ok().total("received"), (10_001, 0));
}

#[test]
fn a_publisher_goes_on_when_a_stopped_reliable_echo_is_killed() {
    let place = Place::new();
    let mut reliable = place.start_into("out", &["echo", "t", "--wait", "--reliable"]);
    let file = place.written("lines", "a line\n".repeat(10_000).as_bytes());
    place.run_with(b"first\n", &["pub", "t", "--wait-subscribers", "1"]).ok();
    reliable.stop();
    let publisher = place.start(&["pub", "t", &file, "--remove"]);
    place.wait_until("t", |info| info.head >= info.depth - info.block_len);
    reliable.signal(Signal::KILL);
    assert_eq!(publisher.finish().ok().total("published").0, 10_000);
}

#[test]
fn who_holds_a_feed_up_is_named_by_all_and_waited_for_no_longer_than_asked() {
    let place = Place::new();
    let mut reliable = place.start_into("out", &["echo", "t", "--wait", "--reliable"]);
    let file = place.written("lines", "a line\n".repeat(10_000).as_bytes());
    place.run_with(b"first\n", &["pub", "t", "--wait-subscribers", "1"]).ok();
    let holdups = |done: Done| -> Vec<Value> {
        let line: Value = serde_json::from_str(done.ok().text()).unwrap();
        line["held_up_by"].as_array().unwrap().clone()
    };
    let stat = ["stat", "t", "--json", "--interval", "0.1"];
    assert_eq!(holdups(place.run(&stat)), [] as [Value; 0]);
    reliable.stop();

    let pid = reliable.pid();
    let words =
        ["topic t had no room for ", &format!("waiting for process {pid} (entry "), "reliable"];
    place.run(&["pub", "t", &file, "--timeout", "200ms"]).failed(1, &words);
    let skipping = place.run(&["pub", "t", &file, "--skip-full"]).ok();
    let published = skipping.total("published").0;
    let told = format!("skipped {} for which there was no room", 10_000 - published);
    assert!(published < 10_000 && skipping.stderr.contains(&told), "{}", skipping.stderr);

    let [holdup] = &holdups(place.run(&stat))[..] else { panic!("one holds it up") };
    assert_eq!(holdup["pid"], pid);
    assert!(holdup["seconds"].as_f64().unwrap() >= 0.1 && holdup["lag"].as_u64() > Some(0));
    let named = format!("topic t: process {pid} (entry ");
    let watching = place.run(&["stat", "t", "--interval", "0.1", "--watch", "--count", "3"]).ok();
    let times: Vec<&str> = watching.text().lines().filter(|line| line.contains(&named)).collect();
    assert_eq!(times.len(), 3, "{}", watching.text());
    assert!(times[2].ends_with(" s") && !times[2].ends_with("0.0 s"), "{times:?}");
    let doctor = place.run(&["doctor"]);
    let found = doctor.text().lines().find(|line| line.contains(&named));
    assert!(found.is_some_and(|line| line.starts_with("warning")), "{}", doctor.text());

    reliable.signal(Signal::CONT);
    place.wait_until("t", |info| info.participants.iter().all(|one| !one.holds_up));
    assert_eq!(holdups(place.run(&stat)), [] as [Value; 0]);
    assert!(!place.run(&["doctor"]).text().contains(&named));
    place.run(&["rm", "t", "--force"]).ok();
    reliable.finish().ok();
}

#[test]
fn an_echo_that_is_reliable_for_a_time_is_evicted_after_it_and_says_so() {
    let place = Place::new();
    let echo = ["echo", "t", "--wait", "--reliable-for", "100ms"];
    let mut echo = place.start_into("out", &echo);
    let file = place.written("lines", "a line\n".repeat(10_000).as_bytes());
    place.run_with(b"first\n", &["pub", "t", "--wait-subscribers", "1"]).ok();
    echo.stop();
    place.run(&["pub", "t", &file, "--remove"]).ok(); // it waits for the echo, and not for ever
    echo.signal(Signal::CONT);
    let done = echo.finish().ok();
    assert!(done.stderr.contains("has waited for this reader for 100ms"), "{}", done.stderr);
    let (received, missed) = done.total("received");
    assert_eq!(received + missed, 10_001);
    assert!(missed > 0, "{}", done.stderr);
}

#[test]
fn an_echo_follows_a_topic_that_is_removed_and_created_anew() {
    let place = Place::new();
    for way in ["--passive", "--reliable"] {
        let follow = ["echo", "t", way, "--wait", "--follow", "--count", "6"];
        let mut echo = place.start(&follow);
        echo.wait_until_it_sleeps();
        let mut lines = BufReader::new(echo.stdout()).lines();
        for topic in 0..3 {
            place.run_with(format!("{topic}\nx\n").as_bytes(), &["pub", "t"]).ok();
            assert_eq!(lines.next().unwrap().unwrap(), topic.to_string());
            assert_eq!(lines.next().unwrap().unwrap(), "x");
            place.run(&["rm", "t", "--force"]).ok();
        }
        assert_eq!(echo.finish().ok().total("received"), (6, 0), "{way}");
    }
}

#[test]
fn an_echo_that_follows_takes_another_schema_or_refuses_it_in_words() {
    let place = Place::new();
    let schema = |name: &str, [first, second]: [&str; 2]| {
        let fields = format!("  {first}: u32 at 0\n  {second}: u32 at 4\n");
        let text = format!("struct m.{name} version 1 size 8 align 4\n{fields}message m.{name}\n");
        place.written(name, format!("shmbus-schema 1\n{text}").as_bytes())
    };
    let schemas = [schema("a", ["x", "y"]), schema("b", ["z", "x"])];
    let filtered = ["echo", "t", "--wait", "--follow", "--filter", "y == 2"];
    let mut echo = place.start(&["echo", "t", "--wait", "--follow", "--csv", "--count", "2"]);
    let mut filtered = place.start_into("filtered", &filtered);
    echo.wait_until_it_sleeps();
    filtered.wait_until_it_sleeps();
    let begin = std::time::Instant::now();
    let mut lines = BufReader::new(echo.stdout()).lines();
    for (schema, message, expected) in [
        (&schemas[0], r#"{"x":1,"y":2}"#, ["x,y", "1,2"]),
        (&schemas[1], r#"{"z":3,"x":4}"#, ["z,x", "3,4"]),
    ] {
        place.run(&["pub", "t", "--schema", schema, "--message", message]).ok();
        for line in expected {
            assert_eq!(lines.next().unwrap().unwrap(), line);
        }
        while std::fs::read(place.file("filtered")).unwrap().is_empty() {
            assert!(begin.elapsed().as_secs() < 60, "it prints nothing");
            thread::sleep(std::time::Duration::from_millis(1));
        }
        place.run(&["rm", "t", "--force"]).ok();
    }
    assert_eq!(echo.finish().ok().total("received"), (2, 0));
    let done = filtered.finish().failed(2, &["topic t was created anew, and ", "y"]);
    assert_eq!(done.total("received"), (1, 0));
}

#[test]
fn frames_come_out_as_they_went_in() {
    let place = Place::new();
    let mut frames = Vec::new();
    for len in [0u32, 1, 4, 4096, 17, 0, 1000] {
        frames.extend(len.to_le_bytes());
        frames.extend(noise(len as usize));
    }
    let echo = place.start(&["echo", "t", "--wait", "--reliable", "--frames"]);
    let publish = ["pub", "t", "--frames", "--wait-subscribers", "1", "--remove"];
    assert_eq!(place.run_with(&frames, &publish).ok().total("published").0, 7);
    assert!(echo.finish().ok().stdout == frames);
}

/// Bytes of every value, the same in every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn an_echo_that_was_there_first_has_all_messages_or_says_how_many_it_missed() {
    let (place, aside) = (Place::new(), Place::new());
    place.directory();
    for (messages, way) in
        [(3, "--reliable"), (1000, "--reliable"), (1000, "--lossy"), (1000, "--passive")]
    {
        let mut echo = place.start(&["echo", "t", way, "--wait", "--drain", "--json"]);
        echo.wait_until_it_sleeps();
        // With all its messages at once, as if the echo had not run meanwhile.
        let lines: String = (0..messages).map(|line| format!("{line}\n")).collect();
        aside.run_with(lines.as_bytes(), &["pub", "t", "--depth", "64"]).ok();
        std::fs::rename(aside.topics_path().join("t"), place.topics_path().join("t")).unwrap();
        let done = echo.finish().ok();
        let (received, missed) = done.total("received");
        assert_eq!(received + missed, messages, "{way}");
        assert_eq!(missed == 0, messages == 3, "{way}");
        let first: Value = serde_json::from_str(done.text().lines().next().unwrap()).unwrap();
        assert_eq!((&first["sequence"], &first["missed_before"]), (&missed.into(), &missed.into()));
        assert_eq!(first["message"], missed.to_string());
        let told = format!("missed {missed} before sequence {missed}");
        assert_eq!(done.stderr.contains(&told), missed > 0, "{}", done.stderr);
        place.run(&["rm", "t"]).ok();
    }
}

#[test]
fn many_lossy_echoes_may_come_and_go_while_a_publisher_runs() {
    let place = Place::new();
    let mut publisher = place.start(&["pub", "t", "--remove"]);
    let mut input = publisher.stdin();
    place.wait_until("t", |_| true);
    let writing = thread::spawn(move || {
        // Until nobody reads any more.
        (0u64..).try_for_each(|number| writeln!(input, "{number}")).unwrap_err()
    });
    for _ in 0..20 {
        let done = place.run(&["echo", "t", "--count", "100"]).ok();
        let numbers: Vec<u64> = done.text().lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 100);
        let told = gaps_told(&done).into_iter();
        // It may have missed some between its beginning and its first message.
        let told: Vec<(u64, u64)> = told.filter(|gap| gap.1 != numbers[0]).collect();
        assert_eq!(told, gaps_of(numbers[0], &numbers));
    }
    publisher.signal(Signal::TERM);
    publisher.finish().failed(130, &["published"]);
    writing.join().unwrap();
}
