//! `shmbus-rivals`: other crates for messages between processes, in the harness of shmbus-bench, by the same rules.
//!
//! `bench MEASUREMENT` has all of that harness's measurements. The last word on standard output of the others is the figure.

mod transports;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

fn main() -> ExitCode {
    shmbus_bench::started_as("/proc/self/exe", &["bench"]);
    let done = match Program::parse().verb {
        Verb::Bench(arguments) => shmbus_bench::run_with(transports::ALL, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shmbus-rivals: {error:#}");
            ExitCode::FAILURE
        }
    }
}
