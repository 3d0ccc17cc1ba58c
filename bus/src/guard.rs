//! What a subscriber's entry is believed, and what publishers of a guarded topic do because they believe no more.
//!
//! On a plain topic an entry is what it says. On a guarded one each subscriber may write its own page and nothing else, whatever it likes; what
//! counts is what the broker granted, in `ctl`, which subscribers only read:
//!
//! | an entry says | believed |
//! |---|---|
//! | kind, generation | of the granted generation, and never more than the granted kind |
//! | pin, holds | physical blocks that exist; `hold_blocks` holds, for which there are spares |
//! | cursor | that it is in the way; how long in all, `Debts` counts, whatever the cursor does |
//! | patience | where it is shorter than the granted one |
//! | bells | nothing: what is slept on and rung there is of that subscriber alone |

use crate::atomics::{Acquire, Relaxed, Release};
use crate::bell::Barrier;
use crate::crash;
use crate::layout::HOLD_CELLS;
use crate::region::{EntryIndex, Region};
use crate::registry::{Kind, State};

/// What an entry of `state` counts as.
#[inline]
pub(crate) fn believe(region: &Region, index: EntryIndex, state: State) -> Kind {
    match region.grant(index) {
        None => state.kind,
        Some(grant) => granted(state, State::of(grant.state.load(Acquire))), // [grant]
    }
}

/// The lesser of what an entry says and what was granted.
fn granted(says: State, most: State) -> Kind {
    match (says.kind, most.kind) {
        _ if says.generation != most.generation => Kind::Dead,
        (Kind::Reliable, Kind::Reliable) => Kind::Reliable,
        (Kind::Lossy | Kind::Reliable, Kind::Lossy | Kind::Reliable) => Kind::Lossy,
        (Kind::Free | Kind::Joining, Kind::Lossy | Kind::Reliable) => says.kind,
        _ => Kind::Dead,
    }
}

/// How many holds of one entry count.
pub(crate) fn holds_max(region: &Region) -> u32 {
    if region.is_guarded() { region.geometry().hold_blocks } else { HOLD_CELLS as u32 }
}

/// What the broker does: makes an entry, whose lease was just taken, one of `kind` of the user `bound - 1`. Its generation. Whoever had it may still
/// write its page, if it is the same user: then both of them get what they do to each other.
pub(crate) fn let_in(
    region: &Region,
    index: EntryIndex,
    bound: u64,
    kind: Kind,
    patience_ns: u64,
) -> Option<u64> {
    let (grant, page) = (region.grant(index)?, region.page(index)?);
    let generation = State::of(grant.state.load(Relaxed)).generation.wrapping_add(1) << 8 >> 8;
    // Nobody, until all of it is written.
    grant.state.store(State { generation, kind: Kind::Free }.word(), Release); // [grant]: the former owner's reads are over
    grant.bound.store(bound, Relaxed);
    let entry = &page.entry;
    for word in [&entry.pin, &entry.second_pin, &entry.cursor, &entry.claim, &entry.held] {
        word.store(0, Release); // [last use]: what the former owner read, for whoever scans
    }
    for word in [&entry.patience_ns, &entry.position, &entry.missed, &entry.joined_ns] {
        word.store(0, Relaxed);
    }
    for bell in [&page.subscribers_bell.0, &page.publishers_bell.0] {
        bell.ring(Barrier::Fence); // a publisher that waited for the owner before looks again
    }
    entry.state.store(State { generation, kind: Kind::Joining }.word(), Relaxed); // publishers go by the grant
    crash::point("broker.cleared");
    grant.patience_ns.store(patience_ns, Relaxed);
    grant.state.store(State { generation, kind }.word(), Release); // [grant]: the page as it was cleared, and the patience
    region.control().roster.0.fetch_add(1, Release); // [roster]: that there is one more to ring
    Some(generation)
}

#[cfg(not(loom))]
pub(crate) use publishing::Debts;
#[cfg(loom)]
pub(crate) use publishing::evict;
pub(crate) use publishing::{Pages, sleep};

mod publishing {
    use super::believe;
    use crate::atomics::{Acquire, Relaxed, SeqCst, Words, compiler_fence, fence};
    use crate::bell::{Barrier, Shown};
    use crate::crash;
    use crate::layout::{Bell, GUARDED_LIMIT};
    use crate::region::{EntryIndex, Region};
    use crate::registry::{self, Kind, State};
    #[cfg(not(loom))]
    use crate::repair::STALL_CHECK_NS;
    use crate::ring::table;
    #[cfg(not(loom))]
    use crate::ring::table::Reliable;
    #[cfg(loom)]
    use loom::thread::yield_now;
    #[cfg(not(loom))]
    use std::thread::yield_now;

    /// Whom a publisher rings: those who were granted a page, and have not left it.
    pub(crate) struct Pages {
        barrier: Barrier,
        roster: u64,
        attached: Vec<EntryIndex>,
    }

    impl Pages {
        pub(crate) fn new(region: &Region, barrier: Barrier) -> Pages {
            let most = region.geometry().subscribers_max as usize;
            let mut pages = Pages { barrier, roster: 0, attached: Vec::with_capacity(most) };
            pages.refresh(region);
            pages
        }

        /// Looks at every grant, and who of them has left.
        #[cold]
        pub(crate) fn refresh(&mut self, region: &Region) {
            self.roster = region.control().roster.0.load(Acquire); // [roster]: the grant of who is being let in
            self.attached.clear();
            self.attached.extend(region.subscribers().filter(|index| {
                let state = State::of(region.entry(*index).state.load(Relaxed)); // `believe` acquires the grant
                matches!(
                    believe(region, *index, state),
                    Kind::Joining | Kind::Lossy | Kind::Reliable
                )
            }));
        }

        /// Wakes subscribers that sleep: a load for each that is attached, and a system call for each that sleeps, or two.
        pub(crate) fn ring(&mut self, region: &Region) {
            match self.barrier {
                Barrier::Fence => fence(SeqCst),               // [commit/sleep]
                Barrier::Membarrier => compiler_fence(SeqCst), // [commit/sleep]: the sleeper's membarrier makes it a fence
                Barrier::Nobody => return,
            }
            // Behind the barrier: who was let in before it went to sleep is in the list.
            if region.control().roster.0.load(Relaxed) != self.roster {
                self.refresh(region);
            }
            for index in &self.attached {
                region.subscribers_bell(*index).ring_after_fence();
            }
        }
    }

    /// For how long reliable subscribers have held one publisher up, in all.
    ///
    /// A debt grows while its owner is in the way, whatever its cursor does meanwhile, and shrinks ten times slower while it is not. Who owes its
    /// whole patience is lossy from then on. So nobody costs publishers more than its patience at once, and a tenth of the time in the long run;
    /// leaving and joining again changes nothing, for a page is one user's for ever, and its debt stays.
    ///
    /// A publisher may give up and try again later. The owner of the page that is in the way of the same block then has been so ever since.
    /// One that is not, or has left the page to the next one, was in the way for a while that nobody knows: as much of it counts as a
    /// publisher that waits would have slept.
    #[cfg(not(loom))]
    pub(crate) struct Debts {
        debts: Vec<Debt>,
    }

    #[cfg(not(loom))]
    struct Debt {
        index: EntryIndex,
        owed_ns: u64,
        seen_ns: u64,
        /// The generation of the owner that was in the way at the last look.
        in_the_way: Option<u64>,
    }

    /// How many times slower a debt shrinks than it grows.
    #[cfg(not(loom))]
    const REST: u64 = 10;

    #[cfg(not(loom))]
    impl Debts {
        pub(crate) fn none(region: &Region) -> Debts {
            let most = if region.is_guarded() { region.geometry().subscribers_max } else { 0 };
            Debts { debts: Vec::with_capacity(most as usize) }
        }

        /// Looks who keeps block `number` from being opened, and evicts who owes too much. How many there were.
        #[cold]
        pub(crate) fn charge(&mut self, region: &Region, number: u64, now_ns: u64) -> u32 {
            self.settle(now_ns, |index, generation| {
                let grant = region.grant(index);
                // No order: nothing but the word is read.
                grant.is_some_and(|grant| {
                    State::of(grant.state.load(Relaxed)).generation == generation
                })
            });
            let mut evicted = 0;
            for Reliable { index, generation, .. } in table::who_forbids(region, number) {
                let Some(grant) = region.grant(index) else { continue };
                let known = self.debts.iter().position(|debt| debt.index == index);
                let at = known.unwrap_or_else(|| {
                    let (owed_ns, in_the_way) = (0, None);
                    self.debts.push(Debt { index, owed_ns, seen_ns: now_ns, in_the_way });
                    self.debts.len() - 1
                });
                let debt = &mut self.debts[at];
                debt.in_the_way = Some(generation);
                let most = grant.patience_ns.load(Relaxed); // stored before the state
                let patience_ns = match region.entry(index).patience_ns.load(Relaxed) {
                    0 => most,
                    own => own.min(most),
                };
                if debt.owed_ns >= patience_ns && evict(region, index, generation) {
                    debt.in_the_way = None;
                    evicted += 1;
                }
            }
            evicted
        }

        /// There is room: nobody is in the way any more.
        #[cold]
        pub(crate) fn done(&mut self, now_ns: u64) {
            if self.debts.iter().any(|debt| debt.in_the_way.is_some()) {
                self.settle(now_ns, |_, _| false);
            }
        }

        /// Counts the time since the last look. `is_still_there`: whether the page's owner that was in the way then has been so ever since.
        fn settle(&mut self, now_ns: u64, is_still_there: impl Fn(EntryIndex, u64) -> bool) {
            for debt in &mut self.debts {
                let passed_ns = now_ns.saturating_sub(debt.seen_ns);
                debt.owed_ns = match debt.in_the_way.take() {
                    Some(generation) if is_still_there(debt.index, generation) => {
                        debt.owed_ns.saturating_add(passed_ns)
                    }
                    Some(_) => debt.owed_ns.saturating_add(passed_ns.min(STALL_CHECK_NS)),
                    None => debt.owed_ns.saturating_sub(passed_ns / REST),
                };
                debt.seen_ns = now_ns;
            }
        }
    }

    /// Makes a subscriber lossy: in its grant, where it finds it and cannot take it back, and in its entry, for tools. Killed in between, it is
    /// done. If the page has another owner than `generation` by now, nothing happens.
    pub(crate) fn evict(region: &Region, index: EntryIndex, generation: u64) -> bool {
        let Some(grant) = region.grant(index) else { return false };
        let reliable = State { generation, kind: Kind::Reliable }.word();
        let lossy = State { generation, kind: Kind::Lossy }.word();
        // No order: nothing but the word is shown. An exchange does not end what the broker's store released.
        let is_done = grant.state.compare_exchange(reliable, lossy, Relaxed, Relaxed).is_ok();
        if is_done {
            grant.evictions.fetch_add(1, Relaxed);
            registry::evict(region, index, generation);
        }
        is_done
    }

    /// How often a publisher tries to say on one page that it sleeps: the page's owner may write there without end.
    const ATTEMPTS: u32 = 16;

    /// [`Bell::sleep`] on the pages of all who keep block `number` from being opened, of which one has to ring.
    ///
    /// Who does not let it show itself is not slept on: it could as well not ring.
    #[cold]
    pub(crate) fn sleep(
        region: &Region,
        number: u64,
        deadline_ns: u64,
        look: impl FnOnce() -> bool,
    ) {
        let mut shown = [None::<(&Bell, Shown)>; GUARDED_LIMIT as usize];
        let mut words = Words::none();
        let bells = table::who_forbids(region, number).map(|who| region.publishers_bell(who.index));
        for (place, bell) in shown.iter_mut().zip(bells) {
            *place = bell.show_within(ATTEMPTS).map(|shown| (bell, shown));
            if let Some((_, shown)) = place {
                words.add(&bell.word, shown.word);
            }
        }
        crash::point("sleep.shown");
        fence(SeqCst); // [cursor/publisher]
        match look() {
            true => {}
            false if words.count() == 0 => yield_now(),
            false => {
                crash::point("sleep.looked");
                words.wait(deadline_ns);
            }
        }
        crash::point("sleep.over");
        for (bell, shown) in shown.into_iter().flatten() {
            bell.take_back(shown);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_never_believed_more_than_was_granted() {
        let state = |generation, kind| State { generation, kind };
        let reliable = state(7, Kind::Reliable);
        let lossy = state(7, Kind::Lossy);
        let nobody = State::of(0);
        for (says, most, believed) in [
            (reliable, reliable, Kind::Reliable),
            (reliable, lossy, Kind::Lossy),
            (lossy, reliable, Kind::Lossy),
            (reliable, nobody, Kind::Dead),
            (state(8, Kind::Reliable), reliable, Kind::Dead),
            (state(7, Kind::Publisher), reliable, Kind::Dead),
            (state(7, Kind::Free), reliable, Kind::Free),
            (State::of(u64::MAX), reliable, Kind::Dead),
        ] {
            assert_eq!(granted(says, most), believed, "{says:?} of {most:?}");
        }
    }
}
