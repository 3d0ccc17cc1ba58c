//! What is said of processes, and what is so: the statements of `docs/contracts.md` under *Processes*, each with its test.
//!
//! A test without the usual harness, as `kill.rs`: one thread runs them, so that it knows of every child.

#[path = "support/board.rs"]
mod board;
#[path = "contracts_process/identity.rs"]
mod identity;
#[path = "contracts_process/memory.rs"]
mod memory;
#[allow(dead_code)] // what only its other users need
#[path = "support/processes.rs"]
mod processes;
#[allow(dead_code)] // as above
#[path = "support/runner.rs"]
mod runner;
#[path = "contracts_process/spawning.rs"]
mod spawning;

use std::process::ExitCode;

pub(crate) use runner::Plan;

runner::tests! {
    spawning::a_command_hands_over_arguments_and_environment_byte_for_byte_and_a_nul_is_seen_at_spawn,
    spawning::a_spawn_that_fails_has_run_code_in_a_child_that_is_gone,
    spawning::a_spawn_that_succeeds_does_not_prove_that_the_program_ran,
    spawning::a_file_that_is_no_program_is_an_error_or_a_script_depending_on_how_it_is_started,
    spawning::killing_a_child_that_has_ended_is_no_error,
    spawning::a_dropped_child_goes_on_and_then_stays_as_a_zombie,
    spawning::wait_gives_the_status_each_time_and_leaves_no_zombie,
    spawning::a_child_inherits_what_is_blocked_and_ignored_unless_it_is_reset,
    memory::memory_is_its_own_unless_it_is_shared_or_written_from_outside,
    identity::a_number_may_be_another_process_by_now_and_a_descriptor_never_is,
    identity::an_orphan_goes_to_the_nearest_subreaper,
    identity::the_death_signal_comes_with_the_end_of_the_thread_that_spawned,
    identity::a_change_of_user_takes_the_death_signal_back,
    identity::standard_signals_merge_and_real_time_ones_queue,
}

fn main() -> ExitCode {
    runner::main(TESTS, &[memory::ROLES, identity::ROLES].concat())
}
