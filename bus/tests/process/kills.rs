//! Children and their supervisor killed at random.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::process::Signal;
use shmbus::process::ChildSpec;
use shmbus::{Topic, TopicOptions};

use crate::processes::{Part, Role, Stage};
use crate::random::Random;
use crate::tree::{Tree, Watched, supervisor};
use crate::workers::{self, PID, READY, TOPIC};
use crate::{Plan, share};

pub(crate) const ROLES: &[Part] = &[("tree", tree)];

const CHILDREN: usize = 3;

/// A supervisor of workers that hold a message of a topic each. Its own death is left to whoever kills it.
fn tree(role: &Role) {
    let root = role.directory.path().parent().unwrap().to_path_buf();
    let topic = Topic::<u64>::open_in(&role.directory, TOPIC).unwrap();
    let child = |n| {
        let root = root.clone();
        let mut child =
            ChildSpec::new(format!("{n}"), move || Ok(workers::command(&root, "hold", n)));
        child.topic(&topic);
        child
    };
    supervisor((0..CHILDREN).map(child).collect()).run().unwrap();
}

fn staged() -> Stage {
    let stage = Stage::new();
    let options = TopicOptions {
        subscribers_max: CHILDREN as u32,
        hold_blocks: Some(CHILDREN as u32),
        ..Default::default()
    };
    let topic = Topic::<u64>::create_in(&stage.directory, TOPIC, &options).unwrap();
    topic.publisher().unwrap().publish(&1).unwrap();
    stage
}

pub(crate) fn the_children_of_a_killed_supervisor_are_gone(_: &Plan) {
    let stage = staged();
    let supervisor = stage.spawn("tree", &[]);
    (0..CHILDREN).for_each(|n| Tree::until_ready(&stage, n, 1));
    let children = [0, 1, 2].map(|n| Watched::worker(&stage, n));
    assert!(children.iter().all(|child| !child.is_gone()));
    supervisor.kill();
    stage.until("they die with it", || children.iter().all(Watched::is_gone));
    stage.end(TOPIC);
}

/// What an observer sees: as many living participants as there are children, and descriptors of the supervisor.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Processes whose parent this is, zombies among them.
fn children_of(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children =
        |task: std::path::PathBuf| std::fs::read_to_string(task.join("children")).unwrap();
    tasks.map(|task| children(task.unwrap().path()).split_whitespace().count()).sum()
}

pub(crate) fn random_kills_leave_the_tree_as_it_is_specified(plan: &Plan) {
    let stage = staged();
    let mut random = Random::new(plan.seed);
    let ready = |n: usize| stage.board.word(READY + n).load(SeqCst);
    let alive = || {
        let info = stage.directory.inspect(TOPIC).unwrap();
        info.participants.iter().filter(|one| one.liveness.is_alive()).count()
    };
    let mut kills = share(plan, 10);
    let files = stage.files();
    while kills > 0 {
        let times: Vec<u64> = (0..CHILDREN).map(ready).collect();
        let supervisor = stage.spawn("tree", &[]);
        let pid = supervisor.pid().as_raw_pid() as u32;
        let up = |times: &[u64]| {
            stage.until("all children hold", || {
                (0..CHILDREN).all(|n| ready(n) > times[n]) && alive() == CHILDREN
            });
        };
        up(&times);
        stage.until("it sleeps", || supervisor.is_asleep()); // with all of them started
        let before = (descriptors(pid), children_of(pid));
        assert_eq!(before.1, CHILDREN);
        loop {
            kills = kills.saturating_sub(1);
            let victims: Vec<usize> = (0..CHILDREN).filter(|_| random.one_in(2)).collect();
            let times: Vec<u64> = (0..CHILDREN).map(ready).collect();
            let itself = kills == 0 || random.one_in(4);
            let children: Vec<Watched> =
                (0..CHILDREN).map(|n| Watched::worker(&stage, n)).collect();
            victims.iter().for_each(|n| children[*n].send(Signal::KILL));
            if itself {
                std::thread::sleep(random.duration(Duration::from_millis(3)));
                break;
            }
            // Those come again, the others never noticed.
            stage.until("the killed ones hold again", || {
                victims.iter().all(|n| ready(*n) == times[*n] + 1) && alive() == CHILDREN
            });
            stage.until("it sleeps", || supervisor.is_asleep() && descriptors(pid) == before.0);
            for (n, child) in children.iter().enumerate() {
                assert_eq!(child.is_gone(), victims.contains(&n));
                assert_eq!(ready(n), times[n] + u64::from(victims.contains(&n)));
            }
            assert_eq!(children_of(pid), CHILDREN, "a child or a zombie too many or too few");
            assert_eq!(stage.files(), files);
        }
        // It, in whatever it is doing: all that it had started are gone, and what they held is free.
        let running: Vec<u64> =
            (0..CHILDREN).map(|n| stage.board.word(PID + n).load(SeqCst)).collect();
        let watched: Vec<Watched> = running.iter().map(|pid| Watched::of(*pid)).collect();
        supervisor.kill();
        stage.until("they die with it", || alive() == 0 && watched.iter().all(Watched::is_gone));
        stage.directory.sweep(TOPIC).unwrap();
        assert_eq!(stage.directory.inspect(TOPIC).unwrap().participants.len(), 0);
        assert_eq!(stage.files(), files);
    }
    stage.end(TOPIC);
}
