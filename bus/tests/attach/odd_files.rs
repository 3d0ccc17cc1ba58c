//! Directories, links, fifos, sockets and nothing at all where a topic or one of its files is expected, and
//! beside it.
#![allow(unsafe_code)] // mkfifo

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{directory, open, small, topic_of};
use shmbus::{Directory, DirectoryError, OpenError, Topic};

/// Puts something else in the place of `path`.
type Replace = fn(&Path);

fn a_directory(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::write(path.join("file"), "x").unwrap();
}

fn a_symlink_to_the_real_one(path: &Path) {
    let aside = path.parent().unwrap().join("aside");
    symlink(aside, path).unwrap();
}

fn a_symlink_to_nothing(path: &Path) {
    symlink("nothing", path).unwrap();
}

fn a_symlink_to_itself(path: &Path) {
    symlink(path, path).unwrap();
}

fn a_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a path that ends in 0.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

fn a_socket(path: &Path) {
    std::os::unix::net::UnixListener::bind(path).unwrap();
}

fn an_empty_file(path: &Path) {
    File::create(path).unwrap();
}

const REPLACEMENTS: &[(&str, Replace)] = &[
    ("a directory", a_directory),
    ("a symlink to the real one", a_symlink_to_the_real_one),
    ("a symlink to nothing", a_symlink_to_nothing),
    ("a symlink to itself", a_symlink_to_itself),
    ("a fifo", a_fifo),
    ("a socket", a_socket),
    ("an empty file", an_empty_file),
    ("nothing", |_| ()),
];

/// What stands in the place of a file of a topic, for each of its files and each replacement.
fn for_each_replacement(mut check: impl FnMut(&Directory, &str, &Path)) {
    for place in ["t/.topic/data", "t/.topic/ctl", "t/.topic"] {
        for (what, replace) in REPLACEMENTS {
            let (_path, directory) = directory();
            topic_of(&directory, "t");
            let path = directory.path().join(place);
            fs::rename(&path, path.parent().unwrap().join("aside")).unwrap();
            replace(&path);
            check(&directory, &format!("{what} in the place of {place}"), &path);
        }
    }
}

#[test]
fn whatever_stands_in_the_place_of_a_topics_file_is_an_error_at_once() {
    for_each_replacement(|directory, label, path| {
        let is_home = path.ends_with(".topic");
        for error in [open(directory, "t").err().unwrap(), directory.inspect("t").unwrap_err()] {
            let expected = match label.split(" in the place").next().unwrap() {
                "nothing" if is_home => matches!(error, OpenError::NotFound { .. }),
                "nothing" => matches!(error, OpenError::Corrupt { .. }),
                "a directory" if is_home => matches!(error, OpenError::Corrupt { .. }),
                _ if is_home => matches!(error, OpenError::Foreign { file: ".topic", .. }),
                "an empty file" => matches!(error, OpenError::Short { len: 0, .. }),
                _ => matches!(error, OpenError::Io { .. }),
            };
            assert!(expected, "{label}: {error:?}");
        }
        // What is known to have been a topic is replaced; what stands in its place is somebody's.
        let is_damaged = ["nothing", "an empty file"].iter().any(|what| label.starts_with(what))
            || label.starts_with("a directory");
        let is_replaced = if is_home { !path.is_file() } else { !path.is_dir() } && is_damaged;
        let created = Topic::<u64>::create_in(directory, "t", &small());
        assert_eq!(created.is_ok(), is_replaced, "{label}: {:?}", created.err());
        _ = Topic::<u64>::open_or_create_in(directory, "t", &small());
        _ = directory.topics().unwrap();
    });
}

#[test]
fn whatever_stands_in_the_place_of_a_topics_file_can_be_removed_by_force() {
    let mut wrong = Vec::new();
    for_each_replacement(|directory, label, _| {
        let nothing_is_there = label == "nothing in the place of t/.topic";
        // Files and links are removed, never a tree that is not a topic's.
        let a_tree = label.starts_with("a directory") && !label.ends_with(".topic");
        if nothing_is_there || a_tree {
            return;
        }
        if let Err(error) = directory.remove("t", true) {
            wrong.push(format!("{label}: {error:?}"));
        }
        _ = fs::remove_dir_all(directory.path().join("t/aside"));
        _ = fs::remove_file(directory.path().join("t/aside"));
        match Topic::<u64>::create_in(directory, "t", &small()) {
            Ok(_) => {
                directory.remove("t", false).unwrap();
                let left = fs::read_dir(directory.path()).unwrap().count();
                if left > 0 {
                    wrong.push(format!("{label}: something is left for ever"));
                }
            }
            Err(error) => wrong.push(format!("{label}: then create says {error:?}")),
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_symlink_is_not_followed_to_a_topic() {
    let (path, directory) = directory();
    topic_of(&directory, "real/t");
    symlink("real", path.path().join("link")).unwrap();
    assert!(open(&directory, "link/t").is_err());
    assert!(Topic::<u64>::create_in(&directory, "link/u", &small()).is_err());
    assert_eq!(directory.topics().unwrap(), ["real/t"]);
    let link = path.path().join("root");
    symlink(path.path(), &link).unwrap();
    assert!(matches!(Directory::at(&link), Err(DirectoryError::Io { .. })));
}

#[test]
fn strange_things_beside_topics_are_passed_over() {
    let (path, directory) = directory();
    topic_of(&directory, "t");
    for (number, (_, replace)) in REPLACEMENTS.iter().enumerate() {
        replace(&path.path().join(format!("strange-{number}")));
    }
    fs::create_dir_all(path.path().join(".hidden/.topic")).unwrap();
    fs::create_dir_all(path.path().join("t/.new-0123456789abcdef")).unwrap(); // of a killed creator
    fs::create_dir_all(path.path().join("t/.old-0123456789abcdef")).unwrap(); // of a killed remover
    assert_eq!(directory.topics().unwrap(), ["t"]);
    directory.remove("t", false).unwrap();
    assert!(!path.path().join("t").exists());
}

#[test]
fn every_name_that_is_listed_is_a_name_that_can_be_asked_for() {
    let (path, directory) = directory();
    topic_of(&directory, "t");
    fs::create_dir_all(path.path().join(".topic")).unwrap();
    fs::create_dir_all(path.path().join("with blank/.topic")).unwrap();
    fs::create_dir_all(path.path().join("x".repeat(201)).join(".topic")).unwrap();
    for name in directory.topics().unwrap() {
        let answer = directory.inspect(&name);
        assert!(!matches!(answer, Err(OpenError::Name(_))), "{name:?}: {answer:?}");
    }
}
