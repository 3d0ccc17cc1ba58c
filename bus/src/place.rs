//! Which directory topics live in, what decided for it, whom it must belong to, and the names in it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shmbus_sys::{is_passing, shm};

use crate::directory::{self, SYNC, TOPIC, TopicName};
use crate::error::DirectoryError;

/// A directory that holds topics.
///
/// Whoever may write it decides what a name means. To create or join a topic, it must belong to the caller or to root, and not be open to
/// everybody. A directory of another user can be observed, if the caller named it; the caller trusts that user then not to cut files that are
/// observed, which would be a `SIGBUS`.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    source: PathSource,
}

/// What decides where topics live. Displayed, it says so in a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathSource {
    /// The caller, who named the path.
    Given,
    /// `$SHMBUS_DIR`
    ShmbusDir,
    /// `$XDG_RUNTIME_DIR`, which is in memory and belongs to this user.
    RuntimeDir,
    /// Neither of them is of use: `XDG_RUNTIME_DIR` is not set, or no directory in memory.
    Fallback,
    /// The same place, because `XDG_RUNTIME_DIR` belongs to another user: after `su`, for example.
    ForeignRuntimeDir {
        /// That user.
        uid: u32,
    },
}

impl fmt::Display for PathSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathSource::Given => f.write_str("as given"),
            PathSource::ShmbusDir => f.write_str("SHMBUS_DIR"),
            PathSource::RuntimeDir => f.write_str("XDG_RUNTIME_DIR, as SHMBUS_DIR is not set"),
            PathSource::Fallback => {
                f.write_str("SHMBUS_DIR is not set, XDG_RUNTIME_DIR is not in memory")
            }
            PathSource::ForeignRuntimeDir { uid } => {
                write!(f, "SHMBUS_DIR is not set, XDG_RUNTIME_DIR belongs to uid {uid}")
            }
        }
    }
}

/// What a directory that exists is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read along: it may belong to anybody, if the caller named it.
    Observe,
    /// To take part or to remove: it must belong to the caller or to root.
    Join,
}

impl Directory {
    /// `$SHMBUS_DIR`; else `$XDG_RUNTIME_DIR/shmbus` if that is in memory and belongs to this user; else `/dev/shm/shmbus-<euid>`. Made with mode
    /// 0700 if it is missing.
    ///
    /// # Errors
    /// It cannot be made, is open to everybody, or is not a tmpfs; or it belongs to another user and was not named by `SHMBUS_DIR`.
    pub fn from_env() -> Result<Directory, DirectoryError> {
        let (path, source) = Directory::path_from_env();
        Directory::named(path, source).made()
    }

    /// Where [`Directory::from_env`] looks, and why there. Makes and checks nothing.
    pub fn path_from_env() -> (PathBuf, PathSource) {
        let not_empty = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(path) = not_empty("SHMBUS_DIR") {
            return (path.into(), PathSource::ShmbusDir);
        }
        let mut source = PathSource::Fallback;
        if let Some(runtime) = not_empty("XDG_RUNTIME_DIR").map(PathBuf::from) {
            // Another user's may not be opened, but asked for its owner.
            let owner = std::fs::metadata(&runtime).map(|metadata| metadata.uid());
            let in_memory = || {
                shm::open_directory(&runtime)
                    .and_then(|directory| shm::filesystem(directory.as_fd()))
                    .map_or_else(|error| is_passing(&error), |filesystem| filesystem.is_tmpfs)
            };
            match owner {
                Ok(uid) if uid != shm::effective_uid() => {
                    source = PathSource::ForeignRuntimeDir { uid };
                }
                Ok(_) if in_memory() => return (runtime.join("shmbus"), PathSource::RuntimeDir),
                _ => {}
            }
        }
        (format!("/dev/shm/shmbus-{}", shm::effective_uid()).into(), source)
    }

    /// The directory `path`, made with mode 0700 if only it is missing.
    ///
    /// # Errors
    /// It cannot be made, is open to everybody, or is not a tmpfs (`SHMBUS_ALLOW_DISK=1` accepts other file systems). One of another user can be
    /// observed; to create or join a topic in it is the error then.
    pub fn at(path: impl AsRef<Path>) -> Result<Directory, DirectoryError> {
        Directory::named(path, PathSource::Given).made()
    }

    /// The directory `path`, without a look at it: each use checks it, and only creating makes it if it is missing. For who only reads.
    /// `source` is what decided for it, as [`Directory::path_from_env`] says.
    pub fn named(path: impl AsRef<Path>, source: PathSource) -> Directory {
        Directory { path: path.as_ref().to_path_buf(), source }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What decided for this path.
    pub fn source(&self) -> PathSource {
        self.source
    }

    /// Makes it if it is missing, and checks that it can be observed at least.
    fn made(self) -> Result<Directory, DirectoryError> {
        if self.find(Purpose::Observe)?.is_none() {
            self.open()?;
        }
        Ok(self)
    }

    /// The directory, made if it is missing, checked: for who creates.
    pub(crate) fn open(&self) -> Result<OwnedFd, DirectoryError> {
        let fd = match shm::open_directory(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make().map_err(self.failed("make it"))?;
                shm::open_directory(&self.path)
            }
            other => other,
        };
        self.checked(fd.map_err(self.failed("open it"))?, Purpose::Join)
    }

    /// The directory, checked for `purpose`; `None`: it is missing, and could be made.
    pub(crate) fn find(&self, purpose: Purpose) -> Result<Option<OwnedFd>, DirectoryError> {
        match shm::open_directory(&self.path) {
            Ok(fd) => self.checked(fd, purpose).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.parent() {
                Ok(parent) if shm::open_directory(parent).is_ok() => Ok(None),
                _ => Err(self.failed("open it")(error)),
            },
            Err(error) => Err(self.failed("open it")(error)),
        }
    }

    fn checked(&self, fd: OwnedFd, purpose: Purpose) -> Result<OwnedFd, DirectoryError> {
        let path = || self.path.clone();
        let owner = shm::owner(fd.as_fd()).map_err(self.failed("ask for its owner"))?;
        let euid = shm::effective_uid();
        let is_named = matches!(self.source, PathSource::Given | PathSource::ShmbusDir);
        if owner.uid != euid && owner.uid != 0 && (purpose == Purpose::Join || !is_named) {
            return Err(DirectoryError::Owner { path: path(), uid: owner.uid, euid });
        }
        if owner.mode & 0o002 != 0 {
            return Err(DirectoryError::Mode { path: path(), mode: owner.mode & 0o7777 });
        }
        let filesystem =
            shm::filesystem(fd.as_fd()).map_err(self.failed("ask for its file system"))?;
        let disk_allowed = std::env::var_os("SHMBUS_ALLOW_DISK").is_some_and(|value| value == "1");
        if !filesystem.is_tmpfs && !disk_allowed {
            return Err(DirectoryError::NotTmpfs { path: path() });
        }
        Ok(fd)
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> DirectoryError {
        let path = self.path.clone();
        move |source| DirectoryError::Io { path, action, source }
    }

    fn parent(&self) -> io::Result<&Path> {
        match self.path.parent() {
            None => Err(io::ErrorKind::InvalidInput.into()),
            Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
            Some(parent) => Ok(parent),
        }
    }

    fn make(&self) -> io::Result<()> {
        let name = self.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = shm::open_directory(self.parent()?)?;
        let made = shm::make_directory_at(parent.as_fd(), name, 0o700);
        directory::already_there(made)
    }

    /// Names of all topics, sorted. A directory that may not be read is among them: whether it is that of a topic, or of several, cannot be seen.
    /// None where the directory is missing.
    ///
    /// # Errors
    /// The directory cannot be used or read.
    pub fn topics(&self) -> Result<Vec<String>, DirectoryError> {
        self.names(TOPIC, true)
    }

    /// Names of all synchronisation objects ([`sync`](crate::sync)) that can be seen, sorted. None where the directory is missing.
    ///
    /// # Errors
    /// The directory cannot be used or read.
    pub fn sync_objects(&self) -> Result<Vec<String>, DirectoryError> {
        self.names(SYNC, false)
    }

    fn names(&self, leaf: &str, unreadable: bool) -> Result<Vec<String>, DirectoryError> {
        let mut names = Vec::new();
        let Some(fd) = self.find(Purpose::Observe)? else { return Ok(names) };
        collect(fd.as_fd(), leaf, unreadable, "", &mut names).map_err(self.failed("list it"))?;
        names.sort();
        Ok(names)
    }
}

/// Appends the names below `fd` that have a directory `leaf` and, where `unreadable` says so, those that may have one.
fn collect(
    fd: BorrowedFd<'_>,
    leaf: &str,
    unreadable: bool,
    name: &str,
    names: &mut Vec<String>,
) -> io::Result<()> {
    for child in shm::list_at(fd)? {
        if child == leaf {
            if TopicName::new(name).is_ok() {
                names.push(name.to_owned());
            }
        } else if !child.starts_with('.') {
            let path = if name.is_empty() { child.clone() } else { format!("{name}/{child}") };
            let below = shm::open_directory_at(fd, &child)
                .and_then(|below| collect(below.as_fd(), leaf, unreadable, &path, names));
            match below {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    let is_name = TopicName::new(&path).is_ok();
                    names.extend((unreadable && is_name).then_some(path));
                }
                Err(error) if is_passing(&error) => return Err(error),
                // Done; or a file that is not ours, or a directory removed meanwhile.
                _ => {}
            }
        }
    }
    Ok(())
}
