//! A tree of `shmbus run`, as tests see it.
#![allow(dead_code)] // each test file uses a part of this

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Place, Running};

/// Processes that have this place in their environment, zombies not among them: the tree of a test, and what has left it.
pub(crate) fn processes(place: &Place) -> BTreeSet<u32> {
    let wanted = format!("SHMBUS_DIR={}", place.topics_path().display());
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = entries.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ.split(|byte| *byte == 0).any(|one| one == wanted.as_bytes())
        })
    };
    pids.filter(is_ours).collect()
}

/// Paths below the place of the topics that are no directories.
pub(crate) fn files(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![path.display().to_string()] }
        })
        .collect()
}

#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process of a file that runs a script.
pub(crate) fn script(name: &str, script: &str, more: &str) -> String {
    format!("[[process]]\nname = {name:?}\ncommand = [\"sh\", \"-c\", {script:?}]\n{more}\n")
}

/// Waits until the supervisor `name` says so of its processes.
pub(crate) fn until_status(place: &Place, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    until("the status", || {
        let done = place.run(&["status", name, "--json"]);
        if done.code() != 0 {
            return false;
        }
        seen = serde_json::from_str(done.text()).unwrap();
        is_so(&seen)
    });
    seen
}

/// A process of it; null where it is not there, or nothing was published yet.
pub(crate) fn process<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut processes = status["processes"].as_array().unwrap().iter();
    processes.find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

pub(crate) fn start(place: &Place, name: &str, text: &str) -> (Running, String) {
    let file = place.written(&format!("{name}.toml"), text.as_bytes());
    (place.start(&["run", &file]), file)
}
