//! The measurements as subcommands.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::measure::{check, latency, throughput};
use crate::registry::Transports;
use crate::session::Options;
use crate::table::Table;
use crate::{
    OWN, contention, endpoint, observers, placement, probe, publish_all, publish_cost, round_trip,
};

/// Which measurement, and its options.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand, Debug)]
enum Measurement {
    /// Whether each transport delivers what was sent, in order, byte for byte
    Check(Options),
    /// 48 bytes there and back, and one way at a fixed rate; polling and blocking
    Latency(Options),
    /// Messages of 48 bytes a second, as many as go through; polling and blocking
    Throughput(Options),
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
    Partner { role: String, directory: PathBuf, count: u64, core: String },
    /// (a process of a run)
    #[command(hide = true)]
    Endpoint { task: String },
}

/// Runs a measurement of the transports in this crate.
///
/// # Errors
/// Where a process cannot be started, fails, or is silent for too long; where a message was lost that may not be.
pub fn run(arguments: &Arguments) -> Result<()> {
    run_with(OWN, arguments)
}

/// Runs a measurement of `transports`.
///
/// # Errors
/// As [`run`].
pub fn run_with(transports: Transports, arguments: &Arguments) -> Result<()> {
    match &arguments.measurement {
        Measurement::Check(options) => check::measure(transports, options),
        Measurement::Latency(options) => {
            show(&latency::table(&latency::measure(transports, options)?));
            Ok(())
        }
        Measurement::Throughput(options) => {
            show(&throughput::table(&throughput::measure(transports, options)?));
            Ok(())
        }
        Measurement::PublishCost { rounds } => publish_cost::run(*rounds),
        Measurement::Observers { rounds } => observers::run(*rounds),
        Measurement::PublishAll { rounds } => publish_all::run(*rounds),
        Measurement::Contention { rounds } => contention::run(*rounds),
        Measurement::RoundTrip { rounds, wake } => round_trip::run(*rounds, *wake),
        Measurement::Partner { role, directory, count, core } => {
            partner(role, directory, *count, core)
        }
        Measurement::Endpoint { task } => endpoint::run(transports, task),
    }
}

fn show(table: &Table) {
    print!("{}", table.markdown());
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
