//! `shmbus bench`: the measurements of `shmbus-bench`, from this program.

use anyhow::Result;

pub(crate) const EXAMPLES: &str = "\
Examples:
  shmbus bench latency
  shmbus bench throughput --transports shmbus,pipe,'unix stream'
  shmbus bench wake --quick
  shmbus bench payload --json payload.json

Each process of a measurement is pinned to a core; the output says where. Only ratios within one table mean anything on a machine \
that others use too.";

pub(crate) fn run(arguments: &shmbus_bench::Arguments) -> Result<()> {
    shmbus_bench::started_as("/proc/self/exe", &["bench"]);
    shmbus_bench::run(arguments)
}
