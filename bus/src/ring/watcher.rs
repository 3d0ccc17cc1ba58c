//! Receiving without taking part: no entry, no pin, no store. What is read is a copy, and is looked at twice.
//!
//! ```text
//! word = table; names the block?  stamp == (sequence, message)?  copy len, time, payload;  fence;  table == word: it is a message
//! ```
//!
//! A publisher writes into a block again only after the block has left the table, and after a fence of its own. So whoever copied a byte
//! of what was written later finds, behind its own fence, that the table word has changed: the copy is thrown away and the watcher was
//! lapped. The words are copied by atomic loads; nothing ever refers to them as plain memory.

use core::cmp::Ordering;

use super::reader::{Retained, Start, first, resume_after, retained};
use super::skips::{Skipped, Skips};
use super::{Corrupt, abandoned_stamp, message_stamp, table};
use crate::atomics::{Acquire, Relaxed, fence};
use crate::region::Region;

/// What there is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A message, whose copy is in the watcher.
    Message(Copied),
    /// Nothing yet.
    Empty,
    /// The watcher moved on without a message (lapped, or an abandoned sequence): look again.
    Again,
}

/// What a message's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) sequence: u64,
    pub(crate) len: u32,
    pub(crate) publisher: u32,
    pub(crate) timestamp_ns: u64,
}

/// The private state of one observer.
pub(crate) struct Watcher {
    /// Next sequence to be seen.
    sequence: u64,
    skips: Skips,
    /// The payload of the last message, filled up to a word.
    words: Vec<u64>,
}

impl Watcher {
    /// Reads nothing but where to begin.
    pub(crate) fn begin(region: &Region, start: Start) -> Result<Watcher, Corrupt> {
        let sequence = first(region, start)?;
        Ok(Watcher { sequence, skips: Skips::none(), words: Vec::new() })
    }

    /// The next sequence to be seen.
    pub(crate) fn position(&self) -> u64 {
        self.sequence
    }

    /// What it went past without a message since it began.
    pub(crate) fn skipped(&self) -> Skipped {
        self.skips.total()
    }

    /// The same, just before message `sequence`, which was seen last.
    pub(crate) fn skipped_before(&self, sequence: u64) -> Skipped {
        self.skips.before(sequence)
    }

    /// The payload of the message that was seen last; the bytes behind its length mean nothing.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Copies the next message, if it is there, and goes past it.
    pub(crate) fn next(&mut self, region: &Region) -> Result<Seen, Corrupt> {
        let geometry = region.geometry();
        let sequence = self.sequence;
        let number = geometry.number(sequence);
        let word = region.table(number).load(Relaxed); // looked at again behind the copy
        match table::age(word, number) {
            Ordering::Less => return Ok(Seen::Empty), // not open
            Ordering::Equal => {}
            Ordering::Greater => return self.lapped(region, word),
        }
        let at = geometry.slot(table::physical(word, geometry)?, sequence);
        let slot = region.slot(at);
        let stamp = slot.stamp.load(Acquire); // [message]: payload, length, time and publisher
        let len = slot.len.load(Relaxed);
        let fits = len <= geometry.payload_max;
        let copied = Copied {
            sequence,
            len,
            publisher: slot.publisher.load(Relaxed),
            timestamp_ns: if geometry.timestamp { slot.timestamp_ns.load(Relaxed) } else { 0 },
        };
        if stamp == message_stamp(sequence) && fits {
            let words = &region.words(at)[..len.div_ceil(8) as usize];
            self.words.clear();
            self.words.extend(words.iter().map(|word| word.load(Relaxed)));
        }
        fence(Acquire); // [observed]: of whatever was written there later, that the block had left the table before
        let again = region.table(number).load(Relaxed);
        if again != word {
            return self.lapped(region, again);
        }
        if stamp == abandoned_stamp(sequence) {
            self.skip(Skipped::ABANDONED);
            return Ok(Seen::Again);
        }
        if stamp != message_stamp(sequence) {
            return Ok(Seen::Empty);
        }
        self.sequence += 1;
        if fits {
            Ok(Seen::Message(copied))
        } else {
            Err(Corrupt::Length { len, max: geometry.payload_max })
        }
    }

    /// Goes to `sequence`, if it is there; forward, those between are missed.
    pub(crate) fn seek(&mut self, region: &Region, sequence: u64) -> Result<Retained, Corrupt> {
        let found = retained(region, self.sequence, sequence)?;
        if found == Retained::There {
            match sequence.checked_sub(self.sequence) {
                Some(ahead) => self.skip(Skipped::missed(ahead)),
                None => {
                    self.skips.go_back(self.sequence, sequence);
                    self.sequence = sequence;
                }
            }
        }
        Ok(found)
    }

    /// The block of the next sequence is gone; `word` names a newer one in its place.
    #[cold]
    fn lapped(&mut self, region: &Region, word: u64) -> Result<Seen, Corrupt> {
        let resume = resume_after(region, self.sequence, word)?;
        self.skip(Skipped::missed(resume - self.sequence));
        Ok(Seen::Again)
    }

    fn skip(&mut self, skipped: Skipped) {
        self.sequence = self.skips.add(self.sequence, skipped);
    }
}
