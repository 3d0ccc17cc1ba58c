//! The recovery lock among real processes: killed at random, stopped with it, in pid namespaces where two have the same thread id.
//!
//! A test without the usual harness, as `kill.rs`: the same variables and arguments.

#[path = "support/board.rs"]
mod board;
#[path = "lock/namespaces.rs"]
mod namespaces;
#[allow(dead_code)] // what only its other users need
#[path = "support/processes.rs"]
mod processes;
#[path = "support/random.rs"]
mod random;
#[path = "support/runner.rs"]
mod runner;
#[path = "lock/sweepers.rs"]
mod sweepers;
#[path = "lock/torture.rs"]
mod torture;

use std::process::ExitCode;

pub(crate) use runner::{Plan, kills};

runner::tests! {
    torture::the_lock_of_the_killed_goes_to_one_successor_that_is_told,
    namespaces::a_waiter_killed_in_another_namespace_with_the_holders_thread_id_lets_nobody_in,
    sweepers::who_waits_for_a_dead_subscriber_goes_on_although_a_sweeper_stands_with_the_lock,
    sweepers::publishers_that_wait_together_ask_for_leases_as_often_as_one,
    sweepers::every_subscriber_found_dead_is_counted_once,
}

fn main() -> ExitCode {
    runner::main(TESTS, &[torture::ROLES, namespaces::ROLES, sweepers::ROLES].concat())
}
