//! Topics that are created and removed.

use std::time::Duration;

use shmbus::{CreateError, Delivery, OpenError, RemoveError, Topic, TopicOptions};

use crate::Plan;
use crate::drive::{End, Fate, Scene, at_each_instruction};
use crate::message::Message;
use crate::processes::{Part, Process, Role, Stage};
use crate::tracee::trace_me;
use crate::victim::between_marks;
use crate::watchers::{Feed, Order, Watcher};

pub(crate) const ROLES: &[Part] = &[("create", create), ("remove", remove)];

const TOPIC: &str = "files/steps";

fn options() -> TopicOptions {
    TopicOptions { depth: 32, subscribers_max: 2, hold_blocks: Some(0), ..Default::default() }
}

fn create(role: &Role) {
    trace_me();
    let created =
        between_marks(|| Topic::<Message>::open_or_create_in(&role.directory, TOPIC, &options()));
    created.expect("whatever others did while it stood");
}

fn remove(role: &Role) {
    trace_me();
    match between_marks(|| role.directory.remove(TOPIC, false)) {
        Ok(()) => {}
        // While it stood, another one has removed it.
        Err(RemoveError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. })) => {}
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// A place where a topic comes and goes.
struct Site {
    stage: Stage,
    role: &'static str,
}

impl Site {
    /// The name is to be had, and the topic works. Nothing is left of it when it is removed.
    fn come_and_go(&self) {
        let topic = Topic::open_or_create_in(&self.stage.directory, TOPIC, &options());
        let topic: Topic<Message> = topic.expect("the next open_or_create succeeds");
        let mut order = Order::new();
        let mut reader = Watcher::new(topic.subscriber(Delivery::Reliable).unwrap(), true, false);
        let mut feed = Feed::new();
        feed.publisher = Some(topic.publisher().unwrap());
        for _ in 0..100 {
            feed.publish(&mut order).expect("room");
            reader.drain(&mut order);
        }
        assert_eq!(reader.of(0), 100);
        drop((reader, feed, topic));
        self.stage.directory.remove(TOPIC, false).expect("nobody who lives is attached");
    }
}

impl Scene for Site {
    fn spawn(&mut self) -> Process {
        if self.role == "remove" {
            drop(Topic::<Message>::create_in(&self.stage.directory, TOPIC, &options()).unwrap());
        }
        self.stage.spawn(self.role, &[])
    }

    fn may_sleep(&self) -> bool {
        false
    }

    fn begun(&mut self) {}

    fn wake(&mut self) {}

    fn meanwhile(&mut self) {
        self.come_and_go();
    }

    fn check(&mut self, _end: End) {
        // Who creates tidies up, also where it finds a topic.
        let created = Topic::<Message>::create_in(&self.stage.directory, TOPIC, &options());
        match created {
            Ok(_) | Err(CreateError::Exists { .. }) => {}
            Err(error) => panic!("{error}: {error:?}"),
        }
        let count = self.stage.files().len(); // two directories above it, its own, two files
        assert_eq!(count, 5, "more than the topic is left: {:?}", self.stage.files());
        self.come_and_go();
        assert!(self.stage.files().is_empty(), "files were left: {:?}", self.stage.files());
    }

    fn stood(&self) -> &[Duration] {
        &[]
    }

    fn end(self) {
        drop(Topic::<Message>::create_in(&self.stage.directory, TOPIC, &options()).unwrap());
        self.stage.end(TOPIC);
    }
}

fn test(plan: &Plan, role: &'static str) {
    at_each_instruction(plan, |_: Fate| Site { stage: Stage::new(), role });
}

pub(crate) fn a_topic_is_created(plan: &Plan) {
    test(plan, "create");
}

pub(crate) fn a_topic_is_removed(plan: &Plan) {
    test(plan, "remove");
}
