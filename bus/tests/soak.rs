//! Publishers and subscribers of every kind on small rings for as long as one likes, killed, stopped, coming, going, holding and sleeping at
//! random. The others must see one order, whole messages, exact loss, everything confirmed once and nothing twice, and go on; everything is given
//! back at the end of each scene. It says what it did, and how long those who were left stood still.
//!
//! This program is a test without the usual harness: it runs itself again for every process that it needs. `ci/soak` runs it for minutes or hours.
//!
//! | variable | what it does |
//! |---|---|
//! | `SHMBUS_TEST_SECONDS` | how long; 8 by default |
//! | `SHMBUS_TEST_SEED` | the random numbers; printed, so that a failure can be tried again (the scheduler is not in it) |

#[path = "support/board.rs"]
mod board;
#[path = "kill_shared/feeds.rs"]
#[allow(dead_code)] // what only other programs need
mod feeds;
#[path = "support/message.rs"]
#[allow(dead_code)] // as above
mod message;
#[path = "support/processes.rs"]
#[allow(dead_code)] // as above
mod processes;
#[path = "support/random.rs"]
#[allow(dead_code)] // as above
mod random;
#[path = "support/runner.rs"]
#[allow(dead_code)] // as above
mod runner;
#[path = "soak/scene.rs"]
mod scene;

use std::process::ExitCode;

pub(crate) use runner::Plan;

runner::tests! {
    scene::whoever_is_left_goes_on_and_loses_nothing,
}

fn main() -> ExitCode {
    runner::main(TESTS, &[feeds::ROLES, scene::ROLES].concat())
}
