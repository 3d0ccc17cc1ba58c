//! `shmbus-rivals`: other crates for messages between processes, in the harness of shmbus-bench, by the same rules.
//!
//! `bench MEASUREMENT` has all of that harness's measurements. The last word on standard output of the others is the figure.

mod figures;
mod partner;
mod publish;
mod raw;
mod recovery;
mod transports;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(version, about = "Measures shmbus beside other crates")]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// A measurement of the harness, with these transports
    Bench(shmbus_bench::Arguments),
    /// Messages a second, nothing lost. Figure: shmbus / iceoryx2
    Iceoryx2(Rates),
    /// Messages a second, nothing lost, received one by one. Figure: shmbus / the best of the others but iceoryx2
    Others(Rates),
    /// The same, where receivers take up to 32 at once
    Batches(Rates),
    /// Cost of a publish with 1 to 32 idle subscribers. Figure: iceoryx2 / shmbus, with 32
    Publish(Own),
    /// Time without messages after a subscriber is killed for which the publisher waits. Figure: that of shmbus in ms
    Recovery(Own),
    /// (the other process of a measurement)
    #[command(hide = true)]
    Partner { role: String, transport: String, directory: PathBuf },
}

#[derive(Args)]
struct Rates {
    /// The figure from raw data that is there, instead of a measurement
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Options of `bench throughput`
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Args)]
struct Own {
    /// Each measures everything once
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where the raw data goes, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    shmbus_bench::started_as("/proc/self/exe", &["bench"]);
    match run(Program::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shmbus-rivals: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Bench(arguments) => shmbus_bench::run_with(transports::ALL, &arguments),
        Verb::Iceoryx2(rates) => rate("shmbus", "iceoryx2", &["iceoryx2"], rates),
        Verb::Others(rates) => rate("shmbus", "the best of the others", &figures::OTHERS, rates),
        Verb::Batches(rates) => {
            rate("shmbus batch", "the best of the others in batches", &figures::BATCHES, rates)
        }
        Verb::Publish(Own { rounds, json }) => publish::run(rounds, json.as_deref()),
        Verb::Recovery(Own { rounds, json }) => recovery::run(rounds, json.as_deref()),
        Verb::Partner { role, transport, directory } => match &*role {
            "idle" => publish::idle(&directory),
            _ => recovery::partner(&role, &transport, &directory),
        },
    }
}

fn rate(ours: &str, what: &str, names: &[&str], rates: Rates) -> Result<()> {
    let scratch = partner::Scratch::new()?;
    let json = match rates.from {
        Some(from) => from,
        None => {
            let json = scratch.path().join("throughput.json");
            let words = figures::throughput(names, &json, &rates.rest);
            run(Program::try_parse_from(words)?.verb)?;
            json
        }
    };
    println!("{ours} / {what}: {:.2}", figures::factor(&json, ours, names)?);
    Ok(())
}
