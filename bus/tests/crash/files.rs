//! Creators and removers at their points.

use std::time::{Duration, Instant};

use shmbus::{CreateError, Delivery, PublishError, ReceiveError, RemoveError, Topic};

use crate::cases::{How, Point, each, name};
use crate::message::Message;
use crate::processes::{Part, Role, Stage};
use crate::runner::Plan;
use crate::survivors::exclusive;
use crate::victims::TOPIC;

pub(crate) const ROLES: &[Part] =
    &[("creator", creator), ("remover", remover), ("careful_remover", careful_remover)];

fn creator(role: &Role) {
    match Topic::<Message>::create_in(&role.directory, TOPIC, &exclusive()) {
        Ok(_) | Err(CreateError::Exists { .. }) => {}
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// Removes it if nobody takes part; somebody does.
fn careful_remover(role: &Role) {
    match role.directory.remove(TOPIC, false) {
        Err(RemoveError::InUse { participants: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
}

fn remover(role: &Role) {
    role.directory.remove(TOPIC, true).unwrap();
}

/// The topic is one, alone, and works.
fn check(stage: &Stage, topic: &Topic<Message>) {
    let files = ["", "/quotes", "/quotes/.topic"].map(str::to_owned).into_iter();
    let files = files.chain(["ctl", "data", "live"].map(|file| format!("/quotes/.topic/{file}")));
    let found: Vec<String> =
        stage.files().iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    let files: Vec<String> = files.map(|file| format!("crash{file}")).collect();
    assert_eq!(found, files, "the topic and nothing else");
    assert!(!topic.info().retired);
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    let mut publisher = topic.publisher().unwrap();
    for counter in 0..3 * exclusive().depth {
        assert_eq!(publisher.publish(&Message::new(0, counter)).unwrap(), counter);
        let sample = subscriber.receive().unwrap();
        assert!(*sample == Message::new(0, counter));
    }
}

/// The next create makes the topic, or finds it whole; in both cases it clears up.
fn create_next(stage: &Stage, exists: bool) -> Topic<Message> {
    match Topic::<Message>::create_in(&stage.directory, TOPIC, &exclusive()) {
        Err(CreateError::Exists { .. }) if exists => {
            Topic::open_in(&stage.directory, TOPIC).expect("it is whole")
        }
        created => created.expect("the next create succeeds"),
    }
}

const CREATOR: &[Point] = &[
    "create.begun",
    "create.leased",
    "create.ctl_written",
    "create.data_allocated",
    "create.header_written",
    "create.table_written",
    "create.renamed",
];

pub(crate) fn a_creator_is_killed_or_stopped_and_the_next_create_clears_up(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "creator", how, CREATOR, |point, round| {
            let stage = Stage::new();
            let victim = stage.victim("creator", &[], point, how);
            how.met(&stage, &victim, || {});
            let exists = name(point) == "create.renamed";
            if how == How::Killed {
                victim.killed();
                if round % 2 == 1 && !exists {
                    // Who clears up is killed too, twice.
                    for point in ["leftover.claimed", "remove.unlinked"] {
                        let next = stage.victim("creator", &[], point, How::Killed);
                        How::Killed.met(&stage, &next, || {});
                        next.killed();
                    }
                }
                let begin = Instant::now();
                let topic = create_next(&stage, exists);
                let took = begin.elapsed();
                check(&stage, &topic);
                drop(topic);
                stage.end(TOPIC);
                return took;
            }
            let begin = Instant::now();
            let topic = create_next(&stage, exists);
            let took = begin.elapsed();
            victim.go_on();
            victim.done();
            check(&stage, &topic);
            drop(topic);
            stage.end(TOPIC);
            took
        });
    }
    each(plan, "creator that clears up", How::Stopped, &["leftover.claimed"], |point, _| {
        let stage = Stage::new();
        let dead = stage.victim("creator", &[], "create.table_written", How::Killed);
        How::Killed.met(&stage, &dead, || {});
        dead.killed();
        let victim = stage.victim("creator", &[], point, How::Stopped);
        How::Stopped.met(&stage, &victim, || {});
        let begin = Instant::now();
        let topic = create_next(&stage, false);
        let took = begin.elapsed();
        victim.go_on();
        victim.done();
        check(&stage, &topic);
        drop(topic);
        stage.end(TOPIC);
        took
    });
}

const REMOVER: &[Point] =
    &["remove.retired", "remove.rung", "remove.stripped", "remove.unlinked", "remove.emptied"];

pub(crate) fn a_remover_is_killed_or_stopped_and_everybody_is_told(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "remover", how, REMOVER, |point, round| {
            let stage = Stage::new();
            let old = Topic::<Message>::create_in(&stage.directory, TOPIC, &exclusive()).unwrap();
            let mut subscriber = old.subscriber(Delivery::Reliable).unwrap();
            let mut publisher = old.publisher().unwrap();
            for counter in 0..6 {
                publisher.publish(&Message::new(0, counter)).unwrap();
            }
            let victim = stage.victim("remover", &[], point, how);
            how.met(&stage, &victim, || {});
            assert!(old.info().retired);
            let mut stopped = Some(victim);
            if how == How::Killed {
                stopped.take().unwrap().killed();
                if round % 2 == 1 && name(point) != "remove.emptied" {
                    // Who goes on with it is killed too.
                    let next = stage.victim("creator", &[], "remove.unlinked", How::Killed);
                    How::Killed.met(&stage, &next, || {});
                    next.killed();
                }
            }
            let begin = Instant::now();
            let topic = create_next(&stage, false);
            let took = begin.elapsed();
            if let Some(victim) = stopped {
                victim.go_on();
                victim.done();
            }
            // Everything that was committed comes, and then the news.
            for counter in 0..6 {
                assert!(*subscriber.receive().unwrap() == Message::new(0, counter));
            }
            assert_eq!(subscriber.receive().err(), Some(ReceiveError::Retired));
            let told = (0..old.info().block_len)
                .map(|_| publisher.publish_timeout(&Message::new(0, 0), Duration::ZERO))
                .find_map(Result::err);
            assert_eq!(told, Some(PublishError::Retired), "at the next block");
            drop((old, subscriber, publisher));
            check(&stage, &topic);
            drop(topic);
            stage.end(TOPIC);
            took
        });
    }
}

pub(crate) fn a_remover_is_killed_or_stopped_before_it_decides_and_somebody_joins(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "careful_remover", how, &["remove.decided"], |point, _| {
            let stage = Stage::new();
            let topic = Topic::<Message>::create_in(&stage.directory, TOPIC, &exclusive()).unwrap();
            let victim = stage.victim("careful_remover", &[], point, how);
            how.met(&stage, &victim, || {});
            let begin = Instant::now();
            // It has found no lease that is held.
            let mut subscriber = topic.subscriber(Delivery::Lossy).unwrap();
            let took = begin.elapsed();
            if how == How::Killed {
                victim.killed();
            } else {
                victim.go_on();
                victim.done();
            }
            assert!(subscriber.try_receive().unwrap().is_none(), "it is not removed");
            drop(subscriber);
            check(&stage, &topic);
            drop(topic);
            stage.end(TOPIC);
            took
        });
    }
}
