//! Mutexes among real processes: killed at random, stopped, forked, replaced by exec, in pid namespaces; and every primitive in memory that somebody
//! scribbles on.
//!
//! A test without the usual harness, as `kill.rs`: the same variables and arguments.

#[path = "support/board.rs"]
mod board;
#[path = "sync/ends.rs"]
mod ends;
#[path = "sync/namespaces.rs"]
mod namespaces;
#[allow(dead_code)] // what only its other users need
#[path = "support/processes.rs"]
mod processes;
#[path = "support/random.rs"]
mod random;
#[path = "support/runner.rs"]
mod runner;
#[path = "sync/scribbled.rs"]
mod scribbled;
#[path = "sync/torture.rs"]
mod torture;

use std::process::ExitCode;

pub(crate) use runner::{Plan, kills};

runner::tests! {
    torture::the_mutex_of_the_killed_goes_to_one_successor_that_is_told,
    torture::a_waiter_has_the_mutex_of_a_killed_owner_at_once_and_one_of_three_is_told,
    ends::a_stopped_owner_keeps_its_mutex_and_others_give_up_in_time,
    ends::an_owner_that_execs_has_left_its_mutex_to_the_next_one,
    ends::a_forked_child_has_nothing_and_does_no_harm,
    ends::every_mutex_of_a_killed_process_is_recovered,
    ends::who_waits_for_a_condition_takes_the_mutex_of_a_killed_notifier,
    namespaces::a_waiter_killed_in_another_namespace_with_the_owners_thread_id_lets_nobody_in,
    scribbled::a_mutex_on_which_somebody_scribbles_answers_in_time,
    scribbled::an_rwlock_on_which_somebody_scribbles_answers_in_time,
    scribbled::a_condvar_on_which_somebody_scribbles_answers_in_time,
    scribbled::a_semaphore_on_which_somebody_scribbles_answers_in_time,
    scribbled::a_barrier_on_which_somebody_scribbles_answers_in_time,
    scribbled::an_event_on_which_somebody_scribbles_answers_in_time,
    scribbled::a_cell_on_which_somebody_scribbles_answers_in_time,
}

fn main() -> ExitCode {
    runner::main(TESTS, &[torture::ROLES, ends::ROLES, namespaces::ROLES].concat())
}
