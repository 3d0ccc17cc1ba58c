//! `shmbus pub`: input becomes messages of a topic.
//!
//! Open or create the topic, become its publisher, wait for subscribers if asked to, then message after message; and wherever that
//! ends, the topic is removed if asked to. Every wait is short enough to notice an interrupt.

mod create;
mod encode;
mod room;

use std::ffi::OsString;
use std::fs::File;
use std::io::Seek;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use clap::builder::RangedU64ValueParser;
use shmbus::{
    AttachError, Directory, PublishError, Publisher, Raw, RawTopic, Schema, TryPublishError,
};

use self::encode::{Encoder, Invalid};
use crate::input::{self, Framing, Input, Piece, TooLong};
use crate::interrupt::Interrupt;
use crate::text;

/// How long one wait is at most, so that an interrupt is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often to look for subscribers.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Longest message in bytes that a topic can have.
const LEN_MAX: u64 = 1 << 30;
/// Longest line that is a message of a topic with a schema, in bytes: so many for each byte of the message, and as many more.
const TEXT_PER_BYTE: usize = 32;
const TEXT_LEN: usize = 1 << 20;

const EXAMPLES: &str = "\
Examples:
  vmstat 1 | shmbus pub stats/vm
  shmbus pub words /usr/share/dict/words --rate 100
  shmbus pub image disk.img --chunk 65536 --wait-subscribers 3 --remove
  shmbus pub md/ticks --schema tick.schema --message '{\"symbol\":\"ESZ6\",\"px\":100,\"qty\":5}'
  shmbus pub md/ticks ticks.csv --csv --rate 1000 --loop

A line that is no message ends it with status 1 and the number of the line and the field; --skip-invalid leaves it out.";

/// Publish lines, frames or pieces of a file or of standard input
///
/// Each line is a message, published as soon as it is complete. On a topic of bytes it is the bytes before the newline. On a topic with a schema
/// it is JSON with all fields of the message, as `shmbus echo` prints them, or a record of CSV; empty lines are passed over.
///
/// The topic is created if it is missing (of bytes, or with --schema), and stays with its last messages when the input ends, until `shmbus rm`; with
/// --remove it goes then, and subscribers end when they have received everything. The publisher waits for reliable subscribers that are a
/// whole topic behind, and for no others; --timeout and --skip-full bound that.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the topic, such as stats/vm
    topic: String,
    /// What to publish; standard input if it is missing or -
    file: Option<PathBuf>,
    /// Publish this, and read no input; may be given several times
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["file", "frames", "chunk", "csv"])]
    message: Vec<OsString>,
    /// The input is CSV: a header line that names the fields, then a line for each message (topics with a schema)
    #[arg(long, conflicts_with_all = ["frames", "chunk"])]
    csv: bool,
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
    /// End after N messages
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    count: Option<u64>,
    /// Publish the file again and again, until --count or an interrupt
    #[arg(long = "loop")]
    again: bool,
    /// Remove the topic at the end
    #[arg(long)]
    remove: bool,
    /// Leave out what is longer than the topic takes, and count it, instead of failing
    #[arg(long)]
    skip_long: bool,
    /// Leave out what is no message of the topic's schema, and count it, instead of failing
    #[arg(long)]
    skip_invalid: bool,
    /// Fields that JSON does not have, and empty cells of CSV, are 0
    #[arg(long)]
    default_zero: bool,
    /// Fail if reliable subscribers leave no room for a message for so long, as in 500ms, 5s or 2min
    #[arg(long, value_name = "DURATION", value_parser = text::duration)]
    timeout: Option<Duration>,
    /// Leave out messages for which reliable subscribers leave no room, and count them, instead of waiting
    #[arg(long, conflicts_with = "timeout")]
    skip_full: bool,
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
    /// Of a new topic: what its messages are (docs/schema.md, `shmbus schema`)
    #[arg(long, value_name = "FILE", help_heading = "A new topic")]
    schema: Option<PathBuf>,
    /// Of a new topic: each message carries the time of its commit
    #[arg(long, help_heading = "A new topic")]
    timestamp: bool,
    /// Of a new topic: up to N publishers at the same time, in one order, 1 to 64 [default: one, that others take over from]
    #[arg(long, value_name = "N", help_heading = "A new topic")]
    shared: Option<u32>,
    /// Of a new topic: blocks that subscribers may hold at the same time [default: 8, or a quarter of --subscribers-max]
    #[arg(long, value_name = "N", help_heading = "A new topic")]
    hold_blocks: Option<u32>,
    /// Of a new topic: who may use its files, as chmod(1) takes it in octal [default: 600]
    #[arg(long, value_name = "OCTAL", help_heading = "A new topic", value_parser = create::mode)]
    mode: Option<u32>,
    /// Of a new topic: the group of its files, by its number or its name in /etc/group
    #[arg(long, value_name = "NAME|GID", help_heading = "A new topic", value_parser = create::group)]
    group: Option<u32>,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    // Before signals are caught: to open a pipe is to wait for its other end.
    let source = match arguments.message.is_empty() {
        true => Some(input::open(arguments.file.as_deref())?),
        false => None,
    };
    if let (true, Some((file, name))) = (arguments.again, &source) {
        let mut file = file;
        file.rewind().with_context(|| format!("--loop begins {name} again, which it refuses"))?;
    }
    let interrupt = Interrupt::install()?;
    let (topic, is_new) = create::open_or_create(directory, arguments)?;
    arguments.check(topic.schema())?;
    let publisher = match topic.publisher() {
        Ok(publisher) => publisher,
        Err(error) => {
            drop(topic); // its memory may be what is wanted
            if is_new {
                let _ = directory.remove(&arguments.topic, false); // unless somebody has joined
            }
            return Err(match error {
                AttachError::Open(error) => error.into(), // it names the topic
                error => Error::from(error).context(format!("topic {}", arguments.topic)),
            });
        }
    };

    let len_max = topic.info().payload_size as usize;
    let schema = topic.schema().cloned();
    let mut stream = Stream {
        arguments,
        interrupt,
        topic,
        schema,
        publisher,
        len_max,
        first: None,
        number: 0,
        messages: 0,
        bytes: 0,
        skipped: 0,
        full: 0,
        invalid: None,
    };
    let done = stream.wait_for_subscribers().and_then(|()| stream.publish(source));
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

    /// What one message is called.
    fn unit(&self) -> &'static str {
        if self.message.is_empty() { self.framing().unit() } else { "message" }
    }

    /// The input must be of a kind that the topic takes.
    fn check(&self, schema: Option<&Schema>) -> Result<()> {
        let topic = &self.topic;
        let Some(schema) = schema else {
            if self.csv {
                bail!(
                    "topic {topic} carries bytes, which have no fields (--schema, for a new topic)"
                );
            }
            return Ok(());
        };
        match self.chunk {
            Some(len) if !is_length(schema, len as usize) => {
                bail!("topic {topic}: {} has {} bytes, not {len}", schema.name(), schema.size())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a message can have that many bytes.
fn is_length(schema: &Schema, len: usize) -> bool {
    match schema.is_sequence() {
        true => (len as u64).is_multiple_of(schema.size()),
        false => len as u64 == schema.size(),
    }
}

/// What is being published, and how much of it there was.
struct Stream<'a> {
    arguments: &'a Arguments,
    interrupt: Interrupt,
    topic: RawTopic,
    schema: Option<Schema>,
    publisher: Publisher<Raw>,
    len_max: usize,
    /// When the first message was due.
    first: Option<Instant>,
    /// Of the present line, frame or chunk, from 1.
    number: u64,
    messages: u64,
    bytes: u64,
    /// Too long for the topic.
    skipped: u64,
    /// There was no room.
    full: u64,
    /// No messages of its schema: how many, and what is wrong with the first one.
    invalid: Option<(u64, String)>,
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
            if text::subscribers(&info).is_some_and(|living| living >= wanted) {
                return Ok(());
            }
            if info.retired {
                return Err(PublishError::Retired.into());
            }
            self.interrupt.check()?;
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Publishes what is there, as often as asked for.
    fn publish(&mut self, source: Option<(File, String)>) -> Result<()> {
        loop {
            let before = self.messages;
            self.number = 0;
            let mut encoder = match (&self.schema, self.arguments.framing()) {
                (Some(schema), Framing::Lines) => {
                    Some(Encoder::new(schema, self.arguments.csv, self.arguments.default_zero))
                }
                _ => None,
            };
            match &source {
                None => self.publish_given(&mut encoder)?,
                Some((file, name)) => {
                    let file = file.try_clone().context("cannot use the input twice")?;
                    self.publish_input(file, name.clone(), &mut encoder)?;
                }
            }
            if !self.arguments.again || self.is_enough() {
                return Ok(());
            }
            if self.messages == before {
                bail!("--loop: there is nothing to publish");
            }
            if let Some((file, name)) = &source {
                let mut file = file;
                file.rewind().with_context(|| format!("cannot begin {name} again"))?;
            }
        }
    }

    fn publish_given(&mut self, encoder: &mut Option<Encoder>) -> Result<()> {
        for text in &self.arguments.message {
            if self.is_enough() {
                break;
            }
            self.number += 1;
            if encoder.is_none() && text.len() > self.len_max {
                let number = self.number;
                self.too_long(TooLong { number, len: text.len(), whole: true })?;
            } else {
                self.offer(text.as_bytes(), encoder)?;
            }
        }
        Ok(())
    }

    fn publish_input(
        &mut self,
        file: File,
        name: String,
        encoder: &mut Option<Encoder>,
    ) -> Result<()> {
        let len_max = match encoder {
            Some(_) => self.len_max.saturating_mul(TEXT_PER_BYTE).saturating_add(TEXT_LEN),
            None => self.len_max,
        };
        let (interrupt, topic) = (self.interrupt.clone(), self.topic.clone());
        let check = move || check(&interrupt, &topic);
        let mut input = Input::new(file, name, self.arguments.framing(), len_max, check);
        while !self.is_enough()
            && let Some(piece) = input.next()?
        {
            self.number += 1;
            match piece {
                Piece::Message(bytes) => self.offer(bytes, encoder)?,
                Piece::TooLong(piece) => self.too_long(piece)?,
            }
        }
        match encoder.as_ref().and_then(Encoder::unfinished) {
            Some(error) if !self.is_enough() => self.invalid(error),
            _ => Ok(()),
        }
    }

    fn is_enough(&self) -> bool {
        self.arguments.count.is_some_and(|count| self.messages >= count)
    }

    /// Publishes a piece of the input, if it is a message.
    fn offer(&mut self, piece: &[u8], encoder: &mut Option<Encoder>) -> Result<()> {
        let unit = self.arguments.unit();
        if let Some(encoder) = encoder {
            return match encoder.encode(unit, self.number, piece) {
                Ok(Some(message)) => self.publish_due(message),
                Ok(None) => Ok(()),
                Err(Invalid { error, is_fatal: true }) => bail!(error),
                Err(Invalid { error, .. }) => self.invalid(error),
            };
        }
        match &self.schema {
            Some(schema) if !is_length(schema, piece.len()) => {
                let (size, len) = (schema.size(), piece.len());
                let each = if schema.is_sequence() { "a multiple of " } else { "" };
                let (number, topic) = (self.number, &self.arguments.topic);
                self.invalid(format!(
                    "{unit} {number} has {len} bytes, topic {topic} takes {each}{size}"
                ))
            }
            _ => self.publish_due(piece),
        }
    }

    /// What is no message: counted, or the end.
    fn invalid(&mut self, error: String) -> Result<()> {
        if !self.arguments.skip_invalid {
            bail!("{error} (--skip-invalid leaves it out)");
        }
        self.invalid.get_or_insert((0, error)).0 += 1;
        Ok(())
    }

    fn publish_due(&mut self, message: &[u8]) -> Result<()> {
        self.wait_until_due()?;
        self.publish_one(message)
    }

    /// Waits for the next message's place in the schedule.
    fn wait_until_due(&mut self) -> Result<()> {
        let first = *self.first.get_or_insert_with(Instant::now);
        let Some(rate) = self.arguments.rate else { return Ok(()) };
        let since_first = Duration::try_from_secs_f64((self.messages + self.full) as f64 / rate);
        let due = first + since_first.context("the rate is too low")?;
        loop {
            self.interrupt.check()?;
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => std::thread::sleep(left.min(WAIT_MAX)),
            }
            check(&self.interrupt, &self.topic)?;
        }
    }

    fn publish_one(&mut self, message: &[u8]) -> Result<()> {
        match self.publisher.try_publish(Raw::new(message)) {
            Ok(_) => {}
            Err(TryPublishError::Full) if self.arguments.skip_full => {
                self.full += 1;
                return Ok(());
            }
            Err(TryPublishError::Full) => self.publish_waiting(message)?,
            Err(TryPublishError::Failed(error)) => return Err(error.into()),
            Err(error) => bail!("{error}"),
        }
        self.messages += 1;
        self.bytes += message.len() as u64;
        Ok(())
    }

    /// What is longer than the topic takes: counted, or the end.
    fn too_long(&mut self, TooLong { number, len, whole }: TooLong) -> Result<()> {
        let unit = self.arguments.unit();
        let more = if whole { "" } else { "more than " };
        let topic = &self.arguments.topic;
        if self.schema.is_some() {
            return self.invalid(format!(
                "{unit} {number} has {more}{len} bytes: no message of topic {topic}, which have {}, is written so long",
                self.len_max
            ));
        }
        if self.arguments.skip_long {
            self.skipped += 1;
            return Ok(());
        }
        bail!(
            "{unit} {number} has {more}{len} bytes, topic {topic} takes {} (--max-len, for a new topic; --skip-long leaves such \
             {unit}s out)",
            self.len_max
        )
    }

    fn summarise(&self) {
        let Stream { messages, bytes, skipped, full, len_max, .. } = *self;
        let seconds = self.first.map_or(Duration::ZERO, |first| first.elapsed()).as_secs_f64();
        let size = text::size(bytes);
        text::tell(&format!("published {messages}, {size} in {seconds:.2} s"));
        if full > 0 {
            text::tell(&format!("skipped {full} for which there was no room"));
        }
        if skipped > 0 {
            text::tell(&format!("skipped {skipped} longer than {len_max} bytes"));
        }
        if let Some((count, first)) = &self.invalid {
            text::tell(&format!("skipped {count} that are no messages; the first: {first}"));
        }
    }
}

/// # Errors
/// Somebody wants it to end; or the topic is gone, of which the publisher itself is told only when it opens the next block.
fn check(interrupt: &Interrupt, topic: &RawTopic) -> Result<()> {
    interrupt.check()?;
    if topic.is_retired() { Err(PublishError::Retired.into()) } else { Ok(()) }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 1000000000 is needed".into()),
    }
}
