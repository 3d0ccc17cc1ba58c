//! One process stands still before an instruction of its own, any of them: there it is killed, or left standing while the others go
//! round the ring several times. Nobody else reads anything torn, loses anything that was confirmed, waits for long, or finds an
//! entry, a pin or a hold that is not given back; and nothing that the one that stood still does later hurts anybody.
//!
//! This program is a test without the usual harness: it runs itself again for every process that a test needs, and lets it run under
//! `ptrace(2)` up to the instruction in question. Instructions are counted from one mark of the operation to the other; a system call is one of
//! them, and so is one with a repeat prefix. A process that sleeps in the kernel is killed there as well.
//!
//! | variable | what it does |
//! |---|---|
//! | `SHMBUS_TEST_STEPS` | `all`: every instruction; a number: every so many; else what gives about 40 places in each operation, and both sides of its system calls |
//! | `SHMBUS_TEST_SEED` | the random numbers; printed, so that a failure can be tried again (the scheduler is not in it) |
//!
//! Arguments: parts of the names of the tests to run, `--exact`, `--list`. On x86-64 only: elsewhere a process that is stepped through
//! an exclusive load and store tries for ever.

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("not on this processor: its atomics cannot be stepped through");
}

#[cfg(target_arch = "x86_64")]
#[path = "support/board.rs"]
mod board;
#[cfg(target_arch = "x86_64")]
#[path = "steps/condvar.rs"]
mod condvar;
#[cfg(target_arch = "x86_64")]
#[path = "steps/door.rs"]
mod door;
#[cfg(target_arch = "x86_64")]
#[path = "steps/drive.rs"]
mod drive;
#[cfg(target_arch = "x86_64")]
#[path = "steps/files.rs"]
mod files;
#[cfg(target_arch = "x86_64")]
#[path = "steps/guarded.rs"]
mod guarded;
#[cfg(target_arch = "x86_64")]
#[path = "steps/locking.rs"]
mod locking;
#[cfg(target_arch = "x86_64")]
#[path = "support/message.rs"]
#[allow(dead_code)] // what only other programs need
mod message;
#[cfg(target_arch = "x86_64")]
#[path = "steps/mutex.rs"]
mod mutex;
#[cfg(target_arch = "x86_64")]
#[path = "steps/operation.rs"]
mod operation;
#[cfg(target_arch = "x86_64")]
#[path = "support/processes.rs"]
#[allow(dead_code)] // as above
mod processes;
#[cfg(target_arch = "x86_64")]
#[path = "steps/publishing.rs"]
mod publishing;
#[cfg(target_arch = "x86_64")]
#[path = "support/random.rs"]
#[allow(dead_code)] // as above
mod random;
#[cfg(target_arch = "x86_64")]
#[path = "steps/receiving.rs"]
mod receiving;
#[cfg(target_arch = "x86_64")]
#[path = "support/runner.rs"]
#[allow(dead_code)] // as above
mod runner;
#[cfg(target_arch = "x86_64")]
#[path = "steps/rwlock.rs"]
mod rwlock;
#[cfg(target_arch = "x86_64")]
#[path = "steps/semaphore.rs"]
mod semaphore;
#[cfg(target_arch = "x86_64")]
#[path = "steps/signals.rs"]
mod signals;
#[cfg(target_arch = "x86_64")]
#[path = "steps/tracee.rs"]
mod tracee;
#[cfg(target_arch = "x86_64")]
#[path = "steps/victim.rs"]
mod victim;
#[cfg(target_arch = "x86_64")]
#[path = "steps/watchers.rs"]
mod watchers;
#[cfg(target_arch = "x86_64")]
#[path = "steps/world.rs"]
mod world;

#[cfg(target_arch = "x86_64")]
pub(crate) use runner::Plan;

#[cfg(target_arch = "x86_64")]
runner::tests! {
    publishing::a_publish_within_a_block,
    publishing::a_publish_that_wakes_a_subscriber,
    publishing::a_publish_that_opens_a_block_first,
    publishing::a_publish_that_opens_a_later_block,
    publishing::a_loan_that_is_committed,
    publishing::a_publisher_that_attaches,
    publishing::a_publisher_that_takes_over_from_one_killed_anywhere,
    publishing::a_publisher_that_leaves,
    publishing::a_publish_that_sleeps_until_there_is_room,
    publishing::a_publish_that_sweeps_a_dead_subscriber,
    publishing::a_publish_that_evicts_a_subscriber,
    publishing::a_publish_that_evicts_a_subscriber_whose_entry_another_takes,
    publishing::one_of_many_publishes_within_a_block,
    publishing::one_of_many_publishes_and_opens_a_block,
    publishing::one_of_many_commits_a_loan,
    publishing::one_of_many_commits_a_loan_that_was_revoked,
    publishing::one_of_many_drops_a_loan,
    publishing::one_of_many_publishes_and_helps_a_subscriber_that_may_not_write,
    publishing::one_of_many_attaches,
    publishing::one_of_many_attaches_where_only_a_dead_ones_entry_is_left,
    publishing::one_of_many_leaves,
    receiving::a_receive_within_a_block,
    receiving::a_lossy_receive_at_a_boundary,
    receiving::a_reliable_receive_at_a_boundary,
    receiving::a_receive_of_a_lapped_subscriber,
    receiving::a_receive_that_sleeps_and_is_woken,
    receiving::a_receive_of_many_publishers_messages_at_a_boundary,
    receiving::a_receive_stuck_behind_a_killed_publisher,
    receiving::a_sample_is_held,
    receiving::a_sample_is_held_where_the_dead_have_the_budget,
    receiving::a_held_sample_is_given_back,
    receiving::a_lossy_subscriber_attaches,
    receiving::a_reliable_subscriber_attaches,
    receiving::a_subscriber_attaches_where_only_a_dead_ones_entry_is_left,
    receiving::a_lossy_subscriber_leaves,
    receiving::a_reliable_subscriber_leaves,
    locking::a_free_lock_is_taken_and_given_back,
    locking::a_lock_is_taken_from_one_killed_with_it,
    locking::a_lock_is_waited_for_until_its_owner_is_killed,
    files::a_topic_is_created,
    files::a_topic_is_removed,
    files::a_topic_is_joined_while_others_remove_it,
    files::a_topic_is_created_where_a_half_removed_one_stands,
    files::a_topic_is_opened_and_joined_where_a_half_removed_one_stands,
    files::a_half_removed_topic_is_removed,
    mutex::a_mutex_is_locked,
    mutex::a_mutex_is_unlocked,
    mutex::a_mutex_is_unlocked_with_one_asleep_behind_it,
    mutex::a_mutex_is_waited_for_asleep,
    mutex::a_mutex_of_the_dead_is_locked_and_unlocked,
    mutex::a_mutex_is_opened,
    mutex::a_mutex_of_the_dead_is_opened,
    mutex::a_mutex_is_closed,
    guarded::a_guarded_publish_that_wakes_a_subscriber,
    guarded::a_guarded_publish_that_opens_a_block,
    guarded::a_guarded_publish_that_sleeps_until_there_is_room,
    guarded::a_guarded_publish_that_sweeps_a_dead_subscriber,
    guarded::a_guarded_publish_that_evicts_a_subscriber,
    guarded::a_guarded_publisher_attaches,
    guarded::a_guarded_publisher_leaves,
    guarded::a_guarded_receive_at_a_boundary,
    guarded::a_guarded_receive_that_sleeps_and_is_woken,
    guarded::a_guarded_subscriber_attaches,
    guarded::a_guarded_subscriber_leaves,
    semaphore::a_permit_is_taken,
    semaphore::a_permit_is_given_back,
    semaphore::a_permit_is_given_back_with_one_asleep_behind_it,
    semaphore::a_permit_is_waited_for_asleep,
    semaphore::a_permit_of_the_dead_is_taken_and_given_back,
    rwlock::an_rwlock_is_read,
    rwlock::an_rwlock_is_left_by_its_reader,
    rwlock::an_rwlock_is_left_by_its_reader_with_a_writer_asleep_behind_it,
    rwlock::an_rwlock_is_read_behind_a_writer_asleep,
    rwlock::an_rwlock_of_a_dead_reader_is_written,
    rwlock::an_rwlock_of_a_dead_reader_is_written_without_waiting,
    rwlock::an_rwlock_is_written,
    rwlock::an_rwlock_is_left_by_its_writer,
    rwlock::an_rwlock_is_left_by_its_writer_with_a_reader_asleep_behind_it,
    rwlock::an_rwlock_is_left_by_its_writer_with_a_writer_asleep_behind_it,
    rwlock::an_rwlock_is_written_behind_a_writer_asleep,
    rwlock::an_rwlock_is_written_behind_a_reader_asleep,
    rwlock::an_rwlock_of_a_dead_writer_is_written,
    condvar::a_condition_is_brought_about_for_one_that_is_asleep,
    condvar::a_condition_is_waited_for_asleep_with_another_one,
    signals::a_barrier_is_waited_at_asleep,
    signals::a_barrier_is_passed_by_the_last_one_with_another_one_asleep_at_it,
    signals::an_event_is_set_for_one_that_is_asleep,
    signals::an_event_is_waited_for_asleep_with_another_one,
    signals::a_value_is_made,
    signals::a_value_is_made_after_a_maker_that_died,
    signals::a_value_is_made_with_another_one_asleep_behind_it,
    signals::a_value_is_waited_for_asleep,
}

#[cfg(target_arch = "x86_64")]
fn main() -> std::process::ExitCode {
    tracee::load_at_fixed_addresses();
    let roles = [
        publishing::ROLES,
        receiving::ROLES,
        files::ROLES,
        locking::ROLES,
        mutex::ROLES,
        semaphore::ROLES,
        rwlock::ROLES,
        condvar::ROLES,
        signals::ROLES,
    ]
    .concat();
    let code = runner::main(TESTS, &roles);
    drive::print_totals();
    code
}
