//! Joining a guarded topic: asks the broker, checks and maps what it hands out. A connection for each request; nothing of it is kept.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shmbus_sys::lease::Lease;
use shmbus_sys::shm::Access;
use shmbus_sys::{clock, ready, unix};

use crate::control::files;
use crate::control::message::{ANSWER_LEN, Answer, Operation, Request, Status};
use crate::directory::{self, TopicName};
use crate::error::{AttachError, OpenError};
use crate::limits::TooManyHandles;
use crate::participant::{Attachment, Participant, refused};
use crate::recovery::Dead;
use crate::region::EntryIndex;
use crate::subscriber::Delivery;
use crate::wait::deadline_ns;

/// How long a broker may take, with all that it is asked again because it is busy.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long one who was told that the broker is busy waits before it asks again: at first, and at most.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Looks at topic `name` of the broker at `socket`.
pub(crate) fn describe(socket: &Path, name: &str) -> Result<Attachment, OpenError> {
    TopicName::new(name)?;
    let (_, leases) = match ask(socket, name, Operation::Describe) {
        Err(AttachError::Open(error)) => return Err(error),
        Err(_) => return Err(protocol(name, socket)),
        Ok(answered) => answered,
    };
    let [data, ctl] = first(name, &leases)?;
    let found = files::map(name, data, Access::ReadOnly, ctl, Access::ReadOnly, &[], 0)?;
    Ok(Attachment::guarded(name, socket, found, Vec::new(), None))
}

/// Becomes a subscriber of the topic that was looked at; its entry is there, its lease taken, and it does not count yet.
pub(crate) fn subscribe(
    attachment: &Attachment,
    socket: &Path,
    delivery: Delivery,
) -> Result<Participant, AttachError> {
    let operation = match delivery {
        Delivery::Lossy => Operation::Subscribe { reliable: false, patience_ns: 0 },
        Delivery::Reliable => Operation::Subscribe { reliable: true, patience_ns: 0 },
        Delivery::ReliableFor(patience) => Operation::Subscribe {
            reliable: true,
            patience_ns: u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX).max(1),
        },
    };
    let name = &attachment.name;
    let (answer, mut leases) = ask(socket, name, operation)?;
    if leases.len() != 3 {
        return Err(protocol(name, socket).into());
    }
    let [data, ctl, page] = first(name, &leases)?;
    let found =
        files::map(name, data, Access::ReadOnly, ctl, Access::ReadOnly, &[page], answer.entry)?;
    let index = found.0.subscribers().next().ok_or_else(|| protocol(name, socket))?;
    let entry = leases.pop().map(|lease| (index, lease));
    let joined = join(attachment, socket, found, Vec::new(), entry)?;
    Ok(joined.seat(index, answer.generation))
}

/// Becomes the publisher.
pub(crate) fn publish(
    attachment: &Attachment,
    socket: &Path,
) -> Result<(Participant, Option<Dead>), AttachError> {
    let name = &attachment.name;
    let (_, mut leases) = ask(socket, name, Operation::Publish)?;
    let [data, ctl, _] = first(name, &leases)?;
    let pages: Vec<_> = leases[3..].iter().map(AsFd::as_fd).collect();
    let found = files::map(name, data, Access::ReadWrite, ctl, Access::ReadWrite, &pages, 0)?;
    let index = found.0.publishers().next().ok_or_else(|| protocol(name, socket))?;
    if found.0.entries().count() != found.0.geometry().participants() as usize {
        return Err(protocol(name, socket).into());
    }
    let pages = leases.split_off(3).into_iter().map(Some).collect();
    let entry = leases.pop().map(|lease| (index, lease));
    Ok(join(attachment, socket, found, pages, entry)?.seat_publisher(index))
}

fn join(
    attachment: &Attachment,
    socket: &Path,
    found: (crate::region::Region, crate::header::Description),
    pages: Vec<Option<Lease>>,
    entry: Option<(EntryIndex, Lease)>,
) -> Result<Arc<Attachment>, OpenError> {
    let name = &attachment.name;
    if found.1.instance != attachment.description.instance {
        return Err(OpenError::Retired { name: name.clone() }); // another topic of that name
    }
    Ok(Arc::new(Attachment::guarded(name, socket, found, pages, entry)))
}

/// The first of what came with an answer, which has as many at least.
fn first<'a, const N: usize>(
    name: &str,
    leases: &'a [Lease],
) -> Result<[BorrowedFd<'a>; N], OpenError> {
    let fds: Vec<_> = leases.iter().take(N).map(AsFd::as_fd).collect();
    fds.try_into().map_err(|_| protocol(name, Path::new("")))
}

fn protocol(name: &str, socket: &Path) -> OpenError {
    no_answer(name, socket, io::ErrorKind::InvalidData.into())
}

/// The answer to a request, with as many descriptors as it says, if it says that it was done. A broker that is busy is asked again.
fn ask(
    socket: &Path,
    name: &str,
    operation: Operation,
) -> Result<(Answer, Vec<Lease>), AttachError> {
    let request = Request { operation, name: name.to_owned() }.bytes();
    let end_ns = deadline_ns(TIMEOUT);
    let mut pause = PAUSE_MIN;
    let (answer, leases) = loop {
        let left = Duration::from_nanos(end_ns.saturating_sub(clock::monotonic_ns()));
        let asked = match left {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "it is busy")),
            _ => ask_once(socket, &request, left),
        };
        match asked.map_err(|source| no_answer(name, socket, source))? {
            (Answer { status: Status::Busy, .. }, _) => {}
            answered => break answered,
        }
        // Not all of those who were told so at the same time again at the same time.
        let part = 50 + (directory::random() % 51) as u32;
        std::thread::sleep(pause * part / 100);
        pause = (pause * 2).min(PAUSE_MAX);
    };
    let protocol = || protocol(name, socket).into();
    let name = || name.to_owned();
    match answer.status {
        Status::Done if answer.descriptors as usize == leases.len() => Ok((answer, leases)),
        Status::NotFound => Err(OpenError::NotFound { name: name() }.into()),
        Status::Refused => Err(OpenError::Refused { name: name() }.into()),
        Status::Full => Err(AttachError::SubscribersFull { max: answer.detail as u32 }),
        Status::PublisherAlive => Err(AttachError::PublisherAlive { pid: answer.detail as u32 }),
        Status::Done | Status::Malformed | Status::Version | Status::Busy => Err(protocol()),
        Status::Failed => {
            let source = io::Error::other("the broker could not do it");
            Err(refused(&name(), "get it from its broker", source).into())
        }
    }
}

/// One connection, request and answer, within `timeout`.
fn ask_once(socket: &Path, request: &[u8], timeout: Duration) -> io::Result<(Answer, Vec<Lease>)> {
    let connection = unix::connect(socket, timeout)?;
    // A broker that has refused already has closed, and its answer is there all the same.
    let sent = unix::send(connection.as_fd(), request, &[]);
    let ready = ready::wait(&[connection.as_fd()], Some(deadline_ns(timeout)))?;
    if !ready[0] {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut bytes = [0; ANSWER_LEN];
    let mut receive = || Lease::receive(connection.as_fd(), &mut bytes);
    let received = match receive() {
        // Said once, where it has closed without reading the request; what it said before comes then.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => receive(),
        other => other,
    };
    let (len, leases) = received?;
    if len == 0 {
        return Err(sent.err().unwrap_or(io::ErrorKind::ConnectionReset.into()));
    }
    let answer = Answer::parse(&bytes[..len]).ok_or(io::ErrorKind::InvalidData)?;
    Ok((answer, leases))
}

fn no_answer(name: &str, socket: &Path, source: io::Error) -> OpenError {
    match TooManyHandles::of(&source) {
        Some(error) => error.into(),
        None => OpenError::Broker { name: name.to_owned(), socket: socket.to_path_buf(), source },
    }
}
