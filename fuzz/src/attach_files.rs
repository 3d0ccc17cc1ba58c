//! The same through the files: bytes and lengths of a topic's two files are changed, then everything that opens a topic is tried.

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use shmbus::{Delivery, Directory, Start, Topic};

use crate::input::Input;
use crate::stage;

const NAME: &str = "t";

/// A topic per shape and what its files say when it is new.
struct Files {
    _path: tempfile::TempDir,
    directory: Directory,
    data: (File, Vec<u8>),
    ctl: (File, Vec<u8>),
}

impl Files {
    fn new(shape: usize) -> Files {
        let (path, directory) = stage::directory();
        drop(Topic::<[u8]>::create_in(&directory, NAME, &stage::options(shape)).unwrap());
        let open = |file: &str| {
            let path = directory.path().join(NAME).join(".topic").join(file);
            let bytes = std::fs::read(&path).unwrap();
            (File::options().read(true).write(true).open(path).unwrap(), bytes)
        };
        let (data, ctl) = (open("data"), open("ctl"));
        Files { _path: path, directory, data, ctl }
    }

    fn restore(&self) {
        for (file, bytes) in [&self.data, &self.ctl] {
            file.set_len(bytes.len() as u64).unwrap();
            file.write_all_at(bytes, 0).unwrap();
        }
    }
}

thread_local! {
    static FILES: OnceCell<Vec<Files>> = const { OnceCell::new() };
}

pub fn run(input: &[u8]) {
    FILES.with(|files| {
        let files = files.get_or_init(|| [0, 1, 4, 5].map(Files::new).into());
        let mut input = Input(input);
        let files = &files[input.below(4)];
        files.restore();
        while !input.is_empty() {
            change(files, &mut input);
        }
        use_it(&files.directory);
    });
}

fn change(files: &Files, input: &mut Input<'_>) {
    let what = input.byte();
    let (file, bytes) = if what & 1 == 0 { &files.data } else { &files.ctl };
    let len = bytes.len() as u64;
    let value = match input.below(4) {
        0 => u64::from(input.byte()),
        1 => 1 << (input.byte() % 64),
        2 => u64::MAX - u64::from(input.byte()),
        _ => input.word(),
    };
    let width = input.of(&[1, 4, 8]);
    let write = |at: u64| file.write_all_at(&value.to_le_bytes()[..width], at).unwrap();
    match what >> 1 {
        0..=63 => write(u64::from(what >> 1) * 4), // header
        64..=79 => write(4096 + u64::from(input.byte()) * 8), // head; bells and notices
        80..=109 => write(8192 + u64::from(input.byte()) * 8), // table; entries
        110..=119 => write((4096 + input.word() % (len - 4096)) & !7), // anywhere
        120..=125 => file.set_len(input.word() % (2 * len)).unwrap(),
        _ => file.set_len(len + u64::from(input.byte())).unwrap(),
    }
}

/// Nothing in here panics; what it says is looked at, so that it is computed.
fn use_it(directory: &Directory) {
    let mut said = 0;
    said += directory.inspect(NAME).map_or(1, |info| info.participants.len());
    said += directory.topics().map_or(1, |names| names.len());
    _ = Topic::<u64>::open_in(directory, NAME).map(|topic| topic.info());
    _ = Topic::<[u32; 10]>::open_in(directory, NAME).map(|topic| topic.info());
    let topic = match Topic::<[u8]>::open_in(directory, NAME) {
        Ok(topic) => topic,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let mut early = topic.subscriber_from(Delivery::Lossy, Start::Oldest);
    let mut publisher = topic.publisher();
    let mut late = topic.subscriber_from(Delivery::Reliable, Start::Back(3));
    for round in 0..6 {
        if let Ok(publisher) = &mut publisher {
            said += usize::from(publisher.try_publish(&[round; 7]).is_ok());
        }
        for subscriber in [&mut early, &mut late].into_iter().flatten() {
            if let Ok(Some(sample)) = subscriber.try_receive() {
                said += sample.iter().map(|byte| usize::from(*byte)).sum::<usize>();
            }
        }
    }
    std::hint::black_box(said);
}
