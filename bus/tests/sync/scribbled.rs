//! A file on which somebody writes at random while it is in use: errors, also wrong answers, and no panic, nor a wait beyond its deadline.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use shmbus::sync::LockError;

use crate::processes::{Stage, beat};
use crate::random::Random;
use crate::torture::{Pair, create};
use crate::{Plan, kills};

const NAME: &str = "scribbled/mutex";
/// Header, words, entries, data: of a mutex of eight members.
const LEN: u64 = 11 * 4096;

/// Where something is looked at, or anywhere.
fn place(random: &mut Random) -> u64 {
    let page = random.below(0..LEN / 4096) * 4096;
    match random.below(0..4) {
        0 => page + random.below(0..80),
        1 => page + 4080 + random.below(0..4),
        2 => 4096 + random.below(0..160),
        _ => random.below(0..LEN),
    }
}

pub(crate) fn a_mutex_on_which_somebody_scribbles_answers_in_time(plan: &Plan) {
    let mut random = Random::new(plan.seed);
    let (mut entered, mut refused, mut opened, mut not_opened) = (0u64, 0u64, 0u64, 0u64);
    let rounds = kills(plan, 40).max(3);
    let mut round = 0;
    // Where others have the cores it takes longer until everything has happened once.
    while round < rounds
        || ([entered, refused, opened, not_opened].contains(&0) && round < 50 * rounds)
    {
        round += 1;
        let stage = Stage::new();
        let path = stage.directory.path().join(NAME).join(".sync/ctl");
        let first = create(&stage.directory, NAME);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let done = AtomicBool::new(false);
        let seed = random.next();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new(seed);
                while !done.load(SeqCst) {
                    let value = if random.one_in(3) { 0 } else { random.next() };
                    let len = random.below(1..9) as usize;
                    file.write_all_at(&value.to_le_bytes()[..len], place(&mut random)).unwrap();
                    if random.one_in(4) {
                        std::thread::yield_now();
                    }
                }
            });
            let mut handles = vec![first];
            for _ in 0..60 {
                match Pair::open_in(&stage.directory, NAME) {
                    Ok(mutex) => {
                        opened += 1;
                        handles.push(mutex);
                    }
                    Err(_) => not_opened += 1,
                }
                for mutex in &handles {
                    match mutex.lock_timeout(Duration::from_micros(300)) {
                        Ok(mut guard) => {
                            entered += 1;
                            guard[0] += guard[1] & 1;
                        }
                        Err(LockError::OwnerDied(mut guard)) => {
                            entered += 1;
                            guard.mark_consistent();
                        }
                        Err(LockError::Failed(_)) => refused += 1,
                    }
                }
                if handles.len() > 4 {
                    handles.remove(random.below(0..4) as usize);
                }
                beat();
            }
            done.store(true, SeqCst);
        });
        let _ = stage.directory.remove_sync(NAME, true);
    }
    println!("  {entered} times in, {refused} not; opened {opened} times, {not_opened} not");
    assert!(entered > 0 && refused > 0 && opened > 0 && not_opened > 0, "scribbled in vain");
}
