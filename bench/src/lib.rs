//! What shmbus costs, beside the limits of the machine and other ways between processes.
//!
//! The measurements are subcommands ([`Arguments`]) of two programs: `shmbus-bench`, and `shmbus bench`. Each process of a
//! measurement is the program again, with a hidden verb; [`started_as`] says how to start it. A program that has transports of its own
//! ([`transport::Transport`]) gives them to [`run_with`], beside [`OWN`].
//!
//! Nothing on a shared machine can be compared but what was measured alternately, within the same seconds: every measurement runs in rounds, each of which runs every
//! transport once, in another order; before and after each run stands a probe of how far apart the cores are just then.

#![warn(missing_docs)]

mod arguments;
mod children;
mod endpoint;
mod latency;
mod locks;
mod measure;
mod message;
mod observers;
mod placement;
mod probe;
mod publish_all;
mod publish_cost;
mod record;
mod registry;
mod report;
mod round_trip;
mod run;
mod session;
mod table;
pub mod transport;
mod transports;

pub use arguments::{Arguments, run, run_with};
pub use latency::Latency;
pub use placement::started_as;
pub use registry::{ByLength, Registered, Transports};
pub use transports::{BARE_RING, OWN, SHMBUS};
