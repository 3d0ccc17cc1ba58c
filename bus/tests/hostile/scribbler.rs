//! The process that writes over everything. It writes through the files: on a tmpfs these are the pages that are mapped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use shmbus::Directory;

use crate::TOPIC;
use crate::processes::{Part, Role};
use crate::random::Random;

pub(crate) const ROLES: &[Part] = &[("scribbler", scribbler)];

const PAGE: u64 = 4096;
const FILES: [&str; 2] = ["data", "ctl"];
/// The word of joins, in `ctl`: with its lowest bit the next who opens the topic takes its files away, as was asked.
const JOINS: u64 = PAGE + 384;

fn open(directory: &Directory, file: &str) -> File {
    let path = directory.path().join(TOPIC).join(".topic").join(file);
    File::options().read(true).write(true).open(path).unwrap()
}

/// The header pages of both files.
pub(crate) fn headers(directory: &Directory) -> [Vec<u8>; 2] {
    FILES.map(|file| {
        let mut page = vec![0; PAGE as usize];
        open(directory, file).read_exact_at(&mut page, 0).unwrap();
        page
    })
}

pub(crate) fn restore(directory: &Directory, headers: &[Vec<u8>; 2]) {
    for (file, page) in FILES.iter().zip(headers) {
        open(directory, file).write_all_at(page, 0).unwrap();
    }
}

/// Until it is killed. Its numbers: a seed, the longest pause in microseconds, and whether the headers are written too.
fn scribbler(role: &Role) {
    let [seed, pause_us, headers_too] = role.numbers();
    let mut random = Random::new(seed);
    let random = &mut random;
    let [data, ctl] = FILES.map(|file| open(&role.directory, file));
    let lens = [&data, &ctl].map(|file| file.metadata().unwrap().len());
    let first = if headers_too != 0 { 0 } else { PAGE };
    loop {
        // Half of the words are in the few that matter most: head and table, and those of the control page and the entries.
        let which = random.below(0..2) as usize;
        let end = if random.one_in(2) { lens[which] } else { lens[which].min(3 * PAGE) };
        let (file, at) = ([&data, &ctl][which], random.below(first..end - 8) & !7);
        if which == 1 && at == JOINS {
            continue;
        }
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at).unwrap();
        let present = u64::from_le_bytes(word);
        let value = match random.below(0..9) {
            0 => 0,
            1 => u64::MAX - random.below(0..64),
            2 => 1 << random.below(0..64),
            3 => random.below(0..64), // a block, in a pin, a hold or a table entry
            4 => random.next() << 16 | random.below(0..64),
            5 => present.wrapping_add(random.below(0..9)).wrapping_sub(4),
            6 => present ^ 1 << random.below(0..64),
            7 => (present & !0xff) | random.below(0..7), // a kind
            _ => random.next(),
        };
        let width = [1, 4, 8][random.below(0..3) as usize];
        file.write_all_at(&value.to_le_bytes()[..width], at).unwrap();
        match pause_us {
            0 => std::thread::yield_now(),
            _ => std::thread::sleep(random.duration(Duration::from_micros(pause_us))),
        }
    }
}
