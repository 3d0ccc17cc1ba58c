//! `shmbus-bench`: what shmbus costs, beside the limits of the machine, in one run.
//!
//! Every figure is a ratio of two things measured alternately, because on a shared machine nothing else can be compared. The last
//! word on standard output is the figure; `docs/claims.toml` says what it may be.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(version, about = "Measures shmbus against the limits of the machine")]
struct Program {
    #[command(flatten)]
    arguments: shmbus_bench::Arguments,
}

fn main() -> ExitCode {
    match shmbus_bench::run(&Program::parse().arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shmbus-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
