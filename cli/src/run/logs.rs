//! What processes print, and what the supervisor says, on their way to standard output and standard error.
//!
//! One thread reads from all processes, one writes to each of the two streams, and the supervisor's own thread never does either: it puts its messages into a
//! queue. While a stream is not read by anybody, its queue fills up; then nothing more is read from the processes for it, and they wait, as they
//! would for any pipe. Messages of the supervisor that find no room are counted, and the count is said in their place.

use std::fs::OpenOptions;
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ioctl_fionread};
use shmbus_sys::ready::{self, Doorbell};

use super::config::Log;

/// The longest line that is carried in one piece, in bytes.
const LINE_MAX: usize = 64 << 10;
/// How much of a process is read at once.
const CHUNK: usize = 64 << 10;
/// As much may wait for a stream before its processes are not read any more.
const ROOM: usize = 256 << 10;
/// The same, for what the supervisor says.
const ROOM_FOR_MESSAGES: usize = 512 << 10;

/// Standard output and standard error.
const STREAMS: [Stream; 2] = [Stream::Out, Stream::Err];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// Both streams. Clones are the same one.
#[derive(Clone)]
pub(super) struct Output(Arc<Shared>);

struct Shared {
    width: usize,
    queues: [Queue; 2],
    incoming: Mutex<Incoming>,
    /// For the reader: there is a new process, the end, or room.
    bell: Doorbell,
    /// Rung when everything was written, at the end.
    done: Doorbell,
}

#[derive(Default)]
struct Incoming {
    sources: Vec<Source>,
    /// No more will come.
    is_ending: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Bytes that the writer has taken and not written yet.
    under_way: usize,
    /// Messages for which there was no room since the last one for which there was.
    left_out: u64,
    is_ending: bool,
    has_ended: bool,
}

impl Waiting {
    fn len(&self) -> usize {
        self.bytes.len() + self.under_way
    }

    /// Says how many messages are missing here.
    fn confess(&mut self) {
        if self.left_out > 0 {
            let count = mem::take(&mut self.left_out);
            let line = format!("shmbus: {count} messages are left out here: nobody read them\n");
            self.bytes.extend_from_slice(line.as_bytes());
        }
    }
}

/// A stream of a process.
struct Source {
    fd: Arc<OwnedFd>,
    prefix: Vec<u8>,
    /// The line so far.
    line: Vec<u8>,
    stream: Stream,
    /// At the end: how much of it is still to be read.
    left: Option<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Output {
    /// Starts the threads. For names of at most `width` characters.
    pub(super) fn start(width: usize) -> io::Result<Output> {
        let (bell, done) = (Doorbell::new()?, Doorbell::new()?);
        let (queues, incoming) = (Default::default(), Mutex::default());
        let output = Output(Arc::new(Shared { width, queues, incoming, bell, done }));
        for stream in STREAMS {
            let shared = Arc::clone(&output.0);
            let write = move || shared.write(stream);
            thread::Builder::new().name("log".into()).spawn(write)?;
        }
        let shared = Arc::clone(&output.0);
        thread::Builder::new().name("log".into()).spawn(move || shared.read())?;
        Ok(output)
    }

    /// A diagnostic on standard error, which is never waited for.
    pub(super) fn tell(&self, text: &str) {
        let queue = self.0.queue(Stream::Err);
        let mut waiting = lock(&queue.state);
        if waiting.len() > ROOM_FOR_MESSAGES {
            waiting.left_out += 1;
        } else {
            waiting.confess();
            waiting.bytes.extend_from_slice(format!("shmbus: {text}\n").as_bytes());
        }
        queue.changed.notify_all();
    }

    /// Begins to carry what a process prints that was started, where its streams are pipes.
    pub(super) fn carry(&self, name: &str, child: &mut Child) {
        let prefix = format!("{name:<width$} | ", width = self.0.width).into_bytes();
        let streams = [
            child.stdout.take().map(|pipe| (OwnedFd::from(pipe), Stream::Out)),
            child.stderr.take().map(|pipe| (OwnedFd::from(pipe), Stream::Err)),
        ];
        for (fd, stream) in streams.into_iter().flatten() {
            // The end that is read is this process's alone. It does not fail: it is open.
            let _ = set_blocking(fd.as_fd(), false);
            let (fd, prefix, line) = (Arc::new(fd), prefix.clone(), Vec::new());
            let source = Source { fd, prefix, line, stream, left: None };
            lock(&self.0.incoming).sources.push(source);
        }
        self.0.bell.ring();
    }

    /// All processes have ended: what they have printed until now is the last of it, also where one that has left the tree holds a stream open. The
    /// descriptor is ready when all of it was written.
    pub(super) fn finish(&self) -> BorrowedFd<'_> {
        lock(&self.0.incoming).is_ending = true;
        self.0.bell.ring();
        self.0.done.as_fd()
    }

    /// How many bytes nobody has taken yet, at least.
    pub(super) fn untaken(&self) -> usize {
        let sources = lock(&self.0.incoming).sources.iter().map(Source::pending).sum::<usize>();
        sources
            + STREAMS.iter().map(|stream| lock(&self.0.queue(*stream).state).len()).sum::<usize>()
    }
}

impl Shared {
    fn queue(&self, stream: Stream) -> &Queue {
        &self.queues[stream as usize]
    }

    fn has_room(&self, stream: Stream) -> bool {
        lock(&self.queue(stream).state).len() < ROOM
    }

    /// The reader's thread.
    fn read(&self) {
        let mut buffer = vec![0; CHUNK];
        loop {
            self.bell.clear();
            let (open, mut fds) = {
                let mut incoming = lock(&self.incoming);
                let Incoming { sources, is_ending } = &mut *incoming;
                if *is_ending && sources.is_empty() {
                    break;
                }
                for source in
                    sources.iter_mut().filter(|source| *is_ending && source.left.is_none())
                {
                    source.left = Some(source.unread());
                }
                let with_room = sources.iter().enumerate();
                with_room
                    .filter(|(_, source)| self.has_room(source.stream))
                    .map(|(at, source)| ((at, source.left.is_some()), Arc::clone(&source.fd)))
                    .unzip::<_, _, Vec<_>, Vec<_>>()
            };
            let now = open.iter().any(|(_, is_last)| *is_last).then_some(0);
            let mut polled: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            polled.push(self.bell.as_fd());
            let Ok(ready) = ready::wait(&polled, now) else {
                thread::sleep(Duration::from_millis(10)); // no memory at the moment
                continue;
            };
            fds.clear();
            let mut incoming = lock(&self.incoming); // new sources come behind those that are known
            for ((at, is_last), is_ready) in open.into_iter().zip(ready).rev() {
                if (is_last || is_ready) && !self.read_some(&mut incoming.sources[at], &mut buffer)
                {
                    incoming.sources.swap_remove(at);
                }
            }
        }
        for queue in &self.queues {
            lock(&queue.state).is_ending = true;
            queue.changed.notify_all();
        }
    }

    /// Reads what is there, and passes whole lines on. Whether there is more to come.
    fn read_some(&self, source: &mut Source, buffer: &mut [u8]) -> bool {
        let want = source.left.unwrap_or(buffer.len()).min(buffer.len());
        let count = match want {
            0 => 0,
            want => match rustix::io::read(&source.fd, &mut buffer[..want]) {
                Ok(count) => count,
                Err(Errno::INTR | Errno::AGAIN) if source.left.is_none() => return true,
                Err(_) => 0,
            },
        };
        source.left = source.left.map(|left| left - count);
        let mut text = Vec::new();
        for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            source.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || source.line.len() >= LINE_MAX {
                source.end_line(&mut text);
            }
        }
        if count == 0 && !source.line.is_empty() {
            source.end_line(&mut text);
        }
        if !text.is_empty() {
            let queue = self.queue(source.stream);
            let mut waiting = lock(&queue.state);
            waiting.confess();
            waiting.bytes.append(&mut text);
            queue.changed.notify_all();
        }
        count > 0
    }

    /// The thread of a stream.
    fn write(&self, stream: Stream) {
        let queue = self.queue(stream);
        let mut is_broken = false;
        loop {
            let bytes = {
                let mut waiting = lock(&queue.state);
                while waiting.bytes.is_empty() && waiting.left_out == 0 && !waiting.is_ending {
                    waiting = queue.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                waiting.confess();
                waiting.under_way = waiting.bytes.len();
                mem::take(&mut waiting.bytes)
            };
            if bytes.is_empty() {
                break;
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let count = match is_broken {
                    true => rest.len(), // whoever has read is gone: processes are not held up by that
                    false => match write_some(stream, rest) {
                        Ok(count) => count,
                        Err(_) => {
                            is_broken = true;
                            continue;
                        }
                    },
                };
                rest = &rest[count..];
                lock(&queue.state).under_way = rest.len();
                self.bell.ring();
            }
        }
        lock(&queue.state).has_ended = true;
        if self.queues.iter().all(|queue| lock(&queue.state).has_ended) {
            self.done.ring();
        }
    }
}

impl Source {
    /// Bytes that could be read now.
    fn unread(&self) -> usize {
        ioctl_fionread(&self.fd).unwrap_or(0) as usize
    }

    fn pending(&self) -> usize {
        self.left.unwrap_or_else(|| self.unread()) + self.line.len()
    }

    fn end_line(&mut self, text: &mut Vec<u8>) {
        text.extend_from_slice(&self.prefix);
        text.append(&mut self.line);
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
    }
}

/// Writes to a stream, which may be one that does not block, and waits for it then.
fn write_some(stream: Stream, bytes: &[u8]) -> Result<usize, Errno> {
    let fd = match stream {
        Stream::Out => rustix::stdio::stdout(),
        Stream::Err => rustix::stdio::stderr(),
    };
    loop {
        match rustix::io::write(fd, bytes) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready::wait_for_room(fd, None).map_err(|_| Errno::IO).map(drop)?,
            other => return other,
        }
    }
}

/// Says something on standard error, if it has room at this moment.
pub(super) fn try_say(text: &str) {
    let fd = rustix::stdio::stderr();
    if ready::wait_for_room(fd, Some(0)).unwrap_or(false) {
        let _ = rustix::io::write(fd, format!("shmbus: {text}\n").as_bytes());
    }
}

fn set_blocking(fd: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(fd)?;
    flags.set(OFlags::NONBLOCK, !blocking);
    Ok(fcntl_setfl(fd, flags)?)
}

/// Sets the streams of a process that is to be started.
pub(super) fn set(command: &mut Command, log: &Log) -> io::Result<()> {
    command.stdin(Stdio::null());
    let (out, err) = match log {
        Log::Prefix => (Stdio::piped(), Stdio::piped()),
        Log::Inherit => (Stdio::inherit(), Stdio::inherit()),
        Log::None => (Stdio::null(), Stdio::null()),
        Log::File(path) => {
            let named = |error: io::Error| Named::error("log-file", path, error);
            let file = open_log(path).map_err(named)?;
            (file.try_clone().map_err(named)?.into(), file.into())
        }
    };
    command.stdout(out).stderr(err);
    Ok(())
}

/// Opens a log file without waiting for anybody. A FIFO that nobody reads is opened all the same: what is printed waits in it, and when it is full, so does who prints.
fn open_log(path: &Path) -> io::Result<std::fs::File> {
    const ENXIO: i32 = 6; // on every architecture of Linux: a FIFO that nobody reads
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(ENXIO) => options.read(true).open(path)?,
        other => other?,
    };
    set_blocking(file.as_fd(), true)?;
    Ok(file)
}

/// An error of a path, which says what the path is to be.
#[derive(Debug)]
struct Named {
    what: String,
    source: io::Error,
}

impl Named {
    fn error(what: &str, path: &Path, source: io::Error) -> io::Error {
        let what = format!("{what} {}", path.display());
        io::Error::new(source.kind(), Named { what, source })
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl std::error::Error for Named {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
