//! What a publish of 48 bytes costs with 1 to 32 subscribers attached that receive nothing and may lose everything: shmbus and iceoryx2, each as it is by default.
//!
//! A process has all subscribers, on topics of their own; the publisher goes round the topics with bursts.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use iceoryx2::port::publisher::Publisher as Port;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use serde_json::json;
use shmbus::{Delivery, Directory, Publisher, Start, Topic, TopicOptions};

use crate::figures::median;
use crate::partner::{Partner, Scratch};
use crate::{raw, transports};

type Message = [u64; 6];

const COUNTS: [usize; 6] = [1, 2, 4, 8, 16, 32];
const MOST: usize = 32;
const BURST: u64 = 2_000;
const BURSTS: usize = 15;

type Service = PortFactory<ipc::Service, Message, ()>;

fn name(subscribers: usize) -> String {
    format!("publish-{subscribers}")
}

/// With overflow, as by default: a publisher waits for nobody.
fn service(node: &Node<ipc::Service>, subscribers: usize) -> Result<Service> {
    let builder = node.service_builder(&name(subscribers).as_str().try_into()?);
    Ok(builder.publish_subscribe::<Message>().max_subscribers(MOST).open_or_create()?)
}

enum Any {
    Shmbus(Box<Publisher<Message>>),
    Iceoryx2(Port<ipc::Service, Message, ()>),
}

impl Any {
    /// Nanoseconds per message.
    fn burst(&mut self) -> Result<f64> {
        let begin = Instant::now();
        match self {
            Any::Shmbus(publisher) => {
                for i in 0..BURST {
                    publisher.publish(&[i; 6])?;
                }
            }
            Any::Iceoryx2(publisher) => {
                for i in 0..BURST {
                    publisher.loan_uninit()?.write_payload([i; 6]).send()?;
                }
            }
        }
        Ok(begin.elapsed().as_nanos() as f64 / BURST as f64)
    }
}

/// Measures both in turn and prints the cost of iceoryx2 / that of shmbus with 32 subscribers, last.
pub(crate) fn run(rounds: usize, json: Option<&Path>) -> Result<()> {
    let scratch = Scratch::new()?;
    let directory = Directory::at(scratch.path())?;
    let node = transports::node(scratch.path())?;
    let mut cases = Vec::new();
    let mut services = Vec::new();
    for count in COUNTS {
        let options = TopicOptions {
            depth: 4096,
            subscribers_max: MOST as u32,
            prefault: true,
            ..Default::default()
        };
        let topic = Topic::<Message>::create_in(&directory, &name(count), &options)?;
        let mut publisher = topic.publisher()?;
        publisher.publish(&[0; 6])?;
        cases.push(("shmbus", count, Any::Shmbus(Box::new(publisher))));
        let service = service(&node, count)?;
        let publisher = service.publisher_builder().create()?;
        cases.push(("iceoryx2", count, Any::Iceoryx2(publisher)));
        services.push(service);
    }
    let idle = Partner::start("idle", "all", scratch.path())?;
    let count = cases.len();
    let mut records = Vec::new();
    let mut costs = vec![Vec::new(); count];
    for (_, _, publisher) in &mut cases {
        publisher.burst()?; // every page
    }
    for round in 0..rounds {
        for turn in 0..count {
            let at = (round + turn) % count;
            let (transport, subscribers, publisher) = &mut cases[at];
            let bursts: Result<Vec<f64>> = (0..BURSTS).map(|_| publisher.burst()).collect();
            let cost_ns = median(&mut bursts?);
            costs[at].push(cost_ns);
            let values = json!({ "publish_ns": cost_ns });
            records.push(raw::record(round, transport, "", *subscribers, values));
        }
    }
    drop(idle);
    println!("a publish of 48 bytes, ns, medians of {rounds} rounds, each of {BURSTS} bursts:");
    let mut last = [f64::NAN; 2];
    for (at, (transport, subscribers, _)) in cases.iter().enumerate() {
        let cost_ns = median(&mut costs[at].clone());
        println!("  {transport:<8} {subscribers:>2} subscribers  {cost_ns:.1}");
        last[at % 2] = cost_ns;
    }
    relate(&mut records);
    if let Some(json) = json {
        raw::write(json, "publish", rounds, &[], &records)?;
    }
    let mut ratios: Vec<f64> =
        costs[count - 1].iter().zip(&costs[count - 2]).map(|(other, ours)| other / ours).collect();
    println!("iceoryx2 / shmbus with {MOST} subscribers: {:.1}", median(&mut ratios));
    Ok(())
}

/// Gives each run its cost / that with one subscriber in the same round.
fn relate(records: &mut [serde_json::Value]) {
    let cost = |record: &serde_json::Value| record["values"]["publish_ns"].as_f64();
    for at in 0..records.len() {
        let is_base = |other: &&serde_json::Value| {
            other["round"] == records[at]["round"]
                && other["case"]["transport"] == records[at]["case"]["transport"]
                && other["case"]["receivers"] == 1
        };
        let base = records.iter().find(is_base).and_then(cost);
        if let (Some(cost), Some(base)) = (cost(&records[at]), base) {
            records[at]["values"]["per_one"] = json!(cost / base);
        }
    }
}

/// In the partner: all subscribers, until standard input ends.
pub(crate) fn idle(path: &Path) -> Result<()> {
    let directory = Directory::at(path)?;
    let node = transports::node(path)?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for count in COUNTS {
        let topic = Topic::<Message>::open_in(&directory, &name(count))?;
        let service = service(&node, count)?;
        for _ in 0..count {
            let mut subscriber = topic.subscriber_from(Delivery::Lossy, Start::Back(1))?;
            subscriber.try_receive()?;
            ours.push(subscriber);
            let subscriber = service.subscriber_builder().create()?;
            subscriber.receive()?; // connects
            theirs.push(subscriber);
        }
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
