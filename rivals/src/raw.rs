//! Raw data in the harness's form, for what is measured here, so that its report makes the tables.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One run: nothing was probed, since no message goes from one core to another or the time is much longer than that takes.
pub(crate) fn record(
    round: usize,
    transport: &str,
    variant: &str,
    receivers: usize,
    values: Value,
) -> Value {
    json!({
        "round": round,
        "case": {
            "variant": variant,
            "payload": 48,
            "receivers": receivers,
            "wait": "spin",
            "transport": transport,
        },
        "probe_ns": [0.0, 0.0],
        "class": "alone",
        "oversubscribed": false,
        "values": values,
    })
}

/// Writes all runs of a measurement.
pub(crate) fn write(
    path: &Path,
    measurement: &str,
    rounds: usize,
    left_out: &[String],
    records: &[Value],
) -> Result<()> {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |name| name.trim_matches([' ', '\t', ':']));
    let hypervisor = if cpu_info.contains(" hypervisor") { ", virtual" } else { "" };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism()?.get();
    let results = json!({
        "measurement": measurement,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": {
            "cpu": format!("{model}{hypervisor}"),
            "cores": cores,
            "kernel": format!("Linux {}", kernel.trim()),
            "placement": "on no core in particular",
        },
        "effort": format!("{rounds} rounds"),
        "left_out": left_out,
        "records": records,
    });
    // A line for each run, so that two results can be compared by eye.
    let text = results.to_string().replace("{\"case\"", "\n{\"case\"") + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
