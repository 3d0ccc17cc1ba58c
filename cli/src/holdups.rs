//! Who holds a feed up, and since when that has been seen: a reliable subscriber that leaves no room and has not moved.
//!
//! The topic does not say since when. So it is looked at more than once: what is said is *at least*.

use std::time::{Duration, Instant};

use serde::Serialize;
use shmbus::{ParticipantInfo, TopicInfo};

use crate::text;

/// One that stands where it stood.
#[derive(Clone, Debug)]
struct Standing {
    instance: u64,
    entry: u32,
    /// With the entry, it tells one owner from the next.
    joined_ns: u64,
    position: u64,
    since: Instant,
}

/// What was seen of all topics at the last look.
#[derive(Debug, Default)]
pub(crate) struct Holdups(Vec<Standing>);

/// One that holds a feed up.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Holdup {
    pub(crate) entry: u32,
    pub(crate) pid: u32,
    pub(crate) lag: u64,
    /// It has stood still for so long at least.
    pub(crate) seconds: f64,
}

impl Holdups {
    /// Looks at topics as they were at the time `at`, and forgets all that is over.
    pub(crate) fn look<'a>(&mut self, topics: impl Iterator<Item = &'a TopicInfo>, at: Instant) {
        let before = std::mem::take(&mut self.0);
        for info in topics {
            for one in info.participants.iter().filter(|one| holds_up(one)) {
                let mut now = Standing {
                    instance: info.instance,
                    entry: one.entry,
                    joined_ns: one.joined_ns,
                    position: one.position,
                    since: at,
                };
                if let Some(known) = before.iter().find(|known| known.is_of(&now)) {
                    now.since = known.since;
                }
                self.0.push(now);
            }
        }
    }

    /// Who holds up a topic that was among those of the last look, at the time `at`; the slowest first.
    pub(crate) fn of(&self, info: &TopicInfo, at: Instant) -> Vec<Holdup> {
        let holdup = |one: &ParticipantInfo| {
            let is_it = |known: &&Standing| {
                known.instance == info.instance
                    && (known.entry, known.joined_ns) == (one.entry, one.joined_ns)
            };
            let since = self.0.iter().find(is_it).map_or(at, |known| known.since);
            let seconds = at.saturating_duration_since(since).as_secs_f64();
            Holdup { entry: one.entry, pid: one.pid, lag: one.lag, seconds }
        };
        let mut all: Vec<Holdup> =
            info.participants.iter().filter(|one| holds_up(one)).map(holdup).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.lag));
        all
    }
}

impl Standing {
    fn is_of(&self, now: &Standing) -> bool {
        (self.instance, self.entry, self.joined_ns, self.position)
            == (now.instance, now.entry, now.joined_ns, now.position)
    }
}

/// The dead are in nobody's way for long: they are found by who waits.
fn holds_up(one: &ParticipantInfo) -> bool {
    one.holds_up && !one.liveness.is_dead()
}

impl Holdup {
    pub(crate) fn text(&self, topic: &str) -> String {
        let Holdup { entry, pid, lag, seconds } = self;
        let time = text::seconds(Duration::from_secs_f64(*seconds));
        format!(
            "topic {topic}: process {pid} (entry {entry}), a reliable subscriber {lag} messages behind, leaves its publisher no room; \
             it has not moved for at least {time}"
        )
    }
}
