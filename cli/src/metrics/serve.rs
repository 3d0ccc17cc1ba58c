//! As much of HTTP/1.1 as a scrape needs: one request a connection, a bounded head, a bounded time.
//!
//! Each connection has a thread, and there is room for so many that some which say or read nothing are in nobody's way until their
//! time is up.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::interrupt::Interrupt;

/// Connections at the same time; those beyond are closed.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of the head of a request.
const HEAD_MAX: usize = 8 << 10;
/// Within this a request must be there; so long may each write of the answer wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one wait is at most; an interrupt ends it earlier.
const WAIT_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a request is answered.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

/// Answers requests, of which `answer` gets method and path, until it is interrupted.
pub(super) fn serve(
    listener: &TcpListener,
    interrupt: &Interrupt,
    answer: impl Fn(&str, &str) -> Answer + Clone + Send + 'static,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        interrupt.check()?;
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&WAIT_MAX)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // An error is about the one who came, who is gone, or want of descriptors.
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let (connections, answer) = (Arc::clone(&connections), answer.clone());
        if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        thread::spawn(move || {
            let _ = converse(stream, &answer); // who asked may be gone
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn converse(mut stream: TcpStream, answer: &impl Fn(&str, &str) -> Answer) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let Answer { status, content_type, body } = match (method, target, version) {
        (Some(method), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
            answer(method, target.split('?').next().unwrap_or_default())
        }
        _ => Answer {
            status: "400 Bad Request",
            content_type: "text/plain",
            body: "HTTP/1.1 is wanted\n".into(),
        },
    };
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if method != Some("HEAD") {
        text += &body;
    }
    stream.write_all(text.as_bytes())
}

/// Everything up to the empty line.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() >= HEAD_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}
