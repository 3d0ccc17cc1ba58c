//! The processes that publish and receive in the scenarios, and what they owe: a feed writes down what it has confirmed, a receiver
//! compares what came with everybody else.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use shmbus::{Delivery, Publisher, Sample, Topic, TopicOptions, TryPublishError};

use crate::board::Board;
use crate::message::{END, Message};
use crate::processes::{Part, Process, Role, Stage};
use crate::random::Random;

pub(crate) const TOPIC: &str = "crowd/quotes";

/// The feed of messages that are dropped before they happen.
const DROPPED: u64 = END - 1;

/// Asks feeds to end.
pub(crate) const STOP: usize = 1;
/// How many commits found that their sequence had been revoked.
pub(crate) const REVOKED: usize = 2;
/// The number + 1 of the feed that is to stop itself, the next time that it has a loan open.
pub(crate) const PAUSE: usize = 3;
/// First word of the receivers, [`RECEIVER_WORDS`] for each.
const RECEIVERS: usize = 64;
const RECEIVER_WORDS: usize = 8;
const ATTACHED: usize = 0;
const NEXT: usize = 1;
const MISSED: usize = 2;
/// When the last message came, by the monotonic clock.
const CAME_NS: usize = 3;
/// First word of the feeds: what each has confirmed.
const CONFIRMED: usize = 1 << 10;
pub(crate) const FEEDS_MAX: u64 = 20_000;
pub(crate) const WITNESSES_MAX: usize = 2;
/// First word of what each witness has received of each feed.
const RECEIVED: usize = CONFIRMED + FEEDS_MAX as usize;
/// What everybody found at the last sequences.
const ORDER: usize = 1 << 16;
const ORDER_LEN: u64 = 1 << 16;
const _: () = assert!(RECEIVED + WITNESSES_MAX * FEEDS_MAX as usize <= ORDER);

pub(crate) const ROLES: &[Part] = &[("feed", feed), ("receiver", receiver)];

pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(crate) fn open(role: &Role) -> Topic<Message> {
    Topic::open_in(&role.directory, TOPIC).unwrap()
}

pub(crate) fn create(stage: &Stage, options: &TopicOptions) -> Topic<Message> {
    Topic::create_in(&stage.directory, TOPIC, options).unwrap()
}

/// Publishes in every way, until it is killed or asked to end. `wake_word`, where it is not 0, is given the time of the first publish that
/// finds it empty.
fn feed(role: &Role) {
    let [feed, seed, wake_word] = role.numbers();
    let mut random = Random::new(seed);
    let board = &role.board;
    let confirmed = board.word(CONFIRMED + feed as usize);
    let mut publisher = open(role).publisher().unwrap();
    for counter in 0.. {
        if board.word(STOP).load(Relaxed) != 0 {
            return;
        }
        publish_somehow(&mut publisher, feed, counter, &mut random, board);
        confirmed.store(counter + 1, SeqCst);
        let wake = board.word(wake_word as usize);
        if wake_word != 0 && wake.load(Relaxed) == 0 {
            wake.store(now_ns(), SeqCst);
        }
    }
}

fn publish_somehow(
    publisher: &mut Publisher<Message>,
    feed: u64,
    counter: u64,
    random: &mut Random,
    board: &Board,
) {
    let way = random.below(0..5);
    match way {
        0 => {
            publisher.publish(&Message::new(feed, counter)).unwrap();
        }
        1 => {
            let message = Message::new(feed, counter);
            match publisher.try_publish(&message) {
                Ok(_) => {}
                Err(TryPublishError::Full) => {
                    publisher.publish(&message).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        _ => {
            if way == 2 && random.one_in(10) {
                publisher.loan().unwrap().fill(DROPPED, counter);
            }
            let mut loan = publisher.loan().unwrap();
            let first = loan.sequence();
            let pause = board.word(PAUSE);
            if pause.load(Relaxed) == feed + 1 {
                pause.store(0, SeqCst);
                rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
            }
            loan.fill(feed, counter);
            if loan.commit().unwrap() != first {
                board.word(REVOKED).fetch_add(1, Relaxed);
            }
        }
    }
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
}

impl Account {
    /// From sequence `next` on.
    pub(crate) fn new(reliable: bool, next: u64) -> Account {
        let from_the_beginning = reliable && next == 0;
        Account {
            reliable,
            from_the_beginning,
            next,
            missed: 0,
            abandoned: 0,
            feeds: HashMap::new(),
        }
    }

    pub(crate) fn accept(
        &mut self,
        board: &Board,
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
            // Each feed goes on with the next one when the one before was confirmed.
            Some(next) if self.reliable => assert_eq!(counter, next, "lost or twice: {what}"),
            Some(next) => assert!(counter >= next, "twice or out of order: {what}"),
            None if self.from_the_beginning => assert_eq!(counter, 0, "lost: {what}"),
            None => {}
        }
        if self.reliable {
            // It goes past what was abandoned, and nothing else.
            for abandoned in self.next..sequence {
                agree(board, abandoned, ABANDONED);
            }
        }
        agree(board, sequence, feed.min(LAST) << 32 | counter);
        self.next = sequence + 1;
        self.missed += missed;
        self.abandoned += abandoned;
    }

    pub(crate) fn feed(&self, feed: u64) -> u64 {
        self.feeds.get(&feed).copied().unwrap_or(0)
    }
}

/// [`END`] in 15 bits.
const LAST: u64 = (1 << 15) - 2;
const ABANDONED: u64 = ((1 << 15) - 1) << 32;

/// Compares what a subscriber found at a sequence with what others have found.
fn agree(board: &Board, sequence: u64, what: u64) {
    let word = board.word(ORDER + (sequence % ORDER_LEN) as usize);
    let mine = (sequence / ORDER_LEN + 1) << 47 | what;
    let mut seen = word.load(Acquire);
    while seen >> 47 < mine >> 47 {
        match word.compare_exchange(seen, mine, SeqCst, Acquire) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
    // A later lap: this one was stopped for long.
    let another = seen >> 47 == mine >> 47 && seen != mine;
    assert!(!another, "sequence {sequence}: {what:x} here, {seen:x} elsewhere");
}

/// How a receiver receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Polling,
    Sleeping,
    Holding,
    Mixed,
}

/// Receives until the end, and checks everything.
fn receiver(role: &Role) {
    let [slot, reliable, manner, witness, seed] = role.numbers();
    let board = &role.board;
    let mut random = Random::new(seed);
    let word = |word| board.word(RECEIVERS + RECEIVER_WORDS * slot as usize + word);
    let reliable = reliable != 0;
    let delivery = if reliable { Delivery::Reliable } else { Delivery::Lossy };
    let manners = [Manner::Polling, Manner::Sleeping, Manner::Holding, Manner::Mixed];
    let manner = manners[manner as usize];
    let mut subscriber = open(role).subscriber(delivery).unwrap();
    let mut account = Account::new(reliable, subscriber.position());
    let mut held = Vec::new();
    word(ATTACHED).store(1, SeqCst);
    loop {
        let sample = match (manner, random.below(0..4)) {
            (Manner::Sleeping, _) | (Manner::Mixed, 0) => Some(subscriber.receive()),
            (Manner::Mixed, 1) => subscriber.receive_timeout(Duration::from_millis(1)).transpose(),
            _ => subscriber.try_receive().transpose(),
        };
        let Some(sample) = sample.transpose().unwrap() else {
            std::thread::yield_now();
            continue;
        };
        let came_ns = now_ns();
        account.accept(board, sample.sequence(), skipped_before(&sample), &sample);
        let message = *sample;
        let last = message.feed == END;
        if witness > 0 && !last {
            let received = RECEIVED + (witness - 1) as usize * FEEDS_MAX as usize;
            board.word(received + message.feed as usize).store(message.counter + 1, Relaxed);
        }
        if manner == Manner::Holding && held.len() < 2 && random.one_in(20) {
            // Others may have used up the budget.
            held.extend(sample.hold().ok().map(|held| (held, message)));
        }
        if last || random.one_in(100) {
            for (sample, message) in held.drain(..) {
                assert!(*sample == message, "changed while it was held: {}", sample.sequence());
            }
        }
        word(CAME_NS).store(came_ns, SeqCst);
        word(NEXT).store(account.next, SeqCst);
        if last {
            break;
        }
    }
    assert_eq!(account.missed, subscriber.missed());
    assert_eq!(account.abandoned, subscriber.abandoned());
    word(MISSED).store(account.missed + account.abandoned, SeqCst);
}

impl Stage {
    /// Starts a receiver, and waits until it is attached. A witness writes down what it receives of each feed.
    pub(crate) fn receiver(
        &self,
        slot: usize,
        reliable: bool,
        manner: Manner,
        witness: Option<usize>,
        seed: u64,
    ) -> Process {
        for word in 0..RECEIVER_WORDS {
            self.receiver_word(slot, word).store(0, SeqCst);
        }
        let witness = witness.map_or(0, |witness| witness as u64 + 1);
        let numbers = [slot as u64, reliable.into(), manner as u64, witness, seed];
        let receiver = self.spawn("receiver", &numbers);
        self.until("a receiver attaches", || self.receiver_word(slot, ATTACHED).load(SeqCst) == 1);
        receiver
    }

    fn receiver_word(&self, slot: usize, word: usize) -> &std::sync::atomic::AtomicU64 {
        self.board.word(RECEIVERS + RECEIVER_WORDS * slot + word)
    }

    /// The sequence that a receiver expects next.
    pub(crate) fn next_of(&self, slot: usize) -> u64 {
        self.receiver_word(slot, NEXT).load(SeqCst)
    }

    /// How many sequences without a message a receiver that has ended went past.
    pub(crate) fn missed_by(&self, slot: usize) -> u64 {
        self.receiver_word(slot, MISSED).load(SeqCst)
    }

    /// When the last message came to a receiver.
    pub(crate) fn came_ns(&self, slot: usize) -> u64 {
        self.receiver_word(slot, CAME_NS).load(SeqCst)
    }

    pub(crate) fn confirmed(&self, feed: u64) -> u64 {
        self.board.word(CONFIRMED + feed as usize).load(SeqCst)
    }

    /// Publishes the last message: receivers end with it.
    pub(crate) fn publish_end(&self, topic: &Topic<Message>) -> u64 {
        topic.publisher().unwrap().publish(&Message::new(END, 0)).unwrap()
    }

    /// Of each feed, a witness received everything that was confirmed, and at most one message more: that which was committed and
    /// not yet confirmed. How many came at all.
    pub(crate) fn check_confirmed(&self, witness: usize, feeds: u64) -> u64 {
        let received = RECEIVED + witness * FEEDS_MAX as usize;
        (0..feeds)
            .map(|feed| {
                let confirmed = self.confirmed(feed);
                let received = self.board.word(received + feed as usize).load(SeqCst);
                assert!(
                    (confirmed..=confirmed + 1).contains(&received),
                    "feed {feed} confirmed {confirmed} messages, {received} came to {witness}"
                );
                received
            })
            .sum()
    }
}
