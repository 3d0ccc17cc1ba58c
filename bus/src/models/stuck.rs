//! Sequences that were taken and not committed: their owners are dead, slow or stopped.

use loom::sync::Arc;
use loom::thread;

use super::{
    drain_shared, model, publish_shared, receive, region_of, shared_lossy, shared_publisher, write,
};
use crate::atomics::*;
use crate::crash;
use crate::region::Region;
use crate::repair::{STALL_CHECK_NS, Stall};
use crate::ring::reader::{Next, Reader};
use crate::ring::shared::{Owner, is_lost, settle};

/// A publisher is killed at a point while another one and a reader go on: nobody is stuck, and what was committed is received.
fn shared_publisher_killed(point: &'static str) {
    model(move || {
        let region = region_of(2, 2, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let mut b = shared_publisher(&region, 1);
        let theirs = Arc::clone(&region);
        let victim = thread::spawn(move || {
            crash::killed_at(point, || publish_shared(&mut a, &theirs));
        });
        let mine = publish_shared(&mut b, &region).unwrap();
        let mut received = drain_shared(&mut reader, &region, 2, false, |_| false);
        victim.join().unwrap(); // the kernel says so
        received.extend(drain_shared(&mut reader, &region, 5, false, |index| index.0 == 0));
        assert_eq!(reader.position(), region.head().load(Acquire), "stuck behind the dead");
        assert!(received.contains(&mine), "a committed message was lost");
    });
}

#[test]
fn shared_publisher_killed_with_a_claim_shown() {
    shared_publisher_killed("claim.shown");
}

#[test]
fn shared_publisher_killed_with_a_sequence_taken() {
    shared_publisher_killed("claim.taken");
}

#[test]
fn shared_publisher_killed_with_a_payload_written() {
    shared_publisher_killed("shared.written");
}

#[test]
fn shared_publisher_killed_with_a_message_committed() {
    shared_publisher_killed("commit.exchanged");
}

#[test]
fn shared_publisher_killed_with_a_block_opened() {
    shared_publisher_killed("open.exchanged");
}

#[test]
fn shared_publisher_killed_with_a_block_pinned() {
    shared_publisher_killed("claim.pinned");
}

#[test]
fn shared_publisher_killed_with_a_claim_taken_back() {
    shared_publisher_killed("commit.unclaimed");
}

/// Revocation comes at any moment of a publish: the message is received once, at this sequence or at another.
#[test]
fn revoke_against_commit() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let theirs = Arc::clone(&region);
        let slow = thread::spawn(move || publish_shared(&mut a, &theirs));
        let mut received = drain_shared(&mut reader, &region, 2, true, |_| false);
        let published = slow.join().unwrap();
        received.extend(drain_shared(&mut reader, &region, 4, true, |_| false));
        assert_eq!(received, Vec::from_iter(published));
    });
}

/// A living publisher's claim is never taken for a dead one's: without a time-out nothing is revoked.
#[test]
fn claim_against_abandon() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || {
            for expected in 0..2 {
                assert_eq!(
                    publish_shared(&mut a, &theirs),
                    Some(expected),
                    "a living claim was abandoned"
                );
            }
        });
        drain_shared(&mut reader, &region, 3, false, |_| false);
        feed.join().unwrap();
        drain_shared(&mut reader, &region, 3, false, |_| false);
        assert_eq!((reader.position(), reader.skipped().missed), (2, 0));
    });
}

/// Who settles knows of the claim by the head alone: a living one stands.
#[test]
fn claim_against_settle() {
    model(|| {
        let region = region_of(2, 1, 0, 0);
        let mut a = shared_publisher(&region, 0);
        let first = a.claim(&region).unwrap();
        write(&region, first);
        a.commit(&region, first, 8, None).unwrap();
        let at = region.geometry().next(first.slot);
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || publish_shared(&mut a, &theirs));
        for _ in 0..2 {
            settle(&region, 1, at, false, |_| Owner::Lives);
        }
        assert_eq!(feed.join().unwrap(), Some(1), "a living claim was abandoned");
    });
}

/// Two that are stuck at the same sequence settle it, while its owner may still commit.
#[test]
fn settle_against_settle_and_commit() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut a = shared_publisher(&region, 0);
        let claim = a.claim(&region).unwrap();
        let settlers = [(); 2].map(|()| {
            let theirs = Arc::clone(&region);
            thread::spawn(move || {
                settle(&theirs, claim.sequence, claim.slot, true, |_| Owner::Lives)
            })
        });
        write(&region, claim);
        let committed = a.commit(&region, claim, 8, None).is_ok();
        for settler in settlers {
            assert!(settler.join().unwrap());
        }
        let stamp = region.slot(claim.slot).stamp.load(Acquire);
        assert_eq!(stamp == crate::ring::message_stamp(0), committed);
    });
}

/// Who settles is killed between its decision and its exchange: the next one settles.
#[test]
fn settler_killed_with_its_decision_made() {
    model(|| {
        let region = region_of(2, 2, 1, 0);
        let mut a = shared_publisher(&region, 0);
        let claim = a.claim(&region).unwrap(); // and is killed
        let theirs = Arc::clone(&region);
        let gone = |_| Owner::IsGone;
        let victim = thread::spawn(move || {
            crash::killed_at("abandon.decided", || {
                settle(&theirs, claim.sequence, claim.slot, false, gone)
            })
        });
        let mut b = shared_publisher(&region, 1);
        publish_shared(&mut b, &region).unwrap();
        assert!(settle(&region, claim.sequence, claim.slot, false, gone));
        assert_ne!(victim.join().unwrap(), Some(false)); // killed, or too late
        let stamp = region.slot(claim.slot).stamp.load(Acquire);
        assert_eq!(stamp, crate::ring::abandoned_stamp(claim.sequence));
    });
}

/// A sequence that is taken and not written yet is not lost while its owner lives, for one who can do nothing about it either.
#[test]
fn a_claim_against_who_may_only_look() {
    model(|| {
        let region = region_of(2, 1, 1, 0);
        let mut reader = shared_lossy(&region);
        let mut a = shared_publisher(&region, 0);
        publish_shared(&mut a, &region).unwrap();
        assert!(receive(&mut reader, &region).is_some());
        let theirs = Arc::clone(&region);
        let feed = thread::spawn(move || publish_shared(&mut a, &theirs).unwrap());
        if reader.look(&region) == Ok(Next::Empty)
            && let Some(at) = reader.stuck_at(&region)
        {
            assert!(!is_lost(&region, 1, at, |_| Owner::Lives), "its owner is about to write it");
        }
        feed.join().unwrap();
    });
}

/// What a subscriber does that is stuck, with a look every 5 ms; where it settled something.
fn look(
    stall: &mut Stall,
    reader: &mut Reader,
    region: &Region,
    clock: &AtomicU64,
) -> Option<(u64, u64)> {
    let mut settled = None;
    if receive(reader, region).is_none()
        && let Some(at) = reader.stuck_at(region)
    {
        let sequence = reader.position();
        let now_ns = || clock.fetch_add(0, AcqRel);
        if let Some(revoke) = stall.look(region, sequence, TIMEOUT_NS, now_ns)
            && settle(region, sequence, at, revoke, |_| Owner::Lives)
        {
            settled = Some((sequence, now_ns()));
        }
        if settled.is_none() {
            clock.fetch_add(STALL_CHECK_NS, AcqRel);
        }
    }
    settled
}

const TIMEOUT_NS: u64 = 2 * STALL_CHECK_NS;

/// Two publishers stand still with a sequence each, and one of them may go on at any moment: a subscriber that finds both taken is past them after the
/// time of one.
#[test]
fn stuck_at_two_for_the_time_of_one() {
    model(|| {
        let region = region_of(2, 2, 1, 0);
        let mut reader = shared_lossy(&region);
        let [mut a, mut b] = [0, 1].map(|n| shared_publisher(&region, n));
        let claims = [a.claim(&region).unwrap(), b.claim(&region).unwrap()];
        let theirs = Arc::clone(&region);
        let goes_on = thread::spawn(move || {
            write(&theirs, claims[0]);
            let _ = a.commit(&theirs, claims[0], 8, None); // or was revoked
        });
        let (mut stall, clock) = (Stall::nowhere(), AtomicU64::new(0));
        for _ in 0..8 {
            look(&mut stall, &mut reader, &region, &clock);
        }
        goes_on.join().unwrap();
        assert_eq!(reader.position(), 2, "stuck");
        let passed_ns = clock.load(Relaxed);
        assert!(passed_ns <= TIMEOUT_NS + STALL_CHECK_NS, "{passed_ns} ns");
    });
}

/// A publisher stands still with a sequence. Another one takes the next one at any moment: it has its whole time too.
#[test]
fn stuck_at_one_that_is_taken_meanwhile() {
    model(|| {
        let region = region_of(2, 2, 1, 0);
        let mut reader = shared_lossy(&region);
        let [mut a, mut b] = [0, 1].map(|n| shared_publisher(&region, n));
        a.claim(&region).unwrap();
        let clock = Arc::new(AtomicU64::new(0));
        let (theirs, their_clock) = (Arc::clone(&region), Arc::clone(&clock));
        let second = thread::spawn(move || {
            let begin_ns = their_clock.fetch_add(STALL_CHECK_NS, AcqRel) + STALL_CHECK_NS;
            b.claim(&theirs).unwrap();
            begin_ns
        });
        let mut stall = Stall::nowhere();
        let settled: Vec<_> =
            (0..9).filter_map(|_| look(&mut stall, &mut reader, &region, &clock)).collect();
        let begin_ns = second.join().unwrap();
        for (sequence, end_ns) in settled {
            assert!(sequence == 0 || end_ns - begin_ns >= TIMEOUT_NS, "revoked before its time");
        }
    });
}
