//! `shmbus bench`: the measurements of `shmbus-bench`, from this program.

use anyhow::Result;

const EXAMPLES: &str = "\
Examples:
  shmbus bench latency
  shmbus bench throughput --transports shmbus,pipe,'unix stream'
  shmbus bench wake --quick
  shmbus bench payload --json payload.json

Each process of a measurement is pinned to a core; the output says where. Only ratios within one table mean anything on a machine
that others use too.";

/// Measure shmbus beside pipes, sockets, queues and the limits of the machine
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    arguments: shmbus_bench::Arguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    shmbus_bench::started_as("/proc/self/exe", &["bench"]);
    shmbus_bench::run(&arguments.arguments)
}
