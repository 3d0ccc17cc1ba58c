//! Which plot belongs to which measurement.

use std::collections::BTreeSet;

use super::svg::{Plot, Scale, Series};
use crate::measure::{latency, payload};
use crate::record::{Case, Results};
use crate::table::bytes;
use crate::transport::Wait;

/// The plot of a measurement, if it has one: the name of its file, and its text.
pub(super) fn of(results: &Results) -> Option<(&'static str, String)> {
    let note = format!("{}; {}", results.machine.name(), results.effort);
    match results.measurement.as_str() {
        "latency" => Some(("latency.svg", latencies(results, &note))),
        "payload" => Some(("payload.svg", payloads(results, &note))),
        "publish" => Some(("publish.svg", publish(results, &note))),
        "wake" => Some(("wake.svg", wake(results, &note))),
        _ => None,
    }
}

/// What differs between the cases of a measurement, each once, in order.
fn each<T: Ord>(results: &Results, key: impl Fn(&Case) -> Option<T>) -> Vec<T> {
    let keys: BTreeSet<T> = results.records.iter().filter_map(|record| key(&record.case)).collect();
    keys.into_iter().collect()
}

/// Round trips, polling: time by share of the messages.
fn latencies(results: &Results, note: &str) -> String {
    let is_wanted = |case: &Case| case.wait == Wait::Spin && case.variant == latency::ROUND_TRIP;
    let shares = [("p50", "p50_ns"), ("p90", "p90_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns")];
    let names = each(results, |case| is_wanted(case).then(|| case.transport.clone()));
    let series = names.into_iter().map(|name| {
        let value = |(index, (_, value)): (usize, &(&str, &str))| {
            let is_it = |case: &Case| is_wanted(case) && case.transport == name;
            Some((index as f64 + 1.0, results.median(is_it, value)? / 1e3))
        };
        let points = shares.iter().enumerate().filter_map(value).collect();
        Series { name, points }
    });
    let ticks = shares.iter().enumerate();
    Plot {
        title: "Round trip of 48 bytes between two processes that poll",
        note,
        x_title: "share of the messages that need at most this",
        y_title: "microseconds",
        ticks: ticks.map(|(index, (name, _))| (index as f64 + 1.0, (*name).to_owned())).collect(),
        x_scale: Scale::Logarithmic,
        y_scale: Scale::Logarithmic,
        series: series.collect(),
    }
    .lines()
}

/// Bytes a second by length, polling.
fn payloads(results: &Results, note: &str) -> String {
    let lengths = each(results, |case| Some(case.payload));
    let keys = each(results, |case| Some((case.transport.clone(), case.variant.clone())));
    let series = keys.into_iter().map(|(transport, variant)| {
        let rate = |payload: &usize| {
            let is_it = |case: &Case| {
                case.transport == transport && case.variant == variant && case.payload == *payload
            };
            Some((*payload as f64, results.median(is_it, "bytes_per_s")? / 1e6))
        };
        let points = lengths.iter().filter_map(rate).collect();
        let name = match variant.as_str() {
            payload::IN_PLACE | payload::COPIED => format!("{transport}, {variant}"),
            _ => transport.clone(),
        };
        Series { name, points }
    });
    Plot {
        title: "Every byte made, sent, read: one sender, one receiver, both poll",
        note,
        x_title: "length of the message",
        y_title: "MB a second",
        ticks: lengths.iter().map(|&len| (len as f64, bytes(len))).collect(),
        x_scale: Scale::Logarithmic,
        y_scale: Scale::Logarithmic,
        series: series.collect(),
    }
    .lines()
}

/// Cost of a publish by number of subscribers.
fn publish(results: &Results, note: &str) -> String {
    let counts = each(results, |case| Some(case.receivers));
    let cost = |count: &usize| {
        let time_ns = results.median(|case| case.receivers == *count, "publish_ns")?;
        Some((*count as f64, time_ns))
    };
    let points = counts.iter().filter_map(cost).collect();
    Plot {
        title: "What a publish of 48 bytes costs, by subscribers attached",
        note,
        x_title: "idle lossy subscribers",
        y_title: "nanoseconds",
        ticks: counts.iter().map(|&count| (count as f64, count.to_string())).collect(),
        x_scale: Scale::Logarithmic,
        y_scale: Scale::Linear,
        series: vec![Series { name: "shmbus, exclusive".to_owned(), points }],
    }
    .lines()
}

/// A bar for each way of waking: median, with a line at p90.
fn wake(results: &Results, note: &str) -> String {
    let names = each(results, |case| Some(case.transport.clone()));
    let series = names.into_iter().map(|name| {
        let value = |value: &&str| {
            let time_ns = results.median(|case| case.transport == name, value)?;
            Some((1.0, time_ns / 1e3))
        };
        let points = ["p50_ns", "p90_ns"].iter().filter_map(value).collect();
        Series { name, points }
    });
    Plot {
        title: "Waking a receiver that sleeps: median, and a line at 90 %",
        note,
        x_title: "a message of 48 bytes every 200 µs",
        y_title: "microseconds",
        ticks: Vec::new(),
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        series: series.collect(),
    }
    .bars()
}
