//! `shmbus::process`: children that inherit topics, and supervisors, in real processes.
//!
//! A test without the usual harness, as `kill.rs`: the same variables and arguments. After each test there is no process, no zombie and no descriptor more
//! than before it.

#[path = "support/board.rs"]
mod board;
#[path = "process/crossings.rs"]
mod crossings;
#[path = "process/inherit.rs"]
mod inherit;
#[path = "process/kills.rs"]
mod kills;
#[allow(dead_code)] // what only its other users need
#[path = "support/processes.rs"]
mod processes;
#[path = "support/random.rs"]
mod random;
#[path = "process/restarts.rs"]
mod restarts;
#[path = "support/runner.rs"]
mod runner;
#[path = "process/signals.rs"]
mod signals;
#[path = "process/stops.rs"]
mod stops;
#[path = "process/surroundings.rs"]
mod surroundings;
#[path = "process/tree.rs"]
mod tree;
#[path = "process/workers.rs"]
mod workers;

use std::process::ExitCode;

pub(crate) use runner::{Plan, kills as share};

runner::tests! {
    inherit::a_child_has_the_topics_that_it_was_given_and_no_other_descriptor,
    inherit::a_child_takes_part_without_knowing_a_path_and_its_lease_is_its_own,
    inherit::a_grandchild_with_the_environment_alone_is_told_that_it_was_given_nothing,
    inherit::what_was_not_given_is_removed_or_of_another_type_is_a_typed_error,
    inherit::a_child_begins_without_blocked_or_ignored_signals_in_a_group_of_its_own,
    restarts::a_child_is_restarted_as_its_spec_says_and_its_end_is_told,
    restarts::the_time_between_restarts_doubles_and_begins_again_after_a_healthy_run,
    restarts::too_many_restarts_stop_everything_and_say_so,
    restarts::one_for_all_stops_the_others_before_any_is_started_again,
    restarts::what_the_dead_held_is_given_back_before_they_are_started_again,
    restarts::a_program_that_is_not_there_is_an_end_like_any_other,
    restarts::a_restart_on_demand_counts_as_no_failure,
    restarts::an_idle_supervisor_does_not_wake,
    stops::a_child_that_reads_the_request_ends_by_itself,
    stops::a_child_that_does_not_ends_by_sigterm_and_one_that_ignores_that_by_sigkill,
    stops::what_a_child_has_started_goes_with_it_unless_it_has_left_the_group,
    stops::all_of_a_group_may_end_in_order_and_are_waited_for,
    stops::a_supervisor_that_panics_leaves_no_child,
    crossings::what_is_wanted_while_a_child_is_being_stopped_counts,
    surroundings::a_child_that_somebody_else_waits_for_has_ended_all_the_same,
    surroundings::the_want_of_descriptors_is_no_restart,
    surroundings::orphans_that_it_has_got_are_reaped,
    signals::ends_are_told_although_sigchld_was_ignored_when_the_process_began,
    signals::sigterm_stops_the_tree_and_a_second_one_kills_it,
    signals::another_signal_that_stops_is_no_second_wish,
    signals::what_whoever_started_it_ignores_is_left_alone,
    signals::sighup_starts_what_is_new_stops_what_is_gone_and_leaves_the_rest_alone,
    kills::the_children_of_a_killed_supervisor_are_gone,
    kills::random_kills_leave_the_tree_as_it_is_specified,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == workers::WORKER) {
        workers::play(&arguments[1..]);
    }
    runner::main(TESTS, &[signals::ROLES, kills::ROLES, surroundings::ROLES].concat())
}
