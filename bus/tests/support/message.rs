//! What the feeds of a test publish, and what a subscriber can say about it by itself.

use bytemuck::{Pod, Zeroable};

const WORDS: usize = 61;

/// The feed of the last message of a test.
pub(crate) const END: u64 = u64::MAX;

/// Half a kilobyte in which every word depends on feed, counter and place: two messages mixed are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable, shmbus::Message)]
#[repr(C)]
pub(crate) struct Message {
    /// Which incarnation of the publisher.
    pub(crate) feed: u64,
    /// Its messages, from 0.
    pub(crate) counter: u64,
    words: [u64; WORDS],
    sum: u64,
}

impl Message {
    pub(crate) fn new(feed: u64, counter: u64) -> Message {
        let mut message = Message::zeroed();
        message.fill(feed, counter);
        message
    }

    /// Writes in place, last word first.
    pub(crate) fn fill(&mut self, feed: u64, counter: u64) {
        let mut sum = 0u64;
        for place in (0..WORDS).rev() {
            let word = word(feed, counter, place);
            self.words[place] = word;
            sum = sum.rotate_left(1) ^ word;
        }
        self.sum = sum;
        self.counter = counter;
        self.feed = feed;
    }

    /// Reads every byte anew and says whether they belong together.
    pub(crate) fn is_whole(&self) -> bool {
        let this = std::hint::black_box(self); // it may be shared memory: what was read before does not count
        let mut sum = 0u64;
        for place in (0..WORDS).rev() {
            if this.words[place] != word(this.feed, this.counter, place) {
                return false;
            }
            sum = sum.rotate_left(1) ^ this.words[place];
        }
        sum == this.sum
    }
}

fn word(feed: u64, counter: u64, place: usize) -> u64 {
    (feed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ counter)
        .wrapping_add(place as u64)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// The stream as one subscriber has seen it: panics where that cannot be.
pub(crate) struct Stream {
    reliable: bool,
    /// The sequence after the last one received.
    pub(crate) next: u64,
    pub(crate) received: u64,
    pub(crate) missed: u64,
    last: Option<(u64, u64)>,
}

impl Stream {
    /// From sequence `next` on.
    pub(crate) fn new(reliable: bool, next: u64) -> Stream {
        Stream { reliable, next, received: 0, missed: 0, last: None }
    }

    pub(crate) fn accept(&mut self, sequence: u64, missed_before: u64, message: &Message) {
        assert!(message.is_whole(), "torn: sequence {sequence}: {message:?}");
        let Message { feed, counter, .. } = *message;
        let what = format_args!("sequence {sequence} = {feed}/{counter} after {:?}", self.last);
        assert_eq!(sequence, self.next + missed_before, "missed_before is wrong: {what}");
        assert!(!self.reliable || missed_before == 0, "a reliable subscriber missed some: {what}");
        match self.last {
            // Of one feed, the counters go with the sequences.
            Some((last, last_counter)) if last == feed => {
                assert_eq!(counter, last_counter + 1 + missed_before, "{what}");
            }
            Some((last, _)) => {
                assert!(feed > last, "a feed that had been replaced is back: {what}");
                assert!(counter <= missed_before, "a feed does not begin with 0: {what}");
            }
            None => assert!(!self.reliable || sequence > 0 || counter == 0, "{what}"),
        }
        self.next = sequence + 1;
        self.received += 1;
        self.missed += missed_before;
        self.last = Some((feed, counter));
    }
}
