//! What each operation costs within one process, by payload: `cargo bench -p shmbus-bench --bench operations [-- FILTER]`.
//!
//! Nobody else runs: what caches and cores cost each other is for measurements with two processes. On a busy machine read the instruction counts instead
//! (`--bench instructions`).

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use shmbus::{Delivery, Directory, Publishers, Start, Topic, TopicOptions, Wake};

const PAYLOADS: [usize; 5] = [8, 64, 1 << 10, 64 << 10, 1 << 20];

/// A topic of bytes with room for one message of `len`, in a directory of its own.
struct Scratch {
    topic: Topic<[u8]>,
    _folder: tempfile::TempDir,
}

impl Scratch {
    fn new(options: TopicOptions) -> Scratch {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = Directory::at(folder.path()).unwrap();
        let topic = Topic::create_in(&directory, "bench", &options).unwrap();
        Scratch { topic, _folder: folder }
    }
}

/// About as many messages as fit 16 MiB, 1,024 at most.
fn options(len: usize) -> TopicOptions {
    let depth = (16 << 20 >> len.ilog2()).clamp(16, 1024);
    let hold_blocks = Some(2);
    let max_len = len as u32;
    TopicOptions {
        depth,
        max_len,
        hold_blocks,
        subscribers_max: 2,
        prefault: true,
        ..Default::default()
    }
}

fn publish(criterion: &mut Criterion) {
    for (kind, publishers) in
        [("exclusive", Publishers::Exclusive), ("shared", Publishers::Shared(2))]
    {
        let mut group = criterion.benchmark_group(format!("publish {kind}"));
        for len in PAYLOADS {
            let scratch = Scratch::new(TopicOptions { publishers, ..options(len) });
            let mut publisher = scratch.topic.publisher().unwrap();
            let message = vec![7; len];
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new("copied", len), |bench| {
                bench.iter(|| publisher.publish(black_box(&message)).unwrap());
            });
            // Nothing is written in it: the cost of the hand-over, whatever the size.
            group.bench_function(BenchmarkId::new("loan + commit", len), |bench| {
                bench.iter(|| publisher.loan(black_box(len)).unwrap().commit().unwrap());
            });
        }
    }
}

fn receive(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish a loan and");
    for len in PAYLOADS {
        let scratch = Scratch::new(options(len));
        let mut publisher = scratch.topic.publisher().unwrap();
        for delivery in [Delivery::Lossy, Delivery::Reliable] {
            let mut subscriber = scratch.topic.subscriber(delivery).unwrap();
            let name = format!("receive it, {delivery:?}").to_lowercase();
            group.bench_function(BenchmarkId::new(name, len), |bench| {
                bench.iter(|| {
                    publisher.loan(len).unwrap().commit().unwrap();
                    black_box(subscriber.try_receive().unwrap().unwrap().sequence())
                });
            });
        }
        let mut subscriber = scratch.topic.subscriber(Delivery::Lossy).unwrap();
        group.bench_function(BenchmarkId::new("receive, hold and drop it", len), |bench| {
            bench.iter(|| {
                publisher.loan(len).unwrap().commit().unwrap();
                drop(subscriber.try_receive().unwrap().unwrap().hold().unwrap());
            });
        });
    }
    group.finish();
    let scratch = Scratch::new(options(64));
    let mut subscriber = scratch.topic.subscriber(Delivery::Lossy).unwrap();
    criterion.bench_function("receive nothing", |bench| {
        bench.iter(|| assert!(subscriber.try_receive().unwrap().is_none()));
    });
}

/// Every publish opens a block: beside `publish exclusive/copied/64`, in which one of 64 does.
fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish that opens a block");
    for count in [0, 1, 64] {
        let scratch = Scratch::new(TopicOptions {
            depth: 64,
            max_len: 64,
            subscribers_max: 64,
            ..Default::default()
        });
        let mut publisher = scratch.topic.publisher().unwrap();
        publisher.publish(&[7; 64]).unwrap();
        let mut idle = Vec::new();
        for _ in 0..count {
            let mut subscriber =
                scratch.topic.subscriber_from(Delivery::Lossy, Start::Oldest).unwrap();
            subscriber.try_receive().unwrap();
            idle.push(subscriber);
        }
        group.bench_function(BenchmarkId::new("idle subscribers", count), |bench| {
            bench.iter(|| publisher.publish(black_box(&[7; 64])).unwrap());
        });
    }
}

/// Nobody sleeps: what it costs to find that out.
fn bell(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish, wake");
    for wake in [Wake::Fence, Wake::Auto, Wake::Never] {
        let scratch = Scratch::new(TopicOptions { wake, ..options(64) });
        let mut publisher = scratch.topic.publisher().unwrap();
        group.bench_function(format!("{wake:?}").to_lowercase(), |bench| {
            bench.iter(|| publisher.publish(black_box(&[7; 64])).unwrap());
        });
    }
}

fn attach(criterion: &mut Criterion) {
    let scratch = Scratch::new(options(64));
    criterion.bench_function("attach a subscriber and leave", |bench| {
        bench.iter(|| drop(scratch.topic.subscriber(Delivery::Reliable).unwrap()));
    });
    criterion.bench_function("attach a publisher and leave", |bench| {
        bench.iter(|| drop(scratch.topic.publisher().unwrap()));
    });
}

criterion_group!(benches, publish, receive, opening, bell, attach);
criterion_main!(benches);
