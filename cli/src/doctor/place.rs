//! Where topics live, and what is there.

use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use shmbus::{Directory, OpenError, TopicInfo};
use shmbus_sys::lease::Lease;
use shmbus_sys::shm;

use super::{Finding, Level, advice_about, advice_about_damage};
use crate::holdups::Holdups;
use crate::text;

/// With less than this free, a topic of common size may not fit.
const FREE_FEW: u64 = 16 << 20;

/// Which directory, whose, and what it lies on.
pub(super) fn directory(directory: &Directory) -> Vec<Finding> {
    let path = directory.path();
    let shown = format!("{} ({})", path.display(), text::source(directory.source()));
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return missing(path, &shown);
        }
        Err(error) => {
            let finding = format!("{shown}: {error}");
            let advice = advice_about(&error.into(), CHOOSE);
            return vec![Finding::new("directory", Level::Problem, finding).advice(advice)];
        }
    };
    let mut findings = vec![usable(directory, &shown, &metadata)];
    findings.extend(file_system(path));
    findings.push(leases(path));
    findings
}

const CHOOSE: &str = "choose another one with SHMBUS_DIR or --dir";

fn missing(path: &Path, shown: &str) -> Vec<Finding> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    let finding = match parent.is_dir() {
        true => Finding::new("directory", Level::Note, format!("{shown}: missing"))
            .advice("the first command that creates a topic makes it"),
        false => {
            let finding =
                format!("{shown}: missing, and {} is no directory to make it in", parent.display());
            Finding::new("directory", Level::Problem, finding)
                .advice(format!("mkdir -p {}, or {CHOOSE}", parent.display()))
        }
    };
    let mut findings = vec![finding.fact("path", path_of(path))];
    findings.extend(file_system(parent));
    findings
}

fn path_of(path: &Path) -> String {
    path.display().to_string()
}

fn usable(directory: &Directory, shown: &str, metadata: &Metadata) -> Finding {
    let path = directory.path();
    let (uid, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let place = format!("{shown}, of uid {uid}, mode {mode:o}");
    let is_foreign = uid != 0 && uid != shm::effective_uid();
    let finding = match directory.topics() {
        Ok(_) if is_foreign => {
            Finding::new("directory", Level::Note, format!("{place}: another user's"))
                .advice("topics can be observed here, not created or joined")
        }
        Ok(_) => Finding::new("directory", Level::Ok, place),
        Err(error) => {
            let error = anyhow::Error::from(error);
            Finding::new("directory", Level::Problem, format!("{place}: {error:#}"))
                .advice(advice_about(&error, CHOOSE))
        }
    };
    finding.fact("path", path_of(path)).fact("uid", uid).fact("mode", format!("{mode:o}"))
}

fn file_system(path: &Path) -> Option<Finding> {
    let found = shm::open_directory(path).and_then(|fd| shm::filesystem(fd.as_fd())).ok()?;
    let (total, free) = (found.total_bytes, found.available_bytes);
    let finding = match (found.is_tmpfs, total) {
        (false, _) => Finding::new("file system", Level::Warning, "not a tmpfs")
            .advice("writing back to a disk stalls publishers: a directory below /dev/shm"),
        (true, 0) => Finding::new("file system", Level::Ok, "a tmpfs without a limit"),
        (true, _) => {
            let size = format!("a tmpfs of {}, {} free", text::size(total), text::size(free));
            match free {
                0..FREE_FEW => Finding::new("file system", Level::Warning, size).advice(
                    "topics are allocated when they are created: shmbus gc --unused, or a larger tmpfs (size=, --shm-size)",
                ),
                _ => Finding::new("file system", Level::Ok, size),
            }
        }
    };
    Some(finding.fact("tmpfs", found.is_tmpfs).fact("size", total).fact("available", free))
}

/// Whether locks tell who lives, on this very file system.
fn leases(path: &Path) -> Finding {
    match shm::open_directory(path).and_then(|fd| Lease::work_in(fd.as_fd())) {
        Ok(true) => Finding::new("OFD locks", Level::Ok, "work here"),
        Ok(false) => Finding::new("OFD locks", Level::Problem, "have no effect here").advice(CHOOSE),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let finding = "not tried: you may not create files here";
            Finding::new("OFD locks", Level::Note, finding)
                .advice("reading topics works where their files may be read; creating takes write permission")
        }
        Err(error) => Finding::new("OFD locks", Level::Problem, format!("refused: {error}"))
            .advice(advice_about(&error.into(), "who lives is asked by fcntl(F_OFD_SETLK): another file system, or filter of system calls")),
    }
}

/// What is there: topics, and what killed processes left.
pub(super) fn contents(directory: &Directory) -> Vec<Finding> {
    // Said already why not.
    let (Ok(names), true) = (directory.topics(), directory.path().exists()) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    match directory.leftovers() {
        Ok(leftovers) => findings.extend(leftovers.iter().map(|leftover| {
            let finding = format!("{} ({})", leftover.path.display(), text::size(leftover.bytes));
            Finding::new("left over", Level::Note, finding)
                .advice("of a killed process; the next create there removes it, or shmbus gc --yes")
                .fact("path", path_of(&leftover.path))
                .fact("bytes", leftover.bytes)
        })),
        Err(error) => findings.push(unreadable("left over", error)),
    }
    let mut whole = 0_u64;
    let mut full = Vec::new();
    for name in names {
        match directory.inspect(&name) {
            Ok(info) => {
                whole += 1;
                findings.extend(topic(&info));
                full.extend(info.participants.iter().any(|one| one.holds_up).then_some(info));
            }
            Err(OpenError::NotFound { .. }) => {}
            Err(error) => findings.push(broken(directory, &name, error)),
        }
    }
    findings.extend(held_up(directory, &full));
    let finding = format!("{whole} can be read");
    findings.push(Finding::new("topics", Level::Ok, finding).fact("readable", whole));
    match super::locks::contents(directory) {
        Ok(locks) => findings.extend(locks),
        Err(error) => findings.push(unreadable("locks", error)),
    }
    findings
}

fn unreadable(check: &'static str, error: impl Into<anyhow::Error>) -> Finding {
    let error = error.into();
    Finding::new(check, Level::Problem, format!("{error:#}")).advice(advice_about(&error, CHOOSE))
}

/// A topic that cannot be opened.
fn broken(directory: &Directory, name: &str, error: OpenError) -> Finding {
    let files = directory.path().join(name).join(".topic");
    let damage = || advice_about_damage(&files, &format!("shmbus rm --force {name}"));
    let level = match &error {
        OpenError::Permission { .. } => Level::Warning,
        OpenError::Retired { .. } => Level::Note,
        _ => Level::Problem,
    };
    // Only what was read and is wrong may be removed.
    let damage = match &error {
        OpenError::Foreign { .. }
        | OpenError::Corrupt { .. }
        | OpenError::Short { .. }
        | OpenError::Header { .. } => Some(damage()),
        _ => None,
    };
    let otherwise = match &error {
        OpenError::Permission { .. } => "its creator's TopicOptions::mode decides who may read it",
        OpenError::Retired { .. } => {
            "its remover was killed: the next create there does the rest, or shmbus gc --yes"
        }
        OpenError::Version { .. } | OpenError::ByteOrder { .. } => {
            "use the program of that version, or remove the topic with it"
        }
        _ => "the kernel refused to show it: see the error",
    };
    let error = anyhow::Error::from(error);
    let advice = damage.unwrap_or_else(|| advice_about(&error, otherwise));
    Finding::new("topic", level, format!("{error:#}")).advice(advice).fact("topic", name)
}

/// Who has left its publisher no room and not moved between two looks, of topics that were full at the first.
fn held_up(directory: &Directory, full: &[TopicInfo]) -> Vec<Finding> {
    const BETWEEN: Duration = Duration::from_millis(500);
    if full.is_empty() {
        return Vec::new();
    }
    let mut holdups = Holdups::default();
    let begin = Instant::now();
    holdups.look(full.iter(), begin);
    std::thread::sleep(BETWEEN);
    let again: Vec<TopicInfo> =
        full.iter().filter_map(|info| directory.inspect(&info.name).ok()).collect();
    let now = Instant::now();
    holdups.look(again.iter(), now);
    let all = again.iter().flat_map(|info| {
        holdups.of(info, now).into_iter().map(move |holdup| (info.name.as_str(), holdup))
    });
    all.filter(|(_, holdup)| holdup.seconds > 0.0)
        .map(|(name, holdup)| {
            Finding::new("held up", Level::Warning, holdup.text(name))
                .advice("continue it, end it, or have it reliable for a time only (echo --reliable-for); pub --timeout, --skip-full")
                .fact("topic", name)
                .fact("entry", holdup.entry)
                .fact("pid", holdup.pid)
                .fact("lag", holdup.lag)
                .fact("seconds", holdup.seconds)
        })
        .collect()
}

/// What is remarkable about a topic: participants that are dead, or that there are none.
fn topic(info: &TopicInfo) -> Vec<Finding> {
    let name = &info.name;
    let dead = info.participants.iter().filter(|one| one.liveness.is_dead()).map(|one| {
        let finding = format!("topic {name}: the one of entry {}, pid {}", one.entry, one.pid);
        Finding::new("dead", Level::Note, finding)
            .advice("the next who joins takes its place, or shmbus gc --yes")
            .fact("topic", name.as_str())
            .fact("entry", one.entry)
            .fact("pid", one.pid)
            .fact("held_blocks", one.held_blocks)
    });
    let mut findings: Vec<Finding> = dead.collect();
    if info.participants.iter().all(|one| one.liveness.is_dead()) {
        let memory = info.memory.total();
        let created = text::ago(info.created_ns);
        let finding =
            format!("topic {name}: nobody takes part; {}, created {created}", text::size(memory));
        findings.push(
            Finding::new("unused", Level::Note, finding)
                .advice(format!(
                    "it keeps its last messages; if nobody wants them: shmbus rm {name}"
                ))
                .fact("topic", name.as_str())
                .fact("memory", memory)
                .fact("created_ns", info.created_ns),
        );
    }
    findings
}
