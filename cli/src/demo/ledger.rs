//! What one subscriber saw, message by message: nothing is believed that the message does not prove.
//!
//! From the quotes: each feed process numbers its quotes from 0, so within one incarnation the next quote has the next
//! number (received), a higher one (some were missed), or one that was seen already (repeated or out of order, which
//! must never be). From the bus: the topic's own sequence goes on across feeds, which shows that a committed quote of a
//! killed feed was not lost, and that the bus counted what a lossy subscriber missed correctly.

use super::quote::Quote;
use serde::{Deserialize, Serialize};

/// What the bus says of a message; sockets and pipes know nothing of the kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct BusMark {
    /// Position in the topic, over all feeds.
    pub(super) sequence: u64,
    /// How many sequences the bus says were missed just before.
    pub(super) missed_before: u64,
}

/// Counts of one subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Quotes that arrived whole.
    pub(super) received: u64,
    /// Quotes that did not arrive: gaps in the numbers of the feeds, and on the bus what it counted.
    pub(super) missed: u64,
    /// Messages whose checksum was wrong.
    pub(super) torn: u64,
    /// Messages that arrived twice in a row.
    pub(super) repeated: u64,
    /// Messages that arrived after a later one.
    pub(super) out_of_order: u64,
    /// Times that the bus's sequence or its count of missed messages contradicted the quotes.
    pub(super) miscounted: u64,
}

impl Counts {
    /// How many messages arrived that should not have arrived like that.
    pub(super) fn faults(&self) -> u64 {
        self.torn + self.repeated + self.out_of_order + self.miscounted
    }

    pub(super) fn add(&mut self, other: &Counts) {
        self.received += other.received;
        self.missed += other.missed;
        self.torn += other.torn;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
        self.miscounted += other.miscounted;
    }
}

/// Of one quote: when it was due, and when it was there and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) due_ns: u64,
    pub(super) at_ns: u64,
}

/// The change to a feed from the one before, as one subscriber saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Switch {
    /// Of the new feed.
    pub(super) incarnation: u32,
    /// The last quote of the feed before; none before the first feed.
    pub(super) last: Option<Receipt>,
    /// The first quote of the new feed.
    pub(super) first: Receipt,
}

/// What a message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Quote,
    /// A quote, the first of a new feed.
    FirstOf(Switch),
    /// The end of the stream.
    Closing,
    /// Not to be believed: counted as a fault.
    Fault,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) counts: Counts,
    /// Of the feed that is heard; none before the first quote.
    incarnation: Option<u32>,
    /// The number that its next quote should have.
    next: u64,
    last: Option<Receipt>,
    bus_next: Option<u64>,
}

impl Ledger {
    /// Enters a message that arrived at `now_ns`; `None`: its checksum was wrong.
    pub(super) fn enter(
        &mut self,
        quote: Option<&Quote>,
        mark: Option<BusMark>,
        now_ns: u64,
    ) -> Seen {
        let missed_on_bus = mark.map(|mark| self.enter_mark(mark));
        let Some(quote) = quote else {
            self.counts.torn += 1;
            return Seen::Fault;
        };
        let heard = Some(quote.incarnation);
        let switched = heard > self.incarnation;
        let expected = if switched { 0 } else { self.next };
        if heard < self.incarnation || quote.sequence < expected {
            if heard == self.incarnation && quote.sequence + 1 == self.next {
                self.counts.repeated += 1;
            } else {
                self.counts.out_of_order += 1;
            }
            return Seen::Fault;
        }
        let missed = quote.sequence - expected;
        match missed_on_bus {
            // What was missed of the end of the old feed is known to the bus only.
            Some(on_bus) if on_bus == missed || (switched && on_bus > missed) => {
                self.counts.missed += on_bus;
            }
            Some(_) => self.counts.miscounted += 1,
            None => self.counts.missed += missed,
        }
        if quote.is_closing() {
            return Seen::Closing;
        }
        let receipt = Receipt { due_ns: quote.due_ns, at_ns: now_ns };
        let switch = Switch { incarnation: quote.incarnation, last: self.last, first: receipt };
        self.incarnation = heard;
        self.next = quote.sequence + 1;
        self.last = Some(receipt);
        self.counts.received += 1;
        if switched { Seen::FirstOf(switch) } else { Seen::Quote }
    }

    /// How many sequences of the topic lie between this message and the one before.
    fn enter_mark(&mut self, mark: BusMark) -> u64 {
        let expected = self.bus_next.unwrap_or(mark.sequence.saturating_sub(mark.missed_before));
        self.bus_next = Some(mark.sequence + 1);
        let missed = mark.sequence.checked_sub(expected);
        if missed != Some(mark.missed_before) {
            self.counts.miscounted += 1;
        }
        missed.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(incarnation: u32, sequence: u64) -> Quote {
        Quote::new(incarnation, sequence, 0)
    }

    fn ledger_of(quotes: &[(u32, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(incarnation, sequence) in quotes {
            ledger.enter(Some(&quote(incarnation, sequence)), None, sequence);
        }
        ledger
    }

    #[test]
    fn quotes_in_order_are_received_and_nothing_else() {
        let counts = ledger_of(&[(0, 0), (0, 1), (0, 2)]).counts;
        assert_eq!(counts, Counts { received: 3, ..Counts::default() });
    }

    #[test]
    fn gaps_are_missed_also_at_the_start_and_before_the_end() {
        let mut ledger = ledger_of(&[(0, 2), (0, 5)]);
        assert_eq!(ledger.enter(Some(&Quote::closing(0, 10, 0)), None, 0), Seen::Closing);
        assert_eq!(ledger.counts, Counts { received: 2, missed: 8, ..Counts::default() });
    }

    #[test]
    fn a_repeated_quote_and_one_that_comes_late_are_faults() {
        let counts = ledger_of(&[(0, 0), (0, 1), (0, 1), (0, 0)]).counts;
        assert_eq!((counts.received, counts.repeated, counts.out_of_order), (2, 1, 1));
        let counts = ledger_of(&[(1, 0), (0, 7)]).counts;
        assert_eq!((counts.received, counts.out_of_order, counts.faults()), (1, 1, 1));
    }

    #[test]
    fn a_torn_message_is_a_fault() {
        let mut ledger = ledger_of(&[(0, 0)]);
        assert_eq!(ledger.enter(None, None, 0), Seen::Fault);
        assert_eq!((ledger.counts.torn, ledger.counts.faults()), (1, 1));
    }

    #[test]
    fn a_new_feed_starts_again_at_zero_and_is_reported() {
        let mut ledger = Ledger::default();
        let seen = ledger.enter(Some(&quote(0, 0)), None, 0);
        let first = Receipt { due_ns: 0, at_ns: 0 };
        assert_eq!(seen, Seen::FirstOf(Switch { incarnation: 0, last: None, first }));
        assert_eq!(ledger.enter(Some(&quote(0, 1)), None, 1), Seen::Quote);
        let seen = ledger.enter(Some(&quote(1, 0)), None, 900);
        let (last, first) = (Receipt { due_ns: 0, at_ns: 1 }, Receipt { due_ns: 0, at_ns: 900 });
        let switch = Switch { incarnation: 1, last: Some(last), first };
        assert_eq!(seen, Seen::FirstOf(switch));
        assert_eq!(ledger.counts, Counts { received: 3, ..Counts::default() });
    }

    fn marked(marks: &[(u32, u64, u64, u64)]) -> Counts {
        let mut ledger = Ledger::default();
        for &(incarnation, number, sequence, missed_before) in marks {
            let mark = BusMark { sequence, missed_before };
            ledger.enter(Some(&quote(incarnation, number)), Some(mark), 0);
        }
        ledger.counts
    }

    #[test]
    fn what_the_bus_counted_is_compared_with_the_quotes() {
        let counts = marked(&[(0, 0, 70, 0), (0, 4, 74, 3), (1, 2, 80, 5)]);
        assert_eq!(counts, Counts { received: 3, missed: 8, ..Counts::default() });
        // It says 2 where 3 quotes are gone.
        assert_eq!(marked(&[(0, 0, 70, 0), (0, 4, 74, 2)]).miscounted, 1);
        // Its sequence goes on, yet a quote is gone.
        assert_eq!(marked(&[(0, 0, 70, 0), (0, 2, 71, 0)]).miscounted, 1);
        // Its sequence has a gap that the quotes do not have.
        assert_eq!(marked(&[(0, 0, 70, 0), (0, 1, 75, 4)]).miscounted, 1);
        // Its sequence goes back.
        assert!(marked(&[(0, 0, 70, 0), (0, 1, 70, 0)]).miscounted >= 1);
    }
}
