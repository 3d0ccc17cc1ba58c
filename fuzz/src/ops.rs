//! Random operations of several publishers and subscribers, which come, go and die, against a plain model of what each must see.
//!
//! Reliable: every message, in order. Lossy: exact numbers of what was missed, and nothing missed that was not overwritten. Held: the
//! content that it had. Full, budget, places: as the model says. No error that a topic in order does not give.

use shmbus::internals::advance_ns;
use shmbus::{
    AttachError, Delivery, Held, HoldBudget, PublishError, Publisher, ReceiveError, Start,
    Subscriber, TryPublishError,
};
use std::cell::OnceCell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::input::Input;
use crate::model::{Fate, Log, Message, Reader};
use crate::stage::{CLAIM, LEN_MAX, Stage, Stages};

mod loan;

const OPERATIONS_MAX: usize = 600;
/// Longer than the 5 ms after which who is stuck looks for the reason.
const STALL_NS: u64 = 6_000_000;

thread_local! {
    static STAGES: OnceCell<Stages> = const { OnceCell::new() };
}

pub fn run(input: &[u8]) {
    STAGES.with(|stages| {
        let mut input = Input(input);
        let stage = stages.get_or_init(Stages::new).get(input.below(8));
        let retire = input.below(2) == 1;
        let mut play = Play::new(stage);
        let mut operations = 0;
        while !input.is_empty() && operations < OPERATIONS_MAX {
            operations += 1;
            play.step(&mut input);
        }
        play.end(retire);
    });
}

/// A publisher and its entry.
struct Feed {
    handle: Publisher<[u8]>,
    entry: u32,
    /// Sequences that it has taken and forgotten: its next claim is the end of them.
    forgotten: Vec<u64>,
    /// The last thing that it did was to commit this sequence.
    committed: Option<u64>,
}

/// A subscriber, its entry, and what the model says of it. Its handle goes before its held samples do.
struct Seat {
    handle: Option<Subscriber<[u8]>>,
    entry: u32,
    reader: Reader,
    held: Vec<(Held<[u8]>, Message)>,
}

struct Play<'a> {
    stage: &'a Stage,
    log: Log,
    feeds: Vec<Feed>,
    seats: Vec<Seat>,
    nonce: u8,
}

impl<'a> Play<'a> {
    fn new(stage: &'a Stage) -> Play<'a> {
        let log = Log::new(stage.info.block_len, stage.info.blocks.into());
        Play { stage, log, feeds: Vec::new(), seats: Vec::new(), nonce: 0 }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(32) {
            0 | 1 => self.join_publisher(input),
            2 => self.leave_publisher(input),
            3 => self.kill_publisher(input),
            4 | 5 => self.subscribe(input),
            6 => self.leave_subscriber(input),
            7 => self.kill_subscriber(input),
            8..=13 => {
                let feed = input.byte();
                let times = 1 + input.below(9);
                (0..times).for_each(|_| _ = self.publish(feed));
            }
            14 | 15 => self.loan(input),
            16..=22 => {
                let seat = input.byte();
                let times = 1 + input.below(9);
                (0..times).for_each(|_| _ = self.receive(seat, false));
            }
            23 | 24 => _ = self.receive(input.byte(), true),
            25 | 26 => self.give_back(input),
            27 => self.receive_latest(input.byte()),
            28 => advance_ns(input.of(&[100_000, STALL_NS, 40_000_000])),
            29 => self.look(input),
            30 => self.publish_a_lap(input.byte()),
            _ => _ = self.publish(input.byte()),
        }
    }

    fn message(&mut self) -> Message {
        self.nonce = self.nonce.wrapping_add(1);
        Message { nonce: self.nonce, len: self.nonce % (LEN_MAX as u8 + 1) }
    }

    /// The entry that has become active since `before`.
    fn entry(&self, before: &[u64]) -> u32 {
        let now = self.stage.states();
        let mut changed =
            (0..now.len()).filter(|i| before[*i] != now[*i] && (2..=4).contains(&(now[*i] as u8)));
        let entry = changed.next().expect("who joined has an entry");
        assert_eq!(changed.next(), None, "one entry");
        entry as u32
    }

    fn join_publisher(&mut self, input: &mut Input<'_>) {
        let before = self.stage.states();
        let full = self.feeds.len() == self.stage.publishers_max as usize;
        match self.stage.topics[input.below(2)].publisher() {
            Ok(handle) => {
                assert!(!full, "one publisher too many");
                let entry = self.entry(&before);
                if !self.stage.shared {
                    assert_eq!(handle.sequence(), self.log.next(), "where it takes over");
                }
                self.feeds.push(Feed { handle, entry, forgotten: Vec::new(), committed: None });
            }
            Err(AttachError::PublisherAlive { .. }) => assert!(full && !self.stage.shared),
            Err(AttachError::PublishersFull { .. }) => assert!(full && self.stage.shared),
            Err(error) => panic!("publisher: {error}"),
        }
    }

    fn take_publisher(&mut self, choice: u8) -> Option<Feed> {
        let count = self.feeds.len();
        (count > 0).then(|| self.feeds.swap_remove(usize::from(choice) % count))
    }

    fn lose(&mut self, sequences: &[u64]) {
        for sequence in sequences {
            let fate = &mut self.log.fates[*sequence as usize];
            if *fate == Fate::Claimed {
                *fate = Fate::Lost;
            }
        }
    }

    fn leave_publisher(&mut self, input: &mut Input<'_>) {
        if let Some(feed) = self.take_publisher(input.byte()) {
            self.lose(&feed.forgotten);
        }
    }

    fn kill_publisher(&mut self, input: &mut Input<'_>) {
        let Some(feed) = self.take_publisher(input.byte()) else { return };
        self.lose(&feed.forgotten);
        let Feed { handle, entry, committed, .. } = feed;
        let how = input.below(4);
        self.stage.kill(entry, || drop(handle));
        let head = self.stage.head().load(Relaxed);
        match (how, committed) {
            // Behind the stamp, and before the head was raised.
            (1, Some(sequence)) if !self.stage.shared => {
                assert_eq!(head, sequence + 1);
                self.stage.head().store(sequence, Relaxed);
            }
            // With a claim shown and not taken.
            (1, _) if self.stage.shared => {
                self.stage.entry(entry)[CLAIM].store(head + 1, Relaxed);
            }
            // Behind the stamp, and before the claim was taken back.
            (2, Some(sequence)) if self.stage.shared => {
                self.stage.entry(entry)[CLAIM].store(sequence + 1, Relaxed);
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, input: &mut Input<'_>) {
        let (delivery, start) = (input.below(4), input.below(4));
        let delivery = match delivery {
            0 => Delivery::Lossy,
            1 | 2 => Delivery::Reliable,
            _ => Delivery::ReliableFor(Duration::from_millis(10)),
        };
        let back = input.byte();
        let start = match start {
            0 | 1 => Start::Newest,
            2 => Start::Oldest,
            _ => Start::Back(back.into()),
        };
        let before = self.stage.states();
        let full = self.seats.len() == self.stage.info.subscribers_max as usize;
        let subscribed = self.stage.topics[input.below(2)].subscriber_from(delivery, start);
        let handle = match subscribed {
            Ok(handle) => handle,
            Err(AttachError::SubscribersFull { .. }) => {
                assert!(full, "places are free");
                return;
            }
            Err(error) => panic!("subscriber: {error}"),
        };
        assert!(!full, "one subscriber too many");
        let (head, began) = (self.stage.head().load(Relaxed), handle.position());
        let retained = self.stage.info.depth - self.log.block_len;
        match start {
            Start::Newest => assert_eq!(began, head),
            Start::Oldest => assert!(began <= head.saturating_sub(retained), "{began} of {head}"),
            Start::Back(count) => {
                assert!(began >= head.saturating_sub(count));
                assert!(began <= head.saturating_sub(count.min(retained)), "{began} of {head}");
            }
        }
        let reader = Reader {
            expected: began,
            began,
            reliable: delivery != Delivery::Lossy,
            may_be_evicted: matches!(delivery, Delivery::ReliableFor(_)),
            skips_to: 0,
        };
        let entry = self.entry(&before);
        self.seats.push(Seat { handle: Some(handle), entry, reader, held: Vec::new() });
    }

    fn seat(&mut self, choice: u8) -> Option<usize> {
        let count = self.seats.len();
        (count > 0).then(|| usize::from(choice) % count)
    }

    /// Its place is free when its last held sample is gone.
    fn leave_subscriber(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.seat(input.byte()) else { return };
        self.seats[at].handle = None;
        self.seats[at].reader.reliable = false;
        if self.seats[at].held.is_empty() {
            self.seats.swap_remove(at);
        }
    }

    fn kill_subscriber(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.seat(input.byte()) else { return };
        let Seat { handle, entry, held, .. } = self.seats.swap_remove(at);
        self.stage.kill(entry, || drop((handle, held)));
    }

    /// Somebody who lives may keep the next block from being opened.
    fn may_be_full(&self) -> bool {
        let number = self.log.number(self.log.next());
        self.seats.iter().any(|seat| seat.reader.may_forbid(&self.log, number))
    }

    fn publish(&mut self, choice: u8) -> bool {
        let Some(mut feed) = self.take_publisher(choice) else { return false };
        let message = self.message();
        let (bytes, len) = message.bytes();
        let mut published = feed.handle.try_publish(&bytes[..len]);
        if matches!(published, Err(TryPublishError::Full)) && !self.may_be_full() {
            advance_ns(STALL_NS); // the dead are looked for from time to time
            published = feed.handle.try_publish(&bytes[..len]);
            assert!(published.is_ok(), "nobody is in the way: {published:?}");
        }
        let done = self.published(
            &mut feed,
            message,
            published.map_err(|error| match error {
                TryPublishError::Full => PublishError::TimedOut,
                TryPublishError::Failed(error) => error,
                _ => unreachable!("no other error"),
            }),
        );
        self.feeds.push(feed);
        done
    }

    fn published(
        &mut self,
        feed: &mut Feed,
        message: Message,
        result: Result<u64, PublishError>,
    ) -> bool {
        let forgotten = std::mem::take(&mut feed.forgotten);
        self.lose(&forgotten);
        match result {
            Ok(sequence) => {
                self.log.push(sequence, Fate::Message(message));
                feed.committed = Some(sequence);
                true
            }
            Err(PublishError::TimedOut) => {
                assert!(self.may_be_full(), "full, and nobody is in the way");
                false
            }
            Err(error) => panic!("publish: {error}"),
        }
    }

    /// As many messages as it takes to lap whoever does not keep up.
    fn publish_a_lap(&mut self, choice: u8) {
        let count = self.stage.info.depth.min(64) + self.log.block_len;
        (0..count).all(|_| self.publish(choice));
    }

    /// True where a message was received.
    fn receive(&mut self, choice: u8, hold: bool) -> bool {
        let Some(at) = self.seat(choice) else { return false };
        let in_use = self.held_blocks();
        let Play { stage, log, seats, .. } = self;
        let Seat { handle, reader, held, .. } = &mut seats[at];
        let Some(subscriber) = handle else { return false };
        let before = subscriber.position();
        match subscriber.try_receive() {
            Ok(Some(sample)) => {
                let sequence = sample.sequence();
                let skipped = (sample.missed_before(), sample.abandoned_before());
                let message = reader.received(log, sequence, skipped, &sample);
                assert_eq!(sample.timestamp_ns().is_some(), stage.info.timestamp);
                if hold {
                    let number = log.number(sequence);
                    let joins = held.iter().any(|(held, _)| log.number(held.sequence()) == number);
                    let room = joins || in_use < stage.info.hold_blocks as usize;
                    match sample.hold() {
                        Ok(sample) => {
                            assert!(room, "held over the budget");
                            held.push((sample, message));
                        }
                        Err(HoldBudget(sample)) => {
                            assert!(!room, "room for a hold");
                            message.check(&sample, "given back");
                        }
                    }
                }
                true
            }
            Ok(None) => {
                let now = subscriber.position();
                reader.found_nothing(log, before, now);
                false
            }
            Err(ReceiveError::Evicted) => {
                assert!(reader.may_be_evicted && reader.reliable, "evicted");
                (reader.reliable, reader.may_be_evicted) = (false, false);
                false
            }
            Err(ReceiveError::Retired) if stage.retired().load(Relaxed) != 0 => {
                let position = subscriber.position();
                assert!(!log.is_message_left(position), "retired before {position} was received");
                false
            }
            Err(error) => panic!("receive: {error}"),
        }
    }

    /// Blocks that the living hold.
    fn held_blocks(&self) -> usize {
        let blocks = |seat: &Seat| {
            let mut blocks: Vec<u64> =
                seat.held.iter().map(|(held, _)| self.log.number(held.sequence())).collect();
            blocks.sort_unstable();
            blocks.dedup();
            blocks.len()
        };
        self.seats.iter().map(blocks).sum()
    }

    fn receive_latest(&mut self, choice: u8) {
        let Some(at) = self.seat(choice) else { return };
        let Play { stage, log, seats, .. } = self;
        let Seat { handle, reader, .. } = &mut seats[at];
        let Some(subscriber) = handle else { return };
        let (before, head) = (subscriber.position(), stage.head().load(Relaxed));
        let newest = log.newest(before + 1, head).filter(|newest| head - newest <= 256);
        if let Some(newest) = newest {
            reader.skips_to = reader.skips_to.max(newest);
        }
        match subscriber.receive_latest() {
            Ok(Some(sample)) => {
                let sequence = sample.sequence();
                let skipped = (sample.missed_before(), sample.abandoned_before());
                reader.received(log, sequence, skipped, &sample);
                if let Some(newest) = newest {
                    assert_eq!(sequence, newest, "the newest message");
                }
            }
            Ok(None) => {
                assert_eq!(newest, None, "the newest message was not received");
                let now = subscriber.position();
                reader.found_nothing(log, before, now);
            }
            Err(ReceiveError::Evicted) => {
                assert!(reader.may_be_evicted && reader.reliable, "evicted");
                (reader.reliable, reader.may_be_evicted) = (false, false);
            }
            Err(error) => panic!("receive_latest: {error}"),
        }
    }

    fn give_back(&mut self, input: &mut Input<'_>) {
        let Some(at) = self.seat(input.byte()) else { return };
        let Seat { handle, held, .. } = &mut self.seats[at];
        if !held.is_empty() {
            let (sample, message) = held.swap_remove(input.below(held.len()));
            message.check(&sample, "held");
            if input.below(2) == 0 {
                held.push((sample.clone(), message));
            }
        }
        if handle.is_none() && held.is_empty() {
            self.seats.swap_remove(at);
        }
    }

    fn look(&self, input: &mut Input<'_>) {
        let info = self.stage.topics[input.below(2)].info();
        assert!(info.head <= self.log.next());
        let living = info.participants.iter().filter(|other| other.liveness.is_alive()).count();
        assert_eq!(living, self.feeds.len() + self.seats.len(), "who lives");
        for seat in &self.seats {
            seat.held.iter().for_each(|(sample, message)| message.check(sample, "held"));
        }
    }

    /// Everybody receives what is left, in half of the plays from a topic that was removed.
    fn end(mut self, retire: bool) {
        if retire {
            self.feeds.clear();
            for fate in &mut self.log.fates {
                if *fate == Fate::Claimed {
                    *fate = Fate::Lost;
                }
            }
            self.stage.retired().store(1, Relaxed);
        }
        for at in 0..self.seats.len() {
            let mut waits = 0;
            while waits < 4 {
                let position = |seat: &Seat| seat.handle.as_ref().map(Subscriber::position);
                let before = position(&self.seats[at]);
                let received = self.receive(at as u8, false);
                let now = position(&self.seats[at]);
                if received || now != before {
                    waits = 0;
                    continue;
                }
                waits += 1;
                advance_ns(STALL_NS);
            }
            let Some(now) = self.seats[at].handle.as_ref().map(Subscriber::position) else {
                continue;
            };
            let ahead = self.log.at(now);
            assert!(matches!(ahead, None | Some(Fate::Claimed)), "stands at {now}: {ahead:?}");
        }
        for seat in &self.seats {
            seat.held.iter().for_each(|(sample, message)| message.check(sample, "held"));
        }
    }
}
