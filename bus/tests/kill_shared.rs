//! Real processes, killed and stopped at random, on topics of many publishers: one order for all, each publisher's own order in it,
//! nothing committed is lost for reliable subscribers, nothing comes twice or torn, and nobody waits for the dead, nor for
//! longer than the topic says for those who only stand still.
//!
//! This program is a test without the usual harness: it runs itself again for every process that a test needs.
//!
//! | variable | what it does |
//! |---|---|
//! | `SHMBUS_TEST_KILLS` | how long it runs: 800 by default, about that many kills and stops in the largest test |
//! | `SHMBUS_TEST_SEED` | the random numbers; printed, so that a failure can be tried again (the scheduler is not in it) |
//!
//! Arguments: parts of the names of the tests to run, `--exact`, `--list`.

#[path = "support/board.rs"]
mod board;
#[path = "kill_shared/claims.rs"]
mod claims;
#[path = "kill_shared/crowd.rs"]
mod crowd;
#[path = "kill_shared/feeds.rs"]
mod feeds;
#[path = "support/message.rs"]
#[allow(dead_code)] // what only exclusive publishers need
mod message;
#[path = "kill_shared/patience.rs"]
mod patience;
#[path = "support/processes.rs"]
#[allow(dead_code)] // as above
mod processes;
#[path = "support/random.rs"]
mod random;
#[path = "kill_shared/readonly.rs"]
mod readonly;
#[path = "support/runner.rs"]
mod runner;

use std::process::ExitCode;

pub(crate) use runner::{Plan, kills};

/// How long somebody stood still, for people.
pub(crate) fn stood_still(what: &str, mut ns: Vec<u64>) {
    ns.sort_unstable();
    let at = |percent: usize| ns[(ns.len() * percent / 100).min(ns.len() - 1)] as f64 / 1e6;
    if !ns.is_empty() {
        println!(
            "  {what} ({} times) stood still ms: p50 {:.2} p99 {:.2} max {:.2}",
            ns.len(),
            at(50),
            at(99),
            at(100)
        );
    }
}

runner::tests! {
    crowd::publishers_and_subscribers_are_killed_and_stopped_and_all_see_one_order,
    claims::a_publisher_killed_between_claim_and_commit_holds_nobody_up_for_long,
    claims::publishers_that_wait_for_a_reliable_subscriber_go_on_when_it_is_killed,
    claims::a_stopped_publisher_with_an_open_loan_is_passed_by_and_its_message_comes_later,
    readonly::a_subscriber_that_may_not_write_is_helped_by_a_living_publisher_and_told_where_there_is_none,
    readonly::a_lossy_subscriber_that_may_not_write_is_lapped_where_a_publisher_died_and_goes_on,
    readonly::a_publisher_helps_with_all_that_is_taken_in_a_block_at_once,
    patience::a_stopped_subscriber_behind_a_dead_publishers_claim_is_evicted,
    patience::a_subscriber_stopped_for_longer_than_its_patience_is_told_once_and_goes_on_lossy,
}

fn main() -> ExitCode {
    runner::main(TESTS, &[feeds::ROLES, claims::ROLES, readonly::ROLES, patience::ROLES].concat())
}
