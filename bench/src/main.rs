//! `shmbus-bench`: what shmbus costs, beside the limits of the machine, in one run.
//!
//! Every figure is a ratio of two things measured alternately, because on a shared machine nothing else can be compared. The last
//! word on standard output is the figure; `docs/claims.toml` says what it may be.

mod contention;
mod observers;
mod placement;
mod probe;
mod publish_all;
mod publish_cost;
mod round_trip;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Measures shmbus against the limits of the machine")]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Cost of a publish with 1, 8 and 64 idle lossy subscribers attached. Figure: cost with 64 / cost with 1
    PublishCost {
        /// Rounds, for each of two depths; each measures all three
        #[arg(long, default_value_t = 901)]
        rounds: usize,
    },
    /// Cost of a publish while 100 passive observers poll at 10 Hz. Figure: observed / alone
    Observers {
        /// Rounds; each measures both
        #[arg(long, default_value_t = 9)]
        rounds: usize,
    },
    /// Cost of a message published in batches of 256. Figure: one by one / in batches, where a ring has a fence
    PublishAll {
        /// Rounds; each measures both
        #[arg(long, default_value_t = 1001)]
        rounds: usize,
    },
    /// Round trip of 48 bytes between two processes that poll. Figure: round trip / cache-line ping-pong
    RoundTrip {
        /// Rounds; each measures the ping-pong before and after
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// How publishers and sleepers meet
        #[arg(long, value_enum, default_value_t = round_trip::WakeArgument::Auto)]
        wake: round_trip::WakeArgument,
    },
    /// Total rate of 1, 2, 4 and 8 publishers. Figure: 2 shared ones / 2 on a ring behind a process-shared mutex
    Contention {
        /// Rounds; each measures all of them
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// (the other process of a measurement)
    #[command(hide = true)]
    Partner { role: String, directory: std::path::PathBuf, count: u64, core: String },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().measurement {
        Measurement::PublishCost { rounds } => publish_cost::run(rounds),
        Measurement::Observers { rounds } => observers::run(rounds),
        Measurement::PublishAll { rounds } => publish_all::run(rounds),
        Measurement::Contention { rounds } => contention::run(rounds),
        Measurement::RoundTrip { rounds, wake } => round_trip::run(rounds, wake),
        Measurement::Partner { role, directory, count, core } => {
            partner(&role, &directory, count, &core)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shmbus-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn partner(role: &str, directory: &Path, count: u64, core: &str) -> Result<()> {
    if core != "any" {
        placement::pin(core.parse()?)?;
    }
    match role {
        "observers" => observers::observe(directory, count),
        "idle" => publish_cost::idle(directory),
        "echo" => round_trip::echo(directory, count),
        "publish-exclusive" | "publish-shared" | "publish-mutex" => {
            contention::partner(role, directory, count)
        }
        "ping-pong" => probe::partner(directory, count),
        other => bail!("there is no partner {other}"),
    }
}
