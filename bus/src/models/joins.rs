//! Loom models of joining against removing: the word of joins that ships, and the kernel's locks played as in `sync.rs`.

use loom::sync::Arc;
use loom::thread;

use crate::atomics::{AtomicU32, Lease, LeaseFile};
use crate::crash;
use crate::joins::{Decision, Joins};

/// A topic of two entries.
struct Topic {
    joins: Joins,
    live: Arc<LeaseFile>,
}

impl Topic {
    fn new() -> Arc<Topic> {
        let bytes = (0..2).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Topic { joins: Joins::new(), live: Arc::new(LeaseFile(bytes)) })
    }

    fn lease(&self, description: u32) -> Lease {
        Lease { file: Arc::clone(&self.live), description }
    }

    /// As `Attachment::occupy`: takes an entry; whether it takes part from now on.
    fn join(&self, entry: u64) -> Option<Lease> {
        let lease = self.lease(entry as u32 + 1);
        assert!(lease.take(entry).unwrap());
        crash::point("join.leased");
        if self.joins.join() {
            return Some(lease);
        }
        lease.release(entry).unwrap();
        None
    }

    /// As `removal::remove` without force.
    fn remove(&self, description: u32) -> Decision {
        let lease = self.lease(description);
        let users = || {
            let held = |byte: &u64| lease.is_held_by_another(*byte).unwrap();
            Ok::<_, ()>([0, 1].iter().filter(|byte| held(byte)).count())
        };
        self.joins.retire_unless_used(users).unwrap()
    }
}

/// Who has joined is never removed without force, and who is told that the topic is removed is told the truth.
#[test]
fn join_against_remove() {
    loom::model(|| {
        let topic = Topic::new();
        let theirs = Arc::clone(&topic);
        let joiner = thread::spawn(move || theirs.join(0).is_some());
        let decision = topic.remove(9);
        let joined = joiner.join().unwrap();
        match decision {
            Decision::Mine => assert!(!joined, "removed while somebody takes part"),
            Decision::InUse(_) => {} // a joiner that is refused holds its lease for a moment
            Decision::Made => panic!("there is one remover"),
        }
        assert_eq!(joined, !topic.joins.is_retired());
    });
}

/// The same with one that leaves again: whoever was in and out between the remover's two looks is no reason to fail.
#[test]
fn join_and_leave_against_remove() {
    loom::model(|| {
        let topic = Topic::new();
        let theirs = Arc::clone(&topic);
        let joiner = thread::spawn(move || {
            let Some(lease) = theirs.join(0) else { return };
            assert!(!theirs.joins.is_retired(), "removed while somebody takes part");
            lease.release(0).unwrap();
        });
        topic.remove(9);
        joiner.join().unwrap();
        // Nobody is left.
        assert!(matches!(topic.remove(9), Decision::Mine | Decision::Made));
    });
}

/// Two removers and a joiner: one decides at most.
#[test]
fn join_against_remove_and_remove() {
    loom::model(|| {
        let topic = Topic::new();
        let (first, second) = (Arc::clone(&topic), Arc::clone(&topic));
        let joiner = thread::spawn(move || first.join(0).is_some());
        let remover = thread::spawn(move || second.remove(8));
        let decisions = [topic.remove(9), remover.join().unwrap()];
        let joined = joiner.join().unwrap();
        let mine = decisions.iter().filter(|decision| **decision == Decision::Mine).count();
        assert!(mine <= 1, "{decisions:?}");
        assert!(!(joined && mine > 0), "removed while somebody takes part");
    });
}

/// A joiner that is killed with its lease is in nobody's way.
#[test]
fn join_that_is_killed_against_remove() {
    loom::model(|| {
        let topic = Topic::new();
        let theirs = Arc::clone(&topic);
        let joiner = thread::spawn(move || {
            if crash::killed_at("join.leased", || theirs.join(0)).is_none() {
                theirs.lease(1).end();
            }
        });
        topic.remove(9);
        joiner.join().unwrap();
        assert!(matches!(topic.remove(9), Decision::Mine | Decision::Made));
    });
}

/// A remover that is killed before its exchange has done nothing.
#[test]
fn remove_that_is_killed_against_join() {
    loom::model(|| {
        let topic = Topic::new();
        let theirs = Arc::clone(&topic);
        let remover = thread::spawn(move || {
            crash::killed_at("remove.decided", || theirs.remove(9));
        });
        assert!(topic.join(0).is_some(), "removed by one that had not decided");
        remover.join().unwrap();
        assert!(!topic.joins.is_retired());
    });
}

/// Counted first and removed afterwards, without the word of joins between the two: that is what it is for.
#[test]
#[should_panic = "removed while somebody takes part"]
fn join_against_one_that_counts_and_removes_later() {
    loom::model(|| {
        let topic = Topic::new();
        let theirs = Arc::clone(&topic);
        let joiner = thread::spawn(move || theirs.join(0).is_some());
        let remover = topic.lease(9);
        let removed = !remover.is_held_by_another(0).unwrap();
        if removed {
            // As if nobody had joined since.
            let seen = topic.joins.retire_unless_used(|| Ok::<_, ()>(0)).unwrap();
            assert_eq!(seen, Decision::Mine);
        }
        let joined = joiner.join().unwrap();
        assert!(!(joined && removed), "removed while somebody takes part");
    });
}
