//! A broker on a thread, and processes beside it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use shmbus::{Broker, Delivery, GuardedTopic, Policy, Rule, Topic};

/// A rule that allows this user everything about `topics`.
pub(crate) fn me(topics: &[&str]) -> Rule {
    Rule {
        uids: vec![rustix::process::geteuid().as_raw()],
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        publish: true,
        subscribe: true,
        reliable: true,
        patience: Duration::from_secs(10),
        ..Rule::default()
    }
}

/// A broker that serves until it is dropped.
pub(crate) struct Served {
    socket: PathBuf,
    ends: Arc<AtomicBool>,
    broker: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Served {
    pub(crate) fn new(topics: Vec<GuardedTopic>, policy: Policy) -> Served {
        let directory = tempfile::tempdir().unwrap();
        // For other users: whoever finds the socket may connect, and is asked who it is.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let socket = directory.path().join("broker");
        let mut broker = Broker::new(Broker::listen(&socket).unwrap(), topics, policy).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let broker = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                broker.turn(Duration::from_millis(20)).unwrap();
            }
        });
        Served { socket, ends, broker: Some(broker), _directory: directory }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let ended = self.broker.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// A process of this program that plays a part: it runs one test, which is none without its environment.
pub(crate) struct Player {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

const PART: &str = "SHMBUS_TEST_PART";
const SOCKET: &str = "SHMBUS_TEST_SOCKET";

impl Player {
    /// Another process, as user `uid`. `None` where this user may not have processes of others, or they may not run this program.
    pub(crate) fn of_user(part: &str, socket: &Path, uid: Option<u32>) -> Option<Player> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["support::a_part", "--exact", "--nocapture"]);
        command.env(PART, part).env(SOCKET, socket);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid).current_dir("/");
        }
        match command.spawn() {
            Ok(mut child) => {
                let lines = BufReader::new(child.stdout.take().unwrap()).lines();
                Some(Player { child, lines })
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn new(part: &str, socket: &Path) -> Player {
        Player::of_user(part, socket, None).expect("a process of this user")
    }

    /// The next line that begins so, without its beginning; `None` when it has ended.
    pub(crate) fn line(&mut self, begin: &str) -> Option<String> {
        self.lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.split_once(begin).map(|(_, rest)| rest.to_owned()))
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn done(mut self) {
        while self.lines.next().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

/// No test of its own: what [`Player`] starts.
#[test]
fn a_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let socket = PathBuf::from(std::env::var_os(SOCKET).unwrap());
    println!();
    match part.split_once(' ') {
        None if part == "stops" => stops(&socket),
        None if part == "reads" => reads(&socket),
        None if part == "starves" => crate::passing::starves(&socket),
        Some(("attacks", broker)) => {
            crate::attacker::attack(&socket, crate::NAME, broker.parse().unwrap());
        }
        _ => panic!("{part}"),
    }
}

/// A reliable subscriber that receives nothing, until it is killed or its parent is gone.
fn stops(socket: &Path) {
    let topic = Topic::<u64>::connect(socket, crate::NAME).unwrap();
    let _subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    println!("subscribed.");
    let _ = std::io::stdin().read(&mut [0]);
}

/// A reliable subscriber that expects consecutive numbers, up to one that says that it was the last.
fn reads(socket: &Path) {
    let topic = Topic::<u64>::connect(socket, crate::NAME).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    println!("subscribed.");
    let mut count = 0;
    let mut expected = None;
    loop {
        let sample = subscriber.receive().unwrap();
        assert_eq!(sample.missed_before(), 0);
        if *sample == u64::MAX {
            break;
        }
        assert_eq!(*sample, *expected.get_or_insert(*sample));
        expected = Some(*sample + 1);
        count += 1;
    }
    println!("received. {count}");
}
