//! A zero-copy shared-memory message bus for Linux.
//!
//! One publisher or several, up to 256 subscribers, in different processes, on one *topic*: a stream of messages in a ring in shared memory.
//! Each subscriber chooses to be *lossy* (publishers never wait for it, and it learns exactly what it missed) or *reliable* (publishers
//! wait for it once it is a whole ring behind, and it misses nothing).
//!
//! ```
//! use shmbus::{Delivery, Message, Topic, TopicOptions};
//!
//! #[derive(Clone, Copy, Message)]
//! #[repr(C)]
//! #[message(name = "md.Quote", version = 1)]
//! struct Quote { instrument: u64, bid: i64, ask: i64 }
//!
//! # let directory = tempfile::tempdir_in("/dev/shm")?;
//! # let directory = shmbus::Directory::at(directory.path())?;
//! # let topic = Topic::<Quote>::create_in(&directory, "md/quotes", &TopicOptions::default())?;
//! # let _ = || -> Result<(), Box<dyn std::error::Error>> {
//! let topic = Topic::<Quote>::open_or_create("md/quotes", &TopicOptions::default())?;
//! # Ok(()) };
//! let mut subscriber = topic.subscriber(Delivery::Lossy)?; // in any process
//! let mut publisher = topic.publisher()?; // in any process
//! publisher.publish(&Quote { instrument: 7, bid: 99, ask: 101 })?;
//! let quote = subscriber.receive()?; // &Quote, in shared memory, not copied
//! assert_eq!((quote.instrument, quote.missed_before()), (7, 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//! - A `&T` handed to a subscriber is never overwritten while it is held, although publishers wait for no lossy subscriber.
//! - A process may be killed or stopped at any instruction: no other one reads a torn message, loses a committed one, or waits for the
//!   dead. Who is dead is asked of the kernel, never of a clock.
//! - Loss is exact and never silent: [`Sample::missed_before`].
//! - A publish costs the same for 1 or 64 subscribers.
//! - A topic says what its messages are: name, version and every field, as text ([`Schema`]). Opening it as another type is an error that shows both, and any
//!   tool reads it without the type ([`RawTopic`]).
//!
//! # What it does not promise
//! - Protection from a process that may write the topic's files and does not follow the protocol: see [`Topic`].
//! - Durability: a topic is memory and ends with the machine.
//! - Fairness among, or progress of, processes that the scheduler does not run.
//! - Anything to a child that was forked and did not exec: its handles answer `Forked`, and what a sample or a loan from before
//!   the fork shows is not mapped there. Children of `_Fork` or of a bare `clone` run no fork handlers: they keep their parent's
//!   leases, so that it seems to live after its death, until they exec, end, or close its descriptors.
//!
//! # How a message flows
//! Publish: [`Publisher::publish`] or [`Loan::commit`] -> `ExclusiveRing::commit` (or `SharedRing::commit`) -> `Bell::ring`.
//! Receive: [`Subscriber::receive`] -> `Reader::next` -> `Bell::sleep`.
//! Observe: [`Observer::try_next`] -> `Watcher::next`.
//!
//! Beside topics: locks in shared memory ([`sync`]).
//!
//! # Map of the files
//! | file | what it holds |
//! |---|---|
//! | `atomics` | the processor's atomics and the futex, or loom's |
//! | `layout`, `header` | the format; its header pages, written and checked |
//! | `region`, `payload` | the two that cast: mapping to atomics, slots to messages |
//! | `registry`, `bell` | participants' states; sleeping and waking |
//! | `ring` | the protocol: table, exclusive and shared publishers, reader, holds, watcher |
//! | `recovery`, `repair` | what is done for the dead, and for those who stand still |
//! | `lock`, `sweep` | one does it for all: the recovery lock, and who sweeps when |
//! | `participant`, `place`, `directory`, `create`, `leftovers`, `liveness` | leases and entries; where topics live, and whose that is; how they are built there, and why not; what killed processes leave there; who lives, for people |
//! | `joins`, `removal` | whether a topic is removed, and how it is |
//! | `message`, `kind`, `checked`, `schema` | what messages are: at compile time; field types checked on reading; at run time, as text, for tools |
//! | `raw` | messages without their type |
//! | `guard`, `control` | guarded topics: what of an entry is believed; the broker, its messages and policy, and who asks it |
//! | `process` | children that are given topics, and a supervisor |
//! | `sync` | locks across processes that survive their owners |
//! | `internals` | what this project's own tests and fuzz targets need beside it; no part of what it promises |
//! | `topic`, `topic_files`, `options`, `publisher`, `loan`, `subscriber`, `sample`, `batch`, `observer`, `wait`, `stats`, `error`, `limits` | the public face |

#![warn(missing_docs)]

mod atomics;
mod bell;
mod crash;
mod guard;
mod joins;
mod layout;
mod lock;
mod recovery;
mod region;
mod registry;
mod repair;
mod ring;
#[cfg(not(loom))]
pub mod sync;
#[cfg(loom)]
mod sync;

#[cfg(not(loom))]
mod batch;
#[cfg(not(loom))]
mod checked;
#[cfg(not(loom))]
mod control;
#[cfg(not(loom))]
mod create;
#[cfg(not(loom))]
mod deletion;
#[cfg(not(loom))]
mod directory;
#[cfg(not(loom))]
mod error;
#[cfg(doctest)]
mod guide;
#[cfg(not(loom))]
mod header;
#[cfg(all(feature = "internals", not(loom)))]
#[doc(hidden)]
pub mod internals;
#[cfg(not(loom))]
mod kind;
#[cfg(not(loom))]
mod leftovers;
#[cfg(not(loom))]
mod limits;
#[cfg(not(loom))]
mod liveness;
#[cfg(not(loom))]
mod loan;
#[cfg(not(loom))]
mod message;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod observer;
#[cfg(not(loom))]
mod options;
#[cfg(not(loom))]
mod participant;
#[cfg(not(loom))]
mod payload;
#[cfg(not(loom))]
mod place;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
mod publisher;
#[cfg(not(loom))]
mod raw;
#[cfg(not(loom))]
mod removal;
#[cfg(not(loom))]
mod sample;
#[cfg(not(loom))]
mod schema;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod subscriber;
#[cfg(not(loom))]
mod sweep;
#[cfg(not(loom))]
mod topic;
#[cfg(not(loom))]
mod topic_files;
#[cfg(not(loom))]
mod wait;

pub use ring::reader::Start;

#[cfg(not(loom))]
pub use self::{
    batch::Batch,
    checked::{Bool, Enum, EnumRepr, FixedStr, MessageEnum, TextError, UnknownValue},
    control::{
        broker::Broker,
        files::GuardedTopic,
        policy::{Policy, PolicyError, Rule},
    },
    directory::{Directory, PathSource},
    error::*,
    kind::{EnumKind, Kind, Scalar, StructKind, Variant},
    leftovers::{Leftover, LeftoverKind},
    limits::{PageSizeError, TooManyHandles},
    liveness::Liveness,
    loan::Loan,
    message::{Field, Message, TypeError},
    observer::{Observed, Observer},
    options::{Memory, Publishers, TopicOptions, Wake},
    payload::Payload,
    publisher::Publisher,
    raw::{Raw, RawTopic},
    sample::{Held, HoldBudget, Sample},
    schema::{
        DecodeError, EncodeError, EnumType, FieldType, Schema, SchemaError, StructType, Type, Value,
    },
    stats::{LastDeath, ParticipantInfo, ParticipantKind, TopicInfo},
    subscriber::{Copied, Delivery, Subscriber},
    topic::Topic,
};

#[cfg(not(loom))]
pub use shmbus_derive::{Message, MessageEnum};

/// Plain data: what [locks](sync) carry, and casts between messages and bytes. Here, so that a program needs no line of its own for it; its derives are told by
/// `#[bytemuck(crate = "shmbus::bytemuck")]`.
#[cfg(not(loom))]
pub use bytemuck;

/// What the derive macros name.
#[cfg(not(loom))]
#[doc(hidden)]
pub mod __derive {
    pub use crate::kind::{Kind, Variant};
    pub use crate::message::{
        Field, NoBool, NoChar, NoIsize, NoLarge, NoList, NoNonZero, NoOption, NoPointer, NoText,
        NoUsize,
    };
}

/// As which the derive macros name this crate.
#[cfg(all(test, not(loom)))]
extern crate self as shmbus;

/// What may go to, or be shared with, other threads.
#[cfg(not(loom))]
mod threads {
    use super::{Batch, Directory, Held, Loan, Observer, Publisher, Sample, Subscriber, Topic};
    use crate::sync::{
        Barrier, Condvar, Event, FileGuard, FileLock, MutexGuard, OnceCell, Permit, ReadGuard,
        RobustMutex, RwLock, Semaphore, WriteGuard,
    };
    use static_assertions::{assert_impl_all, assert_not_impl_any};

    assert_impl_all!(Directory: Send, Sync, Clone);
    assert_impl_all!(Topic<u64>: Send, Sync, Clone);
    assert_impl_all!(Publisher<[u8]>: Send);
    assert_impl_all!(Subscriber<[u8]>: Send);
    assert_impl_all!(Observer: Send, Sync);
    assert_impl_all!(Loan<'static, u64>: Send);
    assert_impl_all!(Sample<'static, u64>: Send);
    assert_impl_all!(Batch<'static, u64>: Send);
    assert_impl_all!(Held<[u8]>: Send, Sync, Clone);
    assert_impl_all!(Condvar: Send, Sync);
    assert_impl_all!(FileLock: Send, Sync);
    assert_impl_all!(FileGuard<'static>: Send, Sync);
    // Members belong to a thread: none of their functions has two callers at once.
    assert_not_impl_any!(RobustMutex<u64>: Send, Sync);
    assert_not_impl_any!(MutexGuard<'static, u64>: Send, Sync);
    assert_not_impl_any!(RwLock<u64>: Send, Sync);
    assert_not_impl_any!(ReadGuard<'static, u64>: Send, Sync);
    assert_not_impl_any!(WriteGuard<'static, u64>: Send, Sync);
    assert_not_impl_any!(Semaphore: Send, Sync);
    assert_not_impl_any!(Permit<'static>: Send, Sync);
    assert_not_impl_any!(Barrier: Send, Sync);
    assert_not_impl_any!(Event: Send, Sync);
    assert_not_impl_any!(OnceCell<u64>: Send, Sync);
}
