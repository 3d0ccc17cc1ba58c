//! When children are started again.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::process::{
    BackOff, Cause, ChildSpec, Core, End, Intensity, Phase, Restart, Stop, Strategy,
    SupervisorError,
};
use shmbus::{Topic, TopicOptions};

use crate::Plan;
use crate::processes::Stage;
use crate::tree::{SHORT, Told, Tree, Watched, spec, supervisor};
use crate::workers::TOPIC;

const KILLED: End = End::Killed { signal: 9, core: Core::None };

fn ends(told: &[Told], wanted: &str) -> Vec<(End, bool)> {
    let ended = |told: &Told| match told {
        Told::Ended { name, end, stopped, .. } if name == wanted => Some((*end, *stopped)),
        _ => None,
    };
    told.iter().filter_map(ended).collect()
}

pub(crate) fn a_child_is_restarted_as_its_spec_says_and_its_end_is_told(_: &Plan) {
    let stage = Stage::new();
    let mut children = Vec::new();
    for (kind, restart, n) in [
        ("zero", Restart::Always, 0),
        ("zero", Restart::OnFailure, 1),
        ("three", Restart::OnFailure, 2),
        ("three", Restart::Never, 3),
        ("killed", Restart::OnFailure, 4),
        ("killed", Restart::Never, 5),
    ] {
        let mut child = spec(&stage, kind, n);
        child.restart = restart;
        children.push(child);
    }
    let tree = Tree::of(supervisor(children));
    let restarts = |name: &str| tree.status(name).restarts;
    stage.until("all restart that are to", || {
        ["zero-0", "three-2", "killed-4"].iter().all(|name| restarts(name) >= 3)
            && ["zero-1", "three-3", "killed-5"].iter().all(|name| tree.phase(name) == Phase::Ended)
    });
    let (report, told) = tree.stop();
    assert_eq!(report.cause, Cause::Asked);
    let end = |name: &str| ends(&told, name)[0];
    assert_eq!(end("zero-0"), (End::Exited(0), false));
    assert_eq!(end("three-2"), (End::Exited(3), false));
    assert_eq!(end("killed-4"), (KILLED, false));
    for name in ["zero-1", "three-3", "killed-5"] {
        assert_eq!(ends(&told, name).len(), 1, "{name}");
    }
    assert!(report.children.iter().all(|child| child.phase == Phase::Ended && child.pid.is_none()));
    let counted = report.children.iter().find(|child| child.name == "three-2").unwrap().restarts;
    assert_eq!(counted + 1, ends(&told, "three-2").len() as u64);
}

pub(crate) fn the_time_between_restarts_doubles_and_begins_again_after_a_healthy_run(_: &Plan) {
    let stage = Stage::new();
    let mut tree = supervisor(vec![spec(&stage, "three", 0)]);
    tree.back_off = BackOff { min: SHORT, max: 8 * SHORT, healthy: Duration::from_secs(3600) };
    let tree = Tree::of(tree);
    stage.until("it was restarted", || tree.status("three-0").restarts >= 6);
    let (_, told) = tree.stop();
    let delays: Vec<u128> = told
        .iter()
        .filter_map(|told| match told {
            Told::Ended { restart_in: Some(delay), .. } => Some(delay.as_millis()),
            _ => None,
        })
        .collect();
    assert_eq!(delays[..6], [1, 2, 4, 8, 8, 8]);
    // A run of any length is healthy here.
    let mut tree = supervisor(vec![spec(&stage, "three", 0)]);
    tree.back_off = BackOff { min: SHORT, max: 8 * SHORT, healthy: Duration::ZERO };
    let tree = Tree::of(tree);
    stage.until("it was restarted", || tree.status("three-0").restarts >= 3);
    let (_, told) = tree.stop();
    let is_min = |told: &Told| match told {
        Told::Ended { restart_in: Some(delay), .. } => *delay == SHORT,
        _ => true,
    };
    assert!(told.iter().all(is_min), "{told:?}");
}

pub(crate) fn too_many_restarts_stop_everything_and_say_so(_: &Plan) {
    let stage = Stage::new();
    let mut tree = supervisor(vec![spec(&stage, "idle", 0), spec(&stage, "three", 1)]);
    tree.intensity = Intensity { restarts: 3, within: Duration::from_secs(3600) };
    let (outcome, told) = Tree::of(tree).join();
    let Err(SupervisorError::TooManyRestarts { name, end, children, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!((name.as_str(), end), ("three-1", End::Exited(3)));
    assert_eq!(ends(&told, "three-1").len(), 4, "three restarts, and one too many");
    assert!(told.contains(&Told::GivingUp("three-1".into())));
    assert_eq!(ends(&told, "idle-0").len(), 1);
    assert!(children.iter().all(|child| child.phase == Phase::Ended));
}

pub(crate) fn one_for_all_stops_the_others_before_any_is_started_again(_: &Plan) {
    let stage = Stage::new();
    let mut done = spec(&stage, "zero", 3);
    done.restart = Restart::Never;
    // It takes longer to stop than the others stay down.
    let mut slow = spec(&stage, "deaf", 2);
    slow.stop = Stop { ask: Duration::ZERO, terminate: 50 * SHORT };
    let children = vec![spec(&stage, "idle", 0), spec(&stage, "idle", 1), slow, done];
    let mut tree = supervisor(children);
    tree.strategy = Strategy::OneForAll;
    let tree = Tree::of(tree);
    for round in 1..=5 {
        for n in 0..3 {
            Tree::until_ready(&stage, n, round);
        }
        stage.until("one has ended for good", || tree.phase("zero-3") == Phase::Ended);
        let before = tree.told().len();
        Watched::worker(&stage, 1).send(Signal::KILL);
        for n in 0..3 {
            Tree::until_ready(&stage, n, round + 1);
        }
        // A child may be ready before its start is told.
        stage.until("all is told", || tree.told().len() >= before + 6);
        let told = &tree.told()[before..];
        let names = |wanted: fn(&Told) -> Option<&String>| -> Vec<String> {
            let mut names: Vec<String> = told[..6].iter().filter_map(wanted).cloned().collect();
            names.sort_by_key(|name| name.rsplit('-').next().unwrap().to_owned());
            names
        };
        let all = ["idle-0", "idle-1", "deaf-2"];
        // First three ends, then three starts, in their order.
        let first = told[..3].iter().all(|told| matches!(told, Told::Ended { .. }));
        assert!(first, "{told:?}");
        assert_eq!(ends(told, "idle-1"), [(KILLED, false)]);
        assert!(ends(told, "idle-0")[0].1 && ends(told, "deaf-2")[0].1, "stopped: {told:?}");
        assert_eq!(
            names(|told| match told {
                Told::Ended { name, .. } => Some(name),
                _ => None,
            }),
            all
        );
        assert_eq!(told[3..6], all.map(|name| Told::Started(name.into())));
    }
    let (_, told) = tree.stop();
    assert_eq!(ends(&told, "zero-3").len(), 1, "what had ended for good stays so");
}

pub(crate) fn what_the_dead_held_is_given_back_before_they_are_started_again(_: &Plan) {
    let stage = Stage::new();
    let options = TopicOptions { subscribers_max: 1, hold_blocks: Some(1), ..Default::default() };
    let topic = Topic::<u64>::create_in(&stage.directory, TOPIC, &options).unwrap();
    topic.publisher().unwrap().publish(&1).unwrap();
    let mut child = spec(&stage, "hold-and-die", 0);
    child.topic(&topic);
    let mut tree = supervisor(vec![child]);
    // Where it is started again, nobody dead is seen in the topic: an observer changes nothing.
    let (seen, directory) =
        (std::sync::Arc::new(std::sync::Mutex::new(Vec::new())), stage.directory.clone());
    let seeing = std::sync::Arc::clone(&seen);
    let handle = tree.handle();
    tree.on_event(move |event| {
        if let shmbus::process::Event::Ended { end, swept, .. } = event {
            let left = directory.inspect(TOPIC).unwrap().participants.len();
            seeing.lock().unwrap().push((end, swept, left));
        }
    });
    let thread = std::thread::spawn(move || tree.run());
    stage.until("it died", || seen.lock().unwrap().len() >= 10);
    handle.stop();
    thread.join().unwrap().unwrap();
    for (end, swept, left) in &seen.lock().unwrap()[..10] {
        assert_eq!((*end, *swept, *left), (KILLED, 1, 0));
    }
    drop(topic);
    stage.end(TOPIC);
}

pub(crate) fn a_program_that_is_not_there_is_an_end_like_any_other(_: &Plan) {
    let stage = Stage::new();
    let mut missing = ChildSpec::new("missing", || Ok(Command::new("/no/such/program")));
    missing.restart = Restart::OnFailure;
    let mut tree = supervisor(vec![missing, spec(&stage, "idle", 1)]);
    tree.intensity.restarts = 5;
    let (outcome, told) = Tree::of(tree).join();
    assert!(matches!(outcome, Err(SupervisorError::TooManyRestarts { .. })), "{outcome:?}");
    assert_eq!(ends(&told, "missing"), [(End::NotStarted(libc::ENOENT), false); 6]);
    assert!(!told.contains(&Told::Started("missing".into())));
}

pub(crate) fn a_restart_on_demand_counts_as_no_failure(_: &Plan) {
    let stage = Stage::new();
    let mut once = spec(&stage, "zero", 1);
    once.restart = Restart::Never;
    let mut tree = supervisor(vec![spec(&stage, "idle", 0), once]);
    tree.intensity.restarts = 0;
    let tree = Tree::of(tree);
    assert!(!tree.handle.restart("nobody"));
    for round in 1..=3 {
        Tree::until_ready(&stage, 0, round);
        let before = Watched::worker(&stage, 0);
        assert!(tree.handle.restart("idle-0"));
        Tree::until_ready(&stage, 0, round + 1);
        assert!(before.is_gone());
    }
    stage.until("it has ended", || tree.phase("zero-1") == Phase::Ended);
    assert!(tree.handle.restart("zero-1"));
    stage.until("it has run again", || {
        tree.status("zero-1").restarts == 1 && tree.phase("zero-1") == Phase::Ended
    });
    let (report, _) = tree.stop();
    assert_eq!(report.children[0].restarts, 3);
}

pub(crate) fn an_idle_supervisor_does_not_wake(_: &Plan) {
    let stage = Stage::new();
    let supervisor = supervisor(vec![spec(&stage, "idle", 0)]);
    let handle = supervisor.handle();
    let thread = std::sync::Arc::new(std::sync::OnceLock::new());
    let telling = std::sync::Arc::clone(&thread);
    let running = std::thread::spawn(move || {
        telling.set(rustix::thread::gettid().as_raw_pid()).unwrap();
        supervisor.run()
    });
    Tree::until_ready(&stage, 0, 1);
    let thread = *thread.get().unwrap();
    let sleeps = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    let is_asleep = || {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('S')
    };
    // Until it has gone to sleep for good: whatever starting a child made it do is done.
    let mut before = 0;
    stage.until("it sleeps", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = sleeps();
        std::mem::replace(&mut before, now) == now && is_asleep()
    });
    std::thread::sleep(Duration::from_millis(500)); // nothing is waited for: this is what is looked at
    assert_eq!(sleeps(), before);
    handle.stop();
    running.join().unwrap().unwrap();
}
