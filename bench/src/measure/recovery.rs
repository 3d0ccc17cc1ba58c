//! How long a subscriber has nothing when a publisher is killed: one of several, while the others wait behind the sequence that it has taken; and the only one, until another
//! process that asks for its place every millisecond has it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use shmbus::{AttachError, Delivery, Directory, Publishers, Topic, TopicOptions};
use shmbus_sys::clock::{monotonic_ns, sleep_until_ns};

use crate::placement::{Partner, Scratch};
use crate::record::{Case, Results};
use crate::registry::Transports;
use crate::session::{Options, Session};
use crate::table::{Column, Table, column};
use crate::transport::Wait;
use crate::transports::SHMBUS_NAME;

const NAME: &str = "bench/recovery";
const CLAIM: &str = "one of two, with a sequence taken";
const SOLE: &str = "the only one, a standby asks every 1 ms";
/// Between the messages of a publisher that lives.
const INTERVAL_NS: u64 = 100_000;

pub(crate) const COLUMNS: [Column; 1] = [column("ms without messages", "gap_ns", 1e6, 2)];

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("recovery", transports, &options.with_rounds(15))?;
    session.interleave(2, |index| {
        let shared = index == 0;
        let gap_ns = gap_ns(shared)?;
        let case = Case {
            variant: if shared { CLAIM } else { SOLE }.to_owned(),
            payload: 8,
            receivers: 1,
            wait: Wait::Block,
            transport: SHMBUS_NAME.to_owned(),
        };
        Ok((case, true, BTreeMap::from([("gap_ns".to_owned(), gap_ns)])))
    })?;
    Ok(session.finish())
}

/// From the kill to the next message, in nanoseconds.
fn gap_ns(shared: bool) -> Result<f64> {
    let scratch = Scratch::new()?;
    let publishers = if shared { Publishers::Shared(2) } else { Publishers::Exclusive };
    let options = TopicOptions { publishers, depth: 65_536, ..Default::default() };
    let directory = Directory::at(scratch.path())?;
    let topic = Topic::<u64>::create_in(&directory, NAME, &options)?;
    let mut subscriber = topic.subscriber(Delivery::Reliable)?;
    let (victim, survivor) = match shared {
        true => ("recovery-claimant", "recovery-publisher"),
        false => ("recovery-publisher", "recovery-standby"),
    };
    let mut victim = Partner::start_anywhere(victim, scratch.path(), 0)?;
    let mut survivor = Partner::start_anywhere(survivor, scratch.path(), 0)?;
    let patience = Duration::from_secs(20);
    if shared {
        // Messages of the survivor before the claim show that it publishes.
        subscriber.receive_timeout(patience)?.context("the survivor does not publish")?;
        victim.go();
        anyhow::ensure!(victim.line()? == "taken", "the victim took no sequence");
    } else {
        subscriber.receive_timeout(patience)?.context("the victim does not publish")?;
    }
    // A message says when it was published, and in its last bit whether by the standby: what the victim published is no sign of recovery.
    let killed_ns = monotonic_ns();
    victim.kill()?;
    let gap_ns = loop {
        let sample = subscriber.receive_timeout(patience)?.context("nothing came any more")?;
        if *sample >= killed_ns && (shared || *sample & 1 == 1) {
            break monotonic_ns() - killed_ns;
        }
    };
    survivor.kill()?;
    Ok(gap_ns as f64)
}

/// In a partner: publishes, takes a sequence and keeps it, or waits for the publisher's place.
pub(crate) fn partner(role: &str, directory: &Path) -> Result<()> {
    let topic = Topic::<u64>::open_in(&Directory::at(directory)?, NAME)?;
    let mut publisher = match role {
        "recovery-standby" => {
            println!("ready");
            loop {
                match topic.publisher() {
                    Ok(publisher) => break publisher,
                    Err(AttachError::PublisherAlive { .. }) => {
                        sleep_until_ns(monotonic_ns() + 1_000_000);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        _ => topic.publisher()?,
    };
    if role == "recovery-claimant" {
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        let _loan = publisher.loan()?;
        println!("taken");
        loop {
            std::thread::park(); // until it is killed
        }
    }
    if role == "recovery-publisher" {
        println!("ready");
    }
    loop {
        let is_standby = u64::from(role == "recovery-standby");
        publisher.publish(&(monotonic_ns() & !1 | is_standby))?;
        sleep_until_ns(monotonic_ns() + INTERVAL_NS);
    }
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}
