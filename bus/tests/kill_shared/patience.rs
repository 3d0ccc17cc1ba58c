//! A subscriber that others wait for, but not for ever.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::{Delivery, Publishers, ReceiveError, TopicOptions};

use crate::claims::publish;
use crate::feeds::{Account, TOPIC, create, now_ns, open, skipped_before};
use crate::message::{END, Message};
use crate::processes::{Part, Role, Stage};
use crate::random::Random;
use crate::{Plan, kills};

/// A publisher is killed with a claim in the block of a subscriber that is stopped: nobody settles it, and nobody has found it dead. Publishers wait for the subscriber's
/// patience all the same, and not without end.
pub(crate) fn a_stopped_subscriber_behind_a_dead_publishers_claim_is_evicted(_plan: &Plan) {
    let stage = Stage::new();
    let options = TopicOptions {
        depth: 64,
        subscribers_max: 2,
        publishers: Publishers::Shared(3),
        claim_timeout: Duration::ZERO,
        ..Default::default()
    };
    let topic = create(&stage, &options);
    let patient = stage.spawn("patient", &[]);
    let word = |word| stage.board.word(word).load(SeqCst);
    stage.until("it attaches", || word(NEXT) > 0);
    patient.stop();
    let mut publisher = topic.publisher().unwrap(); // before: who joins looks for dead publishers
    let (lender, _) = stage.lender(0, 1);
    lender.kill();
    for counter in 0..200 {
        let message = Message::new(0, counter);
        let published = publisher.publish_timeout(&message, Duration::from_secs(20));
        assert!(published.is_ok(), "nobody is evicted: {published:?}");
    }
    patient.go_on();
    drop(publisher);
    stage.publish_end(&topic);
    patient.done();
    assert_eq!(word(TOLD), 1);
    drop(topic);
    stage.end(TOPIC);
}

pub(crate) const ROLES: &[Part] = &[("patient", patient)];

const PATIENCE: Duration = Duration::from_millis(20);
/// What the patient one says: its next sequence + 1, how often it was told, and what it missed after that.
const NEXT: usize = 48;
const TOLD: usize = 49;
const MISSED: usize = 50;

/// Reliable for a time; holds its first sample.
fn patient(role: &Role) {
    let [] = role.numbers();
    let mut subscriber = open(role).subscriber(Delivery::ReliableFor(PATIENCE)).unwrap();
    // Before it is told, it misses nothing.
    let mut account = Account::new(false, subscriber.position());
    let mut held = None;
    role.board.word(NEXT).store(account.next + 1, SeqCst);
    loop {
        match subscriber.receive() {
            Ok(sample) => {
                let message = *sample;
                let told = role.board.word(TOLD).load(SeqCst) > 0;
                assert!(told || sample.missed_before() == 0, "missed some before it was told");
                account.accept(&role.board, sample.sequence(), skipped_before(&sample), &message);
                if held.is_none() {
                    held = Some((sample.hold().unwrap(), message));
                }
                role.board.word(NEXT).store(account.next + 1, SeqCst);
                if message.feed == END {
                    break;
                }
            }
            Err(ReceiveError::Evicted) => {
                role.board.word(TOLD).fetch_add(1, SeqCst);
                assert_eq!(subscriber.delivery(), Delivery::Lossy);
            }
            Err(error) => panic!("{error}"),
        }
        if let Some((held, message)) = &held {
            assert!(**held == *message, "changed while it was held");
        }
    }
    assert_eq!(account.missed, subscriber.missed());
    role.board.word(MISSED).store(account.missed, SeqCst);
}

pub(crate) fn a_subscriber_stopped_for_longer_than_its_patience_is_told_once_and_goes_on_lossy(
    plan: &Plan,
) {
    let mut random = Random::new(plan.seed);
    let kinds = [Publishers::Shared(2), Publishers::Exclusive];
    for round in 0..kills(plan, 25) {
        let stage = Stage::new();
        let options = TopicOptions {
            depth: 64,
            subscribers_max: 2,
            hold_blocks: Some(1),
            publishers: kinds[round as usize % 2],
            ..Default::default()
        };
        let topic = create(&stage, &options);
        let patient = stage.spawn("patient", &[]);
        let word = |word| stage.board.word(word).load(SeqCst);
        stage.until("it attaches", || word(NEXT) > 0);
        let mut publisher = topic.publisher().unwrap();
        let mut counter = 0;
        // So few that nobody waits for it yet.
        publish(&mut publisher, 0, &mut counter, random.below(1..40));
        stage.until("it receives", || word(NEXT) > 1);
        patient.stop();
        let begin_ns = now_ns();
        let stands_at = word(NEXT) - 1;
        // More than there is room for.
        let last = publish(&mut publisher, 0, &mut counter, 2 * 64 + random.below(0..300));
        assert!(now_ns() - begin_ns >= PATIENCE.as_nanos() as u64, "evicted before its time");
        assert_eq!(word(NEXT) - 1, stands_at, "it stands");
        patient.go_on();
        stage.until("it comes to the end", || word(NEXT) == last + 2);
        // Nobody waits for it any more, and it is not told again.
        patient.stop();
        publish(&mut publisher, 0, &mut counter, 3 * 64);
        patient.go_on();
        drop(publisher);
        stage.publish_end(&topic);
        patient.done();
        assert_eq!(word(TOLD), 1);
        assert!(word(MISSED) > 0, "it was a whole ring behind");
        drop(topic);
        stage.end(TOPIC);
    }
}
