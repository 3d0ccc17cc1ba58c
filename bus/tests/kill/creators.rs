//! Processes killed while they create a topic, open it, or remove it.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use shmbus::{CreateError, Delivery, RemoveError, Topic, TopicOptions};

use crate::feeds::{Reader, TOPIC};
use crate::message::Message;
use crate::processes::{Part, Process, Role, Stage, kill_me_after};
use crate::random::Random;
use crate::{Plan, kills};

pub(crate) const ROLES: &[Part] = &[("creator", creator), ("remover", remover)];

/// Words of a process: whether it has begun, how long it took when it was done, in nanoseconds.
const BEGUN: usize = 100;
const TOOK_NS: usize = 110;

fn options() -> TopicOptions {
    TopicOptions { depth: 64, subscribers_max: 2, ..Default::default() }
}

/// Does one thing that a timer may interrupt, and tells how long it took.
fn timed(role: &Role, number: u64, kill_ns: u64, action: impl FnOnce()) {
    if kill_ns > 0 {
        kill_me_after(Duration::from_nanos(kill_ns));
    }
    let begin = Instant::now();
    role.board.word(BEGUN + number as usize).store(1, Release);
    action();
    let took_ns = begin.elapsed().as_nanos() as u64;
    role.board.word(TOOK_NS + number as usize).store(took_ns, Release);
}

fn creator(role: &Role) {
    let [number, kill_ns, or_open] = role.numbers();
    timed(role, number, kill_ns, || {
        let created = match or_open {
            0 => Topic::<Message>::create_in(&role.directory, TOPIC, &options()),
            _ => Topic::<Message>::open_or_create_in(&role.directory, TOPIC, &options()),
        };
        match created {
            Ok(_) => {}
            Err(CreateError::Exists { .. }) if or_open == 0 => {}
            Err(error) => panic!("{error}: {error:?}"),
        }
    });
}

fn remover(role: &Role) {
    let [number, kill_ns] = role.numbers();
    timed(role, number, kill_ns, || role.directory.remove(TOPIC, false).unwrap());
}

/// What came of processes that a timer was to kill.
#[derive(Default)]
struct Tally {
    inside: u64,
    outside: u64,
}

impl Tally {
    /// Waits for the ends of `processes`, numbered from 0.
    fn count(&mut self, stage: &Stage, processes: Vec<Process>) {
        for (number, process) in processes.into_iter().enumerate() {
            let killed = process.killed_or_done();
            let word = |word: usize| stage.board.word(word + number).swap(0, Acquire);
            let (begun, took_ns) = (word(BEGUN), word(TOOK_NS));
            match killed && begun == 1 && took_ns == 0 {
                true => self.inside += 1,
                false => self.outside += 1,
            }
        }
    }
}

/// How long a role takes that nobody interrupts: the median of five.
fn calibrate(stage: &Stage, mut run: impl FnMut(&Stage) -> Process) -> u64 {
    let mut times = [0; 5].map(|_| {
        run(stage).done();
        stage.board.word(TOOK_NS).swap(0, Acquire)
    });
    times.sort_unstable();
    times[2]
}

/// The topic is one, and works.
fn check(stage: &Stage, topic: &Topic<Message>) {
    let files = [
        "feed",
        "feed/quotes",
        "feed/quotes/.topic",
        "feed/quotes/.topic/ctl",
        "feed/quotes/.topic/data",
        "feed/quotes/.topic/live",
    ];
    let found: Vec<String> =
        stage.files().iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    assert_eq!(found, files, "the topic and nothing else");
    assert!(!topic.info().retired);
    let mut reader = Reader::new(topic.subscriber(Delivery::Reliable).unwrap());
    let mut publisher = topic.publisher().unwrap();
    for counter in 0..10 {
        assert_eq!(publisher.publish(&Message::new(0, counter)).unwrap(), counter);
    }
    assert_eq!(reader.drain(), 10);
}

pub(crate) fn a_process_killed_while_it_creates_leaves_nothing_behind(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let whole_ns = calibrate(&stage, |stage| {
        let _ = stage.directory.remove(TOPIC, false);
        stage.spawn("creator", &[0, 0, 1])
    });
    stage.directory.remove(TOPIC, false).unwrap();
    let mut tally = Tally::default();
    for round in 0..kills(plan, 1) {
        // One alone, or two that race, or one killed beside one that is not.
        let creators = (0..random.below(1..3))
            .map(|number| {
                let kill_ns = match number == 1 && random.one_in(2) {
                    true => 0,
                    false => random.below(1..whole_ns * 3 / 2),
                };
                stage.spawn("creator", &[number, kill_ns, random.below(0..2)])
            })
            .collect();
        tally.count(&stage, creators);
        let topic = match round % 2 {
            0 => Topic::<Message>::open_or_create_in(&stage.directory, TOPIC, &options())
                .expect("the next open_or_create succeeds"),
            _ => match Topic::<Message>::create_in(&stage.directory, TOPIC, &options()) {
                // It was whole before its creator was killed, or another one has made it.
                Err(CreateError::Exists { .. }) => Topic::open_in(&stage.directory, TOPIC).unwrap(),
                created => created.expect("the next create succeeds"),
            },
        };
        if round % 2 == 0 {
            // Opening does not tidy up; creating does, also where it finds a topic.
            let again = Topic::<Message>::create_in(&stage.directory, TOPIC, &options());
            assert!(matches!(again, Err(CreateError::Exists { .. })));
        }
        check(&stage, &topic);
        drop(topic);
        stage.directory.remove(TOPIC, false).unwrap();
        assert!(stage.files().is_empty(), "files were left behind: {:?}", stage.files());
    }
    println!(
        "  {} killed within, {} before or after, of {whole_ns} ns",
        tally.inside, tally.outside
    );
    assert!(tally.inside > 0, "no kill has met its aim");
    drop(Topic::<Message>::create_in(&stage.directory, TOPIC, &options()).unwrap());
    stage.end(TOPIC);
}

pub(crate) fn a_process_killed_while_it_removes_leaves_nothing_that_a_person_must_delete(
    plan: &Plan,
) {
    let mut random = Random::new(plan.seed);
    let stage = Stage::new();
    let create = || Topic::<Message>::open_or_create_in(&stage.directory, TOPIC, &options());
    let whole_ns = calibrate(&stage, |stage| {
        create().unwrap();
        stage.spawn("remover", &[0, 0])
    });
    let mut tally = Tally::default();
    for round in 0..kills(plan, 1) {
        drop(create().expect("the next create succeeds"));
        let remover = stage.spawn("remover", &[0, random.below(1..whole_ns * 3 / 2)]);
        tally.count(&stage, vec![remover]);
        if round % 4 == 3 {
            // Whoever removes next finds it gone, or removes it.
            match stage.directory.remove(TOPIC, false) {
                Ok(()) | Err(RemoveError::Open(_)) => {}
                Err(error) => panic!("{error}"),
            }
            continue;
        }
        let topic = create().expect("the next open_or_create succeeds");
        check(&stage, &topic);
        drop(topic);
        stage.directory.remove(TOPIC, false).unwrap();
        assert!(stage.files().is_empty(), "files were left behind: {:?}", stage.files());
    }
    println!(
        "  {} killed within, {} before or after, of {whole_ns} ns",
        tally.inside, tally.outside
    );
    assert!(tally.inside > 0, "no kill has met its aim");
    drop(create().unwrap());
    stage.end(TOPIC);
}
