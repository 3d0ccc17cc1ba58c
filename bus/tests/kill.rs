//! Real processes, killed and stopped at random: the others go on, nothing is torn, nothing committed is lost for reliable
//! subscribers, and nothing is left that a person must delete.
//!
//! This program is a test without the usual harness: it runs itself again for every process that a test needs.
//!
//! | variable | what it does |
//! |---|---|
//! | `SHMBUS_TEST_KILLS` | how long it runs: 800 by default, about that many kills in each of the larger tests |
//! | `SHMBUS_TEST_SEED` | the random numbers; printed, so that a failure can be tried again (the scheduler is not in it) |
//!
//! Arguments: parts of the names of the tests to run, `--exact`, `--list`.

#[path = "support/board.rs"]
mod board;
#[path = "kill/creators.rs"]
mod creators;
#[path = "kill/feeds.rs"]
mod feeds;
#[path = "support/message.rs"]
mod message;
#[path = "support/processes.rs"]
mod processes;
#[path = "kill/publishers.rs"]
mod publishers;
#[path = "support/random.rs"]
mod random;
#[path = "kill/subscribers.rs"]
mod subscribers;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::WaitOptions;

/// How much of what a test is to do.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) kills: u64,
}

/// The share of a test whose rounds take as long as `weight` kills.
pub(crate) fn kills(plan: &Plan, weight: u64) -> u64 {
    plan.kills.div_ceil(weight)
}

/// Median and maximum, for people.
pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match times.last() {
        Some(max) => format!("median {:?}, max {max:?} of {}", times[times.len() / 2], times.len()),
        None => "none".into(),
    }
}

macro_rules! tests {
    ($($module:ident :: $name:ident),* $(,)?) => {
        const TESTS: &[(&str, fn(&Plan))] = &[$((stringify!($name), $module::$name)),*];
    };
}

tests! {
    publishers::a_feed_is_killed_at_random_and_nothing_confirmed_is_lost,
    publishers::a_stopped_publisher_keeps_its_place_and_subscribers_keep_what_they_have,
    subscribers::a_publisher_that_waits_for_reliable_subscribers_goes_on_when_they_are_killed,
    subscribers::what_the_killed_have_held_can_be_held_again,
    subscribers::a_subscriber_killed_asleep_holds_up_nobody_and_the_others_are_woken,
    subscribers::subscribers_killed_while_they_come_and_go_leave_every_entry_usable,
    subscribers::a_lossy_subscriber_stopped_in_a_sample_finds_it_unchanged_after_many_laps,
    subscribers::a_stopped_reliable_subscriber_is_waited_for_and_loses_nothing,
    creators::a_process_killed_while_it_creates_leaves_nothing_behind,
    creators::a_process_killed_while_it_removes_leaves_nothing_that_a_person_must_delete,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == processes::ROLE) {
        let roles = [feeds::ROLES, subscribers::ROLES, creators::ROLES].concat();
        processes::play(&roles, &arguments[1..]);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let parts: Vec<&String> = arguments.iter().filter(|part| !part.starts_with('-')).collect();
    let is_wanted = |name: &str| {
        parts.is_empty()
            || parts
                .iter()
                .any(|part| if has("--exact") { name == *part } else { name.contains(*part) })
    };
    let wanted = TESTS.iter().filter(|(name, _)| is_wanted(name));
    if has("--list") {
        if !has("--ignored") {
            wanted.for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("SHMBUS_TEST_SEED").unwrap_or(now.as_nanos() as u64);
    let plan = Plan { seed, kills: number("SHMBUS_TEST_KILLS").unwrap_or(800) };
    println!("SHMBUS_TEST_SEED={seed} SHMBUS_TEST_KILLS={}", plan.kills);
    processes::watch();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in wanted {
        println!("{name} ...");
        let begin = Instant::now();
        match catch_unwind(|| run(&plan, *test)) {
            Ok(()) => {
                passed += 1;
                println!("  ok, {:.1?}", begin.elapsed());
            }
            Err(_) => {
                failed.push(*name);
                println!("  FAILED, {:.1?}", begin.elapsed());
            }
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a test, and sees that neither processes nor descriptors are left of it.
fn run(plan: &Plan, test: fn(&Plan)) {
    let before = descriptors();
    processes::begin();
    test(plan);
    let children = rustix::process::waitpid(None, WaitOptions::NOHANG);
    assert_eq!(children.err(), Some(rustix::io::Errno::CHILD), "a process was left behind");
    assert_eq!(descriptors(), before, "descriptors were left open");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}
