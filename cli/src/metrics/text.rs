//! A scrape as OpenMetrics text.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use shmbus::{ParticipantInfo, ParticipantKind, TopicInfo};

use super::Scrape;

impl Scrape {
    /// # Errors
    /// None is known of: writing to a string does not fail.
    pub(super) fn text(self) -> anyhow::Result<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut output = String::new();
        text::encode(&mut output, &registry)?;
        Ok(output)
    }
}

/// A number that only grows, or one of the moment.
enum Number {
    Total(u64),
    Now(u64),
    /// It cannot be told: no line.
    Unknown,
}
use Number::{Now, Total, Unknown};

/// One family: its name without the ending that its type and unit give it, what it is, and what it says of one topic or participant.
struct Family<T> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    number: fn(&T) -> Number,
}

const fn family<T>(
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    number: fn(&T) -> Number,
) -> Family<T> {
    Family { name, help, unit, number }
}

const TOPIC: [Family<TopicInfo>; 9] = [
    family("shmbus_published", None, "Messages published", |info| Total(info.head)),
    family("shmbus_head", None, "Sequence of the next message", |info| Now(info.head)),
    family("shmbus_memory", Some(Unit::Bytes), "Memory of the topic", |info| {
        Now(info.memory.total())
    }),
    family("shmbus_depth", None, "Messages retained", |info| Now(info.depth)),
    family("shmbus_subscribers", None, "Living subscribers", |info| {
        crate::text::subscribers(info).map_or(Unknown, |count| Now(count as u64))
    }),
    family("shmbus_subscribers_max", None, "Subscribers that there may be", |info| {
        Now(info.subscribers_max.into())
    }),
    family("shmbus_publishers", None, "Living publishers", |info| {
        crate::text::publishers(info).map_or(Unknown, |count| Now(count as u64))
    }),
    family("shmbus_deaths", None, "Participants found dead", |info| Total(info.deaths)),
    family(
        "shmbus_created_timestamp",
        Some(Unit::Seconds),
        "When it was created, since 1970",
        |info| Now(info.created_ns / 1_000_000_000),
    ),
];

const PARTICIPANT: [Family<ParticipantInfo>; 4] = [
    family("shmbus_participant_alive", None, "Whether its process lives", |one| {
        one.liveness.known().map_or(Unknown, |alive| Now(alive.into()))
    }),
    family(
        "shmbus_participant_lag",
        None,
        "Messages behind the head, as of the beginning of its block",
        |one| Now(one.lag),
    ),
    family("shmbus_participant_missed", None, "Messages missed since it joined", |one| {
        Total(one.missed)
    }),
    family("shmbus_participant_held_blocks", None, "Blocks in which it holds samples", |one| {
        Now(one.held_blocks.into())
    }),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counts = [
            ("shmbus_topics", "Topics that can be read", self.topics.len() as u64),
            ("shmbus_topics_unreadable", "Topics that cannot be read", self.unreadable),
        ];
        for (name, help, count) in counts {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            metric.encode_gauge(&gauge(count))?;
        }
        for family in &TOPIC {
            let rows = self
                .topics
                .iter()
                .map(|info| ([("topic", info.name.clone())].to_vec(), (family.number)(info)));
            encode(&mut encoder, family, rows)?;
        }
        for family in &PARTICIPANT {
            let rows = self.topics.iter().flat_map(|info| {
                info.participants.iter().map(|one| (labels(info, one), (family.number)(one)))
            });
            encode(&mut encoder, family, rows)?;
        }
        Ok(())
    }
}

type Labels = Vec<(&'static str, String)>;

fn labels(info: &TopicInfo, one: &ParticipantInfo) -> Labels {
    let kind = match one.kind {
        ParticipantKind::Publisher => "publisher",
        ParticipantKind::Lossy => "lossy",
        ParticipantKind::Reliable => "reliable",
        _ => "other",
    };
    vec![
        ("topic", info.name.clone()),
        ("kind", kind.to_owned()),
        ("entry", one.entry.to_string()),
        ("pid", one.pid.to_string()),
    ]
}

fn encode<T>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family<T>,
    rows: impl Iterator<Item = (Labels, Number)>,
) -> fmt::Result {
    let mut rows = rows.filter(|(_, number)| !matches!(number, Unknown)).peekable();
    // A family without rows is left out.
    let Some((_, first)) = rows.peek() else { return Ok(()) };
    let kind = match first {
        Total(_) => MetricType::Counter,
        Now(_) | Unknown => MetricType::Gauge,
    };
    let Family { name, help, unit, .. } = family;
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
    for (labels, number) in rows {
        let mut metric = metric.encode_family(&labels)?;
        match number {
            Total(number) => metric.encode_counter::<NoLabelSet, u64, f64>(&number, None)?,
            Now(number) => metric.encode_gauge(&gauge(number))?,
            Unknown => {}
        }
    }
    Ok(())
}

/// As far as a gauge goes: what a corrupt topic says may be more, and must not hide the rest.
fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
