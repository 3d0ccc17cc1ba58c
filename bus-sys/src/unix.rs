//! Unix sockets that keep messages apart (`SOCK_SEQPACKET`), pass descriptors, and say who is at the other end. See
//! [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
//!
//! Every descriptor made or received is `O_CLOEXEC`. What a peer sends is bytes and descriptors of its choice; nothing here looks
//! at either.

#![allow(unsafe_code)] // SO_PEERCRED: rustix's process id cannot be 0, a peer's can; SO_PEERGROUPS, SIOCOUTQ: rustix has none

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::clock::to_timespec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};

/// The most descriptors that one message carries here; the kernel's limit is 253.
pub const DESCRIPTORS_MAX: usize = 72;

/// The most supplementary groups that a process has (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Who connected, as the kernel knew it then: ids as this process's user namespace shows them, and the overflow id (65534 unless
/// the machine says otherwise) for those that it does not map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process id in this process's pid namespace, 0 where it has none there. For people.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A listening socket at `path`, which must not exist (`EADDRINUSE`), with exactly the permission bits `mode` (who may connect
/// needs to write it) once this returns, and less before. Accepting from it never blocks.
pub fn listen(path: &Path, mode: u32, backlog: i32) -> io::Result<OwnedFd> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before `listen`, whatever the umask left of the mode.
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Whether `name` below `directory` is a socket of this process's effective user; not one that a symbolic link leads to. `NotFound` if
/// nothing is there.
pub fn is_own_socket_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    Ok(is_socket && stat.st_uid == rustix::process::geteuid().as_raw())
}

/// Removes the name of a socket below `directory`. The caller has seen what it is: [`is_own_socket_at`].
pub fn remove_socket_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::empty())?)
}

/// The next connection, `None` where none waits. Sending to it and receiving from it never blocks.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match retry_on_intr(|| rustix::net::accept_with(listener, flags)) {
        Ok(socket) => Ok(Some(socket)),
        Err(Errno::AGAIN | Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Connects to the socket at `path`. This, and each call on the result, ends after `timeout`: `WouldBlock`. Signals do not end it, and do not
/// prolong it.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket(SocketFlags::CLOEXEC)?;
    sockopt::set_socket_timeout(&socket, RECEIVE, Some(timeout))?;
    let begun = Instant::now();
    let mut left = timeout;
    loop {
        // A connect that waits for room in the queue gives up at a signal, with or without SA_RESTART, and has done nothing then.
        sockopt::set_socket_timeout(&socket, SEND, Some(left))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => left = left_of(timeout, begun)?,
            Err(error) => return Err(error.into()),
        }
    }
    if left != timeout {
        sockopt::set_socket_timeout(&socket, SEND, Some(timeout))?;
    }
    Ok(socket)
}

const RECEIVE: sockopt::Timeout = sockopt::Timeout::Recv;
const SEND: sockopt::Timeout = sockopt::Timeout::Send;

/// What is left of a time; `WouldBlock` where nothing is.
fn left_of(timeout: Duration, begun: Instant) -> Result<Duration, Errno> {
    let left = timeout.saturating_sub(begun.elapsed());
    // As a socket's timeout, less than a microsecond would be none.
    if left < Duration::from_micros(1) { Err(Errno::AGAIN) } else { Ok(left) }
}

/// Sends or receives by `call`, again after each signal, until the socket's timeout has passed: the kernel begins it anew with each call.
fn retry<R>(
    socket: BorrowedFd<'_>,
    side: sockopt::Timeout,
    mut call: impl FnMut() -> Result<R, Errno>,
) -> Result<R, Errno> {
    let events = if side == RECEIVE { PollFlags::IN } else { PollFlags::OUT };
    let begun = Instant::now();
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
        let Some(timeout) = sockopt::socket_timeout(socket, side)? else { continue };
        let left = left_of(timeout, begun)?;
        let left = to_timespec(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        // The next call does not wait then. However this returns: it looks.
        match poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&left)) {
            Ok(0) => return Err(Errno::AGAIN),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Has each later call on `socket` that waits end after `timeout`: `WouldBlock`.
pub fn set_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    for side in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        sockopt::set_socket_timeout(socket, side, Some(timeout))?;
    }
    Ok(())
}

/// Has each later call on the socket return at once if it would wait: `WouldBlock`.
pub fn never_block(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, true)?)
}

/// Two sockets connected to each other.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Who is at the other end: who called [`connect`], or made the [`pair`].
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let bytes = size_of_val(&credentials);
    // SAFETY: `credentials` has as many bytes, of integers.
    unsafe { option_of(socket, libc::SO_PEERCRED, (&raw mut credentials).cast(), bytes) }?;
    let libc::ucred { pid, uid, gid } = credentials;
    Ok(Peer { pid: pid.unsigned_abs(), uid, gid, groups: groups_of_peer(socket)? })
}

fn groups_of_peer(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let bytes = size_of_val(groups.as_slice());
        // SAFETY: `groups` has as many bytes, of integers.
        let got =
            unsafe { option_of(socket, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), bytes) };
        match got {
            Ok(len) => {
                groups.truncate(len / size_of::<u32>());
                return Ok(groups);
            }
            Err(error)
                if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX =>
            {
                groups.resize(GROUPS_MAX, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// An option of the socket, of at most `bytes`; how many there are.
///
/// # Safety
/// `value` may be written for `bytes`.
unsafe fn option_of(
    socket: BorrowedFd<'_>,
    option: i32,
    value: *mut libc::c_void,
    bytes: usize,
) -> io::Result<usize> {
    let mut len = bytes as libc::socklen_t;
    // SAFETY: an open descriptor; `value` has the `len` bytes that it says, as the caller promises.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, &raw mut len)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(len as usize)
}

/// Sends one message and descriptors with it, all or nothing. Never raises `SIGPIPE`. `WouldBlock` where a socket that never blocks
/// has no room; `InvalidInput` for more than [`DESCRIPTORS_MAX`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bytes = [IoSlice::new(bytes)];
    let sent = || rustix::net::sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL);
    retry(socket, SEND, sent)?;
    Ok(())
}

/// Receives one message; its length, 0 when the peer has closed. What does not fit into `buffer` is lost, and so is every
/// descriptor that came with it: none is ever installed here. `WouldBlock` as for [`send`].
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let received = || rustix::net::recv(socket, &mut *buffer, RecvFlags::TRUNC);
    let (_, len) = retry(socket, RECEIVE, received)?;
    Ok(len)
}

/// Receives one message and the descriptors that came with it. `InvalidData` if there were more than [`DESCRIPTORS_MAX`], `EMFILE` if this
/// process may not have so many open.
pub fn receive_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(buffer)];
    let message = retry(socket, RECEIVE, || {
        rustix::net::recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for received in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = received {
            fds.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(match fds.len() {
            DESCRIPTORS_MAX.. => io::ErrorKind::InvalidData.into(),
            _ => io::Error::from_raw_os_error(libc::EMFILE),
        });
    }
    Ok((message.bytes, fds))
}

/// Whether something that was sent through `socket` has not been received yet: it is there, with its descriptors, until the other end receives it or
/// is closed everywhere. See `SIOCOUTQ` in [unix(7)](https://man7.org/linux/man-pages/man7/unix.7.html).
pub fn is_unread(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: an open descriptor, and the integer that the call writes.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes > 0)
}

/// What [`wait`] has found about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing yet.
    Nothing,
    /// A message, or a connection, is there; the other end may have been closed behind it.
    Readable,
    /// The other end was closed.
    Closed,
}

/// Waits until something is there to be read from one of `sockets`, where `true` stands beside it, or one was closed at the other end, or `timeout` has
/// passed, or a signal has come. See [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html).
pub fn wait(sockets: &[(BorrowedFd<'_>, bool)], timeout: Duration) -> io::Result<Vec<Readiness>> {
    let events = |reads: &bool| if *reads { PollFlags::IN } else { PollFlags::empty() };
    let polled = sockets.iter().map(|(socket, reads)| PollFd::new(socket, events(reads)));
    let mut polled: Vec<_> = polled.collect();
    let timeout = to_timespec(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let readiness = |polled: &PollFd<'_>| match polled.revents() {
        events if events.contains(PollFlags::IN) => Readiness::Readable,
        events if events.is_empty() => Readiness::Nothing,
        _ => Readiness::Closed,
    };
    Ok(polled.iter().map(readiness).collect())
}

/// The user and group id that stand for all those which this process's user namespace does not map.
pub fn overflow_ids() -> (u32, u32) {
    let read = |name| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        text.trim().parse().ok()
    };
    (read("overflowuid").unwrap_or(65_534), read("overflowgid").unwrap_or(65_534))
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}
