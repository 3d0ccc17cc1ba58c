//! A topic on which a feed and two subscribers of the test itself go on, whatever happens to the process under test.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use shmbus::{
    AttachError, Delivery, Held, Publisher, Publishers, Start, Subscriber, Topic, TopicOptions,
};

use crate::drive::{End, Fate, Scene};
use crate::guarded::{self, Memory, Served};
use crate::message::Message;
use crate::operation::Operation;
use crate::processes::{Process, Stage};
use crate::random::Random;
use crate::tracee::{Event, Tracee};
use crate::watchers::{Feed, Order, Watcher};

pub(crate) const TOPIC: &str = "steps";
const SUBSCRIBERS: u32 = 5;
const PUBLISHERS: u32 = 3;
pub(crate) const HOLDS: usize = 2;
/// How long a stopped publisher keeps its sequence.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(20);
/// How long a wait of this process may be: no measure of anything.
const HANG: Duration = Duration::from_secs(20);

/// Words of the board: what the process under test has published and knows it, what it has received, whether somebody is ready.
pub(crate) const CONFIRMED: usize = 16;
pub(crate) const SEEN: usize = 17;
pub(crate) const READY: usize = 20;
/// The last sequence + 1 that one received who sleeps for each message.
pub(crate) const WOKEN: usize = 21;

/// In `ctl`, by docs/layout.md.
const CONTROL: u64 = 4096;
const REPAIR: u64 = CONTROL + 384 + 8;
const LOCK: u64 = CONTROL + 512;

pub(crate) struct World {
    operation: Operation,
    pub(crate) stage: Stage,
    topic: Topic<Message>,
    pub(crate) feed: Feed,
    pub(crate) reliable: Watcher,
    pub(crate) lossy: Watcher,
    pub(crate) order: Order,
    /// One that was in the way, and is to be told that it is lossy now.
    pub(crate) slow: Option<Watcher>,
    /// Who is killed when it sleeps for him.
    pub(crate) in_the_way: Option<Process>,
    /// Who takes part, and does nothing.
    idle: Vec<Publisher<Message>>,
    /// Those who came while it stood.
    newcomers: Vec<Watcher>,
    depth: u64,
    /// The number of the process under test, which is its feed.
    round: u64,
    /// Who was killed before it, and what it had confirmed.
    predecessor: Option<(u64, u64)>,
    stood: Vec<Duration>,
    /// Of a guarded topic: its broker, and where its pages are.
    guarded: Option<(Served, Memory)>,
}

impl World {
    pub(crate) fn new(operation: Operation, fate: Fate) -> World {
        let stage = Stage::new();
        let options = TopicOptions {
            depth: if operation.shared || operation.guarded { 64 } else { 32 },
            subscribers_max: SUBSCRIBERS,
            hold_blocks: Some(HOLDS as u32),
            publishers: match operation.shared {
                true => Publishers::Shared(PUBLISHERS),
                false => Publishers::Exclusive,
            },
            // Who is killed must not be waited for, whatever this says.
            claim_timeout: match fate {
                _ if operation.patient => Duration::ZERO,
                Fate::Killed if !operation.revoked => Duration::ZERO,
                _ => CLAIM_TIMEOUT,
            },
            ..Default::default()
        };
        let (guarded, topic) = if operation.guarded {
            let (served, memory, topic) = guarded::serve(stage.directory.path(), &options);
            (Some((served, memory)), topic)
        } else {
            (None, Topic::create_in(&stage.directory, TOPIC, &options).unwrap())
        };
        assert_eq!(topic.info().block_len, 2, "a boundary, and a place within a block");
        let watcher = |delivery, reliable| {
            Watcher::new(topic.subscriber(delivery).unwrap(), reliable, operation.shared)
        };
        let (reliable, lossy) =
            (watcher(Delivery::Reliable, true), watcher(Delivery::Lossy, false));
        let (feed, order) = (Feed::new(), Order::new());
        let (slow, depth) = (None, options.depth);
        let mut world = World {
            operation,
            stage,
            topic,
            feed,
            reliable,
            lossy,
            order,
            slow,
            in_the_way: None,
            idle: vec![],
            newcomers: vec![],
            depth,
            round: 0,
            predecessor: None,
            stood: vec![],
            guarded,
        };
        world.feed.publisher = Some(world.topic.publisher().unwrap());
        world.publish(2 * options.depth + 1);
        world
    }

    pub(crate) fn block_len(&self) -> u64 {
        2
    }

    pub(crate) fn depth(&self) -> u64 {
        self.depth
    }

    pub(crate) fn subscriber(&self, delivery: Delivery, start: Start) -> Subscriber<Message> {
        self.topic.subscriber_from(delivery, start).expect("an entry")
    }

    pub(crate) fn drain(&mut self) {
        self.reliable.drain(&mut self.order);
        self.lossy.drain(&mut self.order);
        for reliable in self.newcomers.iter_mut().filter(|newcomer| newcomer.reliable) {
            reliable.drain(&mut self.order);
        }
    }

    /// Publishes, and receives it: by the reliable one at once, by the lossy one now and then.
    pub(crate) fn publish(&mut self, count: u64) {
        for number in 0..count {
            let begin = Instant::now();
            let sequence = loop {
                if let Some(sequence) = self.feed.publish(&mut self.order) {
                    break sequence;
                }
                self.drain();
                assert!(begin.elapsed() < HANG, "nobody makes room");
                std::thread::yield_now();
            };
            while self.reliable.next <= sequence {
                self.reliable.drain(&mut self.order);
                assert!(begin.elapsed() < HANG, "a published message does not come: {sequence}");
                if self.reliable.next <= sequence {
                    std::thread::yield_now();
                }
            }
            // In every other round it is lapped.
            if self.round.is_multiple_of(2) || number + 1 == count {
                self.lossy.drain(&mut self.order);
            }
        }
    }

    /// Publishes until the next sequence has place `place` in its block.
    pub(crate) fn publish_to(&mut self, place: u64) {
        while self.reliable.next % self.block_len() != place {
            self.publish(1);
        }
    }

    /// Publishes until a subscriber is in the way of the next block. The two that go on are not.
    pub(crate) fn fill(&mut self) {
        while self.feed.publish(&mut self.order).is_some() {
            self.drain();
        }
    }

    /// Publishes until the reliable one is a whole ring behind.
    pub(crate) fn fill_up(&mut self) {
        while self.feed.publish(&mut self.order).is_some() {}
    }

    /// All subscribers' entries but one are taken. Beside these two are others.
    pub(crate) fn leave_one_entry(&mut self) {
        for _ in 2..SUBSCRIBERS - 1 {
            let newcomer = self.topic.subscriber(Delivery::Lossy).expect("an entry");
            self.newcomers.push(Watcher::new(newcomer, false, self.operation.shared));
        }
    }

    /// The same of publishers' entries.
    pub(crate) fn leave_one_publishers_entry(&mut self) {
        self.idle.extend((1..PUBLISHERS - 1).map(|_| self.topic.publisher().expect("an entry")));
    }

    /// The only publisher is killed before some instruction of an operation of its own.
    pub(crate) fn kill_a_predecessor(&mut self, role: &'static str) {
        self.feed.publisher = None;
        let feed = 1 << 32 | self.round;
        let mut tracee = Tracee::new(self.stage.spawn(role, &[feed]), false);
        for _ in 0..Random::new(self.round).below(0..2000) {
            if tracee.step() == Event::Mark {
                break;
            }
        }
        tracee.kill();
        self.predecessor = Some((feed, self.stage.board.word(CONFIRMED).swap(0, SeqCst)));
    }

    /// Another process, until it is ready.
    pub(crate) fn bystander(&mut self, role: &'static str) -> Process {
        self.stage.board.word(READY).store(0, SeqCst);
        let process = self.stage.spawn(role, &[0]);
        self.stage.until("a bystander is ready", || self.stage.board.word(READY).load(SeqCst) == 1);
        process
    }

    pub(crate) fn kill_who_is_in_the_way(&mut self) {
        if let Some(bystander) = self.in_the_way.take() {
            bystander.kill();
        }
    }

    fn control(&self) -> File {
        if let Some((_, memory)) = &self.guarded {
            return memory.ctl.try_clone().unwrap();
        }
        let path = self.stage.directory.path().join(TOPIC).join(".topic/ctl");
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    /// Asks the publishers to settle `sequence`, as a subscriber does that may not write `data`.
    pub(crate) fn wish_for(&self, sequence: u64) {
        self.control().write_all_at(&((sequence << 1) + 1).to_le_bytes(), REPAIR).unwrap();
    }

    fn is_wished(&self) -> bool {
        let mut wish = [0; 8];
        self.control().read_exact_at(&mut wish, REPAIR).unwrap();
        wish != [0; 8]
    }

    /// Somebody sleeps who has received everything.
    pub(crate) fn let_one_sleep(&mut self, role: &'static str) {
        let sleeper = self.bystander(role);
        self.stage.until("a bystander sleeps", || sleeper.is_asleep());
        self.in_the_way = Some(sleeper);
    }

    /// The next publish wakes him, whatever became of the ring before.
    fn check_that_he_wakes(&mut self) {
        self.take_place();
        let sequence = self.feed.publish(&mut self.order).expect("room");
        let sleeper = self.in_the_way.as_ref().expect("a sleeper");
        let is_asleep = sleeper.is_asleep();
        let woken = || self.stage.board.word(WOKEN).load(SeqCst);
        assert!(!is_asleep || woken() > sequence, "he sleeps on, and was not woken");
        self.stage.until("the sleeper receives it", || woken() > sequence);
    }

    /// The only publisher's place is free: whoever had it is gone.
    pub(crate) fn take_place(&mut self) {
        if self.feed.publisher.is_none() {
            let taken = self.topic.publisher();
            self.feed.publisher = Some(taken.expect("the publisher's place is free"));
        }
    }

    /// All other publishers that there may be.
    fn publishers(&self) -> Vec<Publisher<Message>> {
        let count = if self.operation.shared { PUBLISHERS - 1 } else { 0 };
        (0..count).map(|_| self.topic.publisher().expect("a publisher's entry")).collect()
    }

    /// Every entry and the whole budget of holds are to be had; with all of them in use the stream goes on, and nothing that is held
    /// changes.
    fn fill_the_house(&mut self) {
        let publishers = self.publishers();
        let seats = 2 + self.slow.is_some() as u32;
        let mut guests: Vec<Watcher> = (seats..SUBSCRIBERS)
            .map(|_| self.subscriber(Delivery::Lossy, Start::Oldest))
            .map(|subscriber| Watcher::new(subscriber, false, self.operation.shared))
            .collect();
        let mut held: Vec<(Held<Message>, Message)> = Vec::new();
        let mut blocks = HashSet::new();
        let mut holder = guests.pop().expect("a guest").subscriber;
        while held.len() < HOLDS {
            let sample = holder.try_receive().unwrap().expect("a full ring");
            let (message, block) = (*sample, sample.sequence() / self.block_len());
            if blocks.insert(block) {
                let Ok(sample) = sample.hold() else { panic!("the dead still hold something") };
                held.push((sample, message));
            }
        }
        for lap in 0..3 {
            self.publish(self.depth + 1);
            if lap == 1 {
                guests.iter_mut().take(1).for_each(|guest| guest.drain(&mut self.order));
            }
        }
        guests.iter_mut().for_each(|guest| guest.drain(&mut self.order));
        for (sample, message) in &held {
            assert!(**sample == *message, "changed while it was held: {}", sample.sequence());
        }
        drop((held, holder, guests, publishers));
    }

    /// Whoever came while it stood takes part, and is not taken for anybody else.
    fn check_newcomers(&mut self) {
        let others = 3 + usize::from(self.slow.is_some());
        let participants = self.topic.info().participants;
        let expected = others + self.newcomers.len();
        assert_eq!(participants.len(), expected, "not those who came: {participants:?}");
        self.publish(2 * self.depth);
        for mut newcomer in self.newcomers.drain(..) {
            newcomer.drain(&mut self.order);
            assert_eq!(newcomer.evictions, 0, "evicted for the one before it");
        }
    }

    /// Nobody else takes part, and no sleeper's bit is left.
    fn check_nothing_is_left(&mut self) {
        let expected = 3 + usize::from(self.slow.is_some());
        match &self.guarded {
            Some((_, memory)) => {
                assert_eq!(memory.participants(), expected, "somebody is left");
                assert!(!memory.seems_to_sleep(), "somebody seems to sleep");
            }
            None => {
                let participants = self.topic.info().participants;
                assert_eq!(participants.len(), expected, "somebody is left: {participants:?}");
            }
        }
        // Of both bells. Who was killed asleep is woken once.
        let ctl = self.control();
        for bell in [0, 128] {
            let mut word = [0; 4];
            ctl.read_exact_at(&mut word, CONTROL + bell).unwrap();
            assert_eq!(u32::from_le_bytes(word) & 3, 0, "somebody seems to sleep");
        }
        let mut word_and_owner = [0; 16];
        ctl.read_exact_at(&mut word_and_owner, LOCK).unwrap();
        assert_eq!(word_and_owner, [0; 16], "somebody seems to have the recovery lock");
        assert!(!self.is_wished(), "a wish was forgotten");
    }

    /// Everything of which a process knew that it was published has come, and what was in its hands wholly or not at all.
    fn check_feed(&self, feed: u64, confirmed: u64, in_hand: u64, end: End) {
        let came = self.reliable.of(feed);
        let may_come = match end {
            End::Killed => confirmed..=confirmed + in_hand,
            // It was killed before it could say so.
            End::KilledBehind => confirmed + in_hand..=confirmed + in_hand,
            End::Done => confirmed..=confirmed,
        };
        assert!(may_come.contains(&came), "{came} came of {feed}, not {may_come:?}: {end:?}");
    }

    fn check_what_it_did(&mut self, end: End) {
        let confirmed = self.stage.board.word(CONFIRMED).load(SeqCst);
        self.check_feed(self.round, confirmed, self.operation.in_hand, end);
        if let Some((feed, confirmed)) = self.predecessor.take() {
            self.check_feed(feed, confirmed, 1, End::Killed);
        }
        let seen = [0, 1, 2].map(|word| self.stage.board.word(SEEN + word).load(SeqCst));
        let [behind, feed, counter] = seen;
        if let Some(sequence) = behind.checked_sub(1) {
            let here = self.order.at(sequence);
            assert_eq!(here, Some((feed, counter)), "it has received another {sequence}");
        }
    }
}

impl Scene for World {
    fn spawn(&mut self) -> Process {
        self.round += 1;
        for word in [CONFIRMED, SEEN, READY] {
            self.stage.board.word(word).store(0, SeqCst);
        }
        (self.operation.before)(self);
        if self.operation.takes_place {
            self.feed.publisher = None;
        }
        self.stage.spawn(self.operation.role, &[self.round])
    }

    fn may_sleep(&self) -> bool {
        self.operation.may_sleep
    }

    fn begun(&mut self) {
        (self.operation.begun)(self);
    }

    fn wake(&mut self) {
        (self.operation.wake)(self);
    }

    fn meanwhile(&mut self) {
        let (begin, abandoned) = (Instant::now(), self.reliable.abandoned);
        self.drain();
        if self.operation.replaced && self.slow.take().is_some() {
            let next = self.subscriber(Delivery::Reliable, Start::Newest);
            self.newcomers.push(Watcher::new(next, true, self.operation.shared));
        }
        while self.operation.crowded
            && let Ok(newcomer) = self.topic.subscriber(Delivery::Lossy)
        {
            self.newcomers.push(Watcher::new(newcomer, false, self.operation.shared));
        }
        if self.operation.takes_place {
            match self.topic.publisher() {
                Ok(publisher) => self.feed.publisher = Some(publisher),
                // It stands, so it lives.
                Err(AttachError::PublisherAlive { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
        if self.operation.holds_up {
            // As far as it lets them.
            for _ in 0..3 * self.depth {
                let published = self.feed.publish(&mut self.order);
                self.drain();
                if published.is_none() {
                    break;
                }
            }
        } else {
            self.publish(match self.round % 4 {
                0 => self.depth + 1,
                // Until a block that it may have in mind is given up, seen unpinned, and perhaps not used again yet.
                1 | 2 => self.depth - 8 + Random::new(self.round).below(0..32),
                _ => 3 * self.depth + 1,
            });
            let may_be_revoked = self.operation.in_hand == 0
                || self.operation.wished // what is abandoned is another's
                || begin.elapsed() >= CLAIM_TIMEOUT;
            assert!(
                may_be_revoked || self.reliable.abandoned == abandoned,
                "revoked before its time"
            );
        }
        if self.operation.takes_place && self.round.is_multiple_of(2) {
            self.feed.publisher = None; // so that it comes in time, or too late
        }
    }

    fn check(&mut self, end: End) {
        let helped = !self.operation.wished || end == End::Killed || !self.is_wished();
        assert!(helped, "it has published, and not helped");
        if self.operation.wakes {
            self.check_that_he_wakes();
        }
        self.kill_who_is_in_the_way();
        self.idle.clear();
        let begin = Instant::now();
        self.take_place();
        // In every other round the entry of a publisher that died is another's before its sequence is settled.
        let successors = if self.round.is_multiple_of(2) { self.publishers() } else { Vec::new() };
        self.publish(1);
        drop(successors);
        self.stood.push(begin.elapsed());
        if end != End::Done {
            self.newcomers.clear();
        }
        if !self.newcomers.is_empty() {
            self.check_newcomers();
        }
        self.fill_the_house();
        if let Some(slow) = &mut self.slow {
            slow.drain(&mut self.order);
            assert_eq!(slow.evictions, 1, "it is told once that it was in the way");
            self.slow = None;
            self.publish(1);
        }
        self.check_nothing_is_left();
        self.check_what_it_did(end);
    }

    fn stood(&self) -> &[Duration] {
        &self.stood
    }

    fn end(self) {
        let World { stage, topic, feed, reliable, lossy, slow, guarded, .. } = self;
        let is_guarded = guarded.is_some();
        drop((topic, feed, reliable, lossy, slow, guarded));
        if is_guarded { stage.end_without_a_topic() } else { stage.end(TOPIC) }
    }
}
