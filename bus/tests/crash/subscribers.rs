//! Subscribers of both kinds at their points.

use crate::cases::{How, Point, each, name};
use crate::processes::Stage;
use crate::runner::Plan;
use crate::survivors::{Survivors, exclusive, moment};
use crate::victims::TOPIC;

/// What the victim receives, if it lives so long.
const MESSAGES: u64 = 120;

const LOSSY: &[Point] = &[
    "join.leased",
    "join.joining",
    "join.cleared",
    "join.active",
    "join.raised",
    "enter.pinned",
    "enter.pinned:4",
    "enter.fenced",
    "enter.fenced:4",
    "enter.done",
    "lapped.counted",
    "hold.cell_stored",
    "hold.shown",
    "hold.released",
    "sleep.shown",
    "sleep.looked",
    "sleep.over",
    "leave.lossy",
    "leave.unpinned",
    "leave.vacated",
    "leave.rung",
    "leave.released",
];

const RELIABLE: &[Point] = &[
    "join.leased",
    "join.joining",
    "join.cleared",
    "join.cursor_shown",
    "join.active",
    "join.raised",
    "join.pinned",
    "enter.pinned",
    "enter.pinned:4",
    "enter.cursor_shown",
    "enter.cursor_shown:4",
    "enter.fenced",
    "enter.fenced:4",
    "enter.done",
    "idle.cursor_shown",
    "hold.cell_stored",
    "hold.shown",
    "hold.released",
    "sleep.shown",
    "sleep.looked",
    "sleep.over",
    "leave.lossy",
    "leave.unpinned",
    "leave.vacated",
    "leave.rung",
    "leave.released",
];

const KINDS: [(&str, u64, &[Point]); 2] =
    [("lossy subscriber", 0, LOSSY), ("reliable subscriber", 1, RELIABLE)];

/// Whether publishers wait for a reliable subscriber that stands there.
fn is_waited_for(point: Point) -> bool {
    let joins = ["join.leased", "join.joining", "join.cleared", "join.cursor_shown"];
    !joins.contains(&point) && !name(point).starts_with("leave.")
}

/// Publishes on and on: a few blocks, then nothing for a while, so that the victim sleeps.
pub(crate) fn paced<'a>(survivors: &'a mut Survivors<'_>) -> impl FnMut() + 'a {
    let mut looks = 0;
    move || {
        survivors.receive(usize::MAX);
        looks += 1;
        if looks % 8 == 1 {
            for _ in 0..11 {
                survivors.receive(usize::MAX);
                survivors.offer();
            }
        }
    }
}

pub(crate) fn a_subscriber_is_killed_and_nobody_waits_for_it(plan: &Plan) {
    for (who, reliable, points) in KINDS {
        each(plan, who, How::Killed, points, |point, round| {
            let stage = Stage::new();
            let mut survivors = Survivors::begin(&stage, &exclusive());
            let victim = stage.victim("subscriber", &[reliable, MESSAGES], point, How::Killed);
            How::Killed.met(&stage, &victim, paced(&mut survivors));
            victim.killed();
            if round % 2 == 1 {
                // Two sweepers die of it, before and after.
                for point in ["dead.seen", "dead.declared"] {
                    if survivors
                        .topic
                        .info()
                        .participants
                        .iter()
                        .all(|other| other.liveness.is_alive())
                    {
                        break;
                    }
                    let sweeper = stage.victim("subscriber", &[0, 1], point, How::Killed);
                    How::Killed.met(&stage, &sweeper, || {});
                    sweeper.killed();
                }
            }
            survivors.measure();
            survivors.go_on();
            let stood_still = survivors.end(0, &[]);
            stage.end(TOPIC);
            stood_still
        });
    }
}

pub(crate) fn a_subscriber_is_stopped_and_waited_for_if_it_is_reliable(plan: &Plan) {
    for (who, reliable, points) in KINDS {
        each(plan, who, How::Stopped, points, |point, _| {
            let stage = Stage::new();
            let mut survivors = Survivors::begin(&stage, &exclusive());
            let victim = stage.victim("subscriber", &[reliable, MESSAGES], point, How::Stopped);
            How::Stopped.met(&stage, &victim, paced(&mut survivors));
            if reliable == 1 && is_waited_for(point) {
                let mut published = 0;
                let depth = exclusive().depth;
                let mut go_round = |survivors: &mut Survivors<'_>| {
                    for _ in 0..depth {
                        survivors.receive(usize::MAX);
                        published += u64::from(survivors.offer());
                    }
                };
                go_round(&mut survivors);
                moment();
                go_round(&mut survivors);
                assert!(published <= depth, "a stopped reliable one was overtaken");
            } else {
                survivors.measure();
                survivors.go_on();
            }
            let stood_still = survivors.stood_still();
            victim.go_on();
            let mut publish = paced(&mut survivors);
            stage.until("the victim ends", || {
                publish();
                !victim.is_running()
            });
            drop(publish);
            victim.done();
            survivors.go_on();
            survivors.end(0, &[]);
            stage.end(TOPIC);
            stood_still
        });
    }
}
