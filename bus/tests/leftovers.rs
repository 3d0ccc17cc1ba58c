//! What killed processes left behind is found and removed on demand, and nothing else is.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shmbus::{Delivery, Directory, DirectoryError, LeftoverKind, OpenError, Topic, TopicOptions};
use shmbus_sys::lease::Lease;

fn directory() -> (tempfile::TempDir, Directory) {
    let path = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::at(path.path()).unwrap();
    (path, directory)
}

fn small() -> TopicOptions {
    TopicOptions { depth: 16, subscribers_max: 4, hold_blocks: Some(2), ..Default::default() }
}

/// A draft as a killed creator leaves it: files of 5 bytes each.
fn draft(path: &Path) {
    fs::create_dir_all(path).unwrap();
    for file in ["ctl", "data"] {
        fs::write(path.join(file), b"12345").unwrap();
    }
    fs::write(path.join("live"), b"").unwrap();
}

fn found(directory: &Directory) -> Vec<(String, LeftoverKind, u64)> {
    let relative = |path: &Path| path.strip_prefix(directory.path()).unwrap().display().to_string();
    let leftovers = directory.leftovers().unwrap();
    leftovers.iter().map(|one| (relative(&one.path), one.kind, one.bytes)).collect()
}

#[test]
fn drafts_removals_and_empty_directories_are_left_over_and_topics_are_not() {
    let (path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "md/t", &small()).unwrap();
    assert_eq!(found(&directory), []);
    draft(&path.path().join("md/t/.new-0123456789abcdef"));
    draft(&path.path().join("other/.old-0123456789abcdef"));
    fs::create_dir_all(path.path().join("a/b/c")).unwrap();
    fs::create_dir_all(path.path().join("not a name")).unwrap();
    fs::write(path.path().join("md/file"), "").unwrap();
    assert_eq!(
        found(&directory),
        [
            ("a/b/c".to_owned(), LeftoverKind::EmptyDirectory, 0),
            ("md/t/.new-0123456789abcdef".to_owned(), LeftoverKind::Draft, 10),
            ("other/.old-0123456789abcdef".to_owned(), LeftoverKind::Removal, 10),
        ]
    );
    for leftover in directory.leftovers().unwrap() {
        assert!(directory.remove_leftover(&leftover).unwrap(), "{leftover:?}");
        assert!(!directory.remove_leftover(&leftover).unwrap(), "twice: {leftover:?}");
    }
    assert_eq!(found(&directory), []);
    for gone in ["a", "other", "md/t/.new-0123456789abcdef"] {
        assert!(!path.path().join(gone).exists(), "{gone}");
    }
    for kept in ["not a name", "md/file", "md/t/.topic/data"] {
        assert!(path.path().join(kept).exists(), "{kept}");
    }
    topic.publisher().unwrap().publish(&7).unwrap();
}

#[test]
fn a_draft_whose_creator_lives_is_not_left_over_even_if_it_was_found_before() {
    let (path, directory) = directory();
    let at = path.path().join("t/.new-0123456789abcdef");
    draft(&at);
    let [before] = &directory.leftovers().unwrap()[..] else { panic!("one leftover") };
    let lease = Lease::open_at(File::open(&at).unwrap().as_fd(), "live").unwrap();
    assert!(lease.take(0).unwrap()); // the byte of the creator
    assert_eq!(found(&directory), []);
    assert!(!directory.remove_leftover(before).unwrap());
    assert!(at.join("data").exists());
    drop(lease);
    assert!(directory.remove_leftover(before).unwrap());
    assert!(!path.path().join("t").exists());
}

#[test]
fn a_directory_that_is_empty_no_more_stays() {
    let (path, directory) = directory();
    fs::create_dir_all(path.path().join("a/b")).unwrap();
    let [before] = &directory.leftovers().unwrap()[..] else { panic!("one leftover") };
    Topic::<u64>::create_in(&directory, "a/b", &small()).unwrap();
    assert!(!directory.remove_leftover(before).unwrap());
    assert_eq!(directory.topics().unwrap(), ["a/b"]);
}

#[test]
fn a_directory_of_topics_that_may_not_be_read_is_an_error_and_one_below_it_is_passed_over() {
    let (path, directory) = directory();
    draft(&path.path().join("t/.new-0123456789abcdef"));
    let elsewhere = path.path().join("link");
    std::os::unix::fs::symlink(path.path().join("t"), elsewhere).unwrap();
    assert_eq!(found(&directory).len(), 1); // through the link it would be two
    fs::set_permissions(path.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(directory.leftovers(), Err(DirectoryError::Mode { .. })));
}

#[test]
fn a_sweep_finds_nobody_among_the_living_and_says_why_it_cannot() {
    let (_path, directory) = directory();
    let topic = Topic::<u64>::create_in(&directory, "t", &small()).unwrap();
    let mut publisher = topic.publisher().unwrap();
    let mut subscriber = topic.subscriber(Delivery::Reliable).unwrap();
    assert_eq!(directory.sweep("t").unwrap(), 0);
    publisher.publish(&7).unwrap();
    assert_eq!(*subscriber.receive().unwrap(), 7);
    assert_eq!(directory.inspect("t").unwrap().participants.len(), 2);
    assert!(matches!(directory.sweep("u"), Err(OpenError::NotFound { .. })));
    assert!(matches!(directory.sweep("../t"), Err(OpenError::Name(_))));
}

/// The word that says "removed" counts only in a file that is a topic's.
#[test]
fn what_is_not_a_topic_is_no_leftover_whatever_it_says() {
    let (path, directory) = directory();
    for leaf in [".topic", ".sync"] {
        let home = path.path().join("t").join(leaf);
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("ctl"), [7; 8192]).unwrap();
        assert_eq!(found(&directory), [], "{leaf}");
        fs::remove_dir_all(home).unwrap();
    }
}
