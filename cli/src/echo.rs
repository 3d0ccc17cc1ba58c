//! `shmbus echo`: the messages of a topic become output.
//!
//! Output is buffered while messages are there, and written when there are none: nothing waits in a buffer while the program waits.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::RangedU64ValueParser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shmbus::{AttachError, Delivery, Directory, OpenError, ReceiveError, Start, Subscriber, Topic};

use crate::interrupt::Interrupt;
use crate::text;

/// How long one wait is at most, so that an interrupt or a closed output is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often to look for a topic that is missing.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes written at once.
const WRITE_LEN: usize = 256 * 1024;

const EXAMPLES: &str = "\
Examples:
  shmbus echo stats/vm
  shmbus echo stats/vm --from oldest --drain | tail -1
  shmbus echo image --reliable --wait --raw > disk.img

What was missed is told on standard error, exactly, where it was missed and in total at the end.";

/// Print the messages of a topic as they are published
///
/// Without --reliable the publisher never waits for this reader: it misses messages if it is too slow, and says how many. It ends
/// with status 0 when the topic is removed and everything in it is printed (`shmbus pub --remove`, `shmbus rm --force`), after
/// --count messages, or when its output is closed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the topic, such as stats/vm
    topic: String,
    /// Nothing between messages [default: a newline after each]
    #[arg(long, conflicts_with = "frames")]
    raw: bool,
    /// Each message as a frame: its length (4 bytes, little-endian), then its bytes
    #[arg(long)]
    frames: bool,
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    count: Option<u64>,
    /// Begin with the oldest message there is, N messages back (N-back), or with the next one published (newest)
    #[arg(long, value_name = "WHERE", default_value = "newest", value_parser = start)]
    from: Start,
    /// Miss nothing: the publisher waits when this reader is a whole topic behind
    #[arg(long)]
    reliable: bool,
    /// If there is no such topic, wait for it
    #[arg(long)]
    wait: bool,
    /// End as soon as nothing more is there
    #[arg(long)]
    drain: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut subscriber = subscribe(directory, arguments, &interrupt)?;
    let mut output = Output::new(arguments)?;
    let mut received = 0;
    let done = copy(&mut subscriber, &mut output, arguments, &interrupt, &mut received);
    let is_closed = matches!(&done, Err(error) if crate::is_broken_pipe(error));
    // What has been received is printed, whatever ended it.
    let done = if is_closed { done } else { done.and(output.flush()) };
    if !arguments.quiet && !is_closed {
        text::tell(&format!("received {received}, missed {}", subscriber.missed()));
    }
    done
}

/// Opens the topic and subscribes, as soon as it is there.
fn subscribe(
    directory: &Directory,
    arguments: &Arguments,
    interrupt: &Interrupt,
) -> Result<Subscriber<[u8]>> {
    let topic = &arguments.topic;
    let delivery = if arguments.reliable { Delivery::Reliable } else { Delivery::Lossy };
    loop {
        match Topic::open_in(directory, topic) {
            Ok(topic) => match topic.subscriber_from(delivery, arguments.from) {
                Err(AttachError::Retired) if arguments.wait => {}
                other => return other.with_context(|| format!("topic {}", arguments.topic)),
            },
            Err(OpenError::NotFound { .. } | OpenError::Retired { .. }) if arguments.wait => {}
            Err(error @ OpenError::NotFound { .. }) => {
                return Err(anyhow::anyhow!("{error} (--wait waits for it)"));
            }
            Err(error) => return Err(error.into()),
        }
        interrupt.check()?;
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Prints messages until something ends it.
fn copy(
    subscriber: &mut Subscriber<[u8]>,
    output: &mut Output,
    arguments: &Arguments,
    interrupt: &Interrupt,
    received: &mut u64,
) -> Result<()> {
    while arguments.count.is_none_or(|count| *received < count) {
        interrupt.check()?;
        let sample = match subscriber.try_receive() {
            Ok(Some(sample)) => sample,
            Ok(None) if arguments.drain => match subscriber.lag() {
                0 => break,
                _ => continue,
            },
            Ok(None) => {
                output.flush()?;
                match subscriber.receive_timeout(WAIT_MAX) {
                    Ok(Some(sample)) => sample,
                    Ok(None) => {
                        output.check()?;
                        continue;
                    }
                    Err(ReceiveError::Retired) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(ReceiveError::Retired) => break,
            Err(error) => return Err(error.into()),
        };
        let missed = sample.missed_before();
        if missed > 0 && !arguments.quiet {
            text::tell(&format!("missed {missed} before sequence {}", sample.sequence()));
        }
        output.write(&sample)?;
        *received += 1;
    }
    Ok(())
}

/// How a message is printed.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Raw,
    Frames,
}

/// Standard output.
struct Output {
    form: Form,
    buffer: BufWriter<File>,
}

impl Output {
    fn new(arguments: &Arguments) -> Result<Output> {
        let form = match (arguments.raw, arguments.frames) {
            (true, _) => Form::Raw,
            (_, true) => Form::Frames,
            _ => Form::Text,
        };
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let file: File = stdout.context("cannot use standard output")?.into();
        Ok(Output { form, buffer: BufWriter::with_capacity(WRITE_LEN, file) })
    }

    fn write(&mut self, message: &[u8]) -> Result<()> {
        let buffer = &mut self.buffer;
        let written = match self.form {
            Form::Raw => buffer.write_all(message),
            Form::Text => buffer.write_all(message).and_then(|()| buffer.write_all(b"\n")),
            Form::Frames => {
                let len = message.len() as u32; // a topic's messages have up to 2^30 bytes
                buffer.write_all(&len.to_le_bytes()).and_then(|()| buffer.write_all(message))
            }
        };
        written.context("cannot write")
    }

    fn flush(&mut self) -> Result<()> {
        self.buffer.flush().context("cannot write")
    }

    /// # Errors
    /// Nobody reads any more: without this, only the next message would show it.
    fn check(&self) -> Result<()> {
        let mut output = [PollFd::new(self.buffer.get_ref(), PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut output, Some(&at_once)) {
            Ok(_) if output[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                Err(io::Error::from(io::ErrorKind::BrokenPipe).into())
            }
            _ => Ok(()),
        }
    }
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "newest" => Ok(Start::Newest),
        "oldest" => Ok(Start::Oldest),
        _ => match text.strip_suffix("-back").map(str::parse) {
            Some(Ok(count)) => Ok(Start::Back(count)),
            _ => Err("newest, oldest, or a number as in 10-back is needed".into()),
        },
    }
}
