//! Whose directory, with which mode, and which one at all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::{Player, directory, effective_uid, is_root, role, small};
use shmbus::{
    AttachError, CreateError, Directory, DirectoryError, OpenError, PathSource, RemoveError, Start,
    Topic,
};

#[test]
fn a_directory_that_everybody_may_write_is_refused() {
    let (path, _) = directory();
    let set = |mode| fs::set_permissions(path.path(), fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o777, 0o1777, 0o702, 0o707] {
        set(mode);
        let error = Directory::at(path.path()).unwrap_err();
        assert!(
            matches!(error, DirectoryError::Mode { mode: found, .. } if found == mode),
            "{error:?}"
        );
    }
    for mode in [0o775, 0o770, 0o755, 0o700] {
        set(mode);
        Directory::at(path.path()).unwrap();
    }
    let directory = Directory::at(path.path()).unwrap();
    set(0o777); // later, and looked at again
    let created = Topic::<u64>::create_in(&directory, "t", &small());
    assert!(matches!(created, Err(CreateError::Directory(DirectoryError::Mode { .. }))));
    let opened = Topic::<u64>::open_in(&directory, "t");
    assert!(matches!(opened, Err(OpenError::Directory(DirectoryError::Mode { .. }))));
    assert!(matches!(directory.topics(), Err(DirectoryError::Mode { .. })));
    let removed = directory.remove("t", true);
    assert!(matches!(removed, Err(RemoveError::Open(OpenError::Directory(_)))));
}

#[test]
fn a_directory_of_another_user_can_be_observed_if_it_was_named_and_nothing_else() {
    if !is_root() {
        return eprintln!("skipped: giving a directory away takes root");
    }
    let (path, directory) = directory();
    Topic::<u64>::create_in(&directory, "t", &small()).unwrap().publisher().unwrap();
    if chown(path.path(), Some(1234), Some(0)).is_err() {
        return eprintln!("skipped: this root may not give files away");
    }
    let directory = Directory::at(path.path()).unwrap();
    assert_eq!(directory.topics().unwrap(), ["t"]);
    assert_eq!(directory.inspect("t").unwrap().name, "t");
    assert!(directory.observe("t", Start::Oldest).unwrap().try_next().unwrap().is_none());
    assert!(directory.leftovers().unwrap().is_empty());
    let is_owner =
        |error: &DirectoryError| matches!(error, DirectoryError::Owner { uid: 1234, euid: 0, .. });
    let created = Topic::<u64>::create_in(&directory, "u", &small()).err().unwrap();
    assert!(matches!(&created, CreateError::Directory(error) if is_owner(error)), "{created:?}");
    let opened = Topic::<u64>::open_in(&directory, "t").err().unwrap();
    assert!(matches!(&opened, OpenError::Directory(error) if is_owner(error)), "{opened:?}");
    let removed = directory.remove("t", true).unwrap_err();
    assert!(matches!(&removed, RemoveError::Open(OpenError::Directory(error)) if is_owner(error)));
    let swept = directory.sweep("t").unwrap_err();
    assert!(matches!(&swept, OpenError::Directory(error) if is_owner(error)), "{swept:?}");
    // Anybody may have made the one that nobody has named.
    for source in [PathSource::Fallback, PathSource::RuntimeDir] {
        let error = Directory::named(path.path(), source).topics().unwrap_err();
        assert!(is_owner(&error), "{error:?}");
    }
}

#[test]
fn reading_makes_no_directory_and_finds_nothing_where_there_is_none() {
    let (path, _) = directory();
    let missing = path.path().join("missing");
    let directory = Directory::named(&missing, PathSource::Given);
    assert!(directory.topics().unwrap().is_empty() && directory.sync_objects().unwrap().is_empty());
    assert!(directory.leftovers().unwrap().is_empty());
    let not_found = |error: &OpenError| matches!(error, OpenError::NotFound { .. });
    assert!(not_found(&directory.inspect("t").unwrap_err()));
    assert!(not_found(&directory.sweep("t").unwrap_err()));
    assert!(not_found(&Topic::<u64>::open_in(&directory, "t").err().unwrap()));
    let observed = directory.observe("t", Start::Oldest).err().unwrap();
    assert!(matches!(observed, AttachError::Open(OpenError::NotFound { .. })), "{observed:?}");
    assert!(
        matches!(directory.remove("t", true), Err(RemoveError::Open(error)) if not_found(&error))
    );
    assert!(!missing.exists());
    Topic::<u64>::open_or_create_in(&directory, "t", &small()).unwrap();
    assert_eq!(fs::metadata(&missing).unwrap().permissions().mode() & 0o7777, 0o700);
    // Below a path that is wrong there can be nothing.
    let error = Directory::named(path.path().join("a/b"), PathSource::Given).topics().unwrap_err();
    assert!(matches!(error, DirectoryError::Io { action: "open it", .. }), "{error:?}");
}

#[test]
fn a_missing_directory_is_made_for_its_owner_alone_and_only_the_last_one() {
    let (path, _) = directory();
    let made = path.path().join("made");
    Directory::at(&made).unwrap();
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o700);
    Directory::at(&made).unwrap();
    let error = Directory::at(path.path().join("a/b")).unwrap_err();
    assert!(matches!(error, DirectoryError::Io { action: "open it", .. }), "{error:?}");
    fs::write(path.path().join("file"), "").unwrap();
    for wrong in [Path::new(""), &path.path().join("file"), &path.path().join("file/below")] {
        let error = Directory::at(wrong).unwrap_err();
        assert!(matches!(error, DirectoryError::Io { .. }), "{error:?}");
    }
    fs::remove_dir(&made).unwrap(); // while a `Directory` names it
}

#[test]
fn the_directory_is_the_one_that_the_environment_names() {
    let (path, _) = directory();
    let (own, runtime) = (path.path().join("own"), path.path().join("runtime"));
    fs::create_dir(&runtime).unwrap();
    let fallback = PathBuf::from(format!("/dev/shm/shmbus-{}", effective_uid()));
    let fallback_was_there = fallback.exists();
    let from = |shmbus: Option<&Path>, xdg: Option<&Path>| {
        let mut player = role("from_env", Path::new(""));
        player.env_remove("SHMBUS_DIR").env_remove("XDG_RUNTIME_DIR");
        player.envs(shmbus.map(|value| ("SHMBUS_DIR", value)));
        player.envs(xdg.map(|value| ("XDG_RUNTIME_DIR", value)));
        Player::new(player).hear()
    };
    let ok = |path: &Path| format!("Ok({path:?})");
    let empty = Some(Path::new(""));
    let disk = Some(Path::new("/proc"));
    assert_eq!(from(Some(&own), Some(&runtime)), ok(&own));
    assert_eq!(from(Some(&own), None), ok(&own));
    assert!(from(disk, Some(&runtime)).starts_with("Err(NotTmpfs"), "it was asked for by name");
    assert_eq!(from(None, Some(&runtime)), ok(&runtime.join("shmbus")));
    assert_eq!(from(empty, Some(&runtime)), ok(&runtime.join("shmbus")));
    for other in [None, empty, disk, Some(&*path.path().join("missing"))] {
        assert_eq!(from(empty, other), ok(&fallback));
    }
    if is_root() && chown(&runtime, Some(1234), None).is_ok() {
        fs::remove_dir(runtime.join("shmbus")).unwrap();
        assert_eq!(from(empty, Some(&runtime)), ok(&fallback), "it is another user's");
        assert!(!runtime.join("shmbus").exists());
    }
    if !fallback_was_there {
        _ = fs::remove_dir(&fallback); // unless somebody uses it by now
    }
}
