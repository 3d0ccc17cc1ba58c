//! Those who repair what the dead have left, at their points: the next one repairs.

use std::fs::{File, Permissions, set_permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::{Delivery, TopicOptions};

use crate::cases::{How, Point, each};
use crate::processes::{Process, Stage};
use crate::runner::Plan;
use crate::subscribers::paced;
use crate::survivors::{Survivors, exclusive, shared};
use crate::victims::{GO, READY, TOPIC};

const BOTH: [How; 2] = [How::Killed, How::Stopped];
const MESSAGES: u64 = 240;

/// Who comes to the points of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweeper {
    Joiner,
    WaitingPublisher,
    WaitingSharedPublisher,
    Holder,
}

impl Stage {
    fn is_ready(&self, at: u64) -> bool {
        self.board.word(READY).load(SeqCst) == at
    }

    /// A subscriber that held all that can be held, and was killed.
    fn dead_holder(&self, survivors: &mut Survivors<'_>, reliable: bool) {
        self.board.word(READY).store(0, SeqCst);
        let holder = self.spawn("holder", &[reliable.into()]);
        self.until("it is attached", || self.is_ready(1));
        let mut publish = paced(survivors);
        self.until("it holds", || {
            publish();
            self.is_ready(2)
        });
        holder.kill();
    }

    /// A publisher that took a sequence, and was killed. Its feed is 2.
    fn dead_claimant(&self) {
        let claimant = self.victim("publisher", &[2, MESSAGES, 0], "claim.taken:3", How::Killed);
        How::Killed.met(self, &claimant, || {});
        claimant.killed();
    }
}

/// After the victim has come to its point: the others go on; it ends, or goes on too.
fn the_others_go_on(
    stage: &Stage,
    survivors: &mut Survivors<'_>,
    victim: Process,
    how: How,
    publish: bool,
) {
    if how == How::Killed {
        victim.killed();
        survivors.measure();
        survivors.go_on();
        return;
    }
    if survivors.publisher.is_some() {
        survivors.measure();
        survivors.go_on();
    }
    victim.go_on();
    stage.until("the victim ends", || {
        if publish {
            paced(survivors)();
        } else {
            survivors.receive(usize::MAX);
        }
        !victim.is_running()
    });
    victim.done();
    survivors.go_on();
}

fn sweep(who: Sweeper, how: How, point: Point) -> Duration {
    let stage = Stage::new();
    let is_shared = who == Sweeper::WaitingSharedPublisher;
    let options = if is_shared { shared(Duration::from_millis(20)) } else { exclusive() };
    let mut survivors = Survivors::begin(&stage, &options);
    let subscribes = matches!(who, Sweeper::Joiner | Sweeper::Holder);
    let victim = match who {
        Sweeper::Holder => {
            let victim = stage.victim("late_holder", &[], point, how);
            stage.until("it is attached", || stage.is_ready(1));
            stage.dead_holder(&mut survivors, false);
            stage.board.word(GO).store(1, SeqCst);
            victim
        }
        Sweeper::Joiner => {
            stage.dead_holder(&mut survivors, true);
            stage.victim("subscriber", &[0, 1], point, how)
        }
        Sweeper::WaitingPublisher | Sweeper::WaitingSharedPublisher => {
            stage.dead_holder(&mut survivors, true);
            if !is_shared {
                survivors.publisher = None;
            }
            stage.victim("publisher", &[1, MESSAGES, 0], point, how)
        }
    };
    how.met(&stage, &victim, || survivors.receive(1));
    if how == How::Stopped && subscribes {
        // The dead one's entry has another owner when the sweeper goes on.
        let next = survivors.topic.subscriber(Delivery::Reliable).unwrap();
        victim.go_on();
        stage.until("the victim ends", || {
            survivors.receive(usize::MAX);
            survivors.offer();
            !victim.is_running() || survivors.topic.info().head > next.position() + 16
        });
        let alive = survivors.topic.info().participants;
        let reliable = shmbus::ParticipantKind::Reliable;
        let count = alive
            .iter()
            .filter(|other| other.kind == reliable && other.liveness.is_alive())
            .count();
        assert_eq!(count, 3, "the next owner was declared dead: {alive:?}");
        drop(next);
    }
    the_others_go_on(&stage, &mut survivors, victim, how, subscribes);
    let unsure = if how == How::Killed { vec![1] } else { vec![] };
    let stood_still = survivors.end(1, &unsure);
    stage.end(TOPIC);
    stood_still
}

pub(crate) fn who_sweeps_is_killed_or_stopped_and_another_sweeps(plan: &Plan) {
    const DEAD: [Point; 5] =
        ["dead.seen", "dead.declared", "dead.rung", "record.written", "record.marked"];
    const LOCK: [Point; 4] = ["lock.word", "lock.owner", "unlock.owner", "unlock.word"];
    // A holder has swept before, when it joined.
    const LOCK_AGAIN: [Point; 4] =
        ["lock.word:2", "lock.owner:2", "unlock.owner:2", "unlock.word:2"];
    for how in BOTH {
        for (who, name) in [
            (Sweeper::Joiner, "joiner that sweeps"),
            (Sweeper::WaitingPublisher, "exclusive publisher that sweeps"),
            (Sweeper::WaitingSharedPublisher, "shared publisher that sweeps"),
            (Sweeper::Holder, "holder that sweeps"),
        ] {
            let lock = if who == Sweeper::Holder { LOCK_AGAIN } else { LOCK };
            each(plan, name, how, &[&DEAD[..], &lock].concat(), |point, _| sweep(who, how, point));
        }
    }
}

pub(crate) fn who_evicts_is_killed_or_stopped_and_another_evicts(plan: &Plan) {
    const POINTS: &[Point] = &["evict.decided", "evict.done"];
    for how in BOTH {
        for (who, options) in [
            ("exclusive publisher that evicts", exclusive()),
            ("shared publisher that evicts", shared(Duration::from_millis(20))),
        ] {
            each(plan, who, how, POINTS, |point, _| {
                let stage = Stage::new();
                let patience = Delivery::ReliableFor(Duration::from_millis(15));
                let mut survivors = Survivors::begin_with(&stage, &options, patience);
                survivors.publisher = None;
                let victim = stage.victim("publisher", &[1, MESSAGES, 0], point, how);
                how.met(&stage, &victim, || {});
                if options != exclusive() {
                    survivors.take_over();
                }
                the_others_go_on(&stage, &mut survivors, victim, how, false);
                let is_done = point == "evict.done" || how == How::Stopped;
                assert_eq!(survivors.is_evicted(), is_done, "told once it is evicted");
                let unsure = if how == How::Killed { vec![1] } else { vec![] };
                let stood_still = survivors.end(1, &unsure);
                stage.end(TOPIC);
                stood_still
            });
        }
    }
}

pub(crate) fn who_settles_a_dead_claim_is_killed_or_stopped_and_another_settles(plan: &Plan) {
    const POINTS: &[Point] = &["dead.seen", "abandon.decided", "abandon.stamped"];
    for how in BOTH {
        for (who, reliable) in
            [("lossy subscriber that settles", 0), ("reliable one that settles", 1)]
        {
            each(plan, who, how, POINTS, |point, _| {
                let stage = Stage::new();
                let mut survivors = Survivors::begin(&stage, &shared(Duration::ZERO));
                survivors.sleeper_waits(true);
                let victim = stage.victim("subscriber", &[reliable, 60], point, how);
                stage.until("it is attached", || stage.is_ready(1));
                stage.dead_claimant();
                how.met(&stage, &victim, || {});
                survivors.sleeper_waits(false);
                if how == How::Stopped && reliable == 1 {
                    // It is waited for; the others settle, and receive what there is.
                    let stood = survivors.position();
                    stage.until("the others go on", || {
                        survivors.receive(usize::MAX);
                        survivors.offer();
                        survivors.position() > stood + 8
                    });
                    victim.go_on();
                    stage.until("the victim ends", || {
                        paced(&mut survivors)();
                        !victim.is_running()
                    });
                    victim.done();
                    survivors.measure();
                    survivors.go_on();
                } else {
                    the_others_go_on(&stage, &mut survivors, victim, how, true);
                }
                let stood_still = survivors.end(2, &[2]);
                stage.end(TOPIC);
                stood_still
            });
        }
    }
}

/// Everybody may write `ctl`, and only its owner `data`.
fn for_others_to_read(stage: &Stage) {
    let topics = stage.directory.path();
    let files = topics.join(TOPIC).join(".topic");
    let mut paths = vec![topics.parent().unwrap().to_owned(), topics.to_owned()];
    paths.extend([topics.join("crash"), topics.join(TOPIC), files.clone()]);
    for path in paths {
        set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    set_permissions(files.join("ctl"), Permissions::from_mode(0o666)).unwrap();
    set_permissions(files.join("data"), Permissions::from_mode(0o644)).unwrap();
}

/// Whether somebody asks the publishers for help (`docs/layout.md`).
fn is_wished(stage: &Stage) -> bool {
    let ctl = File::open(stage.directory.path().join(TOPIC).join(".topic/ctl")).unwrap();
    let mut repair = [0; 8];
    ctl.read_exact_at(&mut repair, 4096 + 384 + 8).unwrap();
    repair != [0; 8]
}

pub(crate) fn who_settles_for_a_subscriber_that_may_not_write_is_killed_or_stopped(plan: &Plan) {
    const HELPER: &[Point] =
        &["repair.pinned", "dead.seen", "abandon.decided", "abandon.stamped", "repair.settled"];
    if !rustix::process::geteuid().is_root() {
        println!("  skipped: only root can become another user");
        return;
    }
    let options = TopicOptions { mode: 0o666, ..shared(Duration::ZERO) };
    for how in BOTH {
        each(plan, "publisher that helps", how, HELPER, |point, _| {
            let stage = Stage::new();
            let mut survivors = Survivors::begin(&stage, &options);
            for_others_to_read(&stage);
            survivors.sleeper_waits(true);
            survivors.guests.push(stage.spawn("reader", &[]));
            stage.until("it is attached", || stage.is_ready(1));
            stage.dead_claimant();
            stage.until("it asks for help", || is_wished(&stage));
            let victim = stage.victim("publisher", &[1, MESSAGES, 0], point, how);
            how.met(&stage, &victim, || {});
            survivors.sleeper_waits(false);
            the_others_go_on(&stage, &mut survivors, victim, how, false);
            let unsure = if how == How::Killed { vec![1, 2] } else { vec![2] };
            let stood_still = survivors.end(2, &unsure);
            stage.end(TOPIC);
            stood_still
        });
        each(plan, "subscriber that asks", how, &["repair.wished"], |point, _| {
            let stage = Stage::new();
            let mut survivors = Survivors::begin(&stage, &options);
            for_others_to_read(&stage);
            survivors.sleeper_waits(true);
            let victim = stage.victim("reader", &[], point, how);
            stage.until("it is attached", || stage.is_ready(1));
            stage.dead_claimant();
            how.met(&stage, &victim, || {});
            survivors.sleeper_waits(false);
            match how {
                How::Killed => the_others_go_on(&stage, &mut survivors, victim, how, false),
                How::Stopped => {
                    victim.go_on();
                    survivors.guests.push(victim);
                    survivors.measure();
                    survivors.go_on();
                }
            }
            let stood_still = survivors.end(2, &[2]);
            stage.end(TOPIC);
            stood_still
        });
    }
}
