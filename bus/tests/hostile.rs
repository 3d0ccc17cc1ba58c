//! A process that writes at random over everything of a topic, while others use it through the safe API: no panic, no signal, no call that does
//! not return, and typed errors. What a message says may be anything then.
//!
//! This program is a test without the usual harness: it runs itself again for every process that a test needs.
//!
//! | variable | what it does |
//! |---|---|
//! | `SHMBUS_TEST_SECONDS` | how long it runs: 5 by default |
//! | `SHMBUS_TEST_SEED` | the random numbers; printed, so that a failure can be tried again (the scheduler is not in it) |

#[path = "support/board.rs"]
mod board;
#[path = "support/processes.rs"]
#[allow(dead_code)] // of killing and stopping
mod processes;
#[path = "support/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "support/runner.rs"]
#[allow(dead_code)]
mod runner;
#[path = "hostile/scribbler.rs"]
mod scribbler;
#[path = "hostile/users.rs"]
mod users;

use std::process::ExitCode;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use processes::{Stage, beat};
use random::Random;
use runner::Plan;
use shmbus::{Publishers, Topic, TopicOptions};

pub(crate) const TOPIC: &str = "t";
/// The word of the board that ends a round, and the first of the counts.
pub(crate) const STOP: usize = 1;
pub(crate) const COUNTS: usize = 16;

runner::tests! {
    crate::a_topic_that_another_process_scribbles_over_gives_results_or_typed_errors,
}

fn main() -> ExitCode {
    runner::main(TESTS, &[scribbler::ROLES, users::ROLES].concat())
}

fn seconds() -> u64 {
    std::env::var("SHMBUS_TEST_SECONDS").map_or(5, |seconds| seconds.parse().expect("a number"))
}

fn a_topic_that_another_process_scribbles_over_gives_results_or_typed_errors(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let (begin, mut rounds) = (Instant::now(), 0);
    let mut counts = vec![0; users::NAMES.len()];
    // Where others have the cores it takes longer until everything has happened once.
    let in_vain = |counts: &[u64]| counts[..users::EXPECTED].contains(&0);
    while rounds == 0
        || begin.elapsed() < Duration::from_secs(seconds())
        || (in_vain(&counts) && begin.elapsed() < 10 * Duration::from_secs(seconds()))
    {
        for (sum, count) in counts.iter_mut().zip(round(&mut random)) {
            *sum += count;
        }
        rounds += 1;
    }
    println!("  {rounds} rounds");
    for (name, count) in users::NAMES.iter().zip(&counts) {
        println!("  {count:9} {name}");
    }
    for (name, count) in users::NAMES.iter().zip(&counts).take(users::EXPECTED) {
        assert!(*count > 0, "nothing was {name}: the test tests nothing");
    }
}

/// One topic, one scribbler, one process of users. Blocked calls end when the topic is removed.
fn round(random: &mut Random) -> Vec<u64> {
    let stage = Stage::new();
    let shared = random.one_in(2);
    let options = TopicOptions {
        depth: 1 << random.below(2..9),
        subscribers_max: random.below(3..7) as u32,
        hold_blocks: Some(random.below(0..5) as u32),
        publishers: if shared { Publishers::Shared(3) } else { Publishers::Exclusive },
        claim_timeout: Duration::from_millis(random.below(1..20)),
        max_len: 100,
        timestamp: random.one_in(2),
        ..Default::default()
    };
    drop(Topic::<[u8]>::create_in(&stage.directory, TOPIC, &options).unwrap());
    let headers = scribbler::headers(&stage.directory);
    let users = stage.spawn("users", &[random.next()]);
    let pause_us = [0, 10, 100, 1000, 20_000][random.below(0..5) as usize];
    let numbers = [random.next(), pause_us, random.one_in(4).into()];
    let scribbler = stage.spawn("scribbler", &numbers);
    let end = Instant::now() + random.duration(Duration::from_millis(800));
    while Instant::now() < end {
        stage.until("a moment", || true);
        std::thread::sleep(Duration::from_millis(10));
    }
    scribbler.kill();
    stage.board.word(STOP).store(1, SeqCst);
    // What it has left in the headers would keep the remover from telling those who are attached.
    scribbler::restore(&stage.directory, &headers);
    stage.directory.remove(TOPIC, true).expect("a topic can be removed");
    users.done();
    beat();
    (0..users::NAMES.len()).map(|count| stage.board.word(COUNTS + count).load(SeqCst)).collect()
}
