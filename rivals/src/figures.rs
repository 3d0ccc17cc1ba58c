//! Figures from the harness's throughput: how many times as many messages of 48 bytes a second go through shmbus, reliable and polling, as through others that lose nothing.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Those that lose nothing, without iceoryx2.
pub(crate) const OTHERS: [&str; 4] = ["ringfire", "shaq spsc", "shaq broadcast", "ipc-channel"];

/// The arguments of a throughput run of shmbus and these.
pub(crate) fn throughput(names: &[&str], json: &Path, rest: &[String]) -> Vec<String> {
    let transports = [&["shmbus"], names].concat().join(",");
    let words = ["shmbus-rivals", "bench", "throughput", "--transports", &transports, "--json"];
    let words = words.into_iter().map(str::to_owned).chain([json.display().to_string()]);
    words.chain(rest.iter().cloned()).collect()
}

/// Rate of shmbus / rate of the best of `names`: the least of the medians over the rounds of raw data.
pub(crate) fn factor(json: &Path, names: &[&str]) -> Result<f64> {
    let text = std::fs::read_to_string(json).with_context(|| format!("{}", json.display()))?;
    let results: Value = serde_json::from_str(&text)?;
    let mut least = f64::INFINITY;
    for name in names {
        let factor = 1.0 / median_share(&results, name)?;
        println!("shmbus / {name}, median of the rounds: {factor:.2}");
        least = least.min(factor);
    }
    Ok(least)
}

/// The median over the rounds of (rate of `name` / rate of shmbus), polling.
fn median_share(results: &Value, name: &str) -> Result<f64> {
    let records = results["records"].as_array().context("no records")?;
    let is_it =
        |record: &&Value| record["case"]["transport"] == *name && record["case"]["wait"] == "spin";
    let shares = records.iter().filter(is_it).map(|record| record["values"]["per_shmbus"].as_f64());
    let shares: Option<Vec<f64>> = shares.collect();
    let mut shares = shares.with_context(|| format!("{name}: a round without a rate"))?;
    ensure!(!shares.is_empty(), "{name} was not run");
    Ok(median(&mut shares))
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
        let record = |name: &str, wait: &str, share: f64| {
            serde_json::json!({
                "case": {"transport": name, "wait": wait},
                "values": {"per_shmbus": share},
            })
        };
        let mut records = vec![record("a", "block", 4.0)];
        for share in [0.25, 0.5, 0.1] {
            records.push(record("a", "spin", share));
            records.push(record("b", "spin", share / 2.0));
        }
        let path = std::env::temp_dir().join(format!("shmbus-rivals-{}", std::process::id()));
        std::fs::write(&path, serde_json::json!({ "records": records }).to_string()).unwrap();
        assert_eq!(factor(&path, &["a", "b"]).unwrap(), 4.0);
        assert_eq!(factor(&path, &["b"]).unwrap(), 8.0);
        assert!(factor(&path, &["c"]).unwrap_err().to_string().contains("c was not run"));
        std::fs::remove_file(path).unwrap();
    }
}
