//! How much of a broker one user, and all users of one rule, can have.
#![allow(unsafe_code)] // users that a thread is for a while

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use shmbus::{
    AttachError, Broker, Delivery, GuardedTopic, OpenError, Policy, Rule, Topic, TopicOptions,
};
use shmbus_sys::{process, unix};

use crate::attacker::{self, Seat};
use crate::support::{Served, me};
use crate::{NAME, everything, options};

/// A group of users that nobody is.
const GROUP: u32 = 54_400;

/// Does it in a thread that is user `uid` of [`GROUP`]. `None`: this process may not.
fn as_user<T: Send>(uid: u32, does: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none: *const u32 = std::ptr::null();
            // SAFETY: a system call with an empty list. Unlike the C library's functions, these are about the calling thread alone.
            let groups = unsafe { libc::syscall(libc::SYS_setgroups, 0, none) };
            // SAFETY: a system call with integers.
            let group = unsafe { libc::syscall(libc::SYS_setresgid, GROUP, GROUP, GROUP) };
            // SAFETY: as above.
            let user = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            let done = [groups, group, user] == [0; 3];
            done.then(does)
        });
        thread.join().unwrap()
    })
}

fn group(subscribers: u32) -> Rule {
    let gids = vec![GROUP];
    Rule { uids: Vec::new(), gids, publish: false, subscribers, ..me(&["md/*"]) }
}

fn served(subscribers_max: u32, rules: Vec<Rule>) -> Served {
    let options = TopicOptions { subscribers_max, ..options() };
    Served::new(vec![GuardedTopic::create::<u64>(NAME, &options).unwrap()], Policy { rules })
}

/// A bug: of 40 that joined at the same moment 32 were refused, because one user has eight connections.
#[test]
fn everybody_joins_though_more_come_at_once_than_one_user_has_connections() {
    const JOINERS: usize = 40;
    let served = served(64, vec![Rule { subscribers: 64, ..me(&["md/*"]) }]);
    let start = Barrier::new(JOINERS);
    let joined: Vec<_> = std::thread::scope(|scope| {
        let joiners = [(); JOINERS].map(|()| {
            scope.spawn(|| {
                start.wait();
                let topic = Topic::<u64>::connect(served.socket(), NAME)?;
                topic.subscriber(Delivery::Reliable)
            })
        });
        joiners.into_iter().map(|joiner| joiner.join().unwrap()).collect()
    });
    let refused: Vec<_> = joined.iter().filter_map(|joined| joined.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} of {JOINERS}: {:?}", refused.len(), refused[0]);
}

/// A bug: whoever had read the answer and kept the connection had one of eight for ever.
#[test]
fn a_connection_is_closed_when_its_answer_was_read() {
    let served =
        Served::new(vec![GuardedTopic::create::<u64>(NAME, &options()).unwrap()], everything());
    let mut kept: Vec<OwnedFd> = Vec::new();
    let begin = Instant::now();
    while kept.len() < 20 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} were answered", kept.len());
        kept.extend(attacker::answered(served.socket(), NAME));
        std::thread::yield_now();
    }
    Topic::<u64>::connect(served.socket(), NAME).unwrap();
}

fn unread(socket: &Path) -> Vec<OwnedFd> {
    attacker::answers_that_are_kept(socket, NAME, 8)
}

/// A bug: 64 users of a group, which is anybody with subordinate user ids, kept an answer unread on each of all connections that there were.
#[test]
fn answers_that_a_group_never_reads_keep_nobody_of_another_rule_out() {
    process::raise_descriptor_limit(4_000.min(process::descriptor_limits().1)).unwrap();
    let served = served(8, vec![group(2), me(&["md/*"])]);
    let mut kept = Vec::new();
    for uid in GROUP + 1..GROUP + 70 {
        let Some(unread) = as_user(uid, || unread(served.socket())) else {
            return println!("skipped: needs to be root");
        };
        kept.push(unread);
    }
    assert!(kept.iter().all(|unread| unread.len() <= 8));
    let all: usize = kept.iter().map(Vec::len).sum();
    assert!((64..=512).contains(&all), "{all} are kept");
    assert_eq!(kept.last().unwrap().len(), 0, "the group has as many as it may");
    let topic = Topic::<u64>::connect(served.socket(), NAME).expect("another rule's user");
    let _subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    drop(kept);
    let late = as_user(GROUP + 100, || Topic::<u64>::connect(served.socket(), NAME).map(drop));
    late.unwrap().expect("it was asked again until those were gone");
}

fn seats(uid: u32, socket: &Path) -> Option<Vec<Seat>> {
    as_user(uid, || (0..9).map_while(|_| Seat::take(socket, NAME, 2)).collect())
}

/// A bug: 16 users of a group had all entries of a topic, and had them for ever.
#[test]
fn users_of_a_group_have_half_of_the_entries_until_they_are_gone() {
    let served = served(8, vec![group(2), me(&["md/*"])]);
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    publisher.publish(&1).unwrap();
    let take = |uid| seats(GROUP + uid, served.socket());
    let Some(first) = take(1) else { return println!("skipped: needs to be root") };
    let second = take(2).unwrap();
    let counts = [first.len(), second.len(), take(3).unwrap().len(), take(4).unwrap().len()];
    assert_eq!(counts, [2, 2, 0, 0], "each has its own, and all of them half");
    let others: Vec<_> = (0..4).map(|_| topic.subscriber(Delivery::Reliable).unwrap()).collect();
    let full = topic.subscriber(Delivery::Lossy).err();
    assert!(matches!(full, Some(AttachError::SubscribersFull { max: 4 })), "{full:?}");
    // Leases that were given back say nothing: the pages are mapped still.
    first.iter().for_each(Seat::give_lease_back);
    assert_eq!(take(3).unwrap().len(), 0);
    drop(first);
    let third = take(3).unwrap();
    assert_eq!(third.len(), 2, "what the first one had");
    drop((second, third));
    // It comes back to the first one, too, and no more than before to all of them.
    let counts = [1, 2, 4].map(|uid| take(uid).unwrap());
    assert_eq!(counts.map(|seats| seats.len()), [2, 2, 0]);
    drop(others);
    for number in 2..1_000 {
        publisher.publish(&number).unwrap();
    }
}

#[test]
fn a_rule_says_how_many_entries_all_of_its_users_have() {
    let rule = Rule { subscribers: 8, subscribers_total: Some(3), ..me(&["md/*"]) };
    let served = served(8, vec![rule]);
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let _three = [(); 3].map(|()| topic.subscriber(Delivery::Lossy).unwrap());
    let full = topic.subscriber(Delivery::Lossy).err();
    assert!(matches!(full, Some(AttachError::SubscribersFull { max: 3 })), "{full:?}");
}

#[test]
fn a_broker_that_may_not_have_descriptors_enough_says_how_many_it_needs() {
    let rules = 1_000_000_000;
    let needed = *Broker::descriptors(GuardedTopic::descriptors(&options()), rules).start();
    assert!(needed > rules as u64);
    let private = tempfile::tempdir().unwrap();
    let listener = Broker::listen(&private.path().join("broker")).unwrap();
    // As many rules as no machine has descriptors for.
    let many = Policy { rules: vec![Rule::default(); 200_000] };
    let (limit, _) = process::descriptor_limits();
    match Broker::new(listener, vec![GuardedTopic::create::<u64>(NAME, &options()).unwrap()], many)
    {
        Err(OpenError::Descriptors { needed, limit: told }) => {
            assert!(needed > limit && told == limit, "{needed} of {told}");
        }
        other => assert!(other.is_ok() && limit > 6_400_000, "{:?}", other.err()),
    }
}

/// Who is let in by a policy is decided by the next one as soon as it is set.
#[test]
fn another_policy_decides_from_then_on() {
    let private = tempfile::tempdir().unwrap();
    let socket = private.path().join("broker");
    let topic = GuardedTopic::create::<u64>(NAME, &options()).unwrap();
    let mut broker =
        Broker::new(Broker::listen(&socket).unwrap(), vec![topic], everything()).unwrap();
    let ask = |broker: &mut Broker| {
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| Topic::<u64>::connect(&socket, NAME).map(drop));
            while !asks.is_finished() {
                broker.turn(Duration::from_millis(1)).unwrap();
            }
            asks.join().unwrap()
        })
    };
    ask(&mut broker).unwrap();
    broker.set_policy(Policy::default()).unwrap();
    assert!(matches!(ask(&mut broker), Err(OpenError::Refused { .. })));
    broker.set_policy(everything()).unwrap();
    ask(&mut broker).unwrap();
}

#[test]
fn who_connected_is_told_with_its_supplementary_groups() {
    let Some(groups) = as_user(GROUP + 1, || {
        let (one, _other) = unix::pair().unwrap();
        unix::peer(one.as_fd()).unwrap().groups
    }) else {
        return println!("skipped: needs to be root");
    };
    assert_eq!(groups, [0; 0]);
    let in_groups = std::thread::spawn(|| {
        let groups: Vec<u32> = (1_000..1_100).collect(); // more than are asked for at first
        // SAFETY: a system call that reads the list; about the calling thread alone.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }, 0);
        let (one, _other) = unix::pair().unwrap();
        (unix::peer(one.as_fd()).unwrap().groups, groups)
    });
    let (told, groups) = in_groups.join().unwrap();
    assert_eq!(told, groups);
}
