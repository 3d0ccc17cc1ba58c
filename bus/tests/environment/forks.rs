//! Handles in odd places: in a child that was forked and did not exec, in a program that was
//! exec'd, in other threads, twice in one process.
//!
//! Forks happen in a role whose only other thread, the test program's first, is asleep until the
//! test is over: it holds no lock that the child could need.
#![allow(unsafe_code)] // fork, waitpid, _exit

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use static_assertions::assert_impl_all;

use super::{Player, descriptors, directory, mappings, play, role, say, small};
use shmbus::{
    AttachError, Delivery, Directory, Held, Loan, ObserveError, Observer, PublishAllError,
    PublishError, Publisher, ReceiveError, SeekError, Start, Subscriber, Topic, TryPublishError,
};

assert_impl_all!(Topic<u64>: Send, Sync, Clone);
assert_impl_all!(Publisher<[u8]>: Send);
assert_impl_all!(Subscriber<[u8]>: Send);
assert_impl_all!(Loan<'static, u64>: Send);
assert_impl_all!(Held<u64>: Send, Sync, Clone);

/// A child of [`fork`].
struct Forked(libc::pid_t);

/// `None` in the child, which has copies of everything and must end in [`leave`].
fn fork() -> Option<Forked> {
    // SAFETY: the only other thread sleeps, so that every lock is free in the child.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", std::io::Error::last_os_error()),
        0 => None,
        pid => Some(Forked(pid)),
    }
}

/// Does the child's work and ends it; the rest of the test program is its parent's.
fn leave(work: impl FnOnce()) -> ! {
    let worked = catch_unwind(AssertUnwindSafe(work)).is_ok();
    // SAFETY: it takes a number.
    unsafe { libc::_exit(if worked { 0 } else { 1 }) }
}

impl Forked {
    /// How it ended.
    fn end(self) -> String {
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        match libc::WIFEXITED(status) {
            true => format!("exit {}", libc::WEXITSTATUS(status)),
            false => format!("signal {}", libc::WTERMSIG(status)),
        }
    }
}

fn there(path: &Path) -> (Directory, Topic<u64>) {
    let directory = Directory::at(path).unwrap();
    let topic = Topic::open_or_create_in(&directory, "t", &small()).unwrap();
    (directory, topic)
}

fn participants(topic: &Topic<u64>) -> Vec<(u32, shmbus::ParticipantKind, u32, bool)> {
    let info = topic.info();
    info.participants
        .iter()
        .map(|who| (who.entry, who.kind, who.pid, who.liveness.is_alive()))
        .collect()
}

#[test]
fn handles_in_a_forked_child_answer_forked_and_their_end_harms_nobody() {
    let (path, _) = directory();
    play("forking", path.path());
}

pub(super) fn play_forking(path: &Path) {
    let (directory, topic) = there(path);
    let mut publisher = topic.publisher().unwrap();
    let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
    let mut lossy = topic.subscriber(Delivery::Lossy).unwrap();
    let before = participants(&topic);
    assert_eq!(before.len(), 3);
    publisher.publish(&1).unwrap();
    let held = reliable.receive().unwrap().hold().unwrap();
    let sample = lossy.receive().unwrap();
    let observer = directory.observe("t", Start::Oldest).unwrap();

    let Some(child) = fork() else {
        assert!(sample.hold().is_err());
        leave(|| {
            drop(held.clone());
            drop(held);
            everything_answers_forked(&topic, &mut publisher, &mut reliable);
            everything_answers_forked(&topic.clone(), &mut publisher, &mut lossy);
            an_observer_answers_forked(observer);
            drop((topic, publisher, reliable, lossy));
            assert!(descriptors().iter().all(|link| !link.starts_with(path)));
            assert_eq!(mappings(path), 0);
            anew_in_a_child(&directory);
        })
    };
    assert_eq!(child.end(), "exit 0");
    assert!(observer.info().participants.iter().all(|who| who.liveness.is_alive()));
    assert_eq!(*sample, 1);
    drop(sample.hold().unwrap());
    assert_eq!(participants(&topic), before);
    play("publisher alive", path); // a third process still sees the leases
    for message in 2..100 {
        publisher.publish(&message).unwrap();
        assert_eq!(*reliable.receive().unwrap(), message);
        assert_eq!(*lossy.receive().unwrap(), message);
    }
    assert_eq!((*held, lossy.missed()), (1, 0));

    let mut loan = publisher.loan().unwrap();
    *loan = 100;
    let Some(child) = fork() else { leave(|| drop(loan)) };
    assert_eq!(child.end(), "exit 0");
    let Some(child) = fork() else {
        leave(|| assert_eq!(loan.commit(), Err(PublishError::Forked)))
    };
    assert_eq!(child.end(), "exit 0");
    loan.commit().unwrap();
    assert_eq!(*reliable.receive().unwrap(), 100);
}

fn everything_answers_forked(
    topic: &Topic<u64>,
    publisher: &mut Publisher<u64>,
    subscriber: &mut Subscriber<u64>,
) {
    assert!(matches!(topic.publisher(), Err(AttachError::Forked)));
    for delivery in [Delivery::Lossy, Delivery::Reliable] {
        assert!(matches!(topic.subscriber(delivery), Err(AttachError::Forked)));
        let from = topic.subscriber_from(delivery, Start::Oldest);
        assert!(matches!(from, Err(AttachError::Forked)));
    }
    let second = Duration::from_secs(1);
    assert_eq!(publisher.publish(&9), Err(PublishError::Forked));
    assert_eq!(publisher.publish_timeout(&9, second), Err(PublishError::Forked));
    let tried = publisher.try_publish(&9);
    assert_eq!(tried, Err(TryPublishError::Failed(PublishError::Forked)));
    assert!(matches!(publisher.loan(), Err(PublishError::Forked)));
    for messages in [&[][..], &[9, 9]] {
        let forked = PublishAllError { published: 0, source: PublishError::Forked };
        assert_eq!(publisher.publish_all(messages), Err(forked));
    }
    assert_eq!(publisher.sequence(), 1);
    let forked = Some(ReceiveError::Forked);
    assert_eq!(subscriber.try_receive().err(), forked);
    assert_eq!(subscriber.receive().err(), forked);
    assert_eq!(subscriber.receive_timeout(second).err(), forked);
    assert_eq!(subscriber.receive_deadline(Instant::now() + second).err(), forked);
    assert_eq!(subscriber.receive_latest().err(), forked);
    assert_eq!(subscriber.try_receive_batch().err(), forked);
    assert_eq!(subscriber.receive_batch().err(), forked);
    assert_eq!(subscriber.for_each_available(|_| panic!("there is nothing")).err(), forked);
    assert_eq!(subscriber.seek(1), Err(SeekError::Forked));
    assert!(matches!(topic.observe(Start::Oldest), Err(AttachError::Forked)));
    let numbers = (subscriber.position(), subscriber.lag(), subscriber.missed());
    assert_eq!(numbers, (1, 0, 0));
}

fn an_observer_answers_forked(mut observer: Observer) {
    assert_eq!(observer.try_next(), Err(ObserveError::Forked));
    assert_eq!(observer.next_timeout(Duration::from_secs(1)), Err(ObserveError::Forked));
    assert_eq!(observer.seek(0), Err(SeekError::Forked));
    assert_eq!((observer.position(), observer.lag(), observer.missed()), (0, 0, 0));
    assert_eq!(observer.info().participants.len(), 0);
}

/// A child that opens the topic itself is a process like any other; and so is its own child.
fn anew_in_a_child(directory: &Directory) {
    let topic = Topic::<u64>::open_in(directory, "t").unwrap();
    let parent = std::os::unix::process::parent_id();
    match topic.publisher().err().unwrap() {
        AttachError::PublisherAlive { pid } => assert_eq!(pid, parent),
        error => panic!("{error:?}"),
    }
    let mut subscriber = topic.subscriber_from(Delivery::Reliable, Start::Oldest).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 1);
    let of_child = Topic::<u64>::create_in(directory, "of-child", &small()).unwrap();
    let mut publisher = of_child.publisher().unwrap();
    let Some(grandchild) = fork() else {
        leave(|| {
            assert_eq!(subscriber.try_receive().err(), Some(ReceiveError::Forked));
            assert_eq!(publisher.publish(&1), Err(PublishError::Forked));
            drop((topic, of_child, subscriber, publisher));
        })
    };
    assert_eq!(grandchild.end(), "exit 0");
    assert!(subscriber.try_receive().unwrap().is_none());
    publisher.publish(&1).unwrap();
    drop((subscriber, of_child, publisher));
    directory.remove("of-child", false).unwrap();
}

#[test]
fn asking_a_topic_for_its_info_in_a_forked_child_is_no_access_outside_the_mapping() {
    let (path, _) = directory();
    play("info in a fork", path.path());
}

pub(super) fn play_info_in_a_fork(path: &Path) {
    let (_directory, topic) = there(path);
    let Some(child) = fork() else { leave(|| drop(topic.info())) };
    assert_ne!(child.end(), format!("signal {}", libc::SIGSEGV));
}

#[test]
fn topics_made_by_a_process_and_by_its_forked_child_are_different_ones() {
    let (path, _) = directory();
    play("forking creators", path.path());
}

pub(super) fn play_forking_creators(path: &Path) {
    let (directory, _topic) = there(path);
    let create = |name| drop(Topic::<u64>::create_in(&directory, name, &small()).unwrap());
    let Some(child) = fork() else { leave(|| create("of-child")) };
    assert_eq!(child.end(), "exit 0");
    create("of-parent");
    let instance = |name: &str| {
        let mut bytes = [0; 8];
        let data = fs::File::open(path.join(name).join(".topic/data")).unwrap();
        data.read_exact_at(&mut bytes, 16).unwrap();
        bytes
    };
    assert_ne!(
        instance("of-child"),
        instance("of-parent"),
        "the mark that says whose files they are"
    );
}

#[test]
fn a_publisher_that_was_killed_is_dead_although_its_forked_child_lives() {
    let (path, directory) = directory();
    let mut doomed = Player::new(role("doomed parent", path.path()));
    let child = doomed.hear(); // said by the child itself: it has come out of fork
    let topic = Topic::<u64>::open_in(&directory, "t").unwrap();
    assert!(matches!(topic.publisher(), Err(AttachError::PublisherAlive { .. })));
    doomed.child.kill().unwrap();
    let its_input = doomed.child.stdin.take();
    doomed.child.wait().unwrap();
    let mut publisher = topic.publisher().unwrap();
    for message in 0..100 {
        publisher.publish(&message).unwrap(); // waits for no reliable subscriber of the dead
    }
    assert_eq!(topic.info().participants.len(), 1);
    let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    assert!(!stat.contains(") Z "), "{stat}");
    drop(its_input); // and the child ends
}

pub(super) fn play_doomed_parent(path: &Path) {
    let (_directory, topic) = there(path);
    let mut publisher = topic.publisher().unwrap();
    let _subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    publisher.publish(&1).unwrap();
    let Some(child) = fork() else {
        leave(|| {
            say(&std::process::id().to_string());
            _ = std::io::stdin().read(&mut [0]);
        })
    };
    child.end(); // not before this process was killed
}

#[test]
fn an_exec_inherits_neither_descriptors_nor_mappings_nor_leases() {
    let (path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let opened = Topic::<u64>::open_in(&directory, "t").unwrap();
    let mut subscriber = opened.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&1).unwrap();
    let held = subscriber.receive().unwrap().hold().unwrap();
    let mut other = Player::new(role("inherited", path.path()));
    assert_eq!(other.hear(), "0 descriptors, 0 mappings");
    play("publisher alive", path.path());
    drop((publisher, subscriber, held));
    assert!(topic.info().participants.is_empty());
    topic.publisher().unwrap(); // while the other one lives
    other.ends_well();
}

pub(super) fn play_inherited(path: &Path) {
    let count = descriptors().iter().filter(|link| link.starts_with(path)).count();
    say(&format!("{count} descriptors, {} mappings", mappings(path)));
    _ = std::io::stdin().read(&mut [0]);
}

/// A process that is neither the publisher nor its parent or child asks after it.
pub(super) fn play_publisher_alive(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let topic = Topic::<u64>::open_in(&directory, "t").unwrap();
    match topic.publisher().err().unwrap() {
        AttachError::PublisherAlive { pid } => assert_eq!(pid, std::os::unix::process::parent_id()),
        error => panic!("{error:?}"),
    }
    let info = topic.info();
    assert!(info.participants.len() > 1);
    assert!(info.participants.iter().all(|participant| participant.liveness.is_alive()));
}

#[test]
fn handles_move_between_threads_and_outlive_the_thread_that_made_them() {
    let (path, directory) = directory();
    let (topic, mut publisher, mut subscriber) = std::thread::spawn(move || {
        let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
        let publisher = topic.publisher().unwrap();
        let subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        (topic, publisher, subscriber)
    })
    .join()
    .unwrap();
    play("publisher alive", path.path()); // a lease is the process's, not the thread's
    let held = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for message in 0..1000 {
                publisher.publish(&message).unwrap();
            }
        });
        let subscriber = scope.spawn(|| {
            for message in 0..999 {
                assert_eq!(*subscriber.receive().unwrap(), message);
            }
            subscriber.receive().unwrap().hold().unwrap()
        });
        publisher.join().unwrap();
        subscriber.join().unwrap()
    });
    let clones: Vec<_> = (0..4).map(|_| held.clone()).collect();
    drop((held, publisher, subscriber));
    let sums: Vec<_> = clones.into_iter().map(|held| std::thread::spawn(move || *held)).collect();
    assert_eq!(sums.into_iter().map(|sum| sum.join().unwrap()).sum::<u64>(), 4 * 999);
    assert!(topic.info().participants.is_empty());
    topic.publisher().unwrap();
}

#[test]
fn two_topic_values_of_one_process_are_two_participants_like_any_others() {
    let (_path, directory) = directory();
    let first = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let second = Topic::<u64>::open_in(&directory, "t").unwrap();
    let mut publisher = first.publisher().unwrap();
    let mut of_first = first.subscriber(Delivery::Reliable).unwrap();
    let mut of_second = second.subscriber(Delivery::Reliable).unwrap();
    assert_eq!(participants(&first), participants(&second));
    assert_eq!(participants(&first).len(), 3);
    assert!(participants(&second).iter().all(|participant| participant.3), "seen alive by both");
    assert!(matches!(second.publisher(), Err(AttachError::PublisherAlive { .. })));
    for message in 0..100 {
        publisher.publish(&message).unwrap();
        assert_eq!(*of_first.receive().unwrap(), message);
        assert_eq!(*of_second.receive().unwrap(), message);
    }
    drop(first); // its handles go on
    publisher.publish(&100).unwrap();
    assert_eq!(*of_first.receive().unwrap(), 100);
    drop((publisher, of_first));
    second.publisher().unwrap().publish(&101).unwrap();
    assert_eq!(*of_second.receive().unwrap(), 100);
    assert_eq!(*of_second.receive().unwrap(), 101);
}
