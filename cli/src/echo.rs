//! `shmbus echo`: the messages of a topic become output.
//!
//! Output is buffered while messages are there, and written when there are none: nothing waits in a buffer while the program waits.

mod output;
mod source;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::builder::RangedU64ValueParser;
use shmbus::{AttachError, Delivery, Directory, OpenError, Start};

use self::output::{Form, Output, Written};
use self::source::{Message, Seen, Source};
use crate::field::{Filter, Path};
use crate::interrupt::Interrupt;
use crate::text::{self, Usage};

/// How long one wait is at most, so that an interrupt or a closed output is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// How often to look for a topic that is missing.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long --drain waits for a message that a publisher has begun and does not finish.
const STUCK_MAX: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  shmbus echo stats/vm
  shmbus echo stats/vm --from oldest --drain | tail -1
  shmbus echo md/ticks --filter 'symbol ~ ES' --filter 'qty >= 100' --fields symbol,px
  shmbus echo md/ticks --from oldest --drain --csv > ticks.csv
  shmbus echo md/ticks --json | jq 'select(.missed_before > 0)'
  shmbus echo image --reliable --wait --raw > disk.img

What was missed is told on standard error, exactly, where it was missed and in total at the end.";

/// Print the messages of a topic as they are published
///
/// Messages of a topic with a schema are printed as JSON, one object a line: integers are exact, NaN and infinite floats are the texts
/// "NaN", "inf" and "-inf", and a value of an enum is its name, or its number where it has none. Bytes are printed as they are, each
/// message on a line.
///
/// It reads as a passive observer, unless --lossy, --reliable or --reliable-for: it takes no place, writes nothing, slows nobody and needs only permission to read
/// the topic; it looks every 10 ms, misses messages if it is too slow, and says how many. It ends with status 0 when the topic is removed and
/// everything in it is printed (`shmbus pub --remove`, `shmbus rm`; not with --follow), after --count messages, or when its output is closed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the topic, such as stats/vm
    topic: String,
    /// Each message as an object with sequence, timestamp_ns (monotonic clock), publisher, missed_before, abandoned_before and message; bytes that are no text are message_hex
    #[arg(long, help_heading = "Form", group = "form")]
    json: bool,
    /// A header line with the names of the fields, and a line for each message; an array is one cell, as JSON
    #[arg(long, help_heading = "Form", group = "form")]
    csv: bool,
    /// The bytes as they are, with a newline after each message [default for a topic of bytes]
    #[arg(long, help_heading = "Form", group = "form")]
    text: bool,
    /// The bytes in hexadecimal, with a line before each message that has its sequence and length
    #[arg(long, help_heading = "Form", group = "form")]
    hex: bool,
    /// The bytes as they are, with nothing between messages
    #[arg(long, help_heading = "Form", group = "form")]
    raw: bool,
    /// Each message as a frame: its length (4 bytes, little-endian), then its bytes
    #[arg(long, help_heading = "Form", group = "form")]
    frames: bool,
    /// Only these fields, by their paths: `id,best.px,legs[0].ratio`
    #[arg(long, value_name = "PATHS", value_delimiter = ',', conflicts_with_all = ["text", "hex", "raw", "frames"])]
    fields: Vec<Path>,
    /// Only messages with this, such as 'qty >= 100'; operators are == != < <= > >= and, for texts, ~ (contains). Several: all of them
    #[arg(long, value_name = "CONDITION")]
    filter: Vec<Filter>,
    /// End after N messages were printed
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    count: Option<u64>,
    /// Begin with the oldest message there is, N messages back (N-back), or with the next one published (newest)
    #[arg(long, value_name = "WHERE", default_value = "newest", value_parser = start)]
    from: Start,
    /// Read as an observer, as without --lossy, --reliable and --reliable-for
    #[arg(long, group = "reader")]
    passive: bool,
    /// Take part as a subscriber that is woken for each message; the publisher never waits for it
    #[arg(long, group = "reader")]
    lossy: bool,
    /// Take part and miss nothing: the publisher waits when this reader is a whole topic behind
    #[arg(long, group = "reader")]
    reliable: bool,
    /// As --reliable, but not for longer than this, as in 500ms, 5s or 2min: a reader that holds the publisher up for longer goes on as with --lossy, and says so
    #[arg(long, value_name = "DURATION", group = "reader", value_parser = text::duration)]
    reliable_for: Option<Duration>,
    /// If there is no such topic, wait for it, and begin with its oldest message instead of the next one
    #[arg(long)]
    wait: bool,
    /// When the topic is removed, wait for the next one of its name and go on with its oldest message; totals are of all of them
    #[arg(long, conflicts_with = "drain")]
    follow: bool,
    /// End as soon as nothing more is there
    #[arg(long)]
    drain: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// What has become of the messages.
#[derive(Default)]
struct Counts {
    received: u64,
    printed: u64,
    undecodable: u64,
    /// In topics that were removed and followed by another one.
    missed: u64,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut source = open(directory, arguments, &interrupt, None)?;
    let in_topic = |usage: Usage| Usage(format!("topic {}: {usage}", arguments.topic));
    let mut output = Output::new(arguments, source.schema()).map_err(in_topic)?;
    let mut counts = Counts::default();
    let done = copy_all(directory, &mut source, &mut output, arguments, &interrupt, &mut counts);
    let is_closed = matches!(&done, Err(error) if crate::is_broken_pipe(error));
    // What has been received is printed, whatever ended it.
    let done = if is_closed { done } else { done.and(output.flush()) };
    let Counts { received, printed, undecodable, missed } = counts;
    if !arguments.quiet && !is_closed {
        let missed = missed + source.missed();
        let printed = match arguments.filter.is_empty() {
            true => String::new(),
            false => format!(", printed {printed}"),
        };
        text::tell(&format!("received {received}, missed {missed}{printed}"));
    }
    done?;
    match undecodable {
        0 => Ok(()),
        count => bail!(
            "topic {}: {count} messages are not what its schema says (--hex shows them)",
            arguments.topic
        ),
    }
}

impl Arguments {
    fn delivery(&self) -> Option<Delivery> {
        match (self.reliable, self.reliable_for, self.lossy) {
            (true, ..) => Some(Delivery::Reliable),
            (_, Some(time), _) => Some(Delivery::ReliableFor(time)),
            (.., true) => Some(Delivery::Lossy),
            _ => None,
        }
    }

    /// The form that was asked for.
    fn form(&self) -> Option<Form> {
        let forms = [
            (self.json, Form::Envelope),
            (self.csv, Form::Csv),
            (self.text, Form::Text),
            (self.hex, Form::Hex),
            (self.raw, Form::Raw),
            (self.frames, Form::Frames),
        ];
        forms.into_iter().find_map(|(chosen, form)| chosen.then_some(form))
    }
}

/// Opens the topic for reading, as soon as it is there. With `output`, that of a topic that was removed: the next one of its name.
fn open(
    directory: &Directory,
    arguments: &Arguments,
    interrupt: &Interrupt,
    output: Option<&Output>,
) -> Result<Source> {
    let Arguments { topic, from, wait, .. } = arguments;
    let delivery = arguments.delivery();
    let mut was_there = output.is_none();
    loop {
        // Of a topic that was not there, all messages are new.
        let is_from_oldest = output.is_some() || *from == Start::Newest && !was_there;
        let opened = match is_from_oldest {
            true => Source::open_awaited(directory, topic, delivery),
            false => Source::open(directory, topic, delivery, *from),
        };
        match opened {
            Err(
                AttachError::Retired
                | AttachError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. }),
            ) if *wait || output.is_some() => {}
            Err(AttachError::Open(error @ OpenError::NotFound { .. })) => {
                bail!("{error} (--wait waits for it)");
            }
            Err(AttachError::Open(error)) => return Err(error.into()),
            other => return other.with_context(|| format!("topic {topic}")),
        }
        was_there = false;
        interrupt.check()?;
        output.map_or(Ok(()), Output::check)?;
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Prints the messages of the topic and, if those are wanted, of all that follow it under its name.
fn copy_all(
    directory: &Directory,
    source: &mut Source,
    output: &mut Output,
    arguments: &Arguments,
    interrupt: &Interrupt,
    counts: &mut Counts,
) -> Result<()> {
    let topic = &arguments.topic;
    while copy(source, output, arguments, interrupt, counts)? == Ended::Removed && arguments.follow
    {
        output.flush()?;
        if !arguments.quiet {
            text::tell(&format!("topic {topic} was removed: waiting for the next one"));
        }
        let next = open(directory, arguments, interrupt, Some(output))?;
        counts.missed += source.missed();
        *source = next;
        let bound = output.follow(arguments, source.schema());
        bound.map_err(|usage| Usage(format!("topic {topic} was created anew, and {usage}")))?;
    }
    Ok(())
}

/// Why no more messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The topic was removed, and all of it is printed.
    Removed,
    /// It was asked for no more.
    Enough,
}

/// Prints messages until something ends it.
fn copy(
    source: &mut Source,
    output: &mut Output,
    arguments: &Arguments,
    interrupt: &Interrupt,
    counts: &mut Counts,
) -> Result<Ended> {
    let mut stuck: Option<(u64, Instant)> = None;
    while arguments.count.is_none_or(|count| counts.printed < count) {
        interrupt.check()?;
        let (position, lag) = (source.position(), source.lag());
        match source.next(Duration::ZERO)? {
            Seen::Message(message) => print(&message, output, arguments, counts)?,
            Seen::Removed => return Ok(Ended::Removed),
            Seen::Evicted => tell_evicted(position, arguments),
            Seen::Nothing if arguments.drain && lag == 0 => break,
            Seen::Nothing if arguments.drain => {
                // Others were there, or one is that its publisher has not committed.
                let since = match stuck {
                    Some((at, since)) if at == position => since,
                    _ => stuck.insert((position, Instant::now())).1,
                };
                if since.elapsed() >= STUCK_MAX {
                    bail!(
                        "topic {}: sequence {position} was taken by a publisher that does not commit it (--lossy settles \
                         what the dead have left)",
                        arguments.topic
                    );
                }
                std::thread::yield_now();
            }
            Seen::Nothing => {
                output.flush()?;
                match source.next(WAIT_MAX)? {
                    Seen::Message(message) => print(&message, output, arguments, counts)?,
                    Seen::Nothing => output.check()?,
                    Seen::Evicted => tell_evicted(position, arguments),
                    Seen::Removed => return Ok(Ended::Removed),
                }
            }
        }
    }
    Ok(Ended::Enough)
}

fn tell_evicted(position: u64, arguments: &Arguments) {
    let topic = &arguments.topic;
    if let (Some(time), false) = (arguments.reliable_for, arguments.quiet) {
        text::tell(&format!(
            "topic {topic}: its publisher has waited for this reader for {time:?}; from sequence {position} on it may miss messages"
        ));
    }
}

fn print(
    message: &Message<'_>,
    output: &mut Output,
    arguments: &Arguments,
    counts: &mut Counts,
) -> Result<()> {
    let (missed, sequence) = (message.missed_before(), message.sequence());
    if missed > 0 && !arguments.quiet {
        text::tell(&format!("missed {missed} before sequence {sequence}"));
    }
    counts.received += 1;
    match output.write(message)? {
        Written::Printed => counts.printed += 1,
        Written::LeftOut => {}
        Written::Undecodable(error) => {
            counts.undecodable += 1;
            text::tell(&format!("sequence {sequence} is not printed: {error}"));
        }
    }
    Ok(())
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
