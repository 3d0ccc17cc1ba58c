//! A crowd of publishers and subscribers, any of whom may be killed or stopped at any moment.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::{Publishers, TopicOptions, Wake};

use crate::feeds::{FEEDS_MAX, Manner, PAUSE, REVOKED, STOP, TOPIC, WITNESSES_MAX, create};
use crate::processes::{Process, Stage};
use crate::random::Random;
use crate::{Plan, kills};

/// Feeds at the same time.
const FEEDS: usize = 3;
/// Receivers that may be killed, beside the witnesses and one lossy receiver that see everything.
const VICTIMS: usize = 2;
const SURVIVORS: usize = WITNESSES_MAX + 1;

/// The feeds that publish now, and their numbers.
struct Feeds<'a> {
    stage: &'a Stage,
    living: Vec<(u64, Process)>,
    started: u64,
}

impl Feeds<'_> {
    fn start(&mut self, random: &mut Random) {
        let process = self.stage.spawn("feed", &[self.started, random.next(), 0]);
        self.living.push((self.started, process));
        self.started += 1;
    }

    fn confirmed(&self) -> u64 {
        (0..self.started).map(|feed| self.stage.confirmed(feed)).sum()
    }

    /// Waits until all together have published `count` messages more.
    fn go_on(&self, count: u64) {
        let goal = self.confirmed() + count;
        self.stage.until("the feeds go on", || self.confirmed() >= goal);
    }
}

/// Stops a feed where it has a loan open.
fn pause(stage: &Stage, number: u64, feed: &Process) {
    stage.board.word(PAUSE).store(number + 1, SeqCst);
    feed.wait_until_stopped();
}

/// A receiver of a kind that chance decides.
fn victim(stage: &Stage, slot: usize, random: &mut Random) -> (bool, Process) {
    let manners = [Manner::Polling, Manner::Sleeping, Manner::Holding, Manner::Mixed];
    let manner = manners[random.below(0..4) as usize];
    let reliable = random.one_in(2);
    (reliable, stage.receiver(slot, reliable, manner, None, random.next()))
}

pub(crate) fn publishers_and_subscribers_are_killed_and_stopped_and_all_see_one_order(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let topics = [
        TopicOptions { depth: 16, claim_timeout: Duration::ZERO, ..Default::default() },
        TopicOptions { depth: 16, claim_timeout: Duration::from_millis(20), ..Default::default() },
        TopicOptions {
            depth: 64,
            claim_timeout: Duration::from_millis(20),
            wake: Wake::Fence,
            timestamp: true,
            ..Default::default()
        },
        TopicOptions { depth: 4096, ..Default::default() },
    ];
    for options in topics {
        let options = TopicOptions {
            publishers: Publishers::Shared(FEEDS as u32 + 1),
            subscribers_max: (SURVIVORS + VICTIMS) as u32,
            hold_blocks: Some(4),
            ..options
        };
        crowd(plan, &mut random, &options);
    }
}

fn crowd(plan: &Plan, random: &mut Random, options: &TopicOptions) {
    let stage = Stage::new();
    let topic = create(&stage, options);
    let survivors: Vec<Process> = (0..SURVIVORS)
        .map(|slot| {
            let manner = [Manner::Mixed, Manner::Sleeping, Manner::Holding][slot];
            let witness = (slot < WITNESSES_MAX).then_some(slot);
            stage.receiver(slot, witness.is_some(), manner, witness, random.next())
        })
        .collect();
    let mut feeds = Feeds { stage: &stage, living: Vec::new(), started: 0 };
    for _ in 0..FEEDS {
        feeds.start(random);
    }
    let mut victims: Vec<_> =
        (0..VICTIMS).map(|victim_of| victim(&stage, SURVIVORS + victim_of, random)).collect();
    // A stopped publisher is passed by where that does not take long.
    let passed_by = (1..100).contains(&options.claim_timeout.as_millis());
    let (mut feeds_killed, mut receivers_killed, mut stops) = (0, 0, 0);
    for _ in 0..kills(plan, 4) {
        let feed = random.below(0..FEEDS as u64) as usize;
        let receiver = random.below(0..VICTIMS as u64) as usize;
        match random.below(0..5) {
            0 | 1 if feeds.started < FEEDS_MAX => {
                let (number, process) = feeds.living.swap_remove(feed);
                if random.one_in(3) {
                    pause(&stage, number, &process);
                }
                process.kill();
                feeds_killed += 1;
                feeds.start(random);
            }
            2 => {
                victims.swap_remove(receiver).1.kill();
                let slot = SURVIVORS + VICTIMS + (receivers_killed % 64) as usize;
                receivers_killed += 1;
                victims.push(victim(&stage, slot, random));
            }
            3 => {
                let (number, process) = &feeds.living[feed];
                if random.one_in(2) {
                    pause(&stage, *number, process);
                } else {
                    process.stop();
                }
                stops += 1;
                let confirmed = stage.confirmed(*number);
                if passed_by {
                    feeds.go_on(random.below(1..5) * options.depth);
                    assert_eq!(stage.confirmed(*number), confirmed, "it stands");
                }
                process.go_on();
                stage.until("it goes on", || stage.confirmed(*number) > confirmed);
            }
            _ => {
                let (reliable, process) = &victims[receiver];
                process.stop();
                stops += 1;
                if !reliable {
                    feeds.go_on(random.below(1..5) * options.depth);
                }
                process.go_on();
            }
        }
        feeds.go_on(random.below(0..2 * options.depth.min(500)));
    }
    // Some are killed to the last, the others end by themselves.
    while random.one_in(2)
        && let Some((_, feed)) = feeds.living.pop()
    {
        feed.kill();
    }
    stage.board.word(STOP).store(1, SeqCst);
    feeds.living.drain(..).for_each(|(_, feed)| feed.done());
    let started = feeds.started;
    let end = stage.publish_end(&topic);
    victims.into_iter().for_each(|(_, victim)| victim.done());
    survivors.into_iter().for_each(Process::done);
    let mut messages = 0;
    for witness in 0..WITNESSES_MAX {
        messages = stage.check_confirmed(witness, started);
        assert_eq!(stage.next_of(witness), end + 1);
        assert_eq!(messages + 1 + stage.missed_by(witness), end + 1, "missed what was a message");
    }
    let info = topic.info();
    assert_eq!(info.participants.iter().filter(|other| other.liveness.is_alive()).count(), 0);
    println!(
        "  depth {}, blocks of {}: killed {feeds_killed} feeds and {receivers_killed} receivers, {stops} stops, \
         {} commits revoked; {messages} messages, {} sequences abandoned, the lossy one missed {}",
        info.depth,
        info.block_len,
        stage.board.word(REVOKED).load(SeqCst),
        stage.missed_by(0),
        stage.missed_by(WITNESSES_MAX)
    );
    drop(topic);
    stage.end(TOPIC);
}
