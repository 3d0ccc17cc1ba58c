//! `shmbus pub`: input becomes messages of a topic.
//!
//! Open or create the topic, become its publisher, wait for subscribers if asked to, then message after message; and wherever that
//! ends, the topic is removed if asked to. Every wait is short enough to notice an interrupt.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::builder::RangedU64ValueParser;
use shmbus::{
    CreateError, Directory, OpenError, ParticipantKind, PublishError, Publisher, Topic, TopicInfo,
    TopicOptions, TryPublishError,
};

use crate::input::{self, Framing, Input, Piece, TooLong};
use crate::interrupt::Interrupt;
use crate::text;

/// How long one wait is at most, so that an interrupt is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often to look for subscribers.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// After this wait for a reliable subscriber, people are told what the publisher waits for.
const NOTICE_AFTER: Duration = Duration::from_secs(1);
/// What a new topic occupies at most, unless its depth is given or would be less than [`DEPTH_MIN`].
const MEMORY_MAX: u64 = 16 << 20;
const DEPTH_MIN: u64 = 8;
/// Longest message in bytes that a topic can have.
const LEN_MAX: u64 = 1 << 30;

const EXAMPLES: &str = "\
Examples:
  vmstat 1 | shmbus pub stats/vm
  shmbus pub words /usr/share/dict/words --rate 100
  shmbus pub image disk.img --chunk 65536 --wait-subscribers 3 --remove";

/// Publish lines, frames or pieces of a file or of standard input
///
/// Each line is a message, without its newline, and is published as soon as it is complete. The topic is created if it is missing, and
/// stays with its last messages when the input ends, until `shmbus rm`; with --remove it goes then, and subscribers end when they
/// have received everything. The publisher waits for reliable subscribers that are a whole topic behind, and for no others.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the topic, such as stats/vm
    topic: String,
    /// What to publish; standard input if it is missing or -
    file: Option<PathBuf>,
    /// The input is frames: a length (4 bytes, little-endian), then so many bytes
    #[arg(long, conflicts_with = "chunk")]
    frames: bool,
    /// Cut the input into messages of N bytes; the last may be shorter
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..=LEN_MAX))]
    chunk: Option<u32>,
    /// Publish N messages per second, on a schedule from the first one: what was late is caught up
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<f64>,
    /// Begin when N subscribers are there
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    wait_subscribers: usize,
    /// Remove the topic at the end
    #[arg(long)]
    remove: bool,
    /// Leave out what is longer than the topic takes, and count it, instead of failing
    #[arg(long)]
    skip_long: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Of a new topic: messages that it retains, a power of two [default: 1024, or what 16 MiB hold]
    #[arg(long, value_name = "N", help_heading = "A new topic")]
    depth: Option<u64>,
    /// Of a new topic: largest message in bytes [default: 4096, or as --chunk]
    #[arg(long, value_name = "BYTES", help_heading = "A new topic")]
    max_len: Option<u32>,
    /// Of a new topic: how many may subscribe at the same time [default: 16]
    #[arg(long, value_name = "N", help_heading = "A new topic")]
    subscribers_max: Option<u32>,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    // Before signals are caught: to open a pipe is to wait for its other end.
    let (file, file_name) = input::open(arguments.file.as_deref())?;
    let interrupt = Interrupt::install()?;
    let topic = open_or_create(directory, arguments)?;
    let publisher = topic.publisher().with_context(|| format!("topic {}", arguments.topic))?;

    let len_max = topic.info().payload_size as usize;
    let input = Input::new(file, file_name, arguments.framing(), len_max, interrupt.clone());
    let mut stream = Stream {
        arguments,
        interrupt,
        topic,
        publisher,
        len_max,
        first: None,
        messages: 0,
        bytes: 0,
        skipped: 0,
    };
    let done = stream.wait_for_subscribers().and_then(|()| stream.publish(input));
    if !arguments.quiet {
        stream.summarise();
    }
    let Stream { topic, publisher, .. } = stream;
    drop(publisher);
    // Not if it was removed already: the topic of that name is another one now.
    if arguments.remove && !topic.info().retired {
        directory.remove(&arguments.topic, true)?;
    }
    done
}

impl Arguments {
    fn framing(&self) -> Framing {
        match self.chunk {
            Some(len) => Framing::Chunks(len as usize),
            None if self.frames => Framing::Frames,
            None => Framing::Lines,
        }
    }

    /// Of a new topic.
    fn options(&self) -> Result<TopicOptions> {
        let mut options = TopicOptions::default();
        options.max_len = self.max_len.or(self.chunk).unwrap_or(options.max_len);
        options.subscribers_max = self.subscribers_max.unwrap_or(options.subscribers_max);
        match self.depth {
            Some(depth) => options.depth = depth,
            None => {
                while options.depth > DEPTH_MIN && options.memory::<[u8]>()?.total() > MEMORY_MAX {
                    options.depth /= 2;
                }
            }
        }
        Ok(options)
    }

    /// A topic that is there must be what was asked for, as far as something was.
    fn check(&self, info: &TopicInfo) -> Result<()> {
        let topic = &self.topic;
        let asked = [
            ("depth", self.depth, info.depth),
            ("max-len", self.max_len.map(u64::from), info.payload_size.into()),
            ("subscribers-max", self.subscribers_max.map(u64::from), info.subscribers_max.into()),
        ];
        for (option, asked, found) in asked {
            if let Some(asked) = asked
                && asked != found
            {
                bail!("topic {topic} exists, with --{option} {found}, not {asked}");
            }
        }
        match self.chunk {
            Some(len) if len > info.payload_size => {
                bail!("topic {topic} exists, and takes {} bytes, not {len}", info.payload_size)
            }
            _ => Ok(()),
        }
    }
}

fn open_or_create(directory: &Directory, arguments: &Arguments) -> Result<Topic<[u8]>> {
    loop {
        match Topic::open_in(directory, &arguments.topic) {
            Ok(topic) => {
                arguments.check(&topic.info())?;
                return Ok(topic);
            }
            Err(OpenError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match Topic::create_in(directory, &arguments.topic, &arguments.options()?) {
            Err(CreateError::Exists { .. }) => {} // somebody else was faster
            created => return Ok(created?),
        }
    }
}

/// What is being published, and how much of it there was.
struct Stream<'a> {
    arguments: &'a Arguments,
    interrupt: Interrupt,
    topic: Topic<[u8]>,
    publisher: Publisher<[u8]>,
    len_max: usize,
    /// When the first message was due.
    first: Option<Instant>,
    messages: u64,
    bytes: u64,
    skipped: u64,
}

impl Stream<'_> {
    fn wait_for_subscribers(&self) -> Result<()> {
        let wanted = self.arguments.wait_subscribers;
        let max = self.topic.info().subscribers_max;
        if wanted > max as usize {
            bail!("topic {} never has {wanted} subscribers: at most {max}", self.arguments.topic);
        }
        loop {
            let info = self.topic.info();
            if text::subscribers(&info) >= wanted {
                return Ok(());
            }
            if info.retired {
                return Err(PublishError::Retired.into());
            }
            self.interrupt.check()?;
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn publish(&mut self, mut input: Input<File>) -> Result<()> {
        while let Some(piece) = input.next()? {
            match piece {
                Piece::Message(message) => {
                    self.wait_until_due()?;
                    self.publish_one(message)?;
                }
                Piece::TooLong(_) if self.arguments.skip_long => self.skipped += 1,
                Piece::TooLong(piece) => return self.too_long(piece),
            }
        }
        Ok(())
    }

    /// Waits for the next message's place in the schedule.
    fn wait_until_due(&mut self) -> Result<()> {
        let first = *self.first.get_or_insert_with(Instant::now);
        let Some(rate) = self.arguments.rate else { return Ok(()) };
        let since_first = Duration::try_from_secs_f64(self.messages as f64 / rate);
        let due = first + since_first.context("the rate is too low")?;
        loop {
            self.interrupt.check()?;
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(WAIT_MAX)),
            }
        }
    }

    fn publish_one(&mut self, message: &[u8]) -> Result<()> {
        match self.publisher.try_publish(message) {
            Ok(_) => {}
            Err(TryPublishError::Full(message)) => self.publish_waiting(message)?,
            Err(TryPublishError::Failed(error)) => return Err(error.into()),
            Err(error) => bail!("{error}"),
        }
        self.messages += 1;
        self.bytes += message.len() as u64;
        Ok(())
    }

    /// Publishes when reliable subscribers have made room.
    #[cold]
    fn publish_waiting(&mut self, message: &[u8]) -> Result<()> {
        let since = Instant::now();
        let mut is_noticed = self.arguments.quiet;
        loop {
            match self.publisher.publish_timeout(message, WAIT_MAX) {
                Err(PublishError::TimedOut) => {}
                published => return Ok(published.map(|_| ())?),
            }
            self.interrupt.check()?;
            if !is_noticed && since.elapsed() >= NOTICE_AFTER {
                is_noticed = true;
                self.tell_who_is_waited_for();
            }
        }
    }

    fn tell_who_is_waited_for(&self) {
        let participants = self.topic.info().participants;
        let reliable = participants.iter().filter(|one| one.kind == ParticipantKind::Reliable);
        if let Some(slowest) = reliable.max_by_key(|one| one.lag) {
            let (pid, lag) = (slowest.pid, slowest.lag);
            text::tell(&format!(
                "waiting for process {pid}, a reliable subscriber {lag} messages behind"
            ));
        }
    }

    fn too_long(&self, TooLong { number, len, whole }: TooLong) -> Result<()> {
        let unit = self.arguments.framing().unit();
        let more = if whole { "" } else { "more than " };
        bail!(
            "{unit} {number} has {more}{len} bytes, topic {} takes {} (--max-len, for a new topic; --skip-long leaves such \
             {unit}s out)",
            self.arguments.topic,
            self.len_max
        )
    }

    fn summarise(&self) {
        let Stream { messages, bytes, skipped, len_max, .. } = *self;
        let seconds = self.first.map_or(Duration::ZERO, |first| first.elapsed()).as_secs_f64();
        let size = text::size(bytes);
        text::tell(&format!("published {messages}, {size} in {seconds:.2} s"));
        if skipped > 0 {
            text::tell(&format!("skipped {skipped} longer than {len_max} bytes"));
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 1000000000 is needed".into()),
    }
}
