//! The crash matrix: at every crash point, whoever comes there dies or is stopped, and the others go on. `docs/crash-matrix.md` has a
//! row for each.
//!
//! Crash points are real only with `--cfg shmbus_crash`: `ci/crash` builds this program so and runs it. Built otherwise it says so and
//! tests nothing. It is a test without the usual harness: it runs itself again for every process that a test needs.
//!
//! | variable | what it does |
//! |---|---|
//! | `SHMBUS_TEST_KILLS` | how often each case is run: a 400th of it, at least twice (800 by default) |
//!
//! Arguments: parts of the names of the tests to run, `--exact`, `--list`.

#[path = "support/board.rs"]
mod board;
#[path = "crash/broker.rs"]
mod broker;
#[path = "crash/cases.rs"]
mod cases;
#[path = "crash/files.rs"]
mod files;
#[path = "support/message.rs"]
#[allow(dead_code)] // what other programs need
mod message;
#[path = "crash/primitives.rs"]
mod primitives;
#[path = "support/processes.rs"]
#[allow(dead_code)] // as above
mod processes;
#[path = "crash/publishers.rs"]
mod publishers;
#[path = "crash/repairs.rs"]
mod repairs;
#[path = "support/runner.rs"]
#[allow(dead_code)] // as above
mod runner;
#[path = "crash/subscribers.rs"]
mod subscribers;
#[path = "crash/survivors.rs"]
mod survivors;
#[path = "crash/sync.rs"]
mod sync;
#[path = "crash/victims.rs"]
mod victims;

use std::process::ExitCode;

runner::tests! {
    publishers::an_exclusive_publisher_is_killed_and_the_next_one_goes_on,
    publishers::an_exclusive_publisher_is_stopped_and_keeps_its_place,
    publishers::a_shared_publisher_is_killed_and_the_others_go_on,
    publishers::a_shared_publisher_is_stopped_and_the_others_go_on,
    publishers::a_publisher_is_killed_or_stopped_while_it_moves_a_revoked_loan,
    subscribers::a_subscriber_is_killed_and_nobody_waits_for_it,
    subscribers::a_subscriber_is_stopped_and_waited_for_if_it_is_reliable,
    repairs::who_sweeps_is_killed_or_stopped_and_another_sweeps,
    repairs::who_evicts_is_killed_or_stopped_and_another_evicts,
    repairs::who_settles_a_dead_claim_is_killed_or_stopped_and_another_settles,
    repairs::who_settles_for_a_subscriber_that_may_not_write_is_killed_or_stopped,
    files::a_creator_is_killed_or_stopped_and_the_next_create_clears_up,
    files::a_remover_is_killed_or_stopped_and_everybody_is_told,
    files::a_remover_is_killed_or_stopped_before_it_decides_and_somebody_joins,
    broker::a_broker_is_killed_or_stopped_and_the_next_one_lets_everybody_in,
    primitives::who_takes_permits_is_killed_or_stopped_and_none_is_lost,
    primitives::who_reads_and_writes_is_killed_or_stopped_and_nobody_reads_halves,
    primitives::who_sets_an_event_is_killed_or_stopped_and_it_is_set,
    primitives::a_party_of_a_barrier_is_killed_or_stopped_and_the_others_gather,
    primitives::who_makes_a_value_is_killed_or_stopped_and_it_is_made_once,
    sync::a_locker_is_killed_or_stopped_and_the_others_go_on,
    sync::a_successor_is_killed_or_stopped_and_the_next_one_is_told,
    sync::who_gives_a_mutex_up_is_killed_or_stopped_and_nobody_gets_it,
    sync::who_waits_or_notifies_is_killed_or_stopped_and_the_others_go_on,
    sync::who_makes_or_removes_a_mutex_is_killed_or_stopped_and_the_next_create_clears_up,
}

fn main() -> ExitCode {
    if !cfg!(shmbus_crash) {
        println!("this build has no crash points: ci/crash runs these tests");
        return ExitCode::SUCCESS;
    }
    let roles = [victims::ROLES, files::ROLES, broker::ROLES, sync::ROLES, primitives::ROLES];
    runner::main(TESTS, &roles.concat())
}
