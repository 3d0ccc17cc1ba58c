//! What publishers do.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::{AttachError, Delivery, Publisher, Start};

use crate::Plan;
use crate::drive::at_each_instruction;
use crate::message::Message;
use crate::operation::{Operation, PLAIN};
use crate::processes::{Part, Role};
use crate::receiving::kill_a_claimant;
use crate::victim::{Victim, between_marks, open, ready};
use crate::watchers::Watcher;
use crate::world::{READY, WOKEN, World};

pub(crate) const ROLES: &[Part] = &[
    ("publish_within", publish_within),
    ("publish_opening_first", publish_opening_first),
    ("publish_opening_later", publish_opening_later),
    ("commit_loan", commit_loan),
    ("commit_revoked", commit_revoked),
    ("drop_loan", drop_loan),
    ("attach_publisher", attach_publisher),
    ("leave_publisher", leave_publisher),
    ("publish", publish),
    ("publish_asleep", publish_asleep),
    ("idle_reliable", idle_reliable),
    ("sleeper", sleeper),
];

const EXCLUSIVE: Operation = Operation { takes_place: true, ..PLAIN };
const SHARED: Operation = Operation { shared: true, ..PLAIN };

fn test(plan: &Plan, operation: Operation) {
    at_each_instruction(plan, |fate| World::new(operation, fate));
}

fn one_publish(victim: &mut Victim, publisher: &mut Publisher<Message>) {
    let message = victim.message();
    between_marks(|| publisher.publish(&message)).unwrap();
    victim.confirm();
}

fn publish_within(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish_to(&mut publisher, 0);
    victim.publish(&mut publisher);
    one_publish(&mut victim, &mut publisher);
}

pub(crate) fn a_publish_within_a_block(plan: &Plan) {
    test(plan, Operation { role: "publish_within", in_hand: 1, ..EXCLUSIVE });
}

pub(crate) fn one_of_many_publishes_within_a_block(plan: &Plan) {
    test(plan, Operation { role: "publish_within", in_hand: 1, ..SHARED });
}

/// Sleeps for each message.
fn sleeper(role: &Role) {
    let mut subscriber = open(role).subscriber(Delivery::Lossy).unwrap();
    role.board.word(READY).store(1, SeqCst);
    loop {
        let sequence = subscriber.receive().unwrap().sequence();
        role.board.word(WOKEN).store(sequence + 1, SeqCst);
    }
}

pub(crate) fn a_publish_that_wakes_a_subscriber(plan: &Plan) {
    let begun = |world: &mut World| world.let_one_sleep("sleeper");
    test(plan, Operation { role: "publish_within", in_hand: 1, wakes: true, begun, ..EXCLUSIVE });
}

fn publish_opening_first(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish_to(&mut publisher, 0);
    one_publish(&mut victim, &mut publisher);
}

pub(crate) fn a_publish_that_opens_a_block_first(plan: &Plan) {
    test(plan, Operation { role: "publish_opening_first", in_hand: 1, ..EXCLUSIVE });
}

fn publish_opening_later(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish(&mut publisher);
    victim.publish(&mut publisher);
    victim.publish_to(&mut publisher, 0);
    one_publish(&mut victim, &mut publisher);
}

/// With spares that were seen unpinned at an earlier opening.
pub(crate) fn a_publish_that_opens_a_later_block(plan: &Plan) {
    test(plan, Operation { role: "publish_opening_later", in_hand: 1, ..EXCLUSIVE });
}

pub(crate) fn one_of_many_publishes_and_opens_a_block(plan: &Plan) {
    test(plan, Operation { role: "publish_opening_later", in_hand: 1, ..SHARED });
}

fn commit_loan(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish_to(&mut publisher, 0);
    victim.publish(&mut publisher);
    let message = victim.message();
    between_marks(|| {
        let mut loan = publisher.loan().unwrap();
        *loan = message;
        loan.commit()
    })
    .unwrap();
    victim.confirm();
}

pub(crate) fn a_loan_that_is_committed(plan: &Plan) {
    test(plan, Operation { role: "commit_loan", in_hand: 1, ..EXCLUSIVE });
}

pub(crate) fn one_of_many_commits_a_loan(plan: &Plan) {
    test(plan, Operation { role: "commit_loan", in_hand: 1, ..SHARED });
}

fn commit_revoked(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish_to(&mut publisher, 0);
    victim.publish(&mut publisher);
    let message = victim.message();
    let mut loan = publisher.loan().unwrap();
    *loan = message;
    let taken = loan.sequence();
    let committed = between_marks(|| loan.commit()).unwrap();
    assert!(committed > taken, "it has been revoked");
    victim.confirm();
}

/// The message goes to the first sequence of a block, which it opens.
pub(crate) fn one_of_many_commits_a_loan_that_was_revoked(plan: &Plan) {
    let begun = |world: &mut World| world.publish(world.depth());
    test(plan, Operation { role: "commit_revoked", in_hand: 1, revoked: true, begun, ..SHARED });
}

fn drop_loan(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish_to(&mut publisher, 0);
    victim.publish(&mut publisher);
    let message = victim.message();
    between_marks(|| *publisher.loan().unwrap() = message);
}

/// A subscriber that may not write `data` is stuck behind a killed publisher, and has asked. Nobody else has done it yet.
fn ask_for_help(world: &mut World) {
    world.drain();
    let stuck_at = world.reliable.next;
    kill_a_claimant(world);
    world.wish_for(stuck_at);
}

pub(crate) fn one_of_many_publishes_and_helps_a_subscriber_that_may_not_write(plan: &Plan) {
    let (wished, begun) = (true, ask_for_help);
    test(plan, Operation { role: "publish_within", in_hand: 1, wished, begun, ..SHARED });
}

/// Nothing is in hand: the message never happens.
pub(crate) fn one_of_many_drops_a_loan(plan: &Plan) {
    test(plan, Operation { role: "drop_loan", ..SHARED });
}

fn attach_publisher(role: &Role) {
    let mut victim = Victim::new(role);
    let topic = victim.topic.clone();
    match between_marks(|| topic.publisher()) {
        Ok(mut publisher) => victim.publish(&mut publisher),
        Err(AttachError::PublisherAlive { .. }) => {} // while it stood, another one came
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn a_publisher_that_attaches(plan: &Plan) {
    test(plan, Operation { role: "attach_publisher", ..EXCLUSIVE });
}

pub(crate) fn one_of_many_attaches(plan: &Plan) {
    test(plan, Operation { role: "attach_publisher", ..SHARED });
}

/// As `a_subscriber_attaches_where_only_a_dead_ones_entry_is_left`: the dead one has a sequence in its hands, behind which all others stand.
pub(crate) fn one_of_many_attaches_where_only_a_dead_ones_entry_is_left(plan: &Plan) {
    fn begun(world: &mut World) {
        world.leave_one_publishers_entry();
        kill_a_claimant(world);
    }
    test(plan, Operation { role: "attach_publisher", patient: true, begun, ..SHARED });
}

pub(crate) fn a_publisher_that_takes_over_from_one_killed_anywhere(plan: &Plan) {
    let before = |world: &mut World| world.kill_a_predecessor("publish_opening_later");
    test(plan, Operation { role: "attach_publisher", before, ..EXCLUSIVE });
}

fn leave_publisher(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.publish(&mut publisher);
    between_marks(|| drop(publisher));
}

pub(crate) fn a_publisher_that_leaves(plan: &Plan) {
    test(plan, Operation { role: "leave_publisher", ..EXCLUSIVE });
}

pub(crate) fn one_of_many_leaves(plan: &Plan) {
    test(plan, Operation { role: "leave_publisher", ..SHARED });
}

fn publish(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    one_publish(&mut victim, &mut publisher);
}

fn publish_asleep(role: &Role) {
    let mut victim = Victim::new(role);
    let mut publisher = victim.topic.publisher().unwrap();
    victim.stop_the_clock();
    one_publish(&mut victim, &mut publisher);
}

pub(crate) fn a_publish_that_sleeps_until_there_is_room(plan: &Plan) {
    let (before, wake): (fn(&mut World), _) = (World::fill_up, World::drain);
    let may_sleep = true;
    test(
        plan,
        Operation { role: "publish_asleep", in_hand: 1, may_sleep, before, wake, ..EXCLUSIVE },
    );
}

fn idle_reliable(role: &Role) {
    let _subscriber = open(role).subscriber(Delivery::Reliable).unwrap();
    ready(role);
}

/// Another subscriber dies, and is in the way.
pub(crate) fn leave_a_dead_one_in_the_way(world: &mut World) {
    let bystander = world.bystander("idle_reliable");
    world.fill();
    bystander.kill();
}

pub(crate) fn a_publish_that_sweeps_a_dead_subscriber(plan: &Plan) {
    let before = leave_a_dead_one_in_the_way;
    test(plan, Operation { role: "publish", in_hand: 1, crowded: true, before, ..EXCLUSIVE });
}

/// A subscriber that has less patience than a publisher that waits is in the way.
fn leave_a_slow_one_in_the_way(world: &mut World) {
    let delivery = Delivery::ReliableFor(Duration::from_millis(1));
    let subscriber = world.subscriber(delivery, Start::Newest);
    world.slow = Some(Watcher::new(subscriber, true, false));
    world.fill();
}

pub(crate) fn a_publish_that_evicts_a_subscriber(plan: &Plan) {
    let before = leave_a_slow_one_in_the_way;
    let may_sleep = true;
    test(plan, Operation { role: "publish", in_hand: 1, may_sleep, before, ..EXCLUSIVE });
}

pub(crate) fn a_publish_that_evicts_a_subscriber_whose_entry_another_takes(plan: &Plan) {
    let before = leave_a_slow_one_in_the_way;
    let (may_sleep, replaced) = (true, true);
    test(plan, Operation { role: "publish", in_hand: 1, may_sleep, replaced, before, ..EXCLUSIVE });
}
