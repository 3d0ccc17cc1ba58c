//! Topics that are used again and again: made once per process, and set back to their first bytes for every execution.
//!
//! They are real files in `/dev/shm` with real leases, opened twice, as two processes would; an execution makes a few `fcntl`
//! calls and no other. The files are mapped here a third time, to change words under the handles and to see entries.
#![allow(unsafe_code)] // the words of the mapping

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use shmbus::{Directory, Publishers, Topic, TopicInfo, TopicOptions, Wake};
use shmbus_sys::map::Mapping;

pub const LEN_MAX: usize = 40;
const PAGE: usize = 4096;
const WORDS_PAGE: usize = PAGE / 8;
/// Words of an entry, and where they stand in it.
pub const ENTRY_WORDS: usize = 64;
pub const CLAIM: usize = 4;

/// Depth, subscribers, hold blocks, shared publishers (0: exclusive), timeout of claims in ns, time in slots.
const SHAPES: [(u64, u32, u32, u32, u64, bool); 8] = [
    (4, 3, 0, 0, 0, false),
    (16, 2, 1, 0, 0, true),
    (64, 3, 2, 0, 0, false),
    (256, 4, 3, 0, 0, true),
    (4, 2, 1, 2, 1_000_000, false),
    (32, 3, 2, 3, 0, true),
    (64, 2, 1, 2, 20_000_000, false),
    (256, 3, 2, 3, 1_000_000, false),
];

/// One topic, opened by two "processes".
pub struct Stage {
    pub topics: [Topic<[u8]>; 2],
    pub info: TopicInfo,
    pub publishers_max: u32,
    pub shared: bool,
    data: Mapping,
    ctl: Mapping,
    /// What the table of a new topic says.
    table: Vec<u64>,
}

/// All of them, and the directory that vanishes with the process.
pub struct Stages {
    all: Vec<Stage>,
    _path: tempfile::TempDir,
}

pub fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::Builder::new().prefix("shmbus-fuzz-").tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

pub fn options(shape: usize) -> TopicOptions {
    let (depth, subscribers_max, hold_blocks, shared, claim_timeout_ns, timestamp) =
        SHAPES[shape % SHAPES.len()];
    TopicOptions {
        depth,
        subscribers_max,
        hold_blocks: Some(hold_blocks),
        publishers: if shared == 0 { Publishers::Exclusive } else { Publishers::Shared(shared) },
        claim_timeout: Duration::from_nanos(claim_timeout_ns),
        max_len: LEN_MAX as u32,
        timestamp,
        wake: Wake::Fence,
        ..Default::default()
    }
}

impl Stages {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Stages {
        let (path, directory) = directory();
        let all = (0..SHAPES.len()).map(|shape| Stage::new(&directory, shape)).collect();
        Stages { all, _path: path }
    }

    /// A topic of one of the shapes, as new.
    pub fn get(&self, choice: usize) -> &Stage {
        let stage = &self.all[choice % self.all.len()];
        stage.reset();
        stage
    }
}

impl Stage {
    fn new(directory: &Directory, shape: usize) -> Stage {
        let options = options(shape);
        let name = format!("t{shape}");
        let topic = Topic::<[u8]>::create_in(directory, &name, &options).unwrap();
        let info = topic.info();
        let map = |file: &str| {
            let path = directory.path().join(&name).join(".topic").join(file);
            let file = File::options().read(true).write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len() as usize;
            Mapping::read_write(file.as_fd(), len).unwrap()
        };
        let (data, ctl) = (map("data"), map("ctl"));
        let (publishers_max, shared) = match options.publishers {
            Publishers::Exclusive => (1, false),
            Publishers::Shared(max) => (max, true),
        };
        let topics =
            core::array::from_fn(|_| shmbus::internals::open_writable(directory, &name).unwrap());
        let mut stage =
            Stage { topics, info, publishers_max, shared, data, ctl, table: Vec::new() };
        stage.table = (0..stage.info.blocks as usize)
            .map(|index| stage.data()[2 * WORDS_PAGE + index].load(Relaxed))
            .collect();
        stage
    }

    /// The words of the file `data`.
    pub fn data(&self) -> &[AtomicU64] {
        words(&self.data)
    }

    /// The words of the file `ctl`.
    pub fn ctl(&self) -> &[AtomicU64] {
        words(&self.ctl)
    }

    /// The words behind the headers are as they were when the topic was made. Nobody is attached.
    fn reset(&self) {
        for word in self.data()[WORDS_PAGE..].iter().chain(&self.ctl()[WORDS_PAGE..]) {
            word.store(0, Relaxed);
        }
        for (index, word) in self.table.iter().enumerate() {
            self.data()[2 * WORDS_PAGE + index].store(*word, Relaxed);
        }
    }

    pub fn head(&self) -> &AtomicU64 {
        &self.data()[WORDS_PAGE]
    }

    /// The word in which a remover says that the topic is gone.
    pub fn retired(&self) -> &AtomicU64 {
        &self.ctl()[WORDS_PAGE + 3 * 128 / 8]
    }

    pub fn participants(&self) -> u32 {
        self.publishers_max + self.info.subscribers_max
    }

    pub fn entry(&self, index: u32) -> &[AtomicU64] {
        let first = 2 * WORDS_PAGE + index as usize * ENTRY_WORDS;
        &self.ctl()[first..first + ENTRY_WORDS]
    }

    pub fn states(&self) -> Vec<u64> {
        (0..self.participants()).map(|index| self.entry(index)[0].load(Relaxed)).collect()
    }

    /// Lets the owner of an entry die: `end` drops its handles, which gives the lease back, and the entry says again what it said before.
    pub fn kill(&self, index: u32, end: impl FnOnce()) {
        let entry = self.entry(index);
        let before: [u64; ENTRY_WORDS] = core::array::from_fn(|word| entry[word].load(Relaxed));
        end();
        for (word, before) in entry.iter().zip(before) {
            word.store(before, Relaxed);
        }
    }
}

fn words(mapping: &Mapping) -> &[AtomicU64] {
    let first = mapping.base().cast::<AtomicU64>().as_ptr();
    // SAFETY: a mapping is page-aligned and whole pages long, of a file that nobody cuts, and lives as long as the borrow; every byte is a
    // valid atomic. Payload bytes that a sample shows are changed only by `corrupt`, which reads them through no reference meanwhile.
    unsafe { core::slice::from_raw_parts(first, mapping.len() / 8) }
}
