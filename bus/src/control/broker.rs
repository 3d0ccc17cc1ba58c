//! The broker: hands out the descriptors of guarded topics to whom the policy allows it.
//!
//! ```text
//! connect; SO_PEERCRED     a user that no rule is about is refused at once
//! request -> policy -> the topic's files, opened anew for this client; its entry, with the lease taken -> answer and descriptors
//! the client reads them and closes
//! ```
//!
//! It is needed to join, not to go on. It never waits for a client: no call blocks, a client has one request and a second for it, each user a few
//! connections, and each rule as many as there are descriptors for; whoever comes beyond that is told to come again. What it believes stands in `ctl`, which
//! no subscriber can write; it keeps nothing that matters in its own memory, so that a killed one is replaced by any other that is given the
//! same descriptors.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use shmbus_sys::unix::{self, Peer, Readiness};
use shmbus_sys::{clock, process};

use crate::control::files::GuardedTopic;
use crate::control::listener::{self, BACKLOG};
use crate::control::message::{Answer, Operation, REQUEST_LEN, Request, Status};
use crate::control::policy::Policy;
use crate::control::served::{Granted, Refusal, Served};
use crate::crash;
use crate::error::OpenError;

/// Connections of one user at the same time, and of all users of one rule at most. The second is less where there are not descriptors enough.
const CONNECTIONS_OF_ONE: usize = 8;
const CONNECTIONS_OF_RULE: usize = 512;
/// Descriptors for each connection: itself, and what an answer to a subscriber passes on.
const OF_CONNECTION: u64 = 4;
/// Descriptors for the answer to a publisher, and for whatever else a process has open.
const OF_PUBLISHER: u64 = 72;
const OF_OTHERS: u64 = 64;
/// How long a client has for its request: 1 s.
const REQUEST_NS: u64 = 1_000_000_000;
/// Between two looks at whether an answer was read: of one that was sent just now, and of one that is older than a second.
const LOOK: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_millis(500);
const YOUNG_NS: u64 = 1_000_000_000;
/// How long nobody is let in after the kernel had no descriptor or memory for it: who waits would make each turn end at once.
const DEAF_NS: u64 = 50_000_000;

/// Answers who wants to join guarded topics: see `docs/guarded.md`, and `shmbus serve`.
pub struct Broker {
    listener: OwnedFd,
    served: Vec<Served>,
    policy: Policy,
    /// Connections that all users of one rule may have.
    of_rule: usize,
    connections: Vec<Connection>,
    /// Until when nobody is let in.
    deaf_until_ns: u64,
}

struct Connection {
    socket: OwnedFd,
    peer: Peer,
    /// The first rule that is about the peer.
    rule: usize,
    stage: Stage,
}

/// How far a connection is.
#[derive(Clone, Copy)]
enum Stage {
    /// The request must be there until then.
    Asks { deadline_ns: u64 },
    /// It was answered, and the client has not read it yet. What was sent cannot be taken back: it is in the client's socket until it is read or closed
    /// there, also if the client has shut the connection down, and counts against this process so long.
    Answered { since_ns: u64, is_shut: bool },
}

impl Stage {
    /// When it is to be looked at again, if nothing comes before.
    fn due(self, now_ns: u64) -> Duration {
        match self {
            Stage::Asks { deadline_ns } => Duration::from_nanos(deadline_ns.saturating_sub(now_ns)),
            Stage::Answered { since_ns, .. } if now_ns < since_ns + YOUNG_NS => LOOK,
            Stage::Answered { .. } => LATER,
        }
    }

    /// Whether the kernel tells when something happens, and whether that may be a request.
    fn polled(self) -> Option<bool> {
        match self {
            Stage::Asks { .. } => Some(true),
            Stage::Answered { is_shut: false, .. } => Some(false),
            Stage::Answered { is_shut: true, .. } => None, // it would be ready always
        }
    }
}

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
    /// A topic cannot be mapped, or this process may not have enough descriptors open: [`OpenError::Descriptors`].
    pub fn new(
        listener: OwnedFd,
        topics: Vec<GuardedTopic>,
        policy: Policy,
    ) -> Result<Broker, OpenError> {
        let of_rule = connections_of_rule(&policy, topics.iter().map(GuardedTopic::open).sum())?;
        let served = topics.into_iter().map(Served::new).collect::<Result<_, OpenError>>()?;
        let (connections, deaf_until_ns) = (Vec::new(), 0);
        Ok(Broker { listener, served, policy, of_rule, connections, deaf_until_ns })
    }

    /// Decides by another policy from now on. Who has joined stays; a page that is beyond what a user may have now is given to it no more.
    ///
    /// # Errors
    /// This process may not have enough descriptors open for so many rules; the policy stays as it was.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), OpenError> {
        let topics = self.served.iter().map(|served| served.topic.open()).sum();
        self.of_rule = connections_of_rule(&policy, topics)?;
        self.policy = policy;
        // Nobody whom no rule is about any more has a connection.
        self.connections.retain_mut(|client| match self.policy.first_about(&client.peer) {
            Some(rule) => {
                client.rule = rule;
                true
            }
            None => false,
        });
        Ok(())
    }

    /// How many descriptors a process may need to have open that is a broker with a policy of so many rules, and `topics` of them for topics
    /// ([`GuardedTopic::descriptors`]): at least, and for as many connections as there ever are.
    pub fn descriptors(topics: u64, rules: usize) -> RangeInclusive<u64> {
        let with = |connections: usize| {
            let connections = (connections as u64).saturating_mul(rules.max(1) as u64);
            topics + OF_PUBLISHER + OF_OTHERS + OF_CONNECTION * connections
        };
        with(CONNECTIONS_OF_ONE)..=with(CONNECTIONS_OF_RULE)
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
        let due = self.connections.iter().map(|client| client.stage.due(now_ns));
        let deaf_ns = self.deaf_until_ns.saturating_sub(now_ns);
        let due = due.chain((deaf_ns > 0).then_some(Duration::from_nanos(deaf_ns)));
        let timeout = due.min().map_or(timeout, |due| due.min(timeout));
        // Those that are not polled are behind the others.
        self.connections.sort_by_key(|client| client.stage.polled().is_none());
        let mut polled = vec![(self.listener.as_fd(), deaf_ns == 0)];
        polled.extend(self.connections.iter().filter_map(|client| {
            client.stage.polled().map(|reads| (client.socket.as_fd(), reads))
        }));
        let ready = unix::wait(&polled, timeout)?;
        let now_ns = clock::monotonic_ns();
        for client in (0..self.connections.len()).rev() {
            let ready = ready.get(client + 1).copied().unwrap_or(Readiness::Nothing);
            if !self.goes_on(client, ready, now_ns) {
                self.connections.swap_remove(client);
            }
        }
        if ready[0] != Readiness::Nothing {
            self.accept(now_ns);
        }
        Ok(())
    }

    /// Lets in all who wait, as far as there is room; the others are told to come again.
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
            let (mut of_one, mut of_rule) = (0, 0);
            let refusal = match self.policy.first_about(&peer) {
                None => Status::Refused,
                Some(rule) => {
                    for client in &self.connections {
                        of_one += usize::from(client.peer.uid == peer.uid);
                        of_rule += usize::from(client.rule == rule);
                    }
                    if of_one < CONNECTIONS_OF_ONE && of_rule < self.of_rule {
                        let stage = Stage::Asks { deadline_ns: now_ns + REQUEST_NS };
                        self.connections.push(Connection { socket, peer, rule, stage });
                        continue;
                    }
                    Status::Busy
                }
            };
            let _ = unix::send(socket.as_fd(), &Answer::of(refusal).bytes(), &[]);
        }
    }

    /// Whether a connection stays.
    fn goes_on(&mut self, client: usize, ready: Readiness, now_ns: u64) -> bool {
        let Connection { socket, stage, .. } = &mut self.connections[client];
        match (ready, &mut *stage) {
            (Readiness::Readable, Stage::Asks { .. }) => {}
            (Readiness::Closed, Stage::Asks { .. }) => return false,
            (Readiness::Nothing, Stage::Asks { deadline_ns }) => return now_ns < *deadline_ns,
            (ready, Stage::Answered { is_shut, .. }) => {
                // Closed by its last holder; or shut down by one that keeps it, and in it what it was sent. One that was read is closed at once.
                *is_shut |= ready == Readiness::Closed;
                return unix::is_unread(socket.as_fd()).unwrap_or(false);
            }
        }
        let mut bytes = [0; REQUEST_LEN + 1]; // a longer one shows
        let len = match unix::receive(socket.as_fd(), &mut bytes) {
            Ok(0) | Err(_) => return false,
            Ok(len) => len,
        };
        *stage = Stage::Answered { since_ns: now_ns, is_shut: false };
        let Connection { socket, peer, .. } = &self.connections[client];
        let request = bytes.get(..len).ok_or(Status::Malformed).and_then(Request::parse);
        let granted = request.map_err(Refusal::from).and_then(|request| self.grant(peer, &request));
        let (answer, fds) = granted.unwrap_or_else(|refusal| (refusal.into(), Vec::new()));
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let sent = unix::send(socket.as_fd(), &answer.bytes(), &fds);
        crash::point("broker.answered");
        sent.is_ok() && answer.status == Status::Done
    }

    fn grant(&self, peer: &Peer, request: &Request) -> Result<Granted, Refusal> {
        let decision = self.policy.decide(peer, &request.name).ok_or(Status::Refused)?;
        let rule = decision.rule;
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
                let entry = served.entry_for(peer.uid, decision)?;
                served.subscribe(entry, rule, reliable, patience_ns)
            }
            Operation::Publish => served.publish(),
        }
    }
}

/// How many connections all users of one rule may have: as many as there are descriptors for, and for one user at least.
fn connections_of_rule(policy: &Policy, topics: u64) -> Result<usize, OpenError> {
    let (limit, _) = process::descriptor_limits();
    let rules = policy.rules.len();
    // What is open already and is no topic is more than was reckoned with, perhaps.
    let others = process::descriptors_open().unwrap_or(0).saturating_sub(topics);
    let needed = Broker::descriptors(topics + others, rules);
    let Some(spare) = limit.checked_sub(*needed.start()) else {
        return Err(OpenError::Descriptors { needed: *needed.start(), limit });
    };
    let more = spare / OF_CONNECTION / rules.max(1) as u64;
    Ok(CONNECTIONS_OF_ONE.saturating_add(more as usize).min(CONNECTIONS_OF_RULE))
}
