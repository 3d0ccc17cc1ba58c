//! What the four families of file locks do: the matrix of `docs/contracts.md`, established by system calls, cell by cell.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};

use shmbus::sync::{FileLock, FileLockKind};

use crate::children::{self, Child, State, in_child, is_told, stop, tell};
use crate::document;

/// A family of locks, as the columns of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Flock,
    Ofd,
    Posix,
    Ours,
}
use Family::{Flock, Ofd, Ours, Posix};

const FAMILIES: [Family; 4] = [Flock, Ofd, Posix, Ours];

/// What can be asked of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Shared,
    Exclusive,
}
use Want::{Exclusive, Nothing, Shared};

/// Somebody who can have a lock: a descriptor, or a `FileLock`.
enum Holder {
    Raw(Family, File),
    Ours(FileLock),
}

impl Holder {
    fn open(family: Family, path: &Path) -> Holder {
        match family {
            Ours => Holder::Ours(FileLock::open(path).unwrap()),
            family => Holder::Raw(family, open(path, libc::O_CLOEXEC)),
        }
    }

    /// Asks without waiting; whether it was granted. What a `FileLock` gets, it keeps.
    fn ask(&mut self, want: Want) -> bool {
        match self {
            Holder::Raw(family, file) => ask(*family, file, want, false) == 0,
            Holder::Ours(file) => {
                let kind = match want {
                    Shared => FileLockKind::Shared,
                    Exclusive => FileLockKind::Exclusive,
                    // A guard gives back when it is dropped, and by no other way.
                    Nothing => return file.try_lock(FileLockKind::Shared, ..).map(drop).is_ok(),
                };
                match file.try_lock(kind, ..) {
                    Ok(Some(guard)) => {
                        guard.keep();
                        true
                    }
                    _ => false,
                }
            }
        }
    }
}

fn open(path: &Path, flags: i32) -> File {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a string that ends with 0.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | flags) };
    assert!(fd >= 0);
    // SAFETY: opened just now, and nobody else has it.
    unsafe { File::from_raw_fd(fd) }
}

/// 0, or the error number.
fn ask(family: Family, file: &File, want: Want, wait: bool) -> i32 {
    ask_range(family, file, want, wait, 0, 0)
}

fn ask_range(family: Family, file: &File, want: Want, wait: bool, first: i64, count: i64) -> i32 {
    let fd = file.as_raw_fd();
    let result = if family == Flock {
        let operation = [libc::LOCK_UN, libc::LOCK_SH, libc::LOCK_EX][want as usize];
        let no_wait = if wait { 0 } else { libc::LOCK_NB };
        // SAFETY: it takes numbers only.
        unsafe { libc::flock(fd, operation | no_wait) }
    } else {
        let command = match (family, wait) {
            (Posix, false) => libc::F_SETLK,
            (Posix, true) => libc::F_SETLKW,
            (_, false) => libc::F_OFD_SETLK,
            (_, true) => libc::F_OFD_SETLKW,
        };
        let lock = libc::flock {
            l_type: [libc::F_UNLCK, libc::F_RDLCK, libc::F_WRLCK][want as usize] as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: first,
            l_len: count,
            l_pid: 0,
        };
        // SAFETY: `lock` is what these commands read.
        unsafe { libc::fcntl(fd, command, &raw const lock) }
    };
    match result {
        -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    }
}

/// Whether a lock of the family is in the way of another process.
fn is_held(family: Family, path: &Path) -> bool {
    let family = if family == Ours { Ofd } else { family };
    in_child(|| ask(family, &open(path, 0), Exclusive, false)) != 0
}

const TAKEN: i32 = 0;
const REFUSED: i32 = 1;
const KEPT: i32 = 2;
const LOST: i32 = 3;
const WAITS: i32 = 4;
const DEADLOCK: i32 = 5;
const NONE: i32 = 6;
const VERDICTS: [&str; 7] = ["taken", "refused", "kept", "lost", "both wait", "`EDEADLK`", "-"];

fn taken(is_taken: bool) -> i32 {
    if is_taken { TAKEN } else { REFUSED }
}

fn kept(is_kept: bool) -> i32 {
    if is_kept { KEPT } else { LOST }
}

/// Holds the row `row` of the matrix against what `case` finds in a process of its own.
fn check(row: &str, case: fn(Family, PathBuf) -> i32) {
    let document = document();
    let line = document.lines().find(|line| line.starts_with(&format!("| {row} |")));
    let line = line.unwrap_or_else(|| panic!("docs/contracts.md has no row {row:?}"));
    let said: Vec<&str> = line.split(" | ").skip(1).take(4).collect();
    let found = FAMILIES.map(|family| {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        File::create(&path).unwrap();
        let code = in_child(|| case(family, path));
        *VERDICTS
            .get(code as usize)
            .unwrap_or_else(|| panic!("{family:?}: the case ended with {code}"))
    });
    assert_eq!(said, found, "{row}: flock, OFD, POSIX, FileLock");
}

macro_rules! cases {
    ($($(#[$doc:meta])* $row:literal as $name:ident = $case:expr;)*) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                check($row, $case);
            }
        )*
    };
}

cases! {
    "a second lock, same descriptor" as matrix_same_descriptor = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Exclusive));
        taken(holder.ask(Exclusive))
    };
    "a second lock, through a dup" as matrix_dup = |family, path| match Holder::open(family, &path) {
        Holder::Ours(_) => NONE, // it gives no descriptor away
        Holder::Raw(family, file) => {
            assert_eq!(ask(family, &file, Exclusive, false), 0);
            taken(ask(family, &file.try_clone().unwrap(), Exclusive, false) == 0)
        }
    };
    "a dup is closed" as matrix_dup_closed = |family, path| match Holder::open(family, &path) {
        Holder::Ours(_) => NONE,
        Holder::Raw(family, file) => {
            assert_eq!(ask(family, &file, Exclusive, false), 0);
            drop(file.try_clone().unwrap());
            kept(is_held(family, &path))
        }
    };
    "a second lock, opened again in the process" as matrix_reopened = |family, path| {
        let (mut one, mut other) = (Holder::open(family, &path), Holder::open(family, &path));
        assert!(one.ask(Exclusive));
        taken(other.ask(Exclusive))
    };
    "another descriptor of the file is closed" as matrix_other_descriptor_closed = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Exclusive));
        drop(File::open(&path).unwrap());
        kept(is_held(family, &path))
    };
    "a second lock, in another process" as matrix_other_process = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Exclusive));
        taken(in_child(|| i32::from(Holder::open(family, &path).ask(Exclusive))) == 1)
    };
    "shared beside shared" as matrix_shared = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Shared));
        assert!(is_held(family, &path), "an exclusive lock beside a shared one");
        taken(in_child(|| i32::from(Holder::open(family, &path).ask(Shared))) == 1)
    };
    "reading and writing by who does not ask" as matrix_advisory = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Exclusive));
        taken(in_child(|| {
            let written = std::fs::write(&path, "x").is_ok();
            i32::from(written && std::fs::read(&path).unwrap() == b"x")
        }) == 1)
    };
    "another part of the file" as matrix_ranges = |family, path| {
        let mut ours = (family == Ours).then(|| FileLock::open(&path).unwrap());
        let file = open(&path, 0);
        match &mut ours {
            Some(ours) => ours.lock(FileLockKind::Exclusive, 0..10).unwrap().keep(),
            None => assert_eq!(ask_range(family, &file, Exclusive, false, 0, 10), 0),
        }
        taken(in_child(|| ask_range(family, &open(&path, 0), Exclusive, false, 10, 10)) == 0)
    };
    "exclusive, open for reading only" as matrix_read_only = |family, path| {
        if family == Ours {
            let mut file = FileLock::open_read_only(&path).unwrap();
            return taken(matches!(file.try_lock(FileLockKind::Exclusive, ..), Ok(Some(_))));
        }
        taken(ask(family, &File::open(&path).unwrap(), Exclusive, false) == 0)
    };
    "shared made exclusive in vain" as matrix_failed_upgrade = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Shared));
        let mut other = Child::new(|| {
            let mut holder = Holder::open(family, &path);
            let is_shared = holder.ask(Shared);
            std::mem::forget(holder);
            stop();
            i32::from(!is_shared)
        });
        assert_eq!(other.wait(), State::Stopped);
        assert!(!holder.ask(Exclusive));
        other.kill();
        kept(is_held(family, &path))
    };
    "fork: the child asks through what it inherited" as matrix_fork_asks = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Exclusive));
        taken(in_child(|| i32::from(holder.ask(Exclusive))) == 1)
    };
    "fork: the child gives back" as matrix_fork_gives_back = |family, path| {
        let mut holder = Holder::open(family, &path);
        assert!(holder.ask(Exclusive));
        in_child(|| i32::from(holder.ask(Nothing)));
        kept(is_held(family, &path))
    };
    "fork: the parent ends, the child lives" as matrix_fork_parent_ends = |family, path| {
        // The child is there until `end` is closed, here.
        let (wait_for_end, end) = std::io::pipe().unwrap();
        let (wait_for_child, child) = std::io::pipe().unwrap();
        assert_eq!(in_child(|| {
            let mut holder = Holder::open(family, &path);
            assert!(holder.ask(Exclusive));
            // SAFETY: the child makes system calls only.
            if unsafe { libc::fork() } == 0 {
                children::close(&end);
                tell(&child);
                is_told(&wait_for_end);
                // SAFETY: it does not return.
                unsafe { libc::_exit(0) };
            }
            assert!(is_told(&wait_for_child));
            std::mem::forget(holder); // nothing is given back: the process just ends
            0
        }), 0);
        let is_kept = is_held(family, &path);
        drop(end);
        kept(is_kept)
    };
    "exec, descriptor left open" as matrix_exec = |family, path| exec(family, &path, 0);
    "exec, `O_CLOEXEC`" as matrix_exec_cloexec = |family, path| exec(family, &path, libc::O_CLOEXEC);
    "the holder is stopped" as matrix_stop = |family, path| {
        let holder = stopped_holder(family, &path);
        let is_kept = is_held(family, &path);
        holder.kill();
        kept(is_kept)
    };
    "the holder is killed" as matrix_kill = |family, path| {
        stopped_holder(family, &path).kill();
        kept(is_held(family, &path))
    };
    "two that wait for each other" as matrix_deadlock = |family, path| {
        let second = path.with_extension("2");
        File::create(&second).unwrap();
        let paths = [path, second];
        let (is_ready, ready) = std::io::pipe().unwrap();
        let (go, start) = std::io::pipe().unwrap();
        let waiter = |own: usize| Child::new(|| {
            children::close(&start);
            if family == Ours {
                let [mut one, mut other] = [own, 1 - own].map(|i| FileLock::open(&paths[i]).unwrap());
                let guard = one.lock(FileLockKind::Exclusive, ..).unwrap();
                tell(&ready);
                is_told(&go);
                let second = other.lock(FileLockKind::Exclusive, ..);
                let is_locked = second.is_ok();
                drop((second, guard));
                return i32::from(!is_locked);
            }
            let [one, other] = [own, 1 - own].map(|i| open(&paths[i], 0));
            assert_eq!(ask(family, &one, Exclusive, true), 0);
            tell(&ready);
            is_told(&go);
            ask(family, &other, Exclusive, true)
        });
        let mut waiters = [waiter(0), waiter(1)];
        assert!(is_told(&is_ready) && is_told(&is_ready));
        drop(start);
        loop {
            if let Some(ended) = waiters.iter_mut().find(|waiter| waiter.letter() == 'Z') {
                // The one that was refused, or already the other one, which got what that one had.
                let first = ended.wait();
                let ended = waiters.iter_mut().find(|waiter| !waiter.is_reaped).unwrap();
                let mut both = [first, ended.wait()];
                both.sort_by_key(|&state| state == State::Exited(0));
                assert_eq!(both, [State::Exited(libc::EDEADLK), State::Exited(0)]);
                return DEADLOCK;
            }
            if waiters.iter().all(Child::is_asleep) && waiters.iter().all(Child::is_asleep) {
                return WAITS;
            }
        }
    };
}

/// A process that has an exclusive lock, and is stopped.
fn stopped_holder(family: Family, path: &Path) -> Child {
    let mut child = Child::new(|| {
        let mut holder = Holder::open(family, path);
        let is_locked = holder.ask(Exclusive);
        stop();
        std::mem::forget(holder);
        i32::from(!is_locked)
    });
    assert_eq!(child.wait(), State::Stopped);
    child
}

/// Locks in a child, which becomes `cat`, and looks at the lock when it is that.
fn exec(family: Family, path: &Path, flags: i32) -> i32 {
    let (input, to_child) = std::io::pipe().unwrap();
    let (from_child, output) = std::io::pipe().unwrap();
    let mut child = Child::new(|| {
        let mut holder = match family {
            Ours => Holder::open(Ours, path),
            family => Holder::Raw(family, open(path, flags)),
        };
        assert!(holder.ask(Exclusive));
        for (pipe, number) in [(input.as_raw_fd(), 0), (output.as_raw_fd(), 1)] {
            // SAFETY: it takes numbers only.
            assert_eq!(unsafe { libc::dup2(pipe, number) }, number);
        }
        let arguments = [c"cat".as_ptr(), std::ptr::null()];
        // SAFETY: strings that end with 0, and a list that ends with null.
        unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
        1
    });
    drop(output);
    tell(&to_child);
    assert!(is_told(&from_child)); // the program runs: what the exec closes is closed
    let is_kept = is_held(family, path);
    drop(to_child);
    assert_eq!(child.wait(), State::Exited(0));
    kept(is_kept)
}

#[test]
fn matrix_of_families_beside_each_other() {
    let document = document();
    for (held, name) in [(Flock, "flock"), (Ofd, "OFD"), (Posix, "POSIX"), (Ours, "`FileLock`")] {
        let line = document.lines().find(|line| line.starts_with(&format!("| held by {name} |")));
        let line = line.unwrap_or_else(|| panic!("docs/contracts.md has no row for {name}"));
        let said: Vec<&str> = line.trim_end_matches(" |").split(" | ").skip(1).collect();
        let found = FAMILIES.map(|asked| {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("file");
            File::create(&path).unwrap();
            let holder = stopped_holder(held, &path);
            let code = in_child(|| taken(Holder::open(asked, &path).ask(Exclusive)));
            holder.kill();
            VERDICTS[code as usize]
        });
        assert_eq!(said, found, "held by {name}: asked by flock, OFD, POSIX, FileLock");
    }
}
