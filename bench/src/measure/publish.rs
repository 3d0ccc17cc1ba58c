//! What a publish of 48 bytes costs with 1 to 64 subscribers attached that do nothing: a process has them all, on topics of their own, and the publisher goes round the topics
//! with bursts that are shorter than a time slice.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use shmbus::{Delivery, Directory, Publisher, Start, Topic, TopicOptions};
use shmbus_sys::clock::monotonic_ns;

use crate::placement::{Partner, Scratch, median, pin};
use crate::record::{Case, Results};
use crate::registry::Transports;
use crate::session::{Options, Session};
use crate::table::{Column, Table, column};
use crate::transport::Wait;
use crate::transports::SHMBUS_NAME;

type Message = [u64; 6];

pub(crate) const COUNTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
const BURST: u64 = 20_000;

pub(crate) const COLUMNS: [Column; 2] =
    [column("ns", "publish_ns", 1.0, 2), column("× 1 subscriber", "per_one", 1.0, 3)];

fn name(subscribers: usize) -> String {
    format!("bench/publish-{subscribers}")
}

pub(crate) fn measure(transports: Transports, options: &Options) -> Result<Results> {
    let mut session = Session::new("publish", transports, options)?;
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let mut publishers: Vec<Publisher<Message>> = Vec::new();
    for count in COUNTS {
        let options =
            TopicOptions { depth: 4096, subscribers_max: 64, prefault: true, ..Default::default() };
        let topic = Topic::<Message>::create_in(&directory, &name(count), &options)?;
        let mut publisher = topic.publisher()?;
        publisher.publish(&[0; 6])?;
        publishers.push(publisher);
    }
    let cores = session.placement.clone();
    let other = cores.receiver(0);
    let idle = Partner::start("publish-idle", scratch.path(), 0, other)?;
    let bursts = session.options.effort().scale(60);
    let payload = size_of::<Message>();
    session.interleave(COUNTS.len(), |index| {
        pin(cores.sender())?; // the probe has left it
        let mut times = Vec::new();
        for _ in 0..bursts {
            let begin_ns = monotonic_ns();
            for i in 0..BURST {
                publishers[index].publish(&[i; 6])?;
            }
            times.push((monotonic_ns() - begin_ns) as f64 / BURST as f64);
        }
        cores.release()?;
        let values = BTreeMap::from([("publish_ns".to_owned(), median(&mut times))]);
        let (receivers, transport) = (COUNTS[index], SHMBUS_NAME.to_owned());
        let variant = String::new();
        Ok((Case { variant, payload, receivers, wait: Wait::Spin, transport }, false, values))
    })?;
    drop(idle);
    let mut results = session.finish();
    results.relate("publish_ns", "per_one", |_, base| base.receivers == 1);
    Ok(results)
}

/// In the partner: all subscribers, each with one message received, until standard input ends.
pub(crate) fn idle(directory: &Path) -> Result<()> {
    let directory = Directory::at(directory)?;
    let mut subscribers = Vec::new();
    for count in COUNTS {
        let topic = Topic::<Message>::open_in(&directory, &name(count))?;
        for _ in 0..count {
            let mut subscriber = topic.subscriber_from(Delivery::Lossy, Start::Back(1))?;
            subscriber.try_receive()?;
            subscribers.push(subscriber);
        }
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

pub(crate) fn table(results: &Results) -> Table {
    Table::of(results, &COLUMNS)
}
