//! What is done to a topic or to a participant from outside: files that lose their names, directories that may not be written,
//! a filter of system calls, an exec, memory that may not be locked.
#![allow(unsafe_code)] // setuid, setrlimit, prctl, getrusage

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Player, directory, is_root, limit_descriptors, play, role, say, small, tree};
use shmbus::sync::{
    Event, LockError, Reset, RobustMutex, SyncCreateError, SyncOpenError, SyncOptions, WaitError,
};
use shmbus::{
    AttachError, CreateError, Delivery, Directory, OpenError, Publishers, ReceiveError,
    RemoveError, Start, Topic, TopicOptions, Wake,
};

/// Generous: it is no measure of anything.
const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

fn create(directory: &Directory, name: &str) -> Topic<u64> {
    Topic::create_in(directory, name, &small()).unwrap()
}

fn home(directory: &Directory, name: &str) -> PathBuf {
    directory.path().join(name).join(".topic")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// One reliable subscriber receives three rings of messages.
fn goes_on(topic: &Topic<u64>, publisher: &mut shmbus::Publisher<u64>) {
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    for message in 0..48 {
        publisher.publish_timeout(&message, PATIENCE).unwrap();
        assert_eq!(*subscriber.receive().unwrap(), message);
    }
}

#[test]
fn who_is_attached_goes_on_when_a_file_loses_its_name_and_newcomers_are_told_which_one() {
    let (_path, directory) = directory();
    for file in ["data", "ctl"] {
        let is_missing = |error: &OpenError| matches!(error, OpenError::Corrupt { missing, .. } if *missing == file);
        let topic = create(&directory, file);
        let mut publisher = topic.publisher().unwrap();
        let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
        fs::remove_file(home(&directory, file).join(file)).unwrap();

        publisher.publish(&1).unwrap();
        assert_eq!(*reliable.receive().unwrap(), 1);
        drop(reliable);
        goes_on(&topic, &mut publisher);
        assert_eq!(topic.info().participants.len(), 1);

        assert!(is_missing(&Topic::<u64>::open_in(&directory, file).err().unwrap()));
        assert!(is_missing(&directory.inspect(file).unwrap_err()));
        let observed = directory.observe(file, Start::Oldest).err().unwrap();
        assert!(matches!(observed, AttachError::Open(error) if is_missing(&error)));
        let joined = topic.publisher().err().unwrap(); // maps the file anew
        assert!(matches!(joined, AttachError::Open(error) if is_missing(&error)));
        for created in [Topic::create_in, Topic::open_or_create_in] {
            let created: CreateError =
                created(&directory, file, &small()).map(|_: Topic<u64>| ()).unwrap_err();
            assert!(matches!(created, CreateError::Open(error) if is_missing(&error)));
        }
        let removed = directory.remove(file, false).unwrap_err();
        assert!(matches!(removed, RemoveError::Open(error) if is_missing(&error)));
        assert_eq!(directory.topics().unwrap(), [file], "it is shown");

        directory.remove(file, true).unwrap();
        // Without `ctl` they find out by `live`, which is gone as well now.
        assert!(matches!(topic.subscriber(Delivery::Lossy).err(), Some(AttachError::Retired)));
        assert_eq!(publisher.publish(&2), Err(shmbus::PublishError::Retired), "it is told");
        goes_on(
            &create(&directory, file),
            &mut Topic::open_in(&directory, file).unwrap().publisher().unwrap(),
        );
        directory.remove(file, false).unwrap();
    }
}

#[test]
fn a_topic_renamed_over_another_is_what_newcomers_get_and_nothing_to_those_attached() {
    let (path, directory) = directory();
    let (old, new) = (create(&directory, "t"), create(&directory, "u"));
    let (mut to_old, mut to_new) = (old.publisher().unwrap(), new.publisher().unwrap());
    to_old.publish(&1).unwrap();
    to_new.publish(&2).unwrap();
    let first = |topic: &Topic<u64>| {
        *topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap().receive().unwrap()
    };

    fs::rename(home(&directory, "t"), path.path().join(".aside")).unwrap();
    assert!(matches!(Topic::<u64>::open_in(&directory, "t"), Err(OpenError::NotFound { .. })));
    fs::rename(home(&directory, "u"), home(&directory, "t")).unwrap();
    let newcomer = Topic::<u64>::open_in(&directory, "t").unwrap();
    assert_eq!((first(&old), first(&new), first(&newcomer)), (1, 2, 2));
    goes_on(&old, &mut to_old);
    goes_on(&newcomer, &mut to_new);
    drop(to_old);
    goes_on(&old, &mut old.publisher().unwrap()); // a handle stays with its own
    assert!(matches!(newcomer.publisher(), Err(AttachError::PublisherAlive { .. })));
}

#[test]
fn files_renamed_over_those_of_a_topic_are_no_files_of_who_is_attached() {
    let (_path, directory) = directory();
    let (old, new) = (create(&directory, "t"), create(&directory, "u"));
    let mut to_old = old.publisher().unwrap();
    let mut to_new = new.publisher().unwrap();
    let replace = |file| {
        fs::rename(home(&directory, "u").join(file), home(&directory, "t").join(file)).unwrap();
    };
    let refused = || match old.publisher().err().unwrap() {
        AttachError::Open(OpenError::Header { .. }) => {}
        error => panic!("{error:?}"),
    };
    replace("data");
    refused(); // one file of each
    assert!(matches!(Topic::<u64>::open_in(&directory, "t"), Err(OpenError::Header { .. })));
    goes_on(&old, &mut to_old);
    replace("ctl");
    refused(); // a topic, but not the one that was opened
    goes_on(&old, &mut to_old);
    goes_on(&Topic::open_in(&directory, "t").unwrap(), &mut to_new);
}

#[test]
fn in_a_directory_that_may_not_be_written_topics_are_used_and_not_made_or_removed() {
    let (path, directory) = directory();
    let options = TopicOptions { mode: 0o666, ..small() };
    let topic = Topic::<u64>::create_in(&directory, "a/t", &options).unwrap();
    topic.publisher().unwrap().publish(&7).unwrap();
    let directories = [home(&directory, "a/t"), path.path().join("a/t"), path.path().join("a")];
    let all = || directories.iter().map(PathBuf::as_path).chain([path.path()]);
    all().for_each(|directory| set_mode(directory, 0o555));
    let status = role("read-only directory", path.path()).status().unwrap();
    all().for_each(|directory| set_mode(directory, 0o755)); // so that it can be removed
    assert!(status.success(), "{status}");
    assert!(!topic.info().retired);
}

#[test]
fn a_topic_is_of_the_group_asked_for_with_the_directories_above_it_or_leaves_nothing() {
    let (path, directory) = directory();
    // SAFETY: it takes nothing.
    let gid = if is_root() { FOREIGN_GROUP } else { unsafe { libc::getegid() } };
    fs::create_dir(path.path().join("there")).unwrap();
    let before = fs::metadata(path.path().join("there")).unwrap().gid();
    let options = TopicOptions { mode: 0o660, group: Some(gid), ..small() };
    for name in ["a/b", "there/t"] {
        Topic::<u64>::create_in(&directory, name, &options).unwrap();
        let home = home(&directory, name);
        for file in ["data", "ctl", "live", ".", ".."] {
            let found = fs::metadata(home.join(file)).unwrap();
            assert_eq!(found.gid(), gid, "{name} {file}");
            assert_eq!(found.mode() & 0o060, 0o060, "{name} {file}");
        }
    }
    assert_eq!(fs::metadata(path.path().join("a")).unwrap().gid(), gid);
    assert_eq!(fs::metadata(path.path().join("there")).unwrap().gid(), before, "not its own");
    let all = TopicOptions { group: Some(u32::MAX), ..small() };
    let error = Topic::<u64>::create_in(&directory, "none", &all).err().unwrap();
    assert!(matches!(error, CreateError::Options(_)), "{error:?}");
    play("foreign group", path.path());
}

/// Nobody is in it, but root may give to it.
const FOREIGN_GROUP: u32 = 54_321;

pub(super) fn play_foreign_group(path: &Path) {
    let path = path.join("own");
    fs::create_dir(&path).unwrap();
    if is_root() {
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    become_nobody();
    let directory = Directory::at(&path).unwrap();
    Topic::<u64>::create_in(&directory, "here/t", &small()).unwrap();
    let before = tree(&path);
    let options = TopicOptions { group: Some(FOREIGN_GROUP), ..small() };
    for name in ["a/b", "here/u"] {
        let error = Topic::<u64>::create_in(&directory, name, &options).err().unwrap();
        let CreateError::Group { gid: FOREIGN_GROUP, .. } = error else { panic!("{error:?}") };
    }
    assert_eq!(tree(&path), before);
}

/// Root may write everywhere, and becomes somebody who may not.
fn become_nobody() {
    if is_root() {
        // SAFETY: it takes a number.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
    }
}

pub(super) fn play_read_only_directory(path: &Path) {
    become_nobody();
    let before = tree(path);
    let directory = Directory::at(path).unwrap();
    for name in ["new", "a/new", "a/t/new"] {
        let error = Topic::<u64>::create_in(&directory, name, &small()).err().unwrap();
        let CreateError::Io { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied, "{error:?}");
    }
    let topic = Topic::<u64>::open_or_create_in(&directory, "a/t", &small()).unwrap();
    let mut subscriber = topic.subscriber_from(Delivery::Reliable, Start::Oldest).unwrap();
    let mut observer = directory.observe("a/t", Start::Oldest).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 7);
    assert_eq!(observer.try_next().unwrap().unwrap().bytes(), 7_u64.to_ne_bytes());
    drop(subscriber);
    goes_on(&topic, &mut topic.publisher().unwrap());
    assert_eq!(directory.topics().unwrap(), ["a/t"]);
    for force in [false, true] {
        let removed = directory.remove("a/t", force);
        assert!(
            matches!(removed, Err(RemoveError::Open(OpenError::Permission { .. }))),
            "{removed:?}"
        );
    }
    goes_on(&topic, &mut topic.publisher().unwrap()); // nobody was told that it is gone
    assert_eq!(tree(path), before);
}

#[test]
fn a_subscriber_that_had_no_descriptor_for_a_moment_settles_what_it_is_stuck_at_later() {
    let (path, _) = directory();
    play("a moment without descriptors", path.path());
}

pub(super) fn play_a_moment_without_descriptors(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let claim_timeout = Duration::from_millis(20);
    let options = TopicOptions { publishers: Publishers::Shared(2), claim_timeout, ..small() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    for delivery in [Delivery::Reliable, Delivery::Lossy] {
        let mut subscriber = topic.subscriber(delivery).unwrap();
        let mut stalls = topic.publisher().unwrap();
        let loan = stalls.loan().unwrap();
        let mut publisher = topic.publisher().unwrap();
        let sequence = publisher.publish(&7).unwrap();
        drop(publisher); // nobody is left to help
        let free = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
        limit_descriptors(free);
        let begun = Instant::now();
        let stalled = loop {
            match subscriber.receive_timeout(Duration::from_millis(10)) {
                Err(ReceiveError::Stalled { sequence }) => break sequence,
                Ok(None) => {}
                Ok(Some(_)) => panic!("a message that cannot be there"),
                Err(error) => panic!("{error}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(30));
        };
        assert_eq!(stalled, sequence - 1);
        limit_descriptors(1024);
        let sample = subscriber.receive_timeout(Duration::from_secs(30)).unwrap().unwrap();
        assert_eq!((*sample, sample.sequence(), sample.abandoned_before()), (7, sequence, 1));
        assert_eq!(sample.missed_before(), 0);
        drop(loan);
    }
}

#[test]
fn whoever_removes_without_descriptors_leaves_nobody_untold_and_looks_nowhere_else() {
    let (path, _) = directory();
    play("removing without descriptors", path.path());
}

pub(super) fn play_removing_without_descriptors(path: &Path) {
    // SAFETY: the process is this test's own, and no other thread of it looks at the environment.
    unsafe { std::env::remove_var("SHMBUS_DIR") };
    // SAFETY: as above.
    unsafe { std::env::set_var("XDG_RUNTIME_DIR", path) };
    let directory = Directory::from_env().unwrap();
    let free = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let mut refused = 0;
    for limit in 0..16 {
        let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
        let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
        drop(topic);
        limit_descriptors(free + limit);
        let found = Directory::path_from_env().0;
        let removed = directory.remove("t", true);
        let (topics, leftovers) = (directory.topics(), directory.leftovers());
        limit_descriptors(1024);
        assert_eq!(found, path.join("shmbus"));
        if let Ok(topics) = topics {
            assert_eq!(topics, directory.topics().unwrap(), "with {limit}");
        }
        if let Ok(leftovers) = leftovers {
            assert_eq!(leftovers.len(), directory.leftovers().unwrap().len(), "with {limit}");
        }
        refused += u32::from(removed.is_err());
        // What was not removed to its end is found by the next who creates or removes.
        drop(Topic::<u64>::open_or_create_in(&directory, "t", &small()).unwrap());
        directory.remove("t", true).unwrap();
        let told = subscriber.receive_timeout(Duration::from_secs(5));
        assert!(matches!(told, Err(ReceiveError::Retired)), "not told with a limit of {limit}");
        assert_eq!(tree(path), [path.join("shmbus")].into());
    }
    assert!((1..16).contains(&refused), "{refused}");
}

#[test]
fn a_process_that_may_lock_no_memory_lacks_nothing() {
    let (path, _) = directory();
    if is_root() && chown(path.path(), Some(NOBODY), None).is_err() {
        return eprintln!("skipped: this root may not give files away");
    }
    play("no locked memory", path.path());
}

pub(super) fn play_no_locked_memory(path: &Path) {
    become_nobody(); // whom the limit binds
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is valid for reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) }, 0);
    let directory = Directory::at(path).unwrap();
    let options = TopicOptions { prefault: true, ..small() };
    let topic = Topic::<u64>::create_in(&directory, "t", &options).unwrap();
    goes_on(&topic, &mut topic.publisher().unwrap());
    let again = Topic::<u64>::open_or_create_in(&directory, "t", &options).unwrap();
    goes_on(&again, &mut topic.publisher().unwrap());
    directory.remove("t", false).unwrap();
}

#[test]
fn a_participant_that_becomes_another_program_by_exec_is_gone_and_the_program_has_nothing_of_it() {
    let (path, directory) = directory();
    let topic = create(&directory, "t");
    let mut other = Player::new(role("exec", path.path()));
    assert_eq!(other.hear(), "here");
    assert_eq!(topic.info().participants.iter().filter(|who| who.liveness.is_alive()).count(), 3);
    assert!(matches!(topic.publisher(), Err(AttachError::PublisherAlive { .. })));
    other.tell("go");
    other.tell("> and now it is cat");
    assert_eq!(other.hear(), "and now it is cat");

    let process = PathBuf::from(format!("/proc/{}", other.child.id()));
    for descriptor in fs::read_dir(process.join("fd")).unwrap() {
        let link = fs::read_link(descriptor.unwrap().path()).unwrap();
        assert!(!link.starts_with(path.path()), "{link:?}");
    }
    let maps = fs::read_to_string(process.join("maps")).unwrap();
    assert!(!maps.contains(path.path().to_str().unwrap()), "{maps}");
    assert!(topic.info().participants.iter().all(|who| !who.liveness.is_alive()));
    let mut publisher = topic.publisher().unwrap();
    goes_on(&topic, &mut publisher); // past the reliable subscriber that it was
    assert_eq!(topic.info().deaths, 3);
    other.ends_well();
}

pub(super) fn play_exec(path: &Path) {
    let topic = Topic::<u64>::open_in(&Directory::at(path).unwrap(), "t").unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
    let _lossy = topic.subscriber(Delivery::Lossy).unwrap();
    publisher.publish(&1).unwrap();
    let _held = reliable.receive().unwrap().hold().unwrap();
    say("here");
    // One byte after the other: the program reads what follows.
    let mut byte = [0];
    while byte != *b"\n" {
        rustix::io::read(std::io::stdin(), &mut byte).unwrap();
    }
    panic!("{}", Command::new("cat").exec());
}

#[test]
fn a_process_that_is_refused_membarrier_publishes_with_a_fence_and_sleeps_for_short() {
    let (path, directory) = directory();
    let with = |wake| TopicOptions { wake, ..small() };
    let auto = Topic::<u64>::create_in(&directory, "auto", &with(Wake::Auto)).unwrap();
    let strict = Topic::<u64>::create_in(&directory, "strict", &with(Wake::Membarrier)).unwrap();
    let mut publisher = match strict.publisher() {
        Err(AttachError::Membarrier { .. }) => return eprintln!("skipped: no membarrier here"),
        other => other.unwrap(),
    };
    let mut from_other = auto.subscriber(Delivery::Reliable).unwrap();
    let mut other = Player::new(role("no membarrier", path.path()));
    match other.hear().as_str() {
        "here" => {}
        why => return eprintln!("{why}"),
    }
    for message in 0..100 {
        publisher.publish(&message).unwrap();
        assert_eq!(*from_other.receive().unwrap(), message, "its answer");
    }
    other.ends_well();
}

/// How often this thread goes to sleep while it waits for a message that does not come.
fn sleeps(subscriber: &mut shmbus::Subscriber<u64>) -> i64 {
    let count = || {
        // SAFETY: plain numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is valid for writes.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
        usage.ru_nvcsw
    };
    let before = count();
    assert!(subscriber.receive_timeout(Duration::from_millis(500)).unwrap().is_none());
    count() - before
}

pub(super) fn play_no_membarrier(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let [auto, strict] =
        ["auto", "strict"].map(|name| Topic::<u64>::open_in(&directory, name).unwrap());
    let mut subscriber = strict.subscriber(Delivery::Reliable).unwrap();
    let long_ones = sleeps(&mut subscriber);
    if !refuse(libc::SYS_membarrier, None) {
        return say("skipped: no filter of system calls may be installed here");
    }
    match strict.publisher() {
        Err(AttachError::Membarrier { source }) => {
            assert_eq!(source.raw_os_error(), Some(libc::EPERM));
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!(strict.info().participants.len(), 2, "it has taken no place");
    let short_ones = sleeps(&mut subscriber);
    assert!(short_ones > 2 * long_ones, "{short_ones} short sleeps, {long_ones} long ones");

    let mut publisher = auto.publisher().unwrap();
    say("here");
    for _ in 0..100 {
        let message = *subscriber.receive_timeout(PATIENCE).unwrap().unwrap();
        publisher.publish(&message).unwrap();
    }
    drop(publisher);
    assert!(matches!(subscriber.try_receive(), Ok(None) | Err(ReceiveError::Retired)));
}

#[test]
fn what_madvise_refuses_is_told_as_that_and_is_an_error_only_if_a_fork_would_inherit_memory() {
    let (path, directory) = directory();
    Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    play("no madvise", path.path());
}

pub(super) fn play_no_madvise(path: &Path) {
    let directory = Directory::at(path).unwrap();
    if !refuse(libc::SYS_madvise, Some(libc::MADV_DONTDUMP)) {
        return say("skipped: no filter of system calls may be installed here");
    }
    let topic = Topic::<u64>::open_in(&directory, "t").unwrap();
    goes_on(&topic, &mut topic.publisher().unwrap());
    assert!(refuse(libc::SYS_madvise, Some(libc::MADV_DONTFORK)));
    let text = |error: &dyn std::error::Error| {
        format!("{error}: {}", error.source().map_or(String::new(), |source| source.to_string()))
    };
    let error = Topic::<u64>::open_in(&directory, "t").err().unwrap();
    assert!(text(&error).contains("madvise(MADV_DONTFORK) was refused"), "{error:?}");
    let error = Topic::<u64>::create_in(&directory, "u/v", &small()).err().unwrap();
    assert!(matches!(error, CreateError::Open(OpenError::Io { .. })), "{error:?}");
    assert_eq!(directory.topics().unwrap(), ["t"], "nothing is left of it");
    assert!(!path.join("u").exists());
}

/// Locks cannot be opened then; one that was opened before waits without using up a processor; topics lack nothing.
#[test]
fn a_process_that_is_refused_futex_waitv_is_told_when_it_opens_a_lock() {
    let (path, _directory) = directory();
    play("no futex_waitv", path.path());
}

/// What this thread has used of a processor.
fn used() -> Duration {
    // SAFETY: plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writes.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000))
        .sum()
}

pub(super) fn play_no_futex_waitv(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let options = SyncOptions::default();
    let open = || RobustMutex::open_or_create_in(&directory, "lock", &options, 0u64);
    let mutex = open().unwrap();
    let (go, wait_to_go) = std::sync::mpsc::channel::<()>();
    let (locked, wait_until_locked) = std::sync::mpsc::channel();
    // It goes on without the filter, which is this thread's alone.
    let holder = std::thread::spawn({
        let (directory, options) = (directory.clone(), options.clone());
        move || {
            let mutex = RobustMutex::open_or_create_in(&directory, "lock", &options, 0u64).unwrap();
            let guard = mutex.lock().unwrap();
            locked.send(()).unwrap();
            wait_to_go.recv().unwrap();
            drop(guard);
        }
    });
    wait_until_locked.recv().unwrap();
    if !refuse(libc::SYS_futex_waitv, None) {
        go.send(()).unwrap();
        holder.join().unwrap();
        return say("skipped: no filter of system calls may be installed here");
    }
    match open() {
        Err(SyncCreateError::Open(SyncOpenError::SystemCall {
            call: "futex_waitv",
            source,
            ..
        })) => {
            assert_eq!(source.raw_os_error(), Some(libc::EPERM));
        }
        other => panic!("{:?}", other.map(drop)),
    }
    let event = Event::open_or_create_in(&directory, "event", &options, Reset::Auto);
    assert!(matches!(event, Err(SyncCreateError::Open(SyncOpenError::SystemCall { .. }))));
    let held = directory.inspect_sync("lock").unwrap().members.len();
    assert_eq!(held, 2, "it has taken no place");

    let before = used();
    let time = Duration::from_millis(500);
    assert!(matches!(mutex.lock_timeout(time), Err(LockError::Failed(WaitError::TimedOut))));
    let spent = used() - before;
    assert!(spent < time / 4, "it has used {spent:?} of {time:?}");
    go.send(()).unwrap();
    mutex.lock_timeout(PATIENCE).unwrap();
    holder.join().unwrap();

    let topic = create(&directory, "topic");
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    topic.publisher().unwrap().publish(&7).unwrap();
    assert_eq!(*subscriber.receive_timeout(PATIENCE).unwrap().unwrap(), 7);
}

/// From here on the kernel answers `EPERM` to a system call of this thread, or to that with a certain third argument. False: it may not be told so.
fn refuse(number: libc::c_long, third: Option<i32>) -> bool {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut steps = vec![
        step(load, 0, 0, 0), // the number
        step(jump, 0, if third.is_some() { 3 } else { 1 }, number as u32),
    ];
    if let Some(third) = third {
        steps.push(step(load, 0, 0, 32)); // its low half
        steps.push(step(jump, 0, 1, third as u32));
    }
    steps.extend([
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: numbers only.
    let no_more = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    let (option, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER);
    // SAFETY: a program of so many steps, valid for reads.
    no_more && unsafe { libc::prctl(option, mode, &raw const program) } == 0
}
