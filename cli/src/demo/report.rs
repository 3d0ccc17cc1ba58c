//! What is told before and after, for people: a table with one row per transport, what to keep in mind when reading it,
//! what the kills did, and a verdict. The same for programs is in `result`.

use super::fanout::{FanOut, total};
use super::latency::Summary;
use super::ledger::Counts;
use super::machine::Machine;
use super::recovery::Recovery;
use super::schedule::Wait;
use super::text::{Table, counted, grouped, listed, micros, millis, seconds};
use super::transport::{Flow, Role, Transport};
use std::fmt::Write;

/// What was asked for, and what follows from it.
pub(super) struct Setting {
    pub(super) flow: Flow,
    /// Quotes in the schedule of each transport.
    pub(super) due: u64,
    pub(super) subscribers: u32,
    pub(super) seconds: f64,
    pub(super) machine: Machine,
    /// The feed and its subscribers.
    pub(super) processes: usize,
    /// How many of them spin while there is nothing to do.
    pub(super) spinning: usize,
    /// Of the topic.
    pub(super) depth: u64,
    pub(super) topic_bytes: u64,
}

impl Setting {
    fn count_of(&self, role: Role) -> usize {
        let roles = (0..self.subscribers).map(|index| Role::of(index, self.subscribers));
        roles.filter(|other| *other == role).count()
    }
}

/// Everything that was measured.
pub(super) struct Report {
    pub(super) setting: Setting,
    pub(super) fan_outs: Vec<FanOut>,
    pub(super) recovery: Option<Recovery>,
}

/// What is said before anything runs.
pub(super) fn opening(setting: &Setting) -> String {
    let Setting { flow, subscribers, seconds, machine, processes, spinning, .. } = setting;
    let roles = [
        (Role::Reliable, "reliable (the feed waits for it)"),
        (Role::Lossy, "lossy"),
        (Role::Slow, "slow (and lossy)"),
    ];
    let roles = roles.map(|(role, what)| (setting.count_of(role), what));
    let roles = roles.iter().filter(|(count, _)| *count > 0);
    let roles: Vec<String> = roles.map(|(count, what)| format!("{count} {what}")).collect();
    let waiting = match flow.wait {
        Wait::Block => "who has nothing to do sleeps",
        Wait::Spin if *spinning > machine.cores => {
            "all of them spin: OVERSUBSCRIBED, they take turns"
        }
        Wait::Spin => "all of them spin",
    };
    format!(
        "One feed sends {} quotes/s of {} bytes to {}, {seconds} s per transport.\n\
         Subscribers: {}.\n\
         {} on {}; {waiting}.\n\
         Machine: {}.\n\n",
        grouped(flow.rate),
        grouped(flow.payload as u64),
        counted(u64::from(*subscribers), "subscriber", "subscribers"),
        roles.join(", "),
        counted(*processes as u64, "process", "processes"),
        counted(machine.cores as u64, "core", "cores"),
        machine.name(),
    )
}

impl Report {
    /// Whether everything arrived that had to, and nothing wrong.
    pub(super) fn is_sound(&self) -> bool {
        self.fan_outs.iter().all(FanOut::is_sound)
            && self.recovery.as_ref().is_none_or(Recovery::is_sound)
    }

    pub(super) fn text(&self, colour: bool) -> String {
        let (bold, dim, end) =
            if colour { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{}\n", self.fan_out_table().render((bold, end)));
        for note in self.notes() {
            let _ = writeln!(text, "{dim}{note}{end}");
        }
        if let Some(recovery) = &self.recovery {
            let title = "The feed killed (SIGKILL) while it writes a quote, and a new one started:";
            let table = kill_table(recovery).render((bold, end));
            let _ = write!(text, "\n{bold}{title}{end}\n\n{table}\n{}", recovery_words(recovery));
        }
        let _ = writeln!(text, "\n{bold}{}{end}", self.verdict());
        text
    }

    fn fan_out_table(&self) -> Table {
        let headings = [
            "", "received", "per s", "p50", "p99", "p99.9", "max", "lossy", "slow", "feed", "subs",
        ];
        let groups =
            [("", 1), ("quotes", 2), ("latency, µs", 4), ("missed by", 2), ("CPU time, s", 2)];
        Table {
            groups: groups.to_vec(),
            headings: headings.map(str::to_owned).to_vec(),
            rows: self.fan_outs.iter().map(|fan_out| self.row(fan_out)).collect(),
        }
    }

    fn row(&self, fan_out: &FanOut) -> Vec<String> {
        let latency = fan_out.latency();
        let latency = |part: fn(&Summary) -> u64| {
            latency.as_ref().map_or("-".to_owned(), |latency| micros(part(latency)))
        };
        let missed = |role| match self.setting.count_of(role) {
            0 => "-".to_owned(),
            _ => grouped(fan_out.missed_by(role)),
        };
        vec![
            fan_out.transport.to_string(),
            grouped(fan_out.received()),
            grouped(fan_out.rate_per_s().round() as u64),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            latency(|latency| latency.p999),
            latency(|latency| latency.max),
            missed(Role::Lossy),
            missed(Role::Slow),
            seconds(fan_out.feed.cpu_ns),
            seconds(fan_out.cpu_ns_subscribers()),
        ]
    }

    /// What one must know to read the table. Lines of 80 characters, as far as the figures allow.
    fn notes(&self) -> Vec<String> {
        let setting = &self.setting;
        let has_slow = setting.count_of(Role::Slow) > 0;
        let mut notes = vec![
            "Latency: from when a quote was due to when a subscriber had checked it; reliable"
                .into(),
            if has_slow {
                "and lossy ones together, but not the slow one, which manages half the rate.".into()
            } else {
                "and lossy ones together.".into()
            },
        ];
        let late = self.each(|fan_out| fan_out.feed.late.summary().map(|late| micros(late.p50)));
        notes.push(format!("The feed's own lateness in it, p50 µs: {late}."));
        if has_slow {
            let age = self.each(|fan_out| fan_out.age_of_slow().map(|age| millis(age.p50)));
            notes.push(format!("Age of what the slow one got, p50 ms: {age}."));
        }
        notes.push(format!(
            "The feed writes once into the topic, which keeps {} quotes ({:.1} MiB), and once",
            grouped(setting.depth),
            setting.topic_bytes as f64 / f64::from(1 << 20),
        ));
        notes.push(
            "per subscriber into sockets and pipes, whose buffers are the kernel's default.".into(),
        );
        if setting.processes > setting.machine.cores {
            notes.push(format!(
                "{} took turns on {}: upper percentiles include waiting for a core.",
                counted(setting.processes as u64, "process", "processes"),
                counted(setting.machine.cores as u64, "core", "cores"),
            ));
        }
        for fan_out in self.fan_outs.iter().filter(|fan_out| fan_out.feed.sent < fan_out.due) {
            notes.push(format!(
                "{}: the feed could NOT keep up: {} of {} quotes sent, in twice the time.",
                fan_out.transport,
                grouped(fan_out.feed.sent),
                grouped(fan_out.due),
            ));
        }
        notes
    }

    /// One figure of each transport, in a line.
    fn each(&self, figure: impl Fn(&FanOut) -> Option<String>) -> String {
        let figures = self.fan_outs.iter().map(|fan_out| {
            format!("{} {}", fan_out.transport, figure(fan_out).unwrap_or("-".to_owned()))
        });
        figures.collect::<Vec<_>>().join(", ")
    }

    fn verdict(&self) -> String {
        let mut counts = Counts::default();
        self.fan_outs.iter().for_each(|fan_out| counts.add(&fan_out.counts()));
        if let Some(recovery) = &self.recovery {
            counts.add(&total(&recovery.receivers));
        }
        if self.is_sound() {
            let checked = grouped(counts.received);
            return format!("{checked} quotes checked: none torn, repeated or out of order.");
        }
        let incomplete = self.fan_outs.iter().filter(|fan_out| !fan_out.is_complete());
        let incomplete: Vec<Transport> = incomplete.map(|fan_out| fan_out.transport).collect();
        format!(
            "NOT SOUND: {} torn, {} repeated, {} out of order, {} miscounted; not everything reached \
             the reliable subscriber over: {}.",
            counts.torn,
            counts.repeated,
            counts.out_of_order,
            counts.miscounted,
            if incomplete.is_empty() { "none".to_owned() } else { listed(&incomplete) },
        )
    }
}

fn kill_table(recovery: &Recovery) -> Table {
    let roles = recovery.receivers.iter().map(|(role, _)| *role);
    let mut headings = ["", "old gone", "new ready", "first quote"].map(str::to_owned).to_vec();
    headings.extend(roles.map(|role| role.to_string()));
    headings.push("published".to_owned());
    let rows = recovery.kills.iter().enumerate().map(|(at, kill)| {
        let mut row = vec![format!("kill {}", at + 1)];
        row.extend([kill.gone_ns, kill.took_over_ns, kill.first_quote_ns].map(millis));
        row.extend(kill.gaps_ns.iter().map(|&gap_ns| millis(gap_ns)));
        row.push(grouped(kill.never_published));
        row
    });
    Table {
        groups: vec![
            ("", 1),
            ("ms after the kill", 3),
            ("ms without quotes", recovery.receivers.len()),
            ("never", 1),
        ],
        headings,
        rows: rows.collect(),
    }
}

/// A subscriber that went without for less than it takes to start a process had a backlog.
const BUSY_NS: u64 = 50_000;

fn recovery_words(recovery: &Recovery) -> String {
    let feeds = recovery.kills.len() as u64 + 1;
    let mut text = format!(
        "{} published {}; ",
        counted(feeds, "feed", "feeds"),
        counted(recovery.published, "quote", "quotes"),
    );
    text.push_str(if recovery.is_sound() {
        "the reliable subscriber got each once and in order.\n"
    } else {
        "what the subscribers got is NOT what was published.\n"
    });
    let busy = |gap_ns: &u64| *gap_ns < BUSY_NS;
    if recovery.kills.iter().any(|kill| kill.gaps_ns.iter().any(busy)) {
        text.push_str(
            "Next to 0: that subscriber was still working off what the old feed had published.\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::feed::FeedReport;
    use super::super::latency::Latency;
    use super::super::receiver::ReceiverReport;
    use super::*;

    fn receiver(counts: Counts) -> ReceiverReport {
        let mut latency = Latency::new().expect("constant bounds");
        latency.record(0, 12_300);
        ReceiverReport {
            counts,
            latency,
            first_due_ns: 0,
            last_ns: 999_000_000,
            cpu_ns: 70_000_000,
        }
    }

    /// 1000 quotes over unix sockets, of which the lossy one missed 10.
    fn report(reliable: Counts) -> Report {
        let flow = Flow {
            payload: 48,
            rate: 1_000,
            wait: Wait::Block,
            yields: false,
            length_ns: 1_000_000_000,
        };
        let lossy = Counts { received: 990, missed: 10, ..Counts::default() };
        let late = Latency::new().expect("constant bounds");
        let fan_out = FanOut {
            transport: Transport::Unix,
            due: 1_000,
            feed: FeedReport { sent: 1_000, late, cpu_ns: 250_000_000 },
            receivers: vec![(Role::Reliable, receiver(reliable)), (Role::Lossy, receiver(lossy))],
        };
        let setting = Setting {
            flow,
            due: 1_000,
            subscribers: 2,
            seconds: 1.0,
            machine: Machine { cores: 2, cpu: None, kernel: None },
            processes: 3,
            spinning: 0,
            depth: 16,
            topic_bytes: 1 << 20,
        };
        Report { setting, fan_outs: vec![fan_out], recovery: None }
    }

    const ALL: Counts =
        Counts { received: 1_000, missed: 0, torn: 0, repeated: 0, out_of_order: 0, miscounted: 0 };

    #[test]
    fn the_table_says_what_was_measured() {
        let report = report(ALL);
        assert!(report.is_sound());
        let text = report.text(false);
        let row = text.lines().find(|line| line.starts_with("unix")).expect("a row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        let latency = ["12.3"; 4];
        let expected = [&["unix", "1,000", "1,000"], &latency[..], &["10", "-", "0.25", "0.14"]];
        assert_eq!(cells, expected.concat());
        assert!(text.contains("1,990 quotes checked: none torn"), "{text}");
        assert!(text.contains("3 processes took turns on 2 cores"), "{text}");
    }

    #[test]
    fn whatever_went_wrong_makes_the_report_unsound_and_is_said() {
        for (wrong, said) in [
            (Counts { received: 999, missed: 1, ..ALL }, "over: unix"),
            (Counts { torn: 1, ..ALL }, "1 torn"),
            (Counts { repeated: 2, ..ALL }, "2 repeated"),
            (Counts { out_of_order: 3, ..ALL }, "3 out of order"),
            (Counts { miscounted: 4, ..ALL }, "4 miscounted"),
        ] {
            let report = report(wrong);
            assert!(!report.is_sound(), "{wrong:?}");
            let text = report.text(false);
            assert!(text.contains("NOT SOUND") && text.contains(said), "{text}");
        }
    }

    #[test]
    fn a_feed_that_did_not_keep_up_is_named() {
        let mut report = report(Counts { received: 400, ..ALL });
        report.fan_outs[0].feed.sent = 400;
        let text = report.text(false);
        assert!(text.contains("unix: the feed could NOT keep up: 400 of 1,000"), "{text}");
        assert!(report.is_sound(), "slow is not wrong");
    }

    #[test]
    fn spinning_on_too_few_cores_is_said_before_anything_runs() {
        let mut setting = report(ALL).setting;
        setting.flow.wait = Wait::Spin;
        setting.spinning = 3;
        assert!(opening(&setting).contains("OVERSUBSCRIBED"));
        setting.machine.cores = 3;
        assert!(!opening(&setting).contains("OVERSUBSCRIBED"));
    }
}
