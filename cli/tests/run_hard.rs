//! `shmbus run` where something goes wrong around it: killed supervisors, readers that do not read, limits, a terminal that is gone.

mod program;
#[path = "program/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use program::{Place, Running};
use rustix::process::Signal;
use serde_json::Value;
use shmbus_sys::record::{Kind, Records};
use shmbus_sys::shm::Access;
use tree::{files, process, processes, script, start, until, until_status};

const SHMBUS: &str = env!("CARGO_BIN_EXE_shmbus");
const TOPIC: &str = "[[topic]]\nname = \"t\"\n";
const SLEEPER: &str =
    "[[process]]\nname = \"p\"\ncommand = [\"sleep\", \"1000\"]\ntopics = [\"t\"]\n";

fn until_running(place: &Place, name: &str) -> Value {
    until_status(place, name, |status| process(status, "p")["state"] == "running")
}

/// A run took every topic of its file for its own if the one before it was killed, and removed it with what was in it.
#[test]
fn a_run_after_a_killed_one_removes_what_that_one_created_and_nothing_else() {
    let place = Place::new();
    let own = "[[topic]]\nname = \"own\"\n";
    let topics = || place.directory().topics().unwrap();
    place.run_with(b"precious\n", &["pub", "t", "--quiet"]).ok();
    for _ in 0..2 {
        let (mut run, _) = start(&place, "tree", &format!("{TOPIC}{own}{SLEEPER}"));
        until_running(&place, "tree");
        run.signal(Signal::KILL);
        drop(run);
        until("its processes are gone", || processes(&place).is_empty());
    }
    // Somebody makes one of them anew: it is theirs then.
    place.run(&["rm", "own"]).ok();
    place.run_with(b"theirs\n", &["pub", "own", "--quiet"]).ok();
    let third = "[[topic]]\nname = \"third\"\n";
    let (mut run, file) = start(&place, "tree", &format!("{TOPIC}{own}{third}{SLEEPER}"));
    until_running(&place, "tree");
    run.signal(Signal::KILL);
    drop(run);
    assert!(topics().contains(&"third".to_owned()));
    let mut run = place.start(&["run", &file]);
    until_running(&place, "tree");
    run.signal(Signal::TERM);
    run.finish().ok();
    assert_eq!(topics(), ["own", "t"]);
    assert_eq!(
        place.run(&["echo", "t", "--from", "oldest", "--count", "1", "--quiet"]).ok().text(),
        "precious\n"
    );
}

/// The name was free up to a second before the topics were removed.
#[test]
fn the_next_run_of_a_name_keeps_its_topics() {
    let place = Place::new();
    // What has left the group holds the streams open: nobody waits for it.
    let text =
        format!("{TOPIC}{}", script("p", "setsid sleep 3 & exec sleep 1000", "topics = [\"t\"]"));
    let (mut run, file) = start(&place, "race", &text);
    for _ in 0..5 {
        until_running(&place, "race");
        run.signal(Signal::TERM);
        until("its name is free", || place.run(&["status", "race"]).code() == 1);
        let next = place.start(&["run", &file]);
        std::mem::replace(&mut run, next).finish().ok();
        until_running(&place, "race");
        assert!(place.directory().topics().unwrap().contains(&"t".to_owned()));
    }
    run.signal(Signal::TERM);
    run.finish().ok();
}

/// A lock on the file of the topic, which whoever may read it can take, was a supervisor that lives.
#[test]
fn a_read_lock_of_anybody_is_no_supervisor() {
    let place = Place::new();
    let (mut run, file) = start(&place, "tree", &format!("{TOPIC}{SLEEPER}"));
    until_running(&place, "tree");
    run.signal(Signal::KILL);
    drop(run);
    let control = place.topics_path().join("shmbus/run/tree/.topic");
    let locks: Vec<Records> = fs::read_dir(control)
        .unwrap()
        .map(|file| Records::open(&file.unwrap().path(), Access::ReadOnly).unwrap())
        .collect();
    assert!(locks.iter().all(|lock| lock.try_lock(Kind::Shared, 0, 0).unwrap()));
    let status: Value = serde_json::from_str(place.run(&["status", "--json"]).text()).unwrap();
    assert_eq!(status["alive"], false);
    let mut run = place.start(&["run", &file]);
    assert_eq!(until_running(&place, "tree")["alive"], true);
    let lock = place.topics_path().join(".run-tree");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(lock).unwrap());
    assert_eq!(mode & 0o777, 0o600, "whoever may only read cannot open it");
    run.signal(Signal::TERM);
    run.finish().ok();
}

/// The supervisor's own thread wrote to standard error, and slept in there.
#[test]
fn a_run_whose_output_nobody_reads_is_stopped_all_the_same() {
    let place = Place::new();
    let text = "[restarts]\nmax = 1000000\ndelay = \"1ms\"\ndelay-max = \"1ms\"\n".to_owned()
        + &script("noisy", "yes a line that nobody reads >&2", "")
        + &script("crasher", "exit 1", "");
    let file = place.written("stuck.toml", text.as_bytes());
    let mut run = place.start(&["run", &file]);
    let mut stderr = run.stderr();
    let restarts = |least: u64| {
        until_status(&place, "stuck", |status| {
            process(status, "crasher")["restarts"].as_u64() >= Some(least)
        });
    };
    until("the pipe is full", || rustix::io::ioctl_fionread(&stderr).unwrap() >= 60_000);
    restarts(500); // it goes on, and has more to say than is kept
    // Without a hurry to be read, what was left out is said where it is missing.
    let reading = std::thread::spawn(move || {
        let mut bytes = vec![0; 4 << 20];
        stderr.read_exact(&mut bytes).map(|()| (bytes, stderr)).unwrap()
    });
    let (bytes, stderr) = reading.join().unwrap();
    for line in String::from_utf8(bytes).unwrap().lines().take(1000) {
        assert!(
            line.starts_with("noisy   | a line that nobody reads")
                || line.starts_with("shmbus: crasher"),
            "{line}"
        );
    }
    run.signal(Signal::TERM);
    // Nobody reads again: it waits for a while, and then says by its status that something is lost.
    assert_eq!(run.wait().code(), Some(1));
    drop(stderr);
    assert_eq!(processes(&place), BTreeSet::new());
    assert_eq!(files(&place.topics_path()), [""; 0]);
}

/// What was under way a second after the end was dropped without a word.
#[test]
fn a_slow_reader_gets_everything_and_a_signal_ends_the_wait_for_it() {
    let place = Place::new();
    let once =
        "[[process]]\nname = \"p\"\ncommand = [\"seq\", \"-w\", \"12000\"]\nrestart = \"never\"\n";
    let is_up = || !place.directory().topics().unwrap().is_empty();
    let (run, _) = start(&place, "slow", once);
    until("it has begun", is_up);
    until("the tree has ended", || !is_up());
    std::thread::sleep(Duration::from_millis(1500)); // the reader is slow
    let done = run.finish().ok();
    assert_eq!(done.text().lines().count(), 12_000);
    assert!(done.text().ends_with("p | 12000\n"));
    let (mut run, _) = start(&place, "slow", &once.replace("12000", "1200000"));
    until("it has begun", is_up);
    let full = || rustix::io::ioctl_fionread(run.stdout_fd()).unwrap() >= 60_000;
    until("nobody reads", full);
    run.signal(Signal::TERM);
    let status = run.wait();
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    run.stderr().read_to_string(&mut said).unwrap();
    assert!(said.contains("bytes that were printed are lost"), "{said}");
}

/// Opening it hung.
#[test]
fn a_log_file_may_be_a_fifo_that_nobody_reads_yet() {
    let place = Place::new();
    let fifo = place.file("log");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let text = script("p", "echo first; exec sleep 1000", "log-file = \"log\"");
    let (mut run, _) = start(&place, "fifo", &text);
    until_running(&place, "fifo");
    let mut first = [0; 6];
    fs::File::open(&fifo).unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    run.signal(Signal::TERM);
    run.finish().ok();
}

/// One that changes its user has lost the order to die with its supervisor, and the next run started a second copy. Here it gives the order up by itself.
#[test]
fn what_does_not_die_with_its_supervisor_is_ended_by_the_guard_or_by_the_next_run() {
    let place = Place::new();
    let command = "command = [\"setpriv\", \"--pdeathsig\", \"clear\", \"sleep\", \"1000\"]\n";
    let text = format!("[[process]]\nname = \"p\"\n{command}");
    let (mut run, file) = start(&place, "tree", &text);
    let is_up = || {
        let up = until_running(&place, "tree");
        let pid = process(&up, "p")["pid"].as_u64().unwrap();
        let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        until("it is without the order", || name() == "sleep\n");
        pid as u32
    };
    is_up();
    run.signal(Signal::KILL);
    drop(run);
    until("the guard ends it", || processes(&place).is_empty());
    let mut run = place.start(&["run", &file]);
    let left = is_up();
    let state = place.topics_path().join(".run.state-tree");
    let state = state.to_str().unwrap();
    let guards = || -> Vec<i32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let pid: i32 = entry.unwrap().file_name().to_str()?.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut words = line.split(|byte| *byte == 0);
            let is_guard = words.next() == Some(b"shmbus-guard");
            (is_guard && words.next() == Some(state.as_bytes())).then_some(pid)
        });
        pids.collect()
    };
    until("the first guard has done its work", || guards().len() == 1);
    let guard = guards()[0];
    let guard = rustix::process::Pid::from_raw(guard).unwrap();
    rustix::process::kill_process(guard, Signal::KILL).unwrap();
    run.signal(Signal::KILL);
    drop(run);
    assert!(processes(&place).contains(&left), "nobody has ended it");
    let mut run = place.start(&["run", &file]);
    until("another one runs", || process(&until_running(&place, "tree"), "p")["pid"] != left);
    assert!(!processes(&place).contains(&left), "before another one was started");
    run.signal(Signal::TERM);
    run.finish().ok();
    assert_eq!(guards(), [0; 0]);
    assert_eq!(files(&place.topics_path()), [""; 0]);
}

/// Descriptors that it was started with reached its processes; a limit was met by restarts.
#[test]
fn descriptors_are_counted_raised_and_kept_from_processes() {
    let place = Place::new();
    let facts = "ulimit -Sn >&2; ls /proc/self/fd | wc -l; exec sleep 1000";
    let text: String = (0..40).map(|n| script(&format!("p{n}"), facts, "")).collect();
    let file = place.written("many.toml", text.as_bytes());
    let limited = |limits: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits}; exec 9</dev/null; exec {SHMBUS} run {file}")]);
        command.env("SHMBUS_DIR", place.topics_path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let output = limited("ulimit -n 100").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("40 processes need ") && said.contains(", and 100 are allowed"),
        "{said}"
    );
    let mut run = Running::of(limited("ulimit -Sn 100").spawn().unwrap());
    let all = |status: &Value| {
        let processes = status["processes"].as_array().unwrap();
        processes.len() == 40 && processes.iter().all(|one| one["state"] == "running")
    };
    let status = until_status(&place, "many", all);
    assert!(status["processes"].as_array().unwrap().iter().all(|one| one["restarts"] == 0));
    until("all have said it", || {
        let unread = |fd| rustix::io::ioctl_fionread(fd).unwrap();
        unread(run.stdout_fd()) >= 40 * 8 && unread(run.stderr_fd()) >= 40 * 10
    });
    run.signal(Signal::TERM);
    let done = run.finish().ok();
    let (out, err) = (done.text(), &done.stderr);
    // Of `ls`: its streams, the pipe that says when to stop, and what it reads.
    let counts: Vec<&str> =
        out.lines().filter_map(|line| line.split_once("| ")).map(|(_, n)| n.trim()).collect();
    assert_eq!(counts, ["5"; 40]);
    let limits = err.lines().filter_map(|line| line.split_once("| "));
    assert_eq!(limits.filter(|(_, limit)| *limit == "100").count(), 40, "{err}");
}

/// Killed with all that it has started, if the test has not ended it.
struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// It went on for ever.
#[test]
fn a_run_ends_with_its_terminal_unless_hang_ups_are_ignored() {
    let place = Place::new();
    let file = place.written("tree.toml", format!("{TOPIC}{SLEEPER}").as_bytes());
    for nohup in ["", "trap '' HUP; "] {
        let (person, program) = program::terminal();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", &format!("{nohup}{SHMBUS} run {file}; true")]);
        command.env("SHMBUS_DIR", place.topics_path()).stdout(Stdio::null()).stderr(Stdio::null());
        let session = Session(command.stdin(program).spawn().unwrap());
        drop(command);
        let up = until_running(&place, "tree");
        let pid = rustix::process::Pid::from_raw(up["pid"].as_u64().unwrap() as i32).unwrap();
        drop(person);
        if nohup.is_empty() {
            until("it has ended", || files(&place.topics_path()).is_empty());
        } else {
            // The kernel has told all of the terminal by now: one that is not ignored would have come.
            until("it has no terminal", || {
                shmbus_sys::process::stat(pid.as_raw_pid() as u32).unwrap().terminal == 0
            });
            rustix::process::kill_process(pid, Signal::HUP).unwrap();
            assert_eq!(until_running(&place, "tree")["alive"], true);
            rustix::process::kill_process(pid, Signal::TERM).unwrap();
            until("it has ended", || files(&place.topics_path()).is_empty());
        }
        drop(session);
    }
}

/// It tried to open and to create such a topic in turns, for ever, deaf to signals.
#[test]
fn a_topic_without_its_files_is_no_endless_loop() {
    let place = Place::new();
    let directory = place.topics_path().join("t/.topic");
    let plain = SLEEPER.replace("topics = [\"t\"]\n", "");
    fs::create_dir_all(&directory).unwrap();
    // From the beginning: it is an error of its line, unless the topic can be made anew.
    let (mut run, _) = start(&place, "dam", &format!("{TOPIC}{SLEEPER}"));
    until("it is up, or has said no", || run.has_ended() || processes(&place).len() > 1);
    if !run.has_ended() {
        run.signal(Signal::TERM);
    }
    until("it ends", || run.has_ended());
    let done = run.finish();
    assert!(done.code() == 0 || done.stderr.contains("dam.toml:2:8"), "{done:?}");
    // By a reload: nothing is changed, or all is well.
    fs::create_dir_all(&directory).unwrap();
    let (mut run, file) = start(&place, "dam", &plain);
    let before = until_running(&place, "dam");
    fs::write(&file, format!("{plain}{TOPIC}")).unwrap();
    run.signal(Signal::HUP);
    let pid = process(&before, "p")["pid"].as_i64().unwrap() as i32;
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    until_status(&place, "dam", |status| process(status, "p")["restarts"] == 1);
    run.signal(Signal::TERM);
    run.finish().ok();
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new();
    let run = |more: &str| {
        start(&place, "end", &script("p", "exit 0", &format!("restart = \"never\"\n{more}")))
            .0
            .finish()
    };
    run("cwd = \"nowhere\"")
        .failed(1, &["p was not started: working directory ", "/nowhere: No such file"]);
    run("log-file = \"nowhere/log\"")
        .failed(1, &["p was not started: log-file ", "/nowhere/log: No such file"]);
}
