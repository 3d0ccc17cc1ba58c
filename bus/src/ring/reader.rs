//! Receiving: pin a block once, then one load for each message.
//!
//! ```text
//! in the pinned block:  stamp.load == (sequence, message)  ->  it is there
//! at a boundary:        read table; pin.store; fence; read table again; unchanged: the block stays until the pin moves
//! ```
//!
//! A lossy reader whose block has left the table was *lapped*: it goes on in the middle of what is retained and knows exactly how many
//! sequences it missed. A reliable one is never lapped: its cursor keeps publishers from opening the block that would do it.

use core::cmp::Ordering;

use super::skips::{Skipped, Skips};
use super::{Corrupt, SlotAt, abandoned_stamp, checked, message_stamp, table};
use crate::atomics::{Acquire, Relaxed, Release, SeqCst, fence};
use crate::crash;
use crate::guard;
use crate::layout::Entry;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, Kind, State};

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    Newest,
    /// With the oldest message that the topic retains.
    Oldest,
    /// That many messages before the newest, or with the oldest where fewer are retained.
    Back(u64),
}

/// What there is to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A message, and its sequence.
    Message(SlotAt, u64),
    /// Nothing yet.
    Empty,
    /// The reader moved on without a message (lapped, or an abandoned sequence): look again.
    Again,
    /// The reader was reliable, held publishers up for longer than it asked for, and is lossy from now on.
    Evicted,
}

/// How the entry into a block went.
enum Entered {
    Pinned,
    NotOpen,
    Lapped,
    Evicted,
}

/// The private state of one subscriber. On cache lines of its own: it changes with each message, and a program may well keep a publisher, which
/// another thread uses, beside its subscriber.
#[repr(align(128))]
pub(crate) struct Reader {
    index: EntryIndex,
    reliable: bool,
    /// Next sequence to be received.
    sequence: u64,
    /// First sequence behind the pinned block; `sequence == block_end` means that a block must be entered.
    block_end: u64,
    /// The slot of `sequence`, while its block is pinned.
    slot: SlotAt,
    /// The cursor as it was last stored.
    cursor: u64,
    skips: Skips,
    /// Was reliable, and has not said yet that it is not any more.
    evicted: bool,
}

impl Reader {
    /// Makes an occupied entry a lossy subscriber.
    pub(crate) fn attach_lossy(
        region: &Region,
        index: EntryIndex,
        generation: u64,
        start: Start,
    ) -> Result<Reader, Corrupt> {
        // Before it counts: whoever sees it take part publishes for it.
        let reader = Reader::at(region, index, first(region, start)?)?;
        region.entry(index).position.store(reader.sequence, Relaxed);
        registry::activate(region, index, generation, Kind::Lossy);
        Ok(reader)
    }

    /// Makes an occupied entry a reliable subscriber: from the sequence at which it begins, it misses nothing.
    ///
    /// The cursor is shown, then the table is read: either every later opening sees the cursor, or the reader sees that opening and
    /// begins further on. The first block is pinned before this returns, if it is open.
    pub(crate) fn attach_reliable(
        region: &Region,
        index: EntryIndex,
        generation: u64,
        start: Start,
    ) -> Result<Reader, Corrupt> {
        const TRIES: u32 = 10_000; // a publisher laps the whole ring between two steps of this loop, each time
        let geometry = region.geometry();
        let entry = region.entry(index);
        let mut floor = 0;
        for attempt in 0..TRIES {
            let sequence = first(region, start)?.max(floor);
            let mut reader = Reader::at(region, index, sequence)?;
            entry.position.store(sequence, Relaxed); // before it counts
            entry.cursor.store(sequence, Relaxed); // the fence below, or `roster`
            crash::point("join.cursor_shown");
            if attempt == 0 {
                registry::activate(region, index, generation, Kind::Reliable);
            }
            fence(SeqCst); // [cursor/displacement]; [cursor/publisher] below
            region.publishers_bell(index).ring_after_fence();
            let number = geometry.number(sequence);
            let word = region.table(number).load(Relaxed); // who enters acquires
            let attached = match table::age(word, number) {
                Ordering::Less => true, // not open: whoever opens what follows has seen the cursor
                Ordering::Equal => matches!(reader.enter(region)?, Entered::Pinned),
                Ordering::Greater => false,
            };
            if attached {
                crash::point("join.pinned");
                reader.reliable = true;
                reader.cursor = sequence;
                reader.skips = Skips::none();
                return Ok(reader);
            }
            // Room to arrive, and more of it the longer it takes.
            let ahead = u64::from(attempt).min(u64::from(geometry.blocks) / 2);
            floor = (number + 1 + ahead) * geometry.block_len;
            floor = floor.min(checked(region.head().load(Relaxed))?.max(sequence)); // a hint: `first` acquires
        }
        Err(Corrupt::Stream)
    }

    fn at(region: &Region, index: EntryIndex, sequence: u64) -> Result<Reader, Corrupt> {
        let geometry = region.geometry();
        Ok(Reader {
            index,
            reliable: false,
            sequence,
            block_end: sequence,
            slot: geometry.slot(geometry.block(0)?, sequence),
            cursor: sequence,
            skips: Skips::none(),
            evicted: false,
        })
    }

    /// The next sequence to be received.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.sequence
    }

    /// What it went past without a message since it attached.
    pub(crate) fn skipped(&self) -> Skipped {
        self.skips.total()
    }

    /// The same, just before message `sequence`, which was received last.
    #[inline(always)]
    pub(crate) fn skipped_before(&self, sequence: u64) -> Skipped {
        self.skips.before(sequence)
    }

    /// Whether publishers wait for it.
    pub(crate) fn is_reliable(&self) -> bool {
        self.reliable
    }

    /// The next message, if it is there. The slot stays as it is until the next call; or longer, if it is held.
    #[inline(always)]
    pub(crate) fn next(&mut self, region: &Region) -> Result<Next, Corrupt> {
        let next = self.look(region)?;
        match next {
            Next::Message(at, sequence) => self.pass(region, at, sequence),
            Next::Evicted => self.evicted = false, // said
            Next::Empty | Next::Again => {}
        }
        Ok(next)
    }

    /// Goes past the message that [`Reader::look`] has found.
    #[inline(always)]
    pub(crate) fn pass(&mut self, region: &Region, at: SlotAt, sequence: u64) {
        self.sequence = sequence + 1;
        self.slot = region.geometry().next(at);
    }

    /// Takes back that the last [`Reader::next`] went past the message in `at`.
    pub(crate) fn put_back(&mut self, at: SlotAt) {
        self.sequence -= 1;
        self.slot = at;
    }

    /// The next message, if it is there and in the pinned block: the pin stays where it is. Does not go past it.
    #[inline]
    pub(crate) fn look_in_block(&mut self, region: &Region) -> Option<(SlotAt, u64)> {
        while self.sequence != self.block_end {
            match self.look(region) {
                Ok(Next::Message(at, sequence)) => return Some((at, sequence)),
                Ok(Next::Again) => {} // abandoned
                Ok(Next::Empty | Next::Evicted) | Err(_) => return None,
            }
        }
        None
    }

    /// What [`Reader::next`] would say; does not go past a message.
    #[inline(always)]
    pub(crate) fn look(&mut self, region: &Region) -> Result<Next, Corrupt> {
        if self.sequence == self.block_end {
            match self.enter(region)? {
                Entered::Pinned => {}
                Entered::NotOpen => return Ok(Next::Empty),
                Entered::Lapped => return Ok(Next::Again),
                Entered::Evicted => return Ok(Next::Evicted),
            }
        }
        let (at, sequence) = (self.slot, self.sequence);
        let stamp = region.slot(at).stamp.load(Acquire); // [message]: payload, length and time
        if stamp == message_stamp(sequence) {
            return Ok(Next::Message(at, sequence));
        }
        if stamp == abandoned_stamp(sequence) {
            self.pass_over(region);
            return Ok(Next::Again);
        }
        Ok(Next::Empty)
    }

    /// Goes past the next sequence, in the pinned block: it never becomes a message.
    pub(crate) fn pass_over(&mut self, region: &Region) {
        self.skip(Skipped::ABANDONED);
        self.slot = region.geometry().next(self.slot);
    }

    /// The slot of the next sequence, if it was taken by a shared publisher and has no message: its publisher is slow, stopped or
    /// dead. The block is pinned.
    pub(crate) fn stuck_at(&self, region: &Region) -> Option<SlotAt> {
        // [stream position]
        let taken = self.sequence != self.block_end && region.head().load(Acquire) > self.sequence;
        taken.then_some(self.slot)
    }

    /// Moves on to the newest message, if there are several.
    pub(crate) fn skip_to_newest(&mut self, region: &Region) -> Result<(), Corrupt> {
        let head = checked(region.head().load(Acquire))?; // [stream position]
        if let Some(newest) = self.newest(region, head) {
            self.skip_to(region, newest);
        }
        Ok(())
    }

    /// Moves on to `sequence`, which is not behind; those between are missed, whatever they are.
    fn skip_to(&mut self, region: &Region, sequence: u64) {
        let geometry = region.geometry();
        let block = geometry.block_of(self.slot);
        let pinned = sequence < self.block_end;
        self.skip(Skipped::missed(sequence - self.sequence));
        if pinned {
            self.slot = geometry.slot(block, sequence);
        } else {
            self.block_end = sequence;
        }
    }

    /// Goes to `sequence`, if it is there; forward, those between are missed. The caller goes back with a lossy reader only.
    pub(crate) fn seek(&mut self, region: &Region, sequence: u64) -> Result<Retained, Corrupt> {
        let pinned = (self.sequence..self.block_end).contains(&sequence);
        let found = retained(region, self.sequence, sequence)?;
        match found {
            Retained::Ahead { .. } => return Ok(found),
            Retained::Gone { .. } if !pinned => return Ok(found),
            Retained::Gone { .. } | Retained::There => {}
        }
        if sequence >= self.sequence {
            self.skip_to(region, sequence);
        } else {
            self.skips.go_back(self.sequence, sequence);
            self.sequence = sequence;
            self.block_end = sequence;
        }
        Ok(Retained::There)
    }

    /// The newest sequence below `head`, and behind the next one, that is a message: the last ones may be claims that shared
    /// publishers have not committed, or abandoned. A stamp says what it says whether its block is pinned or not; nothing behind it is read
    /// before it is looked at again.
    fn newest(&self, region: &Region, head: u64) -> Option<u64> {
        const LOOKS: usize = 256;
        let geometry = region.geometry();
        (self.sequence + 1..head).rev().take(LOOKS).find(|sequence| {
            let number = geometry.number(*sequence);
            let word = region.table(number).load(Relaxed);
            let slot = table::physical(word, geometry).map(|block| geometry.slot(block, *sequence));
            table::age(word, number).is_eq()
                && slot
                    .is_ok_and(|at| region.slot(at).stamp.load(Relaxed) == message_stamp(*sequence))
        })
    }

    fn skip(&mut self, skipped: Skipped) {
        self.sequence = self.skips.add(self.sequence, skipped);
    }

    /// Pins the block of the next sequence.
    #[cold]
    fn enter(&mut self, region: &Region) -> Result<Entered, Corrupt> {
        let geometry = region.geometry();
        let entry = region.entry(self.index);
        let number = geometry.number(self.sequence);
        let word = region.table(number).load(Acquire); // [table]: the newest block, if it is another one; [entry]: and who evicted me
        if self.evicted || self.is_evicted(region, entry) {
            return Ok(Entered::Evicted);
        }
        match table::age(word, number) {
            Ordering::Less => {
                self.show_cursor(entry);
                return Ok(Entered::NotOpen); // and no pin is taken
            }
            Ordering::Equal => {}
            Ordering::Greater => return self.lapped(region, word),
        }
        let block = table::physical(word, geometry)?;
        entry.pin.store(block.pinned(), Release); // [last use]: of the block that was pinned; [hold]
        crash::point("enter.pinned");
        if self.reliable {
            self.cursor = self.sequence;
            entry.cursor.store(self.cursor, Relaxed); // what is read, the pin says
            crash::point("enter.cursor_shown");
        }
        fence(SeqCst); // [pin/displacement]: an opening that does not see the pin is seen here; [cursor/publisher]
        crash::point("enter.fenced");
        let again = region.table(number).load(Acquire); // [table]
        if again != word {
            entry.pin.store(0, Relaxed); // nothing was read, and the fence releases what was before
            self.block_end = self.sequence;
            if self.is_evicted(region, entry) {
                return Ok(Entered::Evicted);
            }
            return self.lapped(region, again);
        }
        if self.reliable {
            region.publishers_bell(self.index).ring_after_fence();
        }
        entry.position.store(self.sequence, Relaxed);
        entry.missed.store(self.skips.total().missed, Relaxed);
        self.slot = geometry.slot(block, self.sequence);
        self.block_end = (number + 1) * geometry.block_len;
        crash::point("enter.done");
        Ok(Entered::Pinned)
    }

    /// Whether a reliable reader finds that it is not any more. It stays at its boundary until it has said so.
    ///
    /// On a guarded topic by its grant: who evicted it there may have been killed before it said so in the entry.
    fn is_evicted(&mut self, region: &Region, entry: &Entry) -> bool {
        // Behind the table's word: whoever evicted me did so before it displaced a block that I need.
        let state = State::of(entry.state.load(Relaxed));
        if self.reliable && guard::believe(region, self.index, state) != Kind::Reliable {
            self.reliable = false;
            self.evicted = true;
        }
        self.evicted
    }

    /// Leaves a pinned block that the stream has given up: for a lossy reader that is stuck in it. True where it did.
    pub(crate) fn leave_displaced(&mut self, region: &Region) -> bool {
        let number = region.geometry().number(self.sequence);
        let word = region.table(number).load(Relaxed); // who enters acquires
        let displaced = !self.reliable && table::age(word, number).is_gt();
        if displaced {
            self.block_end = self.sequence; // so that the next look enters, and finds that it was lapped
        }
        displaced
    }

    /// A reliable reader that has received everything says so, once: when the next block but one is opened, nobody has to wait for it. Nobody
    /// waits for it now: it keeps the block that it enters next from being displaced, which is not even open.
    fn show_cursor(&mut self, entry: &Entry) {
        if self.reliable && self.cursor != self.sequence {
            self.cursor = self.sequence;
            entry.cursor.store(self.cursor, Relaxed);
            crash::point("idle.cursor_shown");
            entry.position.store(self.cursor, Relaxed);
        }
    }

    /// The block of the next sequence is gone; `word` names a newer one in its place.
    #[cold]
    fn lapped(&mut self, region: &Region, word: u64) -> Result<Entered, Corrupt> {
        if self.reliable {
            return Err(Corrupt::Stream);
        }
        let resume = resume_after(region, self.sequence, word)?;
        self.skip(Skipped::missed(resume - self.sequence));
        crash::point("lapped.counted");
        self.block_end = self.sequence;
        Ok(Entered::Lapped)
    }
}

/// Where a reader goes on that was to read `sequence`, in whose block's place the table names a newer one, `word`: further on.
pub(crate) fn resume_after(region: &Region, sequence: u64, word: u64) -> Result<u64, Corrupt> {
    let geometry = region.geometry();
    let number = geometry.number(sequence);
    let ahead = u64::try_from(table::ahead(word, number)).map_err(|_| Corrupt::Stream)?;
    // From the entry as well as from the head: a publisher may have died between the two.
    let head = geometry.number(checked(region.head().load(Acquire))?); // [stream position]
    let newest = head.max(number + ahead);
    let resume = newest.saturating_sub(u64::from(geometry.blocks) / 2) * geometry.block_len;
    if resume <= sequence || resume > super::SEQUENCE_LIMIT {
        return Err(Corrupt::Stream);
    }
    Ok(resume)
}

/// Whether a reader can go to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retained {
    There,
    /// Its block has left the table; `oldest` is the first that has not.
    Gone {
        oldest: u64,
    },
    /// It is beyond `next`, the sequence that is published next.
    Ahead {
        next: u64,
    },
}

/// Whether a reader at `position` can go to `sequence` now.
pub(crate) fn retained(region: &Region, position: u64, sequence: u64) -> Result<Retained, Corrupt> {
    // A reader may have seen stamps that the head does not count yet.
    let next = checked(region.head().load(Acquire))?.max(position); // [stream position]
    if sequence > next {
        return Ok(Retained::Ahead { next });
    }
    let number = region.geometry().number(sequence);
    // [table]
    if table::age(region.table(number).load(Acquire), number).is_gt() {
        return Ok(Retained::Gone { oldest: first(region, Start::Oldest)? });
    }
    Ok(Retained::There)
}

/// The sequence that `start` means now.
pub(crate) fn first(region: &Region, start: Start) -> Result<u64, Corrupt> {
    let geometry = region.geometry();
    let head = checked(region.head().load(Acquire))?; // [stream position]
    let number = geometry.number(head);
    let blocks = u64::from(geometry.blocks);
    let oldest = match number.checked_sub(blocks) {
        // The block of the head is not open yet, so that the one before all others is still there.
        // Whoever enters it looks again.
        Some(oldest) if table::age(region.table(oldest).load(Relaxed), oldest).is_eq() => oldest,
        _ => (number + 1).saturating_sub(blocks),
    } * geometry.block_len;
    Ok(match start {
        Start::Newest => head,
        Start::Oldest => oldest,
        Start::Back(count) => head.saturating_sub(count).max(oldest),
    })
}
