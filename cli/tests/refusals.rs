//! Every command in five bad situations: its exit code, and what it says. A command that is in the program and not in the table fails a test.
//!
//! The full file system is a small tmpfs in a mount namespace, the missing permission that of another user: where this user may not
//! have those, the reason is printed and the column left out.

mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use program::{Place, Running};

/// An exit code, and words that are on standard output or standard error.
type Answer = (i32, &'static [&'static str]);

/// What a command answers. `t` is the topic; input is one line.
struct Row {
    /// The command and its arguments.
    arguments: &'static [&'static str],
    /// There is no topic.
    no_topic: Option<Answer>,
    /// The header of `t` is zero.
    corrupt: Option<Answer>,
    /// `t` is there with a message, and not a page is free.
    full: Option<Answer>,
    /// The directory may be searched; the files of `t` are another user's.
    no_permission: Option<Answer>,
}

/// Of a command that does not look at topics in that situation, or runs for long: it is tested elsewhere.
const ELSEWHERE: Option<Answer> = None;
const FOREIGN: &str = "topic t: data is not a file of shmbus";
const DENIED: &str = "topic t: permission denied: cannot open";

const fn answers(code: i32, words: &'static [&'static str]) -> Option<Answer> {
    Some((code, words))
}

const TABLE: &[Row] = &[
    Row {
        arguments: &["pub", "t"],
        no_topic: answers(0, &["published 1"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(0, &["published 1"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["pub", "new"],
        no_topic: answers(0, &["published 1"]),
        corrupt: answers(0, &["published 1"]),
        full: answers(1, &["topic new needs", "are free in", "lower depth"]),
        no_permission: answers(1, &["topic new: cannot create it: Permission denied"]),
    },
    Row {
        arguments: &["echo", "t", "--from", "oldest", "--count", "1"],
        no_topic: answers(1, &["there is no topic t", "--wait"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(0, &["in it\n"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["list"],
        no_topic: answers(0, &[]),
        corrupt: answers(1, &[FOREIGN, "1 of the topics"]),
        full: answers(0, &["\nt "]),
        no_permission: answers(1, &[DENIED, "1 of the topics"]),
    },
    Row {
        arguments: &["info", "t"],
        no_topic: answers(1, &["there is no topic t"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(0, &["published    1"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["schema", "t"],
        no_topic: answers(1, &["there is no topic t"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(1, &["topic t carries bytes"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["hz", "t", "--count", "1", "--interval", "0.1"],
        no_topic: answers(1, &["there is no topic t"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(0, &["MESSAGES"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["bw", "t", "--count", "1", "--interval", "0.1"],
        no_topic: answers(1, &["there is no topic t"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(0, &["MESSAGES"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["delay", "t", "--count", "1", "--interval", "0.1"],
        no_topic: answers(1, &["there is no topic t"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(1, &["do not carry the time", "--timestamp"]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["top"],
        no_topic: answers(1, &["top needs a terminal", "shmbus stat --watch"]),
        corrupt: answers(1, &["top needs a terminal", "shmbus stat --watch"]),
        full: answers(1, &["top needs a terminal", "shmbus stat --watch"]),
        no_permission: answers(1, &["top needs a terminal", "shmbus stat --watch"]),
    },
    Row {
        arguments: &["stat", "--interval", "0"],
        no_topic: answers(0, &[]),
        corrupt: answers(1, &[FOREIGN, "1 of the topics"]),
        full: answers(0, &["\nt "]),
        no_permission: answers(1, &[DENIED, "1 of the topics"]),
    },
    Row {
        arguments: &["run", "/dev/stdin"],
        no_topic: answers(2, &["/dev/stdin:1:2: "]),
        corrupt: answers(2, &["/dev/stdin:1:2: "]),
        full: answers(2, &["/dev/stdin:1:2: "]),
        no_permission: answers(1, &["cannot read /dev/stdin"]), // a pipe of the other user
    },
    Row {
        arguments: &["status"],
        no_topic: answers(0, &[]),
        corrupt: answers(0, &[]),
        full: answers(0, &[]),
        no_permission: answers(0, &[]),
    },
    Row {
        arguments: &["doctor"],
        no_topic: answers(0, &["missing"]),
        corrupt: answers(1, &[FOREIGN, "shmbus rm --force t", "there is a problem"]),
        full: answers(0, &["warning  file system", "0 B free"]),
        no_permission: answers(0, &["warning  topic", DENIED, "OFD locks      not tried"]),
    },
    Row {
        arguments: &["gc", "--unused", "--yes"],
        no_topic: answers(0, &[]),
        corrupt: answers(1, &[FOREIGN, "one thing could not"]),
        full: answers(0, &["given back: topic t"]),
        no_permission: answers(1, &[DENIED, "one thing could not"]),
    },
    Row {
        arguments: &["metrics", "--once"],
        no_topic: answers(0, &["shmbus_topics 0\n", "unreadable 0\n"]),
        corrupt: answers(0, &["shmbus_topics 0\n", "unreadable 1\n"]),
        full: answers(0, &["shmbus_topics 1\n", "unreadable 0\n"]),
        no_permission: answers(0, &["shmbus_topics 0\n", "unreadable 1\n"]),
    },
    Row {
        arguments: &["serve", "--config", "/nowhere"],
        no_topic: answers(1, &["cannot read /nowhere"]),
        corrupt: answers(1, &["cannot read /nowhere"]),
        full: answers(1, &["cannot read /nowhere"]),
        no_permission: answers(1, &["cannot read /nowhere"]),
    },
    Row {
        arguments: &["rm", "t"],
        no_topic: answers(1, &["there is no topic t"]),
        corrupt: answers(1, &[FOREIGN]),
        full: answers(0, &[]),
        no_permission: answers(1, &[DENIED]),
    },
    Row {
        arguments: &["completions", "bash"],
        no_topic: answers(0, &["shmbus"]),
        corrupt: answers(0, &["shmbus"]),
        full: answers(0, &["shmbus"]),
        no_permission: answers(0, &["shmbus"]),
    },
    Row {
        arguments: &["man"],
        no_topic: answers(0, &["shmbus"]),
        corrupt: answers(0, &["shmbus"]),
        full: answers(0, &["shmbus"]),
        no_permission: answers(0, &["shmbus"]),
    },
    // Its topics are in a directory of its own.
    Row {
        arguments: &["bench", "report", "no-such-directory"],
        no_topic: answers(1, &["docs/benchmarks.md"]),
        corrupt: answers(1, &["docs/benchmarks.md"]),
        full: answers(1, &["docs/benchmarks.md"]),
        no_permission: answers(1, &["docs/benchmarks.md"]),
    },
    Row {
        arguments: &["demo", "--plain", "--transports", "shmbus"],
        no_topic: ELSEWHERE,
        corrupt: ELSEWHERE,
        full: answers(1, &["are free in"]),
        no_permission: answers(1, &["Permission denied"]),
    },
];

/// Commands that go on while their topic is removed, and what they answer then: tested below, one by one.
const READERS: [&str; 6] = ["pub", "echo", "hz", "bw", "delay", "stat"];
/// Those that look once, and then find a topic or none.
const NO_READERS: [&str; 13] = [
    "list",
    "info",
    "schema",
    "top",
    "run",
    "status",
    "doctor",
    "gc",
    "metrics",
    "serve",
    "rm",
    "completions",
    "man",
];
/// They remove their topics themselves.
const OWN_TOPICS: [&str; 2] = ["bench", "demo"];

#[test]
fn what_a_process_may_not_have_is_told_and_leaves_nothing() {
    let place = Place::new();
    let done = place.run_after("ulimit -f 8", &["pub", "t", "--depth", "1024"]);
    done.failed(1, &["topic t needs a file of", "ulimit -f"]);
    // Enough for the program, and not for the topic; or for one mapping of it, and not for two.
    for mebibytes in [96, 160, 224] {
        let limit = format!("ulimit -v {}", mebibytes << 10);
        let done = place.run_after(&limit, &["pub", "t", "--max-len", "65536", "--depth", "1024"]);
        if done.code() != 0 {
            assert!(place.directory().topics().unwrap().is_empty(), "{mebibytes}: {done:?}");
            assert!(done.stderr.contains("emory"), "{done:?}");
        }
        place.run(&["rm", "--force", "t"]);
    }
    for endless in ["/dev/zero", "/proc/self/mem"] {
        let limit = "ulimit -v 4194304";
        place.run_after(limit, &["pub", "t", "--schema", endless]).failed(1, &[endless]);
        place.run_after(limit, &["run", endless]).failed(1, &[endless]);
        place.run_after(limit, &["serve", "--config", endless]).failed(1, &[endless]);
    }
    place.run(&["pub", "--", "-x"]).failed(1, &["\"-x\" is not a topic name", "begins with '-'"]);
    assert!(place.directory().topics().unwrap().is_empty());
    // One that was made before the rule goes like any other.
    place.run(&["pub", "old"]).ok();
    std::fs::rename(place.topics_path().join("old"), place.topics_path().join("-x")).unwrap();
    assert_eq!(
        place.run(&["list"]).ok().text().lines().nth(1).unwrap().split(' ').next(),
        Some("-x")
    );
    place.run(&["rm", "--", "-x"]).ok();
    let mut command = place.command(&["pub", "bytes", "--message"]);
    command.arg(std::os::unix::ffi::OsStrExt::from_bytes(&b"a\xff"[..]) as &std::ffi::OsStr);
    Running::of(command.spawn().unwrap()).finish().ok();
    assert_eq!(
        place.run(&["echo", "bytes", "--drain", "--from", "oldest", "-q"]).stdout,
        b"a\xff\n"
    );
}

#[test]
fn every_command_is_in_the_table() {
    let place = Place::new();
    let mut verbs = place.verbs();
    let mut rows: Vec<&str> = TABLE.iter().map(|row| row.arguments[0]).collect();
    let mut removed: Vec<&str> = READERS.into_iter().chain(NO_READERS).chain(OWN_TOPICS).collect();
    verbs.sort();
    rows.sort_unstable();
    rows.dedup();
    removed.sort_unstable();
    assert_eq!(verbs, rows, "commands of the program, and of the table");
    assert_eq!(verbs, removed, "commands of the program, and whether they read on");
}

/// Runs a command with a line as input, and holds what it leaves against what it should.
#[track_caller]
fn check(wrong: &mut Vec<String>, row: &Row, answer: Option<Answer>, mut command: Command) {
    let Some((code, words)) = answer else { return };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(b"x\n");
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    let missing: Vec<_> = words.iter().filter(|word| !said.contains(**word)).collect();
    // Who fails says why, as this program.
    let is_silent = code != 0 && !String::from_utf8_lossy(&stderr).contains("shmbus: ");
    if status.code() != Some(code) || !missing.is_empty() || is_silent {
        wrong.push(format!(
            "{:?}: {status}, not {code}; without {missing:?}; said:\n{said}",
            row.arguments
        ));
    }
}

fn nothing_is(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn with_topic() -> Place {
    let place = Place::new();
    place.run_with(b"in it\n", &["pub", "t", "--depth", "8", "--max-len", "64"]).ok();
    place
}

#[test]
fn without_the_topic() {
    let mut wrong = Vec::new();
    for row in TABLE {
        check(&mut wrong, row, row.no_topic, Place::new().command(row.arguments));
    }
    nothing_is(&wrong);
}

#[test]
fn with_a_corrupt_topic() {
    let mut wrong = Vec::new();
    for row in TABLE {
        let place = with_topic();
        let data = place.topics_path().join("t/.topic/data");
        let len = fs::metadata(&data).unwrap().len();
        fs::write(&data, vec![0; len as usize]).unwrap();
        check(&mut wrong, row, row.corrupt, place.command(row.arguments));
    }
    nothing_is(&wrong);
}

/// How to run a script that may mount, if this user may do so at all.
fn mounting() -> Option<&'static str> {
    let place = Place::new();
    fs::create_dir(place.topics_path()).unwrap();
    ["--mount", "-rm"].into_iter().find(|option| {
        let mut command = Command::new("unshare");
        command.args([option, "mount", "-t", "tmpfs", "none"]).arg(place.topics_path());
        command.output().is_ok_and(|output| output.status.success())
    })
}

#[test]
fn on_a_full_file_system() {
    let Some(option) = mounting() else {
        return eprintln!("skipped: this user may not mount");
    };
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=256k,mode=700 none "$SHMBUS_DIR" || exit 99
        echo "in it" | "$0" pub t --depth 8 --max-len 64 --quiet || exit 98
        cat /dev/zero > "$SHMBUS_DIR/filler" 2> /dev/null
        exec "$0" "$@""#;
    let mut wrong = Vec::new();
    for row in TABLE {
        let place = Place::new();
        fs::create_dir(place.topics_path()).unwrap();
        let mut command = Command::new("unshare");
        command.args([option, "sh", "-c", SCRIPT, env!("CARGO_BIN_EXE_shmbus")]);
        command.args(row.arguments).env("SHMBUS_DIR", place.topics_path());
        check(&mut wrong, row, row.full, command);
    }
    nothing_is(&wrong);
}

#[test]
fn as_another_user() {
    let nobody = 65_534;
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    // The program itself may be where nobody else may go.
    let programs = Place::new();
    let program = programs.file("shmbus");
    fs::copy(env!("CARGO_BIN_EXE_shmbus"), &program).unwrap();
    open(program.parent().unwrap());
    let mut wrong = Vec::new();
    for row in TABLE {
        let place = with_topic();
        let topics = place.topics_path();
        for path in [topics.parent().unwrap(), &topics, &topics.join("t"), &topics.join("t/.topic")]
        {
            open(path);
        }
        let mut command = Command::new(&program);
        command.args(row.arguments).env("SHMBUS_DIR", &topics).uid(nobody).gid(nobody);
        let mut probe = Command::new("true");
        if probe.uid(nobody).gid(nobody).status().is_err() {
            return eprintln!("skipped: this user may not be another one");
        }
        check(&mut wrong, row, row.no_permission, command);
    }
    nothing_is(&wrong);
}

#[test]
fn another_user_who_may_read_a_topic_echoes_it_and_leaves_no_trace() {
    let nobody = 65_534;
    let mode =
        |path: &Path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    let programs = Place::new();
    let program = programs.file("shmbus");
    fs::copy(env!("CARGO_BIN_EXE_shmbus"), &program).unwrap();
    mode(program.parent().unwrap(), 0o755);
    let place = with_topic();
    let topics = place.topics_path();
    let files = topics.join("t/.topic");
    for path in [topics.parent().unwrap(), &topics, &topics.join("t"), &files] {
        mode(path, 0o755);
    }
    for file in ["data", "ctl"] {
        mode(&files.join(file), 0o444);
    }
    if Command::new("true").uid(nobody).gid(nobody).status().is_err() {
        return eprintln!("skipped: this user may not be another one");
    }
    let before = ["data", "ctl"].map(|file| fs::read(files.join(file)).unwrap());
    let mut command = Command::new(&program);
    command.args(["echo", "t", "--from", "oldest", "--count", "1", "--quiet"]);
    let output = command.env("SHMBUS_DIR", &topics).uid(nobody).gid(nobody).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in it\n", "{output:?}");
    assert!(before == ["data", "ctl"].map(|file| fs::read(files.join(file)).unwrap()));
}

#[test]
fn a_topic_removed_while_it_is_read_ends_the_reader_well_and_the_publisher_with_an_error() {
    let place = with_topic();
    let mut echo = place.start(&["echo", "t", "--from", "oldest"]);
    let mut output = BufReader::new(echo.stdout());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "in it\n");
    place.run(&["rm", "t", "--force"]).ok();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    echo.finish().failed(0, &["received 1, missed 0"]);
    assert_eq!(rest, "");

    let place = with_topic();
    let mut publisher = place.start(&["pub", "t"]);
    let mut input = publisher.stdin();
    place.wait_until("t", |info| info.participants.iter().any(|one| one.liveness.is_alive()));
    place.run(&["rm", "t", "--force"]).ok();
    let _ = input.write_all("x\n".repeat(100).as_bytes());
    drop(input);
    publisher.finish().failed(1, &["the topic was removed"]);

    for verb in ["hz", "bw", "delay"] {
        let place = Place::new();
        place.run_with(b"in it\n", &["pub", "t", "--timestamp", "--quiet"]).ok();
        let mut watch = place.start(&[verb, "t", "--interval", "0.05"]);
        let mut output = BufReader::new(watch.stdout());
        for _ in 0..3 {
            output.read_line(&mut String::new()).unwrap(); // headings, and a window or two
        }
        place.run(&["rm", "t"]).ok();
        output.read_to_string(&mut String::new()).unwrap();
        watch.finish().failed(0, &["topic t was removed"]);
    }

    // It goes on with what there is.
    let place = with_topic();
    let mut stat =
        place.start(&["stat", "--watch", "--interval", "0.05", "--count", "8", "--json"]);
    let mut output = BufReader::new(stat.stdout());
    output.read_line(&mut String::new()).unwrap();
    place.run(&["rm", "t"]).ok();
    output.read_to_string(&mut String::new()).unwrap();
    stat.finish().ok();
}
