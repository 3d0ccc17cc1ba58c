//! Figures from the harness's throughput, of steady rates: how many times as many messages of 48 bytes a second go through shmbus, reliable and polling, as through others that lose nothing.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Those that lose nothing, without iceoryx2; receivers take one message at a time.
pub(crate) const OTHERS: [&str; 4] = ["ringfire", "shaq spsc", "shaq broadcast", "ipc-channel"];
/// The same where receivers take up to 32 at once.
pub(crate) const BATCHES: [&str; 3] = ["ringfire batch", "shaq spsc batch", "shaq broadcast batch"];

/// The arguments of a throughput run of shmbus and these.
pub(crate) fn throughput(names: &[&str], json: &Path, rest: &[String]) -> Vec<String> {
    let transports = [&["shmbus", "shmbus batch"], names].concat().join(",");
    let words = ["shmbus-rivals", "bench", "throughput", "--transports", &transports, "--json"];
    let words = words.into_iter().map(str::to_owned).chain([json.display().to_string()]);
    words.chain(rest.iter().cloned()).collect()
}

/// Rate of `ours` / rate of the best of `names`: the least of the medians over the rounds of raw data.
pub(crate) fn factor(json: &Path, ours: &str, names: &[&str]) -> Result<f64> {
    let text = std::fs::read_to_string(json).with_context(|| format!("{}", json.display()))?;
    let results: Value = serde_json::from_str(&text)?;
    let mut least = f64::INFINITY;
    for name in names {
        let factor = median_factor(&results, ours, name)?;
        println!("{ours} / {name}, median of the rounds: {factor:.2}");
        least = least.min(factor);
    }
    Ok(least)
}

/// The median over the rounds of (rate of `ours` / rate of `name`), polling.
fn median_factor(results: &Value, ours: &str, name: &str) -> Result<f64> {
    let records = results["records"].as_array().context("no records")?;
    let rate = |round: &Value, name: &str| {
        let is_it = |record: &&Value| {
            record["round"] == *round
                && record["case"]["transport"] == *name
                && record["case"]["wait"] == "spin"
        };
        records.iter().find(is_it).and_then(|record| record["values"]["steady_per_s"].as_f64())
    };
    let is_it =
        |record: &&Value| record["case"]["transport"] == *name && record["case"]["wait"] == "spin";
    let factors = records.iter().filter(is_it).map(|record| {
        let round = &record["round"];
        Some(rate(round, ours)? / rate(round, name)?)
    });
    let factors: Option<Vec<f64>> = factors.collect();
    let mut factors = factors.with_context(|| format!("{ours}, {name}: a round without a rate"))?;
    ensure!(!factors.is_empty(), "{name} was not run");
    Ok(median(&mut factors))
}

/// The middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_that_of_the_fastest_and_leaves_blocking_runs_out() {
        let record = |round: usize, name: &str, wait: &str, rate: f64| {
            serde_json::json!({
                "round": round,
                "case": {"transport": name, "wait": wait},
                "values": {"steady_per_s": rate},
            })
        };
        let mut records = vec![record(0, "a", "block", 4.0)];
        for (round, rate) in [0.25, 0.5, 0.1].into_iter().enumerate() {
            records.push(record(round, "ours", "spin", 1.0));
            records.push(record(round, "a", "spin", rate));
            records.push(record(round, "b", "spin", rate / 2.0));
        }
        let path = std::env::temp_dir().join(format!("shmbus-rivals-{}", std::process::id()));
        std::fs::write(&path, serde_json::json!({ "records": records }).to_string()).unwrap();
        assert_eq!(factor(&path, "ours", &["a", "b"]).unwrap(), 4.0);
        assert_eq!(factor(&path, "ours", &["b"]).unwrap(), 8.0);
        assert!(factor(&path, "ours", &["c"]).unwrap_err().to_string().contains("not run"));
        std::fs::remove_file(path).unwrap();
    }
}
