//! What subscribers do.

use std::time::Duration;

use shmbus::{Delivery, Start, Subscriber};

use crate::Plan;
use crate::drive::at_each_instruction;
use crate::message::Message;
use crate::operation::{Operation, PLAIN};
use crate::processes::{Part, Role};
use crate::victim::{Victim, between_marks, open, ready};
use crate::world::{HOLDS, World};

pub(crate) const ROLES: &[Part] = &[
    ("receive_within", receive_within),
    ("receive_lossy", |role| receive_at_boundary(role, Delivery::Lossy)),
    ("receive_reliable", |role| receive_at_boundary(role, Delivery::Reliable)),
    ("receive_asleep", receive_asleep),
    ("receive_stuck", receive_stuck),
    ("hold", hold),
    ("give_back", give_back),
    ("attach_lossy", |role| attach(role, Delivery::Lossy)),
    ("attach_reliable", |role| attach(role, Delivery::Reliable)),
    ("leave_lossy", |role| leave(role, Delivery::Lossy)),
    ("leave_reliable", |role| leave(role, Delivery::Reliable)),
    ("claimant", claimant),
    ("holder", holder),
];

const LOSSY: Operation = PLAIN;
const RELIABLE: Operation = Operation { holds_up: true, ..PLAIN };

fn test(plan: &Plan, operation: Operation) {
    at_each_instruction(plan, |fate| World::new(operation, fate));
}

/// A subscriber whose next sequence has place `place` in its block, with more than a block left to receive.
fn subscriber_at(victim: &Victim, delivery: Delivery, place: u64) -> Subscriber<Message> {
    let block_len = victim.topic.info().block_len;
    let mut subscriber =
        victim.topic.subscriber_from(delivery, Start::Back(4 * block_len)).unwrap();
    while subscriber.position() % block_len != place || subscriber.lag() > 3 * block_len {
        subscriber.try_receive().unwrap().expect("a message");
    }
    subscriber
}

/// Receives between the marks what is there, and looks at it behind them.
fn receive(victim: &Victim, subscriber: &mut Subscriber<Message>) {
    let received = between_marks(|| subscriber.try_receive());
    if let Some(sample) = received.unwrap() {
        victim.seen(sample.sequence(), &sample);
    }
}

fn receive_within(role: &Role) {
    let victim = Victim::new(role);
    let mut subscriber = subscriber_at(&victim, Delivery::Lossy, 1);
    receive(&victim, &mut subscriber);
}

pub(crate) fn a_receive_within_a_block(plan: &Plan) {
    test(plan, Operation { role: "receive_within", ..LOSSY });
}

fn receive_at_boundary(role: &Role, delivery: Delivery) {
    let victim = Victim::new(role);
    let mut subscriber = subscriber_at(&victim, delivery, 0);
    receive(&victim, &mut subscriber);
}

pub(crate) fn a_lossy_receive_at_a_boundary(plan: &Plan) {
    test(plan, Operation { role: "receive_lossy", ..LOSSY });
}

pub(crate) fn a_reliable_receive_at_a_boundary(plan: &Plan) {
    test(plan, Operation { role: "receive_reliable", ..RELIABLE });
}

pub(crate) fn a_receive_of_many_publishers_messages_at_a_boundary(plan: &Plan) {
    test(plan, Operation { role: "receive_reliable", shared: true, ..RELIABLE });
}

pub(crate) fn a_receive_of_a_lapped_subscriber(plan: &Plan) {
    let begun = |world: &mut World| world.publish(world.depth() * 2);
    test(plan, Operation { role: "receive_lossy", begun, ..LOSSY });
}

fn receive_asleep(role: &Role) {
    let victim = Victim::new(role);
    let mut subscriber = victim.topic.subscriber(Delivery::Reliable).unwrap();
    victim.stop_the_clock();
    let sample = between_marks(|| subscriber.receive_timeout(Duration::from_secs(1000)));
    let sample = sample.unwrap().expect("a message");
    victim.seen(sample.sequence(), &sample);
}

pub(crate) fn a_receive_that_sleeps_and_is_woken(plan: &Plan) {
    let (may_sleep, wake) = (true, |world: &mut World| world.publish(1));
    let before = |world: &mut World| world.publish_to(1);
    test(plan, Operation { role: "receive_asleep", may_sleep, before, wake, ..RELIABLE });
}

/// Takes a sequence, and nothing comes of it.
fn claimant(role: &Role) {
    let mut publisher = open(role).publisher().unwrap();
    let _loan = publisher.loan().unwrap();
    ready(role);
}

/// A publisher dies with a sequence in its hands, just before what comes next. Nobody else has come there yet.
pub(crate) fn kill_a_claimant(world: &mut World) {
    world.drain();
    let claimant = world.bystander("claimant");
    claimant.kill();
    for _ in 0..3 {
        world.feed.publish(&mut world.order).expect("room");
    }
}

fn receive_stuck(role: &Role) {
    let victim = Victim::new(role);
    let mut subscriber = victim.topic.subscriber(Delivery::Reliable).unwrap();
    let first = subscriber.position();
    let sample = between_marks(|| subscriber.receive()).unwrap();
    let found = (sample.sequence(), sample.abandoned_before());
    assert_eq!(found, (first + 1, 1), "it goes past the one that never happened");
    victim.seen(sample.sequence(), &sample);
}

pub(crate) fn a_receive_stuck_behind_a_killed_publisher(plan: &Plan) {
    let (begun, may_sleep): (fn(&mut World), _) = (kill_a_claimant, true);
    let operation = Operation { role: "receive_stuck", shared: true, may_sleep, begun, ..RELIABLE };
    test(plan, operation);
}

fn hold(role: &Role) {
    let victim = Victim::new(role);
    let mut subscriber = subscriber_at(&victim, Delivery::Lossy, 1);
    let sample = subscriber.try_receive().unwrap().expect("a message");
    let before = *sample;
    let held = between_marks(|| sample.hold()).expect("the budget is whole");
    drop(subscriber);
    assert!(*held == before, "changed while it was held");
    victim.seen(held.sequence(), &held);
}

pub(crate) fn a_sample_is_held(plan: &Plan) {
    test(plan, Operation { role: "hold", ..LOSSY });
}

/// Holds all that may be held.
fn holder(role: &Role) {
    let mut subscriber = open(role).subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
    let block_len = open(role).info().block_len;
    let mut held = Vec::new();
    while held.len() < HOLDS {
        let sample = subscriber.try_receive().unwrap().expect("a full ring");
        if sample.sequence() % block_len == 0 {
            held.push(sample.hold().expect("the budget is whole"));
        }
    }
    ready(role);
}

/// The whole budget is a dead one's: who would hold finds that out.
pub(crate) fn a_sample_is_held_where_the_dead_have_the_budget(plan: &Plan) {
    let begun = |world: &mut World| world.bystander("holder").kill();
    test(plan, Operation { role: "hold", crowded: true, begun, ..LOSSY });
}

fn give_back(role: &Role) {
    let victim = Victim::new(role);
    let mut subscriber = subscriber_at(&victim, Delivery::Lossy, 1);
    let held = subscriber.try_receive().unwrap().expect("a message").hold();
    let held = held.expect("the budget is whole");
    subscriber.try_receive().unwrap(); // so that nothing but the hold keeps its block
    between_marks(|| drop(held));
}

pub(crate) fn a_held_sample_is_given_back(plan: &Plan) {
    test(plan, Operation { role: "give_back", ..LOSSY });
}

fn attach(role: &Role, delivery: Delivery) {
    let victim = Victim::new(role);
    let topic = victim.topic.clone();
    let subscriber = between_marks(|| topic.subscriber_from(delivery, Start::Oldest));
    let mut subscriber = subscriber.expect("an entry");
    while let Some(sample) = subscriber.try_receive().unwrap() {
        assert!(delivery == Delivery::Lossy || sample.missed_before() == 0);
        victim.seen(sample.sequence(), &sample);
    }
}

pub(crate) fn a_lossy_subscriber_attaches(plan: &Plan) {
    test(plan, Operation { role: "attach_lossy", ..LOSSY });
}

pub(crate) fn a_reliable_subscriber_attaches(plan: &Plan) {
    test(plan, Operation { role: "attach_reliable", ..RELIABLE });
}

/// The last entry is that of one who has died unnoticed, and whom publishers wait for. Two bugs. The joiner was refused as one too many where
/// the entry counted at its first look, and was declared dead before its second. And where it was stopped with the entry's lease taken and the
/// entry's state as it was, publishers waited until it went on: the dead one seemed to live.
pub(crate) fn a_subscriber_attaches_where_only_a_dead_ones_entry_is_left(plan: &Plan) {
    fn begun(world: &mut World) {
        world.leave_one_entry();
        world.bystander("idle_reliable").kill();
    }
    test(plan, Operation { role: "attach_lossy", begun, ..LOSSY });
}

fn leave(role: &Role, delivery: Delivery) {
    let victim = Victim::new(role);
    let subscriber = subscriber_at(&victim, delivery, 1);
    between_marks(|| drop(subscriber));
}

pub(crate) fn a_lossy_subscriber_leaves(plan: &Plan) {
    test(plan, Operation { role: "leave_lossy", ..LOSSY });
}

pub(crate) fn a_reliable_subscriber_leaves(plan: &Plan) {
    test(plan, Operation { role: "leave_reliable", ..RELIABLE });
}
