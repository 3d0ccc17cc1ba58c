//! What surrounds a topic: its file system, its directory, the process's limits, other processes.
//!
//! What changes a whole process (environment, limits, mounts, descriptors) happens in a process of
//! its own: this test program once more, as `role` starts it. What needs privilege and has none is
//! left out, with the reason printed.
#![allow(unsafe_code)] // geteuid, setrlimit

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use shmbus::{CreateError, Delivery, Directory, OpenError, Topic, TopicOptions};

#[path = "environment/closed.rs"]
mod closed;
#[path = "environment/crashes.rs"]
mod crashes;
#[path = "environment/directories.rs"]
mod directories;
#[path = "environment/ends.rs"]
mod ends;
#[path = "environment/faults.rs"]
mod faults;
#[path = "environment/file_systems.rs"]
mod file_systems;
#[path = "environment/forks.rs"]
mod forks;
#[path = "environment/limits.rs"]
mod limits;
#[path = "environment/memory.rs"]
mod memory;
#[path = "environment/namespaces.rs"]
mod namespaces;
#[path = "environment/together.rs"]
mod together;

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn small() -> TopicOptions {
    TopicOptions { depth: 16, subscribers_max: 8, hold_blocks: Some(2), ..Default::default() }
}

fn effective_uid() -> u32 {
    // SAFETY: it takes nothing.
    unsafe { libc::geteuid() }
}

fn is_root() -> bool {
    effective_uid() == 0
}

/// This test program again, to play `role` in a process of its own.
fn role(role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_started_by_another_test_plays_its_role", "--nocapture"]);
    command.env("SHMBUS_TEST_ROLE", role).env("SHMBUS_TEST_PATH", path);
    command
}

fn play(name: &str, path: &Path) {
    let status = role(name, path).status().unwrap();
    assert!(status.success(), "{name}: {status}");
}

#[test]
fn a_process_started_by_another_test_plays_its_role() {
    let Ok(role) = std::env::var("SHMBUS_TEST_ROLE") else { return };
    let path = PathBuf::from(std::env::var_os("SHMBUS_TEST_PATH").unwrap());
    match role.as_str() {
        "full tmpfs" => file_systems::play_full_tmpfs(&path),
        "few inodes" => file_systems::play_few_inodes(&path),
        "unlimited tmpfs" => file_systems::play_unlimited_tmpfs(&path),
        "file size limit" => file_systems::play_file_size_limit(&path),
        "from_env" => say(&format!("{:?}", Directory::from_env().map(|d| d.path().to_owned()))),
        "at" => say(&format!("{:?}", Directory::at(&path).map(|d| d.path().to_owned()))),
        "on a disk" => file_systems::play_on_a_disk(&path),
        "descriptors" => play_descriptors(&path),
        "closes everything" => closed::play_closes_everything(&path),
        "exit" => ends::play_exit(&path),
        "exit at once" => ends::play_exit_at_once(&path),
        "exit of a fork" => ends::play_exit_of_a_fork(&path),
        "large pages" => limits::play_large_pages(&path),
        "all handles" => limits::play_all_handles(&path),
        "removing without descriptors" => faults::play_removing_without_descriptors(&path),
        "a moment without descriptors" => faults::play_a_moment_without_descriptors(&path),
        "cycles" => play_cycles(&path),
        "crashing subscriber" => crashes::play_crashing_subscriber(&path),
        "crashing publisher" => crashes::play_crashing_publisher(&path),
        "opener" => together::play_opener(&path),
        "churner" => together::play_churner(&path),
        "inherited" => forks::play_inherited(&path),
        "publisher alive" => forks::play_publisher_alive(&path),
        "forking" => forks::play_forking(&path),
        "info in a fork" => forks::play_info_in_a_fork(&path),
        "forking creators" => forks::play_forking_creators(&path),
        "doomed parent" => forks::play_doomed_parent(&path),
        "foreign group" => faults::play_foreign_group(&path),
        "read-only directory" => faults::play_read_only_directory(&path),
        "no locked memory" => faults::play_no_locked_memory(&path),
        "exec" => faults::play_exec(&path),
        "no address space" => memory::play_no_address_space(&path),
        "no madvise" => faults::play_no_madvise(&path),
        "no membarrier" => faults::play_no_membarrier(&path),
        "no futex_waitv" => faults::play_no_futex_waitv(&path),
        "inside" => namespaces::play_inside(&path),
        "stands still" => namespaces::play_stands_still(&path),
        other => panic!("there is no role {other}"),
    }
}

/// A line from a role to the test that started it; the test program's own lines have no such beginning.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n> {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// A role that talks.
struct Player {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Player {
    fn new(command: Command) -> Player {
        Player::spawn(command).unwrap()
    }

    fn spawn(mut command: Command) -> std::io::Result<Player> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = BufReader::new(child.stdout.take().unwrap());
        Ok(Player { child, said })
    }

    /// The next line that it says.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "the role ended without a word");
            if let Some(line) = line.strip_prefix("> ") {
                return line.trim_end().to_owned();
            }
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn ends_well(&mut self) {
        drop(self.child.stdin.take());
        std::io::copy(&mut self.said, &mut std::io::sink()).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Everything below `path`, sorted.
fn tree(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        found.insert(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        }
    }
    found
}

/// Links of the open descriptors of this process.
fn descriptors() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let mut links: Vec<_> = entries.filter_map(|path| fs::read_link(path).ok()).collect();
    links.retain(|link| !link.starts_with("/proc"));
    links.sort();
    links
}

/// Lines of `/proc/self/maps` of files below `path`.
fn mappings(path: &Path) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(path.to_str().unwrap())).count()
}

#[test]
fn without_descriptors_everything_is_a_typed_error_and_nothing_leaks() {
    let (path, _) = directory();
    play("descriptors", path.path());
}

fn limit_descriptors(count: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = count.min(limit.rlim_max);
    // SAFETY: `limit` is valid for reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

fn play_descriptors(path: &Path) {
    let directory = Directory::at(path).unwrap();
    Topic::<u64>::create_in(&directory, "there", &small()).unwrap();
    let before = descriptors();
    let files_before = tree(path);
    let first_free = before.len() as u64;
    let mut kept_files = Vec::new();
    let mut outcomes = [0; 4];
    for limit in first_free..first_free + 24 {
        limit_descriptors(limit);
        let made = Topic::<u64>::create_in(&directory, "a/b/c", &small());
        let topic = Topic::<u64>::open_in(&directory, "there");
        let handles = topic.as_ref().ok().map(|topic| {
            (topic.publisher().map(drop), topic.subscriber(Delivery::Reliable).map(drop))
        });
        _ = (directory.inspect("there").is_ok(), directory.topics().is_ok());
        limit_descriptors(1024);
        outcomes[0] += u32::from(made.is_ok());
        outcomes[1] += u32::from(topic.is_ok());
        outcomes[2] += u32::from(handles.is_some_and(|(a, b)| a.is_ok() && b.is_ok()));
        let refused = made.is_err();
        if let Err(error) = &made {
            assert!(
                matches!(
                    error,
                    CreateError::Io { .. } | CreateError::Directory(_) | CreateError::Open(_)
                ),
                "{error:?}"
            );
        }
        if let Err(error) = &topic {
            assert!(matches!(error, OpenError::Io { .. } | OpenError::Directory(_)), "{error:?}");
        }
        drop((made, topic));
        assert_eq!(descriptors(), before, "descriptors leaked with a limit of {limit}");
        let left: Vec<_> = tree(path).difference(&files_before).cloned().collect();
        if refused && !left.is_empty() {
            outcomes[3] += 1;
            kept_files.push(format!("limit {limit}: {left:?}"));
        }
        _ = directory.remove("a/b/c", true);
        // Whatever a refused creation left, the next one removes.
        Topic::<u64>::create_in(&directory, "a/b/c", &small()).unwrap();
        directory.remove("a/b/c", false).unwrap();
        assert_eq!(tree(path), files_before, "files left for ever with a limit of {limit}");
    }
    assert!(outcomes[..3].iter().all(|count| (1..24).contains(count)), "{outcomes:?}");
    assert!(kept_files.is_empty(), "creations that failed left files:\n{}", kept_files.join("\n"));
}

#[test]
fn a_thousand_cycles_leave_no_descriptor_no_mapping_and_no_file() {
    let (path, _) = directory();
    play("cycles", path.path());
}

fn play_cycles(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let cycle = |number: u64| {
        let name = format!("n{}/t", number % 3);
        let topic = Topic::<u64>::create_in(&directory, &name, &small()).unwrap();
        let again = Topic::<u64>::open_in(&directory, &name).unwrap();
        let mut publisher = again.publisher().unwrap();
        let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
        let lossy = topic.clone().subscriber(Delivery::Lossy).unwrap();
        publisher.publish(&number).unwrap();
        let held = subscriber.receive().unwrap().hold().unwrap();
        assert!(again.publisher().is_err());
        assert!(Topic::<u32>::open_in(&directory, &name).is_err());
        assert!(Topic::<u64>::create_in(&directory, &name, &small()).is_err());
        if number.is_multiple_of(2) {
            drop((topic, again, publisher, subscriber, lossy));
            assert!(mappings(path) > 0, "a held sample keeps its memory");
            assert_eq!(*held, number);
        } else {
            directory.remove(&name, true).unwrap();
            assert_eq!(*held, number);
            return;
        }
        drop(held);
        directory.remove(&name, false).unwrap();
    };
    cycle(0);
    let before = descriptors();
    (1..1000).for_each(cycle);
    assert_eq!(descriptors(), before);
    assert_eq!(mappings(path), 0);
    assert_eq!(tree(path), BTreeSet::new());
}
