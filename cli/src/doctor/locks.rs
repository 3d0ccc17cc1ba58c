//! What is remarkable about the locks in the directory.

use anyhow::Result;
use shmbus::Directory;
use shmbus::sync::{Condition, SyncInfo, SyncOpenError, SyncState};

use super::{Finding, Level, advice_about, advice_about_damage};
use crate::{lock, text};

/// Nothing where there are no locks.
pub(super) fn contents(directory: &Directory) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let locks = lock::all(directory, |name, error| findings.push(broken(directory, name, error)))?;
    findings.extend(locks.iter().flat_map(of));
    if !locks.is_empty() {
        let finding = format!("{} can be read", locks.len());
        findings.push(Finding::new("locks", Level::Ok, finding).fact("readable", locks.len()));
    }
    Ok(findings)
}

/// A lock that cannot be opened.
fn broken(directory: &Directory, name: &str, error: SyncOpenError) -> Finding {
    let files = directory.path().join(name).join(".sync");
    let level = match &error {
        SyncOpenError::Permission { .. } => Level::Warning,
        _ => Level::Problem,
    };
    // Only what was read and is wrong may be removed.
    let damage = match &error {
        SyncOpenError::Foreign { .. }
        | SyncOpenError::Short { .. }
        | SyncOpenError::Corrupt { .. }
        | SyncOpenError::Header { .. } => {
            Some(advice_about_damage(&files, &format!("shmbus rm --force --lock {name}")))
        }
        _ => None,
    };
    let otherwise = match &error {
        SyncOpenError::Permission { .. } => {
            "its creator's SyncOptions::mode decides who may read it"
        }
        SyncOpenError::Version { .. } | SyncOpenError::ByteOrder { .. } => {
            "use the program of that version, or remove it with that"
        }
        _ => "the kernel refused to show it: see the error",
    };
    let error = anyhow::Error::from(error);
    let advice = damage.unwrap_or_else(|| advice_about(&error, otherwise));
    Finding::new("lock", level, format!("lock {error:#}")).advice(advice).fact("lock", name)
}

fn of(info: &SyncInfo) -> Vec<Finding> {
    let name = &info.name;
    let mut findings = Vec::new();
    let mut add = |check, level, said: String, advice: String| {
        let finding = Finding::new(check, level, format!("{} {name}: {said}", info.kind));
        findings.push(finding.advice(advice).fact("lock", name.as_str()));
    };
    match lock::condition(info) {
        Condition::Consistent => {}
        Condition::OwnerDied => add(
            "owner died",
            Level::Note,
            "an owner died with it, and nobody has repaired what it protects".to_owned(),
            "the next owner is told; readers are refused until then".to_owned(),
        ),
        Condition::NotRecoverable => add(
            "given up",
            Level::Warning,
            "what it protects was given up: nobody gets it again".to_owned(),
            match info.members.iter().any(|one| !one.liveness.is_dead()) {
                true => {
                    "members that live, or may, have it open: end them, then look again".to_owned()
                }
                false => format!(
                    "shmbus rm --force --lock {name}; who opens or creates it then begins anew"
                ),
            },
        ),
    }
    if let SyncState::Barrier { broken: true, .. } = info.state {
        let advice = "Barrier::reset repairs it".to_owned();
        add("broken", Level::Note, "a member of it died".to_owned(), advice);
    }
    for dead in info.members.iter().filter(|one| one.liveness.is_dead()) {
        add(
            "dead",
            Level::Note,
            format!("the one of entry {}, pid {}", dead.entry, dead.pid),
            "the next who joins or waits buries it, or shmbus gc --yes".to_owned(),
        );
    }
    if lock::is_unused(info) {
        let (memory, created) = (text::size(info.memory), text::ago(info.created_ns));
        add(
            "unused",
            Level::Note,
            format!("nobody has it open; {memory}, created {created}"),
            format!("it keeps its data; if nobody wants it: shmbus rm --lock {name}"),
        );
    }
    findings
}
