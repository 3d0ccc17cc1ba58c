//! `shmbus run` and `shmbus status`: processes on topics, from a file.

mod program;
#[path = "program/tree.rs"]
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use program::Place;
use rustix::process::Signal;
use serde_json::Value;
use tree::{files, process, processes, script, start, until, until_status};

const SHMBUS: &str = env!("CARGO_BIN_EXE_shmbus");

#[test]
fn processes_work_together_on_topics_and_nothing_is_left_of_them() {
    let place = Place::new();
    let feed = format!(
        "seq 3000 | {SHMBUS} pub lines --wait-subscribers 2 --quiet; sleep 0.1; {SHMBUS} pub kept --message x --quiet"
    );
    let reader = format!("{SHMBUS} echo lines --reliable --count 3000 --quiet");
    let once = "restart = \"never\"\ntopics = [\"lines\"]";
    place.run_with(b"", &["pub", "before", "--quiet"]).ok(); // not this run's to remove
    let text = [
        "[[topic]]\nname = \"before\"\n[[topic]]\nname = \"lines\"\nmax-len = 64\ndepth = 64\n[[topic]]\nname = \"kept\"\nkeep = true\n",
        &script("one", &reader, once),
        &script("recorder", &reader, &format!("{once}\nlog-file = \"record\"")),
        &script("feed", &feed, once),
        &script("loud", "echo out; echo err >&2; printf part", once),
        &script("silent", "echo nobody sees this", &format!("{once}\nlog = \"none\"")),
    ]
    .concat();
    let (run, _) = start(&place, "all", &text);
    let done = run.finish().ok();
    let numbers: String = (1..=3000).map(|n| format!("{n}\n")).collect();
    assert_eq!(fs::read_to_string(place.file("record")).unwrap(), numbers);
    let out = done.text();
    let of = |name: &str| -> Vec<&str> {
        out.lines().filter_map(|line| line.strip_prefix(&format!("{name:<8} | "))).collect()
    };
    assert_eq!(of("one").join("\n") + "\n", numbers);
    assert_eq!(of("loud"), ["out", "part"]);
    assert_eq!(of("silent"), [""; 0]);
    assert!(done.stderr.contains("loud     | err\n"), "{}", done.stderr);
    assert!(done.stderr.contains("shmbus: feed exited with status 0 after"), "{}", done.stderr);
    assert_eq!(processes(&place), BTreeSet::new());
    assert_eq!(place.directory().topics().unwrap(), ["before", "kept"]);
    place.run(&["rm", "before", "kept"]).ok();
    assert_eq!(files(&place.topics_path()), [""; 0]);
}

#[test]
fn a_crashed_process_is_restarted_and_the_status_says_so() {
    let place = Place::new();
    let text = script("crash", "kill -SEGV $$", "") + &script("stays", "exec sleep 1000", "");
    let restarts = "[restarts]\nmax = 1000000\ndelay = \"1ms\"\ndelay-max = \"5ms\"\n";
    let (mut run, _) = start(&place, "tree", &(restarts.to_owned() + &text));
    let status = until_status(&place, "tree", |status| {
        process(status, "crash")["restarts"].as_u64() >= Some(3)
    });
    assert_eq!(status["pid"], run.pid());
    assert_eq!(status["alive"], true);
    let end = process(&status, "crash")["last_end"].as_str().unwrap();
    assert!(end.starts_with("signal 11"), "{end}");
    let stays = process(&status, "stays");
    assert_eq!((&stays["state"], &stays["restarts"]), (&"running".into(), &0.into()));
    assert!(processes(&place).contains(&(stays["pid"].as_u64().unwrap() as u32)));
    let table = place.run(&["status"]).ok();
    for word in ["tree: process ", "PROCESS", "\n  stays    running", "signal 11"] {
        assert!(table.text().contains(word), "{word:?} is not in {}", table.text());
    }
    // One of a name at a time.
    let again = place.file("tree.toml");
    place.run(&["run", again.to_str().unwrap()]).failed(1, &["tree runs already: process "]);
    run.signal(Signal::TERM);
    run.finish().ok();
    assert_eq!(processes(&place), BTreeSet::new());
    assert_eq!(files(&place.topics_path()), [""; 0]);
    place.run(&["status", "tree"]).failed(1, &["no supervisor called tree runs"]);
    assert_eq!(place.run(&["status"]).ok().text(), "");
}

#[test]
fn how_a_run_ends_is_its_exit_code() {
    let place = Place::new();
    let run = |text: &str| start(&place, "end", text).0.finish();
    run(&script("a", "exit 3", "restart = \"never\"")).failed(1, &["a exited with status 3"]);
    run(&script("a", "exit 0", "restart = \"on-failure\"")).ok();
    let text = "[restarts]\nmax = 2\ndelay = \"1ms\"\n".to_owned() + &script("a", "exit 3", "");
    run(&text).failed(3, &["a is restarted too often", "more than 2 restarts within 60s"]);
    run(&(text + &script("b", "exec sleep 1000", ""))).failed(3, &["b was ended by signal 15"]);
    let missing = "[[process]]\nname = \"a\"\ncommand = [\"./missing\"]\nrestart = \"never\"";
    run(missing).failed(1, &["a was not started: No such file"]);
    let wrong = "[[process]]\nname = \"a\"\ncomand = [\"x\"]";
    run(wrong).failed(2, &["end.toml:3:1: unknown field `comand`"]);
    run(&format!("[[topic]]\nname = \"good\"\n[[topic]]\nname = \"a//b\"\n{missing}"))
        .failed(2, &["end.toml:4:8: ", "a segment"]);
    place.run(&["run", "/nowhere.toml"]).failed(1, &["cannot read /nowhere.toml"]);
    let file = place.written("checked.toml", missing.as_bytes());
    place.run(&["run", &file, "--check"]).ok();
    // A deaf process is killed at its deadline, a second signal kills it before.
    for deadline in ["10ms", "1h"] {
        let deaf = script(
            "deaf",
            "trap '' TERM; while :; do sleep 1; done",
            &format!("stop-deadline = {deadline:?}"),
        );
        let (mut run, _) = start(&place, "deaf", &deaf);
        until_status(&place, "deaf", |status| process(status, "deaf")["state"] == "running");
        until("the shell has begun", || processes(&place).len() > 2);
        run.signal(Signal::INT);
        if deadline == "1h" {
            until_status(&place, "deaf", |status| process(status, "deaf")["state"] == "stopping");
            run.signal(Signal::INT);
        }
        run.finish().failed(0, &["deaf was ended by signal 9"]);
        until("the shell's own child is gone", || processes(&place).is_empty());
    }
    assert_eq!(files(&place.topics_path()), [""; 0]);
}

#[test]
fn a_killed_supervisor_takes_its_processes_along_and_its_name_is_free_again() {
    let place = Place::new();
    let text = "[[topic]]\nname = \"t\"\n".to_owned()
        + &script("a", "exec sleep 1000", "topics = [\"t\"]")
        + &script("b", "exec sleep 1000", "");
    let (mut run, file) = start(&place, "tree", &text);
    until_status(&place, "tree", |status| process(status, "b")["state"] == "running");
    run.signal(Signal::KILL);
    drop(run);
    until("they are gone", || processes(&place).is_empty());
    let done = place.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(done.text()).unwrap();
    assert_eq!((&status["alive"], &status["pid"]), (&false.into(), &Value::Null));
    assert_eq!(process(&status, "a")["state"], "gone");
    done.failed(1, &["one supervisor was killed"]);
    let mut run = place.start(&["run", &file]);
    until_status(&place, "tree", |status| process(status, "b")["state"] == "running");
    run.signal(Signal::TERM);
    run.finish().ok();
    assert_eq!(files(&place.topics_path()), [""; 0]);
}

#[test]
fn a_hang_up_reads_the_file_again_and_a_wrong_file_changes_nothing() {
    let place = Place::new();
    let sleep = |name: &str, seconds: u32| script(name, &format!("exec sleep {seconds}"), "");
    let (mut run, file) = start(
        &place,
        "tree",
        &(sleep("same", 1000) + &sleep("other", 1000) + &sleep("gone", 1000)),
    );
    let mut err = BufReader::new(run.stderr());
    let mut said = |word: &str| {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(err.read_line(&mut line).unwrap(), 0, "{word} was not said");
        }
    };
    let is_up = |status: &Value| {
        let processes = status["processes"].as_array().unwrap();
        processes.len() == 3 && processes.iter().all(|one| one["state"] == "running")
    };
    let before = until_status(&place, "tree", is_up);
    fs::write(&file, "nonsense").unwrap();
    run.signal(Signal::HUP);
    said("nothing is changed: ");
    let now = until_status(&place, "tree", is_up);
    assert_eq!(now["processes"], before["processes"]);
    fs::write(&file, sleep("new", 1000) + &sleep("same", 1000) + &sleep("other", 2000)).unwrap();
    run.signal(Signal::HUP);
    said("the file was read again");
    let now = until_status(&place, "tree", |now| {
        is_up(now)
            && now["processes"].as_array().unwrap().iter().all(|one| one["name"] != "gone")
            && process(now, "other")["pid"] != process(&before, "other")["pid"]
    });
    assert_eq!(process(&now, "same"), process(&before, "same"));
    assert_eq!(process(&now, "new")["restarts"], 0);
    run.signal(Signal::TERM);
    std::io::copy(&mut err, &mut std::io::sink()).unwrap();
    run.finish().ok();
    assert_eq!(processes(&place), BTreeSet::new());
}

#[test]
fn another_user_who_may_read_sees_the_status_and_leaves_no_trace() {
    let nobody = 65_534;
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    if Command::new("true").uid(nobody).gid(nobody).status().is_err() {
        return eprintln!("skipped: this user may not be another one");
    }
    let programs = Place::new();
    let program = programs.file("shmbus");
    fs::copy(SHMBUS, &program).unwrap();
    open(program.parent().unwrap());
    let place = Place::new();
    let (mut run, _) = start(&place, "tree", &script("a", "exec sleep 1000", ""));
    until_status(&place, "tree", |status| process(status, "a")["state"] == "running");
    let topics = place.topics_path();
    for path in [topics.parent().unwrap(), &topics] {
        open(path);
    }
    let mut command = Command::new(&program);
    command.args(["status"]).env("SHMBUS_DIR", &topics).uid(nobody).gid(nobody);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // What it publishes is to be read, and whether it lives is not to be seen.
    assert!(said.contains("  a        running"), "{output:?}");
    assert!(said.contains("tree: unknown whether it lives"), "{output:?}");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    run.signal(Signal::TERM);
    run.finish().ok();
}
