//! The report for programs: `--json`. Times are nanoseconds, fields are only ever added.

use super::fanout::FanOut;
use super::latency::Summary;
use super::ledger::Counts;
use super::machine::Machine;
use super::receiver::ReceiverReport;
use super::recovery::{Kill, Recovery};
use super::report::Report;
use super::schedule::Wait;
use super::transport::{Role, Transport};
use anyhow::Result;
use serde::Serialize;

#[derive(Serialize)]
struct ReportResult<'a> {
    version: &'static str,
    /// Every reliable subscriber got everything, nobody got anything wrong.
    sound: bool,
    machine: &'a Machine,
    setting: SettingResult,
    transports: Vec<FanOutResult<'a>>,
    recovery: Option<RecoveryResult<'a>>,
}

#[derive(Serialize)]
struct SettingResult {
    rate_per_s: u64,
    payload_bytes: usize,
    seconds: f64,
    subscribers: u32,
    wait: Wait,
    processes: usize,
    spinning: usize,
    oversubscribed: bool,
    topic_depth: u64,
    topic_bytes: u64,
}

#[derive(Serialize)]
struct FanOutResult<'a> {
    transport: Transport,
    /// In the schedule.
    due: u64,
    sent: u64,
    /// By the reliable subscriber.
    received: u64,
    rate_per_s: f64,
    /// From due to checked, of all subscribers but the slow one.
    latency_ns: Option<Summary>,
    /// From due to the feed's getting to it.
    feed_late_ns: Option<Summary>,
    missed_lossy: u64,
    missed_slow: u64,
    cpu_ns_feed: u64,
    cpu_ns_subscribers: u64,
    subscribers: Vec<ReceiverResult<'a>>,
}

#[derive(Serialize)]
struct RecoveryResult<'a> {
    kills: &'a [Kill],
    /// By all feeds together, as the topic counts.
    published: u64,
    subscribers: Vec<ReceiverResult<'a>>,
}

#[derive(Serialize)]
struct ReceiverResult<'a> {
    role: Role,
    #[serde(flatten)]
    counts: &'a Counts,
    latency_ns: Option<Summary>,
    cpu_ns: u64,
}

impl Report {
    /// The report as JSON, with a line feed at its end.
    pub(super) fn json(&self) -> Result<String> {
        let setting = &self.setting;
        let result = ReportResult {
            version: env!("CARGO_PKG_VERSION"),
            sound: self.is_sound(),
            machine: &setting.machine,
            setting: SettingResult {
                rate_per_s: setting.flow.rate,
                payload_bytes: setting.flow.payload,
                seconds: setting.seconds,
                subscribers: setting.subscribers,
                wait: setting.flow.wait,
                processes: setting.processes,
                spinning: setting.spinning,
                oversubscribed: setting.processes > setting.machine.cores,
                topic_depth: setting.depth,
                topic_bytes: setting.topic_bytes,
            },
            transports: self.fan_outs.iter().map(of_fan_out).collect(),
            recovery: self.recovery.as_ref().map(of_recovery),
        };
        Ok(serde_json::to_string_pretty(&result)? + "\n")
    }
}

fn of_fan_out(fan_out: &FanOut) -> FanOutResult<'_> {
    FanOutResult {
        transport: fan_out.transport,
        due: fan_out.due,
        sent: fan_out.feed.sent,
        received: fan_out.received(),
        rate_per_s: fan_out.rate_per_s(),
        latency_ns: fan_out.latency(),
        feed_late_ns: fan_out.feed.late.summary(),
        missed_lossy: fan_out.missed_by(Role::Lossy),
        missed_slow: fan_out.missed_by(Role::Slow),
        cpu_ns_feed: fan_out.feed.cpu_ns,
        cpu_ns_subscribers: fan_out.cpu_ns_subscribers(),
        subscribers: of_receivers(&fan_out.receivers),
    }
}

fn of_recovery(recovery: &Recovery) -> RecoveryResult<'_> {
    RecoveryResult {
        kills: &recovery.kills,
        published: recovery.published,
        subscribers: of_receivers(&recovery.receivers),
    }
}

fn of_receivers(receivers: &[(Role, ReceiverReport)]) -> Vec<ReceiverResult<'_>> {
    let results = receivers.iter().map(|(role, report)| ReceiverResult {
        role: *role,
        counts: &report.counts,
        latency_ns: report.latency.summary(),
        cpu_ns: report.cpu_ns,
    });
    results.collect()
}
