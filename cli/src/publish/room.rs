//! What `shmbus pub` does if reliable subscribers leave no room: waits, says for whom, and gives up in time if it is told to.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use shmbus::{PublishError, Raw};

use super::{Stream, WAIT_MAX};
use crate::text;

/// After this wait for a reliable subscriber, people are told what the publisher waits for.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

impl Stream<'_> {
    /// Publishes when reliable subscribers have made room.
    #[cold]
    pub(super) fn publish_waiting(&mut self, message: &[u8]) -> Result<()> {
        let since = Instant::now();
        let mut is_noticed = self.arguments.quiet;
        loop {
            let left =
                self.arguments.timeout.map(|timeout| timeout.saturating_sub(since.elapsed()));
            let wait = left.map_or(WAIT_MAX, |left| left.min(WAIT_MAX));
            match self.publisher.publish_timeout(Raw::new(message), wait) {
                Err(PublishError::TimedOut) => {}
                published => return Ok(published.map(|_| ())?),
            }
            self.interrupt.check()?;
            if left.is_some_and(|left| left <= wait) {
                let (topic, waited) = (&self.arguments.topic, since.elapsed());
                let who = match self.who_is_waited_for() {
                    Some(who) => format!("waiting for {who}"),
                    None => "nobody is to be seen any more who is in its way".to_owned(),
                };
                bail!("topic {topic} had no room for {waited:.1?}: {who}");
            }
            if !is_noticed && since.elapsed() >= NOTICE_AFTER {
                is_noticed = true;
                if let Some(who) = self.who_is_waited_for() {
                    text::tell(&format!("waiting for {who}"));
                }
            }
        }
    }

    /// The slowest of those that leave no room, for people.
    fn who_is_waited_for(&self) -> Option<String> {
        let participants = self.topic.info().participants;
        let slowest = participants.iter().filter(|one| one.holds_up).max_by_key(|one| one.lag)?;
        Some(text::reliable(slowest))
    }
}
