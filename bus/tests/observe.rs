//! Observers: what they see, that they see nothing that was not a message, and that nobody can tell that they are there.
#![allow(unsafe_code)] // geteuid, setuid; a futex word of a mapping

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shmbus::{
    AttachError, Corrupt, Delivery, Directory, Liveness, ObserveError, Observer, OpenError,
    ParticipantKind, Publishers, SeekError, Start, Topic, TopicOptions,
};
use shmbus_sys::map::Mapping;

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn small() -> TopicOptions {
    TopicOptions { depth: 16, subscribers_max: 2, hold_blocks: Some(2), ..Default::default() }
}

/// A message that says of each of its words that it belongs to it.
type Message = [u64; 40];

fn message(sequence: u64) -> Message {
    core::array::from_fn(|i| {
        (sequence + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32)
    })
}

/// Sequence and missed of the next message, whose content is right; `None` where there is none.
fn see(observer: &mut Observer) -> Option<(u64, u64)> {
    let observed = observer.try_next().unwrap()?;
    let expected = message(observed.sequence());
    assert!(observed.bytes() == bytemuck::bytes_of(&expected), "torn: {observed:?}");
    Some((observed.sequence(), observed.missed_before()))
}

#[test]
fn an_observer_sees_each_message_in_order_with_its_length_and_time() {
    let (_path, directory) = directory();
    let options = TopicOptions { max_len: 21, timestamp: true, ..small() };
    let topic = Topic::<[u8]>::create_in(&directory, "a/t", &options).unwrap();
    let mut observer = directory.observe("a/t", Start::Newest).unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    for len in 0..=21u8 {
        assert_eq!(observer.try_next(), Ok(None));
        let bytes: Vec<u8> = (0..len).map(|i| len ^ i).collect();
        let sequence = publisher.publish(&bytes).unwrap();
        assert_eq!((observer.position(), observer.lag()), (sequence, 1));
        let received = subscriber.receive().unwrap().timestamp_ns();
        let observed = observer.try_next().unwrap().unwrap();
        assert_eq!(observed.bytes(), bytes);
        assert_eq!(observed.bytes().as_ptr() as usize % 8, 0);
        assert_eq!((observed.sequence(), observed.missed_before()), (sequence, 0));
        assert_eq!(observed.timestamp_ns(), received);
        assert_eq!(observed.publisher(), None);
    }
    assert_eq!((observer.missed(), observer.lag()), (0, 0));
}

#[test]
fn an_observer_begins_where_it_asks_to_and_goes_where_it_is_sent() {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    for sequence in 0..100 {
        publisher.publish(&message(sequence)).unwrap();
    }
    assert_eq!(see(&mut topic.observe(Start::Newest).unwrap()), None);
    assert_eq!(see(&mut topic.observe(Start::Back(3)).unwrap()), Some((97, 0)));
    let mut observer = topic.observe(Start::Oldest).unwrap();
    let oldest = observer.position();
    assert!((84..=100 - 16 + topic.info().block_len).contains(&oldest), "{oldest}");
    assert_eq!(see(&mut observer), Some((oldest, 0)));
    assert_eq!(observer.seek(99), Ok(()));
    assert_eq!(see(&mut observer), Some((99, 98 - oldest)), "what is passed over is missed");
    assert_eq!(observer.seek(oldest), Ok(()));
    assert_eq!(see(&mut observer), Some((oldest, 0)));
    assert_eq!(observer.missed(), 98 - oldest);
    assert_eq!(
        observer.seek(oldest - 1),
        Err(SeekError::Gone { sequence: oldest - 1, oldest }),
        "the block before has left the table"
    );
    assert_eq!(observer.seek(101), Err(SeekError::Ahead { sequence: 101, next: 100 }));
    assert_eq!(observer.seek(u64::MAX), Err(SeekError::Ahead { sequence: u64::MAX, next: 100 }));
    assert_eq!(observer.position(), oldest + 1, "it stays where it is");
    assert_eq!(observer.seek(100), Ok(()));
    assert_eq!(see(&mut observer), None);
}

#[test]
fn an_observer_that_is_lapped_knows_exactly_what_it_missed() {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut observer = topic.observe(Start::Newest).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let (mut next, mut missed) = (0, 0);
    for sequence in 0..1000 {
        publisher.publish(&message(sequence)).unwrap();
        if sequence % 97 == 0 || sequence % 50 < 3 {
            while let Some((seen, missed_before)) = see(&mut observer) {
                assert_eq!(seen, next + missed_before);
                missed += missed_before;
                next = seen + 1;
            }
        }
    }
    assert!(missed > 0);
    assert_eq!((observer.missed(), observer.position()), (missed, next));
}

/// A publisher in another thread, through another mapping, as fast as it can; the ring is 16 messages.
fn race(publishers: Publishers, hurry: bool) {
    const MESSAGES: u64 = 60_000;
    let (_path, directory) = directory();
    let options = TopicOptions { publishers, ..small() };
    let topic = Topic::<Message>::create_in(&directory, "t", &options).unwrap();
    let mut observer = directory.observe("t", Start::Newest).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let feed = std::thread::spawn(move || {
        for sequence in 0..MESSAGES {
            publisher.publish(&message(sequence)).unwrap();
            if !hurry && sequence % 8 == 0 {
                std::thread::yield_now();
            }
        }
    });
    let (mut next, mut missed, mut seen_messages) = (0, 0, 0u64);
    while next < MESSAGES {
        let Some((seen, missed_before)) = see(&mut observer) else {
            std::thread::yield_now();
            continue;
        };
        assert_eq!(seen, next + missed_before);
        seen_messages += 1;
        missed += missed_before;
        next = seen + 1;
    }
    feed.join().unwrap();
    assert_eq!(seen_messages + missed, MESSAGES);
    assert_eq!(observer.missed(), missed);
    println!("  of {MESSAGES} messages {seen_messages} were seen, {missed} missed");
}

#[test]
fn what_an_observer_sees_under_a_racing_publisher_is_whole_and_what_it_misses_is_counted() {
    race(Publishers::Exclusive, true);
    race(Publishers::Exclusive, false);
}

#[test]
fn the_same_under_a_shared_publisher() {
    race(Publishers::Shared(2), true);
    race(Publishers::Shared(2), false);
}

#[test]
fn of_several_publishers_an_observer_says_which_and_goes_past_what_was_given_up() {
    let (_path, directory) = directory();
    let options = TopicOptions { publishers: Publishers::Shared(2), ..small() };
    let topic = Topic::<Message>::create_in(&directory, "t", &options).unwrap();
    let mut observer = topic.observe(Start::Newest).unwrap();
    let mut publishers = [topic.publisher().unwrap(), topic.publisher().unwrap()];
    for sequence in 0..6 {
        let index = sequence as usize % 2;
        publishers[index].publish(&message(sequence)).unwrap();
        let observed = observer.try_next().unwrap().unwrap();
        assert_eq!((observed.sequence(), observed.publisher()), (sequence, Some(index as u32)));
    }
    let [a, b] = &mut publishers;
    drop(a.loan().unwrap());
    b.publish(&message(7)).unwrap();
    let observed = observer.try_next().unwrap().unwrap();
    assert_eq!((observed.missed_before(), observed.abandoned_before()), (0, 1));
    assert_eq!((observer.missed(), observer.abandoned()), (0, 1));
    let mut loan = a.loan().unwrap();
    *loan = message(8);
    b.publish(&message(9)).unwrap();
    assert_eq!(see(&mut observer), None, "taken and not committed: nothing yet");
    assert_eq!(observer.lag(), 2);
    loan.commit().unwrap();
    assert_eq!(see(&mut observer), Some((8, 0)));
    assert_eq!(see(&mut observer), Some((9, 0)));
    // Nobody commits it, and no subscriber is there to settle it.
    let loan = a.loan().unwrap();
    for sequence in 11..50 {
        b.publish(&message(sequence)).unwrap();
    }
    let (seen, missed_before) = see(&mut observer).unwrap();
    assert_eq!(seen, 10 + missed_before);
    drop(loan);
}

/// Everything that is in a topic's files.
fn content(directory: &Directory, name: &str) -> Vec<Vec<u8>> {
    let home = directory.path().join(name).join(".topic");
    ["data", "ctl"].map(|file| fs::read(home.join(file)).unwrap()).into()
}

#[test]
fn an_observer_leaves_no_trace_in_the_files_and_takes_nobodys_place() {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let _subscribers =
        [topic.subscriber(Delivery::Lossy).unwrap(), topic.subscriber(Delivery::Lossy).unwrap()];
    for sequence in 0..50 {
        publisher.publish(&message(sequence)).unwrap();
    }
    let before = content(&directory, "t");
    let mut observers: Vec<_> =
        (0..20).map(|_| directory.observe("t", Start::Oldest).unwrap()).collect();
    for observer in &mut observers {
        let first = observer.position();
        for sequence in first..50 {
            assert_eq!(see(observer), Some((sequence, 0)));
        }
        assert_eq!(observer.next_timeout(Duration::from_millis(1)), Ok(None));
        observer.seek(first).unwrap();
        assert_eq!(observer.info().participants.len(), 3);
        assert!(observer.info().participants.iter().all(|who| who.liveness.is_alive()));
    }
    assert!(content(&directory, "t") == before, "something was written");
    assert!(topic.subscriber(Delivery::Lossy).is_err(), "all places were taken without them");
    drop(observers);
    assert!(content(&directory, "t") == before, "something was written");
    publisher.publish(&message(50)).unwrap();
    assert!(content(&directory, "t") != before);
}

#[test]
fn what_an_observer_says_of_a_topic_is_what_a_participant_says() {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&message(0)).unwrap();
    let mut reliable = topic.subscriber_from(Delivery::Reliable, Start::Oldest).unwrap();
    let _held = reliable.receive().unwrap().hold().unwrap();
    let observer = directory.observe("t", Start::Newest).unwrap();
    let info = observer.info();
    assert_eq!(format!("{info:?}"), format!("{:?}", topic.info()));
    assert_eq!(format!("{info:?}"), format!("{:?}", directory.inspect("t").unwrap()));
    let kinds: Vec<_> =
        info.participants.iter().map(|who| (who.kind, who.liveness.is_alive())).collect();
    assert_eq!(kinds, [(ParticipantKind::Publisher, true), (ParticipantKind::Reliable, true)]);
}

#[test]
fn an_observer_of_a_removed_topic_sees_what_is_there_and_is_told_then() {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut observer = topic.observe(Start::Newest).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&message(0)).unwrap();
    publisher.publish(&message(1)).unwrap();
    drop(publisher);
    directory.remove("t", false).unwrap();
    assert_eq!(see(&mut observer), Some((0, 0)));
    assert_eq!(see(&mut observer), Some((1, 0)));
    assert_eq!(observer.try_next(), Err(ObserveError::Retired));
    assert_eq!(observer.next_timeout(Duration::from_secs(5)), Err(ObserveError::Retired));
    assert!(observer.info().retired);
    let again = topic.observe(Start::Newest);
    assert!(
        matches!(
            again,
            Err(AttachError::Open(OpenError::Retired { .. } | OpenError::NotFound { .. }))
        ),
        "{:?}",
        again.err()
    );
    let gone = directory.observe("t", Start::Newest).err().unwrap();
    assert!(matches!(gone, AttachError::Open(OpenError::NotFound { .. })), "{gone:?}");
}

#[test]
fn an_observer_that_waits_sees_what_is_published_meanwhile() {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut observer = topic.observe(Start::Newest).unwrap();
    observer.set_interval(Duration::from_millis(1));
    let feed = std::thread::spawn(move || {
        let mut publisher = topic.publisher().unwrap();
        for sequence in 0..5 {
            std::thread::sleep(Duration::from_millis(5)); // so that it is waited for
            publisher.publish(&message(sequence)).unwrap();
        }
    });
    for sequence in 0..5 {
        let observed = observer.next_timeout(Duration::from_secs(60)).unwrap().unwrap();
        assert_eq!(observed.sequence(), sequence);
    }
    feed.join().unwrap();
    assert_eq!(observer.next_timeout(Duration::ZERO), Ok(None));
}

#[test]
fn corrupt_bytes_are_a_typed_error_to_an_observer_and_it_goes_on_behind_a_message_that_is_not_valid()
 {
    let (_path, directory) = directory();
    let topic = Topic::<Message>::create_in(&directory, "t", &small()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&message(0)).unwrap();
    publisher.publish(&message(1)).unwrap();
    let path = directory.path().join("t/.topic/data");
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let bytes = content(&directory, "t").remove(0);
    let words = |value: u64| value.to_le_bytes();
    // Where the slot of sequence 0 is, by its first word of payload.
    let payload = bytes.windows(8).position(|window| window == words(message(0)[0])).unwrap();
    let len_at = payload as u64 - 8;
    for len in [u32::MAX, 321, 319, 0] {
        file.write_all_at(&len.to_le_bytes(), len_at).unwrap();
        let mut observer = topic.observe(Start::Oldest).unwrap();
        let wrong = ObserveError::Corrupt(Corrupt::Length { len, max: 320 });
        assert_eq!(observer.try_next(), Err(wrong));
        assert_eq!(see(&mut observer), Some((1, 0)));
    }
    file.write_all_at(&320u32.to_le_bytes(), len_at).unwrap();
    let mut observer = topic.observe(Start::Oldest).unwrap();
    let table_word = bytes[8192..8200].try_into().map(u64::from_le_bytes).unwrap();
    file.write_all_at(&words(table_word | 0xffff), 8192).unwrap();
    assert_eq!(observer.try_next(), Err(ObserveError::Corrupt(Corrupt::Table)));
    // Half of all block numbers ahead, and more: no stream has gone there.
    file.write_all_at(&words(table_word.wrapping_sub(1 << 63)), 8192).unwrap();
    assert_eq!(observer.try_next(), Ok(None));
    file.write_all_at(&words(table_word), 8192).unwrap();
    file.write_all_at(&words(u64::MAX), 4096).unwrap();
    assert!(matches!(topic.observe(Start::Newest), Err(AttachError::Corrupt(Corrupt::Stream))));
    assert_eq!(see(&mut observer), Some((0, 0)));
}

#[test]
fn another_user_who_may_only_read_observes_and_inspects() {
    // SAFETY: it takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("  skipped: only root can become another user");
        return;
    }
    let (path, directory) = directory();
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = TopicOptions { mode: 0o644, ..small() };
    let topic = Topic::<Message>::create_in(&directory, "a/t", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&message(0)).unwrap();
    let secret = TopicOptions { mode: 0o600, ..small() };
    Topic::<Message>::create_in(&directory, "secret", &secret).unwrap();
    for file in ["data", "ctl"] {
        let file = path.path().join("a/t/.topic").join(file);
        fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
    }
    let status = role("reader", path.path()).status().unwrap();
    assert!(status.success(), "{status}");
}

/// This program once more, to play a role below.
fn role(name: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_started_by_another_test_plays_its_role", "--nocapture"]);
    command.env("SHMBUS_TEST_PATH", path).env("SHMBUS_TEST_ROLE", name).stdin(Stdio::piped());
    command
}

#[test]
fn a_process_started_by_another_test_plays_its_role() {
    let Some(path) = std::env::var_os("SHMBUS_TEST_PATH").map(PathBuf::from) else { return };
    match std::env::var("SHMBUS_TEST_ROLE").unwrap().as_str() {
        "reader" => read_as_another_user(&path),
        "victim" => subscribe_until_killed(&path),
        "locker" => lock_what_may_be_read(&path),
        "witness" => tell_who_lives(&path),
        other => panic!("{other}"),
    }
}

fn become_another_user() {
    // SAFETY: it takes a number.
    assert_eq!(unsafe { libc::setgid(65534) }, 0);
    // SAFETY: it takes a number.
    assert_eq!(unsafe { libc::setuid(65534) }, 0);
}

/// Takes part, says so, and waits to be killed.
fn subscribe_until_killed(path: &Path) {
    let topic = Topic::<Message>::open_in(&Directory::at(path).unwrap(), "a/t").unwrap();
    let _subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    fs::write(path.join("victim"), "").unwrap();
    _ = std::io::stdin().read(&mut [0]);
}

/// Takes a read lock on every byte that a lease may be, of every file that it may open, again and again; says how many files there are; ends with its
/// standard input. What is held now is free when its holder dies.
fn lock_what_may_be_read(path: &Path) {
    become_another_user();
    let inspected = Directory::at(path).unwrap().inspect("a/t").unwrap();
    let home = path.join("a/t/.topic");
    let names = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = names.filter_map(|name| fs::File::open(name).ok()).collect();
    assert!(files.len() >= 2 && !inspected.participants.is_empty());
    let count = files.len();
    let lock_all = move || {
        for (file, byte) in files.iter().flat_map(|file| (0..32).map(move |byte| (file, byte))) {
            let lock = libc::flock {
                l_type: libc::F_RDLCK as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: byte,
                l_len: 1,
                l_pid: 0,
            };
            // SAFETY: an open descriptor, and a lock that is valid for reads.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
        }
    };
    lock_all();
    println!("locked {count}");
    std::thread::spawn(move || {
        loop {
            lock_all();
            std::thread::yield_now();
        }
    });
    _ = std::io::stdin().read(&mut [0]);
}

/// What a process says until it ends, line by line.
fn hear(child: &mut Child, word: &str) {
    let stdout = child.stdout.as_mut().unwrap();
    let mut said = String::new();
    while !said.contains(word) {
        let mut byte = [0];
        assert!(stdout.read(&mut byte).unwrap() > 0, "it ended: {said}");
        said.push(byte[0].into());
    }
}

#[test]
fn another_user_who_may_only_read_is_in_nobodys_way() {
    // SAFETY: it takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("  skipped: only root can become another user");
        return;
    }
    let (path, directory) = directory();
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = TopicOptions { mode: 0o644, ..small() };
    let topic = Topic::<Message>::create_in(&directory, "a/t", &options).unwrap();
    let mut victim = role("victim", path.path()).spawn().unwrap();
    while !path.path().join("victim").exists() {
        assert!(victim.try_wait().unwrap().is_none(), "it has ended");
        std::thread::yield_now();
    }
    let mut locker = role("locker", path.path()).stdout(Stdio::piped()).spawn().unwrap();
    hear(&mut locker, "locked");
    let mut publisher = topic.publisher().expect("the place is free");
    drop(topic.subscriber(Delivery::Lossy).expect("one of two is free"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    for sequence in 0..1000 {
        let published = publisher.publish_timeout(&message(sequence), Duration::from_secs(20));
        assert_eq!(published, Ok(sequence), "the only reliable subscriber is dead");
    }
    assert_eq!(topic.info().deaths, 1);
    let places: Vec<_> = (0..2).map(|_| topic.subscriber(Delivery::Lossy).unwrap()).collect();
    drop(places);
    drop(locker.stdin.take());
    assert!(locker.wait().unwrap().success());
}

#[test]
fn who_may_only_read_tells_the_living_from_the_dead() {
    // SAFETY: it takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        println!("  skipped: only root can become another user");
        return;
    }
    let (path, directory) = directory();
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let options = TopicOptions { mode: 0o644, ..small() };
    let topic = Topic::<Message>::create_in(&directory, "a/t", &options).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&message(0)).unwrap();
    let _living = topic.subscriber(Delivery::Lossy).unwrap();
    let mut victim = role("victim", path.path()).spawn().unwrap();
    while !path.path().join("victim").exists() {
        assert!(victim.try_wait().unwrap().is_none(), "it has ended");
        std::thread::yield_now();
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    let status = role("witness", path.path()).status().unwrap();
    assert!(status.success(), "{status}");
}

fn tell_who_lives(path: &Path) {
    become_another_user();
    let info = Directory::at(path).unwrap().inspect("a/t").unwrap();
    let who: Vec<_> = info.participants.iter().map(|who| (who.kind, who.liveness)).collect();
    let expected = [
        (ParticipantKind::Publisher, Liveness::Alive),
        (ParticipantKind::Lossy, Liveness::Alive),
        (ParticipantKind::Reliable, Liveness::Dead),
    ];
    assert_eq!(who, expected);
}

fn read_as_another_user(path: &Path) {
    become_another_user();
    let directory = Directory::at(path).unwrap();
    let refused = Topic::<Message>::open_in(&directory, "a/t").err().unwrap();
    assert!(matches!(refused, OpenError::Permission { action: "open live", .. }), "{refused:?}");
    let mut observer = directory.observe("a/t", Start::Oldest).unwrap();
    assert_eq!(see(&mut observer), Some((0, 0)));
    let infos = [observer.info(), directory.inspect("a/t").unwrap()];
    for info in infos {
        let who: Vec<_> =
            info.participants.iter().map(|who| (who.kind, who.liveness.is_alive())).collect();
        assert_eq!(who, [(ParticipantKind::Publisher, true)], "of another user, alive");
    }
    assert_eq!(directory.topics().unwrap(), ["a/t", "secret"], "also what may not be read");
    let refused = directory.observe("secret", Start::Newest).err().unwrap();
    assert!(matches!(refused, AttachError::Open(OpenError::Permission { .. })), "{refused:?}");
}

/// Moves everybody who sleeps on `word` to another word, which nobody wakes; how many.
fn requeue(word: &AtomicU32, elsewhere: &AtomicU32) -> i64 {
    let (from, to) = (word.as_ptr(), elsewhere.as_ptr());
    let (operation, seen) = (libc::FUTEX_CMP_REQUEUE, word.load(Relaxed));
    let all = i64::from(i32::MAX);
    // SAFETY: two words that are mapped as long as the references live; the kernel reads the first.
    unsafe { libc::syscall(libc::SYS_futex, from, operation, 0_i64, all, to, seen) }
}

/// What permission to read is enough for: see *Permissions* in docs/guide/operations.md.
#[test]
fn whoever_may_only_read_can_keep_a_sleeper_from_being_woken_and_not_from_its_message() {
    const MESSAGES: u32 = 30;
    /// As long as a subscriber sleeps at most.
    const SLEEP: Duration = Duration::from_millis(100);
    let (path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let ctl = fs::File::open(path.path().join("t/.topic/ctl")).unwrap(); // for reading
    let map = Mapping::read_only(ctl.as_fd(), 8192).unwrap();
    // SAFETY: within the mapping.
    let bell = unsafe { map.base().byte_add(4096) }.cast::<AtomicU32>();
    // SAFETY: aligned, and an atomic; the mapping outlives the reference.
    let bell = unsafe { bell.as_ref() };
    let elsewhere = AtomicU32::new(0);
    let (ends, moved) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Relaxed) {
                moved.fetch_add(requeue(bell, &elsewhere).max(0) as u32, Relaxed);
                std::thread::yield_now();
            }
        });
        let receives = scope.spawn(|| {
            for number in 0..MESSAGES {
                assert_eq!(*subscriber.receive().unwrap(), u64::from(number));
            }
        });
        let begun = Instant::now();
        for number in 0..MESSAGES {
            // When the subscriber sleeps, or has been moved in its sleep.
            let before = moved.load(Relaxed);
            let patience = Instant::now();
            while moved.load(Relaxed) == before && patience.elapsed() < SLEEP {
                std::thread::yield_now();
            }
            publisher.publish(&u64::from(number)).unwrap();
        }
        receives.join().unwrap();
        ends.store(true, Relaxed);
        begun.elapsed()
    });
    let moved = moved.load(Relaxed);
    println!("{MESSAGES} messages in {took:?}, sleepers moved {moved} times");
    assert!(moved > 0, "the attack finds nobody asleep");
    assert!(took < 20 * MESSAGES * SLEEP, "{took:?}");
}
