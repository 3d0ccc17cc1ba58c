//! Several processes that open, create and remove one name at the same time.
#![allow(unsafe_code)] // fcntl

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::{Player, directory, role, say, small, tree};
use shmbus::{
    AttachError, CreateError, Delivery, Directory, LeftoverKind, OpenError, ReceiveError,
    RemoveError, Start, Topic, TopicOptions,
};

#[test]
fn whoever_opens_or_creates_a_name_at_the_same_time_gets_the_same_topic() {
    const PROCESSES: usize = 8;
    const ROUNDS: u64 = 50;
    let (path, directory) = directory();
    let mut players: Vec<Player> =
        (0..PROCESSES).map(|_| Player::new(role("opener", path.path()))).collect();
    for player in &mut players {
        assert_eq!(player.hear(), "here");
    }
    for round in 0..ROUNDS {
        players.iter_mut().for_each(|player| player.tell("open"));
        players.iter_mut().for_each(|player| assert_eq!(player.hear(), "opened"));
        let publisher = round as usize % PROCESSES;
        players[publisher].tell("publish");
        assert_eq!(players[publisher].hear(), "published");
        players.iter_mut().for_each(|player| player.tell("receive"));
        for player in &mut players {
            assert_eq!(player.hear(), format!("received {round}"));
        }
        assert_eq!(directory.topics().unwrap(), ["race/t"]);
        let left = tree(path.path());
        let expected = [
            "race",
            "race/t",
            "race/t/.topic",
            "race/t/.topic/ctl",
            "race/t/.topic/data",
            "race/t/.topic/live",
        ];
        assert_eq!(left, expected.iter().map(|name| path.path().join(name)).collect());
        directory.remove("race/t", true).unwrap();
        assert_eq!(tree(path.path()), BTreeSet::new());
    }
    players.iter_mut().for_each(Player::ends_well);
}

pub(super) fn play_opener(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let mut round = 0_u64;
    let mut open = None;
    say("here");
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "open" => {
                drop(open.take());
                let topic =
                    Topic::<u64>::open_or_create_in(&directory, "race/t", &small()).unwrap();
                let subscriber = topic.subscriber(Delivery::Reliable).unwrap();
                open = Some((topic, subscriber));
                say("opened");
            }
            "publish" => {
                let (topic, _) = open.as_ref().unwrap();
                topic.publisher().unwrap().publish(&round).unwrap();
                say("published");
            }
            "receive" => {
                let (_, subscriber) = open.as_mut().unwrap();
                let received = subscriber.try_receive().unwrap().map(|sample| *sample);
                match received {
                    Some(message) => say(&format!("received {message}")),
                    None => say("received nothing: another topic of the same name"),
                }
                round += 1;
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_a_living_creator_builds_is_left_alone_and_what_a_dead_one_left_is_removed() {
    let (path, directory) = directory();
    let draft = path.path().join("t/.new-0123456789abcdef");
    fs::create_dir_all(&draft).unwrap();
    let live = fs::File::create(draft.join("live")).unwrap();
    let lease = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0, // the byte of the creator
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: an open descriptor, and a lock that is valid for reads.
    let taken = unsafe { libc::fcntl(live.as_raw_fd(), libc::F_OFD_SETLK, &raw const lease) };
    assert_eq!(taken, 0);
    Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    directory.remove("t", false).unwrap();
    assert!(draft.join("live").exists());
    drop(live);
    Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    assert!(!draft.exists());
}

#[test]
fn creating_and_removing_at_the_same_time_is_never_more_than_a_typed_error() {
    let (path, directory) = directory();
    let mut players: Vec<Player> =
        (0..4).map(|_| Player::new(role("churner", path.path()))).collect();
    let mut made = 0;
    for player in &mut players {
        made += player.hear().parse::<u32>().unwrap();
        player.ends_well();
    }
    assert!(made > 0);
    _ = directory.remove("x/t", true);
    Topic::<u64>::create_in(&directory, "x/t", &small()).unwrap(); // removes what was left
    directory.remove("x/t", false).unwrap();
    assert_eq!(tree(path.path()), BTreeSet::new());
}

/// Who takes part is never removed without force, and never told so; who comes too late is told at once.
#[test]
fn who_has_joined_is_not_removed_without_force() {
    const ROUNDS: u32 = 1500;
    let (_path, directory) = directory();
    let options = TopicOptions { depth: 4, subscribers_max: 1, ..small() };
    let is_over = AtomicBool::new(false);
    let mut joined = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                match directory.remove("t", false) {
                    Ok(()) | Err(RemoveError::InUse { .. }) => {}
                    Err(RemoveError::Open(
                        OpenError::NotFound { .. } | OpenError::Retired { .. },
                    )) => std::thread::yield_now(),
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        let _over = Over(&is_over);
        for round in 0..ROUNDS {
            let topic = Topic::<u64>::open_or_create_in(&directory, "t", &options).unwrap();
            match topic.subscriber(Delivery::Lossy) {
                Ok(mut subscriber) => {
                    joined += 1;
                    for _ in 0..4 {
                        std::thread::yield_now();
                    }
                    assert!(subscriber.try_receive().is_ok(), "round {round}: removed in use");
                    assert_eq!(directory.topics().unwrap(), ["t"]);
                    drop(topic);
                }
                Err(AttachError::Retired) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    });
    assert!(joined > 0);
}

/// What a remover leaves that is killed, at each of its steps: the next one does the rest, and nobody takes it for damage.
#[test]
fn a_half_removed_topic_is_removed_by_whoever_comes_next() {
    fn begin(home: &Path, steps: usize) {
        let ctl = fs::OpenOptions::new().write(true).open(home.join("ctl")).unwrap();
        ctl.write_all_at(&[1], 4096 + 384).unwrap(); // `docs/layout.md`: joins, the bit "retired"
        let mode = fs::metadata(home).unwrap().permissions().mode();
        fs::set_permissions(home, fs::Permissions::from_mode(mode | 0o4000)).unwrap();
        for file in ["data", "live", "ctl"].iter().take(steps) {
            fs::remove_file(home.join(file)).unwrap();
        }
    }
    let (path, directory) = directory();
    let home = path.path().join("t/.topic");
    for (steps, next) in (0..=3).flat_map(|steps| (0..6).map(move |next| (steps, next))) {
        let old = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
        let mut subscriber = old.subscriber(Delivery::Lossy).unwrap();
        begin(&home, steps);
        assert!(matches!(directory.inspect("t"), Err(OpenError::Retired { .. })), "{steps}");
        let observed = directory.observe("t", Start::Oldest).err().unwrap();
        assert!(matches!(observed, AttachError::Open(OpenError::Retired { .. })), "{steps}");
        assert!(matches!(old.publisher().err().unwrap(), AttachError::Retired), "{steps}");
        assert!(home.exists(), "who only looks changes nothing");
        let [left] = &directory.leftovers().unwrap()[..] else { panic!("{steps}") };
        assert_eq!((&left.path, left.kind), (&home, LeftoverKind::Removal));
        match next {
            0 => drop(Topic::<u64>::create_in(&directory, "t", &small()).unwrap()),
            1 => drop(Topic::<u64>::open_or_create_in(&directory, "t", &small()).unwrap()),
            2 => {
                let opened = Topic::<u64>::open_in(&directory, "t").err().unwrap();
                assert!(matches!(opened, OpenError::Retired { .. }), "{steps}: {opened:?}");
            }
            3 => {
                let removed = directory.remove("t", false).unwrap_err();
                let is_told = matches!(removed, RemoveError::Open(OpenError::Retired { .. }));
                assert!(is_told, "{steps}: {removed:?}");
            }
            4 => directory.remove("t", true).unwrap(),
            _ => assert!(directory.remove_leftover(left).unwrap()),
        }
        if next < 2 {
            assert!(Topic::<u64>::open_in(&directory, "t").is_ok(), "{steps}, {next}: a new one");
            directory.remove("t", false).unwrap();
        }
        assert!(!home.exists(), "{steps}, {next}: something is left");
        if steps < 3 || old.info().retired {
            assert_eq!(subscriber.try_receive().err(), Some(ReceiveError::Retired));
        }
    }
}

pub(super) fn play_churner(path: &Path) {
    let directory = Directory::at(path).unwrap();
    let mut made = 0;
    let mut wrong = Vec::new();
    for number in 0..300_u64 {
        match Topic::<u64>::create_in(&directory, "x/t", &small()) {
            Ok(_) => made += 1,
            Err(CreateError::Exists { .. }) => {}
            Err(CreateError::Open(OpenError::Retired { .. } | OpenError::NotFound { .. })) => {}
            Err(error) => wrong.push(format!("create: {error:?}")),
        }
        match Topic::<u64>::open_or_create_in(&directory, "x/t", &small()) {
            Ok(topic) => match (topic.publisher(), topic.subscriber(Delivery::Lossy)) {
                (Ok(mut publisher), Ok(mut subscriber)) => {
                    _ = publisher.try_publish(&number);
                    _ = subscriber.try_receive().map(|_| ());
                }
                _ => continue,
            },
            Err(CreateError::Exists { .. }) => {}
            Err(CreateError::Open(OpenError::Retired { .. } | OpenError::NotFound { .. })) => {}
            Err(error) => wrong.push(format!("open_or_create: {error:?}")),
        }
        match directory.remove("x/t", !number.is_multiple_of(3)) {
            Ok(()) | Err(RemoveError::InUse { .. }) => {}
            Err(RemoveError::Open(OpenError::NotFound { .. } | OpenError::Retired { .. })) => {}
            Err(error) => wrong.push(format!("remove: {error:?}")),
        }
    }
    say(&made.to_string());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Ends the other thread, also if this one panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
