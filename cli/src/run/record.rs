//! What `shmbus run` publishes and `shmbus status` reads: a message for each state of the tree, one element for each process. Topic `shmbus/run/NAME`.

use anyhow::{Context, Result, bail};
use bytemuck::{Pod, Zeroable};
use shmbus::process::{ChildStatus, Core, End, Phase};
use shmbus::{
    Directory, Enum, FixedStr, Message, MessageEnum, OpenError, Publisher, RemoveError, Schema,
    Start, Topic, TopicOptions,
};

use super::state::Life;

/// Where these topics are.
pub(crate) const PREFIX: &str = "shmbus/run/";
/// Bytes of a name.
pub(super) const NAME_MAX: usize = 64;
/// Processes of a file.
pub(super) const PROCESSES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, MessageEnum)]
#[repr(u8)]
#[message(name = "shmbus.ProcessState")]
pub(crate) enum State {
    Waiting = 1,
    Running = 2,
    Stopping = 3,
    Ended = 4,
}

/// What its last end was; `code` of the record is the status, the signal or the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, MessageEnum)]
#[repr(u8)]
#[message(name = "shmbus.ProcessEnd")]
pub(crate) enum Ended {
    NotYet = 0,
    Exited = 1,
    Killed = 2,
    Dumped = 3,
    NotStarted = 4,
    Unknown = 5,
}

/// A process at one moment.
#[derive(Clone, Copy, Debug, Pod, Zeroable, Message)]
#[repr(C)]
#[message(name = "shmbus.Process", version = 1)]
pub(crate) struct Record {
    /// Nanoseconds since 1970; 0: it does not run.
    pub(crate) started_ns: u64,
    pub(crate) restarts: u64,
    /// 0: it does not run.
    pub(crate) pid: u32,
    pub(crate) code: i32,
    pub(crate) state: Enum<State>,
    pub(crate) end: Enum<Ended>,
    _padding: [u8; 6],
    pub(crate) name: FixedStr<NAME_MAX>,
}

impl Record {
    fn of(child: &ChildStatus) -> Record {
        let (end, code) = match child.last_end {
            None => (Ended::NotYet, 0),
            Some(End::Exited(code)) => (Ended::Exited, code),
            Some(End::Killed { signal, core: Core::None }) => (Ended::Killed, signal),
            Some(End::Killed { signal, .. }) => (Ended::Dumped, signal),
            Some(End::NotStarted(error)) => (Ended::NotStarted, error),
            Some(_) => (Ended::Unknown, 0),
        };
        Record {
            started_ns: child.started_ns.unwrap_or(0),
            restarts: child.restarts,
            pid: child.pid.unwrap_or(0),
            code,
            state: Enum::new(match child.phase {
                Phase::Running => State::Running,
                Phase::Stopping => State::Stopping,
                Phase::Ended => State::Ended,
                _ => State::Waiting,
            }),
            end: Enum::new(end),
            _padding: [0; 6],
            name: FixedStr::new(&child.name).unwrap_or_default(), // names were checked
        }
    }

    /// For people; `None`: it has not ended yet.
    pub(crate) fn last_end(&self) -> Option<String> {
        let code = self.code;
        Some(match self.end.get().unwrap_or(Ended::NotYet) {
            Ended::NotYet => return None,
            Ended::Unknown => "unknown".to_owned(),
            Ended::Exited => format!("status {code}"),
            Ended::Killed => format!("signal {code}"),
            Ended::Dumped => format!("signal {code}, core dumped"),
            Ended::NotStarted => {
                format!("not started: {}", std::io::Error::from_raw_os_error(code))
            }
        })
    }
}

/// The topic of a supervisor that runs. Dropped, it is removed.
pub(super) struct Status {
    directory: Directory,
    name: String,
    publisher: Option<Publisher<[Record]>>,
}

/// Removes what a killed supervisor has published.
pub(super) fn forget(directory: &Directory, name: &str) -> Result<()> {
    match directory.remove(&format!("{PREFIX}{name}"), true) {
        Ok(()) | Err(RemoveError::Open(OpenError::NotFound { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a supervisor of that name has published something and has not ended in order.
pub(super) fn is_there(directory: &Directory, name: &str) -> bool {
    directory.inspect(&format!("{PREFIX}{name}")).is_ok()
}

impl Status {
    /// Of a supervisor that has the name.
    pub(super) fn begin(directory: &Directory, name: &str) -> Result<Status> {
        let name = format!("{PREFIX}{name}");
        let options = TopicOptions {
            depth: 4,
            max_len: (PROCESSES_MAX * size_of::<Record>()) as u32,
            subscribers_max: 4,
            hold_blocks: Some(0),
            mode: 0o644, // whoever may look into the directory may read it
            ..TopicOptions::default()
        };
        let topic = Topic::<[Record]>::create_in(directory, &name, &options)?;
        let publisher = topic.publisher().with_context(|| format!("topic {name}"))?;
        Ok(Status { directory: directory.clone(), name, publisher: Some(publisher) })
    }

    pub(super) fn publish(&mut self, children: &[ChildStatus]) {
        let records: Vec<Record> = children.iter().take(PROCESSES_MAX).map(Record::of).collect();
        if let Some(publisher) = &mut self.publisher {
            // Reliable subscribers, of which there should be none, are not waited for.
            let _ = publisher.try_publish(&records);
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.publisher = None;
        let _ = self.directory.remove(&self.name, true);
    }
}

/// What a supervisor has published last, and whether it lives.
pub(crate) struct Seen {
    pub(crate) records: Vec<Record>,
    pub(crate) life: Life,
}

impl Seen {
    /// Reads the topic along, without taking part in it: read permission is enough. Whether the supervisor lives is seen by whoever may open its file.
    pub(crate) fn read(directory: &Directory, name: &str) -> Result<Seen> {
        let topic = format!("{PREFIX}{name}");
        let mut observer = directory.observe(&topic, Start::Back(1))?;
        if observer.schema() != Some(&Schema::of::<Record>().into_sequence()) {
            bail!("topic {topic} is of another version of shmbus");
        }
        let mut records = Vec::new();
        // A message may be overwritten while it is read: then there is another one. Not for ever, however fast they come.
        for _ in 0..1000 {
            let Some(message) = observer.try_next()? else { break };
            let elements = message.bytes().chunks_exact(size_of::<Record>());
            records = elements.map(bytemuck::pod_read_unaligned).collect();
        }
        Ok(Seen { records, life: Life::of(directory, name) })
    }
}
