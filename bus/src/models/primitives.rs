//! Loom models of semaphore, rwlock, event and barrier: the code that ships, on loom's atomics. Deaths as in `sync.rs`; no sleep ends by itself but behind the dying, so that a
//! wake-up that is lost is a deadlock.
#![allow(unsafe_code)] // what is protected is loom's UnsafeCell, which reports unsynchronised access

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::atomics::*;
use crate::crash;
use crate::layout::ENTRY_LEASES;
use crate::sync::gather::{self, Gathered};
use crate::sync::lock::{self, Step};
use crate::sync::maker;
use crate::sync::permits::{self, Asked};
use crate::sync::region::SyncRegion;
use crate::sync::rw::{self, Read};
use crate::sync::seat::{GiveBack, Seat};
use crate::sync::signal::{self, Waited};
use shmbus_sys::robust::FUTEX_WAITERS;

const FOREVER: u64 = u64::MAX;

/// What is protected: how often it was changed.
struct Data(UnsafeCell<u64>);

// SAFETY: loom reports where the cell is accessed by two threads at once.
unsafe impl Sync for Data {}
// SAFETY: as above.
unsafe impl Send for Data {}

impl Data {
    /// Changes it; nobody else may be at it.
    fn change(&self) -> u64 {
        self.0.with_mut(|count| {
            // SAFETY: loom checks that nobody else accesses the cell meanwhile.
            let count = unsafe { &mut *count };
            *count += 1;
            *count
        })
    }

    /// Looks at it; nobody may be changing it.
    fn look(&self) -> u64 {
        self.0.with(|count| {
            // SAFETY: loom checks that nobody changes the cell meanwhile.
            unsafe { *count }
        })
    }
}

/// A process: its seat, and the data.
struct Process {
    seat: Seat,
    data: Arc<Data>,
}

/// As many processes as there are entries, of an object with a value.
fn processes<const N: usize>(give_back: GiveBack, value: u64) -> [Process; N] {
    let region = std::sync::Arc::new(SyncRegion::new(N as u32));
    region.control().main.0.value.store(value, Relaxed);
    let bytes = (0..ENTRY_LEASES as usize + N).map(|_| AtomicU32::new(0)).collect();
    let file = Arc::new(LeaseFile(bytes));
    let data = Arc::new(Data(UnsafeCell::new(0)));
    core::array::from_fn(|number| {
        let lease = Lease { file: Arc::clone(&file), description: number as u32 + 1 };
        let seat = Seat::take(std::sync::Arc::clone(&region), lease, give_back);
        let seat = seat.unwrap().expect("an entry");
        let life = &region.entry(seat.index).life;
        life.word().store(tid(&seat) | FUTEX_WAITERS, Release);
        seat.activate();
        Process { seat, data: Arc::clone(&data) }
    })
}

fn tid(seat: &Seat) -> u32 {
    seat.index.0 + 10
}

impl Process {
    /// Runs until it comes to a point, and is killed there, or never comes there. True where it was killed.
    fn killed_at<R>(&self, point: &'static str, run: impl FnOnce() -> R) -> bool {
        let killed = crash::killed_at(point, run).is_none();
        if killed {
            self.seat.region.entry(self.seat.index).life.died(tid(&self.seat));
            self.seat.lease.end();
        }
        killed
    }

    /// Takes a permit, changes the data, gives the permit back.
    fn use_permit(&self) -> u64 {
        assert_eq!(permits::acquire(&self.seat, FOREVER), Asked::Granted);
        let count = self.data.change();
        permits::release(&self.seat);
        count
    }

    /// Reads and gives it back; or finds that a writer died.
    fn read(&self) -> Option<u64> {
        match rw::read(&self.seat, FOREVER) {
            Read::Reading => {}
            Read::WriterDied => return None,
            other => panic!("{other:?}"),
        }
        let count = self.data.look();
        rw::leave(&self.seat);
        Some(count)
    }

    /// Writes, and says whether a writer had died.
    fn write(&self) -> bool {
        let Step::Locked { owner_died } = rw::write(&self.seat, FOREVER) else {
            panic!("neither removed nor given up")
        };
        self.data.change();
        if owner_died {
            lock::mark_consistent(&self.seat);
        }
        lock::unlock(&self.seat);
        owner_died
    }

    /// Makes the value, where it is not there; what it is then.
    fn make(&self) -> u64 {
        let make = || {
            self.data.change();
            Ok::<(), ()>(())
        };
        let made = maker::make(&self.seat, FOREVER, || false, make);
        assert!(matches!(made, Ok(Step::Locked { .. })));
        assert!(maker::is_there(&self.seat.region));
        self.data.look()
    }

    fn wait(&self) {
        assert_eq!(signal::wait(&self.seat, FOREVER), Waited::Signalled);
    }
}

/// With more preemptions it takes hours.
fn bounded(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut bounds = loom::model::Builder::new();
    let given = bounds.preemption_bound.unwrap_or(preemptions);
    bounds.preemption_bound = Some(given.min(preemptions));
    bounds.check(f);
}

#[test]
fn permit_against_release() {
    bounded(2, || {
        let [one, other] = processes(permits::give_back, 1);
        let theirs = thread::spawn(move || other.use_permit());
        let own = one.use_permit();
        assert_eq!(own + theirs.join().unwrap(), 3);
        assert_eq!(permits::value(&one.seat.region), 1);
    });
}

#[test]
fn a_permit_that_is_posted_against_who_waits() {
    bounded(2, || {
        let [one, other] = processes(permits::give_back, 0);
        let posting = thread::spawn(move || {
            other.data.change();
            assert!(permits::post(&other.seat.region, 1, 9));
        });
        assert_eq!(permits::acquire(&one.seat, FOREVER), Asked::Granted);
        assert_eq!(one.data.look(), 1);
        permits::consume(&one.seat);
        posting.join().unwrap();
        assert_eq!(permits::value(&one.seat.region), 0);
    });
}

/// Two others wait, or come.
#[test]
fn a_permit_whose_holder_is_killed_comes_back() {
    bounded(1, || {
        let [one, two, victim] = processes(permits::give_back, 1);
        let others = [one, two].map(|other| {
            thread::spawn(move || {
                other.use_permit();
                other
            })
        });
        victim.killed_at("sync.permit.taken", || victim.use_permit());
        let [one, _two] = others.map(|other| other.join().unwrap());
        assert_eq!(permits::try_acquire(&one.seat, 0), Asked::Granted);
    });
}

#[test]
fn a_permit_that_is_given_back_by_one_that_is_killed_before_it_tells_is_not_lost() {
    bounded(1, || {
        let [one, two, victim] = processes(permits::give_back, 1);
        let others = [one, two].map(|other| thread::spawn(move || other.use_permit()));
        victim.killed_at("sync.permit.released", || victim.use_permit());
        for other in others {
            other.join().unwrap();
        }
    });
}

#[test]
fn reader_against_writer() {
    bounded(3, || {
        let [one, other] = processes(rw::give_back, 0);
        let writing = thread::spawn(move || assert!(!other.write()));
        one.read().unwrap();
        writing.join().unwrap();
        assert_eq!(one.read(), Some(1));
    });
}

/// One that is not dead, but has unlocked and left, is not taken for one that died writing.
#[test]
fn reader_against_a_writer_that_leaves() {
    bounded(2, || {
        let [one, other] = processes(rw::give_back, 0);
        let leaving = thread::spawn(move || {
            assert!(!other.write());
            other.seat.leave();
        });
        one.read().expect("nobody died");
        leaving.join().unwrap();
    });
}

/// A writer that waits for one who reads gets in, whatever one who only tries does meanwhile. That one does not read, and does not say that it does, when the
/// writer waits.
#[test]
fn a_writer_that_waits_against_who_tries_to_read() {
    bounded(2, || {
        let [one, two, three] = processes(rw::give_back, 0);
        assert_eq!(rw::step(&one.seat), Read::Reading);
        let writing = thread::spawn(move || assert!(!three.write()));
        let trying = thread::spawn(move || {
            let mut was_refused = false;
            for _ in 0..2 {
                let step = rw::step(&two.seat);
                assert!(!was_refused || step != Read::Reading, "the writer waits still");
                match step {
                    Read::Reading => {
                        two.data.look();
                        rw::leave(&two.seat);
                    }
                    Read::Held(_) => was_refused = true,
                    other => panic!("{other:?}"),
                }
            }
        });
        trying.join().unwrap();
        rw::leave(&one.seat);
        writing.join().unwrap();
        assert_eq!(one.read(), Some(1));
    });
}

/// Who only tries to write, while another one reads, keeps nobody out who would read too.
#[test]
fn reader_against_who_tries_to_write() {
    bounded(2, || {
        let [one, two, three] = processes(rw::give_back, 0);
        assert_eq!(rw::step(&one.seat), Read::Reading);
        let trying = thread::spawn(move || assert_eq!(rw::write(&three.seat, 0), Step::TimedOut));
        assert_eq!(rw::step(&two.seat), Read::Reading);
        trying.join().unwrap();
        rw::leave(&two.seat);
        rw::leave(&one.seat);
    });
}

#[test]
fn two_readers_against_writer() {
    bounded(1, || {
        let [one, two, three] = processes(rw::give_back, 0);
        let reading = [one, two].map(|reader| thread::spawn(move || reader.read().unwrap()));
        assert!(!three.write());
        for reading in reading {
            reading.join().unwrap();
        }
        assert_eq!(three.read(), Some(1));
    });
}

#[test]
fn a_reader_that_is_killed_keeps_no_writer_out() {
    for point in ["sync.read.said", "sync.read.left"] {
        bounded(2, move || {
            let [one, victim] = processes(rw::give_back, 0);
            let dying = thread::spawn(move || victim.killed_at(point, || victim.read()));
            assert!(!one.write());
            assert!(dying.join().unwrap());
            assert!(!one.write());
        });
    }
}

#[test]
fn a_writer_that_is_killed_is_told_of_to_readers_until_one_writes() {
    bounded(1, || {
        let [one, two, victim] = processes(rw::give_back, 0);
        let reading = thread::spawn(move || one.read());
        assert!(victim.killed_at("sync.write.word", || victim.write()));
        assert!(two.write(), "told");
        let read = reading.join().unwrap();
        assert!(read.is_none_or(|count| count <= 1));
        assert_eq!(two.read(), Some(1));
    });
}

#[test]
fn signal_against_set() {
    bounded(3, || {
        let [one, other] = processes(signal::give_back, 0);
        let setting = thread::spawn(move || {
            other.data.change();
            signal::set(&other.seat.region);
        });
        one.wait();
        assert_eq!(one.data.look(), 1);
        setting.join().unwrap();
        assert!(!signal::take(&one.seat.region), "it is taken once");
    });
}

/// Whoever takes it next has it from the one who set it last, whatever it saw first.
#[test]
fn a_signal_that_goes_round() {
    bounded(2, || {
        let [one, other] = processes(signal::give_back, 0);
        let turn = |process: &Process| {
            process.wait();
            process.data.change();
            signal::set(&process.seat.region);
        };
        signal::set(&one.seat.region);
        let theirs = thread::spawn(move || turn(&other));
        turn(&one);
        theirs.join().unwrap();
    });
}

/// One that stays set is taken by nobody.
#[test]
fn a_signal_that_stays_against_who_waits() {
    bounded(3, || {
        let [one, other] = processes(signal::give_back, signal::MANUAL);
        let setting = thread::spawn(move || {
            other.data.change();
            signal::set(&other.seat.region);
        });
        one.wait();
        assert_eq!(one.data.look(), 1);
        assert!(signal::take(&one.seat.region), "it stays");
        setting.join().unwrap();
    });
}

#[test]
fn a_signal_whose_waiter_is_killed_when_it_is_woken_goes_to_another() {
    bounded(1, || {
        let [one, two, victim] = processes(signal::give_back, 0);
        // Whoever has it and lives hands it on, so that both end.
        let waiting = thread::spawn(move || {
            one.wait();
            signal::set(&one.seat.region);
        });
        let dying = thread::spawn(move || {
            victim.killed_at("sync.wait.woken", || {
                victim.wait();
                signal::set(&victim.seat.region);
            });
        });
        signal::set(&two.seat.region);
        waiting.join().unwrap();
        dying.join().unwrap();
    });
}

#[test]
fn party_against_party() {
    bounded(2, || {
        let [one, other] = processes(gather::give_back, 0);
        let theirs = thread::spawn(move || {
            other.data.change();
            gather::wait(&other.seat, 2, FOREVER)
        });
        let own = gather::wait(&one.seat, 2, FOREVER);
        assert_eq!(one.data.look(), 1, "what the other did before it arrived");
        let leaders = [own, theirs.join().unwrap()].map(|gathered| match gathered {
            Gathered::Passed { leader } => u32::from(leader),
            other => panic!("{other:?}"),
        });
        assert_eq!(leaders[0] + leaders[1], 1);
    });
}

/// Who waits is sent away and comes again, or comes behind the reset.
#[test]
fn party_against_reset() {
    fn come(process: &Process) -> u32 {
        let mut sent_away = 0;
        loop {
            match gather::wait(&process.seat, 2, FOREVER) {
                Gathered::Passed { .. } => return sent_away,
                Gathered::Broken => sent_away += 1,
                other => panic!("{other:?}"),
            }
            thread::yield_now();
        }
    }
    bounded(2, || {
        let [one, other] = processes(gather::give_back, 0);
        let theirs = thread::spawn(move || come(&one));
        gather::reset(&other.seat.region);
        assert_eq!(come(&other), 0, "its own reset is over");
        theirs.join().unwrap();
    });
}

#[test]
fn a_party_that_is_killed_breaks_the_barrier() {
    for point in ["sync.barrier.said", "sync.barrier.arrived"] {
        bounded(2, move || {
            let [one, victim] = processes(gather::give_back, 0);
            let dying = thread::spawn(move || {
                victim.killed_at(point, || gather::wait(&victim.seat, 3, FOREVER))
            });
            assert_eq!(gather::wait(&one.seat, 3, FOREVER), Gathered::Broken);
            assert!(dying.join().unwrap());
        });
    }
}

/// Who finds it there without having waited reads it whole.
#[test]
fn a_value_that_is_made_against_who_looks_for_it() {
    bounded(3, || {
        let [one, other] = processes(lock::give_back, 0);
        let making = thread::spawn(move || assert_eq!(other.make(), 1));
        if maker::is_there(&one.seat.region) {
            assert_eq!(one.data.look(), 1);
        }
        making.join().unwrap();
        assert_eq!(one.make(), 1, "it is made once");
    });
}

#[test]
fn a_value_that_two_make() {
    bounded(2, || {
        let [one, other] = processes(lock::give_back, 0);
        let theirs = thread::spawn(move || other.make());
        let own = one.make();
        assert_eq!((own, theirs.join().unwrap()), (1, 1));
    });
}

/// One that is killed with the data written has made nothing: of two others one makes it, and the other one reads that.
#[test]
fn a_value_whose_maker_is_killed_is_made_by_another() {
    bounded(1, || {
        let [one, two, victim] = processes(lock::give_back, 0);
        let others = [one, two].map(|other| thread::spawn(move || other.make()));
        let killed = victim.killed_at("sync.once.written", || victim.make());
        let [first, second] = others.map(|other| other.join().unwrap());
        assert_eq!(first, second);
        assert_eq!(first, 1 + u64::from(killed));
    });
}
