//! Wishes that come while another one is being carried out. All orders of them, without processes, are in `process::plan`.

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use shmbus::process::{ChildSpec, Handle, Phase, Stop};

use crate::Plan;
use crate::processes::Stage;
use crate::tree::{Tree, Watched, root, spec, supervisor};
use crate::workers;

/// A child whose revisions are workers of their own, which do not end by themselves.
fn revision(root: &Path, n: usize) -> ChildSpec {
    let root = root.to_path_buf();
    let mut child = ChildSpec::new("x", move || Ok(workers::command(&root, "deaf", n)));
    child.revision = n.to_string();
    child.stop = Stop { ask: Duration::ZERO, terminate: Duration::from_secs(3600) };
    child
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Reload(Option<usize>),
    Restart,
}

struct Wishes {
    handle: Handle,
    wanted: Arc<Mutex<Option<usize>>>,
    done: Arc<AtomicUsize>,
}

impl Wishes {
    /// Returns when it was heard.
    fn wish(&self, stage: &Stage, wish: Wish) {
        let before = self.done.load(SeqCst);
        match wish {
            Wish::Reload(wanted) => *self.wanted.lock().unwrap() = wanted,
            Wish::Restart => drop(self.handle.restart("x")),
        }
        self.handle.reload(); // after a restart, of the same again: it shows that the restart was heard
        stage.until("it was heard", || self.done.load(SeqCst) > before);
    }
}

/// The process of a child that was wanted again was lost, or what ran was not what was wanted last.
pub(crate) fn what_is_wanted_while_a_child_is_being_stopped_counts(_: &Plan) {
    use Wish::{Reload, Restart};
    let table: [(&[Wish], Option<usize>); 6] = [
        (&[Reload(None), Reload(Some(0))], Some(0)),
        (&[Reload(Some(1)), Reload(Some(0))], Some(0)),
        (&[Reload(Some(1)), Restart], Some(1)),
        (&[Restart, Reload(Some(1))], Some(1)),
        (&[Reload(None), Restart], None),
        (&[Reload(Some(1)), Reload(None), Reload(Some(1))], Some(1)),
    ];
    for (wishes, expected) in table {
        let stage = Stage::new();
        let path = root(&stage);
        let mut tree = supervisor(vec![revision(&path, 0), spec(&stage, "idle", 9)]);
        let (wanted, done) = (Arc::new(Mutex::new(Some(0))), Arc::new(AtomicUsize::new(0)));
        let (now, count) = (Arc::clone(&wanted), Arc::clone(&done));
        tree.on_reload(move || {
            count.fetch_add(1, SeqCst);
            let other = ChildSpec::new("idle-9", || unreachable!("it goes on as it is"));
            let child = now.lock().unwrap().map(|n| revision(&path, n));
            Some(child.into_iter().chain([other]).collect())
        });
        let tree = Tree::of(tree);
        Tree::until_ready(&stage, 0, 1);
        let first = Watched::worker(&stage, 0);
        let asked = Wishes { handle: tree.handle.clone(), wanted, done };
        wishes.iter().for_each(|wish| asked.wish(&stage, *wish));
        assert_eq!(tree.phase("x"), Phase::Stopping, "{wishes:?}");
        first.send(Signal::KILL);
        match expected {
            Some(n) => {
                Tree::until_ready(&stage, n, if n == 0 { 2 } else { 1 });
                stage.until("it is shown", || tree.phase("x") == Phase::Running);
                Watched::worker(&stage, n).send(Signal::KILL); // of a stop it takes no notice
                Tree::until_ready(&stage, n, if n == 0 { 3 } else { 2 });
                assert!(!Watched::worker(&stage, n).is_gone(), "{wishes:?}");
            }
            None => stage.until("it is gone", || tree.handle.status().len() == 1),
        }
        (0..2).for_each(|_| tree.handle.stop());
        tree.join().0.unwrap();
    }
}
