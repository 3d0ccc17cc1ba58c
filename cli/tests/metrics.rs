//! `metrics`: what is in it, that it is OpenMetrics, and how it is served.

mod program;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use program::{Place, Running};
use rustix::process::Signal;

fn published(place: &Place, topic: &str, lines: &str) {
    place.run_with(lines.as_bytes(), &["pub", topic, "--depth", "8"]).ok();
}

fn echoing(place: &Place, topic: &str) -> Running {
    let echo = place.start(&["echo", topic, "--reliable"]);
    place.wait_until(topic, |info| info.participants.iter().any(|one| one.liveness.is_alive()));
    echo
}

/// A server at a free port.
fn serving(place: &Place) -> (Running, SocketAddr) {
    let mut server = place.start(&["metrics", "--listen", "127.0.0.1:0"]);
    let mut said = String::new();
    BufReader::new(server.stderr()).read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("shmbus: serving http://").expect(&said);
    let address = address.strip_suffix("/metrics").unwrap().parse().unwrap();
    (server, address)
}

/// Status, head and body of an answer.
fn ask(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

#[test]
fn every_topic_and_participant_has_its_numbers() {
    let place = Place::new();
    published(&place, "md/quotes", "a\nb\nc\n");
    published(&place, "t", "");
    let mut echo = echoing(&place, "md/quotes");
    let mut killed = echoing(&place, "t");
    let (pid, dead) = (echo.pid(), killed.pid());
    killed.signal(Signal::KILL);
    drop(killed);
    let done = place.run(&["metrics", "--once"]).ok();
    let memory = place.directory().inspect("t").unwrap().memory.total();
    let of = |entry: u32| format!("kind=\"reliable\",entry=\"{entry}\"");
    let entry = |topic: &str| of(place.directory().inspect(topic).unwrap().participants[0].entry);
    let (living, dying) = (entry("md/quotes"), entry("t"));
    for line in [
        "shmbus_topics 2",
        "shmbus_topics_unreadable 0",
        "# TYPE shmbus_published counter",
        "shmbus_published_total{topic=\"md/quotes\"} 3",
        "shmbus_head{topic=\"md/quotes\"} 3",
        "# UNIT shmbus_memory_bytes bytes",
        &format!("shmbus_memory_bytes{{topic=\"t\"}} {memory}"),
        "shmbus_depth{topic=\"t\"} 8",
        "shmbus_subscribers{topic=\"md/quotes\"} 1",
        "shmbus_subscribers{topic=\"t\"} 0",
        "shmbus_publishers{topic=\"t\"} 0",
        "shmbus_deaths_total{topic=\"t\"} 0",
        &format!("shmbus_participant_alive{{topic=\"md/quotes\",{living},pid=\"{pid}\"}} 1"),
        &format!("shmbus_participant_alive{{topic=\"t\",{dying},pid=\"{dead}\"}} 0"),
        &format!("shmbus_participant_missed_total{{topic=\"t\",{dying},pid=\"{dead}\"}} 0"),
        &format!("shmbus_participant_lag{{topic=\"t\",{dying},pid=\"{dead}\"}} 0"),
        &format!("shmbus_participant_held_blocks{{topic=\"t\",{dying},pid=\"{dead}\"}} 0"),
    ] {
        assert!(done.text().lines().any(|found| found == line), "{line} is not in {}", done.text());
    }
    echo.signal(Signal::KILL);
}

#[test]
fn it_is_openmetrics_each_family_once_with_its_type_and_an_end() {
    let place = Place::new();
    let empty = place.run(&["metrics", "--once"]).ok();
    assert!(empty.text().contains("\nshmbus_topics 0\n") && empty.text().ends_with("\n# EOF\n"));
    published(&place, "t", "a\n");
    published(&place, "u", "a\n");
    let _echo = echoing(&place, "t");
    let done = place.run(&["metrics", "--once"]).ok();
    let mut families = BTreeSet::new();
    let mut family = String::new();
    for line in done.text().lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            assert_eq!(name.trim_end_matches("_total"), family, "{line}");
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
        }
    }
    assert!(families.len() > 12, "{families:?}");
    assert!(done.text().ends_with("\n# EOF\n"));
}

#[test]
fn a_topic_that_cannot_be_read_is_counted_and_hides_no_other() {
    let place = Place::new();
    published(&place, "damaged", "");
    published(&place, "whole", "a\n");
    std::fs::write(place.topics_path().join("damaged/.topic/data"), [0; 8192]).unwrap();
    let done = place.run(&["metrics", "--once"]).ok();
    for line in ["shmbus_topics 1", "shmbus_topics_unreadable 1", "shmbus_head{topic=\"whole\"} 1"]
    {
        assert!(done.text().lines().any(|found| found == line), "{line} is not in {}", done.text());
    }
    assert!(!done.text().contains("damaged"));
}

#[test]
fn it_is_served_at_one_path_and_is_as_of_now() {
    let place = Place::new();
    let (_server, address) = serving(&place);
    for (lines, count) in [("a\n", 1), ("b\nc\n", 3)] {
        published(&place, "t", lines);
        let (status, head, body) = ask(address, "GET /metrics");
        assert_eq!(status, 200);
        assert!(
            head.contains(
                "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"
            ),
            "{head}"
        );
        assert!(
            body.contains(&format!("shmbus_published_total{{topic=\"t\"}} {count}\n")),
            "{body}"
        );
    }
    assert_eq!(ask(address, "GET /metrics?x=1").0, 200);
    for other in ["GET /", "GET /metrics/t", "GET /../metrics"] {
        assert_eq!(ask(address, other).0, 404, "{other}");
    }
    assert_eq!(ask(address, "DELETE /metrics").0, 405);
    let (status, head, body) = ask(address, "HEAD /metrics");
    assert!(status == 200 && body.is_empty() && head.contains("Content-Length: "), "{head}");
}

#[test]
fn readers_that_do_not_read_are_in_nobodys_way() {
    let place = Place::new();
    published(&place, "t", "a\n");
    let (_server, address) = serving(&place);
    let idle: Vec<TcpStream> = (0..20)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            // Half a request, or a whole one whose answer nobody reads.
            let end = if number % 2 == 0 { "" } else { "\r\n\r\n" };
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x{end}").unwrap();
            stream
        })
        .collect();
    assert_eq!(ask(address, "GET /metrics").0, 200);
    drop(idle);
}

#[test]
fn an_interrupt_ends_it_with_130_and_a_port_that_is_taken_is_named() {
    let place = Place::new();
    let (mut server, address) = serving(&place);
    place
        .run(&["metrics", "--listen", &address.to_string()])
        .failed(1, &[&format!("cannot listen on {address}"), "in use"]);
    let idle = TcpStream::connect(address).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        server.signal(signal);
    }
    server.finish().failed(130, &[]);
    drop(idle);
    place.run(&["metrics", "--listen", "nowhere"]).failed(2, &["--listen"]);
    place.run(&["metrics", "--once", "--listen", "127.0.0.1:0"]).failed(2, &["cannot be used"]);
}

#[test]
fn a_directory_that_goes_away_is_an_answer_and_one_that_comes_back_is_served() {
    let place = Place::new();
    published(&place, "t", "a\n");
    let (_server, address) = serving(&place);
    std::fs::remove_dir_all(place.topics_path()).unwrap();
    std::fs::write(place.topics_path(), "").unwrap();
    assert_eq!(ask(address, "GET /metrics").0, 500);
    std::fs::remove_file(place.topics_path()).unwrap();
    published(&place, "u", "a\n");
    assert!(ask(address, "GET /metrics").2.contains("{topic=\"u\"}"));
}
