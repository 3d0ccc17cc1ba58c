//! Publishers that stand still, or die, with a sequence in their hands.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::{Delivery, Publisher, Publishers, TopicOptions};

use crate::feeds::{Account, Manner, STOP, TOPIC, create, now_ns, open, skipped_before};
use crate::message::Message;
use crate::processes::{Part, Process, Role, Stage};
use crate::random::Random;
use crate::{Plan, kills, stood_still};

pub(crate) const ROLES: &[Part] = &[("lender", lender), ("idler", idler)];

/// Words of lenders and idlers, by number.
const READY: usize = 16;
const COMMITTED: usize = 24;
/// Asks lenders to commit.
const GO: usize = 32;
/// When each feed went on.
const WOKEN: usize = 40;

/// Takes a sequence, fills its slot, and commits when it is asked to.
fn lender(role: &Role) {
    let [number, feed] = role.numbers();
    let word = |first: usize| role.board.word(first + number as usize);
    let mut publisher = open(role).publisher().unwrap();
    let mut loan = publisher.loan().unwrap();
    loan.fill(feed, 0);
    word(READY).store(loan.sequence() + 1, SeqCst);
    while word(GO).load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    let sequence = loan.commit().unwrap();
    word(COMMITTED).store(sequence + 1, SeqCst);
}

impl Stage {
    /// A lender, and the sequence that it has taken.
    pub(crate) fn lender(&self, number: u64, feed: u64) -> (Process, u64) {
        let word = |first: usize| self.board.word(first + number as usize);
        for first in [READY, COMMITTED, GO] {
            word(first).store(0, SeqCst);
        }
        let process = self.spawn("lender", &[number, feed]);
        self.until("a lender takes a sequence", || word(READY).load(SeqCst) > 0);
        let sequence = word(READY).load(SeqCst) - 1;
        (process, sequence)
    }

    /// Lets a lender commit.
    pub(crate) fn commit(&self, number: usize) {
        self.board.word(GO + number).store(1, SeqCst);
    }

    /// Where a lender that has ended has committed.
    pub(crate) fn committed(&self, number: usize) -> u64 {
        self.board.word(COMMITTED + number).load(SeqCst) - 1
    }
}

/// Publishes `count` messages of feed `feed`, and says where the last one went.
pub(crate) fn publish(
    publisher: &mut Publisher<Message>,
    feed: u64,
    counter: &mut u64,
    count: u64,
) -> u64 {
    let mut sequence = 0;
    for _ in 0..count {
        sequence = publisher.publish(&Message::new(feed, *counter)).unwrap();
        *counter += 1;
    }
    sequence
}

/// The topic never revokes: what ends the wait is that the kernel says who is dead.
pub(crate) fn a_publisher_killed_between_claim_and_commit_holds_nobody_up_for_long(plan: &Plan) {
    const LENDERS: u64 = 3;
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let options = TopicOptions {
        depth: 64,
        subscribers_max: 4,
        publishers: Publishers::Shared(LENDERS as u32 + 1),
        claim_timeout: Duration::ZERO,
        ..Default::default()
    };
    let topic = create(&stage, &options);
    let manners = [(true, Manner::Polling), (true, Manner::Sleeping), (false, Manner::Sleeping)];
    let receivers: Vec<Process> = manners
        .iter()
        .enumerate()
        .map(|(slot, (reliable, manner))| {
            stage.receiver(slot, *reliable, *manner, None, random.next())
        })
        .collect();
    let mut publisher = topic.publisher().unwrap();
    let (mut counter, mut feed) = (0, 1);
    let mut stood: Vec<Vec<u64>> = vec![Vec::new(); receivers.len()];
    let rounds = kills(plan, 6).max(100);
    for _ in 0..rounds {
        let before = publish(&mut publisher, 0, &mut counter, random.below(1..10));
        let count = if random.one_in(4) { LENDERS } else { 1 };
        let lenders: Vec<_> = (0..count)
            .map(|number| {
                feed += 1;
                let (process, sequence) = stage.lender(number, feed);
                assert_eq!(sequence, before + 1 + number, "nobody else publishes");
                process
            })
            .collect();
        let behind = publish(&mut publisher, 0, &mut counter, random.below(1..10));
        let all_at = |next| (0..receivers.len()).all(|slot| stage.next_of(slot) == next);
        stage.until("all have come to the open loan", || all_at(before + 1));
        std::thread::sleep(random.duration(Duration::from_millis(15))); // so that it meets any moment of their wait
        assert!(all_at(before + 1), "somebody went past one who lives");
        let mut killed_ns = 0;
        for lender in lenders {
            killed_ns = now_ns();
            lender.kill();
        }
        for (slot, stood) in stood.iter_mut().enumerate() {
            stage.until("it goes on", || stage.next_of(slot) == behind + 1);
            stood.push(stage.came_ns(slot).saturating_sub(killed_ns));
        }
    }
    drop(publisher);
    stage.publish_end(&topic);
    receivers.into_iter().for_each(Process::done);
    for (slot, (stood, what)) in
        stood.into_iter().zip(["a polling one", "a sleeping one", "a lossy one"]).enumerate()
    {
        assert!(stage.missed_by(slot) >= rounds, "each of the dead left a sequence");
        stood_still(what, stood);
    }
    assert_eq!(topic.info().participants.len(), 0);
    drop(topic);
    stage.end(TOPIC);
}

/// A reliable subscriber that receives a few messages and then no more.
fn idler(role: &Role) {
    let [messages] = role.numbers();
    let mut subscriber = open(role).subscriber(Delivery::Reliable).unwrap();
    role.board.word(READY).store(1, SeqCst);
    for _ in 0..messages {
        let _ = subscriber.receive().unwrap();
    }
    loop {
        std::thread::park();
    }
}

pub(crate) fn publishers_that_wait_for_a_reliable_subscriber_go_on_when_it_is_killed(plan: &Plan) {
    const FEEDS: usize = 3;
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let options = TopicOptions {
        depth: 64,
        subscribers_max: 3,
        publishers: Publishers::Shared(FEEDS as u32 + 1),
        ..Default::default()
    };
    let topic = create(&stage, &options);
    let witness = stage.receiver(0, true, Manner::Mixed, Some(0), random.next());
    let feeds: Vec<Process> = (0..FEEDS as u64)
        .map(|feed| stage.spawn("feed", &[feed, random.next(), WOKEN as u64 + feed]))
        .collect();
    let mut stood = Vec::new();
    for _ in 0..kills(plan, 6).max(100) {
        stage.board.word(READY).store(0, SeqCst);
        let idler = stage.spawn("idler", &[random.below(1..10)]);
        stage.until("the idler attaches", || stage.board.word(READY).load(SeqCst) == 1);
        let mut head = 0;
        stage.until("all feeds wait", || {
            let before = std::mem::replace(&mut head, topic.info().head);
            before == head && feeds.iter().all(Process::is_asleep) && topic.info().head == head
        });
        std::thread::sleep(random.duration(Duration::from_millis(10)));
        if topic.info().head != head {
            idler.kill(); // they had slept for another reason
            continue;
        }
        (0..FEEDS).for_each(|feed| stage.board.word(WOKEN + feed).store(0, SeqCst));
        let killed_ns = now_ns();
        idler.kill();
        let woken = |feed: usize| stage.board.word(WOKEN + feed).load(SeqCst);
        stage.until("all feeds go on", || (0..FEEDS).all(|feed| woken(feed) > 0));
        stood.extend((0..FEEDS).map(|feed| woken(feed).saturating_sub(killed_ns)));
    }
    stage.board.word(STOP).store(1, SeqCst);
    feeds.into_iter().for_each(Process::done);
    stage.publish_end(&topic);
    witness.done();
    stage.check_confirmed(0, FEEDS as u64);
    assert!(!stood.is_empty());
    stood_still("publishers behind a dead subscriber", stood);
    drop(topic);
    stage.end(TOPIC);
}

pub(crate) fn a_stopped_publisher_with_an_open_loan_is_passed_by_and_its_message_comes_later(
    plan: &Plan,
) {
    const LENDERS: u64 = 2;
    let mut random = Random::new(plan.seed);
    for depth in [16, 64] {
        let stage = Stage::new();
        let options = TopicOptions {
            depth,
            subscribers_max: 3,
            publishers: Publishers::Shared(LENDERS as u32 + 1),
            claim_timeout: Duration::from_millis(20),
            ..Default::default()
        };
        let topic = create(&stage, &options);
        let receiver = stage.receiver(0, true, Manner::Sleeping, None, random.next());
        let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        let mut account = Account::new(true, subscriber.position());
        let mut publisher = topic.publisher().unwrap();
        let (mut counter, mut feed) = (0, 1);
        let mut stood = Vec::new();
        for _ in 0..kills(plan, 40) {
            let begin_ns = now_ns();
            let lenders: Vec<_> = (0..LENDERS)
                .map(|number| {
                    let (lender, sequence) = stage.lender(number, feed + number);
                    lender.stop();
                    (lender, sequence)
                })
                .collect();
            // Round the ring several times, and not one of them comes from those who stand.
            for _ in 0..random.below(1..5) * depth + random.below(1..depth) {
                let sequence = publish(&mut publisher, 0, &mut counter, 1);
                let sample = subscriber.receive().unwrap();
                assert_eq!((sample.sequence(), sample.feed), (sequence, 0));
                account.accept(&stage.board, sequence, skipped_before(&sample), &sample);
                if sample.abandoned_before() > 0 {
                    let waited_ns = now_ns() - begin_ns;
                    assert!(waited_ns >= 20_000_000, "revoked before its time");
                    stood.push(waited_ns);
                }
            }
            for (number, (lender, taken)) in lenders.into_iter().enumerate() {
                stage.commit(number);
                lender.go_on();
                lender.done();
                let sequence = stage.committed(number);
                assert!(sequence > taken, "committed where it had been revoked");
                let sample = subscriber.receive().unwrap();
                assert_eq!((sample.sequence(), sample.feed), (sequence, feed + number as u64));
                account.accept(&stage.board, sequence, skipped_before(&sample), &sample);
            }
            for number in 0..LENDERS {
                assert_eq!(account.feed(feed + number), 1);
            }
            feed += LENDERS;
        }
        drop((publisher, subscriber));
        stage.publish_end(&topic);
        receiver.done();
        assert_eq!(stage.missed_by(0), account.missed + account.abandoned);
        stood_still("behind stopped publishers, from their start", stood);
        drop(topic);
        stage.end(TOPIC);
    }
}
