//! What is different where the topic is guarded: a broker on a thread of the test lets everybody in, and what is left behind stands in pages that have no
//! name. Everything else is as on other topics, and the roles are the same.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use shmbus::{Broker, Delivery, GuardedTopic, Policy, Rule, Start, Topic, TopicOptions};

use crate::Plan;
use crate::drive::at_each_instruction;
use crate::message::Message;
use crate::operation::{Operation, PLAIN};
use crate::watchers::Watcher;
use crate::world::{TOPIC, World};

const PLAIN_GUARDED: Operation = Operation { guarded: true, ..PLAIN };
const PUBLISHES: Operation = Operation { takes_place: true, ..PLAIN_GUARDED };
const RELIABLE: Operation = Operation { holds_up: true, ..PLAIN_GUARDED };
/// Nobody owes so much.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Where the broker of a stage is asked.
pub(crate) fn socket(topics: &Path) -> PathBuf {
    topics.parent().expect("topics are in a directory of the stage").join("broker")
}

/// Allows this user everything.
pub(crate) fn policy(subscribers: u32) -> Policy {
    let uids = vec![rustix::process::geteuid().as_raw()];
    Policy {
        rules: vec![Rule {
            uids,
            topics: vec![TOPIC.to_owned()],
            publish: true,
            subscribe: true,
            reliable: true,
            patience: PATIENCE,
            subscribers,
            ..Rule::default()
        }],
    }
}

/// A broker that serves on a thread until it is dropped.
pub(crate) struct Served {
    ends: Arc<AtomicBool>,
    broker: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn new(mut broker: Broker) -> Served {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let broker = std::thread::spawn(move || {
            while !told.load(SeqCst) {
                broker.turn(Duration::from_millis(20)).unwrap();
            }
        });
        Served { ends, broker: Some(broker) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ends.store(true, SeqCst);
        let ended = self.broker.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// The files of a guarded topic of this process, opened once more.
pub(crate) struct Memory {
    pub(crate) ctl: File,
    pages: Vec<File>,
}

impl Memory {
    /// A new topic, and its files: those without a name that were not there before.
    pub(crate) fn create(options: &TopicOptions) -> (GuardedTopic, Memory) {
        let before: HashSet<u64> =
            files_without_a_name().into_iter().map(|(_, node)| node).collect();
        let topic = GuardedTopic::create::<Message>(TOPIC, options).unwrap();
        let (mut pages, mut others) = (Vec::new(), Vec::new());
        for (path, node) in files_without_a_name() {
            if !before.contains(&node) {
                let file = File::options().read(true).write(true).open(path).unwrap();
                match file.metadata().unwrap().len() {
                    4096 => pages.push(file),
                    _ => others.push(file),
                }
            }
        }
        assert_eq!(pages.len() as u32, options.subscribers_max + 1, "a page for each");
        let ctl = others.into_iter().min_by_key(|file| file.metadata().unwrap().len());
        (topic, Memory { ctl: ctl.expect("two more files"), pages })
    }

    /// How many entries somebody has, or had and did not give back.
    pub(crate) fn participants(&self) -> usize {
        const KIND: u64 = 0xff;
        self.pages.iter().filter(|page| word(page, 0) & KIND != 0).count()
    }

    /// Whether somebody seems to sleep in a page, or on it.
    pub(crate) fn seems_to_sleep(&self) -> bool {
        const BELLS: [u64; 2] = [512, 640];
        self.pages.iter().any(|page| BELLS.iter().any(|bell| word(page, *bell) & 3 != 0))
    }
}

fn word(file: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).unwrap();
    u64::from_le_bytes(word)
}

/// Descriptors of this process, and what they are of.
fn files_without_a_name() -> Vec<(PathBuf, u64)> {
    let all = fs::read_dir("/proc/self/fd").unwrap().map(|file| file.unwrap().path());
    let of_shmbus = all.filter(|path| {
        fs::read_link(path).is_ok_and(|name| name.to_string_lossy().starts_with("/memfd:shmbus"))
    });
    of_shmbus.map(|path| (path.clone(), fs::metadata(&path).unwrap().ino())).collect()
}

/// A topic with a broker, which listens beside `topics`.
pub(crate) fn serve(topics: &Path, options: &TopicOptions) -> (Served, Memory, Topic<Message>) {
    let (topic, memory) = Memory::create(options);
    let socket = socket(topics);
    let listener = Broker::listen(&socket).unwrap();
    let broker = Broker::new(listener, vec![topic], policy(options.subscribers_max)).unwrap();
    let served = Served::new(broker);
    (served, memory, Topic::connect(&socket, TOPIC).unwrap())
}

fn test(plan: &Plan, operation: Operation) {
    at_each_instruction(plan, |fate| World::new(operation, fate));
}

/// The one that sleeps does so in its own page.
pub(crate) fn a_guarded_publish_that_wakes_a_subscriber(plan: &Plan) {
    let begun = |world: &mut World| world.let_one_sleep("sleeper");
    let role = "publish_within";
    test(plan, Operation { role, in_hand: 1, wakes: true, begun, ..PUBLISHES });
}

pub(crate) fn a_guarded_publish_that_opens_a_block(plan: &Plan) {
    test(plan, Operation { role: "publish_opening_later", in_hand: 1, ..PUBLISHES });
}

/// It sleeps on the pages of those whom it waits for.
pub(crate) fn a_guarded_publish_that_sleeps_until_there_is_room(plan: &Plan) {
    let (before, wake): (fn(&mut World), _) = (World::fill_up, World::drain);
    let (role, may_sleep) = ("publish_asleep", true);
    test(plan, Operation { role, in_hand: 1, may_sleep, before, wake, ..PUBLISHES });
}

pub(crate) fn a_guarded_publish_that_sweeps_a_dead_subscriber(plan: &Plan) {
    let before = crate::publishing::leave_a_dead_one_in_the_way;
    test(plan, Operation { role: "publish", in_hand: 1, before, ..PUBLISHES });
}

/// Who owes its patience is made lossy in its grant and in its entry.
pub(crate) fn a_guarded_publish_that_evicts_a_subscriber(plan: &Plan) {
    fn before(world: &mut World) {
        // Another one, to whom nobody owes anything: what is owed stays with the page, which the next slow one has.
        world.feed.publisher = None;
        world.take_place();
        let delivery = Delivery::ReliableFor(Duration::from_millis(1));
        let subscriber = world.subscriber(delivery, Start::Newest);
        world.slow = Some(Watcher::new(subscriber, true, false));
        world.fill();
    }
    test(plan, Operation { role: "publish", in_hand: 1, may_sleep: true, before, ..PUBLISHES });
}

pub(crate) fn a_guarded_publisher_attaches(plan: &Plan) {
    test(plan, Operation { role: "attach_publisher", ..PUBLISHES });
}

pub(crate) fn a_guarded_publisher_leaves(plan: &Plan) {
    test(plan, Operation { role: "leave_publisher", ..PUBLISHES });
}

pub(crate) fn a_guarded_receive_at_a_boundary(plan: &Plan) {
    test(plan, Operation { role: "receive_reliable", ..RELIABLE });
}

pub(crate) fn a_guarded_receive_that_sleeps_and_is_woken(plan: &Plan) {
    let (may_sleep, wake) = (true, |world: &mut World| world.publish(1));
    let before = |world: &mut World| world.publish_to(1);
    test(plan, Operation { role: "receive_asleep", may_sleep, before, wake, ..RELIABLE });
}

/// What it asks of the broker, and what it does with the answer.
pub(crate) fn a_guarded_subscriber_attaches(plan: &Plan) {
    test(plan, Operation { role: "attach_reliable", ..RELIABLE });
}

pub(crate) fn a_guarded_subscriber_leaves(plan: &Plan) {
    test(plan, Operation { role: "leave_reliable", ..RELIABLE });
}
