//! The scene of a synchronisation object: a process that uses it, and one beside it that has it, waits for it, or died with it.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shmbus::Directory;
use shmbus::sync::{SyncInfo, SyncOptions};

use crate::Plan;
use crate::drive::{End, Fate, Scene, at_each_instruction};
use crate::processes::{Process, Role, Stage};

pub(crate) const NAME: &str = "steps/object";
pub(crate) const MEMBERS: u32 = 4;
pub(crate) const OPTIONS: SyncOptions = SyncOptions { members_max: MEMBERS, mode: 0o600 };
/// Not reached: a wait of this length is a failure.
pub(crate) const HANG: Duration = Duration::from_secs(20);
/// How long others try while a process stands that may have it.
pub(crate) const MOMENT: Duration = Duration::from_millis(1);

/// Words of the board: that an owner has it, and waits to be killed; what the process under test has, as it says itself.
const OWNED: usize = 30;
const INSIDE: usize = 31;

/// What is done with an object, and beside whom.
#[derive(Clone, Copy)]
pub(crate) struct Act {
    /// The role of the process.
    pub(crate) role: &'static str,
    pub(crate) create: fn(&Directory),
    /// Before it is started.
    pub(crate) before: fn(&mut Door),
    /// When it stands at the first mark.
    pub(crate) begun: fn(&mut Door),
    /// It waits for the one beside it, asleep.
    pub(crate) may_sleep: bool,
    /// When it sleeps: does what it waits for. The one beside it was told to go on.
    pub(crate) wake: fn(&Door),
    /// While it stands.
    pub(crate) meanwhile: fn(&Door),
    /// When it is gone: gives the one beside it what that may wait for still.
    pub(crate) settle: fn(&Door, End),
    /// When the one beside it is gone too: the object can be used, and nobody has it.
    pub(crate) check: fn(&Door, End),
}

impl Act {
    /// By a role, beside nobody.
    pub(crate) const fn of(
        role: &'static str,
        create: fn(&Directory),
        meanwhile: fn(&Door),
        check: fn(&Door, End),
    ) -> Act {
        Act {
            role,
            create,
            before: |_| {},
            begun: |_| {},
            may_sleep: false,
            wake: |_| {},
            meanwhile,
            settle: |_, _| {},
            check,
        }
    }
}

/// An object, the process under test and one beside it.
pub(crate) struct Door {
    pub(crate) stage: Stage,
    act: Act,
    go: Arc<AtomicBool>,
    other: Option<JoinHandle<()>>,
    stood: Vec<Duration>,
}

impl Door {
    fn new(act: Act) -> Door {
        let stage = Stage::new();
        (act.create)(&stage.directory);
        Door { stage, act, go: Arc::new(AtomicBool::new(false)), other: None, stood: vec![] }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.stage.directory
    }

    /// One beside it, which does this, and may wait for the flag: then it is to go on.
    pub(crate) fn beside(&mut self, part: fn(&Directory, &AtomicBool)) {
        let (directory, go) = (self.stage.directory.clone(), Arc::clone(&self.go));
        self.other = Some(std::thread::spawn(move || part(&directory, &go)));
    }

    /// Whether the one beside it has done its part.
    pub(crate) fn is_other_done(&self) -> bool {
        self.other.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until that is so of the object.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&SyncInfo) -> bool) {
        let look = || is_so(&self.stage.directory.inspect_sync(NAME).unwrap());
        self.stage.until(what, look);
    }

    /// Until somebody sleeps behind the process under test, which has it.
    pub(crate) fn until_awaited(&self) {
        self.until("one waits", |info| info.waiting);
    }

    /// One beside it gets it in this role, and is killed with it.
    pub(crate) fn one_dies(&self, role: &'static str) {
        self.stage.board.word(OWNED).store(0, SeqCst);
        let owner = self.stage.spawn(role, &[]);
        self.stage.until("it has it", || self.stage.board.word(OWNED).load(SeqCst) == 1);
        owner.kill();
    }

    /// What the process under test has, as it says itself. 0: nothing.
    pub(crate) fn inside(&self) -> u64 {
        inside(&self.stage.board).load(SeqCst)
    }
}

fn inside(board: &crate::board::Board) -> &AtomicU64 {
    board.word(INSIDE)
}

/// The process under test says what it has.
pub(crate) fn say(role: &Role, has: u64) {
    inside(&role.board).store(has, SeqCst);
}

/// Says that one has it, and waits to be killed.
pub(crate) fn wait_to_be_killed(role: &Role) -> ! {
    role.board.word(OWNED).store(1, SeqCst);
    loop {
        std::thread::park();
    }
}

/// Waits until one is to go on.
pub(crate) fn wait_to_go(go: &AtomicBool) {
    while !go.load(SeqCst) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

impl Scene for Door {
    fn spawn(&mut self) -> Process {
        self.go.store(false, SeqCst);
        (self.act.before)(self);
        self.stage.spawn(self.act.role, &[])
    }

    fn may_sleep(&self) -> bool {
        self.act.may_sleep
    }

    fn begun(&mut self) {
        (self.act.begun)(self);
    }

    fn wake(&mut self) {
        self.go.store(true, SeqCst);
        (self.act.wake)(self);
    }

    fn meanwhile(&mut self) {
        (self.act.meanwhile)(self);
    }

    fn check(&mut self, end: End) {
        let begin = Instant::now();
        self.go.store(true, SeqCst);
        inside(&self.stage.board).store(0, SeqCst); // it has nothing any more
        (self.act.settle)(self, end);
        if let Some(other) = self.other.take() {
            other.join().expect("the other one gets what it waits for");
        }
        (self.act.check)(self, end);
        self.stood.push(begin.elapsed());
    }

    fn stood(&self) -> &[Duration] {
        &self.stood
    }

    fn end(self) {
        // Woken by the kernel, and not by the look that everybody takes once in a second.
        let slow = self.stood.iter().filter(|stood| **stood > Duration::from_millis(800)).count();
        assert!(slow * 4 <= self.stood.len(), "{slow} waited for the next look");
        for name in self.stage.directory.sync_objects().unwrap() {
            let removed = self.stage.directory.remove_sync(&name, false);
            removed.expect("nobody who lives has it open");
        }
        assert!(self.stage.files().is_empty(), "files were left: {:?}", self.stage.files());
    }
}

pub(crate) fn test(plan: &Plan, act: Act) {
    at_each_instruction(plan, |_: Fate| Door::new(act));
}
