//! The broker: hands out the descriptors of guarded topics to whom the policy allows it.
//!
//! ```text
//! connect; SO_PEERCRED     a user that no rule is about is refused at once
//! request -> policy -> the topic's files, opened anew for this client; its entry, with the lease taken -> answer and descriptors
//! the client reads them and closes
//! ```
//!
//! It is needed to join, not to go on. It never waits for a client: no call blocks, a client has one request and a second for it, and each user a few
//! connections. What it believes stands in `ctl`, which no subscriber can write; it keeps nothing that matters in its own memory, so that
//! a killed one is replaced by any other that is given the same descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use shmbus_sys::clock;
use shmbus_sys::lease::Lease;
use shmbus_sys::shm::{self, Access};
use shmbus_sys::unix::{self, Peer, Readiness};

use crate::atomics::Relaxed;
use crate::control::files::GuardedTopic;
use crate::control::listener::{self, BACKLOG};
use crate::control::message::{Answer, Operation, REQUEST_LEN, Request, Status};
use crate::control::policy::{Policy, Rule};
use crate::crash;
use crate::error::OpenError;
use crate::guard;
use crate::layout::PAGE_LEASE;
use crate::region::{EntryIndex, Region};
use crate::registry::Kind;

/// Connections of one user at the same time, and of all.
const CONNECTIONS_OF_ONE: usize = 8;
const CONNECTIONS: usize = 512;
/// How long a client has for its request: 1 s.
const REQUEST_NS: u64 = 1_000_000_000;
/// Between two looks at whether an answer that was left unread is gone.
const LINGER: Duration = Duration::from_millis(20);
/// How long nobody is let in after the kernel had no descriptor or memory for it: who waits would make each turn end at once.
const DEAF_NS: u64 = 50_000_000;

/// Answers who wants to join guarded topics: see `docs/guarded.md`, and `shmbus serve`.
pub struct Broker {
    listener: OwnedFd,
    served: Vec<Served>,
    policy: Policy,
    connections: Vec<Connection>,
    /// Until when nobody is let in.
    deaf_until_ns: u64,
}

/// A topic, and what is looked at and written of it here.
struct Served {
    topic: GuardedTopic,
    region: Region,
}

struct Connection {
    socket: OwnedFd,
    peer: Peer,
    stage: Stage,
}

/// How far a connection is.
#[derive(Clone, Copy)]
enum Stage {
    /// The request must be there until then.
    Asks { deadline_ns: u64 },
    /// It was answered, and the client has not closed yet.
    Answered,
    /// The client has shut it down and has not read the answer: looked at now and then, for nothing tells when its last descriptor is closed.
    Lingers,
}

/// An answer that comes with descriptors, and what it is that is passed on.
type Granted = (Answer, Vec<OwnedFd>);

impl Broker {
    /// A socket at `path` to which anybody may connect who may search the directory that it is in: the policy decides. The directory must be the caller's or
    /// root's and not be open to everybody's writing. A socket of the caller on which nobody listens any more is replaced; anything else there is left as it is.
    /// Of several that do this at once, one has the socket: an empty file beside it, whose name ends in `.lock`, is locked meanwhile, and stays.
    ///
    /// # Errors
    /// The directory is not as said (`PermissionDenied`), somebody listens there or has been about to for a second (`AddrInUse`), what is there is no socket
    /// of the caller (`AlreadyExists`), or the kernel refuses.
    pub fn listen(path: &Path) -> io::Result<OwnedFd> {
        listener::listen(path)
    }

    /// Removes the socket at `path`, after the descriptor of [`Broker::listen`] and its copies have been closed. It is left as it is if somebody listens
    /// there, such as another broker that came meanwhile, and if it is no socket of the caller.
    ///
    /// # Errors
    /// Of [`Broker::listen`], of the directory.
    pub fn remove_socket(path: &Path) -> io::Result<()> {
        listener::remove(path)
    }

    /// A broker of `topics` that listens on `listener`, which is one of [`Broker::listen`].
    ///
    /// # Errors
    /// A topic cannot be mapped.
    pub fn new(
        listener: OwnedFd,
        topics: Vec<GuardedTopic>,
        policy: Policy,
    ) -> Result<Broker, OpenError> {
        let served = topics.into_iter().map(|topic| {
            let (region, _) = topic.map(Access::ReadOnly)?;
            Ok(Served { topic, region })
        });
        let served = served.collect::<Result<_, OpenError>>()?;
        Ok(Broker { listener, served, policy, connections: Vec::new(), deaf_until_ns: 0 })
    }

    /// Passes what a broker needs to another process, which makes one of it by [`Broker::inherit`]. `socket` is of [`unix::pair`] and blocks.
    ///
    /// # Errors
    /// The kernel refuses, or the process is gone.
    pub fn lend(
        socket: BorrowedFd<'_>,
        listener: BorrowedFd<'_>,
        topics: &[GuardedTopic],
    ) -> io::Result<()> {
        unix::send(socket, &(topics.len() as u32).to_le_bytes(), &[listener])?;
        topics.iter().try_for_each(|topic| topic.send(socket))
    }

    /// The broker of what [`Broker::lend`] passes through `socket`.
    ///
    /// # Errors
    /// It passes something else (`InvalidData`), or a topic cannot be mapped.
    pub fn inherit(socket: BorrowedFd<'_>, policy: Policy) -> io::Result<Broker> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut count = [0; 4];
        let (_, listener) = unix::receive_descriptors(socket, &mut count)?;
        let listener = listener.into_iter().next().ok_or_else(wrong)?;
        let topics = (0..u32::from_le_bytes(count)).map(|_| {
            let mut name = [0; 256];
            let (len, fds) = unix::receive_descriptors(socket, &mut name)?;
            GuardedTopic::of(name.get(..len).ok_or_else(wrong)?, fds)
        });
        let topics = topics.collect::<io::Result<_>>()?;
        Broker::new(listener, topics, policy).map_err(io::Error::other)
    }

    /// Waits until somebody wants something, `timeout` at most, and does it.
    ///
    /// # Errors
    /// The kernel refuses to wait. What goes wrong with one client ends its connection, and nothing else.
    pub fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let now_ns = clock::monotonic_ns();
        let left = self.connections.iter().filter_map(|client| match client.stage {
            Stage::Asks { deadline_ns } => {
                Some(Duration::from_nanos(deadline_ns.saturating_sub(now_ns)))
            }
            Stage::Answered => None,
            Stage::Lingers => Some(LINGER),
        });
        let deaf_ns = self.deaf_until_ns.saturating_sub(now_ns);
        let left = left.chain((deaf_ns > 0).then_some(Duration::from_nanos(deaf_ns)));
        let timeout = left.min().map_or(timeout, |left| left.min(timeout));
        // Those that linger are behind the others, and would be ready always.
        self.connections.sort_by_key(|client| matches!(client.stage, Stage::Lingers));
        let mut polled = vec![(self.listener.as_fd(), deaf_ns == 0)];
        let told = self.connections.iter().filter_map(|client| match client.stage {
            Stage::Asks { .. } => Some((client.socket.as_fd(), true)),
            Stage::Answered => Some((client.socket.as_fd(), false)),
            Stage::Lingers => None,
        });
        polled.extend(told);
        let ready = unix::wait(&polled, timeout)?;
        let now_ns = clock::monotonic_ns();
        for client in (0..self.connections.len()).rev() {
            let ready = ready.get(client + 1).copied().unwrap_or(Readiness::Closed);
            if !self.goes_on(client, ready, now_ns) {
                self.connections.swap_remove(client);
            }
        }
        if ready[0] != Readiness::Nothing {
            self.accept(now_ns);
        }
        Ok(())
    }

    /// Lets in all who wait, as far as there is room; the others find their socket closed.
    fn accept(&mut self, now_ns: u64) {
        for _ in 0..BACKLOG {
            let socket = match unix::accept(self.listener.as_fd()) {
                Ok(Some(socket)) => socket,
                Ok(None) => return,
                Err(_) => {
                    self.deaf_until_ns = now_ns + DEAF_NS;
                    return;
                }
            };
            let Ok(peer) = unix::peer(socket.as_fd()) else { continue };
            if !self.policy.knows(peer) {
                let _ = unix::send(socket.as_fd(), &Answer::of(Status::Refused).bytes(), &[]);
                continue;
            }
            let of_one = self.connections.iter().filter(|client| client.peer.uid == peer.uid);
            if of_one.count() >= CONNECTIONS_OF_ONE || self.connections.len() >= CONNECTIONS {
                continue;
            }
            let stage = Stage::Asks { deadline_ns: now_ns + REQUEST_NS };
            self.connections.push(Connection { socket, peer, stage });
        }
    }

    /// Whether a connection stays.
    fn goes_on(&mut self, client: usize, ready: Readiness, now_ns: u64) -> bool {
        let Connection { socket, peer, stage } = &self.connections[client];
        match (ready, *stage) {
            (Readiness::Readable, Stage::Asks { .. }) => {}
            (Readiness::Closed, Stage::Asks { .. }) => return false,
            (_, Stage::Asks { deadline_ns }) => return now_ns < deadline_ns,
            (Readiness::Closed, _) => {
                // Closed by its last holder, or shut down by one that keeps it, and in it what it was sent.
                let is_unread = unix::is_unread(socket.as_fd()).unwrap_or(false);
                self.connections[client].stage = Stage::Lingers;
                return is_unread;
            }
            (_, _) => return true,
        }
        let mut bytes = [0; REQUEST_LEN + 1]; // a longer one shows
        let len = match unix::receive(socket.as_fd(), &mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(len) => len,
        };
        let request = bytes.get(..len).ok_or(Status::Malformed).and_then(Request::parse);
        let granted =
            request.map_err(Refusal::from).and_then(|request| self.grant(*peer, &request));
        let (answer, fds) = granted.unwrap_or_else(|refusal| (refusal.into(), Vec::new()));
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let sent = unix::send(socket.as_fd(), &answer.bytes(), &fds);
        // Descriptors under way count against this process until the client has read them: it keeps its connection so long.
        crash::point("broker.answered");
        self.connections[client].stage = Stage::Answered;
        sent.is_ok() && answer.status == Status::Done
    }

    fn grant(&self, peer: Peer, request: &Request) -> Result<Granted, Refusal> {
        let rule = self.policy.decide(peer, &request.name).ok_or(Status::Refused)?;
        let is_allowed = match request.operation {
            Operation::Describe => rule.publish || rule.subscribe,
            Operation::Subscribe { reliable, .. } => rule.subscribe && (rule.reliable || !reliable),
            Operation::Publish => rule.publish,
        };
        if !is_allowed {
            return Err(Status::Refused.into());
        }
        let served = self.served.iter().find(|served| served.topic.name == request.name);
        let served = served.ok_or(Status::NotFound)?;
        match request.operation {
            Operation::Describe => served.describe(),
            Operation::Subscribe { reliable, patience_ns } => {
                served.subscribe(peer, rule, reliable, patience_ns)
            }
            Operation::Publish => served.publish(),
        }
    }
}

/// Why there is nothing, and the number that belongs to it.
struct Refusal(Status, u64);

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
    fn describe(&self) -> Result<Granted, Refusal> {
        done(0, 0, self.files(Access::ReadOnly)?)
    }

    /// `data` and `ctl`, opened anew.
    fn files(&self, access: Access) -> io::Result<Vec<OwnedFd>> {
        let GuardedTopic { data, ctl, .. } = &self.topic;
        [data, ctl].into_iter().map(|file| shm::open_again_as(file.as_fd(), access)).collect()
    }

    fn publish(&self) -> Result<Granted, Refusal> {
        let mut fds = self.files(Access::ReadWrite)?;
        let owner = self.topic.pages.first().ok_or(Status::Failed)?;
        let lease = Lease::open_again(owner.as_fd())?;
        if !lease.take(PAGE_LEASE)? {
            let index = self.region.publishers().next();
            let pid = index.map_or(0, |index| self.region.entry(index).pid.load(Relaxed));
            return Err(Refusal(Status::PublisherAlive, pid.into()));
        }
        fds.push(lease.into_fd()?);
        for page in &self.topic.pages {
            fds.push(shm::open_again(page.as_fd())?);
        }
        done(0, 0, fds)
    }

    fn subscribe(
        &self,
        peer: Peer,
        rule: &Rule,
        reliable: bool,
        patience_ns: u64,
    ) -> Result<Granted, Refusal> {
        let region = &self.region;
        let me = u64::from(peer.uid) + 1;
        let bound = |index: &EntryIndex| {
            region.grant(*index).map_or(u64::MAX, |grant| grant.bound.load(Relaxed))
        };
        let mine: Vec<_> = region.subscribers().filter(|index| bound(index) == me).collect();
        let new = region.subscribers().filter(|index| bound(index) == 0);
        let new = new.take((rule.subscribers as usize).saturating_sub(mine.len()));
        for index in mine.iter().copied().take(rule.subscribers as usize).chain(new) {
            let page = self.topic.pages.get(index.0 as usize).ok_or(Status::Failed)?;
            let lease = Lease::open_again(page.as_fd())?;
            if !lease.take(PAGE_LEASE)? {
                continue;
            }
            crash::point("broker.leased");
            let mut fds = self.files(Access::ReadOnly)?;
            let most_ns = u64::try_from(rule.patience.as_nanos()).unwrap_or(u64::MAX);
            let patience_ns = if patience_ns == 0 { most_ns } else { patience_ns.min(most_ns) };
            let kind = if reliable { Kind::Reliable } else { Kind::Lossy };
            let generation = guard::let_in(region, index, me, kind, patience_ns);
            let generation = generation.ok_or(Status::Failed)?;
            crash::point("broker.granted");
            fds.push(lease.into_fd()?);
            return done(index.0, generation, fds);
        }
        Err(Refusal(Status::Full, rule.subscribers.min(region.geometry().subscribers_max).into()))
    }
}

fn done(entry: u32, generation: u64, fds: Vec<OwnedFd>) -> Result<Granted, Refusal> {
    let descriptors = fds.len() as u32;
    Ok((Answer { entry, descriptors, generation, ..Answer::of(Status::Done) }, fds))
}
