//! Loans, and what becomes of them: committed, revoked, dropped, forgotten, or left behind by the dead.

use shmbus::internals::advance_ns;

use super::{Feed, Play, STALL_NS};
use crate::input::Input;
use crate::model::Fate;

impl Play<'_> {
    /// A loan that is open while others go on; it has no deadline, so only where nobody can be in the way.
    pub(super) fn loan(&mut self, input: &mut Input<'_>) {
        if self.seats.iter().any(|seat| seat.reader.reliable) {
            return;
        }
        let Some(mut feed) = self.take_publisher(input.byte()) else { return };
        let (nested, end) = (input.below(6), input.below(6));
        let message = self.message();
        let forgotten = std::mem::take(&mut feed.forgotten);
        self.lose(&forgotten);
        advance_ns(STALL_NS); // so that a look for the dead is due: no sleep
        let mut loan = feed.handle.loan(message.len.into()).expect("nobody is in the way");
        let sequence = loan.sequence();
        if self.stage.shared {
            self.log.push(sequence, Fate::Claimed);
        } else {
            assert_eq!(sequence, self.log.next());
            self.log.open(sequence);
        }
        feed.committed = None;
        message.write(&mut loan);
        for _ in 0..nested {
            match input.below(8) {
                0..=3 if self.stage.shared => _ = self.publish(input.byte()),
                4 => advance_ns(STALL_NS),
                5 => self.give_back(input),
                _ => _ = self.receive(input.byte(), false),
            }
        }
        match end {
            0..=2 => {
                advance_ns(STALL_NS);
                let committed = loan.commit().expect("nobody is in the way");
                if committed == sequence && self.stage.shared {
                    let fate = &mut self.log.fates[sequence as usize];
                    assert_eq!(*fate, Fate::Claimed, "committed after all");
                    *fate = Fate::Message(message);
                } else {
                    if self.stage.shared {
                        self.log.fates[sequence as usize] = Fate::Abandoned; // revoked
                    }
                    self.log.push(committed, Fate::Message(message));
                }
                feed.committed = Some(committed);
                self.feeds.push(feed);
            }
            3 => {
                drop(loan);
                if self.stage.shared {
                    self.log.fates[sequence as usize] = Fate::Abandoned;
                }
                self.feeds.push(feed);
            }
            4 => {
                std::mem::forget(loan);
                if self.stage.shared {
                    feed.forgotten.push(sequence);
                }
                self.feeds.push(feed);
            }
            _ => {
                std::mem::forget(loan);
                if self.stage.shared {
                    self.lose(&[sequence]);
                }
                let Feed { handle, entry, .. } = feed;
                self.stage.kill(entry, || drop(handle));
            }
        }
    }
}
