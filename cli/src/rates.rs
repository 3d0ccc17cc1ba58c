//! All topics at one moment, and what happened between two moments: for `stat` and `top`.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use shmbus::{
    AttachError, Directory, ObserveError, Observer, OpenError, ParticipantKind, Start, TopicInfo,
};

use crate::text;

/// Bytes read of each topic to learn how long its messages are, where they differ.
const SAMPLE_BYTES: u64 = 1 << 20;
/// Messages at most.
const SAMPLE_MESSAGES: u64 = 16;

/// Topics at one moment, by name.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) topics: BTreeMap<String, Seen>,
    /// Topics that cannot be read, and why.
    pub(crate) unreadable: Vec<anyhow::Error>,
}

/// A topic, and what its messages are long.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) info: TopicInfo,
    /// Mean length of a message; of the newest ones where lengths differ. `None`: not known.
    pub(crate) mean_len: Option<f64>,
}

/// A topic and how it moves.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) info: TopicInfo,
    /// Messages a second; `None` of a topic that was not there before.
    pub(crate) rate: Option<f64>,
    pub(crate) bytes_per_second: Option<f64>,
    pub(crate) subscribers: Option<usize>,
    pub(crate) publishers: Option<usize>,
    /// Of the slowest living subscriber, in messages.
    pub(crate) lag: u64,
    /// Of all subscribers that are there.
    pub(crate) missed: u64,
}

impl Moment {
    /// Reads `names`, or every topic of `directory` if there are none.
    ///
    /// # Errors
    /// The directory cannot be read. What is wrong with a topic is in [`Moment::unreadable`].
    pub(crate) fn read(directory: &Directory, names: &[String]) -> Result<Moment> {
        let all = if names.is_empty() { directory.topics()? } else { names.to_vec() };
        let mut moment =
            Moment { at: Instant::now(), topics: BTreeMap::new(), unreadable: Vec::new() };
        for name in all {
            match directory.observe(&name, Start::Back(SAMPLE_MESSAGES)) {
                Ok(observer) => {
                    moment.topics.insert(name, Seen::of(observer));
                }
                // Removed meanwhile.
                Err(
                    AttachError::Retired
                    | AttachError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. }),
                ) if names.is_empty() => {}
                Err(error) => {
                    moment.unreadable.push(match error {
                        AttachError::Open(error) => anyhow::Error::from(error), // it names the topic
                        error => anyhow::Error::from(error).context(format!("topic {name}")),
                    });
                }
            }
        }
        Ok(moment)
    }

    /// What happened since `before`.
    pub(crate) fn since(&self, before: Option<&Moment>) -> Vec<Row> {
        let row = |(name, seen): (&String, &Seen)| {
            let same = before.and_then(|before| {
                let old = before.topics.get(name)?;
                let same = old.info.created_ns == seen.info.created_ns;
                same.then(|| (self.at - before.at, old.info.head))
            });
            Row::of(seen, same.map(|(time, head)| (time.as_secs_f64(), head)))
        };
        self.topics.iter().map(row).collect()
    }
}

impl Seen {
    fn of(mut observer: Observer) -> Seen {
        let info = observer.info();
        let size = u64::from(info.payload_size);
        let mean_len = match info.variable_len {
            false => Some(size as f64),
            true if size > SAMPLE_BYTES => None,
            true => mean_len(&mut observer, (SAMPLE_BYTES / size.max(1)).min(SAMPLE_MESSAGES)),
        };
        Seen { info, mean_len }
    }
}

fn mean_len(observer: &mut Observer, most: u64) -> Option<f64> {
    let (mut count, mut bytes) = (0_u64, 0);
    while count < most {
        match observer.try_next() {
            Ok(Some(message)) => bytes += message.bytes().len(),
            Ok(None) | Err(ObserveError::Retired) => break,
            // What is wrong is said by whoever reads the topic; here is nothing known.
            Err(_) => return None,
        }
        count += 1;
    }
    (count > 0).then(|| bytes as f64 / count as f64)
}

impl Row {
    /// `before`: seconds since then, and the head then.
    pub(crate) fn of(seen: &Seen, before: Option<(f64, u64)>) -> Row {
        let info = seen.info.clone();
        let publishes = |kind| kind == ParticipantKind::Publisher;
        let living = || info.participants.iter().filter(|one| !one.liveness.is_dead());
        let rate =
            before.map(|(seconds, head)| info.head.saturating_sub(head) as f64 / seconds.max(1e-9));
        let bytes_per_second = match (rate, seen.mean_len) {
            (Some(0.0), _) => Some(0.0),
            (Some(rate), Some(len)) => Some(rate * len),
            _ => None,
        };
        Row {
            rate,
            bytes_per_second,
            subscribers: text::subscribers(&info),
            publishers: text::publishers(&info),
            lag: living().filter(|one| !publishes(one.kind)).map(|one| one.lag).max().unwrap_or(0),
            missed: info.participants.iter().map(|one| one.missed).sum(),
            info,
        }
    }
}
