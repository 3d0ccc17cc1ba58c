//! The topic of a demo: named after its process, removed with it, and if it could not be, by the next demo.

use super::bus::{TopicPlace, topic_options};
use super::transport::Flow;
use anyhow::{Context, Result};
use shmbus::{Directory, Topic};
use std::path::Path;

/// A topic that is there while this lives.
pub(super) struct DemoTopic<'a> {
    directory: &'a Directory,
    topic: Topic<[u8]>,
    place: TopicPlace,
}

impl<'a> DemoTopic<'a> {
    /// Creates the topic for a flow to so many subscribers.
    pub(super) fn create(
        directory: &'a Directory,
        flow: &Flow,
        subscribers: u32,
    ) -> Result<DemoTopic<'a>> {
        let name = name_of(std::process::id());
        let options = topic_options(flow.payload, subscribers, flow.wait)?;
        let topic = Topic::create_in(directory, &name, &options)
            .with_context(|| format!("cannot create the topic {name}"))?;
        let place = TopicPlace { directory: directory.path().to_path_buf(), name };
        Ok(DemoTopic { directory, topic, place })
    }

    pub(super) fn place(&self) -> &TopicPlace {
        &self.place
    }

    /// How many messages were published to it.
    pub(super) fn published(&self) -> u64 {
        self.topic.info().head
    }
}

impl Drop for DemoTopic<'_> {
    fn drop(&mut self) {
        // Its participants are dead or about to be. If this fails, the next demo tries again.
        let _ = self.directory.remove(&self.place.name, true);
    }
}

/// Removes the topics of demos that were killed before they could.
pub(super) fn remove_leftovers(directory: &Directory) {
    for name in directory.topics().unwrap_or_default() {
        let left_over =
            pid_of(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if left_over {
            // Not by force: a topic that is in use after all (by another pid namespace) stays.
            let _ = directory.remove(&name, false);
        }
    }
}

fn name_of(pid: u32) -> String {
    format!("demo/{pid}-quotes")
}

fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix("demo/")?.strip_suffix("-quotes")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_known_by_the_process_that_made_it() {
        assert_eq!(pid_of(&name_of(4711)), Some(4711));
        for other in ["demo/x-quotes", "demo/12-orders", "md/12-quotes", "demo/12-quotes/x", "demo"]
        {
            assert_eq!(pid_of(other), None, "{other}");
        }
    }
}
