//! A subscriber of another user that does not follow the protocol: it speaks to the broker by itself, and tries what the kernel and its page let it try.
//!
//! What it prints is one line for each attack: its name, and what it got.
#![allow(unsafe_code)] // system calls that the library has no reason to make, and a page written at will

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shmbus_sys::lease::Lease;
use shmbus_sys::map::Mapping;
use shmbus_sys::shm;
use shmbus_sys::unix;

use crate::random::Random;

/// Words of a page of 4096 bytes, and some that mean something: see `docs/layout.md`.
const WORDS: u64 = 512;
const STATE: u64 = 0;
const PIN: u64 = 1;
const CURSOR: u64 = 3;
const HELD: u64 = 5;
const PATIENCE: u64 = 6;
const HOLDS: u64 = 32;
const SUBSCRIBERS_BELL: u64 = 64;
const PUBLISHERS_BELL: u64 = 80;

const RELIABLE: u64 = 3;
/// How long each attack goes on that goes on.
const WHILE: Duration = Duration::from_millis(400);

/// A request as `control/message.rs` has it.
fn request(operation: u32, kind: u32, name: &str) -> Vec<u8> {
    let mut bytes = b"shmbus-q".to_vec();
    for word in [1, operation, kind, name.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend([0; 8]);
    bytes.extend(name.as_bytes());
    bytes.resize(232, 0);
    bytes
}

/// What a subscriber is handed out: `data`, `ctl` and its page, with the generation of its entry.
pub(crate) struct Seat {
    data: Lease,
    ctl: Lease,
    page: Lease,
    map: Mapping,
    generation: u64,
}

impl Seat {
    pub(crate) fn take(socket: &Path, name: &str, kind: u32) -> Option<Seat> {
        let connection = unix::connect(socket, Duration::from_secs(5)).ok()?;
        unix::send(connection.as_fd(), &request(2, kind, name), &[]).ok()?;
        // A broker of this process takes leases meanwhile.
        unix::wait(&[(connection.as_fd(), true)], Duration::from_secs(5)).ok()?;
        let mut answer = [0; 40];
        let (_, fds) = Lease::receive(connection.as_fd(), &mut answer).ok()?;
        let [data, ctl, page] = <[Lease; 3]>::try_from(fds).ok()?;
        let map = Mapping::read_write(page.as_fd(), 4096).ok()?;
        let generation = u64::from_le_bytes(answer[24..32].try_into().unwrap());
        Some(Seat { data, ctl, page, map, generation })
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(index < WORDS);
        let word = NonNull::cast::<AtomicU64>(self.map.base());
        // SAFETY: the page has that many words, and is mapped as long as `self`.
        let word = unsafe { word.add(index as usize) };
        // SAFETY: aligned, atomics.
        unsafe { word.as_ref() }
    }

    fn set(&self, index: u64, value: u64) {
        self.word(index).store(value, Relaxed);
    }

    pub(crate) fn is_reliable_at(&self, cursor: u64) {
        self.set(CURSOR, cursor);
        self.set(PATIENCE, u64::MAX);
        self.set(STATE, self.generation << 8 | RELIABLE);
    }

    /// Its page stays mapped.
    pub(crate) fn give_lease_back(&self) {
        self.page.release(0).unwrap();
    }

    /// Whether the bell in its page says that a publisher sleeps.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.word(PUBLISHERS_BELL).load(Relaxed) & 1 != 0
    }

    fn head(&self) -> u64 {
        let mut head = [0; 8];
        shm::read_exact_at(self.data.as_fd(), &mut head, 4096).unwrap();
        u64::from_le_bytes(head)
    }
}

fn tell(attack: &str, got: impl Display) {
    println!("attack: {attack} | {got}");
}

/// What the kernel said.
fn outcome<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(libc::EACCES) => "EACCES".to_owned(),
            Some(libc::EPERM) => "EPERM".to_owned(),
            Some(libc::EBADF) => "EBADF".to_owned(),
            Some(libc::EINVAL) => "EINVAL".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn go_on(mut step: impl FnMut()) -> u64 {
    let (begin, mut steps) = (Instant::now(), 0);
    while begin.elapsed() < WHILE {
        step();
        steps += 1;
        if steps % 64 == 0 {
            std::thread::yield_now();
        }
    }
    steps
}

/// All of it, one after the other.
pub(crate) fn attack(socket: &Path, name: &str, broker: u32) {
    let seat = Seat::take(socket, name, 2).expect("a lossy subscriber is let in");
    files(&seat, broker);
    locks(&seat);
    page(&seat);
    // It gives its lease back, and keeps the page: its next one is another, or the same again, for nobody else gets it.
    drop(seat);
    cursors(socket, name);
    abandoned(socket, name);
    floods(socket, name);
}

fn files(seat: &Seat, broker: u32) {
    for (file, fd) in [("data", seat.data.as_fd()), ("ctl", seat.ctl.as_fd())] {
        tell(&format!("open {file} anew for writing"), outcome(shm::open_again(fd)));
        tell(&format!("map {file} for writing"), outcome(Mapping::read_write(fd, 4096)));
        tell(&format!("map {file}, then mprotect"), outcome(make_writable(fd)));
        tell(&format!("write {file}"), outcome(shm::write_all_at(fd, &[1], 4096)));
        tell(&format!("punch a hole into {file}"), outcome(punch(fd)));
        tell(&format!("map {file}, then remove its pages"), outcome(remove(fd)));
        // SAFETY: system calls on an open descriptor.
        let lease = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
        tell(&format!("take a lease of {file}"), outcome(checked(lease)));
        // SAFETY: as above; no times are passed: now.
        let touched = unsafe { libc::futimens(fd.as_raw_fd(), std::ptr::null()) };
        tell(&format!("change the times of {file}"), outcome(checked(touched)));
    }
    let all = [("data", &seat.data), ("ctl", &seat.ctl), ("its page", &seat.page)];
    for (file, fd) in all.map(|(file, fd)| (file, fd.as_fd())) {
        // SAFETY: system calls on an open descriptor.
        let cut = unsafe { libc::ftruncate(fd.as_raw_fd(), 0) };
        tell(&format!("truncate {file}"), outcome(checked(cut)));
        // SAFETY: as above.
        let mode = unsafe { libc::fchmod(fd.as_raw_fd(), 0o666) };
        tell(&format!("chmod {file}"), outcome(checked(mode)));
        // SAFETY: as above.
        let sealed = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
        tell(&format!("seal {file} against writing"), outcome(checked(sealed)));
    }
    let theirs = std::fs::read_dir(format!("/proc/{broker}/fd"));
    tell("list the broker's descriptors in /proc", outcome(theirs));
    tell("open the broker's memory", outcome(std::fs::File::open(format!("/proc/{broker}/mem"))));
}

fn make_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let map = Mapping::read_only(fd, 4096)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a mapping of this function's own.
    checked(unsafe { libc::mprotect(map.base().as_ptr().cast(), 4096, protection) })
}

fn remove(fd: BorrowedFd<'_>) -> io::Result<()> {
    let map = Mapping::read_only(fd, 4096)?;
    // SAFETY: a mapping of this function's own.
    checked(unsafe { libc::madvise(map.base().as_ptr().cast(), 4096, libc::MADV_REMOVE) })
}

fn punch(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: a system call on an open descriptor.
    checked(unsafe { libc::fallocate(fd.as_raw_fd(), mode, 0, 4096) })
}

/// The locks of other bytes and files than its lease: what it can take without the right to write is a read lock.
fn locks(seat: &Seat) {
    tell("take a write lock on ctl", outcome(seat.ctl.take(0)));
    let mut lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    for (file, fd) in [("data", &seat.data), ("ctl", &seat.ctl)] {
        // SAFETY: an open descriptor, and the structure that the command reads.
        let taken =
            unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
        tell(&format!("keep a read lock on all of {file}"), outcome(checked(taken)));
    }
}

/// Moves all who sleep on any word of `ctl` or of the beginning of `data` to a word that nobody wakes.
fn sleepers(seat: &Seat) {
    let maps = [&seat.ctl, &seat.data].map(|file| Mapping::read_only(file.as_fd(), 8192).unwrap());
    let elsewhere = AtomicU32::new(0);
    let mut moved = 0;
    let steps = go_on(|| {
        for map in &maps {
            for at in (0..8192).step_by(4) {
                // SAFETY: within the mapping.
                let word = unsafe { map.base().byte_add(at) }.cast::<AtomicU32>();
                // SAFETY: aligned, and mapped as long as the seat's files.
                let word = unsafe { word.as_ref() };
                let (from, to, all) = (word.as_ptr(), elsewhere.as_ptr(), i64::from(i32::MAX));
                let (operation, seen) = (libc::FUTEX_CMP_REQUEUE, word.load(Relaxed));
                // SAFETY: two words that live on; the kernel reads the first.
                let done = unsafe {
                    libc::syscall(libc::SYS_futex, from, operation, 0_i64, all, to, seen)
                };
                moved += done.max(0);
            }
        }
    });
    assert_eq!(moved, 0, "somebody sleeps where everybody can move it");
    tell("move sleepers on words that it may read", format!("{moved} in {steps} rounds"));
}

fn page(seat: &Seat) {
    sleepers(seat);
    tell("punch a hole into its page", outcome(punch(seat.page.as_fd())));
    let mut random = Random::new(1);
    let steps = go_on(|| {
        let value = match random.below(0..6) {
            0 => 0,
            1 => u64::MAX,
            2 => random.below(0..64),
            3 => seat.generation << 8 | random.below(0..8),
            4 => seat.head().wrapping_add(random.below(0..200)).wrapping_sub(100),
            _ => random.next(),
        };
        seat.set(random.below(0..104), value);
    });
    tell("scribble over its page", format!("{steps} words"));
    seat.set(STATE, seat.generation << 8 | 2);
    let steps = go_on(|| {
        seat.set(HELD, u64::MAX);
        seat.set(PIN, random.below(0..100));
        for cell in 0..32 {
            seat.set(HOLDS + cell, random.below(0..100) << 32 | random.below(0..100));
        }
    });
    tell("absurd pins and 64 holds at once, always others", format!("{steps} times"));
    let steps = go_on(|| {
        seat.set(SUBSCRIBERS_BELL, random.next() | 1);
        seat.set(PUBLISHERS_BELL, random.next());
        let word = NonNull::from(seat.word(PUBLISHERS_BELL)).cast();
        // SAFETY: an aligned word of the page.
        let word = unsafe { word.as_ref() };
        let _ = shmbus_sys::futex::wake_all(word);
    });
    tell("say that it sleeps, always, and ring without end", format!("{steps} times"));
    let steps = go_on(|| seat.set(STATE, seat.generation << 8 | random.below(2..5)));
    tell("call itself reliable, or a publisher, without a grant", format!("{steps} times"));
}

fn cursors(socket: &Path, name: &str) {
    let reliable = |attack: &str, cursor: &dyn Fn(&Seat, u64) -> u64| {
        let Some(seat) = Seat::take(socket, name, 3) else { return tell(attack, "not let in") };
        seat.is_reliable_at(seat.head());
        let mut step = 0;
        let (before, _) = (
            seat.head(),
            go_on(|| {
                step += 1;
                seat.is_reliable_at(cursor(&seat, step));
                std::thread::sleep(Duration::from_micros(50));
            }),
        );
        tell(attack, format!("{} messages were published meanwhile", seat.head() - before));
    };
    reliable("a cursor far ahead", &|_, _| u64::MAX);
    reliable("a cursor at 0, and reliable again whenever evicted", &|_, _| 0);
    reliable("a cursor that goes to and fro, far behind", &|seat, step| {
        seat.head().saturating_sub(1000 + step % 3 * 64)
    });
    let mut random = Random::new(3);
    let seat = Seat::take(socket, name, 3).expect("a reliable subscriber is let in");
    seat.is_reliable_at(seat.head());
    let steps = go_on(|| seat.set(PUBLISHERS_BELL, random.next()));
    tell("a frozen cursor, and its publishers' bell never the same", format!("{steps} times"));
    drop(seat);
    let seat = Seat::take(socket, name, 3).expect("a reliable subscriber is let in");
    let head = seat.head();
    seat.is_reliable_at(head);
    std::thread::sleep(WHILE);
    tell("a frozen cursor", format!("{} messages were published meanwhile", seat.head() - head));
}

/// Unlocks its lease and keeps the page: whoever got it next would be at its mercy.
fn abandoned(socket: &Path, name: &str) {
    let seats: Vec<_> = (0..9).map_while(|_| Seat::take(socket, name, 2)).collect();
    seats.iter().for_each(Seat::give_lease_back);
    let mut random = Random::new(2);
    let steps = go_on(|| {
        for seat in &seats {
            seat.set(random.below(0..104), random.next());
        }
    });
    tell(
        "give leases back, keep the pages and scribble",
        format!("{} pages, {steps} times", seats.len()),
    );
}

fn floods(socket: &Path, name: &str) {
    let describe = request(1, 0, name);
    let mut connections: Vec<OwnedFd> = Vec::new();
    let steps = go_on(|| {
        if let Ok(connection) = unix::connect(socket, Duration::from_secs(5)) {
            connections.push(connection);
        }
        if connections.len() > 200 {
            connections.clear();
        }
    });
    connections.clear();
    tell("connect and say nothing", format!("{steps} times"));
    let (mut answered, mut unread) = (0, Vec::new());
    let steps = go_on(|| {
        if let Ok(connection) = unix::connect(socket, Duration::from_secs(5)) {
            answered += u64::from(unix::send(connection.as_fd(), &describe, &[]).is_ok());
            unread.push(connection);
        }
        if unread.len() > 200 {
            unread.clear();
        }
    });
    drop(unread);
    tell("ask and never read the answer", format!("{steps} times"));
    let kept = answers_that_are_kept(socket, name, 1_000).len();
    tell("ask, shut down, and keep the answer", format!("{kept} of 1000 answered"));
    let (mut malformed, mut silent) = (0, 0);
    for len in (0..232).step_by(7).chain([231, 233, 4096, 60_000]) {
        let mut bytes = describe.clone();
        bytes.resize(len, 0xff);
        match ask(socket, &bytes, &[]) {
            Some(5) => malformed += 1,
            Some(status) => panic!("{len} bytes: {status}"),
            None => silent += 1,
        }
    }
    tell("half messages, and too long ones", format!("{malformed} refused, {silent} closed"));
    let stdin = io::stdin();
    let fds = [stdin.as_fd(); 72];
    let got = (0..100).filter(|_| ask(socket, &describe, &fds) == Some(0)).count();
    tell("72 descriptors with each request", format!("{got} of 100 answered"));
    let forged = [(request(3, 0, name), 1), (request(1, 0, "secret"), 1), (request(9, 0, name), 5)];
    for (bytes, status) in forged {
        assert_eq!(ask(socket, &bytes, &[]), Some(status));
    }
    tell("ask to publish, and for a topic of others", "refused");
}

/// Connections on which answers, with descriptors, lie and are never read; each was shut down, so that the broker may think it closed. As many as it
/// answers, of `tries`.
pub(crate) fn answers_that_are_kept(socket: &Path, name: &str, tries: usize) -> Vec<OwnedFd> {
    let mut kept = Vec::new();
    for _ in 0..tries {
        let Ok(connection) = unix::connect(socket, Duration::from_secs(5)) else { continue };
        if unix::send(connection.as_fd(), &request(1, 0, name), &[]).is_err() {
            continue;
        }
        let ready = unix::wait(&[(connection.as_fd(), true)], Duration::from_secs(5)).unwrap();
        // SAFETY: system calls on an open descriptor; nothing is taken out of the socket, and the status is in the 16 bytes.
        let len = unsafe {
            let (mut bytes, fd) = ([0xff_u8; 16], connection.as_raw_fd());
            let peek = libc::MSG_PEEK | libc::MSG_DONTWAIT;
            let len = libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), peek);
            if bytes[12] == 0 { len } else { 0 }
        };
        if ready[0] == unix::Readiness::Readable && len > 0 {
            // SAFETY: as above.
            assert_eq!(unsafe { libc::shutdown(connection.as_raw_fd(), libc::SHUT_RDWR) }, 0);
            kept.push(connection);
        }
    }
    kept
}

/// A connection on which the answer was read, and that stays open here; `None` if the broker is busy.
pub(crate) fn answered(socket: &Path, name: &str) -> Option<OwnedFd> {
    let connection = unix::connect(socket, Duration::from_secs(5)).unwrap();
    let _ = unix::send(connection.as_fd(), &request(1, 0, name), &[]);
    let mut answer = [0; 40];
    let (len, _) = unix::receive_descriptors(connection.as_fd(), &mut answer).ok()?;
    (len == 40 && answer[12] == 0).then_some(connection)
}

/// The status of the answer; `None` where the connection was closed instead.
fn ask(socket: &Path, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Option<u32> {
    loop {
        let connection = unix::connect(socket, Duration::from_secs(5)).ok()?;
        let _ = unix::send(connection.as_fd(), bytes, fds);
        let mut answer = [0; 40];
        match unix::receive_descriptors(connection.as_fd(), &mut answer) {
            // Too many connections of this user are still open there.
            Ok((40, _)) if answer[12] == 8 => std::thread::yield_now(),
            Ok((40, _)) => return Some(u32::from_le_bytes(answer[12..16].try_into().unwrap())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            _ => return None,
        }
    }
}
