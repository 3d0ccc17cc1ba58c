//! Processes of a test: this binary once more, in another role. Nothing waits for ever: a watchdog kills them all when no test
//! has made progress for [`DEADLINE`].
#![allow(unsafe_code)] // a timer that sends SIGKILL

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use shmbus::Directory;

use crate::board::Board;

/// How long a test may stand still: generous, because it is no measure of anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Argument that makes this program play a role.
pub(crate) const ROLE: &str = "--role";

/// Word of the board that says that some process has failed.
const FAILED: usize = 0;

static BEATS: AtomicU64 = AtomicU64::new(0);
static EXPIRED: AtomicBool = AtomicBool::new(false);
static LIVING: Mutex<Vec<i32>> = Mutex::new(Vec::new());
/// The files of the test that runs.
static ROOT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Says that the test goes on.
pub(crate) fn beat() {
    BEATS.fetch_add(1, Relaxed);
    assert!(!EXPIRED.load(SeqCst), "nothing happened for {DEADLINE:?}");
}

/// Watches over everything that the calling process does from here on.
pub(crate) fn watch() {
    std::thread::spawn(|| {
        let (mut beats, mut since) = (BEATS.load(Relaxed), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            if BEATS.load(Relaxed) != beats {
                (beats, since) = (BEATS.load(Relaxed), Instant::now());
            } else if since.elapsed() > DEADLINE + Duration::from_secs(10) {
                eprintln!("the test process itself hangs");
                if let Some(root) = &*ROOT.lock().unwrap_or_else(PoisonError::into_inner) {
                    let _ = std::fs::remove_dir_all(root);
                }
                std::process::exit(1);
            } else if since.elapsed() > DEADLINE && !EXPIRED.swap(true, SeqCst) {
                eprintln!("nothing happened for {DEADLINE:?}: killing all processes of the test");
                for pid in LIVING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    let _ =
                        rustix::process::kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
                }
            }
        }
    });
}

/// Begins a test: what the one before has done to the watchdog is over.
pub(crate) fn begin() {
    EXPIRED.store(false, SeqCst);
    BEATS.fetch_add(1, Relaxed);
}

/// Where a test takes place: a directory for topics and a board, both of which vanish with it.
pub(crate) struct Stage {
    pub(crate) directory: Directory,
    pub(crate) board: Board,
    root: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = Directory::at(root.path().join("topics")).unwrap();
        let board = Board::create(&root.path().join("board"));
        *ROOT.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.path().to_path_buf());
        Stage { directory, board, root }
    }

    /// Another process, in a role.
    pub(crate) fn spawn(&self, role: &'static str, numbers: &[u64]) -> Process {
        self.spawn_with(role, numbers, &[])
    }

    /// Another process, in a role, with more in its environment.
    pub(crate) fn spawn_with(
        &self,
        role: &'static str,
        numbers: &[u64],
        environment: &[(&str, &str)],
    ) -> Process {
        beat();
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = Command::new(std::env::current_exe().unwrap())
            .args([ROLE, role])
            .arg(self.root.path())
            .args(numbers.iter().map(u64::to_string))
            .envs(environment.iter().copied())
            .spawn()
            .unwrap();
        living.push(child.id() as i32);
        Process { child, role, ended: false }
    }

    /// Waits until `condition` holds. Fails when a process has failed meanwhile.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let mut looks = 0u32;
        BEATS.fetch_add(1, Relaxed);
        while !condition() {
            assert_eq!(self.board.word(FAILED).load(SeqCst), 0, "a process failed: see above");
            assert!(!EXPIRED.load(SeqCst), "waited in vain: {what}");
            looks += 1;
            if looks < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        beat();
    }

    /// Every path below the directory of the topics, sorted.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fn collect(root: &Path, path: &Path, files: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
                files.push(entry.path().strip_prefix(root).unwrap().to_path_buf());
                if entry.file_type().unwrap().is_dir() {
                    collect(root, &entry.path(), files);
                }
            }
        }
        let (root, mut files) = (self.directory.path(), Vec::new());
        collect(root, root, &mut files);
        files.sort();
        files
    }

    /// Ends a test: nobody alive is attached, no process failed, and nothing is left when the topic is removed.
    pub(crate) fn end(self, topic: &str) {
        let removed = self.directory.remove(topic, false);
        removed.expect("nobody who lives is attached");
        self.end_without_a_topic();
    }

    /// The same, where nothing has to be removed.
    pub(crate) fn end_without_a_topic(self) {
        assert_eq!(self.board.word(FAILED).load(SeqCst), 0, "a process failed: see above");
        assert_eq!(self.files(), Vec::<PathBuf>::new(), "files were left behind");
    }
}

/// The name of a role, and who plays it.
pub(crate) type Part = (&'static str, fn(&Role));

/// What a process in a role is told.
pub(crate) struct Role {
    pub(crate) directory: Directory,
    pub(crate) board: Board,
    pub(crate) numbers: Vec<u64>,
}

impl Role {
    pub(crate) fn numbers<const N: usize>(&self) -> [u64; N] {
        self.numbers.as_slice().try_into().expect("as many numbers as the role takes")
    }
}

/// Plays a role in this process, which ends with it. A panic in it fails the test.
pub(crate) fn play(roles: &[Part], arguments: &[String]) -> ! {
    // Whatever happens to the test, its processes do not outlive it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let [role, root, numbers @ ..] = arguments else { panic!("--role needs a role and a path") };
    let play = roles.iter().find(|(name, _)| name == role).expect("a role").1;
    let root = Path::new(root);
    let board = Board::open(&root.join("board"));
    let played = std::panic::catch_unwind(|| {
        play(&Role {
            directory: Directory::at(root.join("topics")).unwrap(),
            board: Board::open(&root.join("board")),
            numbers: numbers.iter().map(|number| number.parse().unwrap()).collect(),
        })
    });
    if played.is_err() {
        eprintln!("the process in the role {role} {numbers:?} failed");
        board.word(FAILED).store(1, SeqCst);
    }
    std::process::exit(if played.is_ok() { 0 } else { 101 })
}

/// SIGKILL for this process, after this time. It comes from the kernel's timer, between any two instructions.
pub(crate) fn kill_me_after(delay: Duration) {
    // SAFETY: a `sigevent` of zeros is one.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let mut timer = std::ptr::null_mut();
    // SAFETY: both point to what the call takes.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) };
    assert_eq!(made, 0, "timer_create: {}", std::io::Error::last_os_error());
    let delay = delay.max(Duration::from_nanos(1)); // 0 would disarm it
    let time = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec {
            tv_sec: delay.as_secs() as libc::time_t,
            tv_nsec: delay.subsec_nanos().into(),
        },
    };
    // SAFETY: `timer` was just made, `time` is what the call reads, and the old time is not asked for.
    let set = unsafe { libc::timer_settime(timer, 0, &raw const time, std::ptr::null_mut()) };
    assert_eq!(set, 0, "timer_settime: {}", std::io::Error::last_os_error());
}

/// A process of the test. Dropped, it is killed.
pub(crate) struct Process {
    child: Child,
    role: &'static str,
    ended: bool,
}

impl Process {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn send(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(mut self) {
        self.send(Signal::KILL);
        self.expect_killed();
    }

    /// Waits until it has been killed, by itself or by somebody else.
    pub(crate) fn killed(mut self) {
        self.expect_killed();
    }

    fn expect_killed(&mut self) {
        let status = self.reap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{} ended with {status}", self.role);
        beat();
    }

    /// Waits for its end, which is either of both. True where it was killed.
    pub(crate) fn killed_or_done(mut self) -> bool {
        let status = self.reap();
        let killed = status.signal() == Some(libc::SIGKILL);
        assert!(killed || status.success(), "{} ended with {status}", self.role);
        beat();
        killed
    }

    /// Waits until it has done its part.
    pub(crate) fn done(mut self) {
        let status = self.reap();
        assert!(status.success(), "{} ended with {status}", self.role);
        beat();
    }

    /// SIGSTOP; returns when the process stands.
    pub(crate) fn stop(&self) {
        self.send(Signal::STOP);
        self.wait_until_stopped();
    }

    /// After a SIGSTOP: returns when the process stands.
    pub(crate) fn wait_until_stopped(&self) {
        let stop = WaitIdOptions::STOPPED;
        // Looked at first, so that one that has ended instead is still there to be reaped.
        let look = stop | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::Pid(self.pid()), look).unwrap();
        assert!(status.is_some_and(|status| status.stopped()), "{} has ended", self.role);
        rustix::process::waitid(WaitId::Pid(self.pid()), stop).unwrap();
        beat();
    }

    /// Whether it has neither ended nor been stopped.
    #[allow(dead_code)] // not every program asks
    pub(crate) fn is_running(&self) -> bool {
        let look = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::Pid(self.pid()), look | WaitIdOptions::NOHANG);
        status.unwrap().is_none()
    }

    pub(crate) fn go_on(&self) {
        self.send(Signal::CONT);
    }

    /// Whether it sleeps in the kernel.
    pub(crate) fn is_asleep(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('S')
    }

    fn reap(&mut self) -> ExitStatus {
        let pid = self.pid();
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            .unwrap();
        // Reaped under the lock: its number is nobody else's while the watchdog looks.
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        self.ended = true;
        living.retain(|other| *other != self.child.id() as i32);
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            self.reap();
        }
    }
}
