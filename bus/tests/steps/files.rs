//! Topics that are created, joined and removed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use shmbus::{AttachError, CreateError, Delivery, OpenError, RemoveError, Topic, TopicOptions};

use crate::Plan;
use crate::drive::{End, Fate, Scene, at_each_instruction};
use crate::message::Message;
use crate::processes::{Part, Process, Role, Stage};
use crate::tracee::trace_me;
use crate::victim::between_marks;
use crate::watchers::{Feed, Order, Watcher};

pub(crate) const ROLES: &[Part] = &[("create", create), ("remove", remove), ("join", join)];

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

/// Takes part. Whoever does is never removed without force.
fn join(role: &Role) {
    trace_me();
    let joined = between_marks(|| {
        let topic = Topic::<Message>::open_or_create_in(&role.directory, TOPIC, &options());
        topic.expect("whatever others did while it stood").subscriber(Delivery::Lossy)
    });
    match joined {
        Ok(mut subscriber) => assert!(subscriber.try_receive().is_ok(), "removed in use"),
        Err(AttachError::Retired) => {}
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// A place where a topic comes and goes.
struct Site {
    stage: Stage,
    role: &'static str,
    /// Of the topic that stands there at first: how many of its files a killed remover has removed.
    removed: Option<usize>,
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
        match self.stage.directory.remove(TOPIC, false) {
            Err(RemoveError::InUse { participants: 1, .. }) if self.role == "join" => {} // by who stands
            removed => removed.expect("nobody who lives is attached"),
        }
    }
}

impl Scene for Site {
    fn spawn(&mut self) -> Process {
        if self.role == "remove" || self.removed.is_some() {
            drop(Topic::<Message>::create_in(&self.stage.directory, TOPIC, &options()).unwrap());
        }
        if let Some(removed) = self.removed {
            let home = self.stage.directory.path().join(TOPIC).join(".topic");
            let ctl = OpenOptions::new().write(true).open(home.join("ctl")).unwrap();
            ctl.write_all_at(&[1], 4096 + 384).unwrap(); // `docs/layout.md`: joins, the bit "retired"
            for file in ["data", "live"].iter().take(removed) {
                fs::remove_file(home.join(file)).unwrap();
            }
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
        let count = self.stage.files().len(); // two directories above it, its own, three files
        assert_eq!(count, 6, "more than the topic is left: {:?}", self.stage.files());
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

fn test(plan: &Plan, role: &'static str, removed: Option<usize>) {
    at_each_instruction(plan, |_: Fate| Site { stage: Stage::new(), role, removed });
}

pub(crate) fn a_topic_is_created(plan: &Plan) {
    test(plan, "create", None);
}

pub(crate) fn a_topic_is_removed(plan: &Plan) {
    test(plan, "remove", None);
}

pub(crate) fn a_topic_is_joined_while_others_remove_it(plan: &Plan) {
    test(plan, "join", None);
}

pub(crate) fn a_topic_is_created_where_a_half_removed_one_stands(plan: &Plan) {
    test(plan, "create", Some(1));
}

pub(crate) fn a_topic_is_opened_and_joined_where_a_half_removed_one_stands(plan: &Plan) {
    test(plan, "join", Some(2));
}

pub(crate) fn a_half_removed_topic_is_removed(plan: &Plan) {
    test(plan, "remove", Some(1));
}
