//! Those who were there before and go on: a reliable subscriber that sleeps, in a thread; a reliable one that is polled; a lossy one that
//! looks now and then and is lapped; a publisher. And what must be true of the topic when all is over.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use shmbus::{
    AttachError, Delivery, Publisher, Publishers, Sample, Subscriber, Topic, TopicOptions,
    TryPublishError,
};

use crate::message::{END, Message};
use crate::processes::{Process, Stage};
use crate::victims::{CONFIRMED, DROPPED, PUBLISHED, TOPIC};

/// Rounds of the ring for which the others go on.
const LAPS: u64 = 3;
/// The feed of the survivors' own messages.
pub(crate) const OWN: u64 = 0;
const SHARED_MAX: u32 = 3;

pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(crate) fn exclusive() -> TopicOptions {
    TopicOptions { depth: 64, subscribers_max: 5, hold_blocks: Some(2), ..Default::default() }
}

/// `claim_timeout` of zero: only the kernel's word that somebody is dead lets the others go on.
pub(crate) fn shared(claim_timeout: Duration) -> TopicOptions {
    TopicOptions { publishers: Publishers::Shared(SHARED_MAX), claim_timeout, ..exclusive() }
}

/// What its subscriber went past just before it: missed, abandoned.
pub(crate) fn skipped_before(sample: &Sample<'_, Message>) -> (u64, u64) {
    (sample.missed_before(), sample.abandoned_before())
}

/// The stream as one subscriber has seen it: panics where that cannot be.
pub(crate) struct Account {
    reliable: bool,
    from_the_beginning: bool,
    pub(crate) next: u64,
    pub(crate) missed: u64,
    pub(crate) abandoned: u64,
    /// The counter that is expected next, of each feed.
    feeds: HashMap<u64, u64>,
    /// Sequence, feed and counter of everything that came.
    seen: Vec<(u64, u64, u64)>,
}

impl Account {
    /// From sequence `next` on.
    pub(crate) fn new(reliable: bool, next: u64) -> Account {
        let from_the_beginning = reliable && next == 0;
        let (feeds, seen) = (HashMap::new(), Vec::new());
        Account { reliable, from_the_beginning, next, missed: 0, abandoned: 0, feeds, seen }
    }

    pub(crate) fn accept(
        &mut self,
        sequence: u64,
        (missed, abandoned): (u64, u64),
        message: &Message,
    ) {
        assert!(message.is_whole(), "torn: sequence {sequence}: {message:?}");
        let Message { feed, counter, .. } = *message;
        assert_ne!(feed, DROPPED, "sequence {sequence}: a dropped loan happened");
        let expected = self.feeds.insert(feed, counter + 1);
        let what = format_args!("sequence {sequence} = {feed}/{counter}, not {expected:?}");
        assert_eq!(sequence, self.next + missed + abandoned, "what was before is wrong: {what}");
        assert!(!self.reliable || missed == 0, "a reliable one missed some: {what}");
        match expected {
            Some(next) if self.reliable => assert_eq!(counter, next, "lost or twice: {what}"),
            Some(next) => assert!(counter >= next, "twice or out of order: {what}"),
            None if self.from_the_beginning => assert_eq!(counter, 0, "lost: {what}"),
            None => {}
        }
        self.next = sequence + 1;
        self.missed += missed;
        self.abandoned += abandoned;
        self.seen.push((sequence, feed, counter));
    }

    /// What was missed from now on does not count as lost: the subscriber has become lossy.
    fn evicted(&mut self) {
        self.reliable = false;
    }

    fn has_ended(&self) -> bool {
        self.seen.last().is_some_and(|(_, feed, _)| *feed == END)
    }

    pub(crate) fn received(&self) -> u64 {
        self.seen.len() as u64
    }
}

/// The longest time without progress, from when it is asked for.
#[derive(Default)]
struct Gap {
    since_ns: AtomicU64,
    last_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Gap {
    fn progress(&self) {
        let (now, since) = (now_ns(), self.since_ns.load(SeqCst));
        let before = self.last_ns.swap(now, SeqCst).max(since);
        if since != 0 {
            self.max_ns.fetch_max(now.saturating_sub(before), SeqCst);
        }
    }

    fn measure_from_now(&self) {
        self.since_ns.store(now_ns(), SeqCst);
    }
}

/// The subscriber in a thread, and what it shares with the test.
struct Sleeper {
    thread: Option<JoinHandle<(Account, (u64, u64))>>,
    gap: Arc<Gap>,
    /// Asked to stand still; stands still.
    waits: Arc<AtomicBool>,
    stands: Arc<AtomicBool>,
    /// The sequence that it expects.
    next: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

impl Sleeper {
    fn start(stage: &Stage) -> Sleeper {
        // With a topic of its own, so that it is somebody else for the kernel.
        let topic = Topic::<Message>::open_in(&stage.directory, TOPIC).unwrap();
        let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        let gap = Arc::<Gap>::default();
        let next = Arc::<AtomicU64>::default();
        let [waits, stands, ends] = [(); 3].map(|()| Arc::<AtomicBool>::default());
        let (its_gap, its_waits) = (gap.clone(), waits.clone());
        let (its_stands, its_next, its_ends) = (stands.clone(), next.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut account = Account::new(true, subscriber.position());
            while !account.has_ended() && !its_ends.load(Relaxed) {
                its_stands.store(its_waits.load(SeqCst), SeqCst);
                if its_stands.load(SeqCst) {
                    std::thread::sleep(Duration::from_micros(100));
                    continue;
                }
                let timeout = Duration::from_millis(300);
                if let Some(sample) = subscriber.receive_timeout(timeout).unwrap() {
                    account.accept(sample.sequence(), skipped_before(&sample), &sample);
                    its_gap.progress();
                    its_next.store(account.next, SeqCst);
                }
            }
            (account, (subscriber.missed(), subscriber.abandoned()))
        });
        Sleeper { thread: Some(thread), gap, waits, stands, next, ends }
    }

    fn end(&mut self) -> (Account, (u64, u64)) {
        self.thread.take().unwrap().join().expect("the sleeping subscriber failed: see above")
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.ends.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) struct Survivors<'a> {
    stage: &'a Stage,
    pub(crate) topic: Topic<Message>,
    options: TopicOptions,
    /// Processes that end when the last message comes.
    pub(crate) guests: Vec<Process>,
    sleeper: Sleeper,
    polled: Subscriber<Message>,
    account: Account,
    lossy: Subscriber<Message>,
    lossy_account: Account,
    pub(crate) publisher: Option<Publisher<Message>>,
    counter: u64,
    gap: Gap,
}

impl<'a> Survivors<'a> {
    /// A new topic, and all of them attached; one lap and a bit has been published.
    pub(crate) fn begin(stage: &'a Stage, options: &TopicOptions) -> Survivors<'a> {
        Survivors::begin_with(stage, options, Delivery::Reliable)
    }

    /// The same with another polled subscriber.
    pub(crate) fn begin_with(
        stage: &'a Stage,
        options: &TopicOptions,
        delivery: Delivery,
    ) -> Survivors<'a> {
        let topic = Topic::create_in(&stage.directory, TOPIC, options).unwrap();
        let sleeper = Sleeper::start(stage);
        let polled = topic.subscriber(delivery).unwrap();
        let lossy = topic.subscriber(Delivery::Lossy).unwrap();
        let mut survivors = Survivors {
            stage,
            options: options.clone(),
            guests: Vec::new(),
            sleeper,
            account: Account::new(true, polled.position()),
            polled,
            lossy_account: Account::new(false, lossy.position()),
            lossy,
            publisher: Some(topic.publisher().unwrap()),
            topic,
            counter: 0,
            gap: Gap::default(),
        };
        survivors.publish(options.depth + 6);
        survivors
    }

    /// Makes the sleeping one stand still when it has received everything, or lets it go on.
    pub(crate) fn sleeper_waits(&self, waits: bool) {
        let next = || self.sleeper.next.load(SeqCst);
        if waits {
            self.stage.until("it receives everything", || next() == self.topic.info().head);
        }
        self.sleeper.waits.store(waits, SeqCst);
        let stands = || self.sleeper.stands.load(SeqCst);
        self.stage.until("the sleeping one does as it is told", || stands() == waits);
    }

    /// The polled one receives up to `count` messages.
    pub(crate) fn receive(&mut self, count: usize) {
        for _ in 0..count {
            match self.polled.try_receive() {
                Ok(Some(sample)) => {
                    self.account.accept(sample.sequence(), skipped_before(&sample), &sample);
                    self.gap.progress();
                }
                Ok(None) => return,
                Err(shmbus::ReceiveError::Evicted) => self.account.evicted(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The sequence that the polled one expects.
    pub(crate) fn position(&self) -> u64 {
        self.account.next
    }

    pub(crate) fn is_evicted(&self) -> bool {
        !self.account.reliable
    }

    /// Publishes one message if there is room now; false where there is none. Nobody receives meanwhile.
    pub(crate) fn offer(&mut self) -> bool {
        let message = Message::new(OWN, self.counter);
        let publisher = self.publisher.as_mut().expect("a publisher");
        match publisher.try_publish(&message) {
            Ok(sequence) => {
                self.counter += 1;
                self.stage.board.word(PUBLISHED).store(sequence + 1, SeqCst);
                self.gap.progress();
                true
            }
            Err(TryPublishError::Full) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Publishes, while the polled one receives.
    pub(crate) fn publish(&mut self, count: u64) {
        let stage = self.stage;
        for _ in 0..count {
            stage.until("there is room", || {
                self.receive(usize::MAX);
                self.offer()
            });
        }
    }

    /// Becomes the publisher, where the last one is gone.
    pub(crate) fn take_over(&mut self) {
        self.publisher = Some(self.topic.publisher().expect("the publisher's place is free"));
    }

    /// From here on it counts how long everybody stands still.
    pub(crate) fn measure(&mut self) {
        self.gap.measure_from_now();
        self.sleeper.gap.measure_from_now();
    }

    /// The longest time without progress since [`Survivors::measure`].
    pub(crate) fn stood_still(&self) -> Duration {
        let max_ns = |gap: &Gap| gap.max_ns.load(SeqCst);
        Duration::from_nanos(max_ns(&self.gap).max(max_ns(&self.sleeper.gap)))
    }

    /// Several times round the ring; the lossy one looks at the end of it.
    pub(crate) fn go_on(&mut self) {
        if self.publisher.is_none() {
            self.take_over();
        }
        self.publish(LAPS * self.topic.info().depth + 3);
        self.look();
    }

    fn look(&mut self) {
        // Nothing is also said after several laps or abandoned sequences.
        let mut before = None;
        while before != Some(self.lossy.position()) {
            before = Some(self.lossy.position());
            if let Some(sample) = self.lossy.try_receive().unwrap() {
                self.lossy_account.accept(sample.sequence(), skipped_before(&sample), &sample);
            }
        }
    }

    /// The end: compares what everybody has seen, and looks whether everything was given back. Of the feeds of victims it came to the others
    /// what was confirmed, and at most one message more of those in `unsure`.
    pub(crate) fn end(mut self, feeds: u64, unsure: &[u64]) -> Duration {
        let stage = self.stage;
        let publisher = self.publisher.as_mut().expect("a publisher");
        stage.until("there is room", || publisher.try_publish(&Message::new(END, 0)).is_ok());
        stage.until("everybody comes to the end", || {
            self.receive(usize::MAX);
            self.look();
            self.account.has_ended() && self.lossy_account.has_ended()
        });
        let (sleeper, sleeper_missed) = self.sleeper.end();
        for (account, skipped) in [
            (&sleeper, sleeper_missed),
            (&self.account, (self.polled.missed(), self.polled.abandoned())),
            (&self.lossy_account, (self.lossy.missed(), self.lossy.abandoned())),
        ] {
            let sum = (account.missed, account.abandoned);
            assert_eq!(sum, skipped, "not the sum of what was missed and abandoned");
            let in_order = account.seen.iter().all(|what| sleeper.seen.binary_search(what).is_ok());
            assert!(in_order, "one received what a reliable one did not");
        }
        assert!(
            self.options.publishers != Publishers::Exclusive || sleeper.abandoned == 0,
            "abandoned by an only publisher"
        );
        assert!(!self.account.reliable || self.account.seen == sleeper.seen, "two orders");
        for feed in 1..=feeds {
            let confirmed = stage.board.word(CONFIRMED + feed as usize).load(SeqCst);
            let received = sleeper.feeds.get(&feed).copied().unwrap_or(0);
            let unsure = u64::from(unsure.contains(&feed));
            assert!(
                (confirmed..=confirmed + unsure).contains(&received),
                "feed {feed} confirmed {confirmed} messages, {received} came"
            );
        }
        let stood_still = self.stood_still();
        let Survivors { topic, options, polled, lossy, publisher, guests, .. } = self;
        guests.into_iter().for_each(Process::done);
        drop((polled, lossy));
        everything_is_given_back(stage, &topic, &options, publisher.unwrap());
        stood_still
    }
}

/// As many as the topic has entries for fit in, hold all that can be held, and leave nothing in the entries and bells.
fn everything_is_given_back(
    stage: &Stage,
    topic: &Topic<Message>,
    options: &TopicOptions,
    mut publisher: Publisher<Message>,
) {
    let info = topic.info();
    let subscribers: Vec<_> = (0..options.subscribers_max)
        .map(|_| topic.subscriber(Delivery::Lossy).expect("an entry for everybody"))
        .collect();
    let refused = topic.subscriber(Delivery::Lossy).err();
    assert!(matches!(refused, Some(AttachError::SubscribersFull { .. })), "{refused:?}");
    let mut publishers = Vec::new();
    if let Publishers::Shared(max) = options.publishers {
        publishers.extend((1..max).map(|_| topic.publisher().expect("an entry for everybody")));
        let refused = topic.publisher().err();
        assert!(matches!(refused, Some(AttachError::PublishersFull { .. })), "{refused:?}");
    }
    let mut held = Vec::new();
    let mut subscribers = subscribers.into_iter();
    let mut holder = subscribers.next().unwrap();
    while held.len() < info.hold_blocks as usize + 1 {
        let sequence = publisher.publish(&Message::new(OWN, 0)).unwrap();
        let sample = holder.try_receive().unwrap().expect("the message");
        if sequence.is_multiple_of(info.block_len) {
            let full = held.len() == info.hold_blocks as usize;
            let hold = sample.hold();
            assert_eq!(hold.is_err(), full, "{} of the budget are held", held.len());
            held.push(hold.ok());
        }
    }
    drop((held, holder, subscribers, publishers));
    publisher.publish(&Message::new(OWN, 0)).unwrap(); // takes the bits of whoever was killed asleep
    drop(topic.subscriber(Delivery::Lossy).unwrap()); // the same, of publishers
    drop(publisher);
    let participants = topic.info().participants;
    assert!(participants.is_empty(), "{participants:?}");
    // By `docs/layout.md`: two bells, then the entries.
    let ctl = stage.directory.path().join(TOPIC).join(".topic/ctl");
    let ctl = std::fs::File::open(ctl).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        ctl.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    for at in [4096, 4096 + 128] {
        assert_eq!(word(at) & 3, 0, "somebody is said to sleep");
    }
    let entries = match options.publishers {
        Publishers::Exclusive => 1 + options.subscribers_max,
        Publishers::Shared(max) => max + options.subscribers_max,
    };
    for entry in 0..u64::from(entries) {
        let field = |offset| word(8192 + 512 * entry + offset);
        let [state, pin, second_pin, claim, held] = [0, 8, 16, 32, 40].map(field);
        let found = (state & 0xff, pin, second_pin, claim, held);
        assert_eq!(found, (0, 0, 0, 0, 0), "entry {entry}: kind, pins, claim, held");
    }
}

/// Waits a moment in which others may do what they should not.
pub(crate) fn moment() {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(12) {
        std::thread::yield_now();
    }
}
