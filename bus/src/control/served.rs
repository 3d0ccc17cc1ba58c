//! A topic as its broker has it: what is handed out of it, and which entry to whom.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shmbus_sys::lease::{self, Lease};
use shmbus_sys::shm::{self, Access};

use crate::atomics::Relaxed;
use crate::control::files::GuardedTopic;
use crate::control::message::{Answer, Status};
use crate::control::policy::{Decision, Owner, Rule};
use crate::crash;
use crate::error::OpenError;
use crate::guard;
use crate::layout::PAGE_LEASE;
use crate::region::{EntryIndex, Region};
use crate::registry::Kind;

/// A topic, and what is looked at and written of it here.
pub(super) struct Served {
    pub(super) topic: GuardedTopic,
    region: Region,
}

/// An entry that is to be granted: nobody else has its lease.
pub(super) struct Entry {
    index: EntryIndex,
    /// Whose it is from now on: `Grant::bound`.
    bound: u64,
    lease: Lease,
}

/// An answer that comes with descriptors, and what it is that is passed on.
pub(super) type Granted = (Answer, Vec<OwnedFd>);

/// Why there is nothing, and the number that belongs to it.
pub(super) struct Refusal(pub(super) Status, pub(super) u64);

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal(status, 0)
    }
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Refusal {
        Refusal(Status::Failed, 0)
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal(status, detail): Refusal) -> Answer {
        Answer { detail, ..Answer::of(status) }
    }
}

impl Served {
    pub(super) fn new(topic: GuardedTopic) -> Result<Served, OpenError> {
        let (region, _) = topic.map(Access::ReadOnly)?;
        Ok(Served { topic, region })
    }

    pub(super) fn describe(&self) -> Result<Granted, Refusal> {
        done(0, 0, self.files(Access::ReadOnly)?)
    }

    /// `data` and `ctl`, opened anew.
    fn files(&self, access: Access) -> io::Result<Vec<OwnedFd>> {
        let GuardedTopic { data, ctl, .. } = &self.topic;
        [data, ctl].into_iter().map(|file| shm::open_again_as(file.as_fd(), access)).collect()
    }

    pub(super) fn publish(&self) -> Result<Granted, Refusal> {
        let mut fds = self.files(Access::ReadWrite)?;
        let owner = self.topic.pages.first().ok_or(Status::Failed)?;
        let lease = Lease::open_again(owner.as_fd())?;
        if !lease.take(PAGE_LEASE)? {
            let index = self.region.publishers().next();
            let pid = index.map_or(0, |index| self.region.entry(index).pid.load(Relaxed));
            return Err(Refusal(Status::PublisherAlive, pid.into()));
        }
        fds.push(lease.into_fd()?);
        // Not opened anew, or a page would always be open for writing somewhere: see `is_given_back`. Nothing is locked through these.
        for page in &self.topic.pages {
            fds.push(page.try_clone()?);
        }
        done(0, 0, fds)
    }

    /// An entry for user `uid`: one of its own, one that nobody had yet, or one of somebody who is gone.
    pub(super) fn entry_for(&self, uid: u32, decision: Decision<'_>) -> Result<Entry, Refusal> {
        let Decision { rule, group } = decision;
        let (word, entries) = (Owner { uid, group }.word(), self.region.geometry().subscribers_max);
        let bound: Vec<_> = self.region.subscribers().map(|at| (at, self.bound(at))).collect();
        let owner_of = |(_, word): &(EntryIndex, u64)| Owner::of(*word);
        let is_mine = |entry: &&_| owner_of(entry).is_some_and(|owner| owner.uid == uid);
        let mine = bound.iter().filter(is_mine);
        for (index, owner) in mine.clone().take(rule.subscribers as usize) {
            if let Some(lease) = self.lease(*index, *owner)? {
                return Ok(Entry { index: *index, bound: *owner, lease });
            }
        }
        if mine.count() >= rule.subscribers as usize {
            return Err(Refusal(Status::Full, rule.subscribers.min(entries).into()));
        }
        let of_rule = |entry: &&_| owner_of(entry).is_some_and(|owner| rule.has(owner));
        let total = rule.total(entries);
        let is_within = bound.iter().filter(of_rule).count() < total;
        let new = bound.iter().filter(|entry| is_within && owner_of(entry).is_none());
        // Beyond its total, a rule's users get what others of the same rule have left.
        let left = bound.iter().filter(|entry| !is_mine(entry) && owner_of(entry).is_some());
        let left = left.filter(|entry| is_within || of_rule(entry));
        for (index, owner) in new.chain(left) {
            if *owner != 0 && !self.is_given_back(*index)? {
                continue;
            }
            if let Some(lease) = self.lease(*index, *owner)? {
                return Ok(Entry { index: *index, bound: word, lease });
            }
        }
        let most = if is_within { entries } else { total as u32 };
        Err(Refusal(Status::Full, most.into()))
    }

    fn bound(&self, index: EntryIndex) -> u64 {
        self.region.grant(index).map_or(u64::MAX, |grant| grant.bound.load(Relaxed))
    }

    fn page(&self, index: EntryIndex) -> Result<&OwnedFd, Refusal> {
        Ok(self.topic.pages.get(index.0 as usize).ok_or(Status::Failed)?)
    }

    /// The lease of an entry, if nobody has it and it is `bound`'s still: another broker that was stopped and goes on may have given it away.
    fn lease(&self, index: EntryIndex, bound: u64) -> Result<Option<Lease>, Refusal> {
        let lease = Lease::open_again(self.page(index)?.as_fd())?;
        let is_taken = lease.take(PAGE_LEASE)? && self.bound(index) == bound;
        Ok(is_taken.then_some(lease))
    }

    /// Whether nobody whom an entry was handed to can write its page any more, mapped or not. Its lease does not say so: its owner may have given that back
    /// and kept the page. Each of them was passed a description of its own, opened for writing, of a file that it cannot open itself; publishers and
    /// brokers use the description with which the page was made.
    fn is_given_back(&self, index: EntryIndex) -> Result<bool, Refusal> {
        Ok(!lease::is_open_for_writing(self.page(index)?.as_fd())?)
    }

    pub(super) fn subscribe(
        &self,
        entry: Entry,
        rule: &Rule,
        reliable: bool,
        patience_ns: u64,
    ) -> Result<Granted, Refusal> {
        let Entry { index, bound, lease } = entry;
        crash::point("broker.leased");
        let mut fds = self.files(Access::ReadOnly)?;
        let most_ns = u64::try_from(rule.patience.as_nanos()).unwrap_or(u64::MAX);
        let patience_ns = if patience_ns == 0 { most_ns } else { patience_ns.min(most_ns) };
        let kind = if reliable { Kind::Reliable } else { Kind::Lossy };
        let generation = guard::let_in(&self.region, index, bound, kind, patience_ns);
        let generation = generation.ok_or(Status::Failed)?;
        crash::point("broker.granted");
        fds.push(lease.into_fd()?);
        done(index.0, generation, fds)
    }
}

fn done(entry: u32, generation: u64, fds: Vec<OwnedFd>) -> Result<Granted, Refusal> {
    let descriptors = fds.len() as u32;
    Ok((Answer { entry, descriptors, generation, ..Answer::of(Status::Done) }, fds))
}
