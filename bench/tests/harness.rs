//! The harness itself: that what it says of a transport is so, and that a process that goes away is an error and never a hang.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmbus-bench"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let is_child = |stat: &str| {
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
        fields.and_then(|mut fields| fields.nth(1)?.parse().ok()) == Some(pid)
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat))
    })
    .collect()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// A run of a minute, two processes of which are in it.
fn long_run() -> (Child, Vec<u32>) {
    let mut child = bench(&["latency", "--full", "--transports", "unix stream"]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut pids = Vec::new();
    while pids.len() != 2 && Instant::now() < deadline {
        std::thread::yield_now();
        pids = children(child.id());
    }
    if pids.len() != 2 {
        let _ = child.kill();
        panic!("its processes were never seen: {}", child.wait().unwrap());
    }
    (child, pids)
}

#[test]
fn every_transport_delivers_what_was_sent_in_order_or_counts_it_as_missed() {
    let output = bench(&["check"]).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for name in ["shmbus", "unix stream", "unix seqpacket", "tcp", "udp", "pipe", "bare ring"] {
        let line = said.lines().find(|line| line.starts_with(&format!("{name}  ")));
        let line = line.unwrap_or_else(|| panic!("{name} was not checked: {said}"));
        assert!(name == "udp" || line.ends_with(" 0 missed"), "{line}");
    }
}

#[test]
fn a_killed_process_of_a_run_is_an_error_and_the_others_end_with_it() {
    let (child, pids) = long_run();
    kill(pids[1]);
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    // It was killed in a run, or was the partner of the probe between two.
    let said = text(&output);
    assert!(
        ["ended before", "is gone", "partner process", "did not start"]
            .iter()
            .any(|words| said.contains(words)),
        "{said}"
    );
    assert!(!fs::exists(format!("/proc/{}", pids[0])).unwrap());
}

#[test]
fn the_processes_of_a_run_die_with_it() {
    let (mut child, pids) = long_run();
    kill(child.id());
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while pids.iter().any(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }) {
        assert!(Instant::now() < deadline, "they live on");
        std::thread::yield_now();
    }
    // Who is killed removes nothing.
    let left = format!("shmbus-bench-{}-", child.id());
    for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&left) {
            fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_transport_that_is_not_there_is_named_with_those_that_are() {
    let output = bench(&["latency", "--transports", "carrier pigeon"]).output().unwrap();
    let said = text(&output);
    assert!(!output.status.success());
    assert!(said.contains("carrier pigeon") && said.contains("unix seqpacket"), "{said}");
}

#[test]
fn raw_data_names_the_machine_and_holds_every_run() {
    let file = std::env::temp_dir().join(format!("shmbus-bench-test-{}.json", std::process::id()));
    let path = file.to_str().unwrap();
    let arguments =
        ["throughput", "--quick", "--rounds", "2", "--transports", "pipe,shmbus", "--json", path];
    let output = bench(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let results: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(results["measurement"], "throughput");
    assert!(results["machine"]["kernel"].as_str().unwrap().starts_with("Linux "));
    let records = results["records"].as_array().unwrap();
    assert_eq!(records.len(), 2 * 2 * 2); // rounds, transports, ways of waiting
    for record in records {
        assert!(record["values"]["rate_per_s"].as_f64().unwrap() > 0.0, "{record}");
    }
    assert!(text(&output).contains("| pipe"));
}
