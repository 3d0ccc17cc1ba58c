//! How children are stopped.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::process::{Core, End, Stop};

use crate::Plan;
use crate::processes::Stage;
use crate::tree::{SHORT, Told, Tree, Watched, spec, supervisor};
use crate::workers::{ESCAPED, GRANDCHILD};

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
