//! What a reader goes past without a message, counted.

/// Numbers of sequences that a reader went past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Messages, or what may have been messages: those of blocks that are gone cannot be told apart.
    pub(crate) missed: u64,
    /// Those that the reader has seen never to become messages.
    pub(crate) abandoned: u64,
}

impl Skipped {
    pub(crate) fn missed(missed: u64) -> Skipped {
        Skipped { missed, abandoned: 0 }
    }

    pub(crate) const ABANDONED: Skipped = Skipped { missed: 0, abandoned: 1 };
}

/// All that one reader went past, and what it went past just before the sequence at which it is now.
///
/// Receiving a message changes nothing here: that the last skips do not stand before the next message is seen by its sequence.
pub(crate) struct Skips {
    total: Skipped,
    last: Skipped,
    /// The sequence behind the last skips.
    end: u64,
}

impl Skips {
    pub(crate) fn none() -> Skips {
        Skips { total: Skipped::default(), last: Skipped::default(), end: u64::MAX }
    }

    pub(crate) fn total(&self) -> Skipped {
        self.total
    }

    /// Those just before `sequence`.
    #[inline(always)] // nothing is left of it where nobody asks
    pub(crate) fn before(&self, sequence: u64) -> Skipped {
        if self.end == sequence { self.last } else { Skipped::default() }
    }

    /// The reader goes past these, from `sequence` on. Where it is then.
    pub(crate) fn add(&mut self, sequence: u64, skipped: Skipped) -> u64 {
        self.last = self.before(sequence);
        for count in [&mut self.last, &mut self.total] {
            count.missed += skipped.missed;
            count.abandoned += skipped.abandoned;
        }
        self.end = sequence + skipped.missed + skipped.abandoned;
        self.end
    }

    /// The reader goes back from `sequence` to `to`: what was not told yet is told there.
    pub(crate) fn go_back(&mut self, sequence: u64, to: u64) {
        self.last = self.before(sequence);
        self.end = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_skip_is_told_once_and_before_the_right_message() {
        let mut skips = Skips::none();
        assert_eq!(skips.before(0), Skipped::default());
        assert_eq!(skips.add(0, Skipped::ABANDONED), 1);
        assert_eq!(skips.add(1, Skipped::missed(4)), 5);
        assert_eq!(skips.before(5), Skipped { missed: 4, abandoned: 1 });
        assert_eq!(skips.before(6), Skipped::default());
        assert_eq!(skips.add(6, Skipped::missed(2)), 8);
        assert_eq!(skips.before(8), Skipped::missed(2));
        skips.go_back(8, 3);
        assert_eq!((skips.before(3), skips.before(8)), (Skipped::missed(2), Skipped::default()));
        skips.go_back(4, 3);
        assert_eq!(skips.before(3), Skipped::default());
        assert_eq!(skips.total(), Skipped { missed: 6, abandoned: 1 });
    }
}
