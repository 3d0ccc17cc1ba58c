//! Guarded topics: a broker, and who joins through it. Other users, who attack, are in `guarded/`.

#[path = "guarded/attacker.rs"]
mod attacker;
#[path = "guarded/hostile.rs"]
mod hostile;
#[path = "guarded/passing.rs"]
mod passing;
#[path = "guarded/quotas.rs"]
mod quotas;
#[path = "support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "guarded/support.rs"]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use attacker::Seat;
use shmbus::process::CommandExt;
use shmbus::{
    AttachError, Broker, Delivery, GuardedTopic, OpenError, Policy, PublishError, Publishers,
    ReceiveError, Rule, Start, Topic, TopicOptions, TryPublishError,
};
use support::{Player, Served, me};

const NAME: &str = "md/quotes";

fn options() -> TopicOptions {
    TopicOptions { depth: 64, subscribers_max: 4, ..TopicOptions::default() }
}

fn everything() -> Policy {
    Policy { rules: vec![me(&["md/*"])] }
}

fn serve(policy: Policy) -> Served {
    Served::new(vec![GuardedTopic::create::<u64>(NAME, &options()).unwrap()], policy)
}

#[test]
fn messages_reach_a_sleeping_subscriber_and_one_that_looks() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut lossy = topic.subscriber(Delivery::Lossy).unwrap();
    let mut reliable = topic.subscriber(Delivery::Reliable).unwrap();
    let sleeper = std::thread::spawn(move || {
        let received = (0..1000).map(|_| *reliable.receive().unwrap());
        received.collect::<Vec<_>>()
    });
    for number in 0..1000_u64 {
        publisher.publish(&number).unwrap();
        assert_eq!(**lossy.try_receive().unwrap().as_ref().unwrap(), number);
        if number % 100 == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(sleeper.join().unwrap(), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_topic_is_seen_with_its_type_and_without_its_subscribers() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let _subscriber = topic.subscriber(Delivery::Lossy).unwrap();
    assert_eq!(topic.info().participants.len(), 0);
    assert_eq!((topic.info().depth, topic.info().type_name), (64, "u64".to_owned()));
    let other = Topic::<u32>::connect(served.socket(), NAME);
    assert!(matches!(other, Err(OpenError::Type { .. })));
}

#[test]
fn one_publishes_at_a_time_and_the_next_goes_on_where_the_last_one_stopped() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut first = topic.publisher().unwrap();
    let second = topic.publisher().err();
    assert!(
        matches!(second, Some(AttachError::PublisherAlive { pid }) if pid == std::process::id())
    );
    first.publish(&7).unwrap();
    drop(first);
    let mut second = topic.publisher().unwrap();
    assert_eq!(second.publish(&8).unwrap(), 1);
    let mut late = topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
    assert_eq!(*late.receive().unwrap(), 7);
    assert_eq!(*late.receive().unwrap(), 8);
}

#[test]
fn what_the_policy_does_not_allow_is_refused() {
    let reads = Rule { publish: false, reliable: false, subscribers: 1, ..me(&["md/*"]) };
    let served = serve(Policy { rules: vec![reads] });
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let refused = |error: Option<AttachError>| {
        assert!(matches!(error, Some(AttachError::Open(OpenError::Refused { .. }))), "{error:?}");
    };
    refused(topic.publisher().err());
    refused(topic.subscriber(Delivery::Reliable).err());
    let first = topic.subscriber(Delivery::Lossy).unwrap();
    let second = topic.subscriber(Delivery::Lossy).err();
    assert!(matches!(second, Some(AttachError::SubscribersFull { max: 1 })), "{second:?}");
    drop(first);
    topic.subscriber(Delivery::Lossy).unwrap();
    let other = Topic::<u64>::connect(served.socket(), "secret");
    assert!(matches!(other, Err(OpenError::Refused { .. })), "and not that there is none");
    let none = Topic::<u64>::connect(served.socket(), "md/none");
    assert!(matches!(none, Err(OpenError::NotFound { .. })));
    let nobody = serve(Policy::default());
    let stranger = Topic::<u64>::connect(nobody.socket(), NAME);
    assert!(matches!(stranger, Err(OpenError::Refused { .. })));
}

#[test]
fn shared_publishers_and_more_than_64_subscribers_are_refused() {
    let shared = TopicOptions { publishers: Publishers::Shared(2), ..options() };
    assert!(GuardedTopic::create::<u64>(NAME, &shared).is_err());
    let many = TopicOptions { subscribers_max: 65, ..options() };
    assert!(GuardedTopic::create::<u64>(NAME, &many).is_err());
    let most = TopicOptions { subscribers_max: 64, ..options() };
    let served = Served::new(vec![GuardedTopic::create::<u64>(NAME, &most).unwrap()], everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    topic.publisher().unwrap().publish(&1).unwrap();
}

#[test]
fn those_who_have_joined_go_on_without_a_broker() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    drop(served);
    for number in 0..1000 {
        publisher.publish(&number).unwrap();
        assert_eq!(*subscriber.receive().unwrap(), number);
    }
    assert!(matches!(
        topic.subscriber(Delivery::Lossy).err(),
        Some(AttachError::Open(OpenError::Broker { .. }))
    ));
}

#[test]
fn each_subscriber_has_its_own_budget_of_held_blocks() {
    let options = TopicOptions { hold_blocks: Some(2), ..options() };
    let served =
        Served::new(vec![GuardedTopic::create::<u64>(NAME, &options).unwrap()], everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut greedy = topic.subscriber(Delivery::Lossy).unwrap();
    let mut other = topic.subscriber(Delivery::Lossy).unwrap();
    let block = topic.info().block_len;
    let mut held = Vec::new();
    for number in 0..block * 6 {
        publisher.publish(&number).unwrap();
        let sample = greedy.try_receive().unwrap().unwrap();
        if number % block == 0 {
            held.extend(sample.hold().ok());
        }
    }
    assert_eq!(held.iter().map(|sample| **sample).collect::<Vec<_>>(), [0, block]);
    let mut of_another = other.receive().unwrap().hold().unwrap();
    for number in 0..10_000 {
        publisher.publish(&number).unwrap();
    }
    assert_eq!((*held[0], *held[1], *of_another), (0, block, 0));
    held.clear();
    greedy.receive().unwrap().hold().unwrap();
    of_another = other.receive().unwrap().hold().unwrap();
    drop(of_another);
}

#[test]
fn a_reliable_subscriber_that_stands_still_is_lossy_after_its_patience() {
    let patience = Duration::from_millis(50);
    let served = serve(Policy { rules: vec![Rule { patience, ..me(&["md/*"]) }] });
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut frozen = topic.subscriber(Delivery::Reliable).unwrap();
    let mut filled = 0_u64;
    loop {
        match publisher.try_publish(&filled) {
            Ok(_) => filled += 1,
            Err(TryPublishError::Full) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(filled <= 64, "{filled} messages");
    let begin = Instant::now();
    publisher.publish(&filled).unwrap();
    assert!(begin.elapsed() >= patience, "it was waited for: {:?}", begin.elapsed());
    for number in filled + 1..1000 {
        publisher.publish(&number).unwrap();
    }
    let told = loop {
        match frozen.try_receive() {
            Ok(Some(sample)) => assert_eq!(sample.missed_before(), 0),
            other => break other.err(),
        }
    };
    assert_eq!(told, Some(ReceiveError::Evicted));
    assert!(frozen.receive().unwrap().missed_before() > 0);
}

/// A bug: a try that failed counted as one that had found room, so that of the time between two tries nothing was owed. A reliable subscriber that stood
/// still, or a hostile one, kept a publisher that only tries out for ever.
#[test]
fn a_reliable_subscriber_that_stands_still_keeps_one_that_only_tries_out_for_its_patience() {
    let patience = Duration::from_millis(20);
    let served = serve(Policy { rules: vec![Rule { patience, ..me(&["md/*"]) }] });
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut frozen = topic.subscriber(Delivery::Reliable).unwrap();
    while publisher.try_publish(&1).is_ok() {}
    let (begin, mut tries) = (Instant::now(), 0);
    while publisher.try_publish(&2).is_err() {
        tries += 1;
        assert!(tries < 2 * patience.as_millis(), "it is kept out for longer than that");
        std::thread::sleep(Duration::from_millis(1)); // it does something else
    }
    assert!(begin.elapsed() >= patience, "evicted too early: {:?}", begin.elapsed());
    let told = loop {
        match frozen.try_receive() {
            Ok(Some(sample)) => assert_eq!(*sample, 1),
            other => break other.err(),
        }
    };
    assert_eq!(told, Some(ReceiveError::Evicted));
}

/// Whoever has made room before the next try is not charged for all the time until then.
#[test]
fn a_reliable_subscriber_that_has_made_room_does_not_pay_for_a_publisher_that_tries_seldom() {
    let patience = Duration::from_millis(100);
    let served = serve(Policy { rules: vec![Rule { patience, ..me(&["md/*"]) }] });
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut reader = topic.subscriber(Delivery::Reliable).unwrap();
    for _ in 0..3 {
        while publisher.try_publish(&1).is_ok() {}
        while reader.try_receive().unwrap().is_some() {}
        std::thread::sleep(2 * patience); // the publisher does something else
        publisher.try_publish(&1).unwrap();
    }
}

#[test]
fn a_publisher_that_waits_says_so_on_the_pages_of_all_whom_it_waits_for_and_takes_it_back() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let frozen = [(); 2].map(|()| {
        let seat = Seat::take(served.socket(), NAME, 3).unwrap();
        seat.is_reliable_at(0);
        seat
    });
    assert!((0..1000).any(|number| publisher.try_publish(&number).is_err()), "it fills up");
    let waiting = std::thread::spawn(move || {
        let outcome = publisher.publish_timeout(&0, Duration::from_millis(200));
        (publisher, outcome)
    });
    let mut seen = [false; 2];
    while !waiting.is_finished() {
        for (seen, seat) in seen.iter_mut().zip(&frozen) {
            *seen |= seat.is_waited_for();
        }
        std::thread::yield_now();
    }
    let (_publisher, outcome) = waiting.join().unwrap();
    assert!(matches!(outcome, Err(PublishError::TimedOut)), "{outcome:?}");
    assert_eq!(seen, [true; 2]);
    assert_eq!(frozen.map(|seat| seat.is_waited_for()), [false; 2]);
}

#[test]
fn an_answer_that_is_never_read_counts_as_a_connection_also_when_it_was_shut_down() {
    let served = serve(everything());
    let mut kept = attacker::answers_that_are_kept(served.socket(), NAME, 20);
    assert_eq!(kept.len(), 8, "as many connections as one user has");
    assert!(Topic::<u64>::connect(served.socket(), NAME).is_err());
    kept.clear();
    // The broker looks now and then.
    let begin = Instant::now();
    while Topic::<u64>::connect(served.socket(), NAME).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60), "they are counted for ever");
        std::thread::yield_now();
    }
}

#[test]
fn a_second_broker_gets_no_socket_where_one_listens_and_replaces_that_of_one_that_is_gone() {
    let served = serve(everything());
    let second = Broker::listen(served.socket()).err().map(|error| error.kind());
    assert_eq!(second, Some(std::io::ErrorKind::AddrInUse));
    Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let open = std::fs::Permissions::from_mode(0o777);
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), open).unwrap();
    let refused = Broker::listen(&directory.path().join("broker")).err().map(|error| error.kind());
    assert_eq!(refused, Some(std::io::ErrorKind::PermissionDenied), "anybody could replace it");
    let private = tempfile::tempdir().unwrap();
    let socket = private.path().join("broker");
    drop(Broker::listen(&socket).unwrap()); // as if it were killed: the socket stays
    assert!(socket.exists());
    Broker::listen(&socket).unwrap();
}

/// A bug: whatever a connection to it was refused by was taken for the socket of a dead broker, and deleted. An ordinary file refuses, too.
#[test]
fn what_is_no_socket_of_this_user_is_left_where_a_broker_is_to_listen() {
    let private = tempfile::tempdir().unwrap();
    let at = |name: &str| private.path().join(name);
    std::fs::write(at("file"), "years of work").unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
    drop(Broker::listen(&at("dead")).unwrap());
    std::os::unix::fs::symlink(at("dead"), at("link to a socket")).unwrap();
    for name in ["file", "directory", "link", "link to a socket"] {
        let refused = Broker::listen(&at(name)).err().map(|error| error.kind());
        assert_eq!(refused, Some(std::io::ErrorKind::AlreadyExists), "{name}");
        Broker::remove_socket(&at(name)).unwrap();
        assert!(at(name).symlink_metadata().is_ok(), "{name} is left");
    }
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "years of work");
    assert!(at("dead").exists());
}

/// A broker that ends removes its own socket, and not that of the one that has come in its place.
#[test]
fn the_socket_of_a_broker_is_removed_and_not_that_of_the_next_one() {
    let private = tempfile::tempdir().unwrap();
    let socket = private.path().join("broker");
    let first = Broker::listen(&socket).unwrap();
    std::fs::remove_file(&socket).unwrap(); // by somebody who believed it dead
    let second = Broker::listen(&socket).unwrap();
    drop(first);
    Broker::remove_socket(&socket).unwrap();
    assert!(socket.exists(), "the next one listens there");
    drop(second);
    Broker::remove_socket(&socket).unwrap();
    assert!(!socket.exists());
    Broker::remove_socket(&socket).unwrap();
}

/// Two that found the socket of a dead broker at the same moment both removed what they found there: the second one the socket of the first,
/// which went on listening where nobody could reach it. So did one that came while the other was bound and did not listen yet.
#[test]
fn of_brokers_that_start_at_the_same_moment_one_has_the_socket() {
    const STARTERS: usize = 4;
    let private = tempfile::tempdir().unwrap();
    let socket = private.path().join("broker");
    for round in 0..200 {
        let start = std::sync::Barrier::new(STARTERS);
        let listening: Vec<_> = std::thread::scope(|scope| {
            let starters = [(); STARTERS].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    Broker::listen(&socket)
                })
            });
            starters.into_iter().filter_map(|starter| starter.join().unwrap().ok()).collect()
        });
        assert_eq!(listening.len(), 1, "round {round}");
        shmbus_sys::unix::connect(&socket, Duration::from_secs(1)).expect("it can be reached");
        if round % 2 == 0 {
            std::fs::remove_file(&socket).unwrap(); // the next ones find none
        }
    }
}

#[test]
fn a_guarded_topic_is_given_to_no_child() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let refused = Command::new("true").topic(&topic).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn the_dead_are_found_by_their_pages() {
    let served = serve(Policy {
        rules: vec![Rule { patience: Duration::from_secs(3600), ..me(&["md/*"]) }],
    });
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    // A child that subscribes and is killed.
    let mut child = Player::new("stops", served.socket());
    child.line("subscribed.").unwrap();
    for number in 0..40 {
        publisher.publish(&number).unwrap();
    }
    child.kill();
    for number in 40..1000 {
        publisher.publish(&number).unwrap();
    }
    assert_eq!(publisher.sequence(), 1000);
}

#[test]
fn a_message_is_received_as_a_copy_by_subscribers_samples_and_observers() {
    let served = serve(everything());
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut observer = topic.observe(Start::Newest).unwrap();
    for number in 0..200_u64 {
        publisher.publish(&number).unwrap();
        let mut copy = 0;
        let copied = subscriber.try_copy(&mut copy).unwrap().unwrap();
        assert_eq!((copy, copied.sequence, copied.missed_before), (number, number, 0));
        assert_eq!(observer.try_next().unwrap().unwrap().bytes(), number.to_le_bytes());
    }
    assert_eq!(subscriber.copy_timeout(&mut 0, Duration::from_millis(1)).unwrap(), None);
    publisher.publish(&1000).unwrap();
    let sample = subscriber.receive().unwrap();
    let mut copy = 0;
    sample.copy_to(&mut copy).unwrap();
    assert_eq!(copy, 1000);
}
