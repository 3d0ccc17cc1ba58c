//! `shmbus metrics`: all topics as OpenMetrics text, printed once or served over HTTP.
//!
//! Each scrape looks at every topic as `shmbus info` does: nothing is kept in between, nothing is written, and read permission is enough.

mod serve;
mod text;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use serve::Answer;
use shmbus::{Directory, OpenError, TopicInfo};

use crate::interrupt::Interrupt;
use crate::text::{tell, tell_error};

/// What OpenMetrics 1.0 calls itself.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

const EXAMPLES: &str = "\
Examples:
  shmbus metrics
  shmbus metrics --listen 127.0.0.1:9464
  shmbus metrics --once > /var/lib/prometheus/node-exporter/shmbus.prom

Only GET /metrics is answered, to anybody who reaches the address: there is no password, and names of topics are in it.";

/// Serve numbers of all topics to Prometheus (OpenMetrics), or print them
///
/// Of each topic: messages published, memory, depth, who takes part, how far each is behind, and what it missed. A topic that
/// cannot be read is counted (shmbus_topics_unreadable) and does not hide the others. It serves until it is interrupted.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Serve at this address and port; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
    /// Print them once and end
    #[arg(long, conflicts_with = "listen")]
    once: bool,
}

pub(crate) fn run(directory: &Directory, arguments: &Arguments) -> Result<()> {
    if arguments.once {
        let text = Scrape::of(directory)?.text()?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        return Ok(stdout.flush()?);
    }
    let interrupt = Interrupt::install()?;
    let listener = TcpListener::bind(arguments.listen)
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    tell(&format!("serving http://{}/metrics", listener.local_addr()?));
    let directory = directory.clone();
    serve::serve(&listener, &interrupt, move |method, path| answer(&directory, method, path))
}

fn answer(directory: &Directory, method: &str, path: &str) -> Answer {
    let plain = |status, body: &str| Answer { status, content_type: PLAIN, body: body.to_owned() };
    match (path, method) {
        ("/metrics", "GET" | "HEAD") => match Scrape::of(directory).and_then(Scrape::text) {
            Ok(body) => Answer { status: "200 OK", content_type: CONTENT_TYPE, body },
            Err(error) => {
                tell_error(&error);
                plain("500 Internal Server Error", &format!("{error:#}\n"))
            }
        },
        ("/metrics", _) => plain("405 Method Not Allowed", "only GET\n"),
        _ => plain("404 Not Found", "there is only /metrics\n"),
    }
}

/// All topics at one moment.
#[derive(Debug)]
struct Scrape {
    topics: Vec<TopicInfo>,
    unreadable: u64,
}

impl Scrape {
    fn of(directory: &Directory) -> Result<Scrape> {
        let mut scrape = Scrape { topics: Vec::new(), unreadable: 0 };
        for name in directory.topics()? {
            match directory.inspect(&name) {
                Ok(info) => scrape.topics.push(info),
                // Removed meanwhile.
                Err(OpenError::NotFound { .. } | OpenError::Retired { .. }) => {}
                Err(_) => scrape.unreadable += 1, // `shmbus doctor` says why
            }
        }
        Ok(scrape)
    }
}
