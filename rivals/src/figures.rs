//! Figures from the harness's throughput, of steady rates: how many times as many messages of 48 bytes a second go through shmbus, reliable and polling, as through others that lose nothing.

use std::collections::BTreeMap;
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

/// Rate of `ours` / rate of the best of `names`: the least of the medians over the rounds of raw data, in which both were run with the cores as far apart as
/// the probe says. Prints them, for each such class also.
pub(crate) fn factor(json: &Path, ours: &str, names: &[&str]) -> Result<f64> {
    let text = std::fs::read_to_string(json).with_context(|| format!("{}", json.display()))?;
    let results: Value = serde_json::from_str(&text)?;
    let records = results["records"].as_array().context("no records")?;
    let mut least = f64::INFINITY;
    for name in names {
        let classes = factors(records, ours, name);
        let mut all: Vec<f64> = classes.values().flatten().copied().collect();
        ensure!(!all.is_empty(), "{ours} and {name} were not run in the same round and class");
        let by_class = classes.into_iter().map(|(class, mut factors)| {
            format!("{class} {:.2} of {}", median(&mut factors), factors.len())
        });
        let by_class: Vec<String> = by_class.collect();
        let factor = median(&mut all);
        println!("{ours} / {name}, median of the rounds: {factor:.2} ({})", by_class.join(", "));
        least = least.min(factor);
    }
    Ok(least)
}

/// (rate of `ours` / rate of `name`) of each round, both polling, by class.
fn factors(records: &[Value], ours: &str, name: &str) -> BTreeMap<String, Vec<f64>> {
    let of = |name: &str, record: &Value| {
        record["case"]["transport"] == *name && record["case"]["wait"] == "spin"
    };
    let rate = |record: &Value| record["values"]["steady_per_s"].as_f64();
    let mut classes: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for theirs in records.iter().filter(|record| of(name, record)) {
        let is_same = |record: &&Value| {
            of(ours, record)
                && record["round"] == theirs["round"]
                && record["class"] == theirs["class"]
        };
        let ours = records.iter().find(is_same).and_then(rate);
        if let (Some(ours), Some(theirs_rate), Some(class)) =
            (ours, rate(theirs), theirs["class"].as_str())
            && class != "moved"
        {
            classes.entry(class.to_owned()).or_default().push(ours / theirs_rate);
        }
    }
    classes
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
    fn the_figure_is_that_of_the_fastest_without_blocking_runs_and_those_of_another_class() {
        let record = |round: usize, name: &str, wait: &str, rate: f64| {
            serde_json::json!({
                "round": round,
                "class": if round == 3 && name == "a" { "near" } else { "far" },
                "case": {"transport": name, "wait": wait},
                "values": {"steady_per_s": rate},
            })
        };
        let mut records = vec![record(0, "a", "block", 4.0)];
        for (round, rate) in [0.25, 0.5, 0.1, 100.0].into_iter().enumerate() {
            records.push(record(round, "ours", "spin", 1.0));
            records.push(record(round, "a", "spin", rate));
            records.push(record(round, "b", "spin", rate / 2.0));
        }
        let path = std::env::temp_dir().join(format!("shmbus-rivals-{}", std::process::id()));
        std::fs::write(&path, serde_json::json!({ "records": records }).to_string()).unwrap();
        assert_eq!(factor(&path, "ours", &["a", "b"]).unwrap(), 4.0);
        assert_eq!(factor(&path, "ours", &["a"]).unwrap(), 4.0);
        assert_eq!(factor(&path, "b", &["a"]).unwrap(), 0.5);
        assert!(factor(&path, "ours", &["c"]).unwrap_err().to_string().contains("not run"));
        std::fs::remove_file(path).unwrap();
    }
}
