//! The measurements as subcommands.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::measure::{
    check, contention, fanout, handover, latency, payload, publish, recovery, throughput, wake,
};
use crate::record::Results;
use crate::registry::Transports;
use crate::session::Options;
use crate::table::Table;
use crate::{
    OWN, endpoint, locks, observers, placement, probe, publish_all, publish_cost, report,
    round_trip,
};

/// Which measurement, and its options.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand, Debug)]
enum Measurement {
    /// 48 bytes there and back, and one way at a fixed rate; polling and blocking
    Latency(Options),
    /// Messages of 48 bytes a second, polling and blocking. Figure: shmbus / a bare ring
    Throughput {
        #[command(flatten)]
        options: Options,
        /// The figure is instead how many times as fast as the best of pipe, sockets and queues it is
        #[arg(long)]
        sockets: bool,
    },
    /// One sender, 1 to 64 receivers
    Fanout(Options),
    /// Bytes a second by length of the message, 8 B to 16 MiB, in place and copied
    Payload(Options),
    /// Waking a receiver that sleeps. Figure: shmbus / a bare futex
    Wake {
        #[command(flatten)]
        options: Options,
        /// The figure is instead shmbus with an eventfd of the program's own / pipe, unix sockets or eventfd, the worst of them
        #[arg(long)]
        descriptors: bool,
    },
    /// From commit to receipt of a message written in place, by length. Figure: the worst of 1 MiB and 16 MiB / 64 B, and the sender's own 16 MiB / a bare ring's
    Handover(Options),
    /// 1 to 8 shared publishers: total rate and fairness. Figure: 8 of them / 1
    Contention(Options),
    /// Cost of a publish with 1 to 64 idle subscribers
    Publish(Options),
    /// Time without messages after a publisher is killed
    Recovery(Options),
    /// All of these, the tables of docs/benchmarks.md and the plots: about 15 minutes
    All {
        #[command(flatten)]
        options: Options,
        /// Where the raw data and the plots go
        #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
        directory: PathBuf,
        /// The document with the tables
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
        document: PathBuf,
        /// Leave out what has raw data there already
        #[arg(long)]
        resume: bool,
    },
    /// The tables of docs/benchmarks.md and the plots, from raw data
    Report {
        /// Where the raw data is and the plots go
        #[arg(value_name = "DIR", default_value = "docs/benchmarks")]
        directory: PathBuf,
        /// The document with the tables
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
        document: PathBuf,
    },
    /// Whether each transport delivers what was sent, in order, byte for byte
    Check(Options),
    /// Cost of a publish with 1, 8 and 64 idle lossy subscribers attached. Figure: cost with 64 / cost with 1
    PublishCost {
        /// Rounds, for each of two depths; each measures all three
        #[arg(long, default_value_t = 901)]
        rounds: usize,
        /// On guarded topics, of one depth, where each publish looks at the page of each subscriber
        #[arg(long)]
        guarded: bool,
        /// With subscribers that receive all the while, on all other cores
        #[arg(long, conflicts_with = "guarded")]
        draining: bool,
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
    /// Locks across processes, alone and contended, beside pthread, sem_t and flock. Figure: RobustMutex / robust pthread mutex
    Locks {
        /// Rounds; each measures all of them
        #[arg(long, default_value_t = 301)]
        rounds: usize,
    },
    /// Round trip of 48 bytes between two processes that poll. Figure: round trip / cache-line ping-pong, in parts of what it may be
    RoundTrip {
        /// Rounds; each measures the ping-pong before and after
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// How publishers and sleepers meet
        #[arg(long, value_enum, default_value_t = round_trip::WakeArgument::Auto)]
        wake: round_trip::WakeArgument,
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
        Measurement::Latency(options) => {
            show(options, latency::measure(transports, options)?, latency::table, None)
        }
        Measurement::Throughput { options, sockets } => {
            let figure: Figure = match sockets {
                true => ("shmbus / the best of the others", throughput::sockets_figure),
                false => ("shmbus / the bare ring", throughput::figure),
            };
            let results = throughput::measure(transports, options)?;
            show(options, results, throughput::table, Some(figure))
        }
        Measurement::Fanout(options) => {
            show(options, fanout::measure(transports, options)?, fanout::table, None)
        }
        Measurement::Payload(options) => {
            show(options, payload::measure(transports, options)?, payload::table, None)
        }
        Measurement::Wake { options, descriptors } => {
            let figure: Figure = match descriptors {
                true => ("shmbus + eventfd / the first of the others", wake::descriptors_figure),
                false => ("shmbus / the bare futex", wake::figure),
            };
            show(options, wake::measure(transports, options)?, wake::table, Some(figure))
        }
        Measurement::Handover(options) => {
            let name = "the worst of 1 MiB and 16 MiB / 64 B, and the sender's own 16 MiB / the bare ring's";
            let figure: Figure = (name, handover::figure);
            show(options, handover::measure(transports, options)?, handover::table, Some(figure))
        }
        Measurement::Contention(options) => {
            let figure: Figure = ("8 shared publishers / 1", contention::figure);
            let results = contention::measure(transports, options)?;
            show(options, results, contention::table, Some(figure))
        }
        Measurement::Publish(options) => {
            show(options, publish::measure(transports, options)?, publish::table, None)
        }
        Measurement::Recovery(options) => {
            show(options, recovery::measure(transports, options)?, recovery::table, None)
        }
        Measurement::All { options, directory, document, resume } => {
            report::all(transports, options, directory, document, *resume)
        }
        Measurement::Report { directory, document } => report::report(directory, document),
        Measurement::Check(options) => check::measure(transports, options),
        Measurement::PublishCost { rounds, guarded: true, .. } => {
            publish_cost::guarded::run(*rounds)
        }
        Measurement::PublishCost { rounds, draining: true, .. } => {
            publish_cost::draining::run(*rounds)
        }
        Measurement::PublishCost { rounds, .. } => publish_cost::run(*rounds),
        Measurement::Observers { rounds } => observers::run(*rounds),
        Measurement::PublishAll { rounds } => publish_all::run(*rounds),
        Measurement::Locks { rounds } => locks::run(*rounds),
        Measurement::RoundTrip { rounds, wake } => round_trip::run(*rounds, *wake),
        Measurement::Partner { role, directory, count, core } => {
            partner(role, directory, *count, core)
        }
        Measurement::Endpoint { task } => endpoint::run(transports, task),
    }
}

/// What it is, and how it follows from the results.
type Figure = (&'static str, fn(&Results) -> Option<f64>);

/// Keeps what was run, and prints it: the table, what was left out, and the figure as the last word.
fn show(
    options: &Options,
    results: Results,
    table: fn(&Results) -> Table,
    figure: Option<Figure>,
) -> Result<()> {
    options.keep(&results)?;
    print!("{}", table(&results).markdown());
    for left_out in &results.left_out {
        println!("not run: {left_out}");
    }
    if let Some((name, figure)) = figure {
        // Where not all take part there may be nothing to compare.
        match figure(&results) {
            Some(figure) => println!("{name}, median of the rounds: {figure:.3}"),
            None => println!("{name}: not all of them were run"),
        }
    }
    Ok(())
}

fn partner(role: &str, directory: &Path, count: u64, core: &str) -> Result<()> {
    if core != "any" {
        placement::pin(core.parse().context("a core")?)?;
    }
    match role {
        "observers" => observers::observe(directory, count),
        "idle" => publish_cost::idle(directory),
        "draining" => publish_cost::draining::drain(directory, count),
        "guarded-idle" => publish_cost::guarded::idle(directory),
        "publish-idle" => publish::idle(directory),
        "echo" => round_trip::echo(directory, count),
        "publish-exclusive" | "publish-shared" | "publish-mutex" => {
            contention::partner(role, directory, count)
        }
        "recovery-publisher" | "recovery-claimant" | "recovery-standby" => {
            recovery::partner(role, directory)
        }
        "locks" => locks::partner(directory, count),
        "ping-pong" => probe::partner(directory, count),
        other => bail!("there is no partner {other}"),
    }
}
