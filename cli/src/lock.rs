//! Locks, as `list` and `info` show them: the named objects of `shmbus::sync`.

use anyhow::Result;
use serde::Serialize;
use shmbus::sync::{Condition, Reset, SyncInfo, SyncMember, SyncOpenError, SyncState};
use shmbus::{Directory, OpenError};

use crate::text;

/// A lock, for programs. Sizes in bytes, times in nanoseconds since 1970; what a kind does not have is null.
#[derive(Serialize)]
pub(crate) struct Lock {
    name: String,
    kind: String,
    /// `null`: it cannot be told.
    members: Option<usize>,
    members_max: u32,
    holder_pid: Option<u32>,
    waiting: bool,
    owner_died: bool,
    not_recoverable: bool,
    #[serde(flatten)]
    state: State,
    data_size: u64,
    memory: u64,
    created_ns: u64,
}

#[derive(Default, Serialize)]
struct State {
    readers: Option<u32>,
    permits: Option<u64>,
    free: Option<u64>,
    parties: Option<u32>,
    arrived: Option<u32>,
    broken: Option<bool>,
    set: Option<bool>,
    reset: Option<&'static str>,
    made: Option<bool>,
}

/// A lock and who has handles of it, for programs.
#[derive(Serialize)]
struct Description {
    #[serde(flatten)]
    lock: Lock,
    participants: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    entry: u32,
    pid: u32,
    /// `null`: it cannot be told.
    alive: Option<bool>,
    held: u64,
    joined_ns: u64,
}

impl Member {
    fn of(member: &SyncMember) -> Member {
        let SyncMember { entry, pid, liveness, held, joined_ns, .. } = *member;
        Member { entry, pid, alive: liveness.known(), held, joined_ns }
    }

    fn row(&self) -> [String; 5] {
        [
            self.alive.map_or("?", |alive| if alive { "yes" } else { "no" }).to_owned(),
            self.entry.to_string(),
            self.pid.to_string(),
            self.held.to_string(),
            text::ago(self.joined_ns),
        ]
    }
}

pub(crate) const HEADINGS: [&str; 6] = ["LOCK", "KIND", "STATE", "HOLDER", "MEMBERS", "MEMORY"];

impl Lock {
    pub(crate) fn of(info: &SyncInfo) -> Lock {
        let condition = condition(info);
        let state = match info.state {
            SyncState::RwLock { readers, .. } => {
                State { readers: Some(readers), ..State::default() }
            }
            SyncState::Semaphore { permits, free } => {
                State { permits: Some(permits), free: Some(free), ..State::default() }
            }
            SyncState::Barrier { parties, arrived, broken } => State {
                parties: Some(parties),
                arrived: Some(arrived),
                broken: Some(broken),
                ..State::default()
            },
            SyncState::Event { set, reset } => {
                let reset = if reset == Reset::Manual { "manual" } else { "auto" };
                State { set: Some(set), reset: Some(reset), ..State::default() }
            }
            SyncState::Once { made } => State { made: Some(made), ..State::default() },
            _ => State::default(),
        };
        Lock {
            name: info.name.clone(),
            kind: info.kind.to_string(),
            members: info.members.iter().map(|one| one.liveness.known().map(usize::from)).sum(),
            members_max: info.members_max,
            holder_pid: holder(info).map(|member| member.pid),
            waiting: info.waiting,
            owner_died: condition == Condition::OwnerDied,
            not_recoverable: condition == Condition::NotRecoverable,
            state,
            data_size: info.data_size,
            memory: info.memory,
            created_ns: info.created_ns,
        }
    }

    fn members(&self) -> String {
        match self.members_max {
            0 => "-".to_owned(),
            most => format!("{} of {most}", text::count(self.members)),
        }
    }
}

/// Of a lock that protects something; of any other, that nothing is wrong.
pub(crate) fn condition(info: &SyncInfo) -> Condition {
    match info.state {
        SyncState::Mutex { condition } | SyncState::RwLock { condition, .. } => condition,
        _ => Condition::Consistent,
    }
}

fn holder(info: &SyncInfo) -> Option<&SyncMember> {
    info.members.iter().find(|member| Some(member.entry) == info.holder)
}

/// What it says, in a few words.
fn state(info: &SyncInfo) -> String {
    let is_held = info.holder.is_some();
    let said = match info.state {
        SyncState::Mutex { .. } => if is_held { "locked" } else { "free" }.to_owned(),
        SyncState::RwLock { readers, .. } => match readers {
            0 if is_held => "written".to_owned(),
            0 => "free".to_owned(),
            1 => "1 reads".to_owned(),
            more => format!("{more} read"),
        },
        SyncState::Semaphore { permits, free } => format!("{free} of {permits} free"),
        SyncState::Barrier { broken: true, .. } => "broken".to_owned(),
        SyncState::Barrier { parties, arrived, .. } => format!("{arrived} of {parties} there"),
        SyncState::Event { set, reset } => {
            let set = if set { "set" } else { "not set" };
            format!("{set}, {}", if reset == Reset::Manual { "manual" } else { "auto" })
        }
        SyncState::Once { made: true } => "made".to_owned(),
        SyncState::Once { .. } => if is_held { "being made" } else { "not made" }.to_owned(),
        _ => "-".to_owned(),
    };
    let said = match condition(info) {
        Condition::Consistent => said,
        Condition::OwnerDied if is_held => format!("{said}, owner died"),
        Condition::OwnerDied => "owner died".to_owned(),
        Condition::NotRecoverable => "not recoverable".to_owned(),
    };
    match info.waiting {
        true if said == "-" => "awaited".to_owned(),
        true => format!("{said}, awaited"),
        false => said,
    }
}

pub(crate) fn row(info: &SyncInfo) -> [String; 6] {
    let lock = Lock::of(info);
    [
        info.name.clone(),
        lock.kind.clone(),
        state(info),
        text::or_dash(lock.holder_pid.map(|pid| pid.to_string())),
        lock.members(),
        text::size(info.memory),
    ]
}

/// All that is to be said of one.
pub(crate) fn describe(info: &SyncInfo, json: bool) -> Result<String> {
    let lock = Lock::of(info);
    let participants: Vec<Member> = info.members.iter().map(Member::of).collect();
    if json {
        return Ok(serde_json::to_string(&Description { lock, participants })? + "\n");
    }
    let rows = [
        ("lock", info.name.clone()),
        ("kind", lock.kind.clone()),
        ("state", state(info)),
        ("holder", text::or_dash(lock.holder_pid.map(|pid| format!("pid {pid}")))),
        ("members", lock.members()),
        ("data", format!("{} bytes", info.data_size)),
        ("created", text::ago(info.created_ns)),
        ("memory", text::size(info.memory)),
    ];
    let mut output = text::columns(2, &rows.map(|(name, value)| [name.to_owned(), value]));
    if !participants.is_empty() {
        let mut rows = vec![["ALIVE", "ENTRY", "PID", "HELD", "JOINED"].map(str::to_owned)];
        rows.extend(participants.iter().map(Member::row));
        output.push('\n');
        output += &text::columns(1, &rows);
    }
    Ok(output)
}

/// All locks that can be read, sorted by name; `failed` is told of the others.
pub(crate) fn all(
    directory: &Directory,
    mut failed: impl FnMut(&str, SyncOpenError),
) -> Result<Vec<SyncInfo>> {
    let mut locks = Vec::new();
    for name in directory.sync_objects()? {
        match directory.inspect_sync(&name) {
            Ok(info) => locks.push(info),
            // Removed meanwhile.
            Err(SyncOpenError::Removed { .. }) => {}
            Err(SyncOpenError::NotFound { .. }) if !is_there(directory, &name) => {}
            Err(error) => failed(&name, error),
        }
    }
    Ok(locks)
}

/// Whether there is a lock of that name, be it damaged.
pub(crate) fn is_there(directory: &Directory, name: &str) -> bool {
    directory.sync_objects().is_ok_and(|names| names.iter().any(|one| one == name))
}

/// Whether nobody has a handle of it, for certain.
pub(crate) fn is_unused(info: &SyncInfo) -> bool {
    info.in_use == Some(false)
}

/// An error of the topic `name` where it might be a lock as well.
pub(crate) fn nor_lock(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::NotFound { name } => {
            anyhow::Error::msg(format!("there is no topic {name}, and no lock of that name"))
        }
        error => error.into(),
    }
}
