//! A publisher settles what a subscriber is stuck at that may not write `data`.

use loom::sync::Arc;
use loom::thread;

use super::{content, model, payload, publish_shared, region_of, shared_publisher, write};
use crate::atomics::*;
use crate::region::{EntryIndex, Region};
use crate::registry::{self, State};
use crate::repair::{ask, lend_a_hand};
use crate::ring::shared::{Claim, Owner, Revoked, settle};
use crate::ring::{abandoned_stamp, message_stamp};

/// The kernel's word where the owner of entry 0 was killed, and nobody else.
fn all_but_the_first(index: EntryIndex) -> bool {
    index.0 != 0
}

/// The kernel's word where all are alive.
fn all(_: EntryIndex) -> bool {
    true
}

fn stamp(region: &Region, claim: Claim) -> u64 {
    region.slot(claim.slot).stamp.load(Acquire)
}

fn wish(region: &Region) -> u64 {
    region.control().notices.0.repair.load(Acquire)
}

/// A dead publisher's block is displaced and reused while somebody comes to settle its sequence: whoever writes there next is not
/// taken for the dead.
#[test]
fn help_against_reuse() {
    model(|| {
        let region = region_of(1, 3, 0, 0);
        let mut a = shared_publisher(&region, 0);
        a.claim(&region).unwrap(); // and is killed
        ask(&region, 0, None);
        let mut b = shared_publisher(&region, 1);
        publish_shared(&mut b, &region).unwrap();
        let seen = State::of(region.entry(EntryIndex(0)).state.load(Acquire));
        assert!(registry::declare_dead(&region, EntryIndex(0), seen));
        shared_publisher(&region, 2);
        let theirs = Arc::clone(&region);
        let helper = thread::spawn(move || lend_a_hand(&theirs, EntryIndex(2), all_but_the_first));
        for expected in 2..4 {
            let published = publish_shared(&mut b, &region);
            assert_eq!(published, Some(expected), "a living claim was abandoned");
        }
        helper.join().unwrap();
        assert_eq!(wish(&region), 0);
    });
}

/// A wish to revoke is granted while the owner commits: one of the two happens.
#[test]
fn help_against_commit() {
    model(|| {
        let region = region_of(2, 2, 0, 0);
        let mut a = shared_publisher(&region, 0);
        shared_publisher(&region, 1);
        let claim = a.claim(&region).unwrap();
        ask(&region, claim.sequence, Some(1));
        let theirs = Arc::clone(&region);
        let helper = thread::spawn(move || lend_a_hand(&theirs, EntryIndex(1), all));
        write(&region, claim);
        let committed = a.commit(&region, claim, 8, None);
        helper.join().unwrap();
        let expected = match committed {
            Ok(sequence) => message_stamp(sequence),
            Err(Revoked) => abandoned_stamp(claim.sequence),
        };
        assert_eq!(stamp(&region, claim), expected);
        assert_eq!(wish(&region), 0);
    });
}

/// A wish that revokes nothing does not touch a living owner's claim.
#[test]
fn help_against_commit_of_the_living() {
    model(|| {
        let region = region_of(2, 2, 0, 0);
        let mut a = shared_publisher(&region, 0);
        shared_publisher(&region, 1);
        let claim = a.claim(&region).unwrap();
        ask(&region, claim.sequence, None);
        let theirs = Arc::clone(&region);
        let helper = thread::spawn(move || lend_a_hand(&theirs, EntryIndex(1), all));
        write(&region, claim);
        assert_eq!(a.commit(&region, claim, 8, None), Ok(0), "a living claim was abandoned");
        helper.join().unwrap();
    });
}

/// Whoever sees a wish knows enough to grant it: a wish that is gone was granted.
#[test]
fn help_against_a_wish() {
    model(|| {
        let region = region_of(1, 2, 0, 0);
        let mut a = shared_publisher(&region, 0);
        shared_publisher(&region, 1);
        let theirs = Arc::clone(&region);
        let asking = thread::spawn(move || {
            let claim = a.claim(&theirs).unwrap(); // and is killed
            ask(&theirs, claim.sequence, None);
            claim
        });
        lend_a_hand(&region, EntryIndex(1), all_but_the_first);
        let claim = asking.join().unwrap();
        if wish(&region) == 0 {
            assert_eq!(stamp(&region, claim), abandoned_stamp(0), "a wish was lost");
        }
    });
}

/// A second wish comes while the first one is granted: it stays. (In one thread: loom would let a store that follows another thread's
/// exchange come before it in the order of the word, which no machine does.)
#[test]
fn a_wish_while_another_is_granted() {
    model(|| {
        let region = region_of(2, 3, 0, 0);
        let claims = [0, 1].map(|n| shared_publisher(&region, n).claim(&region).unwrap()); // and are killed
        shared_publisher(&region, 2);
        ask(&region, claims[0].sequence, None);
        lend_a_hand(&region, EntryIndex(2), |index| {
            ask(&region, claims[1].sequence, None);
            index.0 == 2
        });
        lend_a_hand(&region, EntryIndex(2), |index| index.0 == 2);
        for claim in claims {
            assert_eq!(stamp(&region, claim), abandoned_stamp(claim.sequence), "a wish was lost");
        }
        assert_eq!(wish(&region), 0);
    });
}

/// A publisher that has moved a loan lends a hand with the same pin: what it copied from is reused only behind the copy.
#[test]
fn help_after_moving_a_loan_against_reuse() {
    model(|| {
        let region = region_of(1, 2, 0, 0);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let claim = a.claim(&region).unwrap();
        write(&region, claim);
        assert!(settle(&region, claim.sequence, claim.slot, true, |_| Owner::Lives));
        assert_eq!(a.commit(&region, claim, 8, None), Err(Revoked));
        a.keep(&region, claim);
        let next = a.claim(&region).unwrap();
        ask(&region, next.sequence, None);
        let theirs = Arc::clone(&region);
        let others = thread::spawn(move || {
            for _ in 0..2 {
                publish_shared(&mut b, &theirs).unwrap();
            }
        });
        lend_a_hand(&region, EntryIndex(0), all); // has no pin for it
        assert_eq!(payload(&region, claim.slot), content(claim.sequence), "moved too late");
        write(&region, next);
        a.commit(&region, next, 8, None).unwrap();
        a.let_go(&region);
        lend_a_hand(&region, EntryIndex(0), all);
        others.join().unwrap();
    });
}

/// Three have taken sequences of one block, and the first two have had their time: one wish is enough for both, and the third, which was taken later, stays.
#[test]
fn help_against_commit_where_two_have_had_their_time() {
    model(|| {
        let region = region_of(4, 4, 0, 0);
        let [mut a, mut b, mut c] = [0, 1, 2].map(|n| shared_publisher(&region, n));
        shared_publisher(&region, 3);
        let [first, second, third] =
            [&mut a, &mut b, &mut c].map(|ring| ring.claim(&region).unwrap());
        ask(&region, first.sequence, Some(third.sequence));
        let theirs = Arc::clone(&region);
        let helper = thread::spawn(move || lend_a_hand(&theirs, EntryIndex(3), all));
        write(&region, third);
        assert_eq!(c.commit(&region, third, 8, None), Ok(2), "revoked before its time");
        helper.join().unwrap();
        for claim in [first, second] {
            assert_eq!(stamp(&region, claim), abandoned_stamp(claim.sequence));
        }
        assert_eq!(wish(&region), 0);
    });
}

/// Of a block, what several have taken who are dead is settled by one wish, up to the first that lives.
#[test]
fn help_behind_two_of_the_dead() {
    model(|| {
        let region = region_of(4, 4, 0, 0);
        let [mut a, mut b, mut c] = [0, 1, 2].map(|n| shared_publisher(&region, n));
        shared_publisher(&region, 3);
        let [first, second, third] =
            [&mut a, &mut b, &mut c].map(|ring| ring.claim(&region).unwrap());
        ask(&region, first.sequence, None);
        let theirs = Arc::clone(&region);
        let lives = |index: EntryIndex| index.0 > 1;
        let helper = thread::spawn(move || lend_a_hand(&theirs, EntryIndex(3), lives));
        write(&region, third);
        assert_eq!(c.commit(&region, third, 8, None), Ok(2), "a living claim was abandoned");
        helper.join().unwrap();
        for claim in [first, second] {
            assert_eq!(stamp(&region, claim), abandoned_stamp(claim.sequence));
        }
    });
}
