//! The program under test, in a directory of topics of its own.
#![allow(dead_code)] // each test file uses a part of this

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use shmbus::{Directory, TopicInfo};

/// A directory in memory: for topics, and for files beside them.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(tempfile::tempdir_in("/dev/shm").expect("/dev/shm can be written"))
    }

    pub(crate) fn topics_path(&self) -> PathBuf {
        self.0.path().join("topics")
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::at(self.topics_path()).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file with `bytes` in it.
    pub(crate) fn written(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.file(name), bytes).unwrap();
        self.file(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_shmbus"), arguments)
    }

    /// Another program, in this place.
    fn command_of<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("SHMBUS_DIR", self.topics_path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end, with nothing as input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.start(arguments).finish()
    }

    /// Runs to the end, with `input` as input.
    pub(crate) fn run_with(&self, input: &[u8], arguments: &[&str]) -> Done {
        let mut running = self.start(arguments);
        let mut stdin = running.stdin();
        let input = input.to_vec();
        // It may end before it has read everything.
        let writing = thread::spawn(move || drop(stdin.write_all(&input)));
        let done = running.finish();
        writing.join().unwrap();
        done
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running(Some(self.command(arguments).spawn().unwrap()))
    }

    /// Starts another program, which becomes it.
    pub(crate) fn start_as(&self, program: &str, arguments: &[&str]) -> Running {
        Running(Some(self.command_of(program, arguments).spawn().unwrap()))
    }

    /// Starts it with standard output to a file beside the topics.
    pub(crate) fn start_into(&self, file: &str, arguments: &[&str]) -> Running {
        let file = File::create(self.file(file)).unwrap();
        Running(Some(self.command(arguments).stdout(file).spawn().unwrap()))
    }

    /// Runs to the end, with nothing as input, after what `shell` says, such as `ulimit -n 6`.
    pub(crate) fn run_after(&self, shell: &str, arguments: &[&str]) -> Done {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{shell}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_shmbus")]);
        command.args(arguments).env("SHMBUS_DIR", self.topics_path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap())).finish()
    }

    /// The commands of the program, as its help lists them.
    pub(crate) fn verbs(&self) -> Vec<String> {
        let help = self.run(&["--help"]).ok();
        let (_, list) = help.text().split_once("\nCommands:\n").unwrap();
        let lines = list.lines().take_while(|line| !line.is_empty());
        let verbs = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        verbs.filter(|verb| !["", "help"].contains(verb)).map(str::to_owned).collect()
    }

    /// Waits until `is_so` is true of topic `name`.
    pub(crate) fn wait_until(&self, name: &str, is_so: impl Fn(&TopicInfo) -> bool) {
        while !self.directory().inspect(name).is_ok_and(|info| is_so(&info)) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A program that runs; killed if the test fails before it ends.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn of(child: Child) -> Running {
        Running(Some(child))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn pid(&mut self) -> u32 {
        self.child().id()
    }

    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child().stdin.take().unwrap()
    }

    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.child().stdout.take().unwrap()
    }

    pub(crate) fn stderr(&mut self) -> std::process::ChildStderr {
        self.child().stderr.take().unwrap()
    }

    /// Its standard output, without taking it.
    pub(crate) fn stdout_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().unwrap().stdout.as_ref().unwrap().as_fd()
    }

    /// Its standard error, without taking it.
    pub(crate) fn stderr_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().unwrap().stderr.as_ref().unwrap().as_fd()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().unwrap().is_some()
    }

    /// Waits for its end while nobody reads what it prints.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child().wait().unwrap()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        kill_process(self.rustix_pid(), signal).unwrap();
    }

    /// Stops it; returns when it is stopped.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::STOP);
        waitid(WaitId::Pid(self.rustix_pid()), WaitIdOptions::STOPPED).unwrap();
    }

    /// Whether it is stopped at this moment.
    pub(crate) fn is_stopped(&mut self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    }

    /// Waits until it has had signals caught, which it does before it begins to wait for anything, and sleeps.
    pub(crate) fn wait_until_it_sleeps(&mut self) {
        let status = format!("/proc/{}/status", self.pid());
        let field = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        loop {
            let status = std::fs::read_to_string(&status).unwrap();
            let caught = u64::from_str_radix(&field(&status, "SigCgt:"), 16).unwrap();
            let terminate = 1 << (Signal::TERM.as_raw() - 1);
            if caught & terminate != 0 && field(&status, "State:").starts_with('S') {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn rustix_pid(&mut self) -> Pid {
        Pid::from_raw(self.pid().try_into().unwrap()).unwrap()
    }

    /// Whether it ends by itself in this time.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let begin = std::time::Instant::now();
        while self.child().try_wait().unwrap().is_none() {
            if begin.elapsed() > time {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Waits for its end, which is also that of its input.
    pub(crate) fn finish(mut self) -> Done {
        let mut child = self.0.take().unwrap();
        drop(child.stdin.take());
        let stderr = child.stderr.take();
        let reading = thread::spawn(move || {
            let mut text = String::new();
            stderr.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut text)).map(|_| text)
        });
        let mut stdout = Vec::new();
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut stdout).unwrap();
        }
        let status = child.wait().unwrap();
        Done { status, stdout, stderr: reading.join().unwrap().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a program has left.
#[derive(Debug)]
pub(crate) struct Done {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("died of {:?}: {self:?}", self.status.signal()))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// It must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Done {
        assert_eq!(self.code(), 0, "{self:?}");
        self
    }

    /// It must have failed with `code` and said all of `words`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Done {
        assert_eq!(self.code(), code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        self
    }

    /// The last line on standard error that begins with `verb`: its two numbers, as in `received 3, missed 4`.
    #[track_caller]
    pub(crate) fn total(&self, verb: &str) -> (u64, u64) {
        let prefix = format!("shmbus: {verb} ");
        let line = self.stderr.lines().rev().find(|line| line.starts_with(&prefix));
        let line = line.unwrap_or_else(|| panic!("no {verb} in {self:?}"));
        let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        let mut number = || numbers.next().unwrap().parse().unwrap();
        (number(), number())
    }
}

/// Whether two files have the same bytes.
#[track_caller]
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
    assert_eq!(one.len(), other.len());
    if one != other {
        let differs = one.iter().zip(&other).position(|(a, b)| a != b);
        panic!("byte {} differs", differs.unwrap());
    }
}

/// Both ends: the side of the person, and that of the program.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let person = openpt(flags).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    let not_controlling = OFlags::NOCTTY.bits() as i32;
    let program =
        OpenOptions::new().read(true).write(true).custom_flags(not_controlling).open(name).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(program.as_fd(), size).unwrap();
    (File::from(person), OwnedFd::from(program))
}
