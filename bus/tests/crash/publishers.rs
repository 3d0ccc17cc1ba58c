//! Publishers of both kinds at their points.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::AttachError;

use crate::cases::{How, Point, each, name};
use crate::processes::Stage;
use crate::runner::Plan;
use crate::survivors::{Survivors, exclusive, moment, shared};
use crate::victims::{GO, READY, TOPIC};

/// What the victim publishes, if it lives so long; its feed is 1.
const MESSAGES: u64 = 240;
const TIMEOUT: Duration = Duration::from_millis(20);

const EXCLUSIVE: &[Point] = &[
    "join.leased",
    "join.joining",
    "join.cleared",
    "takeover.counted",
    "join.active",
    "join.raised",
    "takeover.rung",
    "open.chosen",
    "open.stored",
    "open.stored:5",
    "publish.written",
    "loan.written",
    "commit.stamped",
    "commit.stamped:4",
    "commit.counted",
    "ring.decided",
    "ring.called",
    "ring.woken",
    "sleep.shown",
    "sleep.looked",
    "sleep.over",
    "leave.unpinned",
    "leave.vacated",
    "leave.rung",
    "leave.released",
];

const SHARED: &[Point] = &[
    "join.leased",
    "join.joining",
    "join.cleared",
    "join.active",
    "join.raised",
    "takeover.rung",
    "open.proven",
    "open.exchanged",
    "open.exchanged:4",
    "claim.pinned",
    "claim.pinned:3",
    "claim.shown",
    "claim.shown:8",
    "claim.taken",
    "claim.taken:8",
    "shared.written",
    "loan.written",
    "commit.exchanged",
    "commit.unclaimed",
    "loan.dropped",
    "ring.decided",
    "ring.called",
    "ring.woken",
    "sleep.shown",
    "sleep.looked",
    "sleep.over",
    "leave.unpinned",
    "leave.vacated",
    "leave.rung",
    "leave.released",
];

/// So slowly that a publisher waits for it again and again.
fn slowly<'a>(survivors: &'a mut Survivors<'_>) -> impl FnMut() + 'a {
    let mut looks = 0;
    move || {
        looks += 1;
        if looks % 8 == 0 {
            survivors.receive(2);
        }
    }
}

pub(crate) fn an_exclusive_publisher_is_killed_and_the_next_one_goes_on(plan: &Plan) {
    each(plan, "exclusive publisher", How::Killed, EXCLUSIVE, |point, round| {
        let stage = Stage::new();
        let mut survivors = Survivors::begin(&stage, &exclusive());
        survivors.publisher = None;
        let victim = stage.victim("publisher", &[1, MESSAGES, 0], point, How::Killed);
        How::Killed.met(&stage, &victim, slowly(&mut survivors));
        victim.killed();
        if round % 2 == 1 {
            // Who takes over is killed too, in the middle of it.
            for point in ["takeover.counted", "takeover.rung"] {
                let taker = stage.victim("publisher", &[2, 1, 0], point, How::Killed);
                How::Killed.met(&stage, &taker, || {});
                taker.killed();
            }
        }
        survivors.measure();
        survivors.go_on();
        let stood_still = survivors.end(2, &[1]);
        stage.end(TOPIC);
        stood_still
    });
}

pub(crate) fn an_exclusive_publisher_is_stopped_and_keeps_its_place(plan: &Plan) {
    each(plan, "exclusive publisher", How::Stopped, EXCLUSIVE, |point, _| {
        let stage = Stage::new();
        let mut survivors = Survivors::begin(&stage, &exclusive());
        survivors.publisher = None;
        let victim = stage.victim("publisher", &[1, MESSAGES, 0], point, How::Stopped);
        How::Stopped.met(&stage, &victim, slowly(&mut survivors));
        if name(point) == "leave.released" {
            survivors.go_on();
        } else {
            let refused = survivors.topic.publisher().err();
            assert!(matches!(refused, Some(AttachError::PublisherAlive { .. })), "{refused:?}");
            survivors.receive(usize::MAX);
            moment();
        }
        victim.go_on();
        stage.until("the victim ends", || {
            survivors.receive(usize::MAX);
            !victim.is_running()
        });
        victim.done();
        survivors.measure();
        survivors.go_on();
        let stood_still = survivors.end(1, &[]);
        stage.end(TOPIC);
        stood_still
    });
}

/// Without a claim time-out: that it is dead is what lets the others go on.
pub(crate) fn a_shared_publisher_is_killed_and_the_others_go_on(plan: &Plan) {
    each(plan, "shared publisher", How::Killed, SHARED, |point, round| {
        let stage = Stage::new();
        let mut survivors = Survivors::begin(&stage, &shared(Duration::ZERO));
        let mut unsure = vec![1];
        let victims = if round % 2 == 1 { 2 } else { 1 };
        for feed in 1..=victims {
            let victim = stage.victim("publisher", &[feed, MESSAGES, 1], point, How::Killed);
            How::Killed.met(&stage, &victim, slowly(&mut survivors));
            victim.killed();
            unsure.push(feed);
        }
        survivors.measure();
        survivors.go_on();
        let stood_still = survivors.end(victims, &unsure);
        stage.end(TOPIC);
        stood_still
    });
}

pub(crate) fn a_shared_publisher_is_stopped_and_the_others_go_on(plan: &Plan) {
    each(plan, "shared publisher", How::Stopped, SHARED, |point, _| {
        let stage = Stage::new();
        let mut survivors = Survivors::begin(&stage, &shared(TIMEOUT));
        let victim = stage.victim("publisher", &[1, MESSAGES, 1], point, How::Stopped);
        How::Stopped.met(&stage, &victim, slowly(&mut survivors));
        survivors.measure();
        survivors.go_on();
        let stood_still = survivors.stood_still();
        victim.go_on();
        stage.until("the victim ends", || {
            survivors.receive(usize::MAX);
            !victim.is_running()
        });
        victim.done();
        survivors.go_on();
        survivors.end(1, &[]);
        stage.end(TOPIC);
        stood_still
    });
}

const MOVER: &[Point] = &[
    "loan.written",
    "commit.exchanged",
    "move.kept",
    "claim.shown:2",
    "claim.taken:2",
    "shared.written",
    "commit.exchanged:2",
    "move.published",
    "move.let_go",
];

/// Its loan was revoked while it stood still, and it moves the message to another sequence.
pub(crate) fn a_publisher_is_killed_or_stopped_while_it_moves_a_revoked_loan(plan: &Plan) {
    for how in [How::Killed, How::Stopped] {
        each(plan, "publisher of a revoked loan", how, MOVER, |point, round| {
            let stage = Stage::new();
            let mut survivors = Survivors::begin(&stage, &shared(TIMEOUT));
            let victim = stage.victim("mover", &[1], point, how);
            let ready = || stage.board.word(READY).load(SeqCst);
            stage.until("the mover takes a sequence", || ready() > 0);
            let taken = ready() - 1;
            survivors.publish(3);
            stage.until("it is revoked", || {
                survivors.receive(usize::MAX);
                survivors.position() > taken
            });
            if round % 2 == 1 {
                survivors.go_on(); // so that its block has left the table
            }
            stage.board.word(GO).store(1, SeqCst);
            how.met(&stage, &victim, slowly(&mut survivors));
            let unsure = match how {
                How::Killed => {
                    victim.killed();
                    survivors.measure();
                    survivors.go_on();
                    vec![1]
                }
                How::Stopped => {
                    survivors.measure();
                    survivors.go_on();
                    victim.go_on();
                    stage.until("the victim ends", || {
                        survivors.receive(usize::MAX);
                        !victim.is_running()
                    });
                    victim.done();
                    survivors.go_on();
                    vec![]
                }
            };
            let stood_still = survivors.end(1, &unsure);
            stage.end(TOPIC);
            stood_still
        });
    }
}
