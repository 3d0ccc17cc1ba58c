//! `shmbus demo`: market data fanned out to several processes, over a topic and over what it could replace, measured.
//!
//! One feed publishes quotes on a schedule; subscribers in processes of their own check every one. The same is done over
//! a topic, unix sockets, TCP and pipes, with the same bytes, schedule and way of waiting. Then the feed is killed while it
//! writes and another takes over. It promises: no process, topic or file is left behind, whichever way it ends (a topic that
//! outlives a `kill -9` is removed by the next demo).
//!
//! From here: `fanout` runs one transport and `recovery` the kills, both by way of `child` (processes); a child is a `feed`
//! or a `receiver` with one end of a `transport` (`bus`, `stream`); `ledger` and `latency` are what it notes; `report` tells.

mod bus;
mod child;
mod fanout;
mod feed;
mod latency;
mod ledger;
mod machine;
mod quote;
mod receiver;
mod recovery;
mod report;
mod result;
mod schedule;
mod screen;
mod stream;
mod text;
mod topic;
mod transport;

use crate::interrupt::Interrupt;
use anyhow::{Result, bail};
use bus::topic_options;
use child::Children;
use machine::Machine;
use quote::QUOTE_LEN;
use report::{Report, Setting};
use schedule::Wait;
use screen::Screen;
use shmbus::Directory;
use std::io::{self, IsTerminal, Write};
use topic::DemoTopic;
use transport::{Flow, Transport};

const EXAMPLES: &str = "\
Examples:
  shmbus demo
  shmbus demo --transports shmbus,unix --json";

/// Fan market data out to several processes: over shared memory, sockets and pipes, measured.
///
/// One feed process publishes quotes on a fixed schedule; subscriber processes receive and check them: one reliable (the
/// feed waits for it), one lossy (the feed never does), one lossy and slow. Latency runs from the moment at which a quote
/// was due until a subscriber had checked it, so that stalls count. Then the feed is killed in the middle of writing a quote
/// and a new one takes over.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// How long to publish over each transport
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Bytes of a message: a quote and padding
    #[arg(long, value_name = "BYTES", default_value_t = QUOTE_LEN as u64, value_parser = clap::value_parser!(u64).range(QUOTE_LEN as u64..=1 << 20))]
    payload: u64,
    /// Messages per second
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// The first is reliable, the others lossy, the last of three or more slow
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    subscribers: u32,
    /// What a process does while there is nothing to do
    #[arg(long, value_enum, default_value = "block")]
    wait: Wait,
    /// How often to kill the feed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    kills: u32,
    /// What to measure, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", default_values_t = Transport::ALL)]
    transports: Vec<Transport>,
    /// No colours, no line that changes
    #[arg(long)]
    plain: bool,
    /// The result as JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A process of the demo.
#[derive(clap::Args)]
pub(crate) struct ChildArguments {
    #[arg(long)]
    parent: u32,
    task: String,
}

pub(crate) fn run_child(arguments: &ChildArguments) -> Result<()> {
    child::run(arguments.parent, &arguments.task)
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    topic::remove_leftovers(directory);

    let setting = setting(arguments)?;
    let colour = !arguments.plain && io::stdout().is_terminal() && no_color_is_unset();
    if !arguments.json {
        show(&report::opening(&setting))?;
    }
    let mut report = Report { setting, fan_outs: Vec::new(), recovery: None };
    measure(arguments, &interrupt, directory, &mut report)?;
    show(&if arguments.json { report.json()? } else { report.text(colour) })?;
    if !report.is_sound() {
        bail!("messages were lost or damaged: see above");
    }
    Ok(())
}

/// Runs everything that was asked for, and enters it in the report.
fn measure(
    arguments: &Arguments,
    interrupt: &Interrupt,
    directory: &Directory,
    report: &mut Report,
) -> Result<()> {
    let Setting { flow, due, subscribers, .. } = report.setting;
    let with_kills = arguments.kills > 0 && arguments.transports.contains(&Transport::Shmbus);
    let steps = arguments.transports.len() + usize::from(with_kills);
    let mut screen = Screen::new(arguments.plain, steps);
    for &transport in &arguments.transports {
        let topic = match transport {
            Transport::Shmbus => Some(DemoTopic::create(directory, &flow, subscribers)?),
            _ => None,
        };
        let place = topic.as_ref().map(DemoTopic::place);
        let children = Children::new(interrupt.clone());
        let fan_out =
            fanout::run(children, transport, place, subscribers, (flow, due), &mut screen)?;
        report.fan_outs.push(fan_out);
    }
    if with_kills {
        let topic = DemoTopic::create(directory, &flow, subscribers)?;
        let children = Children::new(interrupt.clone());
        // The slow subscriber stays slow: no schedule ends.
        let flow = Flow { length_ns: u64::MAX, ..flow };
        let recovery =
            recovery::run(children, &topic, subscribers, flow, arguments.kills, &mut screen)?;
        report.recovery = Some(recovery);
    }
    Ok(())
}

fn setting(arguments: &Arguments) -> Result<Setting> {
    let payload = usize::try_from(arguments.payload)?;
    let machine = Machine::this();
    let processes = arguments.subscribers as usize + 1;
    let spinning = match arguments.wait {
        Wait::Block => 0,
        Wait::Spin => processes,
    };
    let flow = Flow {
        payload,
        rate: arguments.rate,
        wait: arguments.wait,
        yields: spinning > machine.cores,
        length_ns: (arguments.seconds * 1e9) as u64,
    };
    let options = topic_options(payload, arguments.subscribers, arguments.wait)?;
    Ok(Setting {
        flow,
        due: ((arguments.rate as f64 * arguments.seconds) as u64).max(1),
        subscribers: arguments.subscribers,
        seconds: arguments.seconds,
        machine,
        processes,
        spinning,
        depth: options.depth,
        topic_bytes: options.memory::<[u8]>()?.total(),
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.05 to 3600 is needed".into()),
    }
}

/// <https://no-color.org>
fn no_color_is_unset() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn show(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
