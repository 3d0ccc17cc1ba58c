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
#[path = "kill/deletions.rs"]
mod deletions;
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
#[path = "support/runner.rs"]
mod runner;
#[path = "kill/subscribers.rs"]
mod subscribers;

use std::process::ExitCode;
use std::time::Duration;

pub(crate) use runner::{Plan, kills};

/// Median and maximum, for people.
pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    match times.last() {
        Some(max) => format!("median {:?}, max {max:?} of {}", times[times.len() / 2], times.len()),
        None => "none".into(),
    }
}

runner::tests! {
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
    deletions::whoever_takes_part_is_told_that_something_else_has_deleted_the_files,
}

fn main() -> ExitCode {
    runner::main(
        TESTS,
        &[feeds::ROLES, subscribers::ROLES, creators::ROLES, deletions::ROLES].concat(),
    )
}
