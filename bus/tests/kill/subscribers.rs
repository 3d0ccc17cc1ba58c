//! Subscribers killed and stopped: while a publisher waits for them, while they hold samples, asleep, while they come and go.

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shmbus::{
    Delivery, Held, PublishError, Publisher, Start, Topic, TopicOptions, TryPublishError,
};

use crate::feeds::{RECEIVER_WORDS, Reader, TOPIC, open};
use crate::message::{Message, Stream};
use crate::processes::{Part, Process, Role, Stage, beat, kill_me_after};
use crate::random::Random;
use crate::{Plan, kills, spread};

pub(crate) const ROLES: &[Part] = &[
    ("idler", idler),
    ("holder", holder),
    ("sleeper", sleeper),
    ("churner", churner),
    ("slow_reader", slow_reader),
];

/// Where a process says that it is so far.
const READY: usize = 100;
/// What the slow reader has received.
const SEEN: usize = 200;
/// Asks the slow reader to end.
const STOP: usize = 201;

fn create(stage: &Stage, options: &TopicOptions) -> Topic<Message> {
    Topic::create_in(&stage.directory, TOPIC, options).unwrap()
}

/// Sleeps until it is killed.
fn wait_for_death() -> ! {
    loop {
        std::thread::park();
    }
}

/// Publishes `count` messages of feed 0, whose counters go on with the sequence.
fn publish(publisher: &mut Publisher<Message>, count: u64) {
    for _ in 0..count {
        let counter = publisher.sequence();
        assert_eq!(publisher.publish(&Message::new(0, counter)).unwrap(), counter);
    }
}

/// The same with nothing but the counter written: as fast as it goes.
fn race(publisher: &mut Publisher<Message>, count: u64) {
    for _ in 0..count {
        let mut loan = publisher.loan().unwrap();
        loan.counter = loan.sequence();
        loan.commit().unwrap();
    }
}

/// A reliable subscriber that receives a few messages and then no more.
fn idler(role: &Role) {
    let [number, messages] = role.numbers();
    let mut subscriber = open(role).subscriber(Delivery::Reliable).unwrap();
    role.board.word(READY + number as usize).store(1, Release);
    for _ in 1..messages {
        let _ = subscriber.receive().unwrap();
    }
    let _sample = subscriber.receive().unwrap();
    role.board.word(READY + number as usize).store(2, Release);
    wait_for_death();
}

pub(crate) fn a_publisher_that_waits_for_reliable_subscribers_goes_on_when_they_are_killed(
    plan: &Plan,
) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let options = TopicOptions { depth: 16, subscribers_max: 5, ..Default::default() };
    let topic = create(&stage, &options);
    let receiver = stage.receiver(Delivery::Reliable, random.next(), 1);
    let mut publisher = topic.publisher().unwrap();
    let mut waits = Vec::new();
    for _ in 0..kills(plan, 6) {
        let victims: Vec<Process> = (0..random.below(1..4))
            .map(|number| {
                stage.board.word(READY + number as usize).store(0, Release);
                stage.spawn("idler", &[number, random.below(1..4)])
            })
            .collect();
        let all_are = |stage: &Stage, state| {
            (0..victims.len()).all(|number| stage.board.word(READY + number).load(Acquire) == state)
        };
        stage.until("the victims attach", || all_are(&stage, 1));
        publish(&mut publisher, 4);
        let limit = publisher.sequence() + options.depth;
        stage.until("the victims receive", || all_are(&stage, 2));
        // The survivor keeps up, so it is for the victims that there is no room.
        let mut full = false;
        while !full {
            stage.until("the survivor receives", || stage.next_of(1) == publisher.sequence());
            match publisher.try_publish(&Message::new(0, publisher.sequence())) {
                Ok(_) => assert!(publisher.sequence() <= limit, "it overtook a reliable one"),
                Err(TryPublishError::Full) => full = true,
                Err(error) => panic!("{error}"),
            }
        }
        let patience = Duration::from_millis(random.below(0..12));
        let waited = publisher.publish_timeout(&Message::new(0, 0), patience);
        assert_eq!(waited, Err(PublishError::TimedOut), "the living are waited for");
        let pids: Vec<_> = victims.iter().map(Process::pid).collect();
        let delay = random.duration(Duration::from_millis(8));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay); // so that the publisher is at any place of its wait
            for pid in pids {
                rustix::process::kill_process(pid, Signal::KILL).unwrap();
            }
            Instant::now()
        });
        publish(&mut publisher, 1);
        let end = Instant::now();
        waits.push(end.saturating_duration_since(killer.join().unwrap()));
        victims.into_iter().for_each(Process::killed);
        publish(&mut publisher, 64);
    }
    drop(publisher);
    let end = stage.publish_end(&topic);
    receiver.done();
    assert_eq!(stage.totals_of(1), (end + 1, 0));
    println!("  from the kill to the end of the wait: {}", spread(waits));
    drop(topic);
    stage.end(TOPIC);
}

/// Holds all that it can get, checks it, gives some back; until it is killed.
fn holder(role: &Role) {
    let [seed, kill_ns] = role.numbers();
    let mut random = Random::new(seed);
    let delivery = if random.one_in(2) { Delivery::Reliable } else { Delivery::Lossy };
    let mut subscriber = open(role).subscriber_from(delivery, Start::Oldest).unwrap();
    if kill_ns > 0 {
        kill_me_after(Duration::from_nanos(kill_ns));
    }
    let mut held: Vec<(Held<Message>, Message)> = Vec::new();
    let mut refused = 0;
    loop {
        match subscriber.try_receive().unwrap() {
            Some(sample) => {
                let message = *sample;
                match sample.hold() {
                    Ok(sample) => held.push((sample, message)),
                    Err(_) => refused += 1,
                }
            }
            None if kill_ns == 0 => break, // has read all that there is
            None => std::thread::yield_now(),
        }
        if random.one_in(7) && kill_ns > 0 && !held.is_empty() {
            let index = random.below(0..held.len() as u64) as usize;
            let (sample, message) = held.swap_remove(index);
            assert!(*sample == message, "changed while it was held: {}", sample.sequence());
        }
    }
    assert!(refused > 0, "the ring has more blocks than may be held");
    role.board.word(READY).store(held.len() as u64, Release);
    wait_for_death();
}

pub(crate) fn what_the_killed_have_held_can_be_held_again(plan: &Plan) {
    const BUDGET: usize = 6;
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let (subscribers_max, hold_blocks) = (3, Some(BUDGET as u32));
    let options = TopicOptions { depth: 64, subscribers_max, hold_blocks, ..Default::default() };
    let topic = create(&stage, &options);
    let block_len = topic.info().block_len;
    let mut publisher = topic.publisher().unwrap();
    publish(&mut publisher, 64);
    let mut killed = 0;
    for round in 0..kills(plan, 3) {
        let victims: Vec<Process> = (0..u64::from(subscribers_max))
            .map(|_| {
                let kill_ns = random.duration(Duration::from_millis(4)).as_nanos() as u64;
                stage.spawn("holder", &[random.next(), kill_ns])
            })
            .collect();
        killed += victims.len();
        for _ in 0..random.below(0..1000) {
            // As far as the reliable ones let it go, so that what they hold is in the way.
            let _ = publisher.try_publish(&Message::new(0, publisher.sequence()));
        }
        victims.into_iter().for_each(Process::killed);
        if round % 2 == 1 {
            // One that is killed with all in its hands that can be held.
            stage.board.word(READY).store(0, Release);
            let victim = stage.spawn("holder", &[random.next(), 0]);
            stage.until("a victim holds", || stage.board.word(READY).load(Acquire) > 0);
            victim.kill();
            killed += 1;
        }

        // The whole budget is there again, and every entry.
        let mut subscribers: Vec<_> = (0..subscribers_max)
            .map(|_| topic.subscriber_from(Delivery::Lossy, Start::Oldest).expect("an entry"))
            .collect();
        let mut held: Vec<(Held<Message>, Message)> = Vec::new();
        let mut blocks = HashSet::new();
        for index in (0..subscribers.len()).cycle() {
            let sample = subscribers[index].try_receive().unwrap().expect("a full ring");
            let (message, block) = (*sample, sample.sequence() / block_len);
            assert!(message.is_whole());
            if blocks.contains(&block) {
                continue; // another subscriber's hold of the same block would count once more
            }
            match sample.hold() {
                Ok(sample) => held.push((sample, message)),
                Err(_) => break,
            }
            blocks.insert(block);
            assert!(held.len() <= BUDGET, "more was held than the budget allows");
        }
        assert_eq!(held.len(), BUDGET, "the dead still hold something");
        publish(&mut publisher, 3 * 64);
        for (sample, message) in &held {
            assert!(**sample == *message, "changed while it was held: {}", sample.sequence());
        }
        beat();
    }
    println!(
        "  {killed} subscribers of at most {subscribers_max} at a time killed with samples in their hands"
    );
    drop(publisher);
    drop(topic);
    stage.end(TOPIC);
}

/// Waits for one message after the other, asleep.
fn sleeper(role: &Role) {
    let [number, reliable] = role.numbers();
    let delivery = if reliable != 0 { Delivery::Reliable } else { Delivery::Lossy };
    let mut subscriber = open(role).subscriber(delivery).unwrap();
    let ready = role.board.word(READY + number as usize);
    let mut stream = Stream::new(reliable != 0, subscriber.position());
    ready.store(1, Release);
    loop {
        let sample = subscriber.receive().unwrap();
        stream.accept(sample.sequence(), sample.missed_before(), &sample);
        ready.store(stream.next + 1, Release);
    }
}

pub(crate) fn a_subscriber_killed_asleep_holds_up_nobody_and_the_others_are_woken(plan: &Plan) {
    const VICTIMS: u64 = 3;
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let options = TopicOptions { depth: 64, subscribers_max: 5, ..Default::default() };
    let topic = create(&stage, &options);
    let mut publisher = topic.publisher().unwrap();
    publish(&mut publisher, 1); // so that 1 on the board is no sequence
    let survivors = [stage.spawn("sleeper", &[0, 1]), stage.spawn("sleeper", &[1, 0])];
    let mut wakes = Vec::new();
    for _ in 0..kills(plan, 8) {
        let victims: Vec<Process> = (0..VICTIMS)
            .map(|number| {
                stage.board.word(READY + 2 + number as usize).store(0, Release);
                stage.spawn("sleeper", &[2 + number, random.below(0..2)])
            })
            .collect();
        let ready = |number: usize| stage.board.word(READY + number).load(Acquire);
        stage.until("all sleep", || {
            (0..2 + VICTIMS as usize).all(|number| ready(number) > 0)
                && victims.iter().chain(&survivors).all(Process::is_asleep)
        });
        for victim in victims {
            victim.kill();
            if random.one_in(3) {
                publish(&mut publisher, 1);
            }
        }
        for _ in 0..4 {
            publish(&mut publisher, 1);
            let (next, begin) = (publisher.sequence(), Instant::now());
            stage.until("the others are woken", || ready(0) == next + 1 && ready(1) == next + 1);
            wakes.push(begin.elapsed());
        }
        publish(&mut publisher, 3 * 64);
    }
    for survivor in survivors {
        survivor.kill();
    }
    println!("  from the publish to the last of two woken: {}", spread(wakes));
    drop(publisher);
    drop(topic);
    stage.end(TOPIC);
}

/// Attaches, receives a little, leaves; until it is killed.
fn churner(role: &Role) {
    let [seed, kill_ns, number] = role.numbers();
    let mut random = Random::new(seed);
    kill_me_after(Duration::from_nanos(kill_ns));
    let rounds = role.board.word(READY + number as usize);
    let topic = open(role);
    loop {
        let delivery = if random.one_in(2) { Delivery::Reliable } else { Delivery::Lossy };
        let start = match random.below(0..3) {
            0 => Start::Newest,
            1 => Start::Oldest,
            _ => Start::Back(random.below(0..100)),
        };
        let mut reader = Reader::new(topic.subscriber_from(delivery, start).expect("an entry"));
        for _ in 0..random.below(0..20) {
            if let Some(sample) = reader.subscriber.try_receive().unwrap() {
                reader.stream.accept(sample.sequence(), sample.missed_before(), &sample);
            }
        }
        rounds.fetch_add(1, Release);
    }
}

pub(crate) fn subscribers_killed_while_they_come_and_go_leave_every_entry_usable(plan: &Plan) {
    const COMING: u64 = 3;
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let subscribers_max = COMING as u32 + 2;
    let options = TopicOptions { depth: 64, subscribers_max, ..Default::default() };
    let topic = create(&stage, &options);
    let reliable = stage.receiver(Delivery::Reliable, random.next(), 1);
    let lossy = stage.receiver(Delivery::Lossy, random.next(), 1 + RECEIVER_WORDS);
    let mut number = 0;
    let mut feed = stage.spawn("feed", &[number, random.next(), 0, 0]);
    let mut killed = 0;
    for _ in 0..kills(plan, 4) {
        let victims: Vec<Process> = (0..COMING)
            .map(|number| {
                let kill_ns = random.duration(Duration::from_millis(5)).as_nanos() as u64;
                stage.spawn("churner", &[random.next(), kill_ns, number])
            })
            .collect();
        killed += victims.len();
        if random.one_in(2) {
            // The publisher too, in the middle of it.
            feed.kill();
            number += 1;
            feed = stage.spawn("feed", &[number, random.next(), 0, 0]);
        }
        victims.into_iter().for_each(Process::killed);
        let goal = stage.confirmed(number) + 4 * options.depth;
        let mut readers: Vec<Reader> = (0..COMING)
            .map(|_| Reader::new(topic.subscriber(Delivery::Lossy).expect("an entry")))
            .collect();
        stage.until("the feed goes on", || {
            for reader in &mut readers {
                reader.drain();
            }
            stage.confirmed(number) >= goal
        });
    }
    feed.kill();
    let end = stage.publish_end(&topic);
    reliable.done();
    lossy.done();
    stage.check_confirmed(0..number + 1);
    assert_eq!(stage.totals_of(1), (end + 1, 0));
    let rounds: u64 =
        (0..COMING as usize).map(|number| stage.board.word(READY + number).load(Acquire)).sum();
    println!("  {killed} killed in {rounds} rounds of attaching and leaving, and {number} feeds");
    drop(topic);
    stage.end(TOPIC);
}

/// A lossy subscriber that looks at every sample up to `looks_max` times; with 0, hardly at all.
fn slow_reader(role: &Role) {
    let [seed, looks_max] = role.numbers();
    let mut random = Random::new(seed);
    let mut subscriber = open(role).subscriber(Delivery::Lossy).unwrap();
    let mut stream = Stream::new(false, subscriber.position());
    let (stop, seen) = (role.board.word(STOP), role.board.word(SEEN));
    role.board.word(READY).store(1, Release);
    while stop.load(Acquire) == 0 {
        let Some(sample) = subscriber.try_receive().unwrap() else { continue };
        if looks_max == 0 {
            // As little as possible, so that it is always on its way into the next block.
            stream.missed += sample.missed_before();
            stream.next += sample.missed_before() + 1;
            let found = (sample.sequence() + 1, sample.counter + 1);
            assert_eq!(found, (stream.next, stream.next), "torn, or lost count");
            seen.store(stream.next, Release);
            continue;
        }
        stream.accept(sample.sequence(), sample.missed_before(), &sample);
        let (feed, counter) = (sample.feed, sample.counter);
        for _ in 0..random.below(0..looks_max) {
            let message = std::hint::black_box(&*sample);
            assert!(message.is_whole(), "torn while it was read: {}", sample.sequence());
            assert_eq!((message.feed, message.counter), (feed, counter), "another message");
        }
        seen.store(stream.next, Release);
    }
    assert_eq!(stream.missed, subscriber.missed());
    assert_eq!(stream.next, subscriber.position());
}

pub(crate) fn a_lossy_subscriber_stopped_in_a_sample_finds_it_unchanged_after_many_laps(
    plan: &Plan,
) {
    let mut random = Random::new(plan.seed);
    for (depth, subscribers_max, looks_max) in [(16, 2, 100), (256, 1, 100), (4, 1, 0)] {
        let stage = Stage::new();
        let hold_blocks = Some(0);
        let options = TopicOptions { depth, subscribers_max, hold_blocks, ..Default::default() };
        let topic = create(&stage, &options);
        let mut publisher = topic.publisher().unwrap();
        let reader = stage.spawn("slow_reader", &[random.next(), looks_max]);
        stage.until("the reader attaches", || stage.board.word(READY).load(Acquire) == 1);
        let seen = || stage.board.word(SEEN).load(Acquire);
        for _ in 0..kills(plan, 3) {
            let from = seen();
            stage.until("the reader goes on", || {
                publish(&mut publisher, 1);
                seen() > from
            });
            let publish = if looks_max == 0 { race } else { publish };
            publish(&mut publisher, random.below(0..200));
            // The signal meets it while the publisher goes on.
            reader.send(Signal::STOP);
            publish(&mut publisher, random.below(0..100));
            reader.wait_until_stopped();
            let before = seen();
            publish(&mut publisher, random.below(1..8) * depth + random.below(0..depth));
            assert_eq!(seen(), before, "it stands");
            reader.go_on();
        }
        stage.board.word(STOP).store(1, Release);
        reader.done();
        drop(publisher);
        drop(topic);
        stage.end(TOPIC);
    }
}

pub(crate) fn a_stopped_reliable_subscriber_is_waited_for_and_loses_nothing(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let options = TopicOptions { depth: 64, subscribers_max: 2, ..Default::default() };
    let topic = create(&stage, &options);
    let receiver = stage.receiver(Delivery::Reliable, random.next(), 1);
    let mut publisher = topic.publisher().unwrap();
    for _ in 0..kills(plan, 10) {
        publish(&mut publisher, random.below(0..300));
        receiver.stop();
        let stands_at = publisher.sequence();
        loop {
            match publisher.try_publish(&Message::new(0, publisher.sequence())) {
                Ok(_) => {}
                Err(TryPublishError::Full) => break,
                Err(error) => panic!("{error}"),
            }
            assert!(
                publisher.sequence() <= stands_at + options.depth,
                "it overtook a reliable one"
            );
        }
        // Long enough for the publisher to ask several times whether it waits for the dead.
        let waited = publisher.publish_timeout(&Message::new(0, 0), Duration::from_millis(20));
        assert_eq!(waited, Err(PublishError::TimedOut));
        let alive =
            topic.info().participants.iter().filter(|other| other.liveness.is_alive()).count();
        assert_eq!(alive, 2, "a stopped process is not a dead one");
        receiver.go_on();
        publish(&mut publisher, 2 * 64);
        beat();
    }
    drop(publisher);
    let end = stage.publish_end(&topic);
    receiver.done();
    assert_eq!(stage.totals_of(1), (end + 1, 0));
    drop(topic);
    stage.end(TOPIC);
}
