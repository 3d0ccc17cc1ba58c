//! `shmbus demo` as its user sees it: real processes, a directory of its own, exit codes, and what is left afterwards.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};
use serde_json::Value;
use shmbus::Directory;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use tempfile::TempDir;

/// A directory for topics that nobody else uses.
fn topics_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory in memory")
}

fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmbus"));
    command.env("SHMBUS_DIR", directory).arg("demo").args(arguments).stdin(Stdio::null());
    command
}

const SHORT: [&str; 7] = ["--seconds", "0.2", "--rate", "2000", "--kills", "1", "--plain"];

fn run_short(directory: &Path, more: &[&str]) -> Output {
    let mut command = demo(directory, &SHORT);
    command.args(more).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_ok(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

fn assert_empty(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).expect("readable").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn number(value: &Value, pointer: &str) -> u64 {
    let number = value.pointer(pointer).and_then(Value::as_u64);
    number.unwrap_or_else(|| panic!("no number at {pointer} of {value:#}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a Vec<Value> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.unwrap_or_else(|| panic!("no list at {pointer} of {value:#}"))
}

/// What every subscriber must report, however much it missed.
fn assert_nothing_wrong(subscribers: &[Value]) {
    for subscriber in subscribers {
        for fault in ["/torn", "/repeated", "/out_of_order", "/miscounted"] {
            assert_eq!(number(subscriber, fault), 0, "{fault} of {subscriber:#}");
        }
    }
}

fn assert_reliable_got_everything_on_every_transport(arguments: &[&str]) {
    let directory = topics_directory();
    let output = run_short(directory.path(), &[&["--json"], arguments].concat());
    assert_ok(&output);
    assert_empty(directory.path());

    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(result["sound"], true);
    let transports = list(&result, "/transports");
    let names: Vec<&Value> = transports.iter().map(|transport| &transport["transport"]).collect();
    assert_eq!(names, ["shmbus", "unix", "tcp", "pipe"]);
    for transport in transports {
        let [received, sent, due] =
            ["/received", "/sent", "/due"].map(|pointer| number(transport, pointer));
        assert_eq!((received, due), (sent, 400), "{transport:#}");
        assert!((1..=due).contains(&sent), "{transport:#}");
        let percentiles = ["p50", "p99", "p999", "max"];
        let latency = percentiles.map(|p| number(transport, &format!("/latency_ns/{p}")));
        assert!(latency[0] > 1 && latency.is_sorted(), "{transport:#}");
        assert!(
            number(transport, "/cpu_ns_feed") > 0 && number(transport, "/cpu_ns_subscribers") > 0
        );

        let subscribers = list(transport, "/subscribers");
        let roles: Vec<&Value> = subscribers.iter().map(|subscriber| &subscriber["role"]).collect();
        assert_eq!(roles, ["reliable", "lossy", "slow"]);
        assert_nothing_wrong(subscribers);
        for subscriber in subscribers {
            let accounted = number(subscriber, "/received") + number(subscriber, "/missed");
            assert_eq!(accounted, sent, "received or missed, and no third: {subscriber:#}");
        }
        assert_eq!(number(&subscribers[0], "/missed"), 0);
    }

    let subscribers = list(&result, "/recovery/subscribers");
    assert_nothing_wrong(subscribers);
    let published = number(&result, "/recovery/published");
    assert!(published > 0);
    assert_eq!(number(&subscribers[0], "/received"), published, "what was committed was received");
    let kills = list(&result, "/recovery/kills");
    assert_eq!(kills.len(), 1);
    let [gone, took_over, first] =
        ["/gone_ns", "/took_over_ns", "/first_quote_ns"].map(|pointer| number(&kills[0], pointer));
    assert!(gone <= took_over && took_over <= first, "{:#}", kills[0]);
    assert_eq!(list(&kills[0], "/gaps_ns").len(), 3);
}

#[test]
fn sleeping_subscribers_get_everything_that_they_should_over_every_transport() {
    assert_reliable_got_everything_on_every_transport(&["--wait", "block"]);
}

#[test]
fn spinning_subscribers_get_everything_that_they_should_over_every_transport() {
    assert_reliable_got_everything_on_every_transport(&["--wait", "spin"]);
}

#[test]
fn messages_larger_than_a_pipe_arrive_whole() {
    assert_reliable_got_everything_on_every_transport(&["--payload", "70001"]);
}

#[test]
fn the_table_has_a_row_for_each_transport_and_fits_a_terminal() {
    let directory = topics_directory();
    let output = run_short(directory.path(), &[]);
    assert_ok(&output);
    let table = text(&output.stdout);
    for transport in ["shmbus ", "unix ", "tcp ", "pipe ", "kill 1 "] {
        assert_eq!(table.lines().filter(|line| line.starts_with(transport)).count(), 1, "{table}");
    }
    assert!(table.contains("none torn, repeated or out of order"), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a file: {table}");
    // Large figures may widen it a little.
    for line in table.lines().filter(|line| !line.starts_with("Machine: ")) {
        assert!(line.chars().count() <= 92, "too wide: {line}");
    }
}

#[test]
fn only_what_was_asked_for_runs() {
    let directory = topics_directory();
    let arguments = ["--json", "--transports", "pipe,unix", "--subscribers", "1"];
    let output = run_short(directory.path(), &arguments);
    assert_ok(&output);
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let transports = list(&result, "/transports");
    assert_eq!(transports.len(), 2);
    assert!(transports.iter().all(|transport| list(transport, "/subscribers").len() == 1));
    assert_eq!(result["recovery"], Value::Null);
}

/// Whom a signal is sent to.
#[derive(Clone, Copy, Debug)]
enum To {
    /// As kill(1) does.
    DemoAlone,
    /// As a terminal does on Ctrl-C.
    Everybody,
}

/// A demo in the middle of its first transport.
struct Running {
    demo: Child,
    stderr: BufReader<ChildStderr>,
    /// Descriptors of its children, that say when they are gone.
    children: Vec<OwnedFd>,
}

impl Running {
    fn start(directory: &Path, transport: &str) -> Running {
        let arguments =
            ["--seconds", "3600", "--rate", "1000", "--plain", "--transports", transport];
        let mut demo = demo(directory, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the program runs");
        let mut stderr = BufReader::new(demo.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.ends_with("000 quotes\n") {
            line.clear();
            let len = stderr.read_line(&mut line).expect("readable");
            assert!(len > 0, "it ended early");
        }
        let children = children_of(demo.id());
        assert_eq!(children.len(), 4, "a feed and three subscribers");
        Running { demo, stderr, children }
    }

    /// Sends `signal`; returns the exit code of the demo, the rest of what it said, and its children.
    fn end_with(mut self, signal: Signal, to: To) -> (Option<i32>, String, Vec<OwnedFd>) {
        let demo = pid_of(self.demo.id());
        let sent = match to {
            To::DemoAlone => kill_process(demo, signal),
            To::Everybody => kill_process_group(demo, signal),
        };
        sent.expect("it runs");
        let mut said = String::new();
        while self.stderr.read_line(&mut said).expect("readable") > 0 {}
        let status = self.demo.wait().expect("it ends");
        (status.code(), said, std::mem::take(&mut self.children))
    }
}

/// A test that fails leaves no demo behind: its children die with it.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.demo.kill();
        let _ = self.demo.wait();
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("a process id")
}

fn children_of(parent: u32) -> Vec<OwnedFd> {
    let processes = std::fs::read_dir("/proc").expect("readable").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    pids.filter(|pid| parent_of(pid) == Some(parent))
        .map(|pid| pidfd_open(pid_of(pid), PidfdFlags::empty()).expect("it runs"))
        .collect()
}

fn is_gone(process: &OwnedFd) -> bool {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&now)).expect("a process can be polled")
        == 1
}

#[test]
fn an_interrupted_demo_leaves_no_process_and_no_topic() {
    let ends_cleanly = |signal, to, transport| {
        let directory = topics_directory();
        let running = Running::start(directory.path(), transport);
        let topics = Directory::at(directory.path()).and_then(|d| d.topics()).expect("readable");
        assert_eq!(topics.len(), usize::from(transport == "shmbus"), "{topics:?}");

        let (code, said, children) = running.end_with(signal, to);
        assert_eq!((code, said.as_str()), (Some(130), ""), "{signal:?} to {to:?}, {transport}");
        assert!(children.iter().all(is_gone), "{signal:?} to {to:?}, {transport}");
        assert_empty(directory.path());
    };
    std::thread::scope(|scope| {
        scope.spawn(|| ends_cleanly(Signal::INT, To::Everybody, "shmbus"));
        scope.spawn(|| ends_cleanly(Signal::INT, To::Everybody, "tcp"));
        scope.spawn(|| ends_cleanly(Signal::TERM, To::DemoAlone, "shmbus"));
        scope.spawn(|| ends_cleanly(Signal::HUP, To::DemoAlone, "unix"));
        scope.spawn(|| ends_cleanly(Signal::INT, To::DemoAlone, "pipe"));
    });
}

#[test]
fn a_killed_demo_takes_its_processes_along_and_the_next_one_removes_its_topic() {
    let directory = topics_directory();
    let running = Running::start(directory.path(), "shmbus");
    let (code, _, children) = running.end_with(Signal::KILL, To::DemoAlone);
    assert_eq!(code, None);
    for child in &children {
        let gone = poll(&mut [PollFd::new(child, PollFlags::IN)], None);
        assert_eq!(gone.expect("a process can be polled"), 1);
    }
    let topics = || Directory::at(directory.path()).and_then(|d| d.topics()).expect("readable");
    assert_eq!(topics().len(), 1, "nobody was left to remove it");

    assert_ok(&run_short(directory.path(), &["--transports", "pipe"]));
    assert_empty(directory.path());
}

#[test]
fn the_topic_of_a_living_demo_is_left_alone_by_another() {
    let directory = topics_directory();
    let running = Running::start(directory.path(), "shmbus");
    assert_ok(&run_short(directory.path(), &["--transports", "shmbus"]));
    let topics = Directory::at(directory.path()).and_then(|d| d.topics()).expect("readable");
    assert_eq!(topics, [format!("demo/{}-quotes", running.demo.id())]);
    assert_eq!(running.end_with(Signal::INT, To::DemoAlone).0, Some(130));
    assert_empty(directory.path());
}

#[test]
fn a_child_that_dies_is_reported_and_takes_the_demo_down() {
    let directory = topics_directory();
    let running = Running::start(directory.path(), "shmbus");
    rustix::process::pidfd_send_signal(&running.children[0], Signal::KILL).expect("it runs");
    let mut running = running;
    let status = running.demo.wait().expect("it ends");
    let mut said = String::new();
    while running.stderr.read_line(&mut said).expect("readable") > 0 {}
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("shmbus: ") && said.contains("ended before its work was done"), "{said}");
    assert!(running.children.iter().all(is_gone));
    assert_empty(directory.path());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let directory = topics_directory();
    let mut running =
        demo(directory.path(), &SHORT).stdout(Stdio::piped()).spawn().expect("the program runs");
    drop(running.stdout.take());
    assert_eq!(running.wait().expect("it ends").code(), Some(0));
    assert_empty(directory.path());
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let directory = topics_directory();
    for wrong in [["--payload", "47"], ["--rate", "0"], ["--seconds", "-1"], ["--wait", "nap"]] {
        let output = demo(directory.path(), &wrong).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let output = demo(Path::new("/proc/nowhere"), &[]).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("shmbus: ") && said.contains("/proc/nowhere"), "{said}");
}

#[test]
fn the_hidden_command_is_for_the_demo_alone() {
    let output = Command::new(env!("CARGO_BIN_EXE_shmbus"))
        .args(["demo-child", "--parent", "1", "{}"])
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(1));
}
