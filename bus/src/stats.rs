//! What a topic is and who takes part in it, for people and tools. Reads; changes nothing.

use crate::atomics::{Acquire, Relaxed};
use crate::header::Description;
use crate::liveness::Liveness;
use crate::options::{Memory, Publishers, Wake};
use crate::participant::Attachment;
use crate::recovery;
use crate::region::{EntryIndex, Region};
use crate::registry::{Kind, State};
use crate::ring::table;
use crate::schema::Schema;

/// A topic at one moment. The numbers are read one after the other while the topic is in use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Name of the message type, such as `md.Quote`; `[md.Quote]` where a message is any number of them; `[u8]` of bytes.
    pub type_name: String,
    /// What a message is; `None`: bytes.
    pub schema: Option<Schema>,
    /// Size of a message, or of the largest one, in bytes.
    pub payload_size: u32,
    /// Alignment of a message in bytes.
    pub payload_align: u32,
    /// Whether each message has a length of its own.
    pub variable_len: bool,
    /// Messages retained.
    pub depth: u64,
    /// Messages of one block, the unit of reuse.
    pub block_len: u64,
    /// Blocks retained.
    pub blocks: u32,
    /// Blocks beside them, for what is pinned or held.
    pub spares: u32,
    /// Bytes of one message with its header.
    pub slot_size: u64,
    /// Sequences published.
    pub head: u64,
    /// Who may publish at the same time.
    pub publishers: Publishers,
    /// Subscribers at the same time.
    pub subscribers_max: u32,
    /// Blocks that may be held at the same time.
    pub hold_blocks: u32,
    /// Whether messages carry the time of their commit.
    pub timestamp: bool,
    /// How publishers and sleepers meet.
    pub wake: Wake,
    /// What it occupies.
    pub memory: Memory,
    /// Whether it was removed, or something else has deleted its files.
    pub retired: bool,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: u64,
    /// A random number that tells this topic from others of its name, before and after it.
    pub instance: u64,
    /// How many participants were found dead since it was created. Who was found dead and not entered into the record yet is not counted, and neither is who
    /// was left by a process that ended by `exit` or returned from `main`.
    pub deaths: u64,
    /// The last one of them.
    pub last_death: Option<LastDeath>,
    /// Who takes part, dead ones that nobody has noticed yet among them.
    pub participants: Vec<ParticipantInfo>,
}

/// A participant that was found dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastDeath {
    /// Number of its entry.
    pub entry: u32,
    /// How many owners the entry had had by then, itself among them.
    pub generation: u64,
    /// Its process, as it had stated it itself, in its own pid namespace.
    pub pid: u32,
}

/// What a participant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParticipantKind {
    /// Publishes.
    Publisher,
    /// Receives, and misses what it is too slow for.
    Lossy,
    /// Receives everything.
    Reliable,
}

/// One participant of a topic.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParticipantInfo {
    /// Number of its entry.
    pub entry: u32,
    /// What it is.
    pub kind: ParticipantKind,
    /// Its process, as it stated it itself, in its own pid namespace; 0 where that has ended by `exit` with this participant.
    pub pid: u32,
    /// Whether its process lives: whether the kernel still has its lease.
    pub liveness: Liveness,
    /// Next sequence it publishes or, as of the beginning of its present block, receives.
    pub position: u64,
    /// Sequences behind the head, as of the beginning of its present block.
    pub lag: u64,
    /// Messages missed since it subscribed, as of the beginning of its present block; see [`Subscriber::missed`](crate::Subscriber::missed).
    pub missed: u64,
    /// A reliable subscriber that keeps the next block from being opened: the ring is full, and whoever publishes waits for it. Of a guarded topic this cannot
    /// be seen.
    pub holds_up: bool,
    /// Blocks in which it holds samples.
    pub held_blocks: u32,
    /// When it joined, in nanoseconds since 1970.
    pub joined_ns: u64,
}

impl TopicInfo {
    pub(crate) fn of(attachment: &Attachment) -> TopicInfo {
        let Attachment { name, description, region, .. } = attachment;
        if !attachment.is_forked() {
            attachment.look_for_deletion();
        }
        let liveness = |index| Liveness::of(attachment.is_held(index));
        TopicInfo::read(name, description, region, attachment.is_forked(), liveness)
    }

    /// Reads what the mapping says; in a forked child there is none. `liveness` asks whether the owner of an entry lives.
    pub(crate) fn read(
        name: &str,
        description: &Description,
        region: &Region,
        forked: bool,
        liveness: impl Fn(EntryIndex) -> Liveness,
    ) -> TopicInfo {
        let geometry = region.geometry();
        let head = if forked { 0 } else { region.head().load(Acquire) }; // [stream position]
        let holding_up =
            if forked || geometry.guarded { Vec::new() } else { holding_up(region, head) };
        let participant = |index: EntryIndex| {
            let entry = region.entry(index);
            // [entry]: who the owner is, below
            let kind = match State::of(entry.state.load(Acquire)).kind {
                Kind::Publisher => ParticipantKind::Publisher,
                Kind::Lossy => ParticipantKind::Lossy,
                Kind::Reliable => ParticipantKind::Reliable,
                Kind::Free | Kind::Joining | Kind::Dead | Kind::Counted | Kind::Member => {
                    return None;
                }
            };
            let publishes = kind == ParticipantKind::Publisher;
            let position = if publishes { head } else { entry.position.load(Relaxed) };
            Some(ParticipantInfo {
                entry: index.0,
                kind,
                pid: entry.pid.load(Relaxed),
                liveness: liveness(index),
                position,
                lag: head.saturating_sub(position),
                missed: entry.missed.load(Relaxed),
                holds_up: holding_up.contains(&index),
                held_blocks: entry.held.load(Relaxed).count_ones(),
                joined_ns: entry.joined_ns.load(Relaxed),
            })
        };
        let (deaths, last) = if forked { (0, None) } else { recovery::deaths(region) };
        TopicInfo {
            name: name.to_owned(),
            type_name: description.carried.type_name(),
            schema: description.carried.schema.clone(),
            payload_size: geometry.payload_max,
            payload_align: description.carried.align() as u32,
            variable_len: description.carried.size().is_none(),
            depth: geometry.depth(),
            block_len: geometry.block_len,
            blocks: geometry.blocks,
            spares: geometry.spares,
            slot_size: geometry.slot_size,
            head,
            publishers: match geometry.shared {
                true => Publishers::Shared(geometry.publishers_max),
                false => Publishers::Exclusive,
            },
            subscribers_max: geometry.subscribers_max,
            hold_blocks: geometry.hold_blocks,
            timestamp: geometry.timestamp,
            wake: description.wake,
            memory: Memory::of(geometry),
            retired: !forked && region.control().notices.0.joins.is_retired(),
            created_ns: description.created_ns,
            instance: description.instance,
            deaths,
            last_death: last.map(|dead| LastDeath {
                entry: dead.entry,
                generation: dead.generation,
                pid: dead.pid,
            }),
            participants: region.entries().filter(|_| !forked).filter_map(participant).collect(),
        }
    }
}

/// Who keeps the block of `head` from being opened, if that is to be opened next.
fn holding_up(region: &Region, head: u64) -> Vec<EntryIndex> {
    let number = region.geometry().number(head);
    let word = region.table(number).load(Relaxed); // it may be opened at any moment
    match table::age(word, number).is_lt() {
        true => table::who_forbids(region, number).map(|who| who.index).collect(),
        false => Vec::new(),
    }
}
