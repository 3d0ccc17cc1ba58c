//! How children are stopped.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::process::{Core, End, Stop};

use crate::Plan;
use crate::processes::Stage;
use crate::tree::{SHORT, Told, Tree, Watched, spec, supervisor};
use crate::workers::{CLEAN, ESCAPED, GRANDCHILD};

const LONG: Duration = Duration::from_secs(3600);

fn killed(signal: i32) -> End {
    End::Killed { signal, core: Core::None }
}

fn end_of(told: &[Told], wanted: &str) -> End {
    let end = |told: &Told| match told {
        Told::Ended { name, end, stopped: true, .. } if name == wanted => Some(*end),
        _ => None,
    };
    told.iter().find_map(end).unwrap_or_else(|| panic!("{wanted} was not stopped: {told:?}"))
}

pub(crate) fn a_child_that_reads_the_request_ends_by_itself(_: &Plan) {
    let stage = Stage::new();
    let mut polite = spec(&stage, "polite", 0);
    polite.stop = Stop { ask: LONG, terminate: LONG };
    let tree = Tree::of(supervisor(vec![polite]));
    Tree::until_ready(&stage, 0, 1);
    let (_, told) = tree.stop();
    assert_eq!(end_of(&told, "polite-0"), End::Exited(7));
}

pub(crate) fn a_child_that_does_not_ends_by_sigterm_and_one_that_ignores_that_by_sigkill(_: &Plan) {
    let stage = Stage::new();
    let mut children: Vec<_> = ["idle", "idle", "deaf", "standing", "idle"]
        .into_iter()
        .enumerate()
        .map(|(n, kind)| spec(&stage, kind, n))
        .collect();
    children[0].stop = Stop { ask: SHORT, terminate: LONG };
    children[1].stop = Stop { ask: Duration::ZERO, terminate: LONG };
    children[2].stop = Stop { ask: SHORT, terminate: SHORT };
    children[3].stop = Stop { ask: SHORT, terminate: SHORT };
    children[4].stop = Stop { ask: Duration::ZERO, terminate: Duration::ZERO };
    let tree = Tree::of(supervisor(children));
    (0..5).for_each(|n| Tree::until_ready(&stage, n, 1));
    let (_, told) = tree.stop();
    let ends =
        ["idle-0", "idle-1", "deaf-2", "standing-3", "idle-4"].map(|name| end_of(&told, name));
    assert_eq!(ends, [15, 15, 9, 9, 9].map(killed));
}

pub(crate) fn what_a_child_has_started_goes_with_it_unless_it_has_left_the_group(_: &Plan) {
    let stage = Stage::new();
    let tree = Tree::of(supervisor(vec![spec(&stage, "parent", 0)]));
    let process = |word: usize| Watched::of(stage.board.word(word).load(SeqCst));
    let started = |times| {
        Tree::until_ready(&stage, 0, times);
        [GRANDCHILD, ESCAPED].map(process)
    };
    let first = started(1);
    assert!(first.iter().all(|one| !one.is_gone()));
    Watched::worker(&stage, 0).send(Signal::KILL); // by somebody else
    let second = started(2);
    tree.stop();
    for [grandchild, escaped] in [first, second] {
        stage.until("it ends with its parent", || grandchild.is_gone());
        assert!(!escaped.is_gone(), "setsid leads out of the group");
        escaped.send(Signal::KILL);
        stage.until("it is gone", || escaped.is_gone());
    }
}

/// SIGTERM went to the child alone, and SIGKILL to the others as soon as it had ended.
pub(crate) fn all_of_a_group_may_end_in_order_and_are_waited_for(_: &Plan) {
    let stage = Stage::new();
    let mut family = spec(&stage, "family", 0);
    family.stop = Stop { ask: Duration::ZERO, terminate: LONG };
    let tree = Tree::of(supervisor(vec![family]));
    let grandchild = |times| {
        Tree::until_ready(&stage, 0, times);
        Watched::of(stage.board.word(GRANDCHILD).load(SeqCst))
    };
    let clean = || stage.board.word(CLEAN + 1).load(SeqCst);
    let first = grandchild(1);
    Watched::worker(&stage, 0).send(Signal::KILL); // the child alone, by somebody else
    let second = grandchild(2);
    assert!(first.is_gone() && clean() == 1, "before another one was started");
    let (_, told) = tree.stop();
    assert!(second.is_gone() && clean() == 2, "before the supervisor has returned");
    assert_eq!(end_of(&told, "family-0"), killed(15));
    // One that is deaf has as long as the child.
    let mut family = spec(&stage, "deaf-family", 10);
    family.stop = Stop { ask: Duration::ZERO, terminate: 50 * SHORT };
    let tree = Tree::of(supervisor(vec![family]));
    Tree::until_ready(&stage, 10, 1);
    let deaf = Watched::of(stage.board.word(GRANDCHILD + 10).load(SeqCst));
    let (_, told) = tree.stop();
    assert!(deaf.is_gone());
    assert_eq!(end_of(&told, "deaf-family-10"), killed(15));
}

pub(crate) fn a_supervisor_that_panics_leaves_no_child(_: &Plan) {
    let stage = Stage::new();
    let mut supervisor = supervisor(vec![spec(&stage, "idle", 0), spec(&stage, "idle", 1)]);
    let handle = supervisor.handle();
    supervisor.on_reload(|| panic!("on purpose"));
    let thread = std::thread::spawn(move || supervisor.run());
    (0..2).for_each(|n| Tree::until_ready(&stage, n, 1));
    let children = [0, 1].map(|n| Watched::worker(&stage, n));
    handle.reload();
    assert!(thread.join().is_err());
    assert!(children.iter().all(Watched::is_gone));
}
