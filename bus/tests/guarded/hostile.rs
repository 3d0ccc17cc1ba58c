//! A publisher and honest subscribers, while a subscriber of another user tries everything that it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shmbus::{Delivery, GuardedTopic, Policy, Rule, Topic, TopicOptions};

use crate::NAME;
use crate::support::{Player, Served, me};

/// Users that nobody is.
const ATTACKER: u32 = 54_321;
const HONEST: u32 = 54_322;
/// What the policy lets the attacker hold publishers up for.
const PATIENCE: Duration = Duration::from_millis(30);

/// What an attack must have got; where it is not here, anything that harms nobody.
const EXPECTED: &[(&str, &str)] = &[
    ("open data anew for writing", "EACCES"),
    ("open ctl anew for writing", "EACCES"),
    ("map data for writing", "EACCES"),
    ("map ctl for writing", "EACCES"),
    ("map data, then mprotect", "EACCES"),
    ("map ctl, then mprotect", "EACCES"),
    ("write data", "EBADF"),
    ("write ctl", "EBADF"),
    ("punch a hole into data", "EBADF"),
    ("punch a hole into ctl", "EBADF"),
    ("map data, then remove its pages", "EACCES"),
    ("map ctl, then remove its pages", "EACCES"),
    ("take a lease of data", "EACCES"),
    ("take a lease of ctl", "EACCES"),
    ("change the times of data", "EACCES"),
    ("change the times of ctl", "EACCES"),
    ("ask, shut down, and keep the answer", "8 of 1000 answered"),
    ("truncate data", "EINVAL"),
    ("truncate ctl", "EINVAL"),
    ("truncate its page", "EPERM"),
    ("chmod data", "EPERM"),
    ("chmod ctl", "EPERM"),
    ("chmod its page", "EPERM"),
    ("seal data against writing", "EPERM"),
    ("seal ctl against writing", "EPERM"),
    ("seal its page against writing", "EPERM"),
    ("list the broker's descriptors in /proc", "EACCES"),
    ("open the broker's memory", "EACCES"),
    ("take a write lock on ctl", "EBADF"),
    ("72 descriptors with each request", "100 of 100 answered"),
];

#[test]
fn an_attacker_of_another_user_gets_what_the_policy_says_and_nobody_misses_a_message() {
    let options = TopicOptions { depth: 1024, subscribers_max: 8, ..TopicOptions::default() };
    let rule = |uid, publish, patience, subscribers| Rule {
        uids: vec![uid],
        publish,
        patience,
        subscribers,
        ..me(&["md/*"])
    };
    let long = Duration::from_secs(60);
    let rules =
        vec![rule(ATTACKER, false, PATIENCE, 2), rule(HONEST, false, long, 1), me(&["md/*"])];
    let served =
        Served::new(vec![GuardedTopic::create::<u64>(NAME, &options).unwrap()], Policy { rules });
    let attacks = format!("attacks {}", std::process::id());
    let Some(mut honest) = Player::of_user("reads", served.socket(), Some(HONEST)) else {
        return println!("skipped: needs to be root, and a program that others may run");
    };
    let topic = Topic::<u64>::connect(served.socket(), NAME).unwrap();
    honest.line("subscribed.").expect("the honest subscriber joins");
    let mut beside = topic.subscriber(Delivery::Reliable).unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let (longest_ns, published) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let publishing = {
        let (topic, ends) = (topic.clone(), Arc::clone(&ends));
        let (longest_ns, published) = (Arc::clone(&longest_ns), Arc::clone(&published));
        std::thread::spawn(move || {
            let mut publisher = topic.publisher().unwrap();
            for number in 0.. {
                let (end, begin) = (ends.load(Relaxed), Instant::now());
                publisher.publish(&if end { u64::MAX } else { number }).unwrap();
                longest_ns.fetch_max(begin.elapsed().as_nanos() as u64, Relaxed);
                if end {
                    return number;
                }
                published.store(number, Relaxed);
                if number % 16 == 0 {
                    std::thread::yield_now();
                }
                // Whatever locks the attacker keeps, the next publisher gets its lease.
                if number % 20_000 == 19_999 {
                    drop(publisher);
                    publisher = topic.publisher().unwrap();
                }
            }
            unreachable!()
        })
    };
    let receiving = std::thread::spawn(move || {
        for expected in 0.. {
            let sample = beside.receive().unwrap();
            assert_eq!((sample.sequence(), sample.missed_before()), (expected, 0));
            if *sample == u64::MAX {
                return expected;
            }
            assert_eq!(*sample, expected);
        }
        unreachable!()
    });
    let mut attacker = Player::of_user(&attacks, served.socket(), Some(ATTACKER)).unwrap();
    let mut got = Vec::new();
    let (mut before, mut begin) = (published.load(Relaxed), Instant::now());
    while let Some(line) = attacker.line("attack: ") {
        let (attack, result) = line.split_once(" | ").unwrap();
        let count =
            published.load(Relaxed) - std::mem::replace(&mut before, published.load(Relaxed));
        let took = std::mem::replace(&mut begin, Instant::now()).elapsed();
        let longest = Duration::from_nanos(longest_ns.swap(0, Relaxed));
        println!(
            "| {attack} | {result} | {:.0} messages/s, longest publish {longest:.1?} |",
            count as f64 / took.as_secs_f64()
        );
        got.push((attack.to_owned(), result.to_owned()));
        // Others join meanwhile, on pages that the attacker never had.
        topic.subscriber(Delivery::Reliable).unwrap();
    }
    attacker.done();
    ends.store(true, Relaxed);
    let last = publishing.join().unwrap();
    assert_eq!(receiving.join().unwrap(), last, "each message, once, in order");
    assert_eq!(honest.line("received. "), Some(last.to_string()));
    honest.done();
    for (attack, expected) in EXPECTED {
        let result = got.iter().find(|(name, _)| name == attack);
        let (_, result) = result.unwrap_or_else(|| panic!("not tried: {attack}"));
        assert_eq!(result, expected, "{attack}");
    }
}
