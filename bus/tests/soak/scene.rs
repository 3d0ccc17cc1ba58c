//! One topic after the other, each with its crowd.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use shmbus::{Delivery, Publishers, Start, Topic, TopicOptions, Wake};

use crate::Plan;
use crate::feeds::{
    Account, FEEDS_MAX, Manner, PAUSE, REVOKED, STOP, TOPIC, WITNESSES_MAX, create, now_ns, open,
    skipped_before,
};
use crate::message::{END, Message};
use crate::processes::{Part, Process, Role, Stage};
use crate::random::Random;

pub(crate) const ROLES: &[Part] = &[("churner", churner)];

/// A scene ends after this many kills and stops, so that there are topics of all kinds.
const FAULTS: u64 = 150;
/// Receivers that may be killed, beside the witnesses and one lossy receiver that see everything, and beside one that comes and goes.
const VICTIMS: usize = 2;
const SURVIVORS: usize = WITNESSES_MAX + 1;
/// How often churners have attached.
const ATTACHES: usize = 4;

/// What was done, and what was seen.
#[derive(Default)]
struct Summary {
    scenes: u64,
    feeds_killed: u64,
    receivers_killed: u64,
    churners_killed: u64,
    stops: u64,
    attaches: u64,
    messages: u64,
    abandoned: u64,
    missed: u64,
    revoked: u64,
    /// From a kill until the next message came to a receiver that was left.
    receivers_stood: Vec<u64>,
    /// From a kill until the next message of a publisher that was left, or of the next one.
    feeds_stood: Vec<u64>,
}

/// Attaches, receives a little, leaves; until it is killed or asked to end.
fn churner(role: &Role) {
    let [seed] = role.numbers();
    let mut random = Random::new(seed);
    let topic = open(role);
    while role.board.word(STOP).load(Relaxed) == 0 {
        let (delivery, reliable) = match random.below(0..3) {
            0 => (Delivery::Reliable, true),
            // What it misses when it is evicted is counted; nobody is as slow as that here, but the machine may be.
            1 => (Delivery::ReliableFor(Duration::from_secs(1000)), true),
            _ => (Delivery::Lossy, false),
        };
        let start = match random.below(0..3) {
            0 => Start::Newest,
            1 => Start::Oldest,
            _ => Start::Back(random.below(0..100)),
        };
        let mut subscriber = topic.subscriber_from(delivery, start).expect("an entry");
        role.board.word(ATTACHES).fetch_add(1, SeqCst);
        let mut account = Account::new(reliable, subscriber.position());
        for _ in 0..random.below(0..30) {
            let sample = match random.below(0..4) {
                0 => subscriber.receive_timeout(Duration::from_millis(1)),
                _ => subscriber.try_receive(),
            };
            if let Some(sample) = sample.unwrap() {
                let message: Message = *sample;
                account.accept(&role.board, sample.sequence(), skipped_before(&sample), &message);
                if message.feed == END {
                    return;
                }
            }
        }
        // What it went past last may have no message behind it yet.
        assert!(account.missed <= subscriber.missed());
    }
}

struct Crowd<'a> {
    stage: &'a Stage,
    random: &'a mut Random,
    feeds: Vec<(u64, Process)>,
    started: u64,
    victims: Vec<(bool, Process)>,
    churner: Process,
    /// A stopped publisher is passed by where that does not take long.
    passed_by: bool,
    depth: u64,
}

fn victim(stage: &Stage, slot: usize, random: &mut Random) -> (bool, Process) {
    let manners = [Manner::Polling, Manner::Sleeping, Manner::Holding, Manner::Mixed];
    let manner = manners[random.below(0..4) as usize];
    let reliable = random.one_in(2);
    (reliable, stage.receiver(slot, reliable, manner, None, random.next()))
}

impl Crowd<'_> {
    fn start_feed(&mut self) {
        let process = self.stage.spawn("feed", &[self.started, self.random.next(), 0]);
        self.feeds.push((self.started, process));
        self.started += 1;
    }

    fn confirmed(&self) -> u64 {
        (0..self.started).map(|feed| self.stage.confirmed(feed)).sum()
    }

    fn go_on(&self, count: u64) {
        let goal = self.confirmed() + count;
        self.stage.until("the feeds go on", || self.confirmed() >= goal);
    }

    /// Somebody was killed just now: how long the others stand still.
    fn measure(&self, summary: &mut Summary, killed_ns: u64) {
        let confirmed = self.confirmed();
        self.stage.until("the feeds go on", || self.confirmed() > confirmed);
        summary.feeds_stood.push(now_ns().saturating_sub(killed_ns));
        for slot in 0..SURVIVORS {
            let came = || self.stage.came_ns(slot);
            self.stage.until("a receiver goes on", || came() > killed_ns);
            summary.receivers_stood.push(came() - killed_ns);
        }
    }

    fn fault(&mut self, summary: &mut Summary) {
        let feed = self.random.below(0..self.feeds.len() as u64) as usize;
        let receiver = self.random.below(0..VICTIMS as u64) as usize;
        match self.random.below(0..8) {
            0..=2 if self.started < FEEDS_MAX => {
                let (number, process) = self.feeds.swap_remove(feed);
                if self.random.one_in(3) {
                    self.pause(number, &process);
                }
                let killed_ns = now_ns();
                process.kill();
                summary.feeds_killed += 1;
                self.start_feed();
                self.measure(summary, killed_ns);
            }
            3 => {
                let process = self.victims.swap_remove(receiver).1;
                let killed_ns = now_ns();
                process.kill();
                self.measure(summary, killed_ns);
                let slot = SURVIVORS + VICTIMS + (summary.receivers_killed % 64) as usize;
                summary.receivers_killed += 1;
                self.victims.push(victim(self.stage, slot, self.random));
            }
            4 => {
                let next = self.stage.spawn("churner", &[self.random.next()]);
                let killed_ns = now_ns();
                std::mem::replace(&mut self.churner, next).kill();
                summary.churners_killed += 1;
                self.measure(summary, killed_ns);
            }
            5 | 6 => {
                let (number, process) = &self.feeds[feed];
                let number = *number;
                if self.random.one_in(2) {
                    self.pause(number, process);
                } else {
                    process.stop();
                }
                summary.stops += 1;
                let confirmed = self.stage.confirmed(number);
                if self.passed_by {
                    let count = self.random.below(1..5) * self.depth.min(256);
                    self.go_on(count);
                    assert_eq!(self.stage.confirmed(number), confirmed, "it stands");
                }
                self.feeds[feed].1.go_on();
                self.stage.until("it goes on", || self.stage.confirmed(number) > confirmed);
            }
            _ => {
                let (reliable, process) = &self.victims[receiver];
                process.stop();
                summary.stops += 1;
                if !reliable {
                    self.go_on(self.depth.min(256));
                }
                process.go_on();
            }
        }
        let count = self.random.below(0..self.depth.min(100));
        self.go_on(count);
    }

    /// Stops a feed where it has a loan open.
    fn pause(&self, number: u64, feed: &Process) {
        self.stage.board.word(PAUSE).store(number + 1, SeqCst);
        feed.wait_until_stopped();
    }
}

fn options(random: &mut Random) -> TopicOptions {
    let claim_timeouts = [Duration::ZERO, Duration::from_millis(20), Duration::from_secs(1)];
    TopicOptions {
        depth: [16, 64, 256, 4096][random.below(0..4) as usize],
        publishers: match random.below(0..3) {
            0 => Publishers::Exclusive,
            _ => Publishers::Shared(random.below(2..4) as u32 + 1),
        },
        claim_timeout: claim_timeouts[random.below(0..3) as usize],
        wake: [Wake::Auto, Wake::Fence][random.below(0..2) as usize],
        timestamp: random.one_in(2),
        // One entry more than there are subscribers: a churner comes before the one before it is killed.
        subscribers_max: (SURVIVORS + VICTIMS) as u32 + 2,
        hold_blocks: Some(random.below(0..6) as u32),
        ..Default::default()
    }
}

fn play(random: &mut Random, until: Instant, summary: &mut Summary) {
    let stage = Stage::new();
    let options = options(random);
    let topic: Topic<Message> = create(&stage, &options);
    let survivors: Vec<Process> = (0..SURVIVORS)
        .map(|slot| {
            let manner = [Manner::Mixed, Manner::Sleeping, Manner::Holding][slot];
            let witness = (slot < WITNESSES_MAX).then_some(slot);
            stage.receiver(slot, witness.is_some(), manner, witness, random.next())
        })
        .collect();
    let feeds = match options.publishers {
        Publishers::Exclusive => 1,
        Publishers::Shared(max) => max - 1,
    };
    let victims = (0..VICTIMS).map(|n| victim(&stage, SURVIVORS + n, random)).collect();
    let churner = stage.spawn("churner", &[random.next()]);
    let mut crowd = Crowd {
        stage: &stage,
        random,
        feeds: Vec::new(),
        started: 0,
        victims,
        churner,
        passed_by: feeds > 1 && (1..100).contains(&options.claim_timeout.as_millis()),
        depth: options.depth,
    };
    (0..feeds).for_each(|_| crowd.start_feed());
    for _ in 0..FAULTS {
        crowd.fault(summary);
        if Instant::now() >= until {
            break;
        }
    }
    let Crowd { feeds, started, victims, churner, .. } = crowd;
    stage.board.word(STOP).store(1, SeqCst);
    feeds.into_iter().for_each(|(_, feed)| feed.done());
    churner.done();
    let end = stage.publish_end(&topic);
    victims.into_iter().for_each(|(_, victim)| victim.done());
    survivors.into_iter().for_each(Process::done);
    for witness in 0..WITNESSES_MAX {
        let messages = stage.check_confirmed(witness, started);
        let missed = stage.missed_by(witness);
        assert_eq!(stage.next_of(witness), end + 1);
        assert_eq!(messages + 1 + missed, end + 1, "missed what was a message");
        assert!(options.publishers != Publishers::Exclusive || missed == 0);
        if witness == 0 {
            (summary.messages, summary.abandoned) =
                (summary.messages + messages, summary.abandoned + missed);
        }
    }
    let alive = topic.info().participants.iter().filter(|other| other.liveness.is_alive()).count();
    assert_eq!(alive, 0, "somebody is left");
    summary.missed += stage.missed_by(WITNESSES_MAX);
    summary.revoked += stage.board.word(REVOKED).load(SeqCst);
    summary.attaches += stage.board.word(ATTACHES).load(SeqCst);
    summary.scenes += 1;
    drop(topic);
    stage.end(TOPIC);
}

pub(crate) fn whoever_is_left_goes_on_and_loses_nothing(plan: &Plan) {
    let seconds = std::env::var("SHMBUS_TEST_SECONDS").map_or(8, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random::new(plan.seed);
    let mut summary = Summary::default();
    while Instant::now() < until {
        play(&mut random, until, &mut summary);
    }
    summary.print();
    assert!(summary.feeds_killed > 0 && summary.stops > 0 && summary.messages > 0);
}

impl Summary {
    fn print(&self) {
        let killed = self.feeds_killed + self.receivers_killed + self.churners_killed;
        println!(
            "  {} topics; {killed} kills ({} feeds, {} receivers, {} that came and went), {} stops, {} attaches beside them",
            self.scenes,
            self.feeds_killed,
            self.receivers_killed,
            self.churners_killed,
            self.stops,
            self.attaches
        );
        println!(
            "  {} messages, {} sequences abandoned, {} commits revoked; each came once to all who were left, or is one of the {} that the lossy ones counted as missed",
            self.messages, self.abandoned, self.revoked, self.missed
        );
        stood("subscribers that were left", self.receivers_stood.clone());
        stood("publishers that were left", self.feeds_stood.clone());
    }
}

fn stood(who: &str, mut ns: Vec<u64>) {
    ns.sort_unstable();
    let Some(last) = ns.len().checked_sub(1) else { return };
    let at = |percent: usize| ns[(ns.len() * percent / 100).min(last)] as f64 / 1e6;
    println!(
        "  {who} waited after a kill, ms ({} times): p50 {:.2} p99 {:.2} max {:.2}",
        ns.len(),
        at(50),
        at(99),
        at(100)
    );
}
