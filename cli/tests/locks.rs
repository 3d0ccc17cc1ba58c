//! Locks on the command line: listed, shown, removed, given back and examined, as topics are.

mod program;

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use program::{Done, Place};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shmbus::sync::{
    Barrier, Condvar, Event, LockError, OnceCell, Reset, RobustMutex, RwLock, Semaphore,
    SyncOptions,
};

type Mutex = RobustMutex<[u64; 2]>;

const PLACE: &str = "SHMBUS_TEST_LOCK_OWNER";
const EIGHT: SyncOptions = SyncOptions { members_max: 8, mode: 0o600 };

/// No test: the process that [`Owner`] starts. It has the mutex `m` and two permits of `s`, reads `r`, and waits to be killed.
#[test]
fn a_process_that_has_locks() {
    let Some(path) = std::env::var_os(PLACE) else { return };
    let directory = shmbus::Directory::at(path).unwrap();
    let barrier = Barrier::open_or_create_in(&directory, "b", &EIGHT, 3).unwrap();
    let semaphore = Semaphore::open_or_create_in(&directory, "s", &EIGHT, 5).unwrap();
    let permits = (semaphore.acquire().unwrap(), semaphore.acquire().unwrap());
    let limits = RwLock::open_or_create_in(&directory, "r", &EIGHT, [0u64; 2]).unwrap();
    let reads = limits.read().unwrap();
    let mutex = Mutex::open_or_create_in(&directory, "m", &EIGHT, [0; 2]).unwrap();
    let guard = mutex.lock().unwrap();
    loop {
        std::thread::park();
        std::hint::black_box((&barrier, &permits, &reads, &guard));
    }
}

/// A process that has locks; killed with the test.
struct Owner(Child);

impl Owner {
    fn begin(place: &Place) -> Owner {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_has_locks"])
            .env(PLACE, place.directory().path())
            .stdout(std::process::Stdio::null())
            .spawn();
        let owner = Owner(child.unwrap());
        let has_it = || place.directory().inspect_sync("m").is_ok_and(|info| info.holder.is_some());
        while !has_it() {
            std::thread::sleep(Duration::from_millis(1));
        }
        owner
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id() as i32).unwrap(), signal).unwrap();
    }

    fn kill(mut self) -> u32 {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        self.pid()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn objects(done: &Done) -> Vec<Value> {
    done.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn info(place: &Place, name: &str) -> Value {
    let done = place.run(&["info", name, "--json"]).ok();
    let [one] = &objects(&done)[..] else { panic!("{done:?}") };
    one.clone()
}

/// The line of `list` about a lock.
fn line(place: &Place, name: &str) -> String {
    let done = place.run(&["list"]).ok();
    let words = |line: &&str| line.split_whitespace().next() == Some(name);
    let line = done.text().lines().find(words).unwrap_or_else(|| panic!("{done:?}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn list_has_locks_behind_topics_with_what_each_kind_has_to_say() {
    let place = Place::new();
    let directory = &place.directory();
    let mutex = Mutex::create_in(directory, "a/mutex", &EIGHT, [0; 2]).unwrap();
    let limits = RwLock::create_in(directory, "b", &EIGHT, [0u64; 2]).unwrap();
    let _condvar = Condvar::create_in(directory, "c", &EIGHT).unwrap();
    let semaphore = Semaphore::create_in(directory, "d", &EIGHT, 4).unwrap();
    let _barrier = Barrier::create_in(directory, "e", &EIGHT, 3).unwrap();
    let event = Event::create_in(directory, "f", &EIGHT, Reset::Auto).unwrap();
    let cell = OnceCell::<u64>::create_in(directory, "g", &EIGHT).unwrap();
    for (name, said) in [
        ("a/mutex", "a/mutex mutex free - 1 of 8 44 KiB"),
        ("b", "b rwlock free - 1 of 8 44 KiB"),
        ("c", "c condvar - - - 8 KiB"),
        ("d", "d semaphore 4 of 4 free - 1 of 8 40 KiB"),
        ("e", "e barrier 0 of 3 there - 1 of 8 40 KiB"),
        ("f", "f event not set, auto - 1 of 8 40 KiB"),
        ("g", "g once not made - 1 of 8 44 KiB"),
    ] {
        assert_eq!(line(&place, name), said);
    }
    let (_locked, _reads) = (mutex.lock().unwrap(), limits.read().unwrap());
    let _permit = semaphore.acquire().unwrap();
    event.set().unwrap();
    cell.get_or_init(|| 7).unwrap();
    let pid = std::process::id();
    for (name, said) in [
        ("a/mutex", &format!("a/mutex mutex locked {pid} 1 of 8 44 KiB")[..]),
        ("b", "b rwlock 1 reads - 1 of 8 44 KiB"),
        ("d", "d semaphore 3 of 4 free - 1 of 8 40 KiB"),
        ("f", "f event set, auto - 1 of 8 40 KiB"),
        ("g", "g once made - 1 of 8 44 KiB"),
    ] {
        assert_eq!(line(&place, name), said);
    }
    place.run_with(b"x\n", &["pub", "t"]).ok();
    let done = place.run(&["list"]).ok();
    let lines: Vec<&str> = done.text().lines().collect();
    assert!(lines[0].starts_with("TOPIC") && lines[2].is_empty() && lines[3].starts_with("LOCK"));
    let done = place.run(&["list", "--json"]).ok();
    let all = objects(&done);
    assert_eq!((all.len(), &all[0]["name"], &all[0]["kind"]), (8, &"t".into(), &Value::Null));
    assert_eq!((&all[1]["kind"], &all[1]["holder_pid"]), (&"mutex".into(), &pid.into()));
    assert_eq!((&all[4]["permits"], &all[4]["free"]), (&4.into(), &3.into()));
}

#[test]
fn info_of_a_lock_shows_who_has_it_and_that_its_owner_died() {
    let place = Place::new();
    let owner = Owner::begin(&place);
    let found = info(&place, "m");
    assert_eq!((&found["kind"], &found["holder_pid"]), (&"mutex".into(), &owner.pid().into()));
    assert_eq!(
        (&found["owner_died"], &found["participants"][0]["held"]),
        (&false.into(), &1.into())
    );
    assert_eq!(info(&place, "s")["participants"][0]["held"], 2);
    assert_eq!(info(&place, "r")["readers"], 1);
    owner.signal(Signal::STOP); // stopped is not dead
    assert_eq!(info(&place, "m")["holder_pid"], owner.pid());
    let pid = owner.kill();
    let found = info(&place, "m");
    assert_eq!((&found["owner_died"], &found["holder_pid"]), (&true.into(), &Value::Null));
    let one = &found["participants"][0];
    assert_eq!((&one["pid"], &one["alive"]), (&pid.into(), &false.into()));
    let done = place.run(&["info", "m"]).ok();
    assert!(done.text().contains("state    owner died\n"), "{}", done.text());
    assert!(done.text().contains(&format!("no         0  {pid}")), "{}", done.text());
    // Who is told and gives it up leaves it lost for all.
    let mutex = Mutex::open_in(&place.directory(), "m").unwrap();
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
    assert_eq!(info(&place, "m")["not_recoverable"], true);
    assert!(line(&place, "m").contains("not recoverable"));
}

#[test]
fn info_shows_the_topic_and_the_lock_of_a_name() {
    let place = Place::new();
    place.run_with(b"x\n", &["pub", "t"]).ok();
    place.run(&["info", "u"]).failed(1, &["there is no topic u, and no lock of that name"]);
    drop(Mutex::create_in(&place.directory(), "t", &EIGHT, [0; 2]).unwrap());
    let done = place.run(&["info", "t"]).ok();
    assert!(done.text().starts_with("topic ") && done.text().contains("\n\nlock     t\n"));
    let done = place.run(&["info", "t", "--json"]).ok();
    assert_eq!((objects(&done).len(), &objects(&done)[1]["data_size"]), (2, &16.into()));
}

#[test]
fn a_lock_in_use_is_removed_by_force_only() {
    let place = Place::new();
    let owner = Owner::begin(&place);
    place.run(&["rm", "m"]).failed(1, &["lock m is in use by a living member (see --force)"]);
    place.run(&["rm", "m", "--topic", "--force"]).failed(1, &["there is no topic m"]);
    place.run(&["rm", "m", "--force"]).ok();
    owner.kill();
    place.run(&["rm", "b", "r", "s"]).ok(); // nobody who lives
    assert_eq!(place.directory().sync_objects().unwrap(), Vec::<String>::new());
    assert!(fs::read_dir(place.topics_path()).unwrap().next().is_none());
}

#[test]
fn rm_of_a_name_that_a_topic_and_a_lock_have_asks_which() {
    let place = Place::new();
    place.run_with(b"x\n", &["pub", "t"]).ok();
    drop(Mutex::create_in(&place.directory(), "t", &EIGHT, [0; 2]).unwrap());
    place.run(&["rm", "--force", "t"]).failed(2, &["t is a topic and a lock", "--lock"]);
    place.run(&["rm", "--topic", "--lock", "t"]).failed(2, &["cannot be used with"]);
    place.run(&["rm", "--topic", "t"]).ok();
    assert_eq!(place.directory().sync_objects().unwrap(), ["t"]);
    place.run(&["rm", "--lock", "t"]).ok();
    place.run(&["rm", "t"]).failed(1, &["there is no topic t, and no lock of that name"]);
    place.run(&["rm", "--lock", "t"]).failed(1, &["no synchronisation object t"]);
}

#[test]
fn gc_gives_back_what_dead_members_had_and_the_next_owner_is_told_all_the_same() {
    let place = Place::new();
    Owner::begin(&place).kill();
    let dead = |name: &str| format!("lock {name}: 1 of its members are dead\n");
    let all: String = ["b", "m", "r", "s"].map(dead).concat();
    assert_eq!(place.run(&["gc"]).ok().text(), all);
    assert_eq!(info(&place, "s")["free"], 3, "nothing was changed");
    let done = place.run(&["gc", "--yes"]).ok();
    assert_eq!(done.text(), all.replace("lock", "given back: lock"));
    assert_eq!(place.run(&["gc"]).ok().text(), "");
    assert_eq!((&info(&place, "s")["free"], &info(&place, "r")["readers"]), (&5.into(), &0.into()));
    assert_eq!(
        (&info(&place, "b")["broken"], &info(&place, "m")["owner_died"]),
        (&true.into(), &true.into())
    );
    let mutex = Mutex::open_in(&place.directory(), "m").unwrap();
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
}

#[test]
fn gc_leaves_locks_alone_that_somebody_has_open() {
    let place = Place::new();
    let directory = &place.directory();
    let open = Mutex::create_in(directory, "open", &EIGHT, [0; 2]).unwrap();
    drop(Mutex::create_in(directory, "unused", &EIGHT, [0; 2]).unwrap());
    let condvar = Condvar::create_in(directory, "condvar", &EIGHT).unwrap();
    let owner = Owner::begin(&place);
    owner.signal(Signal::STOP);
    assert_eq!(place.run(&["gc", "--yes"]).ok().text(), "");
    assert_eq!(place.run(&["gc", "--unused", "--older", "1h", "--yes"]).ok().text(), "");
    let done = place.run(&["gc", "--unused", "--yes"]).ok();
    assert_eq!(done.text(), "given back: lock unused: nobody has it open (44 KiB)\n");
    assert_eq!(directory.sync_objects().unwrap(), ["b", "condvar", "m", "open", "r", "s"]);
    place.run(&["rm", "condvar"]).failed(1, &["in use"]);
    drop(condvar);
    let done = place.run(&["gc", "--unused", "--yes"]).ok();
    assert_eq!(done.text(), "given back: lock condvar: nobody has it open (8 KiB)\n");
    drop(open.lock().unwrap());
}

#[test]
fn gc_gives_back_the_draft_of_a_killed_creator_of_a_lock() {
    let place = Place::new();
    let draft = place.directory().path().join("m/.new-0123456789abcdef");
    fs::create_dir_all(&draft).unwrap();
    fs::write(draft.join("ctl"), b"12345").unwrap();
    place.run(&["gc", "--yes"]).ok();
    assert!(fs::read_dir(place.topics_path()).unwrap().next().is_none());
}

#[test]
fn doctor_says_what_is_wrong_with_locks_and_what_to_do() {
    let place = Place::new();
    let findings = |done: &Done, check: &str| -> Vec<String> {
        let of = |one: &Value| one["check"] == check;
        let found: Vec<Value> = objects(done).into_iter().filter(of).collect();
        found.iter().map(|one| one["finding"].as_str().unwrap().to_owned()).collect()
    };
    let pid = Owner::begin(&place).kill();
    let done = place.run(&["doctor", "--json"]).ok();
    assert_eq!(findings(&done, "locks"), ["4 can be read"]);
    assert_eq!(findings(&done, "dead").len(), 4);
    assert!(findings(&done, "dead")[1] == format!("mutex m: the one of entry 0, pid {pid}"));
    let [died] = &findings(&done, "owner died")[..] else { panic!("{done:?}") };
    assert!(died.starts_with("mutex m: "), "{died}");
    assert_eq!(findings(&done, "unused").len(), 4);
    place.run(&["gc", "--yes"]).ok();
    let done = place.run(&["doctor", "--json"]).ok();
    assert_eq!(findings(&done, "broken"), ["barrier b: a member of it died"]);
    let mutex = Mutex::open_in(&place.directory(), "m").unwrap();
    assert!(matches!(mutex.lock(), Err(LockError::OwnerDied(_))));
    let done = place.run(&["doctor"]).ok();
    assert!(done.text().contains("warning  given up       mutex m: "), "{}", done.text());
    assert!(!done.text().contains("--force"), "the mutex is open: {}", done.text());
    drop(mutex);
    let done = place.run(&["doctor"]).ok();
    assert!(done.text().contains("shmbus rm --force --lock m"), "{}", done.text());
}

#[test]
fn a_damaged_or_foreign_lock_is_told_by_every_command_and_hides_no_other() {
    let place = Place::new();
    let directory = &place.directory();
    drop(Mutex::create_in(directory, "damaged", &EIGHT, [0; 2]).unwrap());
    drop(Mutex::create_in(directory, "foreign", &EIGHT, [0; 2]).unwrap());
    drop(Mutex::create_in(directory, "whole", &EIGHT, [0; 2]).unwrap());
    fs::create_dir_all(directory.path().join("empty/.sync")).unwrap();
    let ctl = |name: &str| directory.path().join(name).join(".sync/ctl");
    let mut bytes = fs::read(ctl("damaged")).unwrap();
    bytes[44] = 200; // members_max
    fs::write(ctl("damaged"), &bytes).unwrap();
    fs::write(ctl("foreign"), [7; 8192]).unwrap();
    let (damaged, foreign, empty) = (
        "damaged: the header is corrupt",
        "foreign: ctl is not a synchronisation object",
        "object empty",
    );
    let all = &[damaged, foreign, empty];
    let done = place.run(&["list"]).failed(1, &[damaged, foreign, empty, "3 of the locks"]);
    assert!(done.text().contains("\nwhole "), "{}", done.text());
    place.run(&["info", "damaged"]).failed(1, &[damaged]);
    place.run(&["info", "foreign", "--json"]).failed(1, &[foreign]);
    place.run(&["info", "empty"]).failed(1, &[empty]);
    place.run(&["rm", "foreign"]).failed(1, &[foreign]);
    place.run(&["gc", "--unused", "--yes"]).failed(1, all);
    let done = place.run(&["doctor"]).failed(1, &["there are 3 problems"]);
    assert!(done.text().contains("shmbus rm --force --lock foreign"), "{}", done.text());
    place.run(&["rm", "--force", "damaged", "foreign", "empty"]).ok();
    assert_eq!(directory.sync_objects().unwrap(), Vec::<String>::new());
}
